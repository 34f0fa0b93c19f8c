#include "proxy/dns_stream.h"

#include "proxy/byte_buffer.h"
#include "proxy/dns_answer.h"
#include "proxy/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#define PREFIX_SIZE 2u
#define INPUT_MAX (PREFIX_SIZE + DNS_QUERY_MAX)
#define OUTPUT_MAX (8u * (PREFIX_SIZE + DNS_ANSWER_MAX))

struct dns_stream {
	struct stream stream; /* first: events find it by it */
	struct dns_streams *streams;
	struct byte_buffer input;
	struct byte_buffer output;
	struct dns_stream *prev;
	struct dns_stream *next;
};

struct dns_streams {
	const struct services *services;
	struct dns_stream *all;
	size_t count;
};

static void drop(struct dns_stream *dns)
{
	DL_DELETE(dns->streams->all, dns);
	dns->streams->count--;
	byte_buffer_release(&dns->input);
	byte_buffer_release(&dns->output);
	stream_release(&dns->stream);
	free(dns);
}

/* Length of the first message in `input` with its prefix, 0 when it is not complete, -EMSGSIZE when
 * it never will be. */
static ssize_t next_message(const struct byte_buffer *input)
{
	const uint8_t *data = byte_buffer_front(input);
	size_t length;

	if (byte_buffer_length(input) < PREFIX_SIZE)
		return 0;
	length = (size_t)data[0] << 8 | data[1];
	if (length > DNS_QUERY_MAX)
		return -EMSGSIZE;
	return byte_buffer_length(input) < PREFIX_SIZE + length ? 0
								: (ssize_t)(PREFIX_SIZE + length);
}

static int answer_one(struct dns_stream *dns, size_t length)
{
	uint8_t message[PREFIX_SIZE + DNS_ANSWER_MAX];
	size_t answer_length;
	int error = dns_answer(dns->streams->services->addresses,
			       byte_buffer_front(&dns->input) + PREFIX_SIZE, length - PREFIX_SIZE,
			       message + PREFIX_SIZE, &answer_length);

	byte_buffer_consume(&dns->input, length);
	if (error)
		return error;
	message[0] = (uint8_t)(answer_length >> 8);
	message[1] = (uint8_t)answer_length;
	return byte_buffer_append(&dns->output, message, PREFIX_SIZE + answer_length);
}

/* 0, -EAGAIN when the guest does not read its answers, or another negative errno. */
static int flush(struct dns_stream *dns)
{
	while (byte_buffer_length(&dns->output) > 0) {
		ssize_t count = stream_write(&dns->stream, byte_buffer_front(&dns->output),
					     byte_buffer_length(&dns->output));

		if (count < 0)
			return (int)count;
		byte_buffer_consume(&dns->output, (size_t)count);
	}
	return 0;
}

/* Bytes read, 0 at the end, or a negative errno. */
static ssize_t fill(struct dns_stream *dns)
{
	uint8_t *space;
	size_t room = byte_buffer_room(&dns->input);
	ssize_t count;

	if (byte_buffer_reserve(&dns->input, room, &space) < 0)
		return -ENOMEM;
	count = stream_read(&dns->stream, space, room);
	if (count > 0)
		byte_buffer_commit(&dns->input, (size_t)count);
	return count;
}

/* Answers before reading on, so that one message is all that waits. */
static int turn(struct dns_stream *dns)
{
	for (;;) {
		ssize_t result = flush(dns);

		if (result < 0)
			return (int)result;
		result = next_message(&dns->input);
		if (result > 0)
			result = answer_one(dns, (size_t)result);
		else if (result == 0 && (result = fill(dns)) == 0)
			return -EPIPE;
		if (result < 0)
			return (int)result;
	}
}

static void on_ready(struct stream *stream)
{
	struct dns_stream *dns = (struct dns_stream *)stream;

	if (turn(dns) != -EAGAIN)
		drop(dns);
}

struct dns_streams *dns_streams_new(const struct services *services)
{
	struct dns_streams *streams = calloc(1, sizeof(*streams));

	if (streams)
		streams->services = services;
	return streams;
}

void dns_streams_free(struct dns_streams *streams)
{
	if (!streams)
		return;
	while (streams->all)
		drop(streams->all);
	free(streams);
}

void dns_streams_add(struct dns_streams *streams, int fd)
{
	struct dns_stream *dns = NULL;

	if (streams->count < DNS_STREAMS_MAX)
		dns = calloc(1, sizeof(*dns));
	if (!dns) {
		close(fd);
		return;
	}
	if (stream_init(&dns->stream, streams->services->loop, fd, on_ready) < 0) {
		free(dns);
		return;
	}
	dns->streams = streams;
	byte_buffer_init(&dns->input, INPUT_MAX);
	byte_buffer_init(&dns->output, OUTPUT_MAX);
	DL_APPEND(streams->all, dns);
	streams->count++;
	on_ready(&dns->stream);
}
