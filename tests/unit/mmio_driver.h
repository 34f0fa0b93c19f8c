/*
 * A driver that reaches its device through virtio-mmio registers, on top of virtio_driver.h's
 * memory and rings.
 */
#ifndef TESTS_UNIT_MMIO_DRIVER_H
#define TESTS_UNIT_MMIO_DRIVER_H

#include "tests/unit/virtio_driver.h"
#include "vmm/virtio_mmio.h"

#define MMIO_FEATURES (VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_EVENT_INDEX)
#define MMIO_ALL_RINGS_SPACE 0x3000 /* of one queue */

enum {
	MMIO_DEVICE_FEATURES = 0x10,
	MMIO_DEVICE_FEATURES_SELECT = 0x14,
	MMIO_DRIVER_FEATURES = 0x20,
	MMIO_DRIVER_FEATURES_SELECT = 0x24,
	MMIO_QUEUE_SELECT = 0x30,
	MMIO_QUEUE_SIZE_MAX = 0x34,
	MMIO_QUEUE_SIZE = 0x38,
	MMIO_QUEUE_READY = 0x44,
	MMIO_QUEUE_NOTIFY = 0x50,
	MMIO_INTERRUPT_STATUS = 0x60,
	MMIO_INTERRUPT_ACK = 0x64,
	MMIO_STATUS = 0x70,
	MMIO_DESCRIPTORS = 0x80,
	MMIO_AVAILABLE = 0x90,
	MMIO_USED = 0xa0,
	MMIO_CONFIG_GENERATION = 0xfc,
	MMIO_CONFIG = 0x100,
};

enum {
	MMIO_ACKNOWLEDGE = 1,
	MMIO_DRIVER = 2,
	MMIO_DRIVER_OK = 4,
	MMIO_FEATURES_OK = 8,
	MMIO_NEEDS_RESET = 64,
	MMIO_FAILED = 128,
	MMIO_BEFORE_QUEUES = MMIO_ACKNOWLEDGE | MMIO_DRIVER | MMIO_FEATURES_OK,
	MMIO_UP = MMIO_BEFORE_QUEUES | MMIO_DRIVER_OK,
};

static inline uint32_t mmio_read(struct virtio_mmio *transport, uint64_t offset)
{
	uint32_t value = 0xffffffff;

	virtio_mmio_read(transport, offset, &value, sizeof(value));
	return value;
}

static inline void mmio_write(struct virtio_mmio *transport, uint64_t offset, uint32_t value)
{
	virtio_mmio_write(transport, offset, &value, sizeof(value));
}

static inline uint64_t mmio_features(struct virtio_mmio *transport)
{
	uint64_t features;

	mmio_write(transport, MMIO_DEVICE_FEATURES_SELECT, 1);
	features = (uint64_t)mmio_read(transport, MMIO_DEVICE_FEATURES) << 32;
	mmio_write(transport, MMIO_DEVICE_FEATURES_SELECT, 0);
	return features | mmio_read(transport, MMIO_DEVICE_FEATURES);
}

/* Resets, and goes up to FEATURES_OK. Returns whether that was accepted. */
static inline bool mmio_negotiate(struct virtio_mmio *transport, uint64_t features)
{
	mmio_write(transport, MMIO_STATUS, 0);
	mmio_write(transport, MMIO_STATUS, MMIO_ACKNOWLEDGE);
	mmio_write(transport, MMIO_STATUS, MMIO_ACKNOWLEDGE | MMIO_DRIVER);
	mmio_write(transport, MMIO_DRIVER_FEATURES_SELECT, 1);
	mmio_write(transport, MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
	mmio_write(transport, MMIO_DRIVER_FEATURES_SELECT, 0);
	mmio_write(transport, MMIO_DRIVER_FEATURES, (uint32_t)features);
	mmio_write(transport, MMIO_STATUS, MMIO_BEFORE_QUEUES);
	return mmio_read(transport, MMIO_STATUS) == MMIO_BEFORE_QUEUES;
}

static inline void mmio_write_address(struct virtio_mmio *transport, uint64_t offset,
				      uint64_t address)
{
	mmio_write(transport, offset, (uint32_t)address);
	mmio_write(transport, offset + 4, (uint32_t)(address >> 32));
}

/* Sets a queue's registers to a layout and makes it ready. Returns whether it is. */
static inline bool mmio_set_queue(struct virtio_mmio *transport, unsigned queue,
				  const struct virtqueue_layout *layout)
{
	mmio_write(transport, MMIO_QUEUE_SELECT, queue);
	mmio_write(transport, MMIO_QUEUE_SIZE, layout->size);
	mmio_write_address(transport, MMIO_DESCRIPTORS, layout->descriptors);
	mmio_write_address(transport, MMIO_AVAILABLE, layout->available);
	mmio_write_address(transport, MMIO_USED, layout->used);
	mmio_write(transport, MMIO_QUEUE_READY, 1);
	return mmio_read(transport, MMIO_QUEUE_READY) == 1;
}

/* Forgets what the driver's side of a queue knew, as a driver does at a reset. */
static inline void mmio_forget_queue(struct driver *driver, unsigned queue)
{
	memset(driver->bytes + driver->queues[queue].base, 0, MMIO_ALL_RINGS_SPACE);
	driver->queues[queue].seen = 0;
	driver->queues[queue].next_descriptor = 0;
}

/* All the way up, with the first `count` of the driver's queues. */
static inline bool mmio_bring_up(struct virtio_mmio *transport, struct driver *driver,
				 uint64_t features, unsigned count)
{
	if (!mmio_negotiate(transport, features))
		return false;
	for (unsigned i = 0; i < count; i++) {
		struct virtqueue_layout layout = driver_layout(driver, i);

		mmio_forget_queue(driver, i);
		if (!mmio_set_queue(transport, i, &layout))
			return false;
	}
	mmio_write(transport, MMIO_STATUS, MMIO_UP);
	return mmio_read(transport, MMIO_STATUS) == MMIO_UP;
}

#endif
