#include "fsserver/host_paths.h"
#include "fsserver/tree_walk.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct host_scope scope;
static char base[64];
static int base_fd = -1;

static void shell(const char *command)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", command, "sh", base, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	ck_assert_int_eq(status, 0);
}

static void set_up(void)
{
	snprintf(base, sizeof(base), "/tmp/host-paths-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(base));
	shell("cd \"$1\" && mkdir -p d/e/f && echo text >file && ln -s /etc out && ln -s file in "
	      "&& mkfifo fifo && ln -s /proc/self/fd magic && echo x >d/e/f/deep");
	base_fd = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(base_fd, 0);
	ck_assert_int_eq(host_scope_init(&scope, false), 0);
}

static void tear_down(void)
{
	close(base_fd);
	host_scope_close(&scope);
	shell("rm -rf \"$1\"");
}

START_TEST(only_components_are_opened)
{
	static const char *const bad[] = { "", ".", "..", "d/e", "/etc", "../x" };
	int fd;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_int_eq(host_open_child(&scope, base_fd, bad[i], &fd), -EINVAL);
	ck_assert_int_eq(host_open_child(&scope, base_fd, "none", &fd), -ENOENT);
	ck_assert_int_eq(host_open_child(&scope, base_fd, "file", &fd), 0);
	close(fd);
}
END_TEST

START_TEST(symlinks_are_named_and_not_followed)
{
	struct statx stat;
	int link;
	int fd;

	ck_assert_int_eq(host_open_child(&scope, base_fd, "out", &link), 0);
	ck_assert_int_eq(host_stat(link, &stat), 0);
	ck_assert(S_ISLNK(stat.stx_mode));
	ck_assert_int_eq(host_open_child(&scope, link, "passwd", &fd), -ENOTDIR);
	ck_assert_int_eq(host_reopen(&scope, link, O_RDONLY, &fd), -ELOOP);
	close(link);
	ck_assert_int_eq(host_open_below(&scope, base_fd, "out/passwd", &fd), -ELOOP);
	ck_assert_int_eq(host_open_below(&scope, base_fd, "../../etc", &fd), -EXDEV);
	ck_assert_int_eq(host_create_file(base_fd, "in", 0644, &fd), -EEXIST);
	ck_assert_int_eq(host_open_directory(base_fd, "out", &fd), -ENOTDIR);
}
END_TEST

START_TEST(special_files_are_not_opened)
{
	int fifo;
	int fd;

	ck_assert_int_eq(host_open_child(&scope, base_fd, "fifo", &fifo), 0);
	ck_assert_int_eq(host_reopen(&scope, fifo, O_RDONLY, &fd), -ENXIO);
	ck_assert_int_eq(host_reopen(&scope, fifo, O_WRONLY, &fd), -ENXIO);
	close(fifo);
}
END_TEST

START_TEST(files_are_reopened_without_surprises)
{
	int path_fd;
	int fd;
	char text[8] = "";

	ck_assert_int_eq(host_open_child(&scope, base_fd, "file", &path_fd), 0);
	ck_assert_int_eq(host_reopen(&scope, path_fd, O_RDONLY, &fd), 0);
	ck_assert_int_eq(read(fd, text, sizeof(text)), 5);
	close(fd);
	/* O_TRUNC must never come through here. */
	ck_assert_int_eq(host_reopen(&scope, path_fd, O_WRONLY | O_TRUNC, &fd), -EINVAL);
	ck_assert_int_eq(host_reopen(&scope, path_fd, O_RDONLY | O_CREAT, &fd), -EINVAL);
	close(path_fd);
}
END_TEST

START_TEST(mounts_are_crossed_only_where_allowed)
{
	struct host_scope crossing;
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd;

	ck_assert_int_eq(host_scope_init(&crossing, true), 0);
	ck_assert_int_eq(host_open_child(&scope, root, "proc", &fd), -EXDEV);
	/* Not even then: it is a pseudo file system. */
	ck_assert_int_eq(host_open_child(&crossing, root, "proc", &fd), -EXDEV);
	host_scope_close(&crossing);
	close(root);
}
END_TEST

START_TEST(creation_strips_setuid)
{
	struct statx stat;
	int fd;

	umask(0);
	ck_assert_int_eq(host_create_file(base_fd, "new", 06777, &fd), 0);
	ck_assert_int_eq(host_stat(fd, &stat), 0);
	ck_assert_int_eq(stat.stx_mode & 07777, 0777);
	close(fd);
	ck_assert_int_eq(host_create_file(base_fd, "new", 0644, &fd), -EEXIST);
}
END_TEST

START_TEST(the_kernel_tells_where_things_are)
{
	char path[PATH_MAX];
	char wanted[PATH_MAX];
	int fd;

	ck_assert_int_eq(host_open_below(&scope, base_fd, "d/e", &fd), 0);
	ck_assert_int_gt(host_path_of(&scope, fd, path, sizeof(path)), 0);
	snprintf(wanted, sizeof(wanted), "%s/d/e", base);
	ck_assert_str_eq(path, wanted);
	shell("mv \"$1\"/d \"$1\"/moved");
	ck_assert_int_gt(host_path_of(&scope, fd, path, sizeof(path)), 0);
	snprintf(wanted, sizeof(wanted), "%s/moved/e", base);
	ck_assert_str_eq(path, wanted);
	ck_assert_int_eq(host_path_of(&scope, fd, path, 5), -ENAMETOOLONG);
	close(fd);
}
END_TEST

static int count_entry(const struct tree_entry *entry, void *context)
{
	unsigned *count = context;

	++*count;
	return strcmp(entry->path, "d/e/f/deep") == 0 ? 77 : 0;
}

START_TEST(walks_are_bounded)
{
	unsigned count = 0;
	int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_eq(tree_walk(fd, 1000, count_entry, &count), 77);
	ck_assert_int_eq(tree_walk(fd, 2, count_entry, &count), -E2BIG);
	shell("rm \"$1\"/d/e/f/deep");
	count = 0;
	ck_assert_int_eq(tree_walk(fd, 1000, count_entry, &count), 0);
	ck_assert_uint_eq(count, 8);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("host_paths");
	TCase *tests = tcase_create("paths");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, only_components_are_opened);
	tcase_add_test(tests, symlinks_are_named_and_not_followed);
	tcase_add_test(tests, special_files_are_not_opened);
	tcase_add_test(tests, files_are_reopened_without_surprises);
	tcase_add_test(tests, mounts_are_crossed_only_where_allowed);
	tcase_add_test(tests, creation_strips_setuid);
	tcase_add_test(tests, the_kernel_tells_where_things_are);
	tcase_add_test(tests, walks_are_bounded);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
