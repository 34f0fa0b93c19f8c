#include "vmm/daemon_calls.h"

#include "vmm/balloon_device.h"
#include "vmm/block_device.h"
#include "vmm/entropy_device.h"
#include "vmm/kvm_cpu_state.h"
#include "vmm/kvm_vcpu.h"
#include "vmm/kvm_vm.h"
#include "vmm/serial_port.h"
#include "vmm/snapshot.h"
#include "vmm/vhost_user.h"
#include "vmm/virtio_mmio.h"
#include "vmm/vsock_muxer.h"

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_fchdir), /* to the sockets' directory; once */
	JAIL_CALL(SYS_epoll_wait), JAIL_CALL(SYS_epoll_ctl), JAIL_CALL(SYS_fcntl),
	JAIL_CALL(SYS_recvfrom),   JAIL_CALL(SYS_sendto),
};
static const struct jail_syscall_set daemon_calls = JAIL_SET(calls);

/* The end of the engine, and how it comes. */
static const struct jail_syscall engine_calls[] = {
	JAIL_CALL(SYS_waitid),
	JAIL_CALL(SYS_pidfd_send_signal),
};
static const struct jail_syscall_set engine_call_set = JAIL_SET(engine_calls);

const struct jail_syscall_set *const child_calls[] = {
	&jail_calls_process, &vsock_muxer_calls, &daemon_calls,
	&vhost_user_calls,   &engine_call_set,	 NULL,
};

const struct jail_syscall_set *const storing_child_calls[] = {
	&jail_calls_process, &vsock_muxer_calls,    &daemon_calls, &vhost_user_calls,
	&engine_call_set,    &snapshot_write_calls, NULL,
};

const struct jail_syscall_set *const in_process_calls[] = {
	&jail_calls_process,	   &vsock_muxer_calls,	  &daemon_calls,       &jail_calls_threads,
	&jail_calls_thread_filter, &kvm_vcpu_calls,	  &serial_port_calls,  &virtio_mmio_calls,
	&entropy_device_calls,	   &balloon_device_calls, &block_device_calls, NULL,
};

const struct jail_syscall_set *const storing_calls[] = {
	&jail_calls_process,   &vsock_muxer_calls,	  &daemon_calls,
	&jail_calls_threads,   &jail_calls_thread_filter, &kvm_vcpu_calls,
	&serial_port_calls,    &virtio_mmio_calls,	  &entropy_device_calls,
	&balloon_device_calls, &block_device_calls,	  &kvm_vm_save_calls,
	&kvm_cpu_save_calls,   &snapshot_write_calls,	  NULL,
};

/* No thread is made any more, no file opened, and KVM not spoken to. */
const struct jail_syscall_set *const device_thread_calls[] = {
	&jail_calls_process,   &vsock_muxer_calls,    &daemon_calls,	   &virtio_mmio_calls,
	&entropy_device_calls, &balloon_device_calls, &block_device_calls, NULL,
};

const struct jail_syscall_set *const vcpu_thread_calls[] = {
	&kvm_vcpu_calls,
	&serial_port_calls,
	NULL,
};
