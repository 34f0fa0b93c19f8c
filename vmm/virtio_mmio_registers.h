/*
 * The registers of virtio-mmio, for the files of the transport alone.
 */
#ifndef VMM_VIRTIO_MMIO_REGISTERS_H
#define VMM_VIRTIO_MMIO_REGISTERS_H

#include "vmm/virtio_mmio.h"

/* Virtio 1.2, table 4.1. */
enum mmio_register {
	REGISTER_MAGIC = 0x00,
	REGISTER_VERSION = 0x04,
	REGISTER_DEVICE_ID = 0x08,
	REGISTER_VENDOR = 0x0c,
	REGISTER_DEVICE_FEATURES = 0x10,
	REGISTER_DEVICE_FEATURES_SELECT = 0x14,
	REGISTER_DRIVER_FEATURES = 0x20,
	REGISTER_DRIVER_FEATURES_SELECT = 0x24,
	REGISTER_QUEUE_SELECT = 0x30,
	REGISTER_QUEUE_SIZE_MAX = 0x34,
	REGISTER_QUEUE_SIZE = 0x38,
	REGISTER_QUEUE_READY = 0x44,
	REGISTER_QUEUE_NOTIFY = VIRTIO_MMIO_QUEUE_NOTIFY,
	REGISTER_INTERRUPT_STATUS = 0x60,
	REGISTER_INTERRUPT_ACK = 0x64,
	REGISTER_STATUS = 0x70,
	REGISTER_DESCRIPTORS_LOW = 0x80,
	REGISTER_DESCRIPTORS_HIGH = 0x84,
	REGISTER_AVAILABLE_LOW = 0x90,
	REGISTER_AVAILABLE_HIGH = 0x94,
	REGISTER_USED_LOW = 0xa0,
	REGISTER_USED_HIGH = 0xa4,
	REGISTER_REGION_LENGTH_LOW = 0xb0,
	REGISTER_REGION_LENGTH_HIGH = 0xb4,
	REGISTER_REGION_BASE_LOW = 0xb8,
	REGISTER_REGION_BASE_HIGH = 0xbc,
	REGISTER_CONFIG_GENERATION = 0xfc,
};

/* Virtio 1.2, section 2.1. */
enum device_status {
	STATUS_ACKNOWLEDGE = 1,
	STATUS_DRIVER = 2,
	STATUS_DRIVER_OK = 4,
	STATUS_FEATURES_OK = 8,
	STATUS_NEEDS_RESET = 64,
	STATUS_FAILED = 128,
};

/* Whether a driver could have brought the registers of such a device there. */
bool virtio_mmio_registers_possible(const struct virtio_device_operations *operations,
				    uint64_t offered, const struct virtio_mmio_state *state);
/* What a driver sees of the device itself. */
void virtio_mmio_describe(const struct virtio_device_operations *operations, const void *device,
			  struct virtio_mmio_image *image);
bool virtio_mmio_same_device(const struct virtio_mmio_image *one,
			     const struct virtio_mmio_image *other);

#endif
