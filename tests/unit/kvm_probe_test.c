/* The verdict on this machine's KVM, and how it is kept. */
#include "base/checked.h"
#include "vmm/engine.h"
#include "vmm/kvm_probe.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char directory[] = "/tmp/matchlock-probe-XXXXXX";
static char file[128], folder[64];

static void set_up(void)
{
	memcpy(directory + sizeof(directory) - 7, "XXXXXX", 6);
	ck_assert_ptr_nonnull(mkdtemp(directory));
	(void)snprintf(folder, sizeof(folder), "%s/matchlock", directory);
	(void)snprintf(file, sizeof(file), "%s/kvm-probe", folder);
	ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", directory, 1), 0);
}

static void tear_down(void)
{
	(void)unlink(file);
	(void)rmdir(folder);
	ck_assert_int_eq(rmdir(directory), 0);
}

static void write_verdict(const char *text)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

START_TEST(verdict_is_kept)
{
	char first[256] = "", second[256] = "", boot_id[37] = "", text[256];
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
	int verdict = kvm_probe_cached(first, sizeof(first));
	struct stat status;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(read(fd, boot_id, 36), 36);
	close(fd);
	ck_assert_uint_gt(strlen(first), 0);
	if (verdict == -ENOENT || verdict == -EACCES) {
		/* That is asked each time. */
		ck_assert_int_lt(stat(file, &status), 0);
		return;
	}
	ck_assert_int_eq(stat(file, &status), 0);
	ck_assert_uint_eq(status.st_mode & 0777, 0600);
	ck_assert_int_eq(kvm_probe_cached(second, sizeof(second)), verdict);
	ck_assert_str_eq(first, second);
	/* What is there is believed if it is of this boot. */
	(void)snprintf(text, sizeof(text), "%s 95 a verdict", boot_id);
	write_verdict(text);
	ck_assert_int_eq(kvm_probe_cached(second, sizeof(second)), -95);
	ck_assert_str_eq(second, "a verdict");
	/* And nothing else. */
	boot_id[0] = boot_id[0] == '0' ? '1' : '0';
	(void)snprintf(text, sizeof(text), "%s 7 a verdict", boot_id);
	write_verdict(text);
	ck_assert_int_eq(kvm_probe_cached(second, sizeof(second)), verdict);
	boot_id[0] = boot_id[0] == '0' ? '1' : '0';
	(void)snprintf(text, sizeof(text), "%s -7 a verdict", boot_id);
	write_verdict(text);
	ck_assert_int_eq(kvm_probe_cached(second, sizeof(second)), verdict);
	write_verdict("");
	ck_assert_int_eq(kvm_probe_cached(second, sizeof(second)), verdict);
}
END_TEST

START_TEST(verdict_decides)
{
	char why[ENGINE_TEXT_MAX];
	const struct engine *engine = NULL;
	int verdict = kvm_probe_run(why, sizeof(why));

	if (engine_select("auto", &engine, why, sizeof(why)) < 0) {
		ck_assert_int_ne(verdict, 0);
		return;
	}
	ck_assert_str_eq(engine->name, verdict == 0 ? "kvm" : "qemu");
	ck_assert_int_eq(strstr(why, "weaker boundary") != NULL, verdict != 0);
}
END_TEST

START_TEST(no_place_to_keep_it)
{
	char why[256] = "", again[256] = "";
	int verdict;

	ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", "/nosuch", 1), 0);
	ck_assert_int_eq(setenv("XDG_CACHE_HOME", "relative", 1), 0);
	ck_assert_int_eq(setenv("HOME", "/dev/null", 1), 0);
	verdict = kvm_probe_cached(why, sizeof(why));
	ck_assert_int_eq(kvm_probe_cached(again, sizeof(again)), verdict);
	ck_assert_uint_gt(strlen(why), 0);
}
END_TEST

/* A guest that did all it was to, in a loop of 5000 us: the slowest that is taken. */
static const struct {
	struct kvm_probe_outcome outcome;
	int verdict;
	const char *part;
} verdicts[] = {
	{ { .exit_reason = KVM_EXIT_IO, .runs = 4, .microseconds = 1 }, 0, "in 1 us" },
	{ { .exit_reason = KVM_EXIT_IO, .runs = 4, .microseconds = 5000 }, 0, "at full speed" },
	{ { .exit_reason = KVM_EXIT_IO, .runs = 4, .microseconds = 5001 },
	  -EOPNOTSUPP,
	  "far too slow (5001 us for a loop of 100,000)" },
	{ { .exit_reason = KVM_EXIT_IO, .runs = 4, .microseconds = 700000 },
	  -EOPNOTSUPP,
	  "it emulates" },
	{ { .error = EOPNOTSUPP, .exit_reason = KVM_EXIT_INTERNAL_ERROR },
	  -EOPNOTSUPP,
	  "cannot run what Linux needs (exit reason 17 at cmpxchg16b, xrstor or int3)" },
	{ { .error = EOPNOTSUPP, .exit_reason = KVM_EXIT_SHUTDOWN, .runs = 2, .microseconds = 1 },
	  -EOPNOTSUPP,
	  "cannot run what Linux needs (exit reason 8)" },
	{ { .error = EIO, .exit_reason = KVM_EXIT_IO, .runs = 1, .step = "KVM_RUN" },
	  -EIO,
	  "/dev/kvm: KVM_RUN: " },
	{ { .error = EOPNOTSUPP, .step = "KVM_CAP_IRQCHIP" },
	  -EOPNOTSUPP,
	  "/dev/kvm: KVM_CAP_IRQCHIP: " },
	{ { .error = EACCES, .step = "/dev/kvm" }, -EACCES, "Permission denied" },
};

START_TEST(verdict_on_an_outcome)
{
	char why[256] = "";

	ck_assert_int_eq(kvm_probe_judge(&verdicts[_i].outcome, why, sizeof(why)),
			 verdicts[_i].verdict);
	ck_assert_msg(strstr(why, verdicts[_i].part) != NULL, "%s", why);
}
END_TEST

/* Every `matchlock run` without a verdict waits for this; how long is for the reader to judge. */
static void show_time(void)
{
	struct timespec before, after;
	char why[256] = "";

	(void)clock_gettime(CLOCK_MONOTONIC, &before);
	(void)kvm_probe_run(why, sizeof(why));
	(void)clock_gettime(CLOCK_MONOTONIC, &after);
	printf("# the probe took %ld ms: %s\n",
	       (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000,
	       why);
}

int main(void)
{
	Suite *suite = suite_create("kvm_probe");
	TCase *tests = tcase_create("kvm_probe");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, verdict_is_kept);
	tcase_add_test(tests, verdict_decides);
	tcase_add_test(tests, no_place_to_keep_it);
	tcase_add_loop_test(tests, verdict_on_an_outcome, 0, (int)ARRAY_LENGTH(verdicts));
	suite_add_tcase(suite, tests);
	show_time();
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
