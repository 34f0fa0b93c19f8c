/*
 * The ACPI tables by which the guest's kernel finds its processors and devices: RSDP, XSDT, FADT
 * (reduced hardware), MADT, and a DSDT with the serial port, one LNRO0005 node for each
 * virtio-mmio device (virtio 1.2, 4.2.2.1 leaves the name to the platform; this is Linux's), and
 * the sleep type of S5. Addresses are those of platform.h.
 *
 * Source: ACPI 6.4, chapter 5.2 (tables), 6.4 (resources) and 20.2 (AML grammar). Nothing here
 * reads guest memory.
 */
#ifndef VMM_ACPI_TABLES_H
#define VMM_ACPI_TABLES_H

#include <stddef.h>
#include <stdint.h>

struct acpi_setup {
	unsigned cpus;		 /* 1..PLATFORM_CPUS_MAX; APIC ids from 0 on */
	unsigned virtio_devices; /* 0..PLATFORM_VIRTIO_MAX */
};

/* Writes all tables to `block`, which the guest will see at `address`, below 4 GiB; the RSDP is its
 * beginning. Returns 0 with the length, -EINVAL outside the limits, or -ENOSPC. */
int acpi_tables_build(const struct acpi_setup *setup, uint64_t address, uint8_t *block,
		      size_t capacity, size_t *ret_length);

#endif
