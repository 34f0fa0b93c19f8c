/* jail/jail.h, "filters": what is compiled beforehand and then locks a process or a thread. */
#include "base/checked.h"
#include "jail/jail.h"
#include "tests/unit/child_outcome.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct jail_syscall calls[] = { JAIL_CALL(SYS_geteuid) };
static const struct jail_syscall_set set = JAIL_SET(calls);
static const struct jail_syscall_set *const sets[] = { &jail_calls_process,
						       &jail_calls_thread_filter, &set };
static int pipe_from_thread[2], pipe_to_thread[2];

static struct jail_filter *compiled(void)
{
	struct jail_filter *filter = NULL;

	if (jail_filter_compile(sets, ARRAY_LENGTH(sets), &filter) < 0)
		_exit(95);
	return filter;
}

static int enter(const struct jail_filter *filter, struct jail_report *report)
{
	const struct jail_spec spec = { .component = "test",
					.filter = filter,
					.keep_all_fds = true };

	return jail_enter(&spec, report);
}

static void call_unlisted(void)
{
	syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
}

static int listed(void)
{
	struct jail_filter *filter = compiled();
	unsigned permitted = filter->calls;
	struct jail_report report;

	if (enter(filter, &report) < 0)
		return 1;
	free(filter);
	(void)syscall(SYS_geteuid);
	return permitted > 0 && report.seccomp_calls == permitted ? 0 : 2;
}

static int unlisted(void)
{
	struct jail_report report;

	if (enter(compiled(), &report) == 0)
		call_unlisted();
	return 0;
}

static void *unlisted_after_byte(void *argument)
{
	char byte;

	if (read(pipe_to_thread[0], &byte, 1) == 1)
		call_unlisted();
	return argument;
}

static int unlisted_in_old_thread(void)
{
	struct jail_report report;
	pthread_t thread;

	if (pipe(pipe_to_thread) < 0 || pthread_create(&thread, NULL, unlisted_after_byte, NULL) ||
	    enter(compiled(), &report) < 0 || write(pipe_to_thread[1], "x", 1) != 1)
		return 1;
	pthread_join(thread, NULL);
	return 0;
}

START_TEST(a_process_is_held)
{
	ck_assert_int_eq(outcome(listed), 0);
	ck_assert_int_eq(outcome(unlisted), 1000 + SIGSYS);
	ck_assert_int_eq(outcome(unlisted_in_old_thread), 1000 + SIGSYS);
}
END_TEST

/* Locks itself, says so, and is there until it is told to make a call. */
static void *locked_thread(void *argument)
{
	struct jail_filter *filter = compiled();

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || jail_filter_enter_thread(filter) < 0 ||
	    write(pipe_from_thread[1], "x", 1) != 1)
		_exit(94);
	free(filter);
	return unlisted_after_byte(argument);
}

static void start_locked_thread(pthread_t *thread)
{
	char byte;

	if (pipe(pipe_to_thread) < 0 || pipe(pipe_from_thread) < 0 ||
	    pthread_create(thread, NULL, locked_thread, NULL) ||
	    read(pipe_from_thread[0], &byte, 1) != 1)
		_exit(93);
}

static int unlisted_beside_locked_thread(void)
{
	pthread_t thread;

	start_locked_thread(&thread);
	call_unlisted();
	return 0;
}

static int unlisted_in_locked_thread(void)
{
	pthread_t thread;

	start_locked_thread(&thread);
	if (write(pipe_to_thread[1], "x", 1) != 1)
		return 1;
	pthread_join(thread, NULL);
	return 0;
}

START_TEST(a_thread_is_held_alone)
{
	ck_assert_int_eq(outcome(unlisted_beside_locked_thread), 0);
	ck_assert_int_eq(outcome(unlisted_in_locked_thread), 1000 + SIGSYS);
}
END_TEST

/* It cannot follow, and must not be left out in silence. */
static int process_beside_locked_thread(void)
{
	struct jail_report report;
	pthread_t thread;

	start_locked_thread(&thread);
	return enter(compiled(), &report) == -ESRCH && report.failed_stage &&
			       strcmp(report.failed_stage, "seccomp") == 0
		       ? 0
		       : 1;
}

START_TEST(a_process_with_a_locked_thread_is_refused)
{
	ck_assert_int_eq(outcome(process_beside_locked_thread), 0);
}
END_TEST

START_TEST(a_bad_entry_does_not_compile)
{
	static const struct jail_syscall bad[] = { JAIL_CALL_IF(SYS_dup, { .argument = 6 }) };
	static const struct jail_syscall_set bad_set = JAIL_SET(bad);
	static const struct jail_syscall_set *const bad_sets[] = { &bad_set };
	struct jail_filter *filter = NULL;

	ck_assert_int_eq(jail_filter_compile(bad_sets, 1, &filter), -EINVAL);
	ck_assert_ptr_null(filter);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("jail_filter");
	TCase *tests = tcase_create("jail_filter");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, a_process_is_held);
	tcase_add_test(tests, a_thread_is_held_alone);
	tcase_add_test(tests, a_process_with_a_locked_thread_is_refused);
	tcase_add_test(tests, a_bad_entry_does_not_compile);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
