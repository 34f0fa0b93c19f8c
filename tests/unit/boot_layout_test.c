#include "base/checked.h"
#include "vmm/acpi_tables.h"
#include "vmm/boot_layout.h"
#include "vmm/guest_ram.h"
#include "vmm/platform.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct guest_ram_layout ram;
static struct guest_memory memory;

static void set_up(void)
{
	memset(&memory, 0, sizeof(memory));
	ck_assert_int_eq(guest_ram_layout(64 * MIB, 0, 0, &ram), 0);
	ck_assert_int_eq(guest_ram_map(&ram, -1, &memory), 0);
}

static void tear_down(void)
{
	guest_memory_release(&memory);
}

static uint64_t get(const uint8_t *bytes, size_t width)
{
	uint64_t value = 0;

	for (size_t i = width; i > 0; i--)
		value = value << 8 | bytes[i - 1];
	return value;
}

/* ---- RAM ---------------------------------------------------------------------------------------
 */

static void expect_ranges(uint64_t length, uint64_t window, uint64_t window_length,
			  const struct guest_ram_range *wanted, size_t count)
{
	struct guest_ram_layout layout;
	struct guest_ram_range ranges[GUEST_RAM_RANGES_MAX];

	ck_assert_int_eq(guest_ram_layout(length, window, window_length, &layout), 0);
	ck_assert_uint_eq(guest_ram_ranges(&layout, ranges), count);
	for (size_t i = 0; i < count; i++) {
		ck_assert_uint_eq(ranges[i].address, wanted[i].address);
		ck_assert_uint_eq(ranges[i].length, wanted[i].length);
		ck_assert_int_eq(ranges[i].type, wanted[i].type);
	}
}

START_TEST(ram_ranges)
{
	const struct guest_ram_range legacy = { 0, 0x9fc00, GUEST_RAM_USABLE };
	const struct guest_ram_range reserved = { 0x9fc00, 0x60400, GUEST_RAM_RESERVED };
	const struct guest_ram_range small[] = { legacy, reserved, { MIB, 63 * MIB, 1 } };
	const struct guest_ram_range hole[] = {
		legacy, reserved, { MIB, 3 * GIB - MIB, 1 }, { 4 * GIB, 3 * GIB, 1 }
	};
	const struct guest_ram_range window[] = {
		legacy,
		reserved,
		{ MIB, 3 * GIB - 17 * MIB, 1 },
		{ 3 * GIB - 16 * MIB, 16 * MIB, 2 },
		{ 4 * GIB, GIB, 1 },
	};
	const struct guest_ram_range inside[] = {
		legacy,
		reserved,
		{ MIB, 31 * MIB, 1 },
		{ 32 * MIB, 4096, 2 },
		{ 32 * MIB + 4096, 32 * MIB - 4096, 1 },
	};

	expect_ranges(64 * MIB, 0, 0, small, 3);
	expect_ranges(6 * GIB, 0, 0, hole, 4);
	expect_ranges(4 * GIB, 3 * GIB - 16 * MIB, 16 * MIB, window, 5);
	expect_ranges(64 * MIB, 32 * MIB, 4096, inside, 5);
}
END_TEST

START_TEST(ram_limits)
{
	struct guest_ram_layout layout;

	ck_assert_int_eq(guest_ram_layout(64 * MIB - 4096, 0, 0, &layout), -EINVAL);
	ck_assert_int_eq(guest_ram_layout(512 * GIB, 0, 0, &layout), 0);
	ck_assert_uint_eq(layout.low_length + layout.high_length, 512 * GIB);
	ck_assert_int_eq(guest_ram_layout(512 * GIB + 4096, 0, 0, &layout), -EINVAL);
	ck_assert_int_eq(guest_ram_layout(64 * MIB + 1, 0, 0, &layout), -EINVAL);
	ck_assert_int_eq(guest_ram_layout(64 * MIB, 64 * MIB, 4096, &layout), -EINVAL);
	ck_assert_int_eq(guest_ram_layout(64 * MIB, 60 * MIB, 8 * MIB, &layout), -EINVAL);
	ck_assert_int_eq(guest_ram_layout(64 * MIB, 4096, 4096, &layout), -EINVAL);
	ck_assert_int_eq(guest_ram_layout(64 * MIB, UINT64_MAX - 4095, 8192, &layout), -EINVAL);
}
END_TEST

/* The most memory for each width of addresses: what lies above 3 GiB lies one higher. */
START_TEST(ram_within_addresses)
{
	static const struct {
		unsigned bits;
		uint64_t most;
	} widths[] = { { 32, 3 * GIB }, { 36, 63 * GIB }, { 39, 511 * GIB } };
	struct guest_ram_layout layout;

	for (size_t i = 0; i < ARRAY_LENGTH(widths); i++) {
		ck_assert_int_eq(guest_ram_layout(widths[i].most, 0, 0, &layout), 0);
		ck_assert(guest_ram_fits(&layout, widths[i].bits));
		ck_assert_int_eq(guest_ram_layout(widths[i].most + 4096, 0, 0, &layout), 0);
		ck_assert(!guest_ram_fits(&layout, widths[i].bits));
		ck_assert(guest_ram_fits(&layout, widths[i].bits + 1));
	}
	ck_assert(guest_ram_fits(&layout, 64));
	ck_assert_int_eq(guest_ram_layout(64 * MIB, 0, 0, &layout), 0);
	ck_assert(!guest_ram_fits(&layout, 31));
}
END_TEST

/* A sealed memory file, as the window's. */
static int memory_file(size_t length)
{
	int fd = memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)length), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	return fd;
}

/* Touches both ends of each region; all but the window at 32 MiB lie as huge pages do. */
static void touch_regions(struct guest_memory *mapped)
{
	for (size_t i = 0; i < mapped->count; i++) {
		const struct guest_region *region = &mapped->regions[i];

		region->host[0] = 'a';
		region->host[region->length - 1] = 'z';
		if (region->is_private)
			ck_assert_uint_eq((uintptr_t)region->host % (2 * MIB),
					  region->guest_address % (2 * MIB));
	}
}

START_TEST(huge_pages_are_whole_ones)
{
	struct guest_memory mapped = { 0 };
	struct guest_ram_layout uneven, windowed;
	int fd = memory_file(64 * MIB);

	ck_assert_int_eq(guest_ram_layout(128 * MIB, 64 * MIB, 4 * MIB, &windowed), 0);
	ck_assert_uint_eq(guest_ram_huge_pages(&windowed, false), 64);
	ck_assert_uint_eq(guest_ram_huge_pages(&windowed, true), 62);
	ck_assert_int_eq(guest_ram_layout(4 * GIB, 64 * MIB, 4 * MIB, &windowed), 0);
	ck_assert_uint_eq(guest_ram_huge_pages(&windowed, true), 2046);
	ck_assert_int_eq(guest_ram_layout(129 * MIB, 0, 0, &uneven), 0);
	ck_assert_int_eq(guest_ram_map_huge(&uneven, -1, &mapped), -EINVAL);
	ck_assert_int_eq(guest_ram_layout(128 * MIB, 33 * MIB, 4 * MIB, &uneven), 0);
	ck_assert_int_eq(guest_ram_map_huge(&uneven, fd, &mapped), -EINVAL);
	ck_assert_uint_eq(mapped.count, 0);
	close(fd);
}
END_TEST

START_TEST(window_is_the_files)
{
	struct guest_ram_layout windowed;
	struct guest_memory mapped = { 0 };
	int fd = memory_file(4 * GIB);
	char byte = 0;

	ck_assert_int_eq(guest_ram_layout(4 * GIB, 32 * MIB, 16 * MIB, &windowed), 0);
	ck_assert_int_eq(guest_ram_map(&windowed, fd, &mapped), 0);
	ck_assert_uint_eq(mapped.count, 4);
	touch_regions(&mapped);
	for (size_t i = 0; i < mapped.count; i++)
		ck_assert_int_eq(mapped.regions[i].is_private,
				 mapped.regions[i].guest_address != 32 * MIB);
	/* And nothing else is. */
	ck_assert_int_eq(pread(fd, &byte, 1, 48 * (off_t)MIB - 1), 1);
	ck_assert_int_eq(byte, 'z');
	ck_assert_int_eq(pread(fd, &byte, 1, 0), 1);
	ck_assert_int_eq(byte, 0);
	ck_assert_ptr_nonnull(gpa_range(&mapped, 0, 32 * MIB));
	ck_assert_ptr_null(gpa_range(&mapped, 32 * MIB - 1, 2));
	ck_assert_ptr_null(gpa_range(&mapped, 3 * GIB, 1));
	ck_assert_ptr_nonnull(gpa_range(&mapped, 4 * GIB, GIB));
	guest_memory_release(&mapped);
	close(fd);
	/* One whose file could shrink. */
	fd = memfd_create("unsealed", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, 64 * (off_t)MIB), 0);
	ck_assert_int_eq(guest_ram_map(&windowed, fd, &mapped), -EPERM);
	ck_assert_uint_eq(mapped.count, 0);
	close(fd);
}
END_TEST

START_TEST(window_without_a_file)
{
	struct guest_ram_layout windowed;
	struct guest_memory mapped = { 0 };

	ck_assert_int_eq(guest_ram_layout(64 * MIB, 5 * MIB, 16 * MIB, &windowed), 0);
	ck_assert_int_eq(guest_ram_map(&windowed, -1, &mapped), 0);
	ck_assert_uint_eq(mapped.count, 3);
	touch_regions(&mapped);
	ck_assert_int_eq(*(char *)gpa_range(&mapped, 5 * MIB, 1), 'a');
	guest_memory_release(&mapped);
}
END_TEST

START_TEST(discarding_private_memory)
{
	const uint64_t pages = 8 * MIB;
	uint8_t *bytes = gpa_range(&memory, pages, 4 * MIB);

	memset(bytes, 1, 4 * MIB);
	ck_assert_uint_eq(guest_memory_discard(&memory, pages, 4 * MIB), 0);
	ck_assert_int_eq(guest_memory_allow_discard(&memory, 0, 64 * MIB), 0);
	ck_assert_uint_eq(guest_memory_discard(&memory, pages, 2 * MIB), 2 * MIB);
	/* A part of a huge page goes too. */
	ck_assert_uint_eq(guest_memory_discard(&memory, pages + 3 * MIB, 4096), 4096);
	ck_assert_uint_eq(bytes[0], 0);
	ck_assert_uint_eq(bytes[2 * MIB - 1], 0);
	ck_assert_uint_eq(bytes[2 * MIB], 1);
	ck_assert_uint_eq(bytes[3 * MIB - 1], 1);
	ck_assert_uint_eq(bytes[3 * MIB], 0);
	ck_assert_uint_eq(bytes[3 * MIB + 4096], 1);
}
END_TEST

/* A file of the given length whose bytes tell their place. */
static int numbered_file(size_t length)
{
	int fd = memfd_create("numbered", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	for (size_t i = 0; i < length; i++) {
		uint8_t byte = (uint8_t)(i ^ i >> 8);

		ck_assert_int_eq(write(fd, &byte, 1), 1);
	}
	return fd;
}

START_TEST(placing_files)
{
	const size_t length = 3 * 4096 + 100;
	int fd = numbered_file(length);
	uint8_t *target = gpa_range(&memory, 0x200000, length + 1);
	uint8_t byte;

	ck_assert_int_eq(guest_ram_place(&memory, fd, 0, 0x200000, length), 0);
	for (size_t i = 0; i < length; i++)
		ck_assert_uint_eq(target[i], (uint8_t)(i ^ i >> 8));
	/* Nothing of the file's last page beyond its end, and nothing flows back. */
	ck_assert_uint_eq(target[length], 0);
	target[5] = 0xee;
	ck_assert_int_eq(pread(fd, &byte, 1, 5), 1);
	ck_assert_uint_eq(byte, 5);
	/* From anywhere to anywhere. */
	ck_assert_int_eq(guest_ram_place(&memory, fd, 7, 0x300000, 2 * 4096), 0);
	target = gpa_range(&memory, 0x300000, 2 * 4096);
	for (size_t i = 0; i < 2 * 4096; i++)
		ck_assert_uint_eq(target[i], (uint8_t)((i + 7) ^ (i + 7) >> 8));
	ck_assert_int_eq(guest_ram_place(&memory, fd, 7, 0x300000, length), -ENODATA);
	ck_assert_int_eq(guest_ram_place(&memory, fd, 0, 64 * MIB - 4096, 8192), -EFAULT);
	ck_assert_int_eq(guest_ram_place(&memory, fd, 0, UINT64_MAX - 4095, 4096), -EFAULT);
	close(fd);
}
END_TEST

START_TEST(holes_of_files_are_not_touched)
{
	const size_t length = 64 * 4096;
	int fd = memfd_create("sparse", MFD_CLOEXEC);
	uint8_t *target = gpa_range(&memory, 0x400000, length);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)length), 0);
	ck_assert_int_eq(pwrite(fd, "second", 6, 4096), 6);
	ck_assert_int_eq(pwrite(fd, "later", 5, 20 * 4096 + 7), 5);
	memset(target, 0xaa, length);
	/* Begins and ends in a hole. */
	ck_assert_int_eq(guest_ram_place(&memory, fd, 0, 0x400000, length), 0);
	ck_assert_uint_eq(target[4095], 0xaa);
	ck_assert_mem_eq(target + 4096, "second", 7);
	ck_assert_uint_eq(target[2 * 4096], 0xaa);
	ck_assert_uint_eq(target[20 * 4096 + 6], 0);
	ck_assert_mem_eq(target + 20 * 4096 + 7, "later", 6);
	ck_assert_uint_eq(target[21 * 4096], 0xaa);
	/* Begins and ends in what is stored. */
	memset(target, 0xaa, length);
	ck_assert_int_eq(guest_ram_place(&memory, fd, 4097, 0x400000, 19 * 4096 + 11), 0);
	ck_assert_mem_eq(target, "econd", 6);
	ck_assert_uint_eq(target[4095], 0xaa);
	ck_assert_mem_eq(target + 19 * 4096 + 6, "later", 5);
	ck_assert_uint_eq(target[19 * 4096 + 11], 0xaa);
	/* All of it is a hole; and one cannot stand for what the file does not have. */
	ck_assert_int_eq(guest_ram_place(&memory, fd, 40 * 4096, 0x400000, 4096), 0);
	ck_assert_mem_eq(target, "econd", 6);
	ck_assert_int_eq(guest_ram_place(&memory, fd, 4096, 0x400000, length), -ENODATA);
	close(fd);
}
END_TEST

/* ---- boot --------------------------------------------------------------------------------------
 */

START_TEST(initrd_places)
{
	struct guest_ram_layout windowed;
	uint64_t address = 0;

	ck_assert_int_eq(boot_layout_initrd(&ram, 0x4000000 - 0x3000, 0x2001, &address), 0);
	ck_assert_uint_eq(address, 0x4000000 - 0x3000);
	ck_assert_int_eq(boot_layout_initrd(&ram, 0x4000000 - 0x2fff, 0x2001, &address), -ENOSPC);
	ck_assert_int_eq(boot_layout_initrd(&ram, 0, UINT64_MAX, &address), -ENOSPC);
	ck_assert_int_eq(guest_ram_layout(64 * MIB, 48 * MIB, 16 * MIB, &windowed), 0);
	ck_assert_int_eq(boot_layout_initrd(&windowed, MIB, 4096, &address), 0);
	ck_assert_uint_eq(address, 48 * MIB - 4096);
}
END_TEST

START_TEST(low_memory)
{
	const struct boot_layout layout = {
		.ram = &ram,
		.command_line = "quiet panic=-1",
		.initrd_address = 0x3000000,
		.initrd_length = 0x1234,
		.acpi_rsdp = BOOT_ACPI_ADDRESS,
		.seed = { 1, 2, 3 },
	};
	const uint8_t *base = gpa_range(&memory, 0, MIB);
	const uint8_t *params = base + BOOT_PARAMS_ADDRESS;

	ck_assert_int_eq(boot_layout_write(&layout, &memory), 0);
	ck_assert_uint_eq(get(base + BOOT_GDT_ADDRESS + BOOT_CODE_SELECTOR, 8), BOOT_GDT_CODE);
	ck_assert_uint_eq(get(base + BOOT_GDT_ADDRESS + BOOT_DATA_SELECTOR, 8), BOOT_GDT_DATA);
	ck_assert_str_eq((const char *)base + BOOT_COMMAND_LINE_ADDRESS, "quiet panic=-1");
	/* Every page of the first GiB is itself. */
	ck_assert_uint_eq(get(base + 0x9000, 8), 0xa003);
	ck_assert_uint_eq(get(base + 0xa000, 8), 0xb003);
	for (uint64_t i = 0; i < 512; i++)
		ck_assert_uint_eq(get(base + 0xb000 + 8 * i, 8), i << 21 | 0x83);
	ck_assert_uint_eq(get(params + 0x070, 8), 0xe0000);
	ck_assert_uint_eq(get(params + 0x1fe, 2), 0xaa55);
	ck_assert_mem_eq(params + 0x202, "HdrS", 4);
	ck_assert_uint_eq(get(params + 0x218, 4), 0x3000000);
	ck_assert_uint_eq(get(params + 0x21c, 4), 0x1234);
	ck_assert_uint_eq(get(params + 0x228, 4), 0x20000);
	ck_assert_uint_eq(params[0x1e8], 3);
	ck_assert_uint_eq(get(params + 0x2d0 + 40, 8), MIB);
	ck_assert_uint_eq(get(params + 0x2d0 + 48, 8), 63 * MIB);
	ck_assert_uint_eq(get(params + 0x2d0 + 56, 4), 1);
	ck_assert_uint_eq(get(params + 0x250, 8), 0xc000);
	ck_assert_uint_eq(get(base + 0xc000 + 8, 4), 9);
	ck_assert_uint_eq(get(base + 0xc000 + 12, 4), BOOT_SEED_LENGTH);
	ck_assert_mem_eq(base + 0xc000 + 16, layout.seed, BOOT_SEED_LENGTH);
}
END_TEST

START_TEST(long_command_line)
{
	char text[BOOT_COMMAND_LINE_MAX + 1];
	struct boot_layout layout = { .ram = &ram, .command_line = text };

	memset(text, 'a', sizeof(text));
	text[BOOT_COMMAND_LINE_MAX] = '\0';
	ck_assert_int_eq(boot_layout_write(&layout, &memory), -E2BIG);
	text[BOOT_COMMAND_LINE_MAX - 1] = '\0';
	ck_assert_int_eq(boot_layout_write(&layout, &memory), 0);
}
END_TEST

/* ---- ACPI --------------------------------------------------------------------------------------
 */

#define TABLES_MAX 16384
#define TABLES_ADDRESS UINT64_C(0xe0000)

static uint8_t tables[TABLES_MAX];

static uint8_t sum(const uint8_t *bytes, size_t length)
{
	uint8_t total = 0;

	for (size_t i = 0; i < length; i++)
		total = (uint8_t)(total + bytes[i]);
	return total;
}

/* A table by its guest address, checked. */
static const uint8_t *table_at(uint64_t address, const char *signature, size_t *ret_length)
{
	const uint8_t *table = tables + (address - TABLES_ADDRESS);

	ck_assert_uint_ge(address, TABLES_ADDRESS);
	ck_assert_uint_lt(address, TABLES_ADDRESS + TABLES_MAX);
	ck_assert_mem_eq(table, signature, 4);
	*ret_length = get(table + 4, 4);
	ck_assert_uint_eq(sum(table, *ret_length), 0);
	return table;
}

static int run(const char *directory, const char *command, const char *file)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		int null = open("/dev/null", O_RDWR);

		if (chdir(directory) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
			_exit(126);
		execlp("iasl", "iasl", command, file, (char *)NULL);
		_exit(127);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void write_file(const char *directory, const char *name, const uint8_t *bytes, size_t length)
{
	char path[256];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, length), (ssize_t)length);
	close(fd);
}

static char *read_text(const char *directory, const char *name)
{
	static char text[1 << 18];
	char path[256];
	ssize_t length;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	length = read(fd, text, sizeof(text) - 1);
	ck_assert_int_ge(length, 0);
	text[length] = '\0';
	close(fd);
	return text;
}

/* Disassembles the table and compiles what came out, without a warning. */
static void judge_by_iasl(const char *directory, const char *name, const uint8_t *table,
			  size_t length)
{
	char file[64];

	(void)snprintf(file, sizeof(file), "%s.aml", name);
	write_file(directory, file, table, length);
	ck_assert_int_eq(run(directory, "-d", file), 0);
	(void)snprintf(file, sizeof(file), "%s.dsl", name);
	ck_assert_ptr_null(strstr(read_text(directory, file), "Invalid"));
	ck_assert_int_eq(run(directory, "-we", file), 0);
}

static void remove_files(const char *directory)
{
	static const char *const names[] = { "dsdt", "facp", "apic", "xsdt" };
	static const char *const ends[] = { "aml", "dsl" };

	for (size_t i = 0; i < 4; i++) {
		for (size_t j = 0; j < 2; j++) {
			char path[256];

			(void)snprintf(path, sizeof(path), "%s/%s.%s", directory, names[i],
				       ends[j]);
			(void)unlink(path);
		}
	}
	ck_assert_int_eq(rmdir(directory), 0);
}

static const struct acpi_setup setups[] = {
	{ &acpi_own_machine, .cpus = 1, .virtio_devices = 0 },
	{ &acpi_own_machine, .cpus = 2, .virtio_devices = 1 },
	{ &acpi_own_machine, .cpus = PLATFORM_CPUS_MAX, .virtio_devices = PLATFORM_VIRTIO_MAX },
	{ &acpi_microvm_machine, .cpus = 1, .virtio_devices = 8 },
	{ &acpi_microvm_machine, .cpus = 255, .virtio_devices = 0 },
};

/* What iasl reads in the fixed table of each kind of machine, in its order. */
static const char *const own_facts[] = {
	"Legacy Devices Supported (V2) : 0",
	"8042 Present on ports 60/64 (V2) : 0",
	"VGA Not Present (V4) : 1",
	"CMOS RTC Not Present (V5) : 1", /* else Linux waits a second for one */
	"Control Method Power Button (V1) : 1",
	"Control Method Sleep Button (V1) : 1",
	"Reset Register Supported (V2) : 1",
	"Hardware Reduced (V5) : 1",
	"Reset Register : [Generic Address Structure]",
	"Space ID : 01 [SystemIO]",
	"Bit Width : 08",
	"Encoded Access Width : 01",
	"Address : 0000000000000602\n",
	"Value to cause reset : 01\n",
	"Sleep Control Register : [Generic Address Structure]",
	"Space ID : 01 [SystemIO]",
	"Bit Width : 08",
	"Address : 0000000000000600\n",
	"Sleep Status Register : [Generic Address Structure]",
	"Space ID : 01 [SystemIO]",
	"Address : 0000000000000601\n",
	NULL,
};
static const char *const pc_facts[] = {
	"Legacy Devices Supported (V2) : 1",
	"8042 Present on ports 60/64 (V2) : 0",
	"VGA Not Present (V4) : 1",
	"CMOS RTC Not Present (V5) : 1",
	"Reset Register Supported (V2) : 0",
	"Hardware Reduced (V5) : 0",
	"PM1A Event Block : [Generic Address Structure]",
	"Address : 0000000000000600\n",
	"PM1A Control Block : [Generic Address Structure]",
	"Address : 0000000000000604\n",
	NULL,
};

static const char *const pc_sleep[] = {
	"Name (_S3, Package (0x02)",
	"OperationRegion (PWRP, SystemIO, 0x060A, 0x01)",
	"PWRB,   8",
	"Method (_PTS, 1, NotSerialized)",
	"If ((Arg0 == 0x05))",
	"PWRB = 0x7A",
	NULL,
};

static void judge_facts(const char *text, const char *const *facts)
{
	for (; *facts; facts++) {
		const char *place = strstr(text, *facts);

		ck_assert_msg(place != NULL, "not there, or not in its place: %s", *facts);
		text = place + strlen(*facts);
	}
}

static unsigned count_of(const char *text, const char *part)
{
	unsigned count = 0;

	for (; (text = strstr(text, part)) != NULL; text += strlen(part))
		count++;
	return count;
}

/* Each virtio device is coherent, and interrupts as its machine's do: edges of this VMM's own,
 * levels of QEMU's. The serial port of a PC interrupts by edges, which is what "no flags" stands
 * for. */
static void judge_devices(const char *text, const struct acpi_setup *setup)
{
	const bool level = setup->machine->virtio_level;
	char part[128];

	ck_assert_uint_eq(count_of(text, "Name (_CCA, One)"), setup->virtio_devices);
	ck_assert_uint_eq(
		count_of(text, "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"),
		level ? 0 : setup->virtio_devices);
	ck_assert_uint_eq(
		count_of(text, "Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive"),
		level ? setup->virtio_devices : 0);
	for (unsigned i = 0; i < setup->virtio_devices; i++) {
		(void)snprintf(part, sizeof(part), "{\n                    0x%08X,\n",
			       level ? 12 - i : 5 + i);
		ck_assert_uint_eq(count_of(text, part), 1);
	}
	ck_assert_ptr_nonnull(strstr(text, "IRQNoFlags ()\n                    {4}"));
	ck_assert_ptr_nonnull(strstr(text, "Name (_S5, Package (0x02)"));
	/* A machine that can sleep is turned off by what it does before. */
	if (setup->machine->pc_timer)
		judge_facts(text, pc_sleep);
	else
		ck_assert_ptr_null(strstr(text, "_S3"));
}

START_TEST(acpi)
{
	char directory[] = "/tmp/matchlock-acpi-XXXXXX";
	const uint8_t *xsdt, *fadt, *madt, *dsdt;
	size_t length, xsdt_length, fadt_length, madt_length, dsdt_length;
	const bool pc = setups[_i].machine->pc_timer;
	char last[64];

	ck_assert_ptr_nonnull(mkdtemp(directory));
	memset(tables, 0xff, sizeof(tables));
	ck_assert_int_eq(
		acpi_tables_build(&setups[_i], TABLES_ADDRESS, tables, TABLES_MAX, &length), 0);
	ck_assert_mem_eq(tables, "RSD PTR ", 8);
	ck_assert_uint_eq(sum(tables, 20), 0);
	ck_assert_uint_eq(sum(tables, 36), 0);
	xsdt = table_at(get(tables + 24, 8), "XSDT", &xsdt_length);
	ck_assert_uint_eq(xsdt_length, 36 + 16);
	fadt = table_at(get(xsdt + 36, 8), "FACP", &fadt_length);
	ck_assert_uint_eq(fadt_length, 276);
	ck_assert_uint_eq(get(fadt + 40, 4), get(fadt + 140, 8));
	madt = table_at(get(xsdt + 44, 8), "APIC", &madt_length);
	ck_assert_uint_eq(madt_length, 44 + 8 * setups[_i].cpus + 12 + 6 + (pc ? 2 * 10 : 0));
	dsdt = table_at(get(fadt + 140, 8), "DSDT", &dsdt_length);
	judge_by_iasl(directory, "dsdt", dsdt, dsdt_length);
	judge_by_iasl(directory, "facp", fadt, fadt_length);
	judge_by_iasl(directory, "apic", madt, madt_length);
	judge_by_iasl(directory, "xsdt", xsdt, xsdt_length);
	/* What iasl read is what was meant. */
	judge_facts(read_text(directory, "facp.dsl"), pc ? pc_facts : own_facts);
	judge_devices(read_text(directory, "dsdt.dsl"), &setups[_i]);
	if (pc) {
		ck_assert_uint_eq(get(fadt + 36, 4), TABLES_ADDRESS + ACPI_FACS_OFFSET);
		ck_assert_mem_eq(tables + ACPI_FACS_OFFSET, "FACS\x40\0\0", 8);
		ck_assert_uint_eq(get(tables + ACPI_FACS_OFFSET + ACPI_FACS_WAKING_VECTOR, 4), 0);
		ck_assert_ptr_nonnull(
			strstr(read_text(directory, "apic.dsl"), "Interrupt : 00000002"));
	}
	(void)snprintf(last, sizeof(last), "Device (VR%02u)", setups[_i].virtio_devices - 1);
	if (setups[_i].virtio_devices > 0)
		ck_assert_ptr_nonnull(strstr(read_text(directory, "dsdt.dsl"), last));
	ck_assert_ptr_nonnull(strstr(read_text(directory, "dsdt.dsl"), "PNP0501"));
	remove_files(directory);
}
END_TEST

START_TEST(acpi_limits)
{
	struct acpi_setup setup = { &acpi_own_machine, .cpus = 0 };
	size_t length;

	ck_assert_int_eq(acpi_tables_build(&setup, 0, tables, TABLES_MAX, &length), -EINVAL);
	setup.cpus = PLATFORM_CPUS_MAX + 1;
	ck_assert_int_eq(acpi_tables_build(&setup, 0, tables, TABLES_MAX, &length), -EINVAL);
	setup.cpus = 1;
	setup.virtio_devices = PLATFORM_VIRTIO_MAX + 1;
	ck_assert_int_eq(acpi_tables_build(&setup, 0, tables, TABLES_MAX, &length), -EINVAL);
	setup = setups[2];
	ck_assert_int_eq(acpi_tables_build(&setup, (UINT64_C(1) << 32) - TABLES_MAX, tables,
					   TABLES_MAX, &length),
			 -EINVAL);
	ck_assert_int_eq(acpi_tables_build(&setup, TABLES_ADDRESS, tables, TABLES_MAX, &length), 0);
	for (size_t capacity = 0; capacity < length; capacity++) {
		uint8_t *exact = malloc(capacity + 1);
		size_t written;

		ck_assert_ptr_nonnull(exact);
		ck_assert_int_eq(
			acpi_tables_build(&setup, TABLES_ADDRESS, exact, capacity, &written),
			-ENOSPC);
		free(exact);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("boot_layout");
	TCase *tests = tcase_create("boot_layout");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, ram_ranges);
	tcase_add_test(tests, ram_limits);
	tcase_add_test(tests, huge_pages_are_whole_ones);
	tcase_add_test(tests, window_is_the_files);
	tcase_add_test(tests, window_without_a_file);
	tcase_add_test(tests, discarding_private_memory);
	tcase_add_test(tests, placing_files);
	tcase_add_test(tests, holes_of_files_are_not_touched);
	tcase_add_test(tests, initrd_places);
	tcase_add_test(tests, low_memory);
	tcase_add_test(tests, long_command_line);
	tcase_add_test(tests, ram_within_addresses);
	tcase_add_loop_test(tests, acpi, 0, (int)(sizeof(setups) / sizeof(setups[0])));
	tcase_add_test(tests, acpi_limits);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
