#include "proxy/http2_codec.h"

#include "base/checked.h"
#include "proxy/http2_leg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/*
 * Theory of operation. nghttp2's callbacks only note what came, in the leg that it is for, and mark
 * that leg; users are called afterwards, when the library is not on the stack, because they send
 * and reset. A turn goes on until no leg is marked and nothing more can be read or written.
 *
 * A leg lives until both its user has released it and its stream is closed, for what was sent may
 * still wait for the peer's window.
 */
#define CONNECTION_WINDOW (1 << 20)
#define OUTPUT_MAX (4u * HTTP_HEAD_SIZE_MAX)
#define OUTPUT_FULL 65536u
#define READ_SIZE 16384u
/* Streams, and those that were reset and whose users are not done yet. */
#define LEGS_MAX (2u * HTTP2_STREAMS_MAX)

/* ---- receiving ------------------------------------------------------------------------------ */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct http2_codec *codec = user;
	struct http2_leg *leg = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	if (codec->role == HTTP2_SERVER && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		leg = codec->leg_count < LEGS_MAX ? http2_leg_new(codec) : NULL;
		if (!leg)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		leg->stream_id = frame->hd.stream_id;
		nghttp2_session_set_stream_user_data(session, leg->stream_id, leg);
	}
	return leg && http2_leg_begin_head(leg) < 0 ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_length, const uint8_t *value, size_t length, uint8_t flags,
		     void *user)
{
	struct http2_leg *leg = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	const struct http_text name_text = { (const char *)name, name_length };
	const struct http_text value_text = { (const char *)value, length };

	(void)flags;
	(void)user;
	return leg && http2_leg_take_field(leg, name_text, value_text) < 0
		       ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
		       : 0;
}

/* The library would leave such a field out and go on. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
			     const uint8_t *name, size_t name_length, const uint8_t *value,
			     size_t length, uint8_t flags, void *user)
{
	(void)session;
	(void)frame;
	(void)name;
	(void)name_length;
	(void)value;
	(void)length;
	(void)flags;
	(void)user;
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct http2_codec *codec = user;
	struct http2_leg *leg = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

	if (frame->hd.type == NGHTTP2_GOAWAY)
		codec->is_ended = true;
	if (!leg || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
		return 0;
	if (frame->hd.type == NGHTTP2_HEADERS)
		http2_leg_end_head(leg, ends);
	leg->in_ended = leg->in_ended || ends;
	leg->is_marked = true;
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
		   size_t length, void *user)
{
	struct http2_leg *leg = nghttp2_session_get_stream_user_data(session, stream_id);

	(void)flags;
	(void)user;
	if (!leg || leg->is_released) {
		/* Nobody will take it, and it is to come to its end. */
		if (leg)
			(void)nghttp2_session_consume(session, stream_id, length);
		else
			(void)nghttp2_session_consume_connection(session, length);
		return 0;
	}
	leg->is_marked = true;
	/* No more comes than there is window for. */
	return byte_buffer_append(&leg->in, data, length) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_close(nghttp2_session *session, int32_t stream_id, uint32_t error, void *user)
{
	struct http2_leg *leg = nghttp2_session_get_stream_user_data(session, stream_id);

	(void)user;
	if (!leg)
		return 0;
	nghttp2_session_set_stream_user_data(session, stream_id, NULL);
	leg->is_closed = true;
	if (leg->is_released) {
		http2_leg_free(leg);
		return 0;
	}
	if (error != NGHTTP2_NO_ERROR || !leg->in_ended)
		http2_leg_fail(leg, "the stream was reset");
	if (!leg->out_ended || byte_buffer_length(&leg->out) > 0)
		leg->leg.send_failed = true;
	leg->is_marked = true;
	return 0;
}

/* ---- the connection ------------------------------------------------------------------------- */

bool http2_codec_write(struct http2_codec *codec)
{
	while (!codec->is_over) {
		const uint8_t *data;
		ssize_t length = 1;

		while (length > 0 && byte_buffer_length(&codec->output) < OUTPUT_FULL) {
			length = nghttp2_session_mem_send(codec->session, &data);
			if (length < 0 ||
			    byte_buffer_append(&codec->output, data, (size_t)length) < 0) {
				codec->is_over = true;
				return false;
			}
		}
		if (byte_buffer_length(&codec->output) == 0)
			return true;
		length = stream_write(codec->stream, byte_buffer_front(&codec->output),
				      byte_buffer_length(&codec->output));
		if (length == -EAGAIN)
			return false;
		if (length < 0) {
			codec->is_over = true;
			return false;
		}
		byte_buffer_consume(&codec->output, (size_t)length);
	}
	return false;
}

static int make_session(struct http2_codec *codec)
{
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	int result = -1;

	if (nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0) {
		nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks,
									on_begin_headers);
		nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
		nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks,
									 on_invalid_header);
		nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
		nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
		nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
		nghttp2_option_set_no_auto_window_update(option, 1);
		nghttp2_option_set_max_send_header_block_length(option, 2 * HTTP_HEAD_SIZE_MAX);
		result = codec->role == HTTP2_SERVER
				 ? nghttp2_session_server_new2(&codec->session, callbacks, codec,
							       option)
				 : nghttp2_session_client_new2(&codec->session, callbacks, codec,
							       option);
	}
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_option_del(option);
	return result ? -ENOMEM : 0;
}

int http2_codec_init(struct http2_codec *codec, struct stream *stream, enum http2_role role)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, HTTP2_STREAMS_MAX },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_HEAD_SIZE_MAX },
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
	};
	/* A server has no say in pushing. */
	size_t count = ARRAY_LENGTH(settings) - (role == HTTP2_SERVER ? 1 : 0);
	int error;

	*codec = (struct http2_codec){ .stream = stream, .role = role };
	byte_buffer_init(&codec->output, OUTPUT_MAX);
	error = make_session(codec);
	if (error)
		return error;
	if (nghttp2_submit_settings(codec->session, NGHTTP2_FLAG_NONE, settings, count) ||
	    nghttp2_session_set_local_window_size(codec->session, NGHTTP2_FLAG_NONE, 0,
						  CONNECTION_WINDOW)) {
		http2_codec_release(codec);
		return -ENOMEM;
	}
	return 0;
}

void http2_codec_release(struct http2_codec *codec)
{
	/* It calls nobody. */
	nghttp2_session_del(codec->session);
	codec->session = NULL;
	while (codec->legs)
		http2_leg_free(codec->legs);
	byte_buffer_release(&codec->output);
}

bool http2_codec_has_room(const struct http2_codec *codec)
{
	return !codec->is_over && !codec->is_ended && codec->leg_count < HTTP2_STREAMS_MAX &&
	       nghttp2_session_check_request_allowed(codec->session) != 0;
}

struct http_leg *http2_codec_open(struct http2_codec *codec)
{
	struct http2_leg *leg = http2_leg_new(codec);

	return leg ? &leg->leg : NULL;
}

void http2_leg_release(struct http_leg *base, bool is_cut)
{
	struct http2_leg *leg = http2_leg_of(base);
	struct http2_codec *codec = leg->codec;
	bool needs_more = !leg->in_ended || !leg->out_ended;

	leg->is_released = true;
	leg->is_marked = false;
	/* For what came before, as for what still comes, there is window again: on the stream too,
	 * whose end is to come. */
	http2_leg_consume(leg, byte_buffer_length(&leg->in));
	if (leg->is_closed || leg->stream_id < 0) {
		http2_leg_free(leg);
		return;
	}
	/* What the peer has yet to send is not wanted; what it has yet to get goes first. */
	if (needs_more && (is_cut || codec->role == HTTP2_CLIENT))
		(void)nghttp2_submit_rst_stream(codec->session, NGHTTP2_FLAG_NONE, leg->stream_id,
						is_cut ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_CANCEL);
	(void)http2_codec_write(codec);
}

bool http2_leg_has_answered(const struct http_leg *leg)
{
	return ((const struct http2_leg *)leg)->has_answered;
}

static void read_in(struct http2_codec *codec)
{
	uint8_t buffer[READ_SIZE];

	while (!codec->is_over && stream_can_read(codec->stream)) {
		ssize_t count = stream_read(codec->stream, buffer, sizeof(buffer));

		if (count == -EAGAIN)
			return;
		if (count <= 0 ||
		    nghttp2_session_mem_recv(codec->session, buffer, (size_t)count) != count)
			codec->is_over = true;
	}
}

static struct http2_leg *find_marked(struct http2_codec *codec)
{
	struct http2_leg *leg = codec->legs;

	while (leg && !leg->is_marked)
		leg = leg->next;
	return leg;
}

/* A request nobody knows of yet. */
static void take_in(struct http2_codec *codec, struct http2_leg *leg)
{
	if (leg->leg.receiving == HTTP_RECEIVING_FAILED || leg->leg.send_failed)
		http2_leg_release(&leg->leg, true);
	else if (leg->has_head)
		codec->accept(codec->user, &leg->leg);
}

/* True when there was one. */
static bool call_marked(struct http2_codec *codec)
{
	struct http2_leg *leg = find_marked(codec);
	bool was_any = leg != NULL;

	for (; leg; leg = find_marked(codec)) {
		leg->is_marked = false;
		if (leg->leg.changed)
			leg->leg.changed(&leg->leg);
		else if (codec->role == HTTP2_SERVER)
			take_in(codec, leg);
	}
	return was_any;
}

static void end_all(struct http2_codec *codec)
{
	struct http2_leg *leg = codec->legs;

	while (leg) {
		struct http2_leg *next = leg->next;

		if (leg->is_released) {
			http2_leg_free(leg);
		} else if (!leg->is_lost) {
			leg->is_lost = true;
			leg->is_closed = true;
			http2_leg_fail(leg, "the connection ended");
		}
		leg = next;
	}
}

void http2_codec_turn(struct http2_codec *codec)
{
	do {
		read_in(codec);
		if (!codec->is_over)
			(void)http2_codec_write(codec);
		if (!codec->is_over && !nghttp2_session_want_read(codec->session) &&
		    !nghttp2_session_want_write(codec->session))
			codec->is_over = true;
		if (codec->is_over)
			end_all(codec);
	} while (call_marked(codec));
}
