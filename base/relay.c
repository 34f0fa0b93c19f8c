#include "base/relay.h"

#include "base/checked.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCKING_CHUNK ((size_t)4096)
/* Rounds of read and write in one turn, so that one busy stream leaves time for the others. */
#define ROUNDS_PER_TURN 8

int relay_init(struct relay *relay, int source, enum relay_end source_end, int sink,
	       enum relay_end sink_end, size_t capacity)
{
	uint8_t *buffer = malloc(capacity);

	if (!buffer)
		return -ENOMEM;
	*relay = (struct relay){
		.source = source,
		.sink = sink,
		.source_end = source_end,
		.sink_end = sink_end,
		.buffer = buffer,
		.capacity = capacity,
	};
	return 0;
}

void relay_release(struct relay *relay)
{
	free(relay->buffer);
	*relay = (struct relay){ .source = -1, .sink = -1, .source_ended = true };
}

short relay_source_events(const struct relay *relay)
{
	bool wanted = !relay->source_ended && !relay->sink_failed && relay->length == 0;

	return wanted ? POLLIN : 0;
}

short relay_sink_events(const struct relay *relay)
{
	return !relay->sink_failed && relay->length > 0 ? POLLOUT : 0;
}

static void fail_sink(struct relay *relay, int error)
{
	relay->sink_failed = true;
	relay->sink_error = error;
	relay->length = 0;
}

void relay_end_source(struct relay *relay)
{
	relay->source_ended = true;
}

bool relay_done(const struct relay *relay)
{
	return relay->sink_failed || (relay->source_ended && relay->length == 0);
}

static ssize_t read_source(struct relay *relay)
{
	size_t room = relay->capacity;

	if (relay->source_end == RELAY_SOCKET)
		return recv(relay->source, relay->buffer, room, MSG_DONTWAIT);
	if (relay->source_end == RELAY_BLOCKING)
		room = MIN_OF(room, BLOCKING_CHUNK);
	return read(relay->source, relay->buffer, room);
}

static ssize_t write_sink(struct relay *relay)
{
	const uint8_t *data = relay->buffer + relay->start;
	size_t length = relay->length;

	if (relay->sink_end == RELAY_SOCKET)
		return send(relay->sink, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (relay->sink_end == RELAY_BLOCKING)
		length = MIN_OF(length, BLOCKING_CHUNK);
	return write(relay->sink, data, length);
}

/* Reads into the empty buffer. Returns false when the source has nothing now. */
static bool fill(struct relay *relay)
{
	ssize_t count;

	do {
		count = read_source(relay);
	} while (count < 0 && errno == EINTR);
	if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	if (count <= 0) {
		relay->source_ended = true;
		relay->source_error = count < 0 ? errno : 0;
		return true;
	}
	relay->start = 0;
	relay->length = (size_t)count;
	return true;
}

/* Writes once. Returns false when the sink takes nothing now. */
static bool drain(struct relay *relay)
{
	ssize_t count;

	do {
		count = write_sink(relay);
	} while (count < 0 && errno == EINTR);
	if (count < 0) {
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return false;
		fail_sink(relay, errno);
		return true;
	}
	relay->start += (size_t)count;
	relay->length -= (size_t)count;
	relay->moved += (uint64_t)count;
	return true;
}

bool relay_turn(struct relay *relay, short source_revents, short sink_revents)
{
	bool source_ready = (source_revents & (POLLIN | POLLHUP | POLLERR)) != 0;
	bool sink_ready = (sink_revents & POLLOUT) != 0;
	bool changed = false;

	if (relay->sink_failed)
		return false;
	if (!sink_ready && (sink_revents & (POLLERR | POLLHUP)) != 0) {
		fail_sink(relay, EPIPE);
		return true;
	}
	for (int round = 0; round < ROUNDS_PER_TURN; round++) {
		if (relay->length > 0) {
			if (!sink_ready || !drain(relay))
				break;
			changed = true;
			if (relay->sink_failed)
				break;
			sink_ready = relay->sink_end != RELAY_BLOCKING;
		}
		if (relay->length == 0) {
			if (relay->source_ended || !source_ready || !fill(relay))
				break;
			changed = true;
			source_ready = relay->source_end != RELAY_BLOCKING;
			/* An end that never blocks may be tried without having asked poll(). */
			sink_ready = sink_ready || relay->sink_end != RELAY_BLOCKING;
		}
	}
	return changed;
}
