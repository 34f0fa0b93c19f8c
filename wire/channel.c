#include "wire/channel.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define RING_MASK (CHANNEL_RING_SIZE - 1)

_Static_assert((CHANNEL_RING_SIZE & RING_MASK) == 0, "a ring's size is a power of two");
_Static_assert(sizeof(struct channel_control) <= CHANNEL_CONTROL_SIZE, "the control page");

void channel_begin(void *memory)
{
	memset(memory, 0, sizeof(struct channel_control));
	atomic_thread_fence(memory_order_seq_cst);
}

void channel_attach(struct channel *channel, void *memory, enum channel_side side)
{
	struct channel_control *shared = memory;
	uint8_t *requests = (uint8_t *)memory + CHANNEL_CONTROL_SIZE;
	uint8_t *replies = requests + CHANNEL_RING_SIZE;

	*channel = (struct channel){ 0 };
	if (side == CHANNEL_HOST) {
		channel->incoming = requests;
		channel->outgoing = replies;
		channel->incoming_produced = &shared->request_produced.value;
		channel->incoming_consumed = &shared->request_consumed.value;
		channel->outgoing_produced = &shared->reply_produced.value;
		channel->outgoing_consumed = &shared->reply_consumed.value;
		channel->sleeps = &shared->host_sleeps.value;
		channel->peer_sleeps = &shared->guest_sleeps.value;
	} else {
		channel->incoming = replies;
		channel->outgoing = requests;
		channel->incoming_produced = &shared->reply_produced.value;
		channel->incoming_consumed = &shared->reply_consumed.value;
		channel->outgoing_produced = &shared->request_produced.value;
		channel->outgoing_consumed = &shared->request_consumed.value;
		channel->sleeps = &shared->guest_sleeps.value;
		channel->peer_sleeps = &shared->host_sleeps.value;
	}
}

ssize_t channel_available(const struct channel *channel)
{
	uint32_t produced = atomic_load_explicit(channel->incoming_produced, memory_order_acquire);
	uint32_t available = produced - channel->received;

	return available <= CHANNEL_RING_SIZE ? (ssize_t)available : -EPROTO;
}

ssize_t channel_room(const struct channel *channel)
{
	uint32_t consumed = atomic_load_explicit(channel->outgoing_consumed, memory_order_acquire);
	uint32_t under_way = channel->sent - consumed;

	return under_way <= CHANNEL_RING_SIZE ? (ssize_t)(CHANNEL_RING_SIZE - under_way) : -EPROTO;
}

void channel_copy(const struct channel *channel, void *target, size_t length)
{
	size_t start = channel->received & RING_MASK;
	size_t first = CHANNEL_RING_SIZE - start;

	if (first > length)
		first = length;
	memcpy(target, channel->incoming + start, first);
	memcpy((uint8_t *)target + first, channel->incoming, length - first);
}

void channel_consume(struct channel *channel, size_t length)
{
	channel->received += (uint32_t)length;
	atomic_store_explicit(channel->incoming_consumed, channel->received, memory_order_release);
}

void channel_put(struct channel *channel, const void *source, size_t length)
{
	size_t start = channel->sent & RING_MASK;
	size_t first = CHANNEL_RING_SIZE - start;

	if (first > length)
		first = length;
	memcpy(channel->outgoing + start, source, first);
	memcpy(channel->outgoing, (const uint8_t *)source + first, length - first);
	channel->sent += (uint32_t)length;
}

void channel_publish(struct channel *channel)
{
	atomic_store_explicit(channel->outgoing_produced, channel->sent, memory_order_release);
}

/* The fences pair: either the sleeper's second look sees the progress, or this sees its flag. */
bool channel_peer_sleeps(struct channel *channel)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(channel->peer_sleeps, memory_order_relaxed) != 0 &&
	       atomic_exchange(channel->peer_sleeps, 0) != 0;
}

void channel_sleep(struct channel *channel)
{
	atomic_store_explicit(channel->sleeps, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

void channel_wake(struct channel *channel)
{
	atomic_store_explicit(channel->sleeps, 0, memory_order_relaxed);
}
