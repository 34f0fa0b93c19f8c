/*
 * The ACPI tables by which the guest's kernel finds its processors and devices: RSDP, XSDT, FADT,
 * MADT, and a DSDT with the serial port, one LNRO0005 node for each virtio-mmio device (virtio
 * 1.2, 4.2.2.1 leaves the name to the platform; this is Linux's), and the sleep types.
 *
 * Source: ACPI 6.4, chapter 5.2 (tables), 6.4 (resources) and 20.2 (AML grammar). Nothing here
 * reads guest memory.
 */
#ifndef VMM_ACPI_TABLES_H
#define VMM_ACPI_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a machine has, and where. */
struct acpi_machine {
	unsigned cpus_max;
	/* Devices have one range and one line of the IOAPIC each. */
	unsigned virtio_max;
	uint32_t virtio_base; /* of the first, as virtio_gsi */
	uint32_t virtio_length;
	uint32_t virtio_gsi;
	bool virtio_down;  /* the next is below it, not above */
	bool virtio_level; /* lines are held until acknowledged, not pulsed */
	/* It has a PC's 8254 and 8259: the tables are not of reduced hardware (ACPI 6.4, 4.1), so
	 * that Linux uses the 8254. The fixed registers they must name are ports of nothing, but
	 * for the second control register, ACPI_SLEEP_PORT: on a machine that can sleep (S3) what
	 * is written there, two bytes at a time, stops it. It is turned off by ACPI_POWER_OFF_BYTE
	 * at ACPI_POWER_PORT, which the tables write (_PTS) before S5. */
	bool pc_timer;
};

#define ACPI_SLEEP_PORT 0x606
#define ACPI_POWER_PORT 0x60a
#define ACPI_POWER_OFF_BYTE 0x7a
/* Where the FACS lies within the tables of such a machine, and where in that the address of real
 * mode code that wakes the machine, which the kernel writes before it sleeps (5.2.10). */
#define ACPI_FACS_OFFSET 64
#define ACPI_FACS_WAKING_VECTOR 12

/* Where microvm's tables go: a PC has its graphics card's memory there. Here it is the guest's, its
 * firmware reserves it, and neither uses it. */
#define ACPI_MICROVM_ADDRESS 0xb0000
#define ACPI_MICROVM_MAX 0x2000

extern const struct acpi_machine acpi_own_machine;     /* of kvm_engine.c: platform.h */
extern const struct acpi_machine acpi_microvm_machine; /* QEMU's, with acpi=off */

struct acpi_setup {
	const struct acpi_machine *machine;
	unsigned cpus;		 /* 1..cpus_max; APIC ids from 0 on */
	unsigned virtio_devices; /* 0..virtio_max */
};

/* Writes all tables to `block`, which the guest will see at `address`, below 4 GiB; the RSDP is its
 * beginning. Returns 0 with the length, -EINVAL outside the limits, or -ENOSPC. */
int acpi_tables_build(const struct acpi_setup *setup, uint64_t address, uint8_t *block,
		      size_t capacity, size_t *ret_length);

#endif
