/*
 * A channel: two rings of bytes in memory that the guest shares with the host, which carry the
 * frames of one stream in place of its socket. docs/protocol-channel.md says how one is taken up.
 *
 * A window of shared memory holds channels one after another, CHANNEL_STRIDE bytes each: a page of
 * struct channel_control, the ring of requests (to the host), the ring of replies (to the guest).
 * Indices count bytes since the channel began, modulo 2^32; a byte's place is its index modulo
 * CHANNEL_RING_SIZE. Each index has one writer.
 *
 * Who has nothing to do may sleep on the stream's socket: it says so in its flag, looks once more,
 * and then waits there for a byte (a "doorbell"), which the other side sends after progress if it
 * finds the flag set.
 *
 * Each end keeps its own indices to itself and never reads them back. What the other end says is
 * checked: more bytes than a ring holds is -EPROTO, and the channel is then of no more use. Bytes
 * in a ring may change while they are read: copy, then look at the copy.
 */
#ifndef WIRE_CHANNEL_H
#define WIRE_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CHANNEL_CONTROL_SIZE 4096u
#define CHANNEL_RING_SIZE 524288u /* power of two */
#define CHANNEL_STRIDE (CHANNEL_CONTROL_SIZE + 2 * CHANNEL_RING_SIZE)
#define CHANNELS_MAX 64u
/* What one frame may move: its reply, with 64 operations around the data, fits into a ring. */
#define CHANNEL_DATA_MAX (384u * 1024u)

/* 64 bytes apart, so that the two ends do not share cache lines without need. */
struct channel_index {
	_Atomic uint32_t value;
	uint8_t padding[60];
};

struct channel_control {
	struct channel_index request_produced; /* guest writes */
	struct channel_index request_consumed; /* host writes */
	struct channel_index reply_produced;   /* host writes */
	struct channel_index reply_consumed;   /* guest writes */
	struct channel_index host_sleeps;      /* set by the host, cleared by either */
	struct channel_index guest_sleeps;     /* set by the guest, cleared by either */
};
_Static_assert(sizeof(struct channel_index) == 64, "wire");
_Static_assert(sizeof(struct channel_control) == 6 * 64, "wire");

enum channel_side {
	CHANNEL_HOST,
	CHANNEL_GUEST,
};

/* One end. Borrows the shared memory. */
struct channel {
	const uint8_t *incoming;
	uint8_t *outgoing;
	_Atomic uint32_t *incoming_produced;
	_Atomic uint32_t *incoming_consumed;
	_Atomic uint32_t *outgoing_produced;
	_Atomic uint32_t *outgoing_consumed;
	_Atomic uint32_t *sleeps;
	_Atomic uint32_t *peer_sleeps;
	uint32_t received;
	uint32_t sent;
};

/* How many channels a window of so many bytes holds. */
static inline uint32_t channel_count(uint64_t window_size)
{
	uint64_t count = window_size / CHANNEL_STRIDE;

	return count > CHANNELS_MAX ? CHANNELS_MAX : (uint32_t)count;
}

/* The host's end begins a channel anew: it zeroes the control page. */
void channel_begin(void *memory);
/* `memory` is the channel's first byte in the window. */
void channel_attach(struct channel *channel, void *memory, enum channel_side side);
/* Bytes that have come and are not consumed, or -EPROTO. */
ssize_t channel_available(const struct channel *channel);
/* Bytes that can be sent now, or -EPROTO. */
ssize_t channel_room(const struct channel *channel);
/* Copies the first `length` available bytes without consuming them. */
void channel_copy(const struct channel *channel, void *target, size_t length);
void channel_consume(struct channel *channel, size_t length);
/* Puts `length` bytes, for which there is room, behind what was put before; the other end sees them
 * at channel_publish(). */
void channel_put(struct channel *channel, const void *source, size_t length);
void channel_publish(struct channel *channel);

/* Whether the other end sleeps: then it is to be woken, by one byte on the socket. Call after
 * channel_publish() or channel_consume(). */
bool channel_peer_sleeps(struct channel *channel);
/* Says that this end sleeps. Look for work once more before really doing so. */
void channel_sleep(struct channel *channel);
void channel_wake(struct channel *channel);

#endif
