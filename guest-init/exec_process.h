/*
 * Starts one command: its pipes or pty, and the child that becomes it.
 *
 * The child is the leader of a fresh session, in its own process tree (process_tree.h), with
 * default signal handling, the ids, umask, working directory and environment of the request, and
 * no descriptors but 0, 1 and 2. The program is looked up in the PATH of the request's own
 * environment; a text file without #! runs under /bin/sh, as shells do it.
 */
#ifndef GUEST_INIT_EXEC_PROCESS_H
#define GUEST_INIT_EXEC_PROCESS_H

#include "guest-init/process_tree.h"
#include "wire/agent.h"

#include <sys/types.h>

struct exec_process {
	pid_t pid;
	/* The server's ends, non-blocking: input (-1 without), output, errors (-1 with a pty, whose
	 * master is `input` and, duplicated, `output`). */
	int ends[3];
	/* A pty's slave, or -1. Kept open until the command's first process has ended: with no
	 * slave open at all the master would report a hang-up, and closing the master then hangs
	 * up on a process that had merely closed its streams before it exits. */
	int slave_fd;
	/* Carries one struct exec_report if the program could not be run; end of file means that
	 * it runs. */
	int report_fd;
};

struct exec_report {
	uint32_t stage; /* enum agent_exec_stage */
	int32_t error;
};

/* On success the caller owns the descriptors and the child. On failure nothing is left, and
 * *ret_stage tells what failed. */
int exec_process_start(const struct agent_exec *exec, struct process_tree *tree,
		       struct exec_process *ret_process, enum agent_exec_stage *ret_stage);

#endif
