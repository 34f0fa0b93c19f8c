/* What needs no KVM: the bus, the serial port, and the CPUID that a processor shows. */
#include "vmm/io_bus.h"
#include "vmm/kvm_cpu_state.h"
#include "vmm/serial_port.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- the bus -----------------------------------------------------------------------------------
 */

struct access {
	uint64_t offset;
	uint64_t value;
	size_t length;
	unsigned count;
};

static void record_read(void *owner, uint64_t offset, uint8_t *data, size_t length)
{
	struct access *access = owner;

	access->offset = offset;
	access->length = length;
	access->count++;
	memset(data, 0x5a, length);
}

static void record_write(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	struct access *access = owner;

	access->offset = offset;
	access->length = length;
	access->value = 0;
	memcpy(&access->value, data, length);
	access->count++;
}

START_TEST(bus_dispatch)
{
	struct access first = { 0 }, second = { 0 };
	struct io_bus bus = { 0 };
	const struct io_range ranges[] = {
		{ 0x1000, 0x10, record_read, record_write, &first },
		{ 0x1010, 0x1000, record_read, record_write, &second },
		{ UINT64_MAX - 16, 16, record_read, record_write, &second },
	};

	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(io_bus_add(&bus, &ranges[i]), 0);
	/* Each place, each width: whole inside a range, or nobody's. */
	for (uint64_t address = 0xff8; address < 0x1020; address++) {
		for (size_t length = 1; length <= 8; length++) {
			uint8_t data[8] = { 0 };
			bool inside_first = address >= 0x1000 && address + length <= 0x1010;
			bool inside_second = address >= 0x1010;

			first.count = second.count = 0;
			io_bus_read(&bus, address, data, length);
			ck_assert_uint_eq(first.count, inside_first);
			ck_assert_uint_eq(second.count, inside_second);
			for (size_t i = 0; i < length; i++)
				ck_assert_uint_eq(data[i],
						  inside_first || inside_second ? 0x5a : 0xff);
			if (inside_first)
				ck_assert_uint_eq(first.offset, address - 0x1000);
			io_bus_write(&bus, address, data, length);
			ck_assert_uint_eq(first.count, 2 * inside_first);
			ck_assert_uint_eq(second.count, 2 * inside_second);
		}
	}
	second.count = 0;
	io_bus_write(&bus, UINT64_MAX - 8, (const uint8_t *)"12345678", 8);
	ck_assert_uint_eq(second.count, 1);
	io_bus_write(&bus, UINT64_MAX - 7, (const uint8_t *)"12345678", 8);
	ck_assert_uint_eq(second.count, 1);
}
END_TEST

START_TEST(bus_ranges)
{
	struct io_bus bus = { 0 };
	struct io_range range = { 0x100, 0x10, record_read, record_write, NULL };

	ck_assert_int_eq(io_bus_add(&bus, &range), 0);
	range.base = 0x10f;
	ck_assert_int_eq(io_bus_add(&bus, &range), -EEXIST);
	range.base = 0xf1;
	ck_assert_int_eq(io_bus_add(&bus, &range), -EEXIST);
	range.length = 0;
	ck_assert_int_eq(io_bus_add(&bus, &range), -EINVAL);
	range.base = UINT64_MAX;
	range.length = 2;
	ck_assert_int_eq(io_bus_add(&bus, &range), -EINVAL);
	range.length = 1;
	for (size_t i = 1; i < IO_BUS_RANGES_MAX; i++) {
		range.base = 0x1000 + i;
		ck_assert_int_eq(io_bus_add(&bus, &range), 0);
	}
	range.base = 0x2000;
	ck_assert_int_eq(io_bus_add(&bus, &range), -ENOSPC);
}
END_TEST

/* ---- the serial port ---------------------------------------------------------------------------
 */

static struct serial_port port;
static int output[2], interrupt_fd;

static void set_up_port(void)
{
	ck_assert_int_eq(pipe2(output, O_CLOEXEC | O_NONBLOCK), 0);
	interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ck_assert_int_ge(interrupt_fd, 0);
	serial_port_init(&port, output[1], interrupt_fd);
}

static void tear_down_port(void)
{
	serial_port_release(&port);
	close(output[0]);
	close(output[1]);
	close(interrupt_fd);
}

static uint8_t in(uint64_t offset)
{
	uint8_t value = 0;

	serial_port_read(&port, offset, &value, 1);
	return value;
}

static void out(uint64_t offset, uint8_t value)
{
	serial_port_write(&port, offset, &value, 1);
}

static unsigned interrupts(void)
{
	uint64_t count = 0;

	return read(interrupt_fd, &count, sizeof(count)) < 0 ? 0 : (unsigned)count;
}

START_TEST(serial_transmits)
{
	char text[8] = "";

	ck_assert_uint_eq(in(5) & 0x60, 0x60);
	out(0, 'h');
	out(0, 'i');
	ck_assert_int_eq(read(output[0], text, sizeof(text)), 2);
	ck_assert_str_eq(text, "hi");
	ck_assert_uint_eq(interrupts(), 0);
}
END_TEST

START_TEST(serial_interrupts)
{
	ck_assert_uint_eq(in(2), 0x01);
	out(1, 0x02);
	ck_assert_uint_eq(interrupts(), 1);
	ck_assert_uint_eq(in(2), 0x02);
	ck_assert_uint_eq(in(2), 0x01); /* acknowledged */
	out(0, 'x');
	ck_assert_uint_eq(interrupts(), 1);
	ck_assert_uint_eq(in(2), 0x02);
	out(0, 'x');
	out(1, 0);
	ck_assert_uint_eq(in(2), 0x01);
	(void)interrupts();
	out(0, 'x');
	ck_assert_uint_eq(interrupts(), 0);
}
END_TEST

/* What Linux's driver does to tell a 16550A (8250_port.c, autoconfig). */
START_TEST(serial_probe)
{
	out(1, 0);
	ck_assert_uint_eq(in(1) & 0x0f, 0);
	out(1, 0x0f);
	ck_assert_uint_eq(in(1) & 0x0f, 0x0f);
	out(1, 0);
	out(4, 0x10 | 0x0a);
	ck_assert_uint_eq(in(6) & 0xf0, 0x90);
	out(4, 0);
	out(2, 1);
	ck_assert_uint_eq(in(2) >> 6, 3);
	out(3, 0x80);
	out(0, 0x12);
	out(1, 0x34);
	ck_assert_uint_eq(in(0), 0x12);
	ck_assert_uint_eq(in(1), 0x34);
	out(3, 0x03);
	ck_assert_uint_eq(in(1), 0);
	out(7, 0xa5);
	ck_assert_uint_eq(in(7), 0xa5);
}
END_TEST

START_TEST(serial_loopback)
{
	char byte;

	out(4, 0x10);
	out(0, 'q');
	ck_assert_uint_eq(in(5) & 1, 1);
	ck_assert_uint_eq(in(0), 'q');
	ck_assert_uint_eq(in(5) & 1, 0);
	ck_assert_int_lt(read(output[0], &byte, 1), 0);
}
END_TEST

START_TEST(serial_any_access)
{
	/* A driver that writes anything anywhere, into a pipe that nobody reads. */
	unsigned seed = 1;

	for (unsigned i = 0; i < 20000; i++) {
		uint8_t data[8];
		uint64_t offset = (unsigned)rand_r(&seed) % 8;
		size_t length = 1 + (unsigned)rand_r(&seed) % (8 - offset);

		for (size_t j = 0; j < sizeof(data); j++)
			data[j] = (uint8_t)rand_r(&seed);
		if (offset == 0)
			data[0] = 0;
		if (i % 2)
			serial_port_read(&port, offset, data, length);
		else if (offset > 0)
			serial_port_write(&port, offset, data, length);
	}
}
END_TEST

START_TEST(serial_reader_gone_slow)
{
	/* The reader never comes: bytes are dropped, and nothing hangs. */
	while (write(output[1], "xxxxxxxxxxxxxxxx", 16) > 0)
		;
	out(0, 'a');
	ck_assert_uint_eq(in(5) & 0x60, 0x60);
}
END_TEST

/* ---- CPUID -------------------------------------------------------------------------------------
 */

static struct kvm_cpuid_table table;

static struct kvm_cpuid_entry2 *add(uint32_t leaf, uint32_t subleaf, bool indexed)
{
	struct kvm_cpuid_entry2 *entry = &table.entries[table.count++];

	*entry = (struct kvm_cpuid_entry2){
		.function = leaf,
		.index = subleaf,
		.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
	};
	return entry;
}

static void make_table(void)
{
	memset(&table, 0, sizeof(table));
	add(0, 0, false)->eax = 0x1f;
	add(1, 0, false)->ebx = 0x00100800;
	kvm_cpuid_find(&table, 1, 0)->ecx = 1u << 5 | 1u << 15 | 1u;
	add(4, 0, true)->eax = 0x1c000121; /* level 1 data */
	add(4, 3, true)->eax = 0x1c03c163; /* level 3 */
	add(4, 4, true);
	add(6, 0, false)->ecx = 9;
	add(0xa, 0, false)->eax = 0x07300402;
	add(0xb, 0, true)->eax = 1;
	add(0xb, 1, true)->eax = 4;
	add(0x1f, 0, true);
	add(0x40000000, 0, false)->ebx = 0x4b4d564b;
	add(0x40000001, 0, false)->eax = 0x01007efb;
	add(0x80000001, 0, false)->ecx = 1u << 2 | 1u << 23 | 1u;
	add(0x80000008, 0, false)->eax = 0x3027;
	add(0x8000000a, 0, false)->eax = 1;
	add(0x8000001d, 3, true)->eax = 0x0003c163;
	add(0x8000001e, 0, false)->eax = 99;
}

START_TEST(cpuid_topology)
{
	const struct kvm_cpuid_entry2 *entry;

	make_table();
	ck_assert_int_eq(kvm_cpuid_patch(&table, 3, 6), 0);
	entry = kvm_cpuid_find(&table, 1, 0);
	ck_assert_uint_eq(entry->ebx, 3u << 24 | 6u << 16 | 0x0800);
	ck_assert_uint_eq(entry->edx >> 28 & 1, 1);
	for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x14) {
		entry = kvm_cpuid_find(&table, leaf, 0);
		ck_assert_uint_eq(entry->eax, 0);
		ck_assert_uint_eq(entry->ebx, 1);
		ck_assert_uint_eq(entry->ecx, 0x100);
		entry = kvm_cpuid_find(&table, leaf, 1);
		ck_assert_uint_eq(entry->eax, 3); /* bits for 6 */
		ck_assert_uint_eq(entry->ebx, 6);
		ck_assert_uint_eq(entry->ecx, 0x201);
		entry = kvm_cpuid_find(&table, leaf, 2);
		ck_assert_uint_eq(entry->ebx, 0);
		ck_assert_uint_eq(entry->ecx, 2);
		ck_assert_uint_eq(entry->edx, 3);
	}
	/* Level 1 is a core's, level 3 the package's. */
	ck_assert_uint_eq(kvm_cpuid_find(&table, 4, 0)->eax, 5u << 26 | 0x121);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 4, 3)->eax, 5u << 26 | 5u << 14 | 0x163);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 4, 4)->eax, 0);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 0x8000001d, 3)->eax, 5u << 14 | 0x163);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 0x8000001e, 0)->eax, 3);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 0x80000008, 0)->ecx, 3u << 12 | 5);
	ck_assert_uint_eq(kvm_cpuid_address_bits(&table), 39);
}
END_TEST

START_TEST(cpuid_features)
{
	const struct kvm_cpuid_entry2 *entry;

	make_table();
	ck_assert_int_eq(kvm_cpuid_patch(&table, 0, 1), 0);
	entry = kvm_cpuid_find(&table, 1, 0);
	ck_assert_uint_eq(entry->ecx, 1u | 1u << 21 | 1u << 24 | 1u << 31);
	ck_assert_uint_eq(entry->edx >> 28 & 1, 0);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 6, 0)->ecx, 1);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 0xa, 0)->eax, 0);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 0x80000001, 0)->ecx, 1);
	ck_assert_uint_eq(kvm_cpuid_find(&table, 0x8000000a, 0)->eax, 0);
	/* The clock of KVM. */
	ck_assert_uint_eq(kvm_cpuid_find(&table, 0x40000001, 0)->eax, 0x01007efb);
}
END_TEST

START_TEST(cpuid_full_table)
{
	make_table();
	while (table.count < KVM_CPUID_ENTRIES_MAX)
		add(0xd, table.count, true);
	ck_assert_int_eq(kvm_cpuid_patch(&table, 0, 1), -ENOSPC);
	table.count = KVM_CPUID_ENTRIES_MAX + 1;
	ck_assert_int_eq(kvm_cpuid_patch(&table, 0, 1), -ENOSPC);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kvm_cpu");
	TCase *bus = tcase_create("bus"), *serial = tcase_create("serial"),
	      *cpuid = tcase_create("cpuid");
	SRunner *runner;
	int failed;

	tcase_add_test(bus, bus_dispatch);
	tcase_add_test(bus, bus_ranges);
	tcase_add_checked_fixture(serial, set_up_port, tear_down_port);
	tcase_add_test(serial, serial_transmits);
	tcase_add_test(serial, serial_interrupts);
	tcase_add_test(serial, serial_probe);
	tcase_add_test(serial, serial_loopback);
	tcase_add_test(serial, serial_any_access);
	tcase_add_test(serial, serial_reader_gone_slow);
	tcase_add_test(cpuid, cpuid_topology);
	tcase_add_test(cpuid, cpuid_features);
	tcase_add_test(cpuid, cpuid_full_table);
	suite_add_tcase(suite, bus);
	suite_add_tcase(suite, serial);
	suite_add_tcase(suite, cpuid);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
