#include "proxy/tunnel.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>

#define READ_SIZE 16384u
/* What one turn moves in one direction before others have theirs. */
#define SHARE 1048576u
/* What a side may still send into a stopped tunnel before it is cut off. */
#define DISCARD_MAX 1048576u

void tunnel_init(struct tunnel *tunnel, struct stream *guest, struct byte_buffer *from_guest,
		 struct stream *server, struct byte_buffer *from_server,
		 struct tunnel_screen *screen)
{
	size_t max = TUNNEL_BUFFER_MAX + (screen ? TUNNEL_SCREEN_SURPLUS : 0);

	*tunnel = (struct tunnel){
		.out = { .from = guest, .to = server, .early = from_guest },
		.in = { .from = server, .to = guest, .early = from_server },
		.screen = screen,
	};
	byte_buffer_init(&tunnel->out.output, max);
	byte_buffer_init(&tunnel->in.output, max);
}

void tunnel_release(struct tunnel *tunnel)
{
	byte_buffer_release(&tunnel->out.output);
	byte_buffer_release(&tunnel->in.output);
}

static void stop(struct tunnel *tunnel)
{
	struct tunnel_screen *screen = tunnel->screen;

	tunnel->is_stopped = true;
	if (screen->stop)
		screen->stop(screen, &tunnel->in.output, &tunnel->out.output);
	/* The other direction may have nothing else to do that would make it write. */
	stream_poke(tunnel->out.from);
}

static int pass(struct tunnel *tunnel, struct tunnel_direction *direction, const uint8_t *data,
		size_t length)
{
	struct tunnel_screen *screen = tunnel->screen;

	if (!screen)
		return byte_buffer_append(&direction->output, data, length);
	if (screen->pass(screen, direction == &tunnel->out, data, length, &direction->output) != 0)
		stop(tunnel);
	return 0;
}

/* What was read before the tunnel was. */
static ssize_t fill_early(struct tunnel *tunnel, struct tunnel_direction *direction)
{
	size_t length = MIN_OF(byte_buffer_length(direction->early), (size_t)READ_SIZE);
	int error = pass(tunnel, direction, byte_buffer_front(direction->early), length);

	byte_buffer_consume(direction->early, length);
	return error ? error : (ssize_t)length;
}

static ssize_t fill_screened(struct tunnel *tunnel, struct tunnel_direction *direction)
{
	uint8_t block[READ_SIZE];
	ssize_t count = stream_read(direction->from, block, READ_SIZE);
	int error = 0;

	if (count > 0) {
		error = pass(tunnel, direction, block, (size_t)count);
		explicit_bzero(block, (size_t)count);
	}
	return error ? error : count;
}

/* Bytes read, 0 at the end, or a negative errno. */
static ssize_t fill(struct tunnel *tunnel, struct tunnel_direction *direction)
{
	uint8_t *space;
	ssize_t count;

	if (byte_buffer_length(&direction->output) + READ_SIZE > TUNNEL_BUFFER_MAX)
		return -EAGAIN;
	if (byte_buffer_length(direction->early) > 0)
		return fill_early(tunnel, direction);
	if (!stream_can_read(direction->from) && !direction->from->read_ended)
		return direction->from->failed ? -EPIPE : -EAGAIN;
	if (tunnel->screen)
		return fill_screened(tunnel, direction);
	if (byte_buffer_reserve(&direction->output, READ_SIZE, &space) < 0)
		return -ENOMEM;
	count = stream_read(direction->from, space, READ_SIZE);
	if (count > 0)
		byte_buffer_commit(&direction->output, (size_t)count);
	else if (byte_buffer_length(&direction->output) == 0)
		byte_buffer_release(&direction->output);
	return count;
}

/* 0, -EAGAIN when not all of it went, or another negative errno. */
static int drain(struct tunnel_direction *direction)
{
	struct byte_buffer *output = &direction->output;

	while (byte_buffer_length(output) > 0) {
		ssize_t count = stream_write(direction->to, byte_buffer_front(output),
					     byte_buffer_length(output));

		if (count < 0)
			return (int)count;
		byte_buffer_consume(output, (size_t)count);
		direction->moved += (uint64_t)count;
	}
	return 0;
}

/* Returns what fill() does. */
static ssize_t discard(struct tunnel_direction *direction)
{
	uint8_t waste[4096];
	ssize_t count = stream_read(direction->from, waste, sizeof(waste));

	direction->discarded += count > 0 ? (uint64_t)count : 0;
	return direction->discarded > DISCARD_MAX ? 0 : count;
}

/* After a stop. A side that is gone does not keep the other from its last words. */
static void wind_up(struct tunnel_direction *direction)
{
	ssize_t count;

	if (drain(direction) == -EAGAIN)
		return;
	stream_end_write(direction->to);
	do {
		count = discard(direction);
	} while (count > 0);
	direction->ended = count != -EAGAIN;
}

/* False when it failed. */
static bool move(struct tunnel *tunnel, struct tunnel_direction *direction)
{
	uint64_t begin = direction->moved;
	ssize_t count = 1;
	int result;

	while (!direction->ended && !tunnel->is_stopped && count > 0) {
		result = drain(direction);
		if (result < 0 && result != -EAGAIN)
			return false;
		if (direction->moved - begin > SHARE) {
			stream_poke(direction->from);
			return true;
		}
		count = fill(tunnel, direction);
		if (count < 0 && count != -EAGAIN)
			return false;
		if (count == 0 && byte_buffer_length(&direction->output) == 0) {
			stream_end_write(direction->to);
			direction->ended = true;
		}
	}
	if (!direction->ended && tunnel->is_stopped)
		wind_up(direction);
	return true;
}

bool tunnel_turn(struct tunnel *tunnel)
{
	tunnel->failed =
		tunnel->failed || !move(tunnel, &tunnel->out) || !move(tunnel, &tunnel->in);
	return !tunnel->failed && !(tunnel->out.ended && tunnel->in.ended);
}
