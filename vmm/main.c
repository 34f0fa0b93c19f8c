/*
 * matchlock-vmm: one guest, its engine, and its devices.
 *
 * Order of start: the socket and descriptors are opened and the engine prepares its machine; this
 * process locks itself, and only then the guest runs (daemon.h has the two forms of engines). It
 * ends with its parent and the engine ends with it; whoever holds the other end of --control-fd is
 * told why.
 */
#include "base/cleanup.h"
#include "base/escape.h"
#include "base/io.h"
#include "base/log.h"
#include "jail/descriptors.h"
#include "jail/jail.h"
#include "vmm/daemon.h"
#include "vmm/kvm_probe.h"

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

#define EXIT_MATCHLOCK 125
#define CONSOLE_KEPT_MAX (1024 * 1024)
#define SPARE_DESCRIPTORS 64
#define COMMON_DESCRIPTORS 7 /* that the command line may name, beside disks */

static const char *ending_name(enum ending ending)
{
	switch (ending) {
	case POWERED_OFF:
		return "powered-off";
	case STOPPED:
		return "stopped";
	case GUEST_PANIC:
		return "guest-panic";
	case TRIPLE_FAULT:
		return "triple-fault";
	case KVM_INTERNAL_ERROR:
		return "kvm-internal-error";
	case VIOLATION:
		return "violation";
	case ASLEEP:
		return "asleep";
	case RUNNING:
	case ENGINE_FAILED:
		break;
	}
	return "engine-failed";
}

void daemon_end(struct vmm *vmm, enum ending ending, const char *details)
{
	if (vmm->ending != RUNNING)
		return;
	vmm->ending = ending;
	(void)escape_text(details, strlen(details), vmm->details, sizeof(vmm->details));
}

void daemon_close(int *fd)
{
	if (*fd >= 0)
		close(steal_fd(fd));
}

void daemon_tell_control(struct vmm *vmm, const char *text)
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
		daemon_end(vmm, STOPPED, "the caller closed its end");
	else if (strcmp(text, "stop") == 0)
		daemon_end(vmm, STOPPED, "as asked");
	else if (!vmm->form->control || !vmm->form->control(vmm, text))
		log_warning("the caller sent a control message that is not known");
}

void daemon_tell_started(struct vmm *vmm)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "started %s", vmm->engine->name);
	if (!vmm->told_started)
		daemon_tell_control(vmm, text);
	vmm->told_started = true;
}

void daemon_report_violation(struct vmm *vmm, const char *device, const char *what)
{
	char component[32];

	(void)snprintf(component, sizeof(component), "%s-device", device);
	if (audit_channel_violation(&vmm->audit, component, what))
		log_warning("the guest broke the %s protocol: %s", device, what);
}

static void device_violation(void *observer, const char *what)
{
	daemon_report_violation(observer, "vsock", what);
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

struct vsock_device_setup daemon_vsock_setup(struct vmm *vmm)
{
	return (struct vsock_device_setup){
		.guest_cid = vmm->options.cid,
		.connections_max = vmm->connections_max,
		.streams = &vsock_muxer_operations,
		.provider = vmm->muxer,
		.violation = device_violation,
		.observer = vmm,
	};
}

static int prepare_engine(struct vmm *vmm)
{
	char why[ENGINE_TEXT_MAX] = "";
	int r = engine_select(vmm->options.engine, &vmm->engine, why, sizeof(why));

	if (r < 0) {
		daemon_end(vmm, ENGINE_FAILED, why);
		return r;
	}
	log_info("%s", why);
	audit_channel_notice(&vmm->audit, "engine", why);
	vmm->form = vmm->engine->start ? &child_form : &in_process_form;
	return vmm->form->prepare(vmm);
}

int daemon_follow_console(struct vmm *vmm, int fd)
{
	vmm->console.file = vmm->options.console_fd;
	vmm->console.limit = CONSOLE_KEPT_MAX;
	vmm->console.line = console_line;
	vmm->console.observer = vmm;
	return line_relay_start(&vmm->console, &vmm->loop, fd);
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
	const struct vmm_form *form = vmm->form;
	const struct jail_rlimit rlimits[] = {
		{ RLIMIT_CORE, 0 },
		{ RLIMIT_NOFILE, vmm->connections_max + SPARE_DESCRIPTORS },
		{ RLIMIT_MEMLOCK, 0 },
	};
	const struct jail_spec spec = {
		.component = DAEMON_COMPONENT,
		.filter = &vmm_filters[vmm->options.machine.new_snapshot_fd < 0
					       ? form->filter
					       : form->storing_filter],
		.scope_allowed = form->scope_allowed,
		.rlimits = rlimits,
		.rlimit_count = sizeof(rlimits) / sizeof(rlimits[0]),
		.namespaces =
			CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
		.empty_root = true,
		/* What was not ours was closed at the start. */
		.keep_all_fds = true,
	};
	struct jail_report report = { 0 };
	char text[JAIL_REPORT_TEXT_MAX];
	int r;

	r = jail_enter(&spec, &report);
	if (r < 0) {
		log_error("cannot lock the vsock device: stage %s: %s; not running the guest",
			  report.failed_stage, strerror(-r));
		daemon_end(vmm, ENGINE_FAILED, "the vsock device could not be locked");
		return r;
	}
	/* The empty root took the working directory away. */
	if (fchdir(directory) < 0)
		return -errno;
	(void)jail_report_text(&report, text, sizeof(text));
	audit_channel_jail(&vmm->audit, DAEMON_COMPONENT, text);
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
	r = prepare_engine(vmm);
	if (r == 0)
		r = lock(vmm, directory);
	if (r == 0)
		r = follow_control(vmm);
	return r == 0 ? vmm->form->begin(vmm) : r;
}

/* ---- run and end -------------------------------------------------------------------------------
 */

static void run(struct vmm *vmm)
{
	int more = 0;

	while (vmm->ending == RUNNING && !vmm->process_ended) {
		int r = event_loop_run_once(&vmm->loop, more ? 0 : -1);

		if (r < 0) {
			daemon_end(vmm, ENGINE_FAILED, strerror(-r));
			return;
		}
		more = vmm->form->serve(vmm);
	}
}

static int finish(struct vmm *vmm)
{
	char text[DAEMON_TEXT_MAX + 64];
	bool good = vmm->ending == POWERED_OFF || vmm->ending == STOPPED || vmm->ending == ASLEEP;

	audit_channel_flush(&vmm->audit, DAEMON_COMPONENT);
	(void)snprintf(text, sizeof(text), "end %s%s%s", ending_name(vmm->ending),
		       vmm->details[0] ? ": " : "", vmm->details);
	/* Who has the control socket says it in its own words. */
	if (good || vmm->options.control_fd >= 0)
		log_info("%s", text);
	else
		log_error("the guest ended: %s", text + strlen("end "));
	daemon_tell_control(vmm, text);
	return good ? 0 : EXIT_MATCHLOCK;
}

static void release(struct vmm *vmm)
{
	if (vmm->form)
		vmm->form->release(vmm);
	vsock_muxer_free(vmm->muxer);
	event_loop_release(&vmm->loop);
}

/* Keeps what the command line names, and nothing else, of the caller's descriptors. */
static int take_descriptors(const struct vmm_options *options)
{
	int fds[COMMON_DESCRIPTORS + VMM_DISKS_MAX] = { options->audit_fd,
							options->control_fd,
							options->console_fd,
							options->machine.memory_fd,
							options->machine.doorbell_fd,
							options->machine.snapshot_fd,
							options->machine.new_snapshot_fd };
	const size_t count = COMMON_DESCRIPTORS + options->disk_count;

	for (unsigned i = 0; i < options->disk_count; i++)
		fds[COMMON_DESCRIPTORS + i] = options->disks[i].fd;
	for (size_t i = 0; i < count; i++) {
		if (fds[i] >= 0 && set_close_on_exec(fds[i], true) < 0) {
			log_error("descriptor %d on the command line is not open", fds[i]);
			return -EBADF;
		}
	}
	return descriptors_close_others(fds, count);
}

static int tell_kvm(void)
{
	char why[DAEMON_TEXT_MAX];
	int r = kvm_probe_run(why, sizeof(why));

	(void)puts(why);
	return r < 0;
}

int main(int argc, char **argv)
{
	static struct vmm vmm;
	char why[DAEMON_TEXT_MAX];
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
	if (vmm.options.probe_kvm)
		return tell_kvm();
	log_configure("matchlock-vmm", vmm.options.level);
	if (take_descriptors(&vmm.options) < 0)
		return EXIT_MATCHLOCK;
	/* The terminal's signals are meant for the guest's command; `matchlock` passes them on. */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGQUIT, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	audit_channel_init(&vmm.audit, vmm.options.audit_fd);
	r = start(&vmm);
	if (r < 0)
		daemon_end(&vmm, ENGINE_FAILED, strerror(-r));
	else
		run(&vmm);
	if (vmm.form)
		vmm.form->end(&vmm);
	status = finish(&vmm);
	if (!vmm.stuck)
		release(&vmm);
	return status;
}
