#include "proxy/websocket_frames.h"

#include "base/checked.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation. Bytes are collected until a frame's header is complete, and the header is
 * judged as soon as its first two bytes are there. The payload of a data frame then goes through
 * the message's filter in the pieces in which it comes, and what comes out of that is written as a
 * frame of its own: the first has the message's opcode, the others are continuations, the last has
 * FIN. Between two pieces the output thus always stands between two frames, where control frames
 * and our own Close fit in. The payload of a control frame is collected, because such a frame
 * cannot be divided.
 */

enum opcode {
	OPCODE_CONTINUATION = 0x0,
	OPCODE_TEXT = 0x1,
	OPCODE_BINARY = 0x2,
	OPCODE_CLOSE = 0x8,
	OPCODE_PING = 0x9,
	OPCODE_PONG = 0xa,
};

#define BIT_FIN 0x80u
#define BITS_RESERVED 0x70u
#define BITS_OPCODE 0x0fu
#define BIT_CONTROL 0x08u
#define BIT_MASK 0x80u
#define LENGTH_MASK 0x7fu
#define LENGTH_16 126u
#define LENGTH_64 127u
#define FIRST_SIZE 2u
#define MASK_SIZE 4u
#define HEADER_MAX (FIRST_SIZE + 8u + MASK_SIZE)

/* What is filtered and written at a time, and the most that a filter gives for it: what it kept
 * may be a pattern in its longest form. */
#define PIECE_MAX 16384u
#define FILTERED_MAX 262144u

struct websocket_frames {
	struct websocket_frames_options options;
	const char *problem; /* set by a failure: nothing more is read */

	uint8_t header[HEADER_MAX];
	size_t header_length;
	size_t header_needed; /* FIRST_SIZE, then the whole of it */

	/* The frame whose payload comes; `in_payload` false: a header is being read. */
	bool in_payload;
	bool is_final;
	uint8_t opcode;
	uint64_t left;
	uint8_t mask[MASK_SIZE]; /* in the order in which the next bytes need it */

	uint8_t control[WEBSOCKET_CONTROL_MAX];
	size_t control_length;

	/* The message that comes. */
	bool in_message;
	uint8_t next_opcode; /* of the next frame to write of it */

	struct byte_buffer filtered;
	bool is_closed; /* a Close was written */
};

static int fail(struct websocket_frames *frames, const char *problem)
{
	frames->problem = problem;
	return -EPROTO;
}

static bool is_control(uint8_t opcode)
{
	return opcode & BIT_CONTROL;
}

/* Applies the mask to `length` bytes and turns it so that it fits what follows. */
static void apply_mask(uint8_t mask[MASK_SIZE], uint8_t *data, size_t length)
{
	uint8_t turned[MASK_SIZE];
	uint32_t key;
	size_t i = 0;

	memcpy(&key, mask, sizeof(key));
	for (; i + sizeof(key) <= length; i += sizeof(key)) {
		uint32_t word;

		memcpy(&word, data + i, sizeof(word));
		word ^= key;
		memcpy(data + i, &word, sizeof(word));
	}
	for (; i < length; i++)
		data[i] ^= mask[i % MASK_SIZE];
	for (i = 0; i < MASK_SIZE; i++)
		turned[i] = mask[(i + length) % MASK_SIZE];
	memcpy(mask, turned, MASK_SIZE);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* Returns the header's length, without a mask. */
static size_t make_header(uint8_t header[HEADER_MAX], uint8_t first, uint64_t length)
{
	size_t size = length < LENGTH_16 ? 0 : length <= UINT16_MAX ? 2 : 8;

	header[0] = first;
	header[1] = (uint8_t)(size == 0 ? length : size == 2 ? LENGTH_16 : LENGTH_64);
	for (size_t i = 0; i < size; i++)
		header[FIRST_SIZE + i] = (uint8_t)(length >> 8 * (size - 1 - i));
	return FIRST_SIZE + size;
}

static int write_frame(const struct websocket_frames *frames, uint8_t opcode, bool is_final,
		       const uint8_t *data, size_t length, struct byte_buffer *out)
{
	uint8_t header[HEADER_MAX];
	uint8_t first = (uint8_t)(opcode | (is_final ? BIT_FIN : 0));
	size_t size = make_header(header, first, length);
	uint8_t mask[MASK_SIZE] = { 0 };
	uint8_t *space;
	int error;

	if (frames->options.from_client) {
		if (RAND_bytes(mask, MASK_SIZE) != 1)
			return -EIO;
		header[1] |= BIT_MASK;
		memcpy(header + size, mask, MASK_SIZE);
		size += MASK_SIZE;
	}
	error = byte_buffer_reserve(out, size + length, &space);
	if (error)
		return error;
	memcpy(space, header, size);
	if (length > 0)
		memcpy(space + size, data, length);
	if (frames->options.from_client)
		apply_mask(mask, space + size, length);
	byte_buffer_commit(out, size + length);
	return 0;
}

void websocket_frames_close(struct websocket_frames *frames, enum websocket_close code,
			    const char *reason, struct byte_buffer *out)
{
	size_t length = MIN_OF(strlen(reason), (size_t)WEBSOCKET_REASON_MAX);
	uint8_t payload[WEBSOCKET_CONTROL_MAX] = { (uint8_t)(code >> 8), (uint8_t)code };

	if (frames->is_closed)
		return;
	memcpy(payload + 2, reason, length);
	/* What ends anyway can do without it. */
	if (write_frame(frames, OPCODE_CLOSE, true, payload, 2 + length, out) == 0)
		frames->is_closed = true;
}

/* ---- messages ------------------------------------------------------------------------------- */

static void open_message(struct websocket_frames *frames)
{
	if (frames->in_message)
		return;
	frames->in_message = true;
	frames->next_opcode = frames->opcode;
}

static int write_piece(struct websocket_frames *frames, const uint8_t *data, size_t length,
		       bool is_last, struct byte_buffer *out)
{
	int error;

	if (length == 0 && !is_last)
		return 0;
	error = write_frame(frames, frames->next_opcode, is_last, data, length, out);
	frames->next_opcode = OPCODE_CONTINUATION;
	return error;
}

static int pass_piece(struct websocket_frames *frames, const uint8_t *data, size_t length,
		      bool is_last, struct byte_buffer *out)
{
	struct body_filter *filter = frames->options.messages;
	struct byte_buffer *filtered = &frames->filtered;
	int error;

	if (filter) {
		error = filter->feed(filter, data, length, is_last, filtered);
		if (!error)
			error = write_piece(frames, byte_buffer_front(filtered),
					    byte_buffer_length(filtered), is_last, out);
		byte_buffer_release(filtered);
	} else {
		error = write_piece(frames, data, length, is_last, out);
	}
	if (is_last && !error)
		frames->in_message = false;
	return error;
}

/* ---- control frames ------------------------------------------------------------------------- */

/* RFC 6455 section 7.4 and the registry that it founded: codes that may be sent. */
static bool is_close_code(unsigned code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	       (code >= 3000 && code <= 4999);
}

static int check_close(struct websocket_frames *frames)
{
	const uint8_t *payload = frames->control;

	if (frames->control_length == 0)
		return 0;
	if (frames->control_length < 2 || !is_close_code((unsigned)(payload[0] << 8 | payload[1])))
		return fail(frames, "a Close frame without a valid code");
	return 0;
}

static int pass_control(struct websocket_frames *frames, struct byte_buffer *out)
{
	struct body_filter *filter = frames->options.controls;
	struct byte_buffer *filtered = &frames->filtered;
	int error = frames->opcode == OPCODE_CLOSE ? check_close(frames) : 0;

	if (!error && filter)
		error = filter->feed(filter, frames->control, frames->control_length, true,
				     filtered);
	if (!error && filter)
		error = write_frame(frames, frames->opcode, true, byte_buffer_front(filtered),
				    byte_buffer_length(filtered), out);
	else if (!error)
		error = write_frame(frames, frames->opcode, true, frames->control,
				    frames->control_length, out);
	byte_buffer_release(filtered);
	if (!error && frames->opcode == OPCODE_CLOSE)
		frames->is_closed = true;
	return error;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* Judges the first two bytes and says how long the header is. */
static int begin_header(struct websocket_frames *frames)
{
	uint8_t first = frames->header[0];
	uint8_t second = frames->header[1];
	uint8_t opcode = first & BITS_OPCODE;
	unsigned length = second & LENGTH_MASK;

	if (first & BITS_RESERVED)
		return fail(frames, "a frame with reserved bits");
	if (opcode > (is_control(opcode) ? OPCODE_PONG : OPCODE_BINARY))
		return fail(frames, "a frame with a reserved opcode");
	if (!(second & BIT_MASK) == frames->options.from_client)
		return fail(frames, frames->options.from_client ? "a client's frame without a mask"
								: "a server's frame with a mask");
	if (is_control(opcode) && (!(first & BIT_FIN) || length > WEBSOCKET_CONTROL_MAX))
		return fail(frames, "a control frame that is fragmented or too long");
	if (!is_control(opcode) && (opcode == OPCODE_CONTINUATION) != frames->in_message)
		return fail(frames, frames->in_message ? "a message inside another"
						       : "a continuation of nothing");
	frames->opcode = opcode;
	frames->is_final = first & BIT_FIN;
	frames->header_needed = FIRST_SIZE + (length == LENGTH_64   ? 8
					      : length == LENGTH_16 ? 2
								    : 0);
	if (frames->options.from_client)
		frames->header_needed += MASK_SIZE;
	return 0;
}

static int end_header(struct websocket_frames *frames)
{
	unsigned short_length = frames->header[1] & LENGTH_MASK;
	size_t mask_size = frames->options.from_client ? MASK_SIZE : 0;
	size_t size = frames->header_needed - FIRST_SIZE - mask_size;
	uint64_t length = size == 0 ? short_length : 0;

	for (size_t i = 0; i < size; i++)
		length = length << 8 | frames->header[FIRST_SIZE + i];
	if (size > 0 && length < (size == 2 ? LENGTH_16 : UINT16_MAX + UINT64_C(1)))
		return fail(frames, "a length that is not written in the shortest way");
	if (length > INT64_MAX)
		return fail(frames, "a length of 64 bits");
	memcpy(frames->mask, frames->header + FIRST_SIZE + size, mask_size);
	frames->header_length = 0;
	frames->in_payload = true;
	frames->left = length;
	frames->control_length = 0;
	if (!is_control(frames->opcode))
		open_message(frames);
	return 0;
}

/* Takes what is missing of the header, or as much as there is. */
static int read_header(struct websocket_frames *frames, const uint8_t *data, size_t length,
		       size_t *ret_used)
{
	size_t used = MIN_OF(length, frames->header_needed - frames->header_length);

	memcpy(frames->header + frames->header_length, data, used);
	frames->header_length += used;
	*ret_used = used;
	if (frames->header_length < frames->header_needed)
		return 0;
	if (frames->header_needed == FIRST_SIZE) {
		int error = begin_header(frames);

		if (error || frames->header_needed > FIRST_SIZE)
			return error;
	}
	return end_header(frames);
}

static int take_payload(struct websocket_frames *frames, const uint8_t *data, size_t length,
			struct byte_buffer *out)
{
	uint8_t plain[PIECE_MAX];
	bool is_last = frames->is_final && frames->left == length;

	if (frames->options.from_client && length > 0) {
		memcpy(plain, data, length);
		apply_mask(frames->mask, plain, length);
		data = plain;
	}
	if (!is_control(frames->opcode))
		return pass_piece(frames, data, length, is_last, out);
	if (length > 0)
		memcpy(frames->control + frames->control_length, data, length);
	frames->control_length += length;
	return is_last ? pass_control(frames, out) : 0;
}

/* A piece of the payload, of no bytes when it has none. */
static int read_payload(struct websocket_frames *frames, const uint8_t *data, size_t length,
			struct byte_buffer *out, size_t *ret_used)
{
	size_t used = (size_t)MIN_OF((uint64_t)MIN_OF(length, (size_t)PIECE_MAX), frames->left);
	int error = take_payload(frames, data, used, out);

	frames->left -= used;
	*ret_used = used;
	if (frames->left == 0) {
		frames->in_payload = false;
		frames->header_needed = FIRST_SIZE;
	}
	return error;
}

int websocket_frames_feed(struct websocket_frames *frames, const uint8_t *data, size_t length,
			  struct byte_buffer *out)
{
	int error = 0;

	if (frames->problem)
		return -EPROTO;
	while (!error && (length > 0 || (frames->in_payload && frames->left == 0))) {
		size_t used = 0;

		if (frames->in_payload)
			error = read_payload(frames, data, length, out, &used);
		else if (frames->is_closed)
			error = fail(frames, "a frame behind a Close");
		else
			error = read_header(frames, data, length, &used);
		data += used;
		length -= used;
	}
	if (error && !frames->problem)
		frames->problem = "it could not go on";
	return error;
}

const char *websocket_frames_problem(const struct websocket_frames *frames)
{
	return frames->problem;
}

bool websocket_frames_is_closed(const struct websocket_frames *frames)
{
	return frames->is_closed;
}

/* ---- lifetime ------------------------------------------------------------------------------- */

struct websocket_frames *websocket_frames_new(const struct websocket_frames_options *options)
{
	struct websocket_frames *frames = calloc(1, sizeof(*frames));

	if (!frames)
		return NULL;
	frames->options = *options;
	frames->header_needed = FIRST_SIZE;
	byte_buffer_init(&frames->filtered, FILTERED_MAX);
	return frames;
}

void websocket_frames_free(struct websocket_frames *frames)
{
	if (!frames)
		return;
	byte_buffer_release(&frames->filtered);
	free(frames);
}
