#include "proxy/tunnel.h"

#include "base/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_SIZE 16384u
/* What one turn moves in one direction before others have theirs. */
#define SHARE 1048576u

void tunnel_init(struct tunnel *tunnel, struct stream *guest, struct byte_buffer *from_guest,
		 struct stream *server, struct byte_buffer *from_server)
{
	*tunnel = (struct tunnel){
		.out = { .from = guest, .to = server, .buffer = from_guest },
		.in = { .from = server, .to = guest, .buffer = from_server },
	};
}

bool tunnel_filter_in(struct tunnel *tunnel, struct body_filter *filter)
{
	struct tunnel_direction *in = &tunnel->in;
	size_t length = byte_buffer_length(in->buffer);
	uint8_t *waiting = malloc(length + 1);
	int error = -ENOMEM;

	in->filter = filter;
	if (waiting) {
		if (length > 0)
			memcpy(waiting, byte_buffer_front(in->buffer), length);
		byte_buffer_consume(in->buffer, length);
		error = filter->feed(filter, waiting, length, false, in->buffer);
		explicit_bzero(waiting, length);
	}
	free(waiting);
	tunnel->failed = error != 0;
	return error == 0;
}

/* The same as fill(), through the filter; what that kept counts at the end. */
static ssize_t fill_filtered(struct tunnel_direction *direction)
{
	size_t before = byte_buffer_length(direction->buffer);
	uint8_t block[READ_SIZE];
	ssize_t count;
	int error;

	/* The filter may add as much as it kept. */
	if (before + 2 * READ_SIZE > TUNNEL_BUFFER_MAX)
		return -EAGAIN;
	count = stream_read(direction->from, block, READ_SIZE);
	if (count < 0)
		return count;
	error = direction->filter->feed(direction->filter, block, (size_t)count, count == 0,
					direction->buffer);
	explicit_bzero(block, (size_t)count);
	if (error)
		return error;
	return count > 0 ? count : (ssize_t)(byte_buffer_length(direction->buffer) - before);
}

/* Bytes read, 0 at the end, or a negative errno. */
static ssize_t fill(struct tunnel_direction *direction)
{
	uint8_t *space;
	ssize_t count;

	if (byte_buffer_length(direction->buffer) + READ_SIZE > TUNNEL_BUFFER_MAX)
		return -EAGAIN;
	if (!stream_can_read(direction->from) && !direction->from->read_ended)
		return direction->from->failed ? -EPIPE : -EAGAIN;
	if (direction->filter)
		return fill_filtered(direction);
	if (byte_buffer_reserve(direction->buffer, READ_SIZE, &space) < 0)
		return -ENOMEM;
	count = stream_read(direction->from, space, READ_SIZE);
	if (count > 0)
		byte_buffer_commit(direction->buffer, (size_t)count);
	else if (byte_buffer_length(direction->buffer) == 0)
		byte_buffer_release(direction->buffer);
	return count;
}

/* 0, -EAGAIN when not all of it went, or another negative errno. */
static int drain(struct tunnel_direction *direction)
{
	while (byte_buffer_length(direction->buffer) > 0) {
		ssize_t count = stream_write(direction->to, byte_buffer_front(direction->buffer),
					     byte_buffer_length(direction->buffer));

		if (count < 0)
			return (int)count;
		byte_buffer_consume(direction->buffer, (size_t)count);
		direction->moved += (uint64_t)count;
	}
	return 0;
}

/* False when it failed. */
static bool move(struct tunnel_direction *direction)
{
	uint64_t begin = direction->moved;
	ssize_t count = 1;
	int result;

	while (!direction->ended && count > 0) {
		result = drain(direction);
		if (result < 0 && result != -EAGAIN)
			return false;
		if (direction->moved - begin > SHARE) {
			stream_poke(direction->from);
			return true;
		}
		count = fill(direction);
		if (count < 0 && count != -EAGAIN)
			return false;
		if (count == 0 && byte_buffer_length(direction->buffer) == 0) {
			stream_end_write(direction->to);
			direction->ended = true;
		}
	}
	return true;
}

bool tunnel_turn(struct tunnel *tunnel)
{
	tunnel->failed = tunnel->failed || !move(&tunnel->out) || !move(&tunnel->in);
	return !tunnel->failed && !(tunnel->out.ended && tunnel->in.ended);
}
