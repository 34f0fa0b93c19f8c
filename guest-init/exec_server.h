/*
 * Runs commands for the host: EXEC, RESIZE, SIGNAL and KILL on the control connection, the
 * commands' streams on connections that this side dials, and the reaping of every child.
 *
 * It is the loop of PID 1, and runs as well as an ordinary process over Unix sockets, which is
 * how tests/e2e/exec.sh exercises it without a VM.
 *
 * When a command's first process ends: what its pipes still hold is sent. If other processes of
 * the tree keep the output open, the tree is killed once they have written nothing for
 * EXEC_GRACE_MS; processes that do not hold it are killed at once. EXITED is sent after the output
 * has ended and no process of the tree is left.
 */
#ifndef GUEST_INIT_EXEC_SERVER_H
#define GUEST_INIT_EXEC_SERVER_H

#include "guest-init/control.h"

#include <stdbool.h>
#include <sys/types.h>

#define EXEC_GRACE_MS 250

struct exec_server_options {
	struct control *control; /* borrowed */
	/* Starts a connection to the host's `port`: a non-blocking socket, perhaps still
	 * connecting, or a negative errno. */
	int (*dial)(void *context, unsigned port);
	/* A child that is no command ended. May be NULL. A negative result ends the server. */
	int (*on_child)(void *context, pid_t pid, int status);
	void *context;
	int cgroup_root; /* directory for the commands' cgroups, or -1 */
};

/*
 * Serves until the host asks for SHUTDOWN (0), goes away (-ECONNRESET) or breaks the protocol
 * (-EBADMSG). Every command's tree has been killed then. SIGCHLD must be blocked by the caller;
 * SIGPIPE must be ignored.
 */
int exec_server_run(const struct exec_server_options *options);

#endif
