/*
 * The device's side of a split virtqueue (virtio 1.2, section 2.7), little-endian, with
 * VIRTIO_F_EVENT_IDX and VIRTIO_F_INDIRECT_DESC where negotiated.
 *
 * The driver owns the descriptor table and the available ring and may change them at any time.
 * Every descriptor is therefore copied once, then judged, and indexes read from memory are masked
 * before use. Violations (-EPROTO) leave the queue broken: virtqueue_pop() repeats the error and
 * virtqueue_error() says what was wrong.
 *
 * Limits: queue size a power of two, 1..VIRTQUEUE_SIZE_MAX; a chain of at most VIRTQUEUE_CHAIN_MAX
 * descriptors, none of length zero; no nested indirect tables.
 *
 * The queue borrows the guest_memory, which must outlive every call.
 */
#ifndef VMM_VIRTQUEUE_H
#define VMM_VIRTQUEUE_H

#include "vmm/guest_memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define VIRTQUEUE_SIZE_MAX 1024
#define VIRTQUEUE_CHAIN_MAX 32

/* Feature bits of any device: VIRTIO_F_INDIRECT_DESC, _EVENT_IDX, _VERSION_1 (virtio 1.2, 6). */
#define VIRTIO_FEATURE_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_FEATURE_EVENT_INDEX (UINT64_C(1) << 29)
#define VIRTIO_FEATURE_VERSION_1 (UINT64_C(1) << 32)

struct virtqueue_descriptor; /* the three rings: layouts in virtqueue.c */
struct virtqueue_available;
struct virtqueue_used;

/* Where the device's side is, as fixed-width fields so that it can be stored; the rings' addresses
 * are the transport's (virtio_mmio_queue_state). Chains that were popped and not pushed are not in
 * it: requests end before a queue is stored. */
struct virtqueue_state {
	uint16_t next_available; /* next entry of the available ring to take */
	uint16_t next_used;	 /* next entry of the used ring to fill */
	uint16_t published_used; /* what the driver was told */
	uint16_t reserved;
};
_Static_assert(sizeof(struct virtqueue_state) == 8, "stored layout");

struct virtqueue {
	const struct guest_memory *memory;
	const struct virtqueue_descriptor *descriptors;
	const struct virtqueue_available *available;
	struct virtqueue_used *used;
	const char *error; /* static text once broken */
	struct virtqueue_state state;
	uint16_t size;
	bool event_index;
	bool indirect;
};

/* One buffer of the driver: readable parts first, then writable ones, as the standard orders. */
struct virtqueue_chain {
	struct iovec parts[VIRTQUEUE_CHAIN_MAX];
	size_t readable_count;
	size_t writable_count;
	size_t readable_length; /* bytes */
	size_t writable_length; /* bytes */
	uint16_t head;
};

struct virtqueue_layout {
	uint64_t descriptors; /* addresses in the front end's address space if user_addresses */
	uint64_t available;
	uint64_t used;
	uint16_t size;
	uint16_t next_available; /* index to go on from */
	bool user_addresses;
	bool event_index;
	bool indirect;
};

/* Returns 0; -EINVAL for a bad size or misaligned ring; -EFAULT for a ring outside memory. */
int virtqueue_start(struct virtqueue *queue, const struct guest_memory *memory,
		    const struct virtqueue_layout *layout);

/* The layout's next_available for a queue that goes on elsewhere: 0; -EBUSY when chains were taken
 * that the driver was not told of as used, or the driver broke it. */
int virtqueue_position(const struct virtqueue *queue, uint16_t *ret_index);

/* Returns 1 with the next chain, 0 when there is none, -EPROTO on a violation. The parts point
 * into guest memory and are valid until that changes. */
int virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *ret_chain);
/* Gives the last `count` popped chains back, none of which was pushed. */
void virtqueue_rewind(struct virtqueue *queue, uint16_t count);

/* Enters a chain as used, having written `length` bytes; the driver does not see it yet. */
void virtqueue_push(struct virtqueue *queue, uint16_t head, uint32_t length);
/* Lets the driver see all pushed chains; returns whether it asked to be interrupted for them. */
bool virtqueue_publish(struct virtqueue *queue);

/* Asks for a kick at the next available chain. Returns true if one came meanwhile, so that
 * the caller must look again (there may be no kick for it). */
bool virtqueue_request_kick(struct virtqueue *queue);
/* Says that kicks are not needed; a hint which the driver may overlook. */
void virtqueue_suppress_kick(struct virtqueue *queue);

/* Copies between a block and the parts of a chain, starting at byte `offset` of the parts. Returns
 * the number of bytes copied, less than `length` when the parts end. */
size_t iovec_read(const struct iovec *parts, size_t count, size_t offset, void *target,
		  size_t length);
size_t iovec_write(const struct iovec *parts, size_t count, size_t offset, const void *source,
		   size_t length);
/* Fills `output` (of the same capacity as the parts) with the parts' bytes [offset, offset +
 * length); returns the number of entries. */
size_t iovec_slice(const struct iovec *parts, size_t count, size_t offset, size_t length,
		   struct iovec *output);

#endif
