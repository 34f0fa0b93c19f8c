#include "vmm/daemon.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/qemu_snapshot.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define DIAGNOSTIC_LINES_MAX 20

/* ---- events ------------------------------------------------------------------------------------
 */

static void process_ended(struct event_source *source, uint32_t events)
{
	struct vmm *vmm = (struct vmm *)((char *)source - offsetof(struct vmm, process_end));

	(void)events;
	event_loop_remove(&vmm->loop, source);
	vmm->process_ended = true;
}

static void backend_started(void *observer)
{
	daemon_tell_started(observer);
}

static void backend_ended(void *observer, int error, const char *what)
{
	struct vmm *vmm = observer;
	char text[DAEMON_TEXT_MAX];

	/* When QEMU ends it closes this too; its exit status says more. */
	if (error == 0 || error == -ECONNRESET || error == -EPIPE)
		return;
	(void)snprintf(text, sizeof(text), "vhost-user: %s (%s)", what, strerror(-error));
	daemon_report_violation(vmm, "vsock", text);
	daemon_end(vmm, VIOLATION, text);
}

static void diagnostic_line(void *observer, const char *line)
{
	struct vmm *vmm = observer;

	(void)snprintf(vmm->last_diagnostic, sizeof(vmm->last_diagnostic), "%s", line);
	if (vmm->diagnostic_lines++ < DIAGNOSTIC_LINES_MAX)
		log_warning("%s: %s", vmm->engine->name, line);
}

/* ---- the form ----------------------------------------------------------------------------------
 */

static int prepare(struct vmm *vmm)
{
	char why[ENGINE_TEXT_MAX] = "";
	int r = -ENOTSUP;

	if (vmm->options.disk_count > 0)
		(void)snprintf(why, sizeof(why),
			       "engine %s has no disks: --disk is for the KVM engine alone",
			       vmm->engine->name);
	else if (vmm->options.machine.huge_pages)
		(void)snprintf(why, sizeof(why),
			       "engine %s has no huge pages: --huge-pages is for the KVM engine "
			       "alone",
			       vmm->engine->name);
	else
		r = vmm->engine->start(&vmm->options.machine, &vmm->process, why, sizeof(why));
	if (vmm->process.restored) {
		daemon_tell_control(vmm, "restored");
		audit_channel_notice(&vmm->audit, "engine", "going on from a snapshot");
		log_info("going on from a snapshot");
	}
	daemon_close(&vmm->options.machine.snapshot_fd);
	if (vmm->process.restored || !vmm->process.snapshot)
		daemon_close(&vmm->options.machine.new_snapshot_fd);
	if (r < 0) {
		daemon_end(vmm, ENGINE_FAILED, why);
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

static int make_device(struct vmm *vmm)
{
	const struct vhost_user_observer observer = {
		.started = backend_started,
		.ended = backend_ended,
		.observer = vmm,
	};
	struct vsock_device_setup setup = daemon_vsock_setup(vmm);
	int r = vhost_user_new(&vmm->loop, &observer, &vmm->backend);

	if (r < 0)
		return r;
	setup.interrupt = vhost_user_interrupt;
	setup.transport = vmm->backend;
	r = vsock_device_new(&setup, &vmm->device);
	return r < 0 ? r : vsock_muxer_start(vmm->muxer, vmm->device);
}

static int begin(struct vmm *vmm)
{
	int r = make_device(vmm);

	if (r == 0)
		r = daemon_follow_console(vmm, steal_fd(&vmm->process.console));
	if (r < 0)
		return r;
	vmm->diagnostics.file = -1;
	vmm->diagnostics.line = diagnostic_line;
	vmm->diagnostics.observer = vmm;
	r = line_relay_start(&vmm->diagnostics, &vmm->loop, steal_fd(&vmm->process.diagnostics));
	if (r < 0)
		return r;
	return vhost_user_start(vmm->backend, vmm->device, steal_fd(&vmm->process.vhost_user));
}

static int serve(struct vmm *vmm)
{
	int more = vsock_device_run(vmm->device);

	if (more >= 0)
		return more;
	daemon_report_violation(vmm, "vsock", vsock_device_error(vmm->device));
	daemon_end(vmm, VIOLATION, vsock_device_error(vmm->device));
	return 0;
}

/* It sleeps, and nothing has reached it yet: what it may not do after that is told by nothing. */
static bool may_be_stored(const struct vmm *vmm)
{
	return vmm->options.machine.new_snapshot_fd >= 0 &&
	       !vsock_device_had_streams(vmm->device) &&
	       qemu_snapshot_is_asleep(vmm->process.snapshot);
}

static void store(struct vmm *vmm)
{
	int r = qemu_snapshot_write(vmm->process.snapshot, vmm->options.machine.new_snapshot_fd);

	if (r < 0) {
		daemon_end(vmm, ASLEEP, strerror(-r));
		return;
	}
	daemon_tell_control(vmm, "stored");
	audit_channel_notice(&vmm->audit, "engine", "stored the guest for later starts");
	log_info("stored the guest for later starts");
	daemon_end(vmm, ASLEEP, "stored");
}

/* Makes sure that the engine is gone, and draws the reason from how it went. */
static void end(struct vmm *vmm)
{
	siginfo_t status = { 0 };
	char text[DAEMON_TEXT_MAX];

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
	if (status.si_code == CLD_EXITED && status.si_status == vmm->engine->sleep_status &&
	    may_be_stored(vmm)) {
		store(vmm);
		return;
	}
	if (status.si_code == CLD_EXITED &&
	    (status.si_status == 0 || status.si_status == vmm->engine->power_off_status ||
	     status.si_status == vmm->engine->sleep_status)) {
		/* The panic's text is in `details` already. */
		if (vmm->panicked)
			vmm->ending = GUEST_PANIC;
		else
			daemon_end(vmm, POWERED_OFF, "");
		return;
	}
	(void)snprintf(text, sizeof(text), "%s ended with %s %d%s%s", vmm->engine->name,
		       status.si_code == CLD_EXITED ? "status" : "signal", status.si_status,
		       vmm->last_diagnostic[0] ? ": " : "", vmm->last_diagnostic);
	daemon_end(vmm, ENGINE_FAILED, text);
}

static void release(struct vmm *vmm)
{
	qemu_snapshot_free(vmm->process.snapshot);
	vhost_user_free(vmm->backend);
	vsock_device_free(vmm->device);
}

const struct vmm_form child_form = {
	.prepare = prepare,
	.begin = begin,
	.serve = serve,
	.end = end,
	.release = release,
	.filter = VMM_FILTER_CHILD,
	.storing_filter = VMM_FILTER_STORING_CHILD,
	.scope_allowed = JAIL_SCOPE_SIGNAL, /* to end the engine */
};
