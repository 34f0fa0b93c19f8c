#include "vmm/kvm_snapshot.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool kvm_snapshot_fits(const struct snapshot_state *state, const char *identity,
		       const struct guest_ram_layout *ram, unsigned cpus)
{
	return strcmp(state->identity, identity) == 0 && state->cpus == cpus &&
	       memcmp(&state->ram, ram, sizeof(*ram)) == 0;
}

/* ---- state -------------------------------------------------------------------------------------
 */

/* What the first processor shows. */
static int read_cpuid(const struct kvm_snapshot_parts *parts, struct kvm_cpuid_table *ret_table)
{
	int r;

	memset(ret_table, 0, sizeof(*ret_table));
	r = kvm_cpuid_supported(parts->vm->kvm, ret_table);
	return r < 0 ? r : kvm_cpuid_patch(ret_table, 0, parts->cpus);
}

int kvm_snapshot_prepare(struct snapshot_state *state, const struct kvm_snapshot_parts *parts)
{
	return read_cpuid(parts, &state->cpuid);
}

static int save_transports(struct snapshot_state *state, const struct kvm_snapshot_parts *parts)
{
	int r = 0;

	state->devices = parts->transport_count;
	for (unsigned i = 0; r == 0 && i < parts->transport_count; i++)
		r = virtio_mmio_save(parts->transports[i], &state->transports[i]);
	return r;
}

int kvm_snapshot_take(int fd, struct snapshot_state *state, const struct kvm_snapshot_parts *parts,
		      const char **ret_step)
{
	int r;

	*ret_step = "devices";
	r = save_transports(state, parts);
	if (r < 0)
		return r;
	state->ram = *parts->ram;
	state->cpus = parts->cpus;
	state->serial = serial_port_save(parts->serial);
	for (unsigned i = 0; r == 0 && i < parts->cpus; i++)
		r = kvm_cpu_save(kvm_vcpus_descriptor(parts->vcpus, i), &state->processors[i],
				 ret_step);
	if (r == 0)
		r = kvm_vm_save(parts->vm, &state->vm, ret_step);
	if (r < 0)
		return r;
	*ret_step = "writing the file";
	return snapshot_write(fd, state, parts->memory);
}

static int check_cpuid(const struct snapshot_state *state, const struct kvm_snapshot_parts *parts)
{
	cleanup_free struct kvm_cpuid_table *table = malloc(sizeof(*table));
	int r = table ? read_cpuid(parts, table) : -ENOMEM;

	if (r < 0)
		return r;
	return memcmp(table, &state->cpuid, sizeof(*table)) == 0 ? 0 : -EINVAL;
}

int kvm_snapshot_apply(const struct snapshot_state *state, const struct kvm_snapshot_parts *parts,
		       const char **ret_step)
{
	int r;

	*ret_step = "CPUID";
	r = check_cpuid(state, parts);
	for (unsigned i = 0; r == 0 && i < parts->cpus; i++)
		r = kvm_cpu_restore(kvm_vcpus_descriptor(parts->vcpus, i), &state->processors[i],
				    ret_step);
	if (r == 0)
		r = kvm_vm_restore(parts->vm, &state->vm, ret_step);
	if (r < 0)
		return r;
	serial_port_restore(parts->serial, &state->serial);
	*ret_step = "devices";
	if (state->devices != parts->transport_count)
		return -EINVAL;
	/* Last, for they may interrupt. */
	for (unsigned i = 0; r == 0 && i < parts->transport_count; i++)
		r = virtio_mmio_restore(parts->transports[i], &state->transports[i]);
	return r;
}
