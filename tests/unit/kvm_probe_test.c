/* The verdict on this machine's KVM, and how it is kept. */
#include "vmm/engine.h"
#include "vmm/kvm_probe.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
