/*
 * A virtual machine of the kernel's KVM: its descriptors, memory, interrupt controllers, and the
 * eventfds by which it talks to devices. Every call here is made while the machine is being put
 * together, before the process is locked; kvm_vm_save() alone may come later.
 *
 * Source: the kernel's Documentation/virt/kvm/api.rst; each function names its ioctl.
 */
#ifndef VMM_KVM_VM_H
#define VMM_KVM_VM_H

#include "jail/jail.h"
#include "vmm/guest_memory.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

struct kvm_vm {
	int kvm; /* /dev/kvm */
	int fd;
	size_t run_length; /* bytes of a vCPU's shared block */
};

/* Opens /dev/kvm and makes a machine with interrupt controllers in the kernel. Returns 0, or a
 * negative errno with the step that failed: -ENOENT and -EACCES from opening, -EOPNOTSUPP for a
 * KVM that lacks something. `vm` can be released in each case. */
int kvm_vm_open(struct kvm_vm *vm, const char **ret_step);
void kvm_vm_release(struct kvm_vm *vm);

/* Every region as a memory slot (KVM_SET_USER_MEMORY_REGION). The memory must outlive the machine.
 */
int kvm_vm_add_memory(const struct kvm_vm *vm, const struct guest_memory *memory);

/* A write to eventfd `fd` is an edge on interrupt line `gsi` (KVM_IRQFD). */
int kvm_vm_add_interrupt(const struct kvm_vm *vm, int fd, uint32_t gsi);

/* A 32-bit write of `value` to `address` counts up eventfd `fd` and nothing else
 * (KVM_IOEVENTFD). */
int kvm_vm_add_notification(const struct kvm_vm *vm, int fd, uint64_t address, uint32_t value);

/* What KVM keeps for the machine as a whole: interrupt controllers (KVM_GET_IRQCHIP), and the clock
 * that guests read (KVM_GET_CLOCK). Each part has the kernel's own fixed layout. */
struct kvm_vm_state {
	struct kvm_irqchip
		controllers[KVM_NR_IRQCHIPS]; /* by their chip_id: two PICs, the IOAPIC */
	struct kvm_clock_data clock;
};
_Static_assert(sizeof(struct kvm_vm_state) == 3 * 520 + 48, "stored layout");

/* Reads or sets it all, while no vCPU runs. Returns 0, or a negative errno with the step that
 * failed. The clock goes on from where it was. */
int kvm_vm_save(const struct kvm_vm *vm, struct kvm_vm_state *ret_state, const char **ret_step);
int kvm_vm_restore(const struct kvm_vm *vm, const struct kvm_vm_state *state,
		   const char **ret_step);

/* What kvm_vm_save() calls. */
extern const struct jail_syscall_set kvm_vm_save_calls;

/* KVM_CREATE_VCPU; the descriptor is the caller's. */
int kvm_vm_create_vcpu(const struct kvm_vm *vm, unsigned index);

#endif
