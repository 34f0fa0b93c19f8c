/*
 * Starting the daemons and short-lived helpers of a session.
 *
 * Every child dies with this process (PR_SET_PDEATHSIG), sits in a session of its own so that a
 * terminal's signals do not reach it, has default signal dispositions, an empty signal mask,
 * /dev/null as standard input, and no descriptors but 0, 1, 2 and those it is given.
 */
#ifndef CLI_LAUNCH_H
#define CLI_LAUNCH_H

#include "cli/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct child {
	const char *role; /* static: "vmm", "fsserver", "audit" */
	pid_t pid;	  /* 0: never started */
	int pidfd;	  /* -1 when closed */
	bool ended;
	int wait_status; /* as from waitpid, once ended */
};

#define CHILD_INIT(child_role)                                                                     \
	{                                                                                          \
		.role = (child_role), .pidfd = -1                                                  \
	}

struct child_streams {
	int output; /* becomes standard output; -1: /dev/null */
	int error;  /* becomes standard error; -1: inherited */
	int input;  /* becomes standard input; -1: /dev/null */
};

/* Starts `program`. `fds` stay open in the child under the same numbers, and those below zero are
 * none; they remain the caller's here. */
int child_start(struct child *child, const char *program, char *const *arguments, const int *fds,
		size_t fd_count, const struct child_streams *streams, struct problem *problem);
struct paths;

/* The same for a daemon, NAME of this build or installation: arguments->items[0] becomes its path,
 * and `flag` (may be NULL) follows the others. */
int child_start_daemon(struct child *child, const struct paths *paths, const char *name,
		       struct text_list *arguments, const char *flag, const int *fds,
		       size_t fd_count, struct problem *problem);
/* "FLAG NUMBER" and "FLAG TEXT" for such arguments. */
void argument_number(struct text_list *arguments, const char *flag, long number);
void argument_text(struct text_list *arguments, const char *flag, const char *text);
/* A Unix socket pair, one end for the child. */
int make_pair(int type, int *ret_ours, int *ret_theirs, struct problem *problem);

/* Looks whether it ended, without waiting. True when it has (or never started). */
bool child_poll(struct child *child);
/* Waits up to `timeout_ms` (-1: no limit). True when it has ended. */
bool child_wait(struct child *child, int timeout_ms);
/* SIGKILL, and waits. */
void child_kill(struct child *child);
void child_close(struct child *child);
/* "exit status 3", "signal 9 (Killed)". The caller frees. */
char *child_end_text(const struct child *child);
/* 0..255, or 128 + signal. */
int child_exit_status(const struct child *child);

/* Runs a helper to its end and collects what it prints, at most `limit` bytes. Standard error is
 * inherited. Returns 0 when it could be run; *ret_status is its exit status. */
int run_helper(const char *program, char *const *arguments, size_t limit, char **ret_output,
	       size_t *ret_length, int *ret_status, struct problem *problem);

#endif
