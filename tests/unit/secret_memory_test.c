/* proxy/secret_memory.h: what lies there is locked, in no core dump, and fenced. */
#include "proxy/secret_memory.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* The VmFlags line of the mapping that holds `address`. */
static void flags_of(const void *address, char *flags, size_t size)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	char line[512];
	int is_here = 0;

	ck_assert_ptr_nonnull(file);
	flags[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		uintptr_t begin;
		uintptr_t end;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2)
			is_here = (uintptr_t)address >= begin && (uintptr_t)address < end;
		else if (is_here && !strncmp(line, "VmFlags:", 8))
			snprintf(flags, size, "%s", line);
	}
	fclose(file);
}

START_TEST(it_is_locked_and_never_dumped)
{
	char flags[512];
	void *block;

	ck_assert_int_eq(secret_memory_new(10000, &block), 0);
	for (size_t i = 0; i < 10000; i++)
		ck_assert_uint_eq(((unsigned char *)block)[i], 0);
	memset(block, 'x', 10000);
	flags_of(block, flags, sizeof(flags));
	ck_assert_ptr_nonnull(strstr(flags, " lo"));
	ck_assert_ptr_nonnull(strstr(flags, " dd"));
	ck_assert_ptr_nonnull(strstr(flags, " wf"));
	secret_memory_free(block);
	flags_of(block, flags, sizeof(flags));
	ck_assert_str_eq(flags, "");
	secret_memory_free(NULL);
}
END_TEST

START_TEST(a_child_sees_nothing)
{
	void *block;
	pid_t child;
	int status;

	ck_assert_int_eq(secret_memory_new(100, &block), 0);
	memset(block, 'x', 100);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0)
		_exit(((volatile char *)block)[50]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	secret_memory_free(block);
}
END_TEST

/* Reads beside the block end the process: by the signal, or by the sanitizer's exit. */
START_TEST(neighbours_are_out_of_reach)
{
	struct rlimit none = { 0, 0 };
	pid_t child = fork();
	int status;

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		void *block;

		setrlimit(RLIMIT_CORE, &none);
		if (secret_memory_new(10, &block) < 0)
			_exit(0);
		block = (char *)block + (_i == 0 ? -4096 : 4096);
		_exit(*(volatile char *)block * 0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFSIGNALED(status) ? WTERMSIG(status) == SIGSEGV : WEXITSTATUS(status) != 0);
}
END_TEST

START_TEST(without_the_right_to_lock_there_is_none)
{
	struct rlimit none = { 0, 0 };
	pid_t child;
	int status;

	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		void *block;

		/* The superuser may lock whatever the limit is. */
		if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 ||
		    (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0))
			_exit(99);
		_exit(secret_memory_new(100, &block) == -EPERM ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
END_TEST

START_TEST(no_size_overflows)
{
	void *block;

	ck_assert_int_eq(secret_memory_new(SIZE_MAX, &block), -ENOMEM);
	ck_assert_int_eq(secret_memory_new(SIZE_MAX - 100, &block), -ENOMEM);
	ck_assert_int_eq(secret_memory_new(SIZE_MAX / 2, &block), -ENOMEM);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("secret_memory");
	TCase *tests = tcase_create("secret_memory");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, it_is_locked_and_never_dumped);
	tcase_add_test(tests, a_child_sees_nothing);
	tcase_add_loop_test(tests, neighbours_are_out_of_reach, 0, 2);
	tcase_add_test(tests, without_the_right_to_lock_there_is_none);
	tcase_add_test(tests, no_size_overflows);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
