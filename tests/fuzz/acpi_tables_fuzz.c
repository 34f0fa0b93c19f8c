/*
 * ACPI tables of any number of processors and devices, at any address, in a block of any size: what
 * is beyond the limits is refused, nothing is written beyond the block, and what comes out is
 * walked as a guest's kernel would walk it.
 *
 * Input: u32 processors, u32 devices, u64 address, u16 size of the block, u8 which machine.
 */
#include "base/bytes.h"
#include "vmm/acpi_tables.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define RSDP_LENGTH 36
#define HEADER_LENGTH 36
#define AML_SCOPE 0x10
#define AML_EXTENDED 0x5b
#define AML_DEVICE 0x82

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct guest {
	uint64_t address;
	const uint8_t *block;
	size_t length;
};

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void require_sum(const uint8_t *bytes, size_t length)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + bytes[i]);
	require(sum == 0);
}

/* The table at an address in the guest, behind its header. */
static struct byte_reader open_table(const struct guest *guest, uint64_t address,
				     const char *signature)
{
	struct byte_reader reader;
	uint32_t length;
	size_t offset = address - guest->address;

	require(address >= guest->address && offset <= guest->length &&
		guest->length - offset >= HEADER_LENGTH);
	byte_reader_init(&reader, guest->block + offset, guest->length - offset);
	require(memcmp(byte_reader_bytes(&reader, 4), signature, 4) == 0);
	length = byte_reader_u32(&reader);
	require(length >= HEADER_LENGTH && length <= guest->length - offset);
	require_sum(guest->block + offset, length);
	byte_reader_init(&reader, guest->block + offset, length);
	(void)byte_reader_bytes(&reader, HEADER_LENGTH);
	return reader;
}

/* A package of AML whose length is written in three bytes; that counts itself. */
static struct byte_reader open_package(struct byte_reader *reader)
{
	uint8_t first = byte_reader_u8(reader);
	size_t length = first & 0x0f;

	require(first >> 4 == 8);
	length |= (size_t)byte_reader_u8(reader) << 4;
	length |= (size_t)byte_reader_u8(reader) << 12;
	require(length >= 3);
	return byte_reader_slice(reader, length - 3);
}

/* The scope holds one device after the other: the serial port and the virtio devices. */
static void walk_dsdt(struct byte_reader table, unsigned virtio_devices)
{
	struct byte_reader scope, device;
	unsigned devices = 0;

	require(byte_reader_u8(&table) == AML_SCOPE);
	scope = open_package(&table);
	(void)byte_reader_bytes(&scope, 5); /* its name */
	while (byte_reader_remaining(&scope) > 0) {
		require(byte_reader_u8(&scope) == AML_EXTENDED &&
			byte_reader_u8(&scope) == AML_DEVICE);
		device = open_package(&scope);
		require(byte_reader_ok(&device));
		devices++;
	}
	require(byte_reader_ok(&scope) && byte_reader_ok(&table) && devices == virtio_devices + 1);
}

static void walk_madt(struct byte_reader table, unsigned processors)
{
	unsigned found = 0;

	(void)byte_reader_bytes(&table, 8); /* the APIC's address, flags */
	while (byte_reader_remaining(&table) > 0) {
		uint8_t type = byte_reader_u8(&table);
		uint8_t length = byte_reader_u8(&table);

		require(length > 2 && byte_reader_bytes(&table, length - 2));
		found += type == 0;
	}
	require(found == processors);
}

static void walk(const struct guest *guest, const struct acpi_setup *setup)
{
	struct byte_reader reader;
	uint64_t xsdt, fadt, madt, dsdt;

	require(guest->length >= RSDP_LENGTH && memcmp(guest->block, "RSD PTR ", 8) == 0);
	require_sum(guest->block, 20);
	require_sum(guest->block, RSDP_LENGTH);
	byte_reader_init(&reader, guest->block + 24, 8);
	xsdt = byte_reader_u64(&reader);
	reader = open_table(guest, xsdt, "XSDT");
	fadt = byte_reader_u64(&reader);
	madt = byte_reader_u64(&reader);
	require(byte_reader_done(&reader));
	walk_madt(open_table(guest, madt, "APIC"), setup->cpus);
	reader = open_table(guest, fadt, "FACP");
	(void)byte_reader_u32(&reader);
	dsdt = byte_reader_u32(&reader);
	(void)byte_reader_bytes(&reader, 140 - 44);
	require(byte_reader_u64(&reader) == dsdt); /* the same in both of its fields */
	walk_dsdt(open_table(guest, dsdt, "DSDT"), setup->virtio_devices);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct acpi_setup setup;
	struct guest guest = { 0 };
	struct byte_reader input;
	size_t capacity;
	uint8_t *block;
	bool fit;
	int result;

	byte_reader_init(&input, data, size);
	setup.cpus = byte_reader_u32(&input);
	setup.virtio_devices = byte_reader_u32(&input);
	guest.address = byte_reader_u64(&input);
	capacity = byte_reader_u16(&input);
	setup.machine = byte_reader_u8(&input) % 2 ? &acpi_microvm_machine : &acpi_own_machine;
	block = malloc(capacity ? capacity : 1);
	require(block != NULL);
	fit = setup.cpus >= 1 && setup.cpus <= setup.machine->cpus_max &&
	      setup.virtio_devices <= setup.machine->virtio_max &&
	      guest.address <= UINT32_MAX - capacity;
	result = acpi_tables_build(&setup, guest.address, block, capacity, &guest.length);
	require((result == -EINVAL) == !fit);
	if (result == 0) {
		require(guest.length <= capacity);
		guest.block = block;
		walk(&guest, &setup);
	}
	free(block);
	return 0;
}
