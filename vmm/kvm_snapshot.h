/*
 * Storing a machine of the KVM engine that has just started, and making one that goes on from
 * there (snapshot.h has the file).
 *
 * What a snapshot fits is its identity (snapshot_identity.h); besides, the processor's CPUID and
 * what the devices show of themselves.
 *
 * Guests of one snapshot share what Linux chose at random before it was taken: the layout of the
 * kernel's memory, the keys of its hash tables, the state of its generator. guest-init seeds the
 * generator anew before anything else runs.
 */
#ifndef VMM_KVM_SNAPSHOT_H
#define VMM_KVM_SNAPSHOT_H

#include "vmm/engine.h"
#include "vmm/kvm_vcpu.h"
#include "vmm/snapshot.h"

/* What a machine consists of; all borrowed. */
struct kvm_snapshot_parts {
	const struct kvm_vm *vm;
	const struct kvm_vcpus *vcpus;
	unsigned cpus;
	const struct guest_memory *memory;
	const struct guest_ram_layout *ram;
	struct serial_port *serial;
	struct virtio_mmio *transports[PLATFORM_VIRTIO_MAX];
	unsigned transport_count;
};

/* Whether the state is of a machine with that identity, memory and processors. */
bool kvm_snapshot_fits(const struct snapshot_state *state, const char *identity,
		       const struct guest_ram_layout *ram, unsigned cpus);

/* Reads, while the machine is put together, what cannot be read later: CPUID. */
int kvm_snapshot_prepare(struct snapshot_state *state, const struct kvm_snapshot_parts *parts);
/* Stores a machine that was prepared, on the device thread while no vCPU runs. Returns 0,
 * or a negative errno with what could not be stored: the guest can go on. */
int kvm_snapshot_take(int fd, struct snapshot_state *state, const struct kvm_snapshot_parts *parts,
		      const char **ret_step);

/* Brings a machine whose memory was read into the stored state, before its first instruction and
 * before its devices are started. Returns 0, or a negative errno with what does not fit: the
 * machine can only be released. */
int kvm_snapshot_apply(const struct snapshot_state *state, const struct kvm_snapshot_parts *parts,
		       const char **ret_step);

#endif
