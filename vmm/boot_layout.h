/*
 * What lies in low memory when the first vCPU begins in the kernel's 64-bit entry point: GDT, page
 * tables, boot_params ("zero page"), e820 map, command line and a random seed.
 *
 * Source: the kernel's Documentation/arch/x86/boot.rst, "64-bit Boot Protocol" and setup_data, and
 * zero-page.rst; Intel SDM volume 3, 3.4.5 (descriptors) and 4.5 (4-level paging).
 *
 *	0x00500  GDT: null, null, code (0x10), data (0x18)
 *	0x00520  IDT, empty
 *	0x07000  boot_params
 *	0x08ff0  stack, downwards
 *	0x09000  page tables: the first GiB, mapped to itself in pages of 2 MiB
 *	0x0c000  setup_data with the seed
 *	0x20000  command line, at most BOOT_COMMAND_LINE_MAX bytes with its NUL
 *	0xe0000  ACPI tables (acpi_tables.h)
 */
#ifndef VMM_BOOT_LAYOUT_H
#define VMM_BOOT_LAYOUT_H

#include "vmm/guest_ram.h"

#include <stddef.h>
#include <stdint.h>

#define BOOT_GDT_ADDRESS UINT64_C(0x500)
#define BOOT_GDT_ENTRIES 4
#define BOOT_IDT_ADDRESS UINT64_C(0x520)
#define BOOT_PARAMS_ADDRESS UINT64_C(0x7000)
#define BOOT_STACK_ADDRESS UINT64_C(0x8ff0)
#define BOOT_PAGE_TABLES_ADDRESS UINT64_C(0x9000)
#define BOOT_SETUP_DATA_ADDRESS UINT64_C(0xc000)
#define BOOT_COMMAND_LINE_ADDRESS UINT64_C(0x20000)
#define BOOT_COMMAND_LINE_MAX 2048 /* the kernel's COMMAND_LINE_SIZE */
#define BOOT_ACPI_ADDRESS UINT64_C(0xe0000)
#define BOOT_ACPI_MAX 0x20000
#define BOOT_SEED_LENGTH 32

#define BOOT_CODE_SELECTOR 0x10
#define BOOT_DATA_SELECTOR 0x18
#define BOOT_GDT_CODE UINT64_C(0x00af9b000000ffff)
#define BOOT_GDT_DATA UINT64_C(0x00cf93000000ffff)

struct boot_layout {
	const struct guest_ram_layout *ram;
	const char *command_line;
	uint64_t initrd_address;
	uint64_t initrd_length;
	uint64_t acpi_rsdp; /* 0: none */
	uint8_t seed[BOOT_SEED_LENGTH];
};

/* Where an initrd of `length` bytes goes: page-aligned, as high in low RAM as it fits, above
 * `kernel_end`. Returns 0, or -ENOSPC when it does not fit. */
int boot_layout_initrd(const struct guest_ram_layout *ram, uint64_t kernel_end, uint64_t length,
		       uint64_t *ret_address);

/* Writes all of the above but the ACPI tables. Returns 0, -E2BIG for a command line that is too
 * long, or -EFAULT when memory does not hold the first MiB. */
int boot_layout_write(const struct boot_layout *layout, const struct guest_memory *memory);

#endif
