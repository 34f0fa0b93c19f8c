/*
 * Theory of operation
 *
 * Three rings in guest memory. The driver writes descriptors and the available ring, then moves
 * available->index with a release store; we load that index with acquire and may then read
 * everything before it. We write used entries, then move used->index with a release store.
 * Both indexes run freely modulo 2^16; an entry lies at index modulo size.
 *
 * A driver can claim at most `size` chains at once. An available index further ahead than that is
 * a violation rather than something to loop over: it would let a guest make us walk stale
 * entries for 65,535 rounds.
 *
 * Notification with EVENT_IDX: each side writes the index at whose passing it wants to be told.
 * After writing ours we must look at the ring once more behind a full barrier, since an entry added
 * in between comes without a kick. On our side the same barrier stands between moving used->index
 * and reading the driver's used_event.
 */
#include "vmm/virtqueue.h"

#include "base/checked.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define DESCRIPTOR_NEXT 1
#define DESCRIPTOR_WRITE 2
#define DESCRIPTOR_INDIRECT 4
#define AVAILABLE_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

struct virtqueue_descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags;
	uint16_t next;
};
_Static_assert(sizeof(struct virtqueue_descriptor) == 16, "virtio 1.2, 2.7.5");

struct virtqueue_available {
	uint16_t flags;
	uint16_t index;
	uint16_t ring[]; /* size entries, then used_event */
};

struct virtqueue_used_element {
	uint32_t id;
	uint32_t length;
};

struct virtqueue_used {
	uint16_t flags;
	uint16_t index;
	struct virtqueue_used_element ring[]; /* size entries, then available_event */
};
_Static_assert(sizeof(struct virtqueue_used_element) == 8, "virtio 1.2, 2.7.8");

static uint16_t load_shared(const uint16_t *location, int order)
{
	return le16toh(__atomic_load_n(location, order));
}

static void store_shared(uint16_t *location, uint16_t value, int order)
{
	__atomic_store_n(location, htole16(value), order);
}

static int break_queue(struct virtqueue *queue, const char *error)
{
	queue->error = error;
	return -EPROTO;
}

static void *ring_range(const struct guest_memory *memory, const struct virtqueue_layout *layout,
			uint64_t address, uint64_t length)
{
	return layout->user_addresses ? user_range(memory, address, length)
				      : gpa_range(memory, address, length);
}

int virtqueue_start(struct virtqueue *queue, const struct guest_memory *memory,
		    const struct virtqueue_layout *layout)
{
	uint64_t size = layout->size;
	const void *descriptors, *available;
	void *used;

	if (size == 0 || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)) != 0 ||
	    layout->descriptors % 16 != 0 || layout->available % 2 != 0 || layout->used % 4 != 0)
		return -EINVAL;
	descriptors = ring_range(memory, layout, layout->descriptors, 16 * size);
	available = ring_range(memory, layout, layout->available, 6 + 2 * size);
	used = ring_range(memory, layout, layout->used, 6 + 8 * size);
	if (!descriptors || !available || !used)
		return -EFAULT;
	*queue = (struct virtqueue){
		.memory = memory,
		.descriptors = descriptors,
		.available = available,
		.used = used,
		.size = layout->size,
		.state.next_available = layout->next_available,
		.event_index = layout->event_index,
		.indirect = layout->indirect,
	};
	/* Everything taken so far was also given back: that is what stopping a queue ensures. */
	queue->state.next_used = layout->next_available;
	queue->state.published_used = layout->next_available;
	return 0;
}

int virtqueue_position(const struct virtqueue *queue, uint16_t *ret_index)
{
	const struct virtqueue_state *state = &queue->state;

	if (queue->error || state->next_used != state->next_available ||
	    state->published_used != state->next_used)
		return -EBUSY;
	*ret_index = state->next_available;
	return 0;
}

/* Copies one descriptor out of a table of `count`; the copy is what is judged and used. */
static bool fetch_descriptor(const struct virtqueue_descriptor *table, uint32_t count,
			     uint32_t index, struct virtqueue_descriptor *ret_descriptor)
{
	if (index >= count)
		return false;
	memcpy(ret_descriptor, &table[index], sizeof(*ret_descriptor));
	/* Without this the compiler could read the guest's memory again for a later use. */
	atomic_signal_fence(memory_order_acq_rel);
	return true;
}

/* Appends one buffer descriptor to the chain. */
static int add_part(struct virtqueue *queue, struct virtqueue_chain *chain,
		    const struct virtqueue_descriptor *descriptor)
{
	size_t count = chain->readable_count + chain->writable_count;
	uint32_t length = le32toh(descriptor->length);
	void *host;

	if (count >= VIRTQUEUE_CHAIN_MAX)
		return break_queue(queue, "descriptor chain too long");
	if (length == 0)
		return break_queue(queue, "descriptor of zero length");
	host = gpa_range(queue->memory, le64toh(descriptor->address), length);
	if (!host)
		return break_queue(queue, "descriptor outside guest memory");
	chain->parts[count] = (struct iovec){ .iov_base = host, .iov_len = length };
	if (le16toh(descriptor->flags) & DESCRIPTOR_WRITE) {
		chain->writable_count++;
		chain->writable_length += length;
	} else {
		if (chain->writable_count > 0)
			return break_queue(queue, "readable descriptor after a writable one");
		chain->readable_count++;
		chain->readable_length += length;
	}
	return 0;
}

/* Finds the table which an indirect descriptor names. */
static int enter_indirect(struct virtqueue *queue, const struct virtqueue_descriptor *descriptor,
			  const struct virtqueue_descriptor **ret_table, uint32_t *ret_count)
{
	uint32_t length = le32toh(descriptor->length);
	uint64_t address = le64toh(descriptor->address);
	const void *table;

	if (!queue->indirect)
		return break_queue(queue, "indirect descriptor, which was not negotiated");
	if (le16toh(descriptor->flags) & DESCRIPTOR_NEXT)
		return break_queue(queue, "indirect descriptor with a next one");
	if (length == 0 || length % sizeof(*descriptor) != 0 || address % 16 != 0)
		return break_queue(queue, "indirect table of odd size or alignment");
	table = gpa_range(queue->memory, address, length);
	if (!table)
		return break_queue(queue, "indirect table outside guest memory");
	*ret_table = table;
	*ret_count = length / (uint32_t)sizeof(*descriptor);
	return 0;
}

static int walk_chain(struct virtqueue *queue, struct virtqueue_chain *chain)
{
	const struct virtqueue_descriptor *table = queue->descriptors;
	uint32_t count = queue->size;
	uint32_t index = chain->head;
	bool indirect = false;

	/* add_part() bounds the walk: each step but the one into a table adds a part or fails. */
	for (;;) {
		struct virtqueue_descriptor descriptor;
		int r;

		if (!fetch_descriptor(table, count, index, &descriptor))
			return break_queue(queue, "descriptor index outside its table");
		if (le16toh(descriptor.flags) & DESCRIPTOR_INDIRECT) {
			if (indirect)
				return break_queue(queue, "indirect table inside another");
			r = enter_indirect(queue, &descriptor, &table, &count);
			if (r < 0)
				return r;
			indirect = true;
			index = 0;
			continue;
		}
		r = add_part(queue, chain, &descriptor);
		if (r < 0)
			return r;
		if (!(le16toh(descriptor.flags) & DESCRIPTOR_NEXT))
			return 0;
		index = le16toh(descriptor.next);
	}
}

int virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *ret_chain)
{
	uint16_t index, slot;
	int r;

	if (queue->error)
		return -EPROTO;
	index = load_shared(&queue->available->index, __ATOMIC_ACQUIRE);
	if (index == queue->state.next_available)
		return 0;
	if ((uint16_t)(index - queue->state.next_available) > queue->size)
		return break_queue(queue, "available index ahead by more than the queue's size");
	slot = queue->state.next_available & (uint16_t)(queue->size - 1);
	ret_chain->readable_count = 0;
	ret_chain->writable_count = 0;
	ret_chain->readable_length = 0;
	ret_chain->writable_length = 0;
	ret_chain->head = load_shared(&queue->available->ring[slot], __ATOMIC_RELAXED);
	r = walk_chain(queue, ret_chain);
	if (r < 0)
		return r;
	queue->state.next_available++;
	return 1;
}

void virtqueue_rewind(struct virtqueue *queue, uint16_t count)
{
	queue->state.next_available = (uint16_t)(queue->state.next_available - count);
}

void virtqueue_push(struct virtqueue *queue, uint16_t head, uint32_t length)
{
	uint16_t slot = queue->state.next_used & (uint16_t)(queue->size - 1);

	queue->used->ring[slot].id = htole32(head);
	queue->used->ring[slot].length = htole32(length);
	queue->state.next_used++;
}

/* Whether moving an index from `old` to `new` passes `event` (virtio 1.2, 2.7.7.1). */
static bool passes_event(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

bool virtqueue_publish(struct virtqueue *queue)
{
	uint16_t old = queue->state.published_used;

	if (queue->state.next_used == old)
		return false;
	store_shared(&queue->used->index, queue->state.next_used, __ATOMIC_RELEASE);
	queue->state.published_used = queue->state.next_used;
	atomic_thread_fence(memory_order_seq_cst);
	if (queue->event_index)
		return passes_event(
			load_shared(&queue->available->ring[queue->size], __ATOMIC_RELAXED),
			queue->state.next_used, old);
	return !(load_shared(&queue->available->flags, __ATOMIC_RELAXED) & AVAILABLE_NO_INTERRUPT);
}

static uint16_t *available_event(struct virtqueue *queue)
{
	/* The ring is 4-byte aligned, so what follows its last element is aligned for 16 bits. */
	return (uint16_t *)(void *)&queue->used->ring[queue->size];
}

bool virtqueue_request_kick(struct virtqueue *queue)
{
	if (queue->error)
		return false;
	if (queue->event_index)
		store_shared(available_event(queue), queue->state.next_available, __ATOMIC_RELAXED);
	else
		store_shared(&queue->used->flags, 0, __ATOMIC_RELAXED);
	atomic_thread_fence(memory_order_seq_cst);
	return load_shared(&queue->available->index, __ATOMIC_ACQUIRE) !=
	       queue->state.next_available;
}

void virtqueue_suppress_kick(struct virtqueue *queue)
{
	/* With EVENT_IDX an index which is already passed does it. */
	if (!queue->event_index)
		store_shared(&queue->used->flags, USED_NO_NOTIFY, __ATOMIC_RELAXED);
}

size_t iovec_slice(const struct iovec *parts, size_t count, size_t offset, size_t length,
		   struct iovec *output)
{
	size_t used = 0;

	for (size_t i = 0; i < count && length > 0; i++) {
		size_t available;

		if (offset >= parts[i].iov_len) {
			offset -= parts[i].iov_len;
			continue;
		}
		available = MIN_OF(parts[i].iov_len - offset, length);
		output[used].iov_base = (char *)parts[i].iov_base + offset;
		output[used].iov_len = available;
		used++;
		length -= available;
		offset = 0;
	}
	return used;
}

size_t iovec_read(const struct iovec *parts, size_t count, size_t offset, void *target,
		  size_t length)
{
	size_t copied = 0;

	for (size_t i = 0; i < count && copied < length; i++) {
		size_t step;

		if (offset >= parts[i].iov_len) {
			offset -= parts[i].iov_len;
			continue;
		}
		step = MIN_OF(parts[i].iov_len - offset, length - copied);
		memcpy((char *)target + copied, (const char *)parts[i].iov_base + offset, step);
		copied += step;
		offset = 0;
	}
	return copied;
}

size_t iovec_write(const struct iovec *parts, size_t count, size_t offset, const void *source,
		   size_t length)
{
	size_t copied = 0;

	for (size_t i = 0; i < count && copied < length; i++) {
		size_t step;

		if (offset >= parts[i].iov_len) {
			offset -= parts[i].iov_len;
			continue;
		}
		step = MIN_OF(parts[i].iov_len - offset, length - copied);
		memcpy((char *)parts[i].iov_base + offset, (const char *)source + copied, step);
		copied += step;
		offset = 0;
	}
	return copied;
}
