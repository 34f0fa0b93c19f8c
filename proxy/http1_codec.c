#include "proxy/http1_codec.h"

#include "base/checked.h"
#include "proxy/http1_writer.h"

#include <errno.h>
#include <string.h>

/* A head and the beginning of what follows; more stays in the socket. */
#define INPUT_MAX (HTTP1_HEAD_MAX + 16384u)
/* Room for the largest head beside a body's share. */
#define OUTPUT_MAX (2u * HTTP_HEAD_SIZE_MAX + 65536u)
/* Four records of TLS. */
#define OUTPUT_BODY_MAX (65536u + HTTP1_CHUNK_OVERHEAD)
#define READ_SIZE 16384u

static struct http1_codec *codec_of(struct http_leg *leg)
{
	return (struct http1_codec *)leg;
}

static void fail(struct http1_codec *codec, const char *problem)
{
	codec->leg.receiving = HTTP_RECEIVING_FAILED;
	codec->leg.problem = problem;
	codec->closes = true;
}

/* ---- receiving ------------------------------------------------------------------------------ */

/* Bytes that were read; 0 at the end; -EAGAIN when there are none now or no room; or an error. */
static ssize_t fill(struct http1_codec *codec)
{
	size_t wanted = MIN_OF(READ_SIZE, byte_buffer_room(&codec->input));
	uint8_t *space;
	ssize_t count;

	if (wanted == 0 || (!stream_can_read(codec->stream) && !codec->stream->read_ended))
		return codec->stream->failed ? -EPIPE : -EAGAIN;
	if (byte_buffer_reserve(&codec->input, wanted, &space) < 0)
		return -ENOMEM;
	count = stream_read(codec->stream, space, wanted);
	if (count > 0)
		byte_buffer_commit(&codec->input, (size_t)count);
	else if (byte_buffer_length(&codec->input) == 0)
		byte_buffer_release(&codec->input);
	return count;
}

static void take_head(struct http1_codec *codec, size_t length)
{
	struct http_leg *leg = &codec->leg;
	const struct http1_message *message = &codec->parser.message;
	unsigned status = http_head_status(leg->head);

	byte_buffer_consume(&codec->input, length);
	leg->is_old = message->minor_version == 0;
	leg->accepts_trailers = http_head_lists(leg->head, "te", "trailers");
	leg->framing = codec->role == HTTP1_CLIENT
			       ? http1_response_framing(message, status, codec->to_head)
			       : message->framing;
	if (!message->keeps_alive && (codec->role == HTTP1_SERVER || status >= 200))
		codec->closes = true;
	if (leg->framing.kind == HTTP_FRAMING_UNTIL_CLOSE)
		codec->closes = true;
	http1_body_begin(&codec->body, &leg->framing);
	leg->receiving =
		codec->body.state == HTTP1_BODY_ENDED ? HTTP_RECEIVING_ENDED : HTTP_RECEIVING_BODY;
}

static void receive_head(struct http1_codec *codec)
{
	struct http_leg *leg = &codec->leg;
	const char *problem = NULL;

	for (;;) {
		ssize_t result =
			http1_parse(&codec->parser, byte_buffer_front(&codec->input),
				    byte_buffer_length(&codec->input), leg->head, &problem);

		if (result > 0) {
			take_head(codec, (size_t)result);
			return;
		}
		if (result < 0) {
			fail(codec, problem);
			return;
		}
		result = fill(codec);
		if (result == -EAGAIN)
			return;
		if (result <= 0) {
			fail(codec, http1_codec_has_input(codec)
					    ? "the connection ended in the middle of a head"
					    : "the connection ended");
			return;
		}
		codec->has_received_any = true;
	}
}

/* Bytes of body that are not framed need not pass through `input`. */
static ssize_t read_directly(struct http1_codec *codec, struct byte_buffer *out)
{
	struct http1_body *body = &codec->body;
	size_t room = byte_buffer_room(out);
	size_t wanted = MIN_OF(READ_SIZE, room);
	uint8_t *space;
	ssize_t count;

	if (body->state == HTTP1_BODY_DATA) {
		room = (size_t)MIN_OF((uint64_t)room, body->remaining);
		wanted = MIN_OF(wanted, room);
	}
	if (!stream_can_read(codec->stream) && !codec->stream->read_ended)
		return codec->stream->failed ? -EPIPE : -EAGAIN;
	/* For all that may come in this turn, so that it is not moved. */
	if (byte_buffer_reserve(out, room, &space) < 0)
		return -ENOMEM;
	count = stream_read(codec->stream, space, wanted);
	if (count > 0) {
		byte_buffer_commit(out, (size_t)count);
		http1_body_count(body, (size_t)count);
	} else if (byte_buffer_length(out) == 0) {
		byte_buffer_release(out);
	}
	return count;
}

static bool is_plain(const struct http1_body *body)
{
	return body->state == HTTP1_BODY_UNTIL_CLOSE ||
	       (body->state == HTTP1_BODY_DATA && !body->is_chunked);
}

static void end_body(struct http1_codec *codec)
{
	codec->leg.receiving = HTTP_RECEIVING_ENDED;
	codec->leg.trailers = codec->body.trailers;
}

static void receive(struct http_leg *leg, struct byte_buffer *out)
{
	struct http1_codec *codec = codec_of(leg);
	const char *problem = NULL;

	while (leg->receiving == HTTP_RECEIVING_BODY) {
		size_t queued = byte_buffer_length(&codec->input);
		ssize_t result = http1_body_decode(&codec->body, byte_buffer_front(&codec->input),
						   queued, out, &problem);

		if (result < 0) {
			fail(codec, problem);
			return;
		}
		byte_buffer_consume(&codec->input, (size_t)result);
		if (codec->body.state == HTTP1_BODY_ENDED) {
			end_body(codec);
			return;
		}
		if (byte_buffer_room(out) == 0)
			return;
		result = queued == (size_t)result && is_plain(&codec->body)
				 ? read_directly(codec, out)
				 : fill(codec);
		if (result == -EAGAIN)
			return;
		if (result == 0 && http1_body_close(&codec->body)) {
			end_body(codec);
			return;
		}
		if (result <= 0) {
			fail(codec, "the connection ended in the middle of a body");
			return;
		}
	}
}

static void skip_head(struct http_leg *leg)
{
	struct http1_codec *codec = codec_of(leg);

	http_head_clear(leg->head);
	http1_body_release(&codec->body);
	http1_parser_init(&codec->parser, HTTP1_RESPONSE);
	leg->receiving = HTTP_RECEIVING_HEAD;
	receive_head(codec);
}

/* ---- sending -------------------------------------------------------------------------------- */

static int send_failed(struct http1_codec *codec, int error)
{
	if (error) {
		codec->leg.send_failed = true;
		codec->closes = true;
	}
	return error;
}

static void sent(struct http1_codec *codec)
{
	codec->is_sending = false;
	codec->has_sent = true;
}

static int send_response(struct http1_codec *codec, const struct http_head *head)
{
	struct http_leg *leg = &codec->leg;
	struct http1_options options = { .upgrade = leg->upgrade };
	unsigned status = http_head_status(head);

	/* A body without a length goes to an old client until the connection's end. */
	if (codec->sending.kind == HTTP_FRAMING_UNTIL_CLOSE)
		codec->sending.kind = HTTP_FRAMING_CHUNKED;
	if (codec->sending.kind == HTTP_FRAMING_CHUNKED && leg->is_old) {
		codec->sending.kind = HTTP_FRAMING_UNTIL_CLOSE;
		codec->closes = true;
	}
	options.framing = codec->sending;
	if (leg->closes && status >= 200)
		codec->closes = true;
	options.closes = codec->closes && status >= 200;
	options.is_old = leg->is_old && !codec->closes;
	leg->upgrade = NULL;
	return http1_write_response(&codec->output, head, &options);
}

static int send_request(struct http1_codec *codec, const struct http_head *head)
{
	struct http1_options options = { .framing = codec->sending, .upgrade = codec->leg.upgrade };

	codec->to_head = http_text_is_exactly(http_head_method(head), "HEAD");
	options.accepts_trailers = codec->leg.accepts_trailers;
	codec->leg.upgrade = NULL;
	return http1_write_request(&codec->output, head, &options);
}

static int send_head(struct http_leg *leg, const struct http_head *head,
		     const struct http_framing *framing)
{
	struct http1_codec *codec = codec_of(leg);
	bool is_interim = codec->role == HTTP1_SERVER && http_head_status(head) < 200;
	int error;

	codec->sending = *framing;
	error = codec->role == HTTP1_SERVER ? send_response(codec, head)
					    : send_request(codec, head);
	if (error || is_interim)
		return send_failed(codec, error);
	codec->is_sending = true;
	if (codec->sending.kind == HTTP_FRAMING_NONE)
		sent(codec);
	return 0;
}

static size_t room(struct http_leg *leg)
{
	struct http1_codec *codec = codec_of(leg);
	size_t queued = byte_buffer_length(&codec->output);

	if (leg->send_failed || !codec->is_sending ||
	    queued + HTTP1_CHUNK_OVERHEAD >= OUTPUT_BODY_MAX)
		return 0;
	return OUTPUT_BODY_MAX - queued - HTTP1_CHUNK_OVERHEAD;
}

/* Writes to the transport what it takes at once, when nothing waits before it. */
static size_t write_directly(struct http1_codec *codec, const uint8_t *data, size_t length)
{
	size_t written = 0;
	ssize_t count = 1;

	if (byte_buffer_length(&codec->output) > 0 || codec->stream->awaits_write)
		return 0;
	/* TLS takes some records at a time. */
	while (written < length && count > 0) {
		count = stream_write(codec->stream, data + written, length - written);
		written += count > 0 ? (size_t)count : 0;
	}
	return written;
}

static int send_body(struct http_leg *leg, const uint8_t *data, size_t length)
{
	struct http1_codec *codec = codec_of(leg);
	size_t written;

	if (codec->sending.kind == HTTP_FRAMING_CHUNKED)
		return send_failed(codec, http1_write_chunk(&codec->output, data, length));
	if (codec->sending.kind == HTTP_FRAMING_LENGTH) {
		if (length > codec->sending.length)
			return send_failed(codec, -EMSGSIZE);
		codec->sending.length -= length;
	}
	written = write_directly(codec, data, length);
	return send_failed(codec,
			   byte_buffer_append(&codec->output, data + written, length - written));
}

static int send_end(struct http_leg *leg, const struct http_head *trailers)
{
	struct http1_codec *codec = codec_of(leg);
	int error = 0;

	if (!codec->is_sending)
		return 0;
	if (codec->sending.kind == HTTP_FRAMING_CHUNKED)
		error = http1_write_last_chunk(&codec->output, trailers);
	else if (codec->sending.kind == HTTP_FRAMING_LENGTH && codec->sending.length > 0)
		error = -EPIPE;
	sent(codec);
	return send_failed(codec, error);
}

static bool flush(struct http_leg *leg)
{
	struct http1_codec *codec = codec_of(leg);

	while (byte_buffer_length(&codec->output) > 0 && !leg->send_failed) {
		ssize_t count = stream_write(codec->stream, byte_buffer_front(&codec->output),
					     byte_buffer_length(&codec->output));

		if (count == -EAGAIN)
			return false;
		if (count < 0)
			(void)send_failed(codec, (int)count);
		else
			byte_buffer_consume(&codec->output, (size_t)count);
	}
	return true;
}

static void again(struct http_leg *leg)
{
	stream_poke(codec_of(leg)->stream);
}

/* ---- the connection ------------------------------------------------------------------------- */

static const struct http_leg_ops leg_ops = {
	.receive = receive,
	.skip_head = skip_head,
	.send_head = send_head,
	.room = room,
	.send_body = send_body,
	.send_end = send_end,
	.flush = flush,
	.again = again,
};

int http1_codec_init(struct http1_codec *codec, struct stream *stream, enum http1_role role)
{
	*codec = (struct http1_codec){ .stream = stream, .role = role };
	codec->leg.ops = &leg_ops;
	codec->leg.version = 1;
	codec->leg.head = http_head_new();
	if (!codec->leg.head)
		return -ENOMEM;
	byte_buffer_init(&codec->input, INPUT_MAX);
	byte_buffer_init(&codec->output, OUTPUT_MAX);
	http1_codec_next(codec);
	return 0;
}

void http1_codec_release(struct http1_codec *codec)
{
	http_head_free(codec->leg.head);
	codec->leg.head = NULL;
	http1_body_release(&codec->body);
	byte_buffer_release(&codec->input);
	byte_buffer_release(&codec->output);
}

void http1_codec_next(struct http1_codec *codec)
{
	struct http_leg *leg = &codec->leg;

	http1_body_release(&codec->body);
	http1_parser_init(&codec->parser,
			  codec->role == HTTP1_SERVER ? HTTP1_REQUEST : HTTP1_RESPONSE);
	http_head_clear(leg->head);
	leg->receiving = HTTP_RECEIVING_HEAD;
	leg->problem = NULL;
	leg->upgrade = NULL;
	leg->closes = false;
	leg->trailers = NULL;
	leg->framing = (struct http_framing){ 0 };
	codec->is_sending = false;
	codec->has_sent = false;
	codec->to_head = false;
	codec->has_received_any = byte_buffer_length(&codec->input) > 0;
}

void http1_codec_turn(struct http1_codec *codec)
{
	if (codec->leg.receiving == HTTP_RECEIVING_HEAD)
		receive_head(codec);
	(void)flush(&codec->leg);
	if (codec->leg.changed)
		codec->leg.changed(&codec->leg);
}

bool http1_codec_has_input(const struct http1_codec *codec)
{
	return codec->has_received_any || byte_buffer_length(&codec->input) > 0;
}

/* Behind an interim response the message's own is still to come, or another protocol. */
static bool has_received(const struct http1_codec *codec)
{
	return codec->leg.receiving == HTTP_RECEIVING_ENDED &&
	       (codec->role == HTTP1_SERVER || http_head_status(codec->leg.head) >= 200);
}

bool http1_codec_is_reusable(const struct http1_codec *codec)
{
	return !codec->closes && !codec->leg.send_failed && codec->has_sent &&
	       has_received(codec) && !codec->stream->failed && !codec->stream->read_ended;
}
