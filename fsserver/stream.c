#include "fsserver/stream.h"

#include "base/checked.h"
#include "fsserver/session.h"
#include "fsserver/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTIFY_FRAME_MAX 32768u

int stream_new(int fd, struct stream **ret_stream)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (stream)
		stream->rx = buffer_new(BUFFER_SMALL);
	if (!stream || !stream->rx) {
		free(stream);
		close(fd);
		return -ENOMEM;
	}
	stream->fd = fd;
	stream->tx_end = &stream->tx;
	*ret_stream = stream;
	return 0;
}

void stream_free(struct stream *stream)
{
	struct buffer *next;

	for (struct buffer *buffer = stream->tx; buffer; buffer = next) {
		next = buffer->next;
		buffer_free(buffer);
	}
	buffer_free(stream->rx);
	close(stream->fd);
	free(stream);
}

/* ---- arriving ------------------------------------------------------------------------------- */

int stream_next_frame(const struct stream *stream, struct fs_frame *ret_frame)
{
	size_t available = stream->rx->length - stream->rx_start;

	if (available < sizeof(*ret_frame))
		return -EAGAIN;
	memcpy(ret_frame, stream->rx->data + stream->rx_start, sizeof(*ret_frame));
	if (fs_frame_check(ret_frame))
		return -EBADMSG;
	return available < ret_frame->length ? -EAGAIN : 0;
}

const uint8_t *stream_frame_body(const struct stream *stream)
{
	return stream->rx->data + stream->rx_start + sizeof(struct fs_frame);
}

void stream_skip(struct stream *stream, size_t length)
{
	stream->rx_start += length;
}

struct buffer *stream_steal_frame(struct stream *stream, size_t frame_length)
{
	struct buffer *old = stream->rx;
	size_t rest = old->length - stream->rx_start - frame_length;
	/* The new buffer begins as if the frame still stood in front, so that the caller's skip
	 * fits both cases. */
	struct buffer *fresh = buffer_new(MAX_OF(frame_length + rest, (size_t)BUFFER_SMALL));

	if (!fresh)
		return NULL;
	memcpy(fresh->data + frame_length, old->data + stream->rx_start + frame_length, rest);
	fresh->length = frame_length + rest;
	stream->rx = fresh;
	stream->rx_start = 0;
	return old;
}

int stream_make_room(struct stream *stream)
{
	struct buffer *rx = stream->rx;
	size_t left = rx->length - stream->rx_start;
	struct fs_frame frame;
	int result;

	if (stream->rx_start > 0 && left > 0)
		memmove(rx->data, rx->data + stream->rx_start, left);
	rx->length = left;
	stream->rx_start = 0;
	result = stream_next_frame(stream, &frame);
	/* Only a checked header makes the buffer grow. */
	if (result == -EAGAIN && left >= sizeof(frame))
		return buffer_grow(rx, frame.length);
	return 0;
}

bool stream_may_run(const struct stream *stream)
{
	return !stream->dead && !stream->ending && stream->jobs < FS_INFLIGHT_MAX &&
	       stream->tx_bytes < SESSION_UNSENT_MAX;
}

bool stream_wants_bytes(const struct stream *stream)
{
	/* An ending stream is still read, so that the peer's closing is noticed, but only there
	 * where the bytes are thrown away. */
	return stream_may_run(stream) && !stream->ready &&
	       stream->rx->length < stream->rx->capacity;
}

/* ---- over a channel ------------------------------------------------------------------------- */

bool stream_has_news(const struct stream *stream)
{
	if (stream->dead)
		return false;
	/* What is broken is found out by the one who moves bytes. */
	if (stream_wants_bytes(stream) && channel_available(&stream->channel) != 0)
		return true;
	return stream->tx && channel_room(&stream->channel) != 0;
}

int stream_pull(struct stream *stream)
{
	struct buffer *rx = stream->rx;
	ssize_t available = channel_available(&stream->channel);
	size_t part;

	if (available <= 0 || !stream_wants_bytes(stream))
		return (int)MIN_OF(available, (ssize_t)0);
	part = MIN_OF((size_t)available, rx->capacity - rx->length);
	channel_copy(&stream->channel, rx->data + rx->length, part);
	channel_consume(&stream->channel, part);
	rx->length += part;
	return 1;
}

int stream_push(struct stream *stream)
{
	int moved = 0;

	while (stream->tx) {
		struct buffer *buffer = stream->tx;
		ssize_t room = channel_room(&stream->channel);
		size_t part;

		if (room < 0)
			return (int)room;
		part = MIN_OF((size_t)room, buffer->length - buffer->sent);
		if (part == 0)
			break;
		channel_put(&stream->channel, buffer->data + buffer->sent, part);
		stream_sent(stream, part);
		moved = 1;
	}
	if (moved)
		channel_publish(&stream->channel);
	return moved;
}

/* ---- leaving -------------------------------------------------------------------------------- */

void stream_queue(struct stream *stream, struct buffer *buffer)
{
	buffer->next = NULL;
	buffer->sent = 0;
	*stream->tx_end = buffer;
	stream->tx_end = &buffer->next;
	stream->tx_bytes += buffer->length;
}

int stream_answer(struct stream *stream, uint64_t tag, enum fs_opcode opcode, int error,
		  const void *body, size_t length)
{
	struct fs_frame frame = {
		.length = (uint32_t)(sizeof(frame) + sizeof(struct fs_op_reply) + length),
		.op_count = 1,
		.tag = tag,
	};
	struct fs_op_reply reply = {
		.opcode = (uint16_t)opcode,
		.error = (uint16_t)-error,
		.length = (uint32_t)length,
	};
	struct buffer *buffer = buffer_new(frame.length);

	if (!buffer)
		return -ENOMEM;
	memcpy(buffer->data, &frame, sizeof(frame));
	memcpy(buffer->data + sizeof(frame), &reply, sizeof(reply));
	if (length)
		memcpy(buffer->data + sizeof(frame) + sizeof(reply), body, length);
	buffer->length = frame.length;
	stream_queue(stream, buffer);
	return 0;
}

void stream_say_goodbye(struct stream *stream, enum fs_goodbye_reason reason, const char *text)
{
	uint8_t body[sizeof(struct fs_goodbye) + 256];
	size_t length = MIN_OF(strlen(text), (size_t)256);
	struct fs_goodbye goodbye = { .reason = reason, .text_length = (uint16_t)length };

	memcpy(body, &goodbye, sizeof(goodbye));
	memcpy(body + sizeof(goodbye), text, length);
	if (stream_answer(stream, 0, FS_GOODBYE, 0, body, sizeof(goodbye) + length))
		stream->dead = true;
}

void stream_notify(struct stream *stream)
{
	struct watch *watch = stream->export->watch;
	struct fs_frame frame = { 0 };
	struct buffer *buffer;
	unsigned operations;
	size_t length;

	if (stream->tx || stream->ending || !watch_has_news(watch))
		return;
	buffer = buffer_new(NOTIFY_FRAME_MAX);
	if (!buffer) {
		stream->dead = true;
		return;
	}
	length = watch_take(watch, buffer->data + sizeof(frame), NOTIFY_FRAME_MAX - sizeof(frame),
			    FS_OPS_MAX, &operations);
	frame.length = (uint32_t)(sizeof(frame) + length);
	frame.op_count = (uint16_t)operations;
	memcpy(buffer->data, &frame, sizeof(frame));
	buffer->length = frame.length;
	stream_queue(stream, buffer);
}

bool stream_gather(struct stream *stream)
{
	size_t count = 0;

	for (struct buffer *buffer = stream->tx; buffer && count < STREAM_GATHER_MAX;
	     buffer = buffer->next) {
		stream->vectors[count].iov_base = buffer->data + buffer->sent;
		stream->vectors[count].iov_len = buffer->length - buffer->sent;
		count++;
	}
	stream->message = (struct msghdr){ .msg_iov = stream->vectors, .msg_iovlen = count };
	return count > 0;
}

void stream_sent(struct stream *stream, size_t length)
{
	stream->tx_bytes -= length;
	while (length > 0 && stream->tx) {
		struct buffer *buffer = stream->tx;
		size_t part = MIN_OF(length, buffer->length - buffer->sent);

		buffer->sent += part;
		length -= part;
		if (buffer->sent < buffer->length)
			break;
		stream->tx = buffer->next;
		if (!stream->tx)
			stream->tx_end = &stream->tx;
		buffer_free(buffer);
	}
}
