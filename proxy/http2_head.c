#include "proxy/http2_head.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- receiving ------------------------------------------------------------------------------ */

/* Cookies come in crumbs (RFC 9113 section 8.2.3), which HTTP/1 knows not. */
static int add_field(struct http_head *head, struct http_text name, struct http_text value)
{
	ssize_t index =
		http_text_is_exactly(name, "cookie") ? http_head_find(head, "cookie", 0) : -ENOENT;
	struct http_text before;
	char *joined;
	int error;

	if (index < 0)
		return http_head_add(head, name.data, name.length, value.data, value.length);
	before = http_head_field(head, (size_t)index).value;
	joined = malloc(before.length + value.length + 2);
	if (!joined)
		return -ENOMEM;
	memcpy(joined, before.data, before.length);
	memcpy(joined + before.length, "; ", 2);
	memcpy(joined + before.length + 2, value.data, value.length);
	error = http_head_replace(head, (size_t)index, joined, before.length + 2 + value.length,
				  false);
	free(joined);
	return error;
}

static int set_status(struct http_head *head, struct http_text value)
{
	uint64_t status;

	/* HTTP/2 has no upgrade (RFC 9113 section 8.6). */
	if (value.length != 3 || !http_parse_length(value, &status) || status == 101)
		return -EBADMSG;
	http_head_set_status(head, (unsigned)status);
	return 0;
}

static int set_pseudo(struct http_head *head, struct http_text name, struct http_text value)
{
	if (http_text_is_exactly(name, ":status"))
		return set_status(head, value);
	if (http_text_is_exactly(name, ":method"))
		return http_is_token(value.data, value.length)
			       ? http_head_set_method(head, value.data, value.length)
			       : -EBADMSG;
	if (http_text_is_exactly(name, ":scheme"))
		return http_head_set_scheme(head, value.data, value.length);
	if (http_text_is_exactly(name, ":authority"))
		return http_head_set_authority(head, value.data, value.length);
	if (http_text_is_exactly(name, ":path"))
		return http_is_target(value.data, value.length)
			       ? http_head_set_path(head, value.data, value.length)
			       : -EBADMSG;
	return -EBADMSG;
}

int http2_head_take(struct http_head *head, bool is_trailers, struct http_text name,
		    struct http_text value)
{
	if (name.length > 0 && name.data[0] == ':')
		return is_trailers ? -EBADMSG : set_pseudo(head, name, value);
	if (!http_is_token(name.data, name.length) ||
	    !http_is_field_value(value.data, value.length))
		return -EBADMSG;
	return add_field(head, name, value);
}

/* ---- sending -------------------------------------------------------------------------------- */

#define ADDED_NAME_MAX 16u /* bytes of a name that is added here */

static void put_field(struct http2_fields *fields, struct http_text name, struct http_text value,
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

/* Room for every field of the head and `more` others. */
static int begin(struct http2_fields *fields, const struct http_head *head, size_t more)
{
	*fields = (struct http2_fields){
		.list = calloc(http_head_field_count(head) + more, sizeof(nghttp2_nv)),
		.names = malloc(http_head_size(head) + ADDED_NAME_MAX * more),
	};
	return fields->list && fields->names ? 0 : -ENOMEM;
}

static void put_all(struct http2_fields *fields, const struct http_head *head)
{
	for (size_t i = 0; i < http_head_field_count(head); i++) {
		struct http_field field = http_head_field(head, i);

		put_field(fields, field.name, field.value, field.is_sensitive);
	}
}

static void put_length(struct http2_fields *fields, const struct http_framing *framing)
{
	int digits;

	if (!framing->has_length)
		return;
	digits = snprintf(fields->length, sizeof(fields->length), "%llu",
			  (unsigned long long)framing->length);
	PUT_LITERAL(fields, "content-length",
		    ((struct http_text){ fields->length, (size_t)digits }));
}

int http2_fields_of_request(struct http2_fields *fields, const struct http_head *head,
			    const struct http_framing *framing, bool accepts_trailers)
{
	if (begin(fields, head, 6) < 0)
		return -ENOMEM;
	PUT_LITERAL(fields, ":method", http_head_method(head));
	PUT_LITERAL(fields, ":scheme", ((struct http_text){ "https", 5 }));
	PUT_LITERAL(fields, ":authority", http_head_authority(head));
	PUT_LITERAL(fields, ":path", http_head_path(head));
	put_all(fields, head);
	put_length(fields, framing);
	if (accepts_trailers)
		PUT_LITERAL(fields, "te", ((struct http_text){ "trailers", 8 }));
	return 0;
}

int http2_fields_of_response(struct http2_fields *fields, const struct http_head *head,
			     const struct http_framing *framing)
{
	if (begin(fields, head, 2) < 0)
		return -ENOMEM;
	snprintf(fields->status, sizeof(fields->status), "%03u", http_head_status(head));
	PUT_LITERAL(fields, ":status", ((struct http_text){ fields->status, 3 }));
	put_all(fields, head);
	put_length(fields, framing);
	return 0;
}

int http2_fields_of_trailers(struct http2_fields *fields, const struct http_head *trailers)
{
	if (begin(fields, trailers, 0) < 0)
		return -ENOMEM;
	put_all(fields, trailers);
	return 0;
}

void http2_fields_release(struct http2_fields *fields)
{
	free(fields->list);
	free(fields->names);
	*fields = (struct http2_fields){ 0 };
}
