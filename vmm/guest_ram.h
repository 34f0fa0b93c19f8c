/*
 * The RAM of a guest whose vCPUs this process runs: how it lies in the guest's physical addresses,
 * the memory file that holds it, and how files get into it.
 *
 * RAM begins at 0 and goes on at 4 GiB where it is larger than 3 GiB; between lies the hole for
 * devices (0xd0000000: virtio-mmio, 0xfec00000: IOAPIC, 0xfee00000: local APICs). The memory file
 * is continuous: the byte at file offset x is guest address x below the hole, x + 1 GiB above it.
 *
 * A window at the top of low RAM can be kept from the guest's kernel (e820 type "reserved"): it is
 * ordinary guest memory for devices and vCPUs.
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
#define GUEST_RAM_GRAIN (UINT64_C(2) << 20)	/* of all lengths: one huge page */
#define GUEST_RAM_LEGACY_END UINT64_C(0x9fc00)	/* conventional memory; reserved up to 1 MiB */
#define GUEST_RAM_RANGES_MAX 5

struct guest_ram_layout {
	uint64_t low_length;	/* bytes from 0 on, the window included */
	uint64_t window_length; /* bytes at the top of low RAM that the kernel may not use */
	uint64_t high_length;	/* bytes from 4 GiB on */
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

/* Lays `length` bytes out, `window_length` of them as the window. Both are multiples of
 * GUEST_RAM_GRAIN. Returns 0, or -EINVAL outside the limits. */
int guest_ram_layout(uint64_t length, uint64_t window_length, struct guest_ram_layout *ret_layout);
/* First address of the window, which is also where RAM for the initrd ends. */
uint64_t guest_ram_window(const struct guest_ram_layout *layout);
/* What the guest's kernel is told; returns the number of ranges. */
size_t guest_ram_ranges(const struct guest_ram_layout *layout,
			struct guest_ram_range ranges[GUEST_RAM_RANGES_MAX]);

/* Makes the memory file (sealed in its length, of huge pages if asked for) and maps it. `memory`
 * is empty before; the descriptor is the caller's. Returns 0 or a negative errno: -ENOMEM
 * where there are too few huge pages. */
int guest_ram_create(const struct guest_ram_layout *layout, bool huge_pages,
		     struct guest_memory *memory, int *ret_fd);

/* Brings bytes of a file to a guest address: whole pages as private mappings, which costs no copy
 * and shares clean pages with all who read that file, the rest and anything that cannot be mapped
 * by reading. Later changes of the file may or may not be seen; it must not shrink. Returns 0,
 * -EFAULT outside RAM, -ENODATA when the file ends early, or another negative errno. */
int guest_ram_place(const struct guest_memory *memory, int fd, uint64_t offset,
		    uint64_t guest_address, uint64_t length);

#endif
