#include "vmm/guest_memory.h"

#include "base/checked.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_MASK_4K UINT64_C(4095)

static bool ranges_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

/* The length of the whole file must cover the range, and must not be able to drop below it:
 * otherwise an access raises SIGBUS. */
static int check_memory_file(int fd, uint64_t file_offset, uint64_t length)
{
	struct stat status;
	uint64_t end;
	int seals;

	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return errno == EINVAL ? -EPERM : -errno;
	if (!(seals & F_SEAL_SHRINK))
		return -EPERM;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (!checked_add_u64(file_offset, length, &end) || status.st_size < 0 ||
	    end > (uint64_t)status.st_size)
		return -EFBIG;
	return 0;
}

/* Whether there is room for a region. */
static int check_region(const struct guest_memory *memory, uint64_t guest_address,
			uint64_t user_address, uint64_t length)
{
	uint64_t end;

	if (memory->count >= GUEST_MEMORY_REGIONS_MAX)
		return -ENOSPC;
	if (length == 0 || length > (uint64_t)PTRDIFF_MAX || (guest_address & PAGE_MASK_4K) ||
	    (user_address & PAGE_MASK_4K) || !checked_add_u64(guest_address, length, &end) ||
	    !checked_add_u64(user_address, length, &end))
		return -EINVAL;
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_region *other = &memory->regions[i];

		if (ranges_overlap(guest_address, length, other->guest_address, other->length) ||
		    ranges_overlap(user_address, length, other->user_address, other->length))
			return -EINVAL;
	}
	return 0;
}

int guest_memory_map(struct guest_memory *memory, int fd, uint64_t file_offset,
		     uint64_t guest_address, uint64_t user_address, uint64_t length)
{
	void *mapping;
	int r = check_region(memory, guest_address, user_address, length);

	if (r < 0)
		return r;
	if ((file_offset & PAGE_MASK_4K) || file_offset > (uint64_t)INT64_MAX)
		return -EINVAL;
	r = check_memory_file(fd, file_offset, length);
	if (r < 0)
		return r;
	mapping = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		       (off_t)file_offset);
	if (mapping == MAP_FAILED)
		return -errno;
	memory->regions[memory->count++] = (struct guest_region){
		.guest_address = guest_address,
		.user_address = user_address,
		.length = length,
		.host = mapping,
	};
	return 0;
}

int guest_memory_add_private(struct guest_memory *memory, uint8_t *host, uint64_t guest_address,
			     uint64_t length)
{
	int r = check_region(memory, guest_address, guest_address, length);

	if (r < 0) {
		(void)munmap(host, (size_t)length);
		return r;
	}
	memory->regions[memory->count++] = (struct guest_region){
		.guest_address = guest_address,
		.user_address = guest_address,
		.length = length,
		.host = host,
		.is_private = true,
	};
	return 0;
}

void guest_memory_release(struct guest_memory *memory)
{
	for (size_t i = 0; i < memory->count; i++)
		munmap(memory->regions[i].host, (size_t)memory->regions[i].length);
	memset(memory, 0, sizeof(*memory));
}

/* The region that holds an address, or NULL. */
static const struct guest_region *region_at(const struct guest_memory *memory, uint64_t address)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_region *region = &memory->regions[i];

		if (address >= region->guest_address &&
		    address - region->guest_address < region->length)
			return region;
	}
	return NULL;
}

void *gpa_range(const struct guest_memory *memory, uint64_t address, uint64_t length)
{
	const struct guest_region *region = region_at(memory, address);

	if (!region || length == 0 || length > region->length - (address - region->guest_address))
		return NULL;
	return region->host + (address - region->guest_address);
}

void *user_range(const struct guest_memory *memory, uint64_t address, uint64_t length)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_region *region = &memory->regions[i];
		uint64_t offset = address - region->user_address;

		if (address >= region->user_address && offset < region->length)
			return length > 0 && length <= region->length - offset
				       ? region->host + offset
				       : NULL;
	}
	return NULL;
}

int guest_address_of(const struct guest_memory *memory, const void *host, uint64_t *ret_address)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_region *region = &memory->regions[i];
		uint64_t offset = (uintptr_t)host - (uintptr_t)region->host;

		if ((uintptr_t)host >= (uintptr_t)region->host && offset < region->length) {
			*ret_address = region->guest_address + offset;
			return 0;
		}
	}
	return -EFAULT;
}

int guest_memory_allow_discard(struct guest_memory *memory, uint64_t address, uint64_t length)
{
	const struct guest_region *region = region_at(memory, address);
	uint8_t *host = gpa_range(memory, address, length);

	if (!region || !host)
		return -EFAULT;
	if ((address & PAGE_MASK_4K) || (length & PAGE_MASK_4K))
		return -EINVAL;
	if (memory->discardable_count >= GUEST_MEMORY_DISCARDABLE_MAX)
		return -ENOSPC;
	memory->discardable[memory->discardable_count++] = (struct guest_discardable){
		.guest_address = address,
		.length = length,
		.host = host,
		.is_private = region->is_private,
	};
	return 0;
}

uint64_t guest_memory_discard(const struct guest_memory *memory, uint64_t address, uint64_t length)
{
	uint64_t discarded = 0;
	uint64_t end;

	/* Around the end of the address space there is no memory. */
	if (!checked_add_u64(address, length, &end) || address > UINT64_MAX - PAGE_MASK_4K)
		return 0;
	address = (address + PAGE_MASK_4K) & ~PAGE_MASK_4K;
	end &= ~PAGE_MASK_4K;
	for (size_t i = 0; i < memory->discardable_count; i++) {
		const struct guest_discardable *range = &memory->discardable[i];
		uint64_t first = MAX_OF(address, range->guest_address);
		uint64_t last = MIN_OF(end, range->guest_address + range->length);

		int advice = range->is_private ? MADV_DONTNEED : MADV_REMOVE;

		/* Fails on parts of reserved huge pages: nothing is lost then. */
		if (first < last && madvise(range->host + (first - range->guest_address),
					    (size_t)(last - first), advice) == 0)
			discarded += last - first;
	}
	return discarded;
}
