#include "proxy/http2_codec.h"

#include "base/checked.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
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
#define STREAM_WINDOW 262144u
#define CONNECTION_WINDOW (1 << 20)
#define OUT_MAX 65536u
#define OUTPUT_MAX (4u * HTTP_HEAD_SIZE_MAX)
#define OUTPUT_FULL 65536u
#define READ_SIZE 16384u
/* Streams, and those that were reset and whose users are not done yet. */
#define LEGS_MAX (2u * HTTP2_STREAMS_MAX)

struct http2_leg {
	struct http_leg leg; /* first: the operations find this by it */
	struct http2_codec *codec;
	int32_t stream_id; /* -1: no stream yet */
	struct byte_buffer in;
	struct byte_buffer out;
	struct http_head *coming; /* while its frames come */
	/* Complete, and behind leg.head, which is an interim one then. */
	struct http_head *waiting[HTTP2_INTERIM_MAX + 1];
	size_t waiting_count;
	bool has_head;	  /* the final head has come */
	bool head_ends;	  /* and the message with it */
	bool is_interim;  /* leg.head */
	bool in_ended;	  /* so has the end */
	bool out_ended;	  /* send_end() was called */
	bool is_closed;	  /* the stream is */
	bool is_lost;	  /* so is the connection, and the user was told */
	bool is_released; /* the user is done */
	bool is_marked;	  /* `changed` is to be called */
	bool has_answered;
	bool was_full;			 /* room() said none */
	struct http_head *sent_trailers; /* a copy */
	struct http2_leg *prev;
	struct http2_leg *next;
};

static struct http2_leg *leg_of(struct http_leg *leg)
{
	return (struct http2_leg *)leg;
}

static void drop_heads(struct http2_leg *leg)
{
	for (size_t i = 0; i < leg->waiting_count; i++)
		http_head_free(leg->waiting[i]);
	leg->waiting_count = 0;
	http_head_free(leg->coming);
	leg->coming = NULL;
}

static void free_leg(struct http2_leg *leg)
{
	DL_DELETE(leg->codec->legs, leg);
	leg->codec->leg_count--;
	drop_heads(leg);
	http_head_free(leg->leg.head);
	http_head_free(leg->leg.trailers);
	http_head_free(leg->sent_trailers);
	byte_buffer_release(&leg->in);
	byte_buffer_release(&leg->out);
	free(leg);
}

static void fail(struct http2_leg *leg, const char *problem)
{
	if (leg->leg.receiving != HTTP_RECEIVING_ENDED || leg->is_interim) {
		drop_heads(leg);
		leg->is_interim = false;
		leg->leg.receiving = HTTP_RECEIVING_FAILED;
		leg->leg.problem = problem;
	}
	leg->leg.send_failed = true;
	leg->is_marked = true;
}

/* ---- receiving ------------------------------------------------------------------------------ */

static bool is_interim(const struct http2_leg *leg, const struct http_head *head)
{
	return leg->codec->role == HTTP2_CLIENT && http_head_status(head) < 200;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct http2_codec *codec = user;
	struct http2_leg *leg = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	if (codec->role == HTTP2_SERVER && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		struct http_leg *fresh =
			codec->leg_count < LEGS_MAX ? http2_codec_open(codec) : NULL;

		if (!fresh)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		leg = leg_of(fresh);
		leg->stream_id = frame->hd.stream_id;
		nghttp2_session_set_stream_user_data(session, leg->stream_id, leg);
	}
	if (!leg)
		return 0;
	leg->has_answered = true;
	if (!leg->has_head && !leg->coming)
		leg->coming = http_head_new();
	if (leg->has_head && !leg->leg.trailers)
		leg->leg.trailers = http_head_new();
	return leg->has_head ? (leg->leg.trailers ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE)
			     : (leg->coming ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE);
}

/* Cookies come in crumbs (RFC 9113 section 8.2.3), which HTTP/1 knows not. */
static int add_field(struct http_head *head, const char *name, size_t name_length,
		     const char *value, size_t length)
{
	ssize_t index = name_length == 6 && memcmp(name, "cookie", 6) == 0
				? http_head_find(head, "cookie", 0)
				: -ENOENT;
	struct http_text before;
	char *joined;
	int error;

	if (index < 0)
		return http_head_add(head, name, name_length, value, length);
	before = http_head_field(head, (size_t)index).value;
	joined = malloc(before.length + length + 2);
	if (!joined)
		return -ENOMEM;
	memcpy(joined, before.data, before.length);
	memcpy(joined + before.length, "; ", 2);
	memcpy(joined + before.length + 2, value, length);
	error = http_head_replace(head, (size_t)index, joined, before.length + 2 + length, false);
	free(joined);
	return error;
}

static int set_pseudo(struct http2_leg *leg, const char *name, size_t name_length,
		      const char *value, size_t length)
{
	struct http_head *head = leg->coming;
	struct http_text text = { name, name_length };

	if (http_text_is_exactly(text, ":status")) {
		unsigned status = (unsigned)strtoul(value, NULL, 10);

		/* HTTP/2 has no upgrade (RFC 9113 section 8.6). */
		if (status == 101)
			return -EBADMSG;
		http_head_set_status(head, status);
		return 0;
	}
	if (http_text_is_exactly(text, ":method"))
		return http_is_token(value, length) ? http_head_set_method(head, value, length)
						    : -EBADMSG;
	if (http_text_is_exactly(text, ":scheme"))
		return http_head_set_scheme(head, value, length);
	if (http_text_is_exactly(text, ":authority"))
		return http_head_set_authority(head, value, length);
	if (http_text_is_exactly(text, ":path"))
		return http_is_target(value, length) ? http_head_set_path(head, value, length)
						     : -EBADMSG;
	return -EBADMSG;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_length, const uint8_t *value, size_t length, uint8_t flags,
		     void *user)
{
	struct http2_leg *leg = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	const char *name_text = (const char *)name;
	const char *text = (const char *)value;
	int error;

	(void)flags;
	(void)user;
	if (!leg)
		return 0;
	if (name_length > 0 && name[0] == ':')
		error = leg->has_head ? -EBADMSG
				      : set_pseudo(leg, name_text, name_length, text, length);
	else if (!http_is_token(name_text, name_length) || !http_is_field_value(text, length))
		error = -EBADMSG;
	else
		error = add_field(leg->has_head ? leg->leg.trailers : leg->coming, name_text,
				  name_length, text, length);
	return error ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
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

/* Lets the user see a complete head. */
static void show_head(struct http2_leg *leg, struct http_head *head)
{
	struct http_leg *base = &leg->leg;
	bool ends = leg->head_ends;

	base->head = head;
	leg->is_interim = is_interim(leg, head);
	if (leg->is_interim) {
		base->framing = (struct http_framing){ .kind = HTTP_FRAMING_NONE };
		base->receiving = HTTP_RECEIVING_ENDED;
		return;
	}
	if (http_head_length(base->head, &base->framing.has_length, &base->framing.length) < 0) {
		fail(leg, "a Content-Length that is no number, or several that differ");
		return;
	}
	if (ends)
		base->framing.kind = HTTP_FRAMING_NONE;
	else
		base->framing.kind = base->framing.has_length && base->framing.length > 0
					     ? HTTP_FRAMING_LENGTH
					     : HTTP_FRAMING_CHUNKED;
	base->accepts_trailers = http_head_lists(base->head, "te", "trailers");
	base->receiving = ends ? HTTP_RECEIVING_ENDED : HTTP_RECEIVING_BODY;
}

static void take_head(struct http2_leg *leg, bool ends)
{
	struct http_head *head = leg->coming;

	leg->coming = NULL;
	leg->has_head = !is_interim(leg, head);
	leg->head_ends = leg->has_head && ends;
	if (!leg->leg.head)
		show_head(leg, head);
	else if (leg->has_head || leg->waiting_count < HTTP2_INTERIM_MAX)
		leg->waiting[leg->waiting_count++] = head;
	else
		http_head_free(head);
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
	if (frame->hd.type == NGHTTP2_HEADERS && !leg->has_head && leg->coming)
		take_head(leg, ends);
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
		free_leg(leg);
		return 0;
	}
	if (error != NGHTTP2_NO_ERROR || !leg->in_ended)
		fail(leg, "the stream was reset");
	if (!leg->out_ended || byte_buffer_length(&leg->out) > 0)
		leg->leg.send_failed = true;
	leg->is_marked = true;
	return 0;
}

static void receive(struct http_leg *base, struct byte_buffer *out)
{
	struct http2_leg *leg = leg_of(base);
	size_t length = MIN_OF(byte_buffer_length(&leg->in), byte_buffer_room(out));

	if (base->receiving != HTTP_RECEIVING_BODY)
		return;
	if (byte_buffer_append(out, byte_buffer_front(&leg->in), length) < 0) {
		fail(leg, "out of memory");
		return;
	}
	byte_buffer_consume(&leg->in, length);
	if (length > 0 && !leg->is_closed)
		(void)nghttp2_session_consume(leg->codec->session, leg->stream_id, length);
	else if (length > 0)
		(void)nghttp2_session_consume_connection(leg->codec->session, length);
	if (leg->in_ended && byte_buffer_length(&leg->in) == 0)
		base->receiving = HTTP_RECEIVING_ENDED;
}

static void skip_head(struct http_leg *base)
{
	struct http2_leg *leg = leg_of(base);
	struct http_head *next = leg->waiting[0];

	http_head_free(base->head);
	base->head = NULL;
	leg->is_interim = false;
	base->receiving = HTTP_RECEIVING_HEAD;
	if (leg->waiting_count == 0)
		return;
	leg->waiting_count--;
	for (size_t i = 0; i < leg->waiting_count; i++)
		leg->waiting[i] = leg->waiting[i + 1];
	show_head(leg, next);
}

/* ---- sending -------------------------------------------------------------------------------- */

/* A head as nghttp2 wants it: names in lower case, in `names`; both are to be freed. */
struct fields {
	nghttp2_nv *list;
	size_t count;
	char *names;
	size_t names_used;
};

static void put_field(struct fields *fields, struct http_text name, struct http_text value,
		      bool is_sensitive)
{
	char *lower = fields->names + fields->names_used;

	for (size_t i = 0; i < name.length; i++)
		lower[i] = (char)tolower((unsigned char)name.data[i]);
	fields->names_used += name.length;
	fields->list[fields->count++] = (nghttp2_nv){
		.name = (uint8_t *)lower,
		.namelen = name.length,
		/* It copies, and never writes. */
		.value = (uint8_t *)(uintptr_t)value.data,
		.valuelen = value.length,
		.flags = is_sensitive ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE,
	};
}

#define PUT_LITERAL(fields, name, value)                                                           \
	put_field(fields, (struct http_text){ name, sizeof(name) - 1 }, value, false)

/* Room for every field of the head and `more` others, with names of at most 16 bytes. */
static int begin_fields(struct fields *fields, const struct http_head *head, size_t more)
{
	*fields = (struct fields){
		.list = calloc(http_head_field_count(head) + more, sizeof(nghttp2_nv)),
		.names = malloc(http_head_size(head) + 16 * more),
	};
	return fields->list && fields->names ? 0 : -ENOMEM;
}

static void put_all(struct fields *fields, const struct http_head *head)
{
	for (size_t i = 0; i < http_head_field_count(head); i++) {
		struct http_field field = http_head_field(head, i);

		put_field(fields, field.name, field.value, field.is_sensitive);
	}
}

static void end_fields(struct fields *fields)
{
	free(fields->list);
	free(fields->names);
}

static int submit_trailers(struct http2_leg *leg)
{
	struct fields fields;
	int error = begin_fields(&fields, leg->sent_trailers, 0);

	if (!error) {
		put_all(&fields, leg->sent_trailers);
		error = nghttp2_submit_trailer(leg->codec->session, leg->stream_id, fields.list,
					       fields.count);
	}
	end_fields(&fields);
	return error;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream_id, uint8_t *buffer,
			 size_t length, uint32_t *flags, nghttp2_data_source *source, void *user)
{
	struct http2_leg *leg = source->ptr;
	size_t taken = MIN_OF(length, byte_buffer_length(&leg->out));

	(void)session;
	(void)stream_id;
	(void)user;
	if (taken > 0)
		memcpy(buffer, byte_buffer_front(&leg->out), taken);
	byte_buffer_consume(&leg->out, taken);
	if (leg->was_full) {
		leg->was_full = false;
		leg->is_marked = true;
	}
	if (!leg->out_ended || byte_buffer_length(&leg->out) > 0)
		return taken > 0 ? (ssize_t)taken : NGHTTP2_ERR_DEFERRED;
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	if (leg->sent_trailers && submit_trailers(leg) == 0)
		*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
	return (ssize_t)taken;
}

/* A response that another one follows. */
static int submit_interim(struct http2_leg *leg, const struct fields *fields)
{
	return nghttp2_submit_headers(leg->codec->session, NGHTTP2_FLAG_NONE, leg->stream_id, NULL,
				      fields->list, fields->count, NULL) < 0
		       ? -EPIPE
		       : 0;
}

static int submit(struct http2_leg *leg, struct fields *fields, bool has_body)
{
	nghttp2_data_provider provider = { .source.ptr = leg, .read_callback = read_body };
	nghttp2_session *session = leg->codec->session;
	nghttp2_data_provider *body = has_body ? &provider : NULL;
	int32_t result;

	if (leg->codec->role == HTTP2_SERVER)
		return nghttp2_submit_response(session, leg->stream_id, fields->list, fields->count,
					       body)
			       ? -EPIPE
			       : 0;
	result = nghttp2_submit_request(session, NULL, fields->list, fields->count, body, leg);
	if (result < 0)
		return -EPIPE;
	leg->stream_id = result;
	return 0;
}

static int send_failed(struct http2_leg *leg, int error)
{
	if (error)
		leg->leg.send_failed = true;
	return error;
}

static int send_head(struct http_leg *base, const struct http_head *head,
		     const struct http_framing *framing)
{
	struct http2_leg *leg = leg_of(base);
	struct fields fields;
	char status[8];
	char length[24];
	int error;

	if (base->send_failed || leg->is_closed)
		return send_failed(leg, -EPIPE);
	error = begin_fields(&fields, head, 6);
	if (error) {
		end_fields(&fields);
		return send_failed(leg, error);
	}
	if (leg->codec->role == HTTP2_SERVER) {
		snprintf(status, sizeof(status), "%03u", http_head_status(head));
		PUT_LITERAL(&fields, ":status", ((struct http_text){ status, 3 }));
	} else {
		PUT_LITERAL(&fields, ":method", http_head_method(head));
		PUT_LITERAL(&fields, ":scheme", ((struct http_text){ "https", 5 }));
		PUT_LITERAL(&fields, ":authority", http_head_authority(head));
		PUT_LITERAL(&fields, ":path", http_head_path(head));
	}
	put_all(&fields, head);
	if (framing->has_length) {
		int digits = snprintf(length, sizeof(length), "%llu",
				      (unsigned long long)framing->length);

		PUT_LITERAL(&fields, "content-length",
			    ((struct http_text){ length, (size_t)digits }));
	}
	if (base->accepts_trailers && leg->codec->role == HTTP2_CLIENT)
		PUT_LITERAL(&fields, "te", ((struct http_text){ "trailers", 8 }));
	if (leg->codec->role == HTTP2_SERVER && http_head_status(head) < 200) {
		error = submit_interim(leg, &fields);
	} else {
		leg->out_ended = framing->kind == HTTP_FRAMING_NONE;
		error = submit(leg, &fields, !leg->out_ended);
	}
	end_fields(&fields);
	return send_failed(leg, error);
}

static size_t room(struct http_leg *base)
{
	struct http2_leg *leg = leg_of(base);
	size_t free_bytes = byte_buffer_room(&leg->out);

	if (base->send_failed || leg->out_ended)
		return 0;
	leg->was_full = free_bytes == 0;
	return free_bytes;
}

static int send_body(struct http_leg *base, const uint8_t *data, size_t length)
{
	struct http2_leg *leg = leg_of(base);
	int error = byte_buffer_append(&leg->out, data, length);

	if (!error && !leg->is_closed)
		(void)nghttp2_session_resume_data(leg->codec->session, leg->stream_id);
	return send_failed(leg, error);
}

/* They follow when the body's last byte has gone. */
static int copy_trailers(struct http2_leg *leg, const struct http_head *trailers)
{
	int error = 0;

	leg->sent_trailers = http_head_new();
	if (!leg->sent_trailers)
		return -ENOMEM;
	for (size_t i = 0; i < http_head_field_count(trailers) && !error; i++) {
		struct http_field field = http_head_field(trailers, i);

		error = http_head_add(leg->sent_trailers, field.name.data, field.name.length,
				      field.value.data, field.value.length);
	}
	return error;
}

static int send_end(struct http_leg *base, const struct http_head *trailers)
{
	struct http2_leg *leg = leg_of(base);
	int error = 0;

	if (leg->out_ended || base->send_failed)
		return base->send_failed ? -EPIPE : 0;
	if (leg->is_closed)
		return send_failed(leg, -EPIPE);
	if (trailers && http_head_field_count(trailers) > 0)
		error = copy_trailers(leg, trailers);
	leg->out_ended = true;
	(void)nghttp2_session_resume_data(leg->codec->session, leg->stream_id);
	return send_failed(leg, error);
}

/* ---- the connection ------------------------------------------------------------------------- */

static bool write_out(struct http2_codec *codec)
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

static bool flush(struct http_leg *base)
{
	struct http2_codec *codec = leg_of(base)->codec;

	return !codec->is_over && write_out(codec);
}

static void again(struct http_leg *base)
{
	leg_of(base)->is_marked = true;
	stream_poke(leg_of(base)->codec->stream);
}

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
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
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
		free_leg(codec->legs);
	byte_buffer_release(&codec->output);
}

bool http2_codec_has_room(const struct http2_codec *codec)
{
	return !codec->is_over && !codec->is_ended && codec->leg_count < HTTP2_STREAMS_MAX &&
	       nghttp2_session_check_request_allowed(codec->session) != 0;
}

struct http_leg *http2_codec_open(struct http2_codec *codec)
{
	struct http2_leg *leg = calloc(1, sizeof(*leg));

	if (!leg)
		return NULL;
	leg->codec = codec;
	leg->stream_id = -1;
	leg->leg.ops = &leg_ops;
	leg->leg.version = 2;
	byte_buffer_init(&leg->in, STREAM_WINDOW);
	byte_buffer_init(&leg->out, OUT_MAX);
	DL_APPEND(codec->legs, leg);
	codec->leg_count++;
	return &leg->leg;
}

void http2_leg_release(struct http_leg *base, bool is_cut)
{
	struct http2_leg *leg = leg_of(base);
	struct http2_codec *codec = leg->codec;
	bool needs_more = !leg->in_ended || !leg->out_ended;

	leg->is_released = true;
	leg->is_marked = false;
	if (byte_buffer_length(&leg->in) > 0)
		(void)nghttp2_session_consume_connection(codec->session,
							 byte_buffer_length(&leg->in));
	if (leg->is_closed || leg->stream_id < 0) {
		free_leg(leg);
		return;
	}
	/* What the peer has yet to send is not wanted; what it has yet to get goes first. */
	if (needs_more && (is_cut || codec->role == HTTP2_CLIENT))
		(void)nghttp2_submit_rst_stream(codec->session, NGHTTP2_FLAG_NONE, leg->stream_id,
						is_cut ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_CANCEL);
	(void)write_out(codec);
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
			free_leg(leg);
		} else if (!leg->is_lost) {
			leg->is_lost = true;
			leg->is_closed = true;
			fail(leg, "the connection ended");
		}
		leg = next;
	}
}

void http2_codec_turn(struct http2_codec *codec)
{
	do {
		read_in(codec);
		if (!codec->is_over)
			(void)write_out(codec);
		if (!codec->is_over && !nghttp2_session_want_read(codec->session) &&
		    !nghttp2_session_want_write(codec->session))
			codec->is_over = true;
		if (codec->is_over)
			end_all(codec);
	} while (call_marked(codec));
}
