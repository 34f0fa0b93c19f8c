/*
 * The seam between a virtio device and how the guest reaches it (virtio 1.2, section 2).
 *
 * A transport (virtio_mmio.h) keeps the driver's state machine: status, feature negotiation, queue
 * registers, interrupts. A device behind it knows queues and its configuration space alone.
 *
 * Threads: attach(), negotiated(), start(), stop(), kick() and run() are called on the device
 * thread, which also dispatches the device's own events, and on no other. features(), read_config()
 * and write_config() are called by vCPU threads, one at a time for each transport but while the
 * device thread may be in any of the others: what these three touch is constant or atomic. A device
 * calls its transport on the device thread.
 *
 * Theory of operation: the transport calls start() for each enabled queue when the driver sets
 * DRIVER_OK, with registers that cannot change until stop() or reset. A kick only notes that a
 * queue has work; the owner's loop calls run() afterwards, never a vCPU. run() publishes used
 * chains and asks for interrupts through the transport that attach() gave.
 */
#ifndef VMM_VIRTIO_DEVICE_H
#define VMM_VIRTIO_DEVICE_H

#include "vmm/virtqueue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTIO_DEVICE_QUEUES_MAX 8

/* Device ids: virtio 1.2, section 5. */
enum virtio_device_id {
	VIRTIO_ID_BLOCK = 2,
	VIRTIO_ID_CONSOLE = 3,
	VIRTIO_ID_ENTROPY = 4,
	VIRTIO_ID_BALLOON = 5,
	VIRTIO_ID_VSOCK = 19,
};

/* What a device may ask of its transport, from run() and from its own events. */
struct virtio_transport_operations {
	/* The driver asked to be interrupted for the used ring of `queue`. */
	void (*interrupt)(void *transport, unsigned queue);
	/* The configuration space changed: bump its generation and interrupt. */
	void (*config_changed)(void *transport);
	/* The device cannot go on until it is reset (DEVICE_NEEDS_RESET); `what` is static text. */
	void (*needs_reset)(void *transport, const char *what);
};

struct virtio_device_operations {
	const char *name;
	enum virtio_device_id id;
	unsigned queue_count;	 /* 1..VIRTIO_DEVICE_QUEUES_MAX */
	uint16_t queue_size_max; /* power of two, at most VIRTQUEUE_SIZE_MAX */

	/* Called once, before anything else: how to reach the transport. */
	void (*attach)(void *device, const struct virtio_transport_operations *operations,
		       void *transport);
	/* The feature bits that it offers, VIRTIO_FEATURE_VERSION_1 among them. */
	uint64_t (*features)(const void *device);
	/* What was agreed, a subset of what was offered; before the first start(). */
	void (*negotiated)(void *device, uint64_t features);
	/* Copies from the configuration space; bytes beyond it read as zero. */
	void (*read_config)(const void *device, size_t offset, uint8_t *output, size_t length);
	/* NULL where the configuration space is read-only. Ignores what lies beyond it. */
	void (*write_config)(void *device, size_t offset, const uint8_t *input, size_t length);
	/* As virtqueue_start(). */
	int (*start)(void *device, unsigned queue, const struct guest_memory *memory,
		     const struct virtqueue_layout *layout);
	/* Stops a queue; requests in flight are finished or cancelled before it returns, and guest
	 * memory is not touched afterwards. Stopping a stopped queue does nothing. */
	void (*stop)(void *device, unsigned queue);
	void (*kick)(void *device, unsigned queue);
	/* Does what there is to do, bounded. 0 when idle, 1 when there is more to do at once,
	 * -EPROTO after the driver broke a queue, having said how by needs_reset(): the device is
	 * then not run before its queues were stopped. */
	int (*run)(void *device);
	/* Of a queue that runs, the index of the next chain to take, with which it can be started
	 * again in another process; the guest does not run. -EBUSY while chains are taken and not
	 * given back, or the device has more to remember than that. NULL: it cannot be stored. */
	int (*position)(const void *device, unsigned queue, uint16_t *ret_index);
};

#endif
