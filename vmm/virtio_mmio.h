/*
 * The virtio-mmio transport, version 2 (virtio 1.2, section 4.2), between a guest whose vCPUs run
 * in this process and a device behind virtio_device.h.
 *
 * Threads: one thread, the device thread, runs the event loop. It calls virtio_mmio_start(),
 * _run(), _stop() and _free(), and on it alone the device's start(), stop(), kick() and run() are
 * called and the callbacks of the setup. Any vCPU thread calls virtio_mmio_read() and
 * virtio_mmio_write(). The registers are behind one lock for each transport; InterruptStatus and
 * InterruptACK are atomics that need no lock. A write which starts or stops queues waits until the
 * device thread has done it, so that after a reset the device does not touch the driver's memory
 * any more: the device thread must never wait for a vCPU unless it called virtio_mmio_stop()
 * before.
 *
 * Kicks: the transport owns one eventfd for each queue. The engine registers it with KVM as an
 * ioeventfd of 4 bytes at VIRTIO_MMIO_QUEUE_NOTIFY with the queue's index as datamatch; a write
 * that arrives at virtio_mmio_write() all the same has the same effect.
 *
 * Interrupts are edges: one call of `interrupt` for each, whatever InterruptStatus said before.
 *
 * What a driver does out of order has no effect and is reported as a violation.
 */
#ifndef VMM_VIRTIO_MMIO_H
#define VMM_VIRTIO_MMIO_H

#include "base/event_loop.h"
#include "jail/jail.h"
#include "vmm/virtio_device.h"

#define VIRTIO_MMIO_WINDOW 0x1000      /* bytes of guest physical addresses, page-aligned */
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x50u /* offset for ioeventfds */

#define VIRTIO_MMIO_CONFIG_STORED 64 /* bytes */

/* What the driver can change, as fixed-width fields so that it can be stored. */
struct virtio_mmio_queue_state {
	uint64_t descriptors;
	uint64_t available;
	uint64_t used;
	uint16_t size; /* 0 until the driver sets a good one */
	uint8_t ready;
	uint8_t reserved[5];
};

struct virtio_mmio_state {
	uint64_t driver_features;
	uint32_t driver_features_beyond; /* bits from 64 on that the driver wants */
	uint32_t device_features_select;
	uint32_t driver_features_select;
	uint32_t queue_select;
	uint32_t status;
	uint32_t interrupt_status;  /* atomic */
	uint32_t config_generation; /* atomic */
	uint32_t reserved;
	struct virtio_mmio_queue_state queues[VIRTIO_DEVICE_QUEUES_MAX];
};
_Static_assert(sizeof(struct virtio_mmio_queue_state) == 32, "stored layout");
_Static_assert(sizeof(struct virtio_mmio_state) == 40 + 32 * VIRTIO_DEVICE_QUEUES_MAX,
	       "stored layout");

/* A transport and its device as they are stored. The device itself is known by what the driver read
 * of it: it must be the same where the driver goes on. */
struct virtio_mmio_image {
	struct virtio_mmio_state registers;
	uint16_t positions[VIRTIO_DEVICE_QUEUES_MAX]; /* of queues that run: the next chain */
	uint64_t features;
	uint32_t device_id;
	uint32_t queue_count;
	uint8_t config[VIRTIO_MMIO_CONFIG_STORED]; /* the configuration space's beginning */
};
_Static_assert(sizeof(struct virtio_mmio_image) == sizeof(struct virtio_mmio_state) +
							   2 * VIRTIO_DEVICE_QUEUES_MAX + 16 +
							   VIRTIO_MMIO_CONFIG_STORED,
	       "stored layout");

struct virtio_mmio;

/* All of it is borrowed and must outlive the transport. */
struct virtio_mmio_setup {
	const struct virtio_device_operations *operations;
	void *device;
	const struct guest_memory *memory; /* complete before a vCPU runs */
	/* Interrupts the guest once: writes to the irqfd's eventfd. On the device thread. */
	void (*interrupt)(void *context);
	/* The guest broke the protocol; `what` is static text. On the device thread, from
	 * virtio_mmio_run(), once for each turn at most: later ones of the same turn are dropped.
	 * The guest decides how often. */
	void (*violation)(void *context, const char *what);
	void *context;
};

/* Returns 0 with a transport for virtio_mmio_free() that is attached to the device, -EINVAL for
 * operations that break the limits of virtio_device.h, -ENOMEM, or an error of eventfd(2). */
int virtio_mmio_new(const struct virtio_mmio_setup *setup, struct virtio_mmio **ret_transport);
/* Stops it if need be. No vCPU may be inside, nor come later. */
void virtio_mmio_free(struct virtio_mmio *transport);

/* The eventfd of a queue below the device's queue_count; the transport keeps it. */
int virtio_mmio_kick_fd(const struct virtio_mmio *transport, unsigned queue);

/* Makes the calling thread the device thread and adds the kicks to its loop (borrowed). Before the
 * first vCPU runs. Returns 0 or a negative errno. */
int virtio_mmio_start(struct virtio_mmio *transport, struct event_loop *loop);
/* Stops the device's queues and releases vCPUs that wait. From now on every register reads as zero
 * and writes have no effect. Device thread; stopping twice does nothing. */
void virtio_mmio_stop(struct virtio_mmio *transport);

/* Reads what there is to store, on the device thread while no vCPU runs. 0; -EBUSY: something is in
 * flight; -ENOTSUP for a device that cannot be stored, -EPROTO for one that its driver broke. */
int virtio_mmio_save(struct virtio_mmio *transport, struct virtio_mmio_image *ret_image);
/* Puts a fresh transport where a stored one was, before virtio_mmio_start(); what the image holds
 * is checked as if a driver had written it. 0, or -EINVAL for an image that is of another device or
 * of none that could be: the transport can only be freed then. */
int virtio_mmio_restore(struct virtio_mmio *transport, const struct virtio_mmio_image *image);

/* After each event_loop_run_once(): does what there is to do, bounded. Returns 0 when idle, 1 when
 * there is more to do at once, so that the loop must not sleep. A device whose queue the driver
 * broke is stopped until the driver resets it; that is no error here. */
int virtio_mmio_run(struct virtio_mmio *transport);

/* An access of 1..8 bytes at an offset below VIRTIO_MMIO_WINDOW by a vCPU. Registers below 0x100
 * want 32 bits at a multiple of 4: otherwise reads are zero and writes without effect. From 0x100
 * on, the configuration space takes any width and alignment. The buffer is in guest order
 * (little-endian). */
void virtio_mmio_read(struct virtio_mmio *transport, uint64_t offset, void *buffer, size_t length);
void virtio_mmio_write(struct virtio_mmio *transport, uint64_t offset, const void *buffer,
		       size_t length);

/* What the device thread calls here, beside jail_calls_process. A vCPU thread needs write() (to
 * eventfds) and futex() of it. */
extern const struct jail_syscall_set virtio_mmio_calls;

#endif
