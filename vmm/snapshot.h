/*
 * A stored machine: the file that a guest can go on from, in another process.
 *
 * The file is a snapshot_state, the runs of guest memory that are not zero, and from the next whole
 * page on those runs' bytes. It is of one host: layouts are this program's and its kernel's, as is
 * the byte order, and the state says by its identity what the machine was made of. It is written by
 * a process that no untrusted code has run beside yet, and read back only by its user; all that is
 * read is checked all the same.
 *
 * The state begins with its magic number and is written last, so that a file whose writer came to
 * an end early is no snapshot.
 */
#ifndef VMM_SNAPSHOT_H
#define VMM_SNAPSHOT_H

#include "jail/jail.h"
#include "vmm/guest_ram.h"
#include "vmm/kvm_cpu_state.h"
#include "vmm/kvm_vm.h"
#include "vmm/platform.h"
#include "vmm/serial_port.h"
#include "vmm/virtio_mmio.h"

#include <stddef.h>
#include <stdint.h>

#define SNAPSHOT_MAGIC UINT64_C(0x31304d4b4c54414d) /* "MATLKM01" */
#define SNAPSHOT_IDENTITY_MAX 4096
#define SNAPSHOT_RUNS_MAX 16384

/* Only the first `cpus` entries of the last field are in the file. */
struct snapshot_state {
	uint64_t magic;
	uint32_t cpus;	  /* 1..PLATFORM_CPUS_MAX */
	uint32_t devices; /* 0..PLATFORM_VIRTIO_MAX */
	struct guest_ram_layout ram;
	uint64_t run_count;		      /* at most SNAPSHOT_RUNS_MAX */
	uint64_t byte_count;		      /* of all runs */
	char identity[SNAPSHOT_IDENTITY_MAX]; /* ends with NUL */
	struct kvm_cpuid_table cpuid;	      /* of the first processor */
	struct serial_port_state serial;
	struct kvm_vm_state vm;
	struct virtio_mmio_image transports[PLATFORM_VIRTIO_MAX];
	struct kvm_cpu_state processors[PLATFORM_CPUS_MAX];
};

/* Fills in what the memory has, and writes all of it to `fd`, an empty regular file. Memory that is
 * a file's is left out. Returns 0, -E2BIG for memory in too many pieces, or another negative errno.
 */
int snapshot_write(int fd, struct snapshot_state *state, const struct guest_memory *memory);

/* Reads the state. Returns 0, -ENODATA for an empty file, -EINVAL for one that is no whole
 * snapshot, or another negative errno. */
int snapshot_read_state(int fd, struct snapshot_state *ret_state);
/* Reads the memory into fresh private memory. Returns 0, -EINVAL for runs that are not within such
 * memory, or another negative errno. */
int snapshot_read_memory(int fd, const struct snapshot_state *state,
			 const struct guest_memory *memory);

/* What writing calls, beside jail_calls_process. */
extern const struct jail_syscall_set snapshot_write_calls;

#endif
