#include "proxy/http2_leg.h"

#include "base/checked.h"
#include "proxy/http2_head.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define OUT_MAX 65536u

static void drop_heads(struct http2_leg *leg)
{
	for (size_t i = 0; i < leg->waiting_count; i++)
		http_head_free(leg->waiting[i]);
	leg->waiting_count = 0;
	http_head_free(leg->coming);
	leg->coming = NULL;
}

void http2_leg_fail(struct http2_leg *leg, const char *problem)
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
		http2_leg_fail(leg, "a Content-Length that is no number, or several that differ");
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

int http2_leg_begin_head(struct http2_leg *leg)
{
	struct http_head **head = leg->has_head ? &leg->leg.trailers : &leg->coming;

	leg->has_answered = true;
	if (!*head)
		*head = http_head_new();
	return *head ? 0 : -ENOMEM;
}

int http2_leg_take_field(struct http2_leg *leg, struct http_text name, struct http_text value)
{
	return http2_head_take(leg->has_head ? leg->leg.trailers : leg->coming, leg->has_head, name,
			       value);
}

void http2_leg_end_head(struct http2_leg *leg, bool ends)
{
	struct http_head *head = leg->coming;

	if (leg->has_head || !head)
		return;
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

void http2_leg_consume(struct http2_leg *leg, size_t length)
{
	if (length > 0 && !leg->is_closed)
		(void)nghttp2_session_consume(leg->codec->session, leg->stream_id, length);
	else if (length > 0)
		(void)nghttp2_session_consume_connection(leg->codec->session, length);
}

static void receive(struct http_leg *base, struct byte_buffer *out)
{
	struct http2_leg *leg = http2_leg_of(base);
	size_t length = MIN_OF(byte_buffer_length(&leg->in), byte_buffer_room(out));

	if (base->receiving != HTTP_RECEIVING_BODY)
		return;
	if (byte_buffer_append(out, byte_buffer_front(&leg->in), length) < 0) {
		http2_leg_fail(leg, "out of memory");
		return;
	}
	byte_buffer_consume(&leg->in, length);
	http2_leg_consume(leg, length);
	if (leg->in_ended && byte_buffer_length(&leg->in) == 0)
		base->receiving = HTTP_RECEIVING_ENDED;
}

static void skip_head(struct http_leg *base)
{
	struct http2_leg *leg = http2_leg_of(base);
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

static int submit_trailers(struct http2_leg *leg)
{
	struct http2_fields fields;
	int error = http2_fields_of_trailers(&fields, leg->sent_trailers);

	if (!error)
		error = nghttp2_submit_trailer(leg->codec->session, leg->stream_id, fields.list,
					       fields.count);
	http2_fields_release(&fields);
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
static int submit_interim(struct http2_leg *leg, const struct http2_fields *fields)
{
	return nghttp2_submit_headers(leg->codec->session, NGHTTP2_FLAG_NONE, leg->stream_id, NULL,
				      fields->list, fields->count, NULL) < 0
		       ? -EPIPE
		       : 0;
}

static int submit(struct http2_leg *leg, struct http2_fields *fields, bool has_body)
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
	struct http2_leg *leg = http2_leg_of(base);
	struct http2_fields fields;
	int error;

	if (base->send_failed || leg->is_closed)
		return send_failed(leg, -EPIPE);
	error = leg->codec->role == HTTP2_SERVER
			? http2_fields_of_response(&fields, head, framing)
			: http2_fields_of_request(&fields, head, framing, base->accepts_trailers);
	if (!error && leg->codec->role == HTTP2_SERVER && http_head_status(head) < 200) {
		error = submit_interim(leg, &fields);
	} else if (!error) {
		leg->out_ended = framing->kind == HTTP_FRAMING_NONE;
		error = submit(leg, &fields, !leg->out_ended);
	}
	http2_fields_release(&fields);
	return send_failed(leg, error);
}

static size_t room(struct http_leg *base)
{
	struct http2_leg *leg = http2_leg_of(base);
	size_t free_bytes = byte_buffer_room(&leg->out);

	if (base->send_failed || leg->out_ended)
		return 0;
	leg->was_full = free_bytes == 0;
	return free_bytes;
}

static int send_body(struct http_leg *base, const uint8_t *data, size_t length)
{
	struct http2_leg *leg = http2_leg_of(base);
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
	struct http2_leg *leg = http2_leg_of(base);
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

static bool flush(struct http_leg *base)
{
	struct http2_codec *codec = http2_leg_of(base)->codec;

	return !codec->is_over && http2_codec_write(codec);
}

static void again(struct http_leg *base)
{
	http2_leg_of(base)->is_marked = true;
	stream_poke(http2_leg_of(base)->codec->stream);
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

/* ---- lifetime ------------------------------------------------------------------------------- */

struct http2_leg *http2_leg_new(struct http2_codec *codec)
{
	struct http2_leg *leg = calloc(1, sizeof(*leg));

	if (!leg)
		return NULL;
	leg->codec = codec;
	leg->stream_id = -1;
	leg->leg.ops = &leg_ops;
	leg->leg.version = 2;
	byte_buffer_init(&leg->in, HTTP2_STREAM_WINDOW);
	byte_buffer_init(&leg->out, OUT_MAX);
	DL_APPEND(codec->legs, leg);
	codec->leg_count++;
	return leg;
}

void http2_leg_free(struct http2_leg *leg)
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
