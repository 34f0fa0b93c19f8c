/*
 * The RAM of a guest whose vCPUs this process runs: how it lies in the guest's physical addresses,
 * what holds it, and how files get into it.
 *
 * RAM begins at 0 and goes on at 4 GiB where it is larger than 3 GiB; between lies the hole for
 * devices (0xd0000000: virtio-mmio, 0xfec00000: IOAPIC, 0xfee00000: local APICs).
 *
 * A window in low RAM can be kept from the guest's kernel (e820 type "reserved"): it is ordinary
 * guest memory for devices and vCPUs, and the one part that another process may share.
 *
 * All else is private to this process, because that is what the host backs with transparent huge
 * pages: memory files get them on few hosts. Each page that a guest touches first is an exit and a
 * walk of two page tables; in pages of 4 KiB that was most of a guest's start.
 */
#ifndef VMM_GUEST_RAM_H
#define VMM_GUEST_RAM_H

#include "vmm/guest_memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_RAM_MIN (UINT64_C(64) << 20)
#define GUEST_RAM_MAX (UINT64_C(512) << 30)
#define GUEST_RAM_LOW_MAX (UINT64_C(3) << 30)	/* where the hole begins */
#define GUEST_RAM_HIGH_BASE (UINT64_C(4) << 30) /* where it ends */
#define GUEST_RAM_GRAIN UINT64_C(4096)		/* of all addresses and lengths */
#define GUEST_RAM_LEGACY_END UINT64_C(0x9fc00)	/* conventional memory; reserved up to 1 MiB */
#define GUEST_RAM_RANGES_MAX 6

struct guest_ram_layout {
	uint64_t low_length;	 /* bytes from 0 on, the window included */
	uint64_t high_length;	 /* bytes from 4 GiB on */
	uint64_t window_address; /* what the kernel may not use; above 1 MiB */
	uint64_t window_length;	 /* 0: no window */
};

/* As e820 has it: 1 is RAM, 2 is reserved. */
enum guest_ram_type {
	GUEST_RAM_USABLE = 1,
	GUEST_RAM_RESERVED = 2,
};

struct guest_ram_range {
	uint64_t address;
	uint64_t length;
	enum guest_ram_type type;
};

/* Lays `length` bytes out with a window (length 0: none), all multiples of GUEST_RAM_GRAIN. Returns
 * 0, or -EINVAL outside the limits. */
int guest_ram_layout(uint64_t length, uint64_t window_address, uint64_t window_length,
		     struct guest_ram_layout *ret_layout);
/* Whether a processor whose physical addresses have so many bits reaches all of it, and the devices
 * below 4 GiB. */
bool guest_ram_fits(const struct guest_ram_layout *layout, unsigned address_bits);
/* First address that is not for the kernel's use from 1 MiB on: the window's or low RAM's end. */
uint64_t guest_ram_top(const struct guest_ram_layout *layout);
/* What the guest's kernel is told; returns the number of ranges. */
size_t guest_ram_ranges(const struct guest_ram_layout *layout,
			struct guest_ram_range ranges[GUEST_RAM_RANGES_MAX]);

/* Maps all of it into `memory`, which is empty before, at user addresses equal to the guest's: the
 * window from the memory file `window_fd` (borrowed; at its guest address as offset), or private
 * too where that is -1. Returns 0 or an error of guest_memory_map(). */
int guest_ram_map(const struct guest_ram_layout *layout, int window_fd,
		  struct guest_memory *memory);

/* The same, all but a window of `window_fd` from reserved huge pages of 2 MiB, which are taken now.
 * Returns 0, -ENOSPC or -ENOMEM where there are too few, -EINVAL for what is no multiple of one, or
 * another negative errno. Source: memfd_create(2), MFD_HUGETLB. */
int guest_ram_map_huge(const struct guest_ram_layout *layout, int window_fd,
		       struct guest_memory *memory);
/* How many those are. */
uint64_t guest_ram_huge_pages(const struct guest_ram_layout *layout, bool window_is_shared);

/* Copies bytes of a regular file to a guest address whose RAM is fresh: what is a hole in the file
 * is not touched, so that it costs neither time nor memory (a third of Debian's kernel is zeros).
 * Moves the file's offset. Returns 0, -EFAULT outside RAM, -ENODATA when the file ends early, or
 * another negative errno. Source: lseek(2), SEEK_DATA. */
int guest_ram_place(const struct guest_memory *memory, int fd, uint64_t offset,
		    uint64_t guest_address, uint64_t length);

#endif
