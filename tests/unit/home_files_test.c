/* guest-init/home_files.h: what is made in the caller's home, and what is left alone. */
#include "guest-init/home_files.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/home-files-XXXXXX";
static int root = -1;
static struct agent_config config;

static void set_up(void)
{
	memcpy(directory + strlen(directory) - 6, "XXXXXX", 6);
	ck_assert_ptr_nonnull(mkdtemp(directory));
	root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(root, 0);
	/* The way to the home may be a link. */
	ck_assert_int_eq(mkdirat(root, "real", 0755), 0);
	ck_assert_int_eq(mkdirat(root, "real/me", 0700), 0);
	ck_assert_int_eq(symlinkat("real", root, "home"), 0);
	config = (struct agent_config){
		.uid = geteuid(),
		.gid = getegid(),
		.home = "/home/me",
		.file_count = 2,
		.files = { { 0600, "/home/me/.env", "A=b\n", 4 },
			   { 0640, "/home/me/.aws/deep/credentials", "[\0]\n", 4 } },
	};
}

static void tear_down(void)
{
	char command[64];
	char *const arguments[] = { (char[]){ "rm" }, (char[]){ "-rf" }, command, NULL };
	pid_t child = fork();

	snprintf(command, sizeof(command), "%s", directory);
	if (child == 0) {
		execv("/bin/rm", arguments);
		_exit(1);
	}
	close(root);
}

static void expect(const char *path, mode_t mode, const char *text, ssize_t length)
{
	char got[64] = "";
	struct stat status;
	int fd = openat(root, path, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &status), 0);
	ck_assert_uint_eq(status.st_mode & 07777, mode);
	ck_assert_uint_eq(status.st_uid, config.uid);
	ck_assert_int_eq(read(fd, got, sizeof(got)), length);
	ck_assert_mem_eq(got, text, (size_t)length);
	close(fd);
}

START_TEST(files_and_directories_are_the_callers)
{
	struct stat status;
	mode_t mask = umask(0077);

	if (geteuid() == 0)
		config.uid = config.gid = 4711;
	ck_assert_int_eq(home_files_write_at(root, &config), 0);
	umask(mask);
	expect("real/me/.env", 0600, "A=b\n", 4);
	expect("real/me/.aws/deep/credentials", 0640, "[\0]\n", 4);
	ck_assert_int_eq(fstatat(root, "real/me/.aws/deep", &status, 0), 0);
	ck_assert_uint_eq(status.st_mode & 07777, 0700);
	ck_assert_uint_eq(status.st_uid, config.uid);
}
END_TEST

START_TEST(what_is_there_stays)
{
	int fd = openat(root, "real/me/.env", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	ck_assert_int_eq(write(fd, "mine", 4), 4);
	close(fd);
	ck_assert_int_eq(home_files_write_at(root, &config), 0);
	expect("real/me/.env", 0644, "mine", 4);
}
END_TEST

START_TEST(links_in_the_home_are_not_followed)
{
	struct stat status;

	ck_assert_int_eq(mkdirat(root, "else", 0700), 0);
	ck_assert_int_eq(symlinkat("../../else", root, "real/me/.aws"), 0);
	ck_assert_int_lt(home_files_write_at(root, &config), 0);
	ck_assert_int_lt(fstatat(root, "else/deep", &status, 0), 0);
	ck_assert_int_eq(symlinkat("../../else/new", root, "real/me/.link"), 0);
	config.files[0].path = "/home/me/.link";
	config.file_count = 1;
	ck_assert_int_eq(home_files_write_at(root, &config), 0);
	ck_assert_int_lt(fstatat(root, "else/new", &status, 0), 0);
}
END_TEST

START_TEST(a_home_that_is_missing_is_an_error)
{
	config.home = "/home/you";
	ck_assert_int_eq(home_files_write_at(root, &config), -ENOENT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("home_files");
	TCase *tests = tcase_create("home_files");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, files_and_directories_are_the_callers);
	tcase_add_test(tests, what_is_there_stays);
	tcase_add_test(tests, links_in_the_home_are_not_followed);
	tcase_add_test(tests, a_home_that_is_missing_is_an_error);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
