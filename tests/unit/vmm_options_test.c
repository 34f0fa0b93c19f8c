#include "vmm/engine.h"
#include "vmm/options.h"

#include <check.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define ARGUMENTS_MAX 40

static struct vmm_options options;
static char why[256];

/* Parses the words of `line`. */
static int parse(const char *line)
{
	static char copy[512];
	char *arguments[ARGUMENTS_MAX], *rest = NULL;
	int count = 0;

	(void)snprintf(copy, sizeof(copy), "matchlock-vmm %s", line);
	for (char *word = strtok_r(copy, " ", &rest); word && count < ARGUMENTS_MAX - 1;
	     word = strtok_r(NULL, " ", &rest))
		arguments[count++] = word;
	arguments[count] = NULL;
	optind = 0;
	why[0] = '\0';
	return vmm_options_parse(count, arguments, &options, why, sizeof(why));
}

#define EIGHT_DISKS                                                                                \
	"--disk 10 --disk 11 --disk 12 --disk 13 --disk 14 --disk 15 --disk 16 --disk 17 "
#define NEEDED "--kernel k --initrd i --cid 3 --socket-base /s/v "

START_TEST(all_options)
{
	ck_assert_int_eq(parse(NEEDED "--engine qemu --append x=1 --cpus 2 --memory 1024 "
				      "--audit-fd 3 --control-fd 4 --console-fd 5 -q"),
			 0);
	ck_assert_str_eq(options.engine, "qemu");
	ck_assert_str_eq(options.machine.kernel, "k");
	ck_assert_str_eq(options.machine.append, "x=1");
	ck_assert_uint_eq(options.machine.cpus, 2);
	ck_assert_uint_eq(options.machine.memory_mib, 1024);
	ck_assert_uint_eq(options.cid, 3);
	ck_assert_int_eq(options.audit_fd, 3);
	ck_assert_int_eq(options.control_fd, 4);
	ck_assert_int_eq(options.console_fd, 5);
	ck_assert_int_eq(options.level, LOG_LEVEL_ERROR);
	ck_assert_int_eq(parse(NEEDED), 0);
	ck_assert_str_eq(options.engine, "auto");
	ck_assert_int_eq(options.control_fd, -1);
}
END_TEST

START_TEST(disks)
{
	ck_assert_int_eq(parse(NEEDED "--disk 6 --disk 7:ro --disk 8:serial=a.B-c_9 "
				      "--disk 9:ro:serial=12345678901234567890"),
			 0);
	ck_assert_uint_eq(options.disk_count, 4);
	ck_assert_int_eq(options.disks[0].fd, 6);
	ck_assert(!options.disks[0].read_only);
	ck_assert_str_eq(options.disks[0].serial, "");
	ck_assert_int_eq(options.disks[1].fd, 7);
	ck_assert(options.disks[1].read_only);
	ck_assert(!options.disks[2].read_only);
	ck_assert_str_eq(options.disks[2].serial, "a.B-c_9");
	ck_assert(options.disks[3].read_only);
	ck_assert_str_eq(options.disks[3].serial, "12345678901234567890");
	ck_assert_int_eq(parse(NEEDED), 0);
	ck_assert_uint_eq(options.disk_count, 0);
	ck_assert_int_eq(parse(NEEDED EIGHT_DISKS), 0);
	ck_assert_uint_eq(options.disk_count, VMM_DISKS_MAX);
}
END_TEST

static const char *const bad[] = {
	"",
	"--kernel k --initrd i --cid 3",
	"--kernel k --initrd i --socket-base /s/v",
	NEEDED "stray",
	NEEDED "--unknown",
	NEEDED "--memory",
	NEEDED "--memory 63",
	NEEDED "--memory 99999999999999999999",
	NEEDED "--cpus 0",
	NEEDED "--cpus 65",
	NEEDED "--cpus 2x",
	NEEDED "--cid 2",
	NEEDED "--cid 4294967295",
	NEEDED "--cid -3",
	NEEDED "--audit-fd 2",
	NEEDED "--audit-fd 2147483648",
	NEEDED "--disk 2",
	NEEDED "--disk -6",
	NEEDED "--disk 4294967302",
	NEEDED "--disk x",
	NEEDED "--disk 6:",
	NEEDED "--disk 6:rw",
	NEEDED "--disk 6:ro:",
	NEEDED "--disk 6:ros",
	NEEDED "--disk 6:ro:ro",
	NEEDED "--disk 6:serial=",
	NEEDED "--disk 6:serial=a:ro",
	NEEDED "--disk 6:serial=a/b",
	NEEDED "--disk 6:serial=123456789012345678901",
	NEEDED "--disk 6 --disk 6:ro",
	NEEDED "--disk 6 --audit-fd 6",
	NEEDED "--memory-fd 6 --disk 6",
	NEEDED "--snapshot 6 --huge-pages",
	NEEDED "--new-snapshot 6 --huge-pages",
	NEEDED EIGHT_DISKS "--disk 18",
};

START_TEST(bad_options)
{
	options.cid = 99;
	ck_assert_int_eq(parse(bad[_i]), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why, "--help"));
	ck_assert_uint_eq(options.cid, 99);
}
END_TEST

START_TEST(engines)
{
	const struct engine *engine = NULL;
	char text[ENGINE_TEXT_MAX];

	ck_assert_int_eq(engine_select("xen", &engine, text, sizeof(text)), -EINVAL);
	ck_assert_ptr_null(engine);
	/* What is asked for is taken, be it doubtful. */
	if (engine_select("kvm", &engine, text, sizeof(text)) == 0)
		ck_assert_str_eq(engine->name, "kvm");
	ck_assert_ptr_nonnull(strstr(text, "/dev/kvm"));
	if (engine_select("qemu", &engine, text, sizeof(text)) == 0) {
		ck_assert_str_eq(engine->name, "qemu");
		ck_assert_ptr_nonnull(strstr(text, "weaker boundary"));
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vmm_options");
	TCase *tests = tcase_create("vmm_options");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, all_options);
	tcase_add_test(tests, disks);
	tcase_add_loop_test(tests, bad_options, 0, (int)(sizeof(bad) / sizeof(bad[0])));
	tcase_add_test(tests, engines);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
