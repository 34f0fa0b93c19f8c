/*
 * Theory of operation
 *
 * All of the machine is made while files can be opened and calls be made. Then main.c locks the
 * process, with room for threads; begin() starts these, each of which locks itself to what a vCPU
 * needs, and locks the device thread to what devices need: no new thread, no ioctl. The first
 * instruction of the guest runs after that.
 */
#include "vmm/daemon.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void machine_ended(void *observer, enum kvm_engine_end end, const char *details)
{
	struct vmm *vmm = observer;

	/* The console may still hold the panic's text. */
	if (vmm->console.loop)
		line_relay_finish(&vmm->console);
	if (vmm->panicked && (end == KVM_ENGINE_RESET || end == KVM_ENGINE_TRIPLE_FAULT)) {
		if (vmm->ending == RUNNING)
			vmm->ending = GUEST_PANIC;
		return;
	}
	switch (end) {
	case KVM_ENGINE_POWERED_OFF:
	case KVM_ENGINE_RESET:
		daemon_end(vmm, POWERED_OFF, details);
		break;
	case KVM_ENGINE_TRIPLE_FAULT:
		daemon_end(vmm, TRIPLE_FAULT, details);
		break;
	case KVM_ENGINE_GUEST_PANIC:
		daemon_end(vmm, GUEST_PANIC, details);
		break;
	case KVM_ENGINE_INTERNAL_ERROR:
		daemon_end(vmm, KVM_INTERNAL_ERROR, details);
		break;
	}
}

static void machine_paused(void *observer)
{
	daemon_tell_control(observer, "paused");
}

/* The guest has not spoken to anybody yet. From here on nothing is left of what storing needs. */
static void machine_stored(void *observer, int error, const char *step)
{
	struct vmm *vmm = observer;
	int r = jail_filter_enter_thread(&vmm_filters[VMM_FILTER_DEVICE_THREAD]);

	daemon_close(&vmm->options.machine.new_snapshot_fd);
	if (r < 0) {
		daemon_end(vmm, ENGINE_FAILED, "the device thread could not be locked");
	} else if (error < 0) {
		log_info("the guest could not be stored for later starts: %s: %s", step,
			 strerror(-error));
	} else {
		daemon_tell_control(vmm, "stored");
		audit_channel_notice(&vmm->audit, "engine", "stored the guest for later starts");
		log_info("stored the guest for later starts");
	}
}

static void machine_violation(void *observer, const char *device, const char *what)
{
	daemon_report_violation(observer, device, what);
}

static int add_disk(struct vmm *vmm, unsigned index)
{
	const struct vmm_disk *disk = &vmm->options.disks[index];
	const struct block_device_setup setup = {
		.fd = disk->fd,
		.read_only = disk->read_only,
		.serial = disk->serial,
		.loop = &vmm->loop,
	};
	int r = block_device_new(&setup, &vmm->disks[index]);

	/* From here on the file can only be had through the disk's ring. */
	close(disk->fd);
	return r < 0 ? r
		     : kvm_engine_add_device(vmm->machine, &block_device_operations,
					     vmm->disks[index]);
}

static int add_disks(struct vmm *vmm, char *why, size_t size)
{
	for (unsigned i = 0; i < vmm->options.disk_count; i++) {
		int r = add_disk(vmm, i);

		if (r == -EINVAL)
			(void)snprintf(why, size,
				       "--disk %d is no regular file, or open for appending or "
				       "direct access",
				       vmm->options.disks[i].fd);
		else if (r == -EACCES)
			(void)snprintf(why, size, "--disk %d is not open for reading%s",
				       vmm->options.disks[i].fd,
				       vmm->options.disks[i].read_only ? "" : " and writing");
		else if (r < 0)
			(void)snprintf(why, size,
				       "--disk %d: %s (disks need io_uring; see "
				       "/proc/sys/kernel/io_uring_disabled)",
				       vmm->options.disks[i].fd, strerror(-r));
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_vsock(struct vmm *vmm)
{
	const struct vsock_device_setup setup = daemon_vsock_setup(vmm);
	int r = virtio_vsock_new(&setup, &vmm->vsock);

	if (r == 0)
		r = vsock_muxer_start(vmm->muxer, virtio_vsock_device(vmm->vsock));
	if (r == 0)
		r = kvm_engine_add_device(vmm->machine, &virtio_vsock_operations, vmm->vsock);
	return r;
}

/* The vsock device comes first: what a guest finds first is there first. */
static int add_devices(struct vmm *vmm, char *why, size_t size)
{
	int r = add_vsock(vmm);

	if (r == 0)
		r = entropy_device_new(&vmm->entropy);
	if (r == 0)
		r = kvm_engine_add_device(vmm->machine, &entropy_device_operations, vmm->entropy);
	if (r == 0)
		r = balloon_device_new(&vmm->balloon);
	if (r == 0)
		r = kvm_engine_add_device(vmm->machine, &balloon_device_operations, vmm->balloon);
	return r < 0 ? r : add_disks(vmm, why, size);
}

static int make_machine(struct vmm *vmm, char *why, size_t size)
{
	const struct kvm_engine_observer observer = {
		.ended = machine_ended,
		.paused = machine_paused,
		.stored = machine_stored,
		.violation = machine_violation,
		.observer = vmm,
	};
	int r = kvm_engine_open(&vmm->options.machine, &observer, &vmm->machine, why, size);

	if (r < 0)
		return r;
	r = add_devices(vmm, why, size);
	return r < 0 ? r : kvm_engine_complete(vmm->machine, why, size);
}

static void release(struct vmm *vmm)
{
	kvm_engine_free(vmm->machine);
	for (unsigned i = 0; i < vmm->options.disk_count; i++)
		block_device_free(vmm->disks[i]);
	balloon_device_free(vmm->balloon);
	entropy_device_free(vmm->entropy);
	virtio_vsock_free(vmm->vsock);
	vmm->machine = NULL;
	vmm->balloon = NULL;
	vmm->entropy = NULL;
	vmm->vsock = NULL;
}

/* From the snapshot, if it is one of this very machine. */
static bool make_from_snapshot(struct vmm *vmm)
{
	char why[ENGINE_TEXT_MAX] = "";
	int r = make_machine(vmm, why, sizeof(why));

	daemon_close(&vmm->options.machine.snapshot_fd);
	if (r < 0) {
		log_info("starting afresh: %s", why);
		release(vmm);
		return false;
	}
	daemon_close(&vmm->options.machine.new_snapshot_fd);
	daemon_tell_control(vmm, "restored");
	audit_channel_notice(&vmm->audit, "engine", "going on from a snapshot");
	log_info("going on from a snapshot");
	return true;
}

static int prepare(struct vmm *vmm)
{
	char why[ENGINE_TEXT_MAX] = "";
	int r;

	/* Disks are not stored. */
	if (vmm->options.disk_count > 0 || !kvm_engine_can_store(&vmm->options.machine)) {
		daemon_close(&vmm->options.machine.snapshot_fd);
		daemon_close(&vmm->options.machine.new_snapshot_fd);
	}
	if (vmm->options.machine.snapshot_fd >= 0 && make_from_snapshot(vmm))
		return 0;
	r = make_machine(vmm, why, sizeof(why));
	if (r < 0)
		daemon_end(vmm, ENGINE_FAILED, why[0] ? why : strerror(-r));
	return r;
}

static int begin(struct vmm *vmm)
{
	int r = daemon_follow_console(vmm, kvm_engine_take_console(vmm->machine));

	if (r == 0)
		r = kvm_engine_start(vmm->machine, &vmm->loop,
				     &vmm_filters[VMM_FILTER_VCPU_THREAD]);
	/* The threads are there. A guest that is to be stored is as it starts. */
	if (r == 0 && vmm->options.machine.new_snapshot_fd < 0)
		r = jail_filter_enter_thread(&vmm_filters[VMM_FILTER_DEVICE_THREAD]);
	if (r == 0)
		kvm_engine_resume(vmm->machine);
	return r;
}

static int serve(struct vmm *vmm)
{
	int more = kvm_engine_run_devices(vmm->machine);

	if (!vmm->told_started &&
	    vsock_device_queue_runs(virtio_vsock_device(vmm->vsock), VSOCK_QUEUE_RECEIVE))
		daemon_tell_started(vmm);
	if (vmm->options.machine.new_snapshot_fd >= 0 &&
	    vsock_device_had_streams(virtio_vsock_device(vmm->vsock)) &&
	    kvm_engine_forbid_storing(vmm->machine))
		machine_stored(vmm, -ECANCELED, "the guest has opened a stream before");
	return more;
}

static bool control(struct vmm *vmm, const char *text)
{
	if (strcmp(text, "pause") == 0)
		kvm_engine_pause(vmm->machine);
	else if (strcmp(text, "resume") == 0)
		kvm_engine_resume(vmm->machine);
	else
		return false;
	return true;
}

static void end(struct vmm *vmm)
{
	if (vmm->machine && kvm_engine_stop(vmm->machine) < 0) {
		log_error("a virtual processor does not come back from KVM; ending all the same");
		vmm->stuck = true;
	}
	if (vmm->console.loop)
		line_relay_finish(&vmm->console);
}

const struct vmm_form in_process_form = {
	.prepare = prepare,
	.begin = begin,
	.serve = serve,
	.control = control,
	.end = end,
	.release = release,
	.filter = VMM_FILTER_IN_PROCESS,
	.storing_filter = VMM_FILTER_STORING,
};
