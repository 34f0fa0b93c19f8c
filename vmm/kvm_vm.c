#include "vmm/kvm_vm.h"

#include "base/checked.h"
#include "vmm/platform.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* What cannot be done without, by the name that an administrator may look up. */
static const struct {
	int capability;
	const char *name;
} required[] = {
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
	{ KVM_CAP_IRQFD, "KVM_CAP_IRQFD" },
	{ KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
	{ KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
};

static int fail(const char **ret_step, const char *step)
{
	*ret_step = step;
	return -errno;
}

static int check_capabilities(const struct kvm_vm *vm, const char **ret_step)
{
	if (ioctl(vm->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		*ret_step = "KVM_GET_API_VERSION";
		return -EOPNOTSUPP;
	}
	for (size_t i = 0; i < ARRAY_LENGTH(required); i++) {
		if (ioctl(vm->kvm, KVM_CHECK_EXTENSION, required[i].capability) <= 0) {
			*ret_step = required[i].name;
			return -EOPNOTSUPP;
		}
	}
	return 0;
}

int kvm_vm_open(struct kvm_vm *vm, const char **ret_step)
{
	uint64_t identity_map = PLATFORM_IDENTITY_MAP_ADDRESS;
	int length;
	int r;

	*vm = (struct kvm_vm){ .kvm = -1, .fd = -1 };
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		return fail(ret_step, "opening /dev/kvm");
	r = check_capabilities(vm, ret_step);
	if (r < 0)
		return r;
	length = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (length < (int)sizeof(struct kvm_run)) {
		*ret_step = "KVM_GET_VCPU_MMAP_SIZE";
		return length < 0 ? -errno : -EOPNOTSUPP;
	}
	vm->run_length = (size_t)length;
	do
		vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	while (vm->fd < 0 && errno == EINTR);
	if (vm->fd < 0)
		return fail(ret_step, "KVM_CREATE_VM");
	if (ioctl(vm->fd, KVM_SET_TSS_ADDR, (unsigned long)PLATFORM_TSS_ADDRESS) < 0)
		return fail(ret_step, "KVM_SET_TSS_ADDR");
	if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
		return fail(ret_step, "KVM_SET_IDENTITY_MAP_ADDR");
	if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return fail(ret_step, "KVM_CREATE_IRQCHIP");
	return 0;
}

void kvm_vm_release(struct kvm_vm *vm)
{
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->kvm >= 0)
		close(vm->kvm);
	*vm = (struct kvm_vm){ .kvm = -1, .fd = -1 };
}

int kvm_vm_add_memory(const struct kvm_vm *vm, const struct guest_memory *memory)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_region *region = &memory->regions[i];
		struct kvm_userspace_memory_region slot = {
			.slot = (uint32_t)i,
			.guest_phys_addr = region->guest_address,
			.memory_size = region->length,
			.userspace_addr = (uintptr_t)region->host,
		};

		if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
			return -errno;
	}
	return 0;
}

int kvm_vm_add_interrupt(const struct kvm_vm *vm, int fd, uint32_t gsi)
{
	struct kvm_irqfd irqfd = { .fd = (uint32_t)fd, .gsi = gsi };

	return ioctl(vm->fd, KVM_IRQFD, &irqfd) < 0 ? -errno : 0;
}

int kvm_vm_add_notification(const struct kvm_vm *vm, int fd, uint64_t address, uint32_t value)
{
	struct kvm_ioeventfd notification = {
		.datamatch = value,
		.addr = address,
		.len = 4,
		.fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	return ioctl(vm->fd, KVM_IOEVENTFD, &notification) < 0 ? -errno : 0;
}

int kvm_vm_create_vcpu(const struct kvm_vm *vm, unsigned index)
{
	int fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)index);

	return fd < 0 ? -errno : fd;
}

int kvm_vm_save(const struct kvm_vm *vm, struct kvm_vm_state *ret_state, const char **ret_step)
{
	struct kvm_vm_state state = { 0 };

	for (uint32_t i = 0; i < KVM_NR_IRQCHIPS; i++) {
		state.controllers[i].chip_id = i;
		if (ioctl(vm->fd, KVM_GET_IRQCHIP, &state.controllers[i]) < 0)
			return fail(ret_step, "KVM_GET_IRQCHIP");
	}
	if (ioctl(vm->fd, KVM_GET_CLOCK, &state.clock) < 0)
		return fail(ret_step, "KVM_GET_CLOCK");
	*ret_state = state;
	return 0;
}

int kvm_vm_restore(const struct kvm_vm *vm, const struct kvm_vm_state *state, const char **ret_step)
{
	/* Without the flags that would count in the time since it was stored. */
	struct kvm_clock_data clock = { .clock = state->clock.clock };

	for (size_t i = 0; i < KVM_NR_IRQCHIPS; i++) {
		struct kvm_irqchip controller = state->controllers[i];

		if (ioctl(vm->fd, KVM_SET_IRQCHIP, &controller) < 0)
			return fail(ret_step, "KVM_SET_IRQCHIP");
	}
	if (ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0)
		return fail(ret_step, "KVM_SET_CLOCK");
	return 0;
}

static const struct jail_syscall calls[] = {
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_IRQCHIP)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_CLOCK)),
};
const struct jail_syscall_set kvm_vm_save_calls = JAIL_SET(calls);
