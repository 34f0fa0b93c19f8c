/*
 * One command in the guest, seen from the host: its streams, signals, window size and end.
 *
 * Two ways to use it. exec_session_run() is for the command that this process is about: it relays
 * the process's own standard streams, owns terminal and signals while it runs, and returns when
 * the command has ended and everything it wrote has been passed on. exec_session_start() and
 * agent_client_turn() are for driving several commands from one loop (a command that another
 * `matchlock exec` brought with its descriptors): terminal and signals are then that process's.
 *
 * Descriptors of the caller are never switched to non-blocking mode, which others who share them
 * would notice: pipes and terminals are opened once more through /proc/self/fd, sockets are used
 * with MSG_DONTWAIT, regular files as they are.
 *
 * No byte is lost: a command's result comes only when both the guest's EXITED and the end of all
 * its output have arrived and the output has been written. When a reader of the output goes away
 * (EPIPE), that stream alone is closed and the command sees SIGPIPE, as in any pipeline.
 */
#ifndef CLI_EXEC_SESSION_H
#define CLI_EXEC_SESSION_H

#include "cli/agent_client.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct exec_session;

struct exec_request {
	const char *const *arguments;	/* NULL-terminated, at least one */
	const char *const *environment; /* NULL-terminated "NAME=value"; the whole environment */
	const char *cwd;		/* absolute, in the guest */
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* supplementary, at most AGENT_GROUPS_MAX */
	size_t group_count;
	mode_t umask;
	bool terminal; /* -t: a pty in the guest; output and errors come as one stream */
	bool input;    /* -i: relay standard input; otherwise the guest's is /dev/null */
	uint16_t rows; /* of the pty; 0 takes them from the terminal, or 24 x 80 */
	uint16_t columns;
	int fds[3];	     /* standard input, output and error to relay; borrowed */
	unsigned timeout_ms; /* 0: none. Then the process tree is killed: EXEC_RESULT_TIMEOUT */
};

enum exec_result_kind {
	EXEC_RESULT_EXITED,   /* code: exit status */
	EXEC_RESULT_SIGNALED, /* code: signal number */
	EXEC_RESULT_FAILED,   /* never ran; code: errno; text says where */
	EXEC_RESULT_TIMEOUT,  /* killed after timeout_ms */
	EXEC_RESULT_LOST,     /* the VM or its agent went away, or broke the protocol; text */
};

struct exec_result {
	enum exec_result_kind kind;
	int code;
	/* What a shell would report: the status; 128 + signal; 126 or 127 for a command that could
	 * not be run or found; 124 for a timeout; 125 for a lost guest and all other failures. */
	int exit_status;
	uint64_t user_ns;
	uint64_t system_ns;
	uint64_t max_rss_bytes;
	uint32_t guest_pid; /* 0 when it never started */
	char text[512];	    /* one line for a person; "" after EXITED and SIGNALED */
};

/* ---- the process's own command ---------------------------------------------------------- */

struct exec_loop {
	int abort_fd; /* readable or hung up when the VM is gone; or -1 */
	/* Other descriptors to wait for meanwhile; `on_watch` is called after a turn in which any
	 * of them has revents. It may change the array's fds and events. */
	struct pollfd *watches;
	size_t watch_count;
	void (*on_watch)(void *context, struct pollfd *watches, size_t count);
	/* Called once when the guest reports the command as started. May be NULL. */
	void (*on_started)(void *context, uint32_t guest_pid);
	void *context;
};

/*
 * Runs `request` to its end. `loop` may be NULL.
 *
 * With a pty and a terminal on fds[0], that terminal is raw meanwhile and is restored on every
 * return, on SIGTSTP, and before a signal that ends this process is re-raised by the caller.
 * Signals to this process: SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 go to the
 * command (to its process group where a terminal would); SIGWINCH resizes the pty; SIGTSTP stops
 * the command's group and this process, SIGCONT continues both. The third SIGINT or SIGTERM, and
 * five seconds after SIGHUP, kill the command's whole process tree.
 * SIGPIPE is ignored during the call. The signal mask is changed for the calling thread only:
 * other threads of the process must block these signals.
 *
 * Returns 0 with *ret_result set, whatever became of the command; negative only when nothing
 * could be started on this side (-ENOMEM, -EINVAL for a request over a limit).
 */
int exec_session_run(struct agent_client *client, const struct exec_request *request,
		     const struct exec_loop *loop, struct exec_result *ret_result);

/* ---- several commands in one loop ------------------------------------------------------- */

/* Sends EXEC. The descriptors must stay open until the session is done; `request` is not needed
 * after the call. -EMFILE when AGENT_EXECS_MAX commands run. */
int exec_session_start(struct agent_client *client, const struct exec_request *request,
		       struct exec_session **ret_session);
/* True once the command has ended and all its output has been written. */
bool exec_session_done(const struct exec_session *session, struct exec_result *ret_result);
void exec_session_resize(struct exec_session *session, uint16_t rows, uint16_t columns);
/* To the command's first process, or to its process group. */
void exec_session_signal(struct exec_session *session, int signal, bool group);
/* SIGKILL to the whole process tree. */
void exec_session_kill(struct exec_session *session);
/* Kills the command's tree if it still runs. */
void exec_session_destroy(struct exec_session *session);

#endif
