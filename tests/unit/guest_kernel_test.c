/* Which of the cached kernels is taken. */
#include "base/checked.h"
#include "cli/guest_kernel.h"
#include "cli/remove_tree.h"

#include <check.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch[64];
static struct paths paths;
static struct guest_kernel kernel;
static struct problem problem;

static void write_file(const char *text, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* A kernel of that version with an initrd for the initramfs, and the link that names it. */
static void make_kernel(const char *version, const char *link_name)
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	char path[200];
	size_t length;

	snprintf(path, sizeof(path), "%s/kernel/%s", scratch, version);
	ck_assert_int_eq(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/kernel/%s/vmlinux", scratch, version);
	write_file("kernel", path);
	snprintf(path, sizeof(path), "%s/kernel/%s/version", scratch, version);
	write_file(version, path);
	SHA256((const unsigned char *)"programs", strlen("programs"), digest);
	length = (size_t)snprintf(path, sizeof(path), "%s/kernel/%s/initrd-", scratch, version);
	for (size_t i = 0; i < 16; i++)
		length += (size_t)snprintf(path + length, sizeof(path) - length, "%02x", digest[i]);
	snprintf(path + length, sizeof(path) - length, ".cpio");
	write_file("programs and modules", path);
	snprintf(path, sizeof(path), "%s/kernel/%s", scratch, link_name);
	ck_assert_int_eq(symlink(version, path), 0);
}

static void set_up(void)
{
	char path[128];

	snprintf(scratch, sizeof(scratch), "/tmp/guest-kernel-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	snprintf(path, sizeof(path), "%s/kernel", scratch);
	ck_assert_int_eq(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/initramfs.cpio", scratch);
	write_file("programs", path);
	paths = (struct paths){ .cache = scratch, .programs = scratch };
	unsetenv("MATCHLOCK_KERNEL");
}

static void tear_down(void)
{
	guest_kernel_free(&kernel);
	ck_assert_int_eq(remove_tree(scratch), 0);
}

static void expect(const char *version, bool trimmed)
{
	ck_assert_int_eq(guest_kernel_find(&paths, false, &kernel, &problem), 0);
	ck_assert_str_eq(kernel.version, version);
	ck_assert_ptr_nonnull(strstr(kernel.vmlinux, version));
	ck_assert_ptr_nonnull(strstr(kernel.initrd, version));
	ck_assert_int_eq(kernel.trimmed, trimmed);
	guest_kernel_free(&kernel);
}

static void expect_problem(int status, const char *text)
{
	ck_assert_int_eq(guest_kernel_find(&paths, false, &kernel, &problem), -1);
	ck_assert_int_eq(problem.status, status);
	ck_assert_ptr_nonnull(strstr(problem.text, text));
}

START_TEST(debian_alone)
{
	make_kernel("6.1.2-1", "current");
	expect("6.1.2-1", false);
	setenv("MATCHLOCK_KERNEL", "", 1);
	expect("6.1.2-1", false);
	setenv("MATCHLOCK_KERNEL", "trimmed", 1);
	expect_problem(STATUS_USAGE, "make guest-kernel");
}
END_TEST

START_TEST(both)
{
	make_kernel("6.1.2-1", "current");
	make_kernel("6.1.1-1-matchlock", "trimmed");
	expect("6.1.1-1-matchlock", true);
	setenv("MATCHLOCK_KERNEL", "trimmed", 1);
	expect("6.1.1-1-matchlock", true);
	setenv("MATCHLOCK_KERNEL", "debian", 1);
	expect("6.1.2-1", false);
	setenv("MATCHLOCK_KERNEL", "Debian", 1);
	expect_problem(STATUS_USAGE, "\"Debian\"");
}
END_TEST

/* A new build's programs are not in any initrd yet. */
START_TEST(without_initrd)
{
	char path[128];

	make_kernel("6.1.2-1", "current");
	snprintf(path, sizeof(path), "%s/initramfs.cpio", scratch);
	write_file("+", path);
	ck_assert_int_eq(guest_kernel_find(&paths, false, &kernel, &problem), 0);
	ck_assert_str_eq(kernel.version, "6.1.2-1");
	ck_assert_ptr_null(kernel.initrd);
}
END_TEST

START_TEST(neither)
{
	expect_problem(STATUS_SANDBOX, "no guest kernel");
	setenv("MATCHLOCK_KERNEL", "debian", 1);
	expect_problem(STATUS_SANDBOX, "no guest kernel");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guest_kernel");
	TCase *tcase = tcase_create("choice");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_test(tcase, debian_alone);
	tcase_add_test(tcase, both);
	tcase_add_test(tcase, without_initrd);
	tcase_add_test(tcase, neither);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
