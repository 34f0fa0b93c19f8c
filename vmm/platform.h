/*
 * Where the devices of our own machine are: what acpi_tables.c tells the guest and what
 * kvm_engine.c puts there. (GUEST_RAM_* of guest_ram.h is the other half.)
 */
#ifndef VMM_PLATFORM_H
#define VMM_PLATFORM_H

#include <stdint.h>

#define PLATFORM_CPUS_MAX 32

/* virtio-mmio devices: one page and one interrupt line each, in the order in which they are made.
 * The IOAPIC has 24 lines, of which the first five are left to what a PC has there. */
#define PLATFORM_VIRTIO_BASE UINT64_C(0xd0000000)
#define PLATFORM_VIRTIO_STRIDE UINT64_C(0x1000)
#define PLATFORM_VIRTIO_GSI 5
#define PLATFORM_VIRTIO_MAX 19

#define PLATFORM_IOAPIC_ADDRESS 0xfec00000u
#define PLATFORM_LAPIC_ADDRESS 0xfee00000u
/* Three pages of Intel's real mode emulation, and one before them. */
#define PLATFORM_TSS_ADDRESS 0xfffbd000u
#define PLATFORM_IDENTITY_MAP_ADDRESS 0xfffbc000u

#define PLATFORM_SERIAL_PORT 0x3f8
#define PLATFORM_SERIAL_LENGTH 8
#define PLATFORM_SERIAL_GSI 4

/* ACPI's reduced hardware (ACPI 6.4, 4.8.3.7): a byte each. */
#define PLATFORM_SLEEP_CONTROL_PORT 0x600
#define PLATFORM_SLEEP_STATUS_PORT 0x601
#define PLATFORM_RESET_PORT 0x602
#define PLATFORM_RESET_VALUE 0x01
#define PLATFORM_SLEEP_TYPE_S5 5

/* The keyboard controller's command port, whose pulse command resets (reboot=k). */
#define PLATFORM_KEYBOARD_PORT 0x64
#define PLATFORM_KEYBOARD_RESET 0xfe

#endif
