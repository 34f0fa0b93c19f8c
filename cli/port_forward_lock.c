#include "base/checked.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cli/port_forward.h"
#include "jail/jail.h"
#include "wire/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * The listening sockets stay in the network that they were made in, and there is no way to a new
 * one: the process has a network namespace of its own, in which nothing is. The VMM's socket is
 * found by its name in the one directory that is still there, the working directory.
 */
static const struct jail_syscall forward_calls[] = {
	JAIL_CALL(SYS_epoll_wait),
	JAIL_CALL(SYS_epoll_pwait),
	JAIL_CALL(SYS_epoll_ctl),
	JAIL_CALL(SYS_epoll_create1),
	JAIL_CALL(SYS_signalfd4),
	JAIL_CALL(SYS_fchdir),
	JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL32(0, AF_UNIX)),
	JAIL_CALL(SYS_connect),
	JAIL_CALL_IF(SYS_accept4, JAIL_ARGUMENT_EQUAL32(3, SOCK_NONBLOCK | SOCK_CLOEXEC)),
	JAIL_CALL(SYS_getsockname),
	JAIL_CALL(SYS_recvfrom),
	JAIL_CALL(SYS_sendto),
	JAIL_CALL(SYS_shutdown),
	JAIL_CALL_IF(SYS_setsockopt, JAIL_ARGUMENT_EQUAL32(1, IPPROTO_TCP),
		     JAIL_ARGUMENT_EQUAL32(2, TCP_NODELAY)),
};
static const struct jail_syscall_set forward_set = JAIL_SET(forward_calls);

static void tell_jail(int audit_fd, const struct jail_report *report)
{
	struct audit_event *event = allocate(1, sizeof(*event));
	char text[JAIL_REPORT_TEXT_MAX];

	jail_report_text(report, text, sizeof(text));
	log_debug("jail: %s", text);
	audit_event_begin(event, AUDIT_JAIL);
	audit_event_text(event, AUDIT_FIELD_COMPONENT, "port-forward");
	audit_event_text(event, AUDIT_FIELD_DETAIL, text);
	/* One that is gone shows with the first connection. */
	if (audit_fd >= 0)
		(void)audit_event_send(event, audit_fd);
	free(event);
}

int port_forward_lock(struct forward_options *options)
{
	static const struct jail_syscall_set *const sets[] = { &jail_calls_process, &forward_set };
	const struct jail_rlimit rlimits[] = { { RLIMIT_CORE, 0 } };
	const struct jail_spec spec = {
		.component = "port-forward",
		.rlimits = rlimits,
		.rlimit_count = ARRAY_LENGTH(rlimits),
		.syscall_sets = sets,
		.syscall_set_count = ARRAY_LENGTH(sets),
		.namespaces =
			CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET,
		.empty_root = true,
		.keep_all_fds = true,
	};
	const char *slash = strrchr(options->socket_base, '/');
	cleanup_free char *directory =
		slash ? text_printf("%.*s", (int)(slash - options->socket_base),
				    options->socket_base)
		      : text_copy(".");
	cleanup_fd int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct jail_report report;
	int error = fd < 0 ? -errno : 0;

	if (error) {
		log_error("port-forward: %s: %s", directory, strerror(-error));
		return error;
	}
	error = jail_enter(&spec, &report);
	if (error) {
		log_error("port-forward: cannot lock the process: %s: %s",
			  report.failed_stage ? report.failed_stage : "set-up", strerror(-error));
		return error;
	}
	if (fchdir(fd) < 0) {
		log_error("port-forward: %s: %s", directory, strerror(errno));
		return -errno;
	}
	if (slash)
		options->socket_base = slash + 1;
	tell_jail(options->audit_fd, &report);
	return 0;
}
