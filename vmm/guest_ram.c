#include "vmm/guest_ram.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE_PAGE UINT64_C(0x200000)
#define LEGACY_TOP UINT64_C(0x100000)

int guest_ram_layout(uint64_t length, uint64_t window_address, uint64_t window_length,
		     struct guest_ram_layout *ret_layout)
{
	uint64_t low = MIN_OF(length, GUEST_RAM_LOW_MAX);

	if (length < GUEST_RAM_MIN || length > GUEST_RAM_MAX || length % GUEST_RAM_GRAIN)
		return -EINVAL;
	if (window_length > 0 && (window_address % GUEST_RAM_GRAIN ||
				  window_length % GUEST_RAM_GRAIN || window_address < LEGACY_TOP ||
				  window_address > low || window_length > low - window_address))
		return -EINVAL;
	*ret_layout = (struct guest_ram_layout){
		.low_length = low,
		.high_length = length - low,
		.window_address = window_length > 0 ? window_address : low,
		.window_length = window_length,
	};
	return 0;
}

bool guest_ram_fits(const struct guest_ram_layout *layout, unsigned address_bits)
{
	return address_bits >= 64 ||
	       GUEST_RAM_HIGH_BASE + layout->high_length <= UINT64_C(1) << address_bits;
}

uint64_t guest_ram_top(const struct guest_ram_layout *layout)
{
	return layout->window_address;
}

size_t guest_ram_ranges(const struct guest_ram_layout *layout,
			struct guest_ram_range ranges[GUEST_RAM_RANGES_MAX])
{
	const uint64_t window = layout->window_address;
	const uint64_t window_end = window + layout->window_length;
	const struct guest_ram_range all[GUEST_RAM_RANGES_MAX] = {
		{ 0, GUEST_RAM_LEGACY_END, GUEST_RAM_USABLE },
		{ GUEST_RAM_LEGACY_END, LEGACY_TOP - GUEST_RAM_LEGACY_END, GUEST_RAM_RESERVED },
		{ LEGACY_TOP, window - LEGACY_TOP, GUEST_RAM_USABLE },
		{ window, layout->window_length, GUEST_RAM_RESERVED },
		{ window_end, layout->low_length - window_end, GUEST_RAM_USABLE },
		{ GUEST_RAM_HIGH_BASE, layout->high_length, GUEST_RAM_USABLE },
	};
	size_t count = 0;

	for (size_t i = 0; i < GUEST_RAM_RANGES_MAX; i++) {
		if (all[i].length > 0)
			ranges[count++] = all[i];
	}
	return count;
}

/* Private memory whose addresses here and in the guest are equal within a huge page, so that one of
 * ours is one of the guest's. */
static int add_private(struct guest_memory *memory, uint64_t address, uint64_t length)
{
	const size_t total = (size_t)(length + HUGE_PAGE);
	uint8_t *space, *start;
	size_t before;

	if (length == 0)
		return 0;
	space = mmap(NULL, total, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED)
		return -errno;
	before = (size_t)((address - (uintptr_t)space) % HUGE_PAGE);
	start = space + before;
	if (before > 0)
		(void)munmap(space, before);
	if (before < HUGE_PAGE)
		(void)munmap(start + length, (size_t)HUGE_PAGE - before);
	/* Where there are none, small ones do. */
	(void)madvise(start, (size_t)length, MADV_HUGEPAGE);
	return guest_memory_add_private(memory, start, address, length);
}

int guest_ram_map(const struct guest_ram_layout *layout, int window_fd, struct guest_memory *memory)
{
	const uint64_t window = layout->window_address;
	const uint64_t window_end = window + layout->window_length;
	int r = add_private(memory, 0, window);

	if (r == 0 && layout->window_length > 0 && window_fd >= 0)
		r = guest_memory_map(memory, window_fd, window, window, window,
				     layout->window_length);
	else if (r == 0)
		r = add_private(memory, window, layout->window_length);
	if (r == 0)
		r = add_private(memory, window_end, layout->low_length - window_end);
	if (r == 0)
		r = add_private(memory, GUEST_RAM_HIGH_BASE, layout->high_length);
	if (r < 0)
		guest_memory_release(memory);
	return r;
}

/* A memory file of reserved pages. One that is not there when it is touched is a SIGBUS: all are
 * taken now. */
static int take_huge_pages(uint64_t length)
{
	cleanup_fd int fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING |
							      MFD_HUGETLB | MFD_HUGE_2MB);

	if (fd < 0 || ftruncate(fd, (off_t)length) < 0 || fallocate(fd, 0, 0, (off_t)length) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return steal_fd(&fd);
}

uint64_t guest_ram_huge_pages(const struct guest_ram_layout *layout, bool window_is_shared)
{
	return (layout->low_length - (window_is_shared ? layout->window_length : 0) +
		layout->high_length) /
	       HUGE_PAGE;
}

int guest_ram_map_huge(const struct guest_ram_layout *layout, int window_fd,
		       struct guest_memory *memory)
{
	const bool shared = window_fd >= 0 && layout->window_length > 0;
	const uint64_t window = shared ? layout->window_address : layout->low_length;
	const uint64_t window_length = shared ? layout->window_length : 0;
	/* Where they begin in the guest, and how many bytes of the file, in this order, they are.
	 */
	const struct {
		uint64_t address;
		uint64_t length;
	} parts[] = {
		{ 0, window },
		{ window + window_length, layout->low_length - window - window_length },
		{ GUEST_RAM_HIGH_BASE, layout->high_length },
	};
	cleanup_fd int fd = -1;
	uint64_t offset = 0;
	int r = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(parts); i++) {
		if (parts[i].address % HUGE_PAGE || parts[i].length % HUGE_PAGE)
			return -EINVAL;
	}
	fd = take_huge_pages(guest_ram_huge_pages(layout, shared) * HUGE_PAGE);
	if (fd < 0)
		return fd;
	if (shared)
		r = guest_memory_map(memory, window_fd, window, window, window, window_length);
	for (size_t i = 0; r == 0 && i < ARRAY_LENGTH(parts); i++) {
		if (parts[i].length > 0)
			r = guest_memory_map(memory, fd, offset, parts[i].address, parts[i].address,
					     parts[i].length);
		offset += parts[i].length;
	}
	if (r < 0)
		guest_memory_release(memory);
	return r;
}

/* The first bytes that the file stores in `offset` to `end`; none, where ret_start is `end`. A file
 * system that knows no holes says that all is stored. */
static int find_stored(int fd, uint64_t offset, uint64_t end, uint64_t *ret_start,
		       uint64_t *ret_end)
{
	off_t start = lseek(fd, (off_t)offset, SEEK_DATA);
	off_t hole;

	*ret_start = *ret_end = end;
	if (start < 0)
		return errno == ENXIO ? 0 : -errno;
	if ((uint64_t)start >= end)
		return 0;
	hole = lseek(fd, start, SEEK_HOLE);
	if (hole <= start)
		return hole < 0 ? -errno : -EIO;
	*ret_start = (uint64_t)start;
	*ret_end = MIN_OF((uint64_t)hole, end);
	return 0;
}

int guest_ram_place(const struct guest_memory *memory, int fd, uint64_t offset,
		    uint64_t guest_address, uint64_t length)
{
	uint64_t end, stored, stored_end;
	struct stat status;
	uint8_t *target;
	int r = 0;

	if (length == 0)
		return 0;
	target = gpa_range(memory, guest_address, length);
	if (!target || !checked_add_u64(offset, length, &end) || end > INT64_MAX)
		return -EFAULT;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (end > (uint64_t)status.st_size)
		return -ENODATA;
	for (uint64_t at = offset; r == 0 && at < end; at = stored_end) {
		r = find_stored(fd, at, end, &stored, &stored_end);
		if (r == 0)
			r = pread_full(fd, target + (stored - offset),
				       (size_t)(stored_end - stored), stored);
	}
	return r;
}
