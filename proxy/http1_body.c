#include "proxy/http1_body.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>

void http1_body_begin(struct http1_body *body, const struct http_framing *framing)
{
	*body = (struct http1_body){ .state = HTTP1_BODY_ENDED };
	switch (framing->kind) {
	case HTTP_FRAMING_NONE:
		break;
	case HTTP_FRAMING_LENGTH:
		body->remaining = framing->length;
		if (body->remaining > 0)
			body->state = HTTP1_BODY_DATA;
		break;
	case HTTP_FRAMING_CHUNKED:
		body->is_chunked = true;
		body->state = HTTP1_BODY_SIZE_LINE;
		break;
	case HTTP_FRAMING_UNTIL_CLOSE:
		body->state = HTTP1_BODY_UNTIL_CLOSE;
		break;
	}
}

void http1_body_release(struct http1_body *body)
{
	http_head_free(body->trailers);
	*body = (struct http1_body){ .state = HTTP1_BODY_ENDED };
}

static ssize_t bad(const char *problem, const char **ret_problem)
{
	*ret_problem = problem;
	return -EBADMSG;
}

/* ---- chunks --------------------------------------------------------------------------------- */

static int hex_digit(uint8_t byte)
{
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	if (byte >= 'a' && byte <= 'f')
		return byte - 'a' + 10;
	if (byte >= 'A' && byte <= 'F')
		return byte - 'A' + 10;
	return -1;
}

/* The end of the size line (its CR), 0 while that is not known, or -EBADMSG. */
static ssize_t find_line_end(const uint8_t *data, size_t length)
{
	size_t seen = MIN_OF(length, HTTP1_SIZE_LINE_MAX);

	for (size_t i = 0; i < seen; i++) {
		if (data[i] == '\r') {
			if (i + 1 == length)
				return 0;
			return data[i + 1] == '\n' && i > 0 ? (ssize_t)i : -EBADMSG;
		}
		if ((data[i] < 0x20 && data[i] != '\t') || data[i] == 0x7f)
			return -EBADMSG;
	}
	return length >= HTTP1_SIZE_LINE_MAX ? -EBADMSG : 0;
}

static ssize_t decode_size_line(struct http1_body *body, const uint8_t *data, size_t length,
				const char **ret_problem)
{
	ssize_t end = find_line_end(data, length);
	uint64_t size = 0;
	ssize_t digits = 0;

	if (end < 0)
		return bad("a chunk size line that is malformed or too long", ret_problem);
	while (digits < end && hex_digit(data[digits]) >= 0) {
		if (size > INT64_MAX >> 4)
			return bad("a chunk that is too large", ret_problem);
		size = size << 4 | (uint64_t)hex_digit(data[digits]);
		digits++;
	}
	if (end == 0)
		return 0;
	if (digits == 0 || (digits < end && data[digits] != ';'))
		return bad("a chunk size that is no number", ret_problem);
	body->extensions += (size_t)(end - digits);
	if (body->extensions > HTTP1_EXTENSIONS_MAX)
		return bad("too many chunk extensions", ret_problem);
	body->remaining = size;
	body->state = size > 0 ? HTTP1_BODY_DATA : HTTP1_BODY_TRAILERS;
	if (size == 0)
		http1_parser_init(&body->trailer_parser, HTTP1_TRAILERS);
	return end + 2;
}

static ssize_t decode_chunk_end(struct http1_body *body, const uint8_t *data, size_t length,
				const char **ret_problem)
{
	if (data[0] != '\r' || (length > 1 && data[1] != '\n'))
		return bad("a chunk that is longer than its size", ret_problem);
	if (length < 2)
		return 0;
	body->state = HTTP1_BODY_SIZE_LINE;
	return 2;
}

/* ---- trailers ------------------------------------------------------------------------------- */

static bool is_allowed_trailer(struct http_text name)
{
	static const char *const forbidden[] = {
		"content-length",
		"transfer-encoding",
		"host",
		"connection",
		"trailer",
		"te",
		"upgrade",
		"expect",
		"authorization",
		"proxy-authorization",
		"cookie",
		"set-cookie",
		"content-encoding",
		"content-type",
		"content-range",
		"location",
	};

	for (size_t i = 0; i < ARRAY_LENGTH(forbidden); i++) {
		if (http_text_is(name, forbidden[i]))
			return false;
	}
	return true;
}

static ssize_t decode_trailers(struct http1_body *body, const uint8_t *data, size_t length,
			       const char **ret_problem)
{
	ssize_t consumed;

	if (length >= 2 && data[0] == '\r' && data[1] == '\n' && !body->trailers) {
		body->state = HTTP1_BODY_ENDED;
		return 2;
	}
	if (!body->trailers)
		body->trailers = http_head_new();
	if (!body->trailers) {
		*ret_problem = "out of memory";
		return -ENOMEM;
	}
	consumed = http1_parse(&body->trailer_parser, data, length, body->trailers, ret_problem);
	if (consumed == -E2BIG || (consumed == 0 && length >= HTTP1_TRAILERS_MAX))
		return bad("trailers that are too long", ret_problem);
	if (consumed <= 0)
		return consumed;
	for (size_t i = 0; i < http_head_field_count(body->trailers); i++) {
		if (!is_allowed_trailer(http_head_field(body->trailers, i).name))
			return bad("a trailer field that only a head may have", ret_problem);
	}
	body->state = HTTP1_BODY_ENDED;
	return consumed;
}

/* ---- all ------------------------------------------------------------------------------------ */

void http1_body_count(struct http1_body *body, size_t length)
{
	if (body->state != HTTP1_BODY_DATA)
		return;
	body->remaining -= length;
	if (body->remaining == 0)
		body->state = body->is_chunked ? HTTP1_BODY_CHUNK_END : HTTP1_BODY_ENDED;
}

static ssize_t decode_data(struct http1_body *body, const uint8_t *data, size_t length,
			   struct byte_buffer *out, const char **ret_problem)
{
	size_t taken = MIN_OF(length, byte_buffer_room(out));

	if (body->state == HTTP1_BODY_DATA)
		taken = (size_t)MIN_OF((uint64_t)taken, body->remaining);
	if (byte_buffer_append(out, data, taken) < 0) {
		*ret_problem = "out of memory";
		return -ENOMEM;
	}
	http1_body_count(body, taken);
	return (ssize_t)taken;
}

static ssize_t decode_step(struct http1_body *body, const uint8_t *data, size_t length,
			   struct byte_buffer *out, const char **ret_problem)
{
	switch (body->state) {
	case HTTP1_BODY_DATA:
	case HTTP1_BODY_UNTIL_CLOSE:
		return decode_data(body, data, length, out, ret_problem);
	case HTTP1_BODY_SIZE_LINE:
		return decode_size_line(body, data, length, ret_problem);
	case HTTP1_BODY_CHUNK_END:
		return decode_chunk_end(body, data, length, ret_problem);
	case HTTP1_BODY_TRAILERS:
		return decode_trailers(body, data, length, ret_problem);
	case HTTP1_BODY_ENDED:
		break;
	}
	return 0;
}

ssize_t http1_body_decode(struct http1_body *body, const uint8_t *data, size_t length,
			  struct byte_buffer *out, const char **ret_problem)
{
	size_t consumed = 0;

	while (consumed < length) {
		ssize_t step =
			decode_step(body, data + consumed, length - consumed, out, ret_problem);

		if (step < 0)
			return step;
		if (step == 0)
			break;
		consumed += (size_t)step;
	}
	return (ssize_t)consumed;
}

bool http1_body_close(struct http1_body *body)
{
	if (body->state == HTTP1_BODY_UNTIL_CLOSE)
		body->state = HTTP1_BODY_ENDED;
	return body->state == HTTP1_BODY_ENDED;
}
