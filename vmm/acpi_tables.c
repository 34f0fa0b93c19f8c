/*
 * Theory of operation
 *
 * Tables are written one behind the other, each with a header whose length and checksum are filled
 * in when its end is known. AML, the byte code of the DSDT, nests the same way: a package begins
 * with its own length, here always in the three-byte form, so that it can be filled in afterwards.
 */
#include "vmm/acpi_tables.h"

#include "base/bytes.h"
#include "vmm/platform.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RSDP_LENGTH 36
#define RSDP_CHECKED_V1 20
#define HEADER_LENGTH 36
#define HEADER_LENGTH_FIELD 4
#define HEADER_CHECKSUM 9
#define TABLE_ALIGNMENT 16

#define FADT_LENGTH 276
#define FADT_REVISION 6
#define FADT_BOOT_LEGACY_DEVICES 0x01
#define FADT_BOOT_NO_VGA 0x04
#define FADT_BOOT_NO_CMOS_CLOCK 0x20
#define FADT_WBINVD (1u << 0)
#define FADT_NO_POWER_BUTTON (1u << 4) /* none of the fixed kind */
#define FADT_NO_SLEEP_BUTTON (1u << 5)
#define FADT_NO_CLOCK_WAKE (1u << 6)
#define FADT_RESET_REGISTER (1u << 10)
#define FADT_REDUCED_HARDWARE (1u << 20)

#define FACS_LENGTH 64

#define MADT_PC_COMPATIBLE 1 /* there are 8259s */
#define MADT_LOCAL_APIC 0
#define MADT_IO_APIC 1
#define MADT_OVERRIDE 2
#define MADT_LEVEL_HIGH 0x0d
#define MADT_LOCAL_APIC_NMI 4
#define MADT_ENABLED 1
#define MADT_EVERY_PROCESSOR 0xff
#define MADT_REVISION 5

#define AML_ONE 0x01
#define AML_NAME 0x08
#define AML_BYTE 0x0a
#define AML_WORD 0x0b
#define AML_DWORD 0x0c
#define AML_STRING 0x0d
#define AML_SCOPE 0x10
#define AML_BUFFER 0x11
#define AML_PACKAGE 0x12
#define AML_METHOD 0x14
#define AML_EXTENDED 0x5b
#define AML_REGION 0x80
#define AML_FIELD 0x81
#define AML_DEVICE 0x82
#define AML_ROOT 0x5c
#define AML_ARGUMENT 0x68 /* the first */
#define AML_STORE 0x70
#define AML_EQUAL 0x93
#define AML_IF 0xa0

#define AML_SYSTEM_IO 1
#define AML_ACCESS_BY_BYTE 1
#define AML_ONE_ARGUMENT 1

#define EISA_PNP0501 0x0105d041u

/* The PC's timer is ISA's line 0, which all IOAPICs have at their pin 2. */
#define TIMER_IRQ 0
#define TIMER_GSI 2
/* Nothing is there: reads give ones, writes are lost. The interrupt never comes. */
#define FIXED_EVENT_PORT 0x600
#define FIXED_EVENT_LENGTH 4
#define FIXED_CONTROL_PORT 0x604
#define FIXED_CONTROL_LENGTH 2
#define FIXED_IRQ 9
#define SLEEP_TYPE_S3 1

const struct acpi_machine acpi_own_machine = {
	.cpus_max = PLATFORM_CPUS_MAX,
	.virtio_max = PLATFORM_VIRTIO_MAX,
	.virtio_base = PLATFORM_VIRTIO_BASE,
	.virtio_length = PLATFORM_VIRTIO_STRIDE,
	.virtio_gsi = PLATFORM_VIRTIO_GSI,
};

/* hw/i386/microvm.c of QEMU 7.2: eight transports from 0xfeb00000 and line 5 on, of which -device
 * takes the last first. */
const struct acpi_machine acpi_microvm_machine = {
	.cpus_max = 255,
	.virtio_max = 8,
	.virtio_base = 0xfeb00e00,
	.virtio_length = 0x200,
	.virtio_gsi = 12,
	.virtio_down = true,
	.virtio_level = true,
	.pc_timer = true,
};

struct tables {
	struct byte_writer writer;
	uint64_t address; /* of the block */
};

static void write_zeros(struct byte_writer *writer, size_t count)
{
	uint8_t *bytes = byte_writer_reserve(writer, count);

	if (bytes)
		memset(bytes, 0, count);
}

/* As far as the block itself is aligned. */
static void align(struct byte_writer *writer, size_t grain)
{
	write_zeros(writer, (grain - writer->length % grain) % grain);
}

static uint8_t checksum(const uint8_t *bytes, size_t length)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return (uint8_t)(0x100 - sum);
}

/* ---- tables ------------------------------------------------------------------------------------
 */

/* Begins a table; returns its offset in the block. */
static size_t table_begin(struct tables *tables, const char signature[5], uint8_t revision)
{
	struct byte_writer *writer = &tables->writer;
	size_t start;

	align(writer, TABLE_ALIGNMENT);
	start = writer->length;
	byte_writer_bytes(writer, signature, 4);
	byte_writer_u32(writer, 0); /* length: table_end() */
	byte_writer_u8(writer, revision);
	byte_writer_u8(writer, 0); /* checksum: table_end() */
	byte_writer_bytes(writer, "MTCHLK", 6);
	byte_writer_bytes(writer, "MATCHLCK", 8);
	byte_writer_u32(writer, 1);
	byte_writer_bytes(writer, "MTLK", 4);
	byte_writer_u32(writer, 1);
	return start;
}

/* Ends it; returns its address in the guest. */
static uint64_t table_end(struct tables *tables, size_t start)
{
	struct byte_writer *writer = &tables->writer;

	if (!byte_writer_ok(writer))
		return 0;
	byte_writer_patch_u32(writer, start + HEADER_LENGTH_FIELD,
			      (uint32_t)(writer->length - start));
	writer->data[start + HEADER_CHECKSUM] =
		checksum(writer->data + start, writer->length - start);
	return tables->address + start;
}

/* A Generic Address Structure (5.2.3.2) for a register in I/O space, accessed by the byte. */
static void write_register(struct byte_writer *writer, uint16_t port, uint8_t bytes)
{
	byte_writer_u8(writer, 1); /* system I/O */
	byte_writer_u8(writer, (uint8_t)(8 * bytes));
	byte_writer_u8(writer, 0);
	byte_writer_u8(writer, 1);
	byte_writer_u64(writer, port);
}

static void write_port(struct byte_writer *writer, uint16_t port)
{
	write_register(writer, port, 1);
}

/* Firmware and system share it; what is not of reduced hardware must have one (5.2.10). */
static uint64_t write_facs(struct tables *tables)
{
	struct byte_writer *writer = &tables->writer;

	write_zeros(writer, ACPI_FACS_OFFSET - RSDP_LENGTH);
	byte_writer_bytes(writer, "FACS", 4);
	byte_writer_u32(writer, FACS_LENGTH);
	write_zeros(writer, FACS_LENGTH - 8);
	return tables->address + ACPI_FACS_OFFSET;
}

/* A machine of a PC's kind, as little of it as there can be. */
static uint64_t write_pc_fadt(struct tables *tables, uint64_t facs, uint64_t dsdt)
{
	struct byte_writer *writer = &tables->writer;
	size_t start = table_begin(tables, "FACP", FADT_REVISION);

	byte_writer_u32(writer, (uint32_t)facs);
	byte_writer_u32(writer, (uint32_t)dsdt);
	byte_writer_u16(writer, 0);
	byte_writer_u16(writer, FIXED_IRQ);
	write_zeros(writer, 56 - 48); /* no command port: always in ACPI mode */
	byte_writer_u32(writer, FIXED_EVENT_PORT);
	byte_writer_u32(writer, 0);
	byte_writer_u32(writer, FIXED_CONTROL_PORT);
	byte_writer_u32(writer, ACPI_SLEEP_PORT);
	write_zeros(writer, 88 - 72);
	byte_writer_u8(writer, FIXED_EVENT_LENGTH);
	byte_writer_u8(writer, FIXED_CONTROL_LENGTH);
	write_zeros(writer, 109 - 90);
	byte_writer_u16(writer,
			FADT_BOOT_LEGACY_DEVICES | FADT_BOOT_NO_VGA | FADT_BOOT_NO_CMOS_CLOCK);
	byte_writer_u8(writer, 0);
	byte_writer_u32(writer, FADT_WBINVD | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
					FADT_NO_CLOCK_WAKE);
	write_zeros(writer, 140 - 116);
	byte_writer_u64(writer, dsdt);
	write_register(writer, FIXED_EVENT_PORT, FIXED_EVENT_LENGTH);
	write_zeros(writer, 172 - 160);
	write_register(writer, FIXED_CONTROL_PORT, FIXED_CONTROL_LENGTH);
	write_register(writer, ACPI_SLEEP_PORT, FIXED_CONTROL_LENGTH);
	write_zeros(writer, FADT_LENGTH - 196);
	return table_end(tables, start);
}

static uint64_t write_fadt(struct tables *tables, uint64_t dsdt)
{
	struct byte_writer *writer = &tables->writer;
	size_t start = table_begin(tables, "FACP", FADT_REVISION);

	byte_writer_u32(writer, 0); /* no FACS: there is no S3 */
	byte_writer_u32(writer, (uint32_t)dsdt);
	write_zeros(writer, 109 - 44); /* fixed hardware, of which there is none */
	byte_writer_u16(writer, FADT_BOOT_NO_VGA | FADT_BOOT_NO_CMOS_CLOCK);
	byte_writer_u8(writer, 0);
	byte_writer_u32(writer, FADT_WBINVD | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
					FADT_RESET_REGISTER | FADT_REDUCED_HARDWARE);
	write_port(writer, PLATFORM_RESET_PORT);
	byte_writer_u8(writer, PLATFORM_RESET_VALUE);
	write_zeros(writer, 3); /* ARM's boot flags, minor version */
	byte_writer_u64(writer, 0);
	byte_writer_u64(writer, dsdt);
	write_zeros(writer, 244 - 148); /* fixed hardware again */
	write_port(writer, PLATFORM_SLEEP_CONTROL_PORT);
	write_port(writer, PLATFORM_SLEEP_STATUS_PORT);
	write_zeros(writer, FADT_LENGTH - 268);
	return table_end(tables, start);
}

/* Where a line of ISA is at the IOAPIC (5.2.12.5). */
static void write_override(struct byte_writer *writer, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	byte_writer_u8(writer, MADT_OVERRIDE);
	byte_writer_u8(writer, 10);
	byte_writer_u8(writer, 0); /* ISA */
	byte_writer_u8(writer, irq);
	byte_writer_u32(writer, gsi);
	byte_writer_u16(writer, flags);
}

static uint64_t write_madt(struct tables *tables, unsigned cpus, bool pc)
{
	struct byte_writer *writer = &tables->writer;
	size_t start = table_begin(tables, "APIC", MADT_REVISION);

	byte_writer_u32(writer, PLATFORM_LAPIC_ADDRESS);
	byte_writer_u32(writer, pc ? MADT_PC_COMPATIBLE : 0);
	for (unsigned i = 0; i < cpus; i++) {
		byte_writer_u8(writer, MADT_LOCAL_APIC);
		byte_writer_u8(writer, 8);
		byte_writer_u8(writer, (uint8_t)i);
		byte_writer_u8(writer, (uint8_t)i);
		byte_writer_u32(writer, MADT_ENABLED);
	}
	byte_writer_u8(writer, MADT_IO_APIC);
	byte_writer_u8(writer, 12);
	byte_writer_u16(writer, 0);
	byte_writer_u32(writer, PLATFORM_IOAPIC_ADDRESS);
	byte_writer_u32(writer, 0); /* its first interrupt */
	if (pc) {
		write_override(writer, TIMER_IRQ, TIMER_GSI, 0);
		write_override(writer, FIXED_IRQ, FIXED_IRQ, MADT_LEVEL_HIGH);
	}
	byte_writer_u8(writer, MADT_LOCAL_APIC_NMI);
	byte_writer_u8(writer, 6);
	byte_writer_u8(writer, MADT_EVERY_PROCESSOR);
	byte_writer_u16(writer, 0);
	byte_writer_u8(writer, 1); /* LINT1 */
	return table_end(tables, start);
}

static uint64_t write_xsdt(struct tables *tables, uint64_t fadt, uint64_t madt)
{
	size_t start = table_begin(tables, "XSDT", 1);

	byte_writer_u64(&tables->writer, fadt);
	byte_writer_u64(&tables->writer, madt);
	return table_end(tables, start);
}

static void write_rsdp(struct tables *tables, uint64_t xsdt)
{
	uint8_t rsdp[RSDP_LENGTH];
	struct byte_writer writer;

	if (!byte_writer_ok(&tables->writer))
		return;
	byte_writer_init(&writer, rsdp, sizeof(rsdp));
	byte_writer_bytes(&writer, "RSD PTR ", 8);
	byte_writer_u8(&writer, 0);
	byte_writer_bytes(&writer, "MTCHLK", 6);
	byte_writer_u8(&writer, 2);
	byte_writer_u32(&writer, 0); /* no RSDT */
	byte_writer_u32(&writer, RSDP_LENGTH);
	byte_writer_u64(&writer, xsdt);
	byte_writer_u32(&writer, 0);
	rsdp[8] = checksum(rsdp, RSDP_CHECKED_V1);
	rsdp[32] = checksum(rsdp, RSDP_LENGTH);
	memcpy(tables->writer.data, rsdp, sizeof(rsdp));
}

/* ---- AML ---------------------------------------------------------------------------------------
 */

static size_t aml_package_begin(struct byte_writer *writer)
{
	size_t start = writer->length;

	write_zeros(writer, 3);
	return start;
}

/* PkgLength (20.2.4) in three bytes: four bits in the first, eight in each other. */
static void aml_package_end(struct byte_writer *writer, size_t start)
{
	size_t length = writer->length - start;

	if (!byte_writer_ok(writer))
		return;
	writer->data[start] = (uint8_t)(0x80 | (length & 0x0f));
	writer->data[start + 1] = (uint8_t)(length >> 4);
	writer->data[start + 2] = (uint8_t)(length >> 12);
}

static void aml_name(struct byte_writer *writer, const char name[5])
{
	byte_writer_u8(writer, AML_NAME);
	byte_writer_bytes(writer, name, 4);
}

static size_t aml_device_begin(struct byte_writer *writer, const char *name)
{
	size_t start;

	byte_writer_u8(writer, AML_EXTENDED);
	byte_writer_u8(writer, AML_DEVICE);
	start = aml_package_begin(writer);
	byte_writer_bytes(writer, name, 4);
	return start;
}

static void aml_byte(struct byte_writer *writer, uint8_t value)
{
	byte_writer_u8(writer, AML_BYTE);
	byte_writer_u8(writer, value);
}

/* _CRS with the given resource descriptors, to which the end tag is added. */
static void aml_resources(struct byte_writer *writer, const struct byte_writer *resources)
{
	size_t start;

	aml_name(writer, "_CRS");
	byte_writer_u8(writer, AML_BUFFER);
	start = aml_package_begin(writer);
	byte_writer_u8(writer, AML_WORD);
	byte_writer_u16(writer, (uint16_t)(resources->length + 2));
	byte_writer_bytes(writer, resources->data, resources->length);
	byte_writer_u8(writer, 0x79); /* end tag, without a checksum */
	byte_writer_u8(writer, 0);
	aml_package_end(writer, start);
}

static void write_serial_port(struct byte_writer *writer)
{
	uint8_t block[16];
	struct byte_writer resources;
	size_t start = aml_device_begin(writer, "COM1");

	aml_name(writer, "_HID");
	byte_writer_u8(writer, AML_DWORD);
	byte_writer_u32(writer, EISA_PNP0501);
	aml_name(writer, "_UID");
	byte_writer_u8(writer, AML_ONE);
	byte_writer_init(&resources, block, sizeof(block));
	byte_writer_u8(&resources, 0x47); /* IO (6.4.2.5), 16 bits decoded */
	byte_writer_u8(&resources, 1);
	byte_writer_u16(&resources, PLATFORM_SERIAL_PORT);
	byte_writer_u16(&resources, PLATFORM_SERIAL_PORT);
	byte_writer_u8(&resources, 1);
	byte_writer_u8(&resources, PLATFORM_SERIAL_LENGTH);
	byte_writer_u8(&resources, 0x22); /* IRQ (6.4.2.1), edge */
	byte_writer_u16(&resources, 1u << PLATFORM_SERIAL_GSI);
	aml_resources(writer, &resources);
	aml_package_end(writer, start);
}

static void write_virtio_device(struct byte_writer *writer, const struct acpi_machine *machine,
				unsigned index)
{
	uint8_t block[32];
	struct byte_writer resources;
	const uint32_t offset = index * machine->virtio_length;
	char name[8];
	size_t start;

	(void)snprintf(name, sizeof(name), "VR%02u", index % 100);
	start = aml_device_begin(writer, name);
	aml_name(writer, "_HID");
	byte_writer_u8(writer, AML_STRING);
	byte_writer_bytes(writer, "LNRO0005", 9);
	aml_name(writer, "_UID");
	aml_byte(writer, (uint8_t)index);
	aml_name(writer, "_CCA"); /* DMA is coherent */
	byte_writer_u8(writer, AML_ONE);
	byte_writer_init(&resources, block, sizeof(block));
	byte_writer_u8(&resources, 0x86); /* Memory32Fixed (6.4.3.4) */
	byte_writer_u16(&resources, 9);
	byte_writer_u8(&resources, 1); /* writable */
	byte_writer_u32(&resources, machine->virtio_down ? machine->virtio_base - offset
							 : machine->virtio_base + offset);
	byte_writer_u32(&resources, machine->virtio_length);
	byte_writer_u8(&resources, 0x89); /* extended interrupt (6.4.3.6) */
	byte_writer_u16(&resources, 6);
	/* Consumer, level or edge, active high, exclusive. */
	byte_writer_u8(&resources, machine->virtio_level ? 0x01 : 0x03);
	byte_writer_u8(&resources, 1);
	byte_writer_u32(&resources, machine->virtio_down ? machine->virtio_gsi - index
							 : machine->virtio_gsi + index);
	aml_resources(writer, &resources);
	aml_package_end(writer, start);
}

/* A sleep state's types, one for each of the fixed control registers. */
static void write_sleep_state(struct byte_writer *writer, const char name[5], uint8_t type)
{
	size_t package;

	aml_name(writer, name);
	byte_writer_u8(writer, AML_PACKAGE);
	package = aml_package_begin(writer);
	byte_writer_u8(writer, 2);
	aml_byte(writer, type);
	aml_byte(writer, type);
	aml_package_end(writer, package);
}

/* OperationRegion (PWRP, SystemIO, ACPI_POWER_PORT, 1)
 * Field (PWRP, ByteAcc, NoLock, Preserve) { PWRB, 8 }
 * Method (_PTS, 1) { If (Arg0 == 5) { PWRB = ACPI_POWER_OFF_BYTE } } */
static void write_power_off(struct byte_writer *writer)
{
	size_t field, method, condition;

	byte_writer_u8(writer, AML_EXTENDED);
	byte_writer_u8(writer, AML_REGION);
	byte_writer_bytes(writer, "PWRP", 4);
	byte_writer_u8(writer, AML_SYSTEM_IO);
	byte_writer_u8(writer, AML_WORD);
	byte_writer_u16(writer, ACPI_POWER_PORT);
	aml_byte(writer, 1);
	byte_writer_u8(writer, AML_EXTENDED);
	byte_writer_u8(writer, AML_FIELD);
	field = aml_package_begin(writer);
	byte_writer_bytes(writer, "PWRP", 4);
	byte_writer_u8(writer, AML_ACCESS_BY_BYTE);
	byte_writer_bytes(writer, "PWRB", 4);
	byte_writer_u8(writer, 8);
	aml_package_end(writer, field);
	byte_writer_u8(writer, AML_METHOD);
	method = aml_package_begin(writer);
	byte_writer_bytes(writer, "_PTS", 4);
	byte_writer_u8(writer, AML_ONE_ARGUMENT);
	byte_writer_u8(writer, AML_IF);
	condition = aml_package_begin(writer);
	byte_writer_u8(writer, AML_EQUAL);
	byte_writer_u8(writer, AML_ARGUMENT);
	aml_byte(writer, 5);
	byte_writer_u8(writer, AML_STORE);
	aml_byte(writer, ACPI_POWER_OFF_BYTE);
	byte_writer_bytes(writer, "PWRB", 4);
	aml_package_end(writer, condition);
	aml_package_end(writer, method);
}

static uint64_t write_dsdt(struct tables *tables, const struct acpi_setup *setup)
{
	struct byte_writer *writer = &tables->writer;
	size_t start = table_begin(tables, "DSDT", 2);
	size_t scope;

	byte_writer_u8(writer, AML_SCOPE);
	scope = aml_package_begin(writer);
	byte_writer_u8(writer, AML_ROOT);
	byte_writer_bytes(writer, "_SB_", 4);
	write_serial_port(writer);
	for (unsigned i = 0; i < setup->virtio_devices; i++)
		write_virtio_device(writer, setup->machine, i);
	aml_package_end(writer, scope);
	if (setup->machine->pc_timer) {
		write_sleep_state(writer, "_S3_", SLEEP_TYPE_S3);
		write_power_off(writer);
	}
	write_sleep_state(writer, "_S5_", PLATFORM_SLEEP_TYPE_S5);
	return table_end(tables, start);
}

int acpi_tables_build(const struct acpi_setup *setup, uint64_t address, uint8_t *block,
		      size_t capacity, size_t *ret_length)
{
	const struct acpi_machine *machine = setup->machine;
	struct tables tables = { .address = address };
	uint64_t facs = 0, dsdt, fadt, madt;

	if (setup->cpus < 1 || setup->cpus > machine->cpus_max ||
	    setup->virtio_devices > machine->virtio_max || capacity > UINT32_MAX ||
	    address > UINT32_MAX - capacity)
		return -EINVAL;
	byte_writer_init(&tables.writer, block, capacity);
	write_zeros(&tables.writer, RSDP_LENGTH);
	if (machine->pc_timer)
		facs = write_facs(&tables);
	dsdt = write_dsdt(&tables, setup);
	fadt = machine->pc_timer ? write_pc_fadt(&tables, facs, dsdt) : write_fadt(&tables, dsdt);
	madt = write_madt(&tables, setup->cpus, machine->pc_timer);
	write_rsdp(&tables, write_xsdt(&tables, fadt, madt));
	if (!byte_writer_ok(&tables.writer))
		return -ENOSPC;
	*ret_length = tables.writer.length;
	return 0;
}
