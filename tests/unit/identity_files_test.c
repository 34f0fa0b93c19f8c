/* guest-init/identity_files.h: what is written into a layer apart from the image, and when not. */
#include "guest-init/identity_files.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/identity-files-XXXXXX";
static char image[64];
static char etc[64];
static int root = -1;
static struct agent_config config;
static struct failure failure;

static void put(const char *path, mode_t mode, const char *text)
{
	int fd = openat(root, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void set_up(void)
{
	static const char *const directories[] = { "image",	      "image/etc",
						   "image/bin",	      "image/usr",
						   "image/usr/share", "image/usr/share/zoneinfo",
						   "image/usr/local", "etc" };

	memcpy(directory + strlen(directory) - 6, "XXXXXX", 6);
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(image, sizeof(image), "%s/image", directory);
	snprintf(etc, sizeof(etc), "%s/etc", directory);
	root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(root, 0);
	for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++)
		ck_assert_int_eq(mkdirat(root, directories[i], 0755), 0);
	put("image/etc/passwd", 0640, "root:x:0:0::/root:/bin/sh");
	put("image/etc/group", 0644, "root:x:0:\nme:x:1000:\n");
	config = (struct agent_config){
		.flags = AGENT_CONFIG_NO_NETWORK,
		.uid = 1000,
		.gid = 1000,
		.user = "me",
		.group = "me",
		.home = "/home/me",
		.hostname = "box",
		.time_zone = "Europe/Berlin",
	};
	failure = (struct failure){ 0 };
}

static void tear_down(void)
{
	char *const arguments[] = { (char[]){ "rm" }, (char[]){ "-rf" }, directory, NULL };
	pid_t child = fork();

	if (child == 0) {
		execv("/bin/rm", arguments);
		_exit(1);
	}
	close(root);
}

static void expect(const char *path, mode_t mode, const char *text)
{
	char got[256] = "";
	struct stat status;
	int fd = openat(root, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &status), 0);
	ck_assert_uint_eq(status.st_mode & 07777, mode);
	ck_assert_int_ge(read(fd, got, sizeof(got) - 1), 0);
	ck_assert_str_eq(got, text);
	close(fd);
}

static bool is_there(const char *path)
{
	struct stat status;

	return fstatat(root, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool written(void)
{
	bool written = false;

	ck_assert_int_eq(identity_files_write_apart(&config, image, etc, &written, &failure), 0);
	ck_assert_ptr_null(failure.stage);
	return written;
}

START_TEST(what_is_missing_is_added_in_the_layer_alone)
{
	char target[64] = "";

	ck_assert_int_eq(symlinkat("/usr/local/bash", root, "image/bin/bash"), 0);
	put("image/usr/local/bash", 0755, "");
	ck_assert_int_eq(mkdirat(root, "image/usr/share/zoneinfo/Europe", 0755), 0);
	put("image/usr/share/zoneinfo/Europe/Berlin", 0644, "");
	ck_assert(written());
	expect("etc/passwd", 0640,
	       "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/bash\n");
	expect("etc/hosts", 0644, "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 box\n");
	ck_assert(!is_there("etc/group"));
	ck_assert(is_there("etc/resolv.conf"));
	ck_assert_int_gt(readlinkat(root, "etc/localtime", target, sizeof(target) - 1), 0);
	ck_assert_str_eq(target, "/usr/share/zoneinfo/Europe/Berlin");
	expect("image/etc/passwd", 0640, "root:x:0:0::/root:/bin/sh");
	ck_assert(!is_there("image/etc/hosts"));
}
END_TEST

START_TEST(what_is_missing_in_the_image_is_left)
{
	config.uid = 0;
	put("image/etc/hosts", 0644, "127.0.1.1 box\n");
	ck_assert(written());
	ck_assert(!is_there("etc/passwd"));
	ck_assert(!is_there("etc/hosts"));
	ck_assert(!is_there("etc/localtime"));
}
END_TEST

START_TEST(a_shell_that_is_missing_is_not_named)
{
	ck_assert(written());
	expect("etc/passwd", 0640, "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n");
}
END_TEST

START_TEST(links_are_left_to_the_overlay)
{
	put("image/usr/hosts", 0644, "1.2.3.4 else\n");
	ck_assert_int_eq(symlinkat("/usr/hosts", root, "image/etc/hosts"), 0);
	ck_assert(!written());
	ck_assert(!is_there("etc/passwd"));
	ck_assert(!is_there("etc/hosts"));
	ck_assert(!is_there("etc/resolv.conf"));
}
END_TEST

START_TEST(what_is_no_file_is_left_to_the_overlay)
{
	ck_assert_int_eq(mkdirat(root, "image/etc/hosts", 0755), 0);
	ck_assert(!written());
	ck_assert(!is_there("etc/passwd"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("identity_files");
	TCase *tests = tcase_create("identity_files");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, what_is_missing_is_added_in_the_layer_alone);
	tcase_add_test(tests, what_is_missing_in_the_image_is_left);
	tcase_add_test(tests, a_shell_that_is_missing_is_not_named);
	tcase_add_test(tests, links_are_left_to_the_overlay);
	tcase_add_test(tests, what_is_no_file_is_left_to_the_overlay);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
