/*
 * Guest physical memory as this process sees it, and the one accessor for it.
 *
 * A guest_memory is a set of at most GUEST_MEMORY_REGIONS_MAX regions that overlap neither in
 * guest physical addresses nor in the front end's ("user") addresses. Each is a shared mapping of
 * a memory file that cannot shrink, or private memory of this process, so no access through the
 * accessor can fault. The guest may change any byte at any time: what decides something is copied
 * once and judged on the copy.
 *
 * Pages go back to the host (guest_memory_discard()) only within ranges that the owner named as
 * discardable: not in a window that others use.
 *
 * The struct owns its mappings; guest_memory_release() unmaps them.
 */
#ifndef VMM_GUEST_MEMORY_H
#define VMM_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_MEMORY_REGIONS_MAX 8
#define GUEST_MEMORY_DISCARDABLE_MAX 8

struct guest_region {
	uint64_t guest_address;
	uint64_t user_address;
	uint64_t length; /* bytes */
	uint8_t *host;	 /* where the region begins in this process */
	bool is_private; /* memory of this process alone, no file's */
};

struct guest_discardable {
	uint64_t guest_address;
	uint64_t length; /* bytes */
	uint8_t *host;
	bool is_private; /* as its region is */
};

struct guest_memory {
	struct guest_region regions[GUEST_MEMORY_REGIONS_MAX];
	size_t count;
	struct guest_discardable discardable[GUEST_MEMORY_DISCARDABLE_MAX];
	size_t discardable_count;
};

/*
 * Maps `length` bytes at `file_offset` of the memory file `fd` (borrowed) as a region. Returns 0,
 * -ENOSPC when there are too many regions, -EINVAL for empty, overflowing, overlapping or
 * unaligned ranges, -EPERM when the file could shrink (memfd without F_SEAL_SHRINK), -EFBIG when
 * it is shorter than the region, or another negative errno.
 */
int guest_memory_map(struct guest_memory *memory, int fd, uint64_t file_offset,
		     uint64_t guest_address, uint64_t user_address, uint64_t length);

/* Adds `length` bytes of private memory at `host`, which the struct owns from here on, whatever is
 * returned; the user address is the guest's. Returns 0, -ENOSPC or -EINVAL as above. */
int guest_memory_add_private(struct guest_memory *memory, uint8_t *host, uint64_t guest_address,
			     uint64_t length);

void guest_memory_release(struct guest_memory *memory);

/* `length` > 0 bytes at a guest physical address, or NULL unless all lie in one region. */
void *gpa_range(const struct guest_memory *memory, uint64_t address, uint64_t length);

/* The same for an address in the front end's own address space (vhost-user ring addresses). */
void *user_range(const struct guest_memory *memory, uint64_t address, uint64_t length);

/* The guest physical address of a byte in a region. 0 or -EFAULT. */
int guest_address_of(const struct guest_memory *memory, const void *host, uint64_t *ret_address);

/* Names a range whose pages may go back to the host. Returns 0, -EFAULT unless it lies in one
 * region, -EINVAL when it is not of whole pages, -ENOSPC when there are too many. */
int guest_memory_allow_discard(struct guest_memory *memory, uint64_t address, uint64_t length);

/* Gives those whole pages of the range back to the host that lie in discardable ranges; they read
 * as zero when next touched. The range may be anything. Returns the bytes given back. */
uint64_t guest_memory_discard(const struct guest_memory *memory, uint64_t address, uint64_t length);

#endif
