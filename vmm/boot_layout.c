#include "vmm/boot_layout.h"

#include "base/bytes.h"
#include "base/checked.h"

#include <errno.h>
#include <string.h>

#define PAGE UINT64_C(4096)
#define PAGE_TABLE_ENTRIES 512
#define PAGE_PRESENT 0x1
#define PAGE_WRITABLE 0x2
#define PAGE_LARGE 0x80
#define LARGE_PAGE UINT64_C(0x200000)

/* Offsets in boot_params: zero-page.rst and the setup header of boot.rst. */
#define PARAMS_LENGTH 4096
#define PARAMS_ACPI_RSDP 0x070
#define PARAMS_E820_COUNT 0x1e8
#define PARAMS_BOOT_FLAG 0x1fe
#define PARAMS_HEADER_MAGIC 0x202
#define PARAMS_VERSION 0x206
#define PARAMS_LOADER_TYPE 0x210
#define PARAMS_LOAD_FLAGS 0x211
#define PARAMS_INITRD_ADDRESS 0x218
#define PARAMS_INITRD_LENGTH 0x21c
#define PARAMS_COMMAND_LINE 0x228
#define PARAMS_ALIGNMENT 0x230
#define PARAMS_COMMAND_LINE_LENGTH 0x238
#define PARAMS_SETUP_DATA 0x250
#define PARAMS_E820 0x2d0
#define E820_ENTRY_LENGTH 20

#define BOOT_FLAG 0xaa55
#define HEADER_MAGIC 0x53726448 /* "HdrS" */
#define PROTOCOL_VERSION 0x20f
#define LOADER_UNASSIGNED 0xff
#define LOADED_HIGH 0x01
#define KERNEL_ALIGNMENT 0x1000000
#define SETUP_RNG_SEED 9
#define SETUP_DATA_HEADER 16

static void put(uint8_t *block, size_t offset, uint64_t value, size_t width)
{
	for (size_t i = 0; i < width; i++)
		block[offset + i] = (uint8_t)(value >> (8 * i));
}

int boot_layout_initrd(const struct guest_ram_layout *ram, uint64_t kernel_end, uint64_t length,
		       uint64_t *ret_address)
{
	uint64_t top = guest_ram_top(ram);
	uint64_t address;

	if (length > top || length > UINT32_MAX)
		return -ENOSPC;
	address = (top - length) & ~(PAGE - 1);
	if (address < kernel_end)
		return -ENOSPC;
	*ret_address = address;
	return 0;
}

static void write_gdt(uint8_t *gdt)
{
	memset(gdt, 0, 8 * BOOT_GDT_ENTRIES);
	put(gdt, BOOT_CODE_SELECTOR, BOOT_GDT_CODE, 8);
	put(gdt, BOOT_DATA_SELECTOR, BOOT_GDT_DATA, 8);
}

static void write_page_tables(uint8_t *tables)
{
	memset(tables, 0, 3 * PAGE);
	put(tables, 0, (BOOT_PAGE_TABLES_ADDRESS + PAGE) | PAGE_PRESENT | PAGE_WRITABLE, 8);
	put(tables, PAGE, (BOOT_PAGE_TABLES_ADDRESS + 2 * PAGE) | PAGE_PRESENT | PAGE_WRITABLE, 8);
	for (size_t i = 0; i < PAGE_TABLE_ENTRIES; i++)
		put(tables, 2 * PAGE + 8 * i,
		    i * LARGE_PAGE | PAGE_PRESENT | PAGE_WRITABLE | PAGE_LARGE, 8);
}

static void write_e820(const struct guest_ram_layout *ram, uint8_t *params)
{
	struct guest_ram_range ranges[GUEST_RAM_RANGES_MAX];
	size_t count = guest_ram_ranges(ram, ranges);

	params[PARAMS_E820_COUNT] = (uint8_t)count;
	for (size_t i = 0; i < count; i++) {
		size_t entry = PARAMS_E820 + i * E820_ENTRY_LENGTH;

		put(params, entry, ranges[i].address, 8);
		put(params, entry + 8, ranges[i].length, 8);
		put(params, entry + 16, ranges[i].type, 4);
	}
}

static void write_params(const struct boot_layout *layout, uint8_t *params)
{
	memset(params, 0, PARAMS_LENGTH);
	put(params, PARAMS_ACPI_RSDP, layout->acpi_rsdp, 8);
	put(params, PARAMS_BOOT_FLAG, BOOT_FLAG, 2);
	put(params, PARAMS_HEADER_MAGIC, HEADER_MAGIC, 4);
	put(params, PARAMS_VERSION, PROTOCOL_VERSION, 2);
	params[PARAMS_LOADER_TYPE] = LOADER_UNASSIGNED;
	params[PARAMS_LOAD_FLAGS] = LOADED_HIGH;
	put(params, PARAMS_INITRD_ADDRESS, layout->initrd_address, 4);
	put(params, PARAMS_INITRD_LENGTH, layout->initrd_length, 4);
	put(params, PARAMS_COMMAND_LINE, BOOT_COMMAND_LINE_ADDRESS, 4);
	put(params, PARAMS_ALIGNMENT, KERNEL_ALIGNMENT, 4);
	put(params, PARAMS_COMMAND_LINE_LENGTH, BOOT_COMMAND_LINE_MAX - 1, 4);
	put(params, PARAMS_SETUP_DATA, BOOT_SETUP_DATA_ADDRESS, 8);
	write_e820(layout->ram, params);
}

static void write_seed(const struct boot_layout *layout, uint8_t *data)
{
	put(data, 0, 0, 8); /* no further setup_data */
	put(data, 8, SETUP_RNG_SEED, 4);
	put(data, 12, BOOT_SEED_LENGTH, 4);
	memcpy(data + SETUP_DATA_HEADER, layout->seed, BOOT_SEED_LENGTH);
}

int boot_layout_write(const struct boot_layout *layout, const struct guest_memory *memory)
{
	size_t length = strlen(layout->command_line);
	uint8_t *base = gpa_range(memory, 0, GUEST_RAM_LEGACY_END);

	if (length >= BOOT_COMMAND_LINE_MAX)
		return -E2BIG;
	if (!base)
		return -EFAULT;
	write_gdt(base + BOOT_GDT_ADDRESS);
	memset(base + BOOT_IDT_ADDRESS, 0, 8);
	write_params(layout, base + BOOT_PARAMS_ADDRESS);
	write_page_tables(base + BOOT_PAGE_TABLES_ADDRESS);
	write_seed(layout, base + BOOT_SETUP_DATA_ADDRESS);
	memcpy(base + BOOT_COMMAND_LINE_ADDRESS, layout->command_line, length + 1);
	return 0;
}
