/*
 * Brings a kernel file and an initrd into guest RAM.
 */
#ifndef VMM_GUEST_KERNEL_LOADER_H
#define VMM_GUEST_KERNEL_LOADER_H

#include "vmm/guest_ram.h"

#include <stddef.h>
#include <stdint.h>

struct loaded_kernel {
	uint64_t entry;
	uint64_t end; /* first address behind it */
};

struct loaded_initrd {
	uint64_t address;
	uint64_t length;
};

/* Loads vmlinux or bzImage (unpacked first). Returns 0, or a negative errno with an explanation
 * that names the file. */
int load_kernel(const struct guest_memory *memory, const char *path, struct loaded_kernel *ret,
		char *why, size_t size);
int load_initrd(const struct guest_memory *memory, const struct guest_ram_layout *ram,
		uint64_t kernel_end, const char *path, struct loaded_initrd *ret, char *why,
		size_t size);

#endif
