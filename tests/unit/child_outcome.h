/* What becomes of a process that locks itself: run in a child. */
#ifndef TESTS_UNIT_CHILD_OUTCOME_H
#define TESTS_UNIT_CHILD_OUTCOME_H

#include <check.h>
#include <sys/wait.h>
#include <unistd.h>

/* How a child that ran `body` ended: its exit status, or 1000 + the signal that killed it. */
static inline int outcome(int (*body)(void))
{
	pid_t child = fork();
	int status = 0;

	ck_assert_int_ge(child, 0);
	if (child == 0)
		_exit(body());
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

#endif
