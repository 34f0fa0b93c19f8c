#include "proxy/tunnel.h"

#include "base/checked.h"

#include <errno.h>

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

/* Bytes read, 0 at the end, or a negative errno. */
static ssize_t fill(struct tunnel_direction *direction)
{
	uint8_t *space;
	ssize_t count;

	if (byte_buffer_length(direction->buffer) + READ_SIZE > TUNNEL_BUFFER_MAX)
		return -EAGAIN;
	if (!stream_can_read(direction->from) && !direction->from->read_ended)
		return direction->from->failed ? -EPIPE : -EAGAIN;
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
