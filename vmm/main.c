/*
 * matchlock-vmm: one guest, its engine, and its vsock device.
 *
 * Order of start: the socket and descriptors are opened, the engine is started (it waits for our
 * answers on vhost-user), this process locks itself, and only then serves. It ends with its parent
 * and the engine ends with it; whoever holds the other end of --control-fd is told why.
 */
#include "base/cleanup.h"
#include "base/escape.h"
#include "base/io.h"
#include "base/log.h"
#include "jail/jail.h"
#include "vmm/audit_channel.h"
#include "vmm/engine.h"
#include "vmm/event_loop.h"
#include "vmm/line_relay.h"
#include "vmm/options.h"
#include "vmm/vhost_user.h"
#include "vmm/vsock_device.h"
#include "vmm/vsock_muxer.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define COMPONENT "vsock-device"
#define EXIT_MATCHLOCK 125
#define CONSOLE_KEPT_MAX (1024 * 1024)
#define DIAGNOSTIC_LINES_MAX 20
#define SPARE_DESCRIPTORS 64
#define TEXT_MAX 512

enum ending {
	RUNNING,
	POWERED_OFF,
	STOPPED,
	ENGINE_FAILED,
	GUEST_PANIC,
	VIOLATION,
};

struct vmm {
	struct vmm_options options;
	const struct engine *engine;
	struct engine_process process;
	struct event_loop loop;
	struct event_source control;
	struct event_source process_end;
	struct line_relay console;
	struct line_relay diagnostics;
	struct audit_channel audit;
	struct vhost_user_backend *backend;
	struct vsock_device *device;
	struct vsock_muxer *muxer;
	size_t connections_max;
	enum ending ending;
	char details[TEXT_MAX];
	char last_diagnostic[LINE_RELAY_LINE_MAX + 1];
	unsigned diagnostic_lines;
	bool panicked;
	bool process_ended;
	bool told_started;
};

/* All that this process does after it is locked, beside what its modules declare. */
static const struct jail_syscall main_calls[] = {
	JAIL_CALL(SYS_fchdir), /* to the sockets' directory; once */
	JAIL_CALL(SYS_epoll_wait),
	JAIL_CALL(SYS_epoll_ctl),
	JAIL_CALL(SYS_fcntl),
	JAIL_CALL(SYS_recvfrom),
	JAIL_CALL(SYS_sendto),
	JAIL_CALL(SYS_waitid),
	JAIL_CALL(SYS_pidfd_send_signal),
};
static const struct jail_syscall_set main_call_set = JAIL_SET(main_calls);

static const char *ending_name(enum ending ending)
{
	switch (ending) {
	case POWERED_OFF:
		return "powered-off";
	case STOPPED:
		return "stopped";
	case GUEST_PANIC:
		return "guest-panic";
	case VIOLATION:
		return "violation";
	case RUNNING:
	case ENGINE_FAILED:
		break;
	}
	return "engine-failed";
}

/* The first reason counts; what follows from it is no reason of its own. */
static void end_with(struct vmm *vmm, enum ending ending, const char *details)
{
	if (vmm->ending != RUNNING)
		return;
	vmm->ending = ending;
	(void)escape_text(details, strlen(details), vmm->details, sizeof(vmm->details));
}

static void tell_control(struct vmm *vmm, const char *text)
{
	if (vmm->options.control_fd >= 0)
		(void)send(vmm->options.control_fd, text, strlen(text),
			   MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- events ------------------------------------------------------------------------------------
 */

static void control_ready(struct event_source *source, uint32_t events)
{
	struct vmm *vmm = (struct vmm *)((char *)source - offsetof(struct vmm, control));
	char text[16] = "";
	ssize_t count = recv(source->fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	(void)events;
	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (count <= 0)
		end_with(vmm, STOPPED, "the caller closed its end");
	else if (strcmp(text, "stop") == 0)
		end_with(vmm, STOPPED, "as asked");
	else
		log_warning(
			"the caller sent a control message that is not known; only \"stop\" is");
}

static void process_ended(struct event_source *source, uint32_t events)
{
	struct vmm *vmm = (struct vmm *)((char *)source - offsetof(struct vmm, process_end));

	(void)events;
	event_loop_remove(&vmm->loop, source);
	vmm->process_ended = true;
}

static void backend_started(void *observer)
{
	struct vmm *vmm = observer;
	char text[64];

	(void)snprintf(text, sizeof(text), "started %s", vmm->engine->name);
	if (!vmm->told_started)
		tell_control(vmm, text);
	vmm->told_started = true;
}

static void report_violation(struct vmm *vmm, const char *what)
{
	if (audit_channel_violation(&vmm->audit, COMPONENT, what))
		log_warning("the guest broke the vsock protocol: %s", what);
}

static void backend_ended(void *observer, int error, const char *what)
{
	struct vmm *vmm = observer;
	char text[TEXT_MAX];

	/* When QEMU ends it closes this too; its exit status says more. */
	if (error == 0 || error == -ECONNRESET || error == -EPIPE)
		return;
	(void)snprintf(text, sizeof(text), "vhost-user: %s (%s)", what, strerror(-error));
	report_violation(vmm, text);
	end_with(vmm, VIOLATION, text);
}

static void device_violation(void *observer, const char *what)
{
	report_violation(observer, what);
}

static void console_line(void *observer, const char *line)
{
	static const char mark[] = "Kernel panic - not syncing";
	struct vmm *vmm = observer;
	const char *panic = strstr(line, mark);

	if (!panic || vmm->panicked)
		return;
	vmm->panicked = true;
	(void)escape_text(panic, strlen(panic), vmm->details, sizeof(vmm->details));
}

static void diagnostic_line(void *observer, const char *line)
{
	struct vmm *vmm = observer;

	(void)snprintf(vmm->last_diagnostic, sizeof(vmm->last_diagnostic), "%s", line);
	if (vmm->diagnostic_lines++ < DIAGNOSTIC_LINES_MAX)
		log_warning("%s: %s", vmm->engine->name, line);
}

/* ---- start -------------------------------------------------------------------------------------
 */

/* Makes the sockets' directory the working directory and listens there. */
static int open_sockets(struct vmm *vmm, int *ret_directory)
{
	cleanup_free char *directory_copy = strdup(vmm->options.socket_base);
	cleanup_free char *name_copy = strdup(vmm->options.socket_base);
	cleanup_fd int directory = -1;
	cleanup_fd int listener = -1;
	const char *name;
	int r;

	if (!directory_copy || !name_copy)
		return -ENOMEM;
	name = basename(name_copy);
	directory = open(dirname(directory_copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 || fchdir(directory) < 0)
		return -errno;
	listener = vsock_muxer_listen(name);
	if (listener < 0)
		return listener;
	r = vsock_muxer_new(&vmm->loop, name, listener, &vmm->muxer);
	if (r < 0)
		return r;
	(void)steal_fd(&listener);
	*ret_directory = steal_fd(&directory);
	return 0;
}

/* The working directory is about to change. */
static int resolve_image(const char **path)
{
	const char *resolved = realpath(*path, NULL);
	int r = resolved ? 0 : -errno;

	if (r < 0)
		log_error("cannot open %s: %s; matchlock's guest kernel is fetched by "
			  "scripts/guest-kernel.sh",
			  *path, strerror(-r));
	else
		*path = resolved; /* kept as long as the process */
	return r;
}

static void raise_descriptor_limit(struct vmm *vmm)
{
	struct rlimit limit = { 0 };

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	vmm->connections_max = VSOCK_CONNECTIONS_MAX;
	if (limit.rlim_max < VSOCK_CONNECTIONS_MAX + SPARE_DESCRIPTORS)
		vmm->connections_max = limit.rlim_max > 2 * SPARE_DESCRIPTORS
					       ? limit.rlim_max - SPARE_DESCRIPTORS
					       : SPARE_DESCRIPTORS;
}

static int make_device(struct vmm *vmm)
{
	const struct vhost_user_observer observer = {
		.started = backend_started,
		.ended = backend_ended,
		.observer = vmm,
	};
	struct vsock_device_setup setup = {
		.guest_cid = vmm->options.cid,
		.connections_max = vmm->connections_max,
		.streams = &vsock_muxer_operations,
		.provider = vmm->muxer,
		.interrupt = vhost_user_interrupt,
		.violation = device_violation,
		.observer = vmm,
	};
	int r = vhost_user_new(&vmm->loop, &observer, &vmm->backend);

	if (r < 0)
		return r;
	setup.transport = vmm->backend;
	r = vsock_device_new(&setup, &vmm->device);
	return r < 0 ? r : vsock_muxer_start(vmm->muxer, vmm->device);
}

static int start_engine(struct vmm *vmm)
{
	char why[ENGINE_TEXT_MAX] = "";
	int r = engine_select(vmm->options.engine, &vmm->engine, why, sizeof(why));

	if (r == 0) {
		log_info("%s", why);
		audit_channel_notice(&vmm->audit, "engine", why);
		r = vmm->engine->start(&vmm->options.machine, &vmm->process, why, sizeof(why));
	}
	if (r < 0) {
		log_error("%s", why);
		end_with(vmm, ENGINE_FAILED, why);
		return r;
	}
	vmm->process_end.fd = vmm->process.pid_fd;
	vmm->process_end.ready = process_ended;
	r = event_loop_add(&vmm->loop, &vmm->process_end, EPOLLIN);
	if (r < 0)
		return r;
	audit_channel_jail(&vmm->audit, vmm->engine->component, vmm->process.confinement);
	log_info("%s: in force: %s", vmm->engine->component, vmm->process.confinement);
	return 0;
}

static int follow_engine(struct vmm *vmm)
{
	int r;

	vmm->console.file = vmm->options.console_fd;
	vmm->console.limit = CONSOLE_KEPT_MAX;
	vmm->console.line = console_line;
	vmm->console.observer = vmm;
	r = line_relay_start(&vmm->console, &vmm->loop, vmm->process.console);
	if (r < 0)
		return r;
	vmm->diagnostics.file = -1;
	vmm->diagnostics.line = diagnostic_line;
	vmm->diagnostics.observer = vmm;
	return line_relay_start(&vmm->diagnostics, &vmm->loop, vmm->process.diagnostics);
}

static int follow_control(struct vmm *vmm)
{
	vmm->control.fd = vmm->options.control_fd;
	vmm->control.ready = control_ready;
	if (vmm->control.fd < 0)
		return 0;
	return event_loop_add(&vmm->loop, &vmm->control, EPOLLIN);
}

static int lock(struct vmm *vmm, int directory)
{
	static const struct jail_syscall_set *const sets[] = { &jail_calls_process,
							       &vsock_muxer_calls,
							       &vhost_user_calls, &main_call_set };
	const int keep[] = {
		vmm->loop.epoll_fd,
		vmm->process.pid_fd,
		vmm->process.vhost_user,
		vmm->process.console,
		vmm->process.diagnostics,
		vmm->options.audit_fd,
		vmm->options.control_fd,
		vmm->options.console_fd,
		directory,
		vsock_muxer_listener(vmm->muxer),
	};
	const struct jail_rlimit rlimits[] = {
		{ RLIMIT_CORE, 0 },
		{ RLIMIT_NOFILE, vmm->connections_max + SPARE_DESCRIPTORS },
		{ RLIMIT_MEMLOCK, 0 },
	};
	const struct jail_spec spec = {
		.component = COMPONENT,
		.syscall_sets = sets,
		.syscall_set_count = sizeof(sets) / sizeof(sets[0]),
		.scope_allowed = JAIL_SCOPE_SIGNAL, /* to end the engine */
		.rlimits = rlimits,
		.rlimit_count = sizeof(rlimits) / sizeof(rlimits[0]),
		.namespaces =
			CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
		.empty_root = true,
		.keep_fds = keep,
		.keep_fd_count = sizeof(keep) / sizeof(keep[0]),
	};
	struct jail_report report = { 0 };
	char text[JAIL_REPORT_TEXT_MAX];
	int r = jail_enter(&spec, &report);

	if (r < 0) {
		log_error("cannot lock the vsock device: stage %s: %s; not running the guest",
			  report.failed_stage, strerror(-r));
		end_with(vmm, ENGINE_FAILED, "the vsock device could not be locked");
		return r;
	}
	/* The empty root took the working directory away. */
	if (fchdir(directory) < 0)
		return -errno;
	(void)jail_report_text(&report, text, sizeof(text));
	audit_channel_jail(&vmm->audit, COMPONENT, text);
	log_info("in force: %s", text);
	return 0;
}

static int start(struct vmm *vmm)
{
	cleanup_fd int directory = -1;
	int r;

	r = event_loop_init(&vmm->loop);
	if (r < 0)
		return r;
	raise_descriptor_limit(vmm);
	r = resolve_image(&vmm->options.machine.kernel);
	if (r == 0)
		r = resolve_image(&vmm->options.machine.initrd);
	if (r < 0)
		return r;
	r = open_sockets(vmm, &directory);
	if (r < 0) {
		log_error("cannot listen on %s: %s", vmm->options.socket_base, strerror(-r));
		return r;
	}
	r = start_engine(vmm);
	if (r < 0)
		return r;
	r = lock(vmm, directory);
	if (r == 0)
		r = make_device(vmm);
	if (r == 0)
		r = follow_engine(vmm);
	if (r == 0)
		r = follow_control(vmm);
	if (r == 0)
		r = vhost_user_start(vmm->backend, vmm->device, steal_fd(&vmm->process.vhost_user));
	return r;
}

/* ---- run and end -------------------------------------------------------------------------------
 */

static void run(struct vmm *vmm)
{
	int more = 0;

	while (vmm->ending == RUNNING && !vmm->process_ended) {
		int r = event_loop_run_once(&vmm->loop, more ? 0 : -1);

		if (r < 0) {
			end_with(vmm, ENGINE_FAILED, strerror(-r));
			return;
		}
		more = vsock_device_run(vmm->device);
		if (more < 0) {
			report_violation(vmm, vsock_device_error(vmm->device));
			end_with(vmm, VIOLATION, vsock_device_error(vmm->device));
		}
	}
}

/* Makes sure that the engine is gone, and draws the reason from how it went. */
static void reap(struct vmm *vmm)
{
	siginfo_t status = { 0 };
	char text[TEXT_MAX];

	if (vmm->process.pid_fd < 0)
		return;
	if (vmm->ending != RUNNING)
		(void)syscall(SYS_pidfd_send_signal, vmm->process.pid_fd, SIGKILL, NULL, 0);
	while (waitid(P_PIDFD, (id_t)vmm->process.pid_fd, &status, WEXITED) < 0 && errno == EINTR)
		;
	if (vmm->console.loop)
		line_relay_finish(&vmm->console);
	if (vmm->diagnostics.loop)
		line_relay_finish(&vmm->diagnostics);
	if (vmm->ending != RUNNING)
		return;
	if (status.si_code == CLD_EXITED && status.si_status == 0) {
		/* The panic's text is in `details` already. */
		if (vmm->panicked)
			vmm->ending = GUEST_PANIC;
		else
			end_with(vmm, POWERED_OFF, "");
		return;
	}
	(void)snprintf(text, sizeof(text), "%s ended with %s %d%s%s", vmm->engine->name,
		       status.si_code == CLD_EXITED ? "status" : "signal", status.si_status,
		       vmm->last_diagnostic[0] ? ": " : "", vmm->last_diagnostic);
	end_with(vmm, ENGINE_FAILED, text);
}

static int finish(struct vmm *vmm)
{
	char text[TEXT_MAX + 64];
	bool good = vmm->ending == POWERED_OFF || vmm->ending == STOPPED;

	audit_channel_flush(&vmm->audit, COMPONENT);
	(void)snprintf(text, sizeof(text), "end %s%s%s", ending_name(vmm->ending),
		       vmm->details[0] ? ": " : "", vmm->details);
	if (good)
		log_info("%s", text);
	else
		log_error("the guest ended: %s", text + strlen("end "));
	tell_control(vmm, text);
	return good ? 0 : EXIT_MATCHLOCK;
}

static void release(struct vmm *vmm)
{
	vhost_user_free(vmm->backend);
	vsock_device_free(vmm->device);
	vsock_muxer_free(vmm->muxer);
	event_loop_release(&vmm->loop);
}

static int keep_out_of_children(const struct vmm_options *options)
{
	const int fds[] = { options->audit_fd, options->control_fd, options->console_fd,
			    options->machine.memory_fd };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0 && set_close_on_exec(fds[i], true) < 0) {
			log_error("descriptor %d on the command line is not open", fds[i]);
			return -EBADF;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct vmm vmm;
	char why[TEXT_MAX];
	int r, status;

	log_configure("matchlock-vmm", LOG_LEVEL_WARNING);
	(void)jail_die_with_parent(getppid());
	vmm.loop.epoll_fd = -1;
	vmm.process.pid_fd = -1;
	vmm.process.vhost_user = -1;
	r = vmm_options_parse(argc, argv, &vmm.options, why, sizeof(why));
	if (r != 0) {
		if (r < 0)
			log_error("%s", why);
		return r < 0 ? EXIT_MATCHLOCK : 0;
	}
	log_configure("matchlock-vmm", vmm.options.level);
	if (keep_out_of_children(&vmm.options) < 0)
		return EXIT_MATCHLOCK;
	/* The terminal's signals are meant for the guest's command; `matchlock` passes them on. */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGQUIT, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	audit_channel_init(&vmm.audit, vmm.options.audit_fd);
	r = start(&vmm);
	if (r < 0)
		end_with(&vmm, ENGINE_FAILED, strerror(-r));
	else
		run(&vmm);
	reap(&vmm);
	status = finish(&vmm);
	release(&vmm);
	return status;
}
