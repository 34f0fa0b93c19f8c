/*
 * The host's end of a channel against a guest that writes what it likes into the shared memory.
 * Input: steps of three bytes, each a change by the guest or a move by the host; a guard behind the
 * rings and the reader's buffer finds what goes beyond.
 */
#include "wire/channel.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define READ_MAX (4 * CHANNEL_RING_SIZE)

struct world {
	uint8_t *memory;
	struct channel_control *control;
	struct channel host;
	uint8_t *buffer;
};

static void guest_writes(const struct world *world, uint8_t which, uint32_t value)
{
	struct channel_index *const indices[] = {
		&world->control->request_produced, &world->control->request_consumed,
		&world->control->reply_produced,   &world->control->reply_consumed,
		&world->control->host_sleeps,	   &world->control->guest_sleeps,
	};

	atomic_store(&indices[which % 6]->value, value);
}

/* As the file server: all that is there, up to the room of its buffer. Returns false when the guest
 * broke the channel. */
static bool host_reads(struct world *world, size_t room)
{
	ssize_t available = channel_available(&world->host);
	size_t part;

	if (available < 0)
		return false;
	part = (size_t)available < room ? (size_t)available : room;
	channel_copy(&world->host, world->buffer, part);
	channel_consume(&world->host, part);
	return true;
}

static bool host_writes(struct world *world, size_t length)
{
	ssize_t room = channel_room(&world->host);

	if (room < 0)
		return false;
	channel_put(&world->host, world->buffer, (size_t)room < length ? (size_t)room : length);
	channel_publish(&world->host);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world world = {
		.memory = aligned_alloc(64, CHANNEL_STRIDE),
		.buffer = calloc(1, READ_MAX),
	};
	bool whole = true;

	if (!world.memory || !world.buffer)
		abort();
	world.control = (struct channel_control *)(void *)world.memory;
	channel_begin(world.memory);
	channel_attach(&world.host, world.memory, CHANNEL_HOST);
	for (size_t i = 0; whole && i + 3 <= size; i += 3) {
		uint32_t value = (uint32_t)(data[i + 1] | data[i + 2] << 8) * 127u;

		switch (data[i] % 4) {
		case 0:
			guest_writes(&world, data[i] / 4, value);
			break;
		case 1:
			whole = host_reads(&world, value % READ_MAX);
			break;
		case 2:
			whole = host_writes(&world, value % READ_MAX);
			break;
		default:
			(void)channel_peer_sleeps(&world.host);
			channel_sleep(&world.host);
		}
	}
	free(world.memory);
	free(world.buffer);
	return 0;
}
