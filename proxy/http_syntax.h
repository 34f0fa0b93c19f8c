/*
 * The characters of HTTP, and what the fields that say how a message ends mean. Shared by both
 * versions. Sources: RFC 9110 sections 5.5, 5.6.2 and 8.6, RFC 9112 section 6.
 */
#ifndef PROXY_HTTP_SYNTAX_H
#define PROXY_HTTP_SYNTAX_H

#include "proxy/http_head.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How the end of a body is found, whatever the version. */
enum http_framing_kind {
	HTTP_FRAMING_NONE,	  /* no body */
	HTTP_FRAMING_LENGTH,	  /* `length` bytes */
	HTTP_FRAMING_CHUNKED,	  /* ends by a message of its own: chunk 0, or END_STREAM */
	HTTP_FRAMING_UNTIL_CLOSE, /* HTTP/1 responses alone */
};

struct http_framing {
	enum http_framing_kind kind;
	bool has_length; /* `length` was said; of a response to HEAD or a 304 with kind NONE too */
	uint64_t length;
};

/* One or more tchar. */
bool http_is_token(const char *data, size_t length);
/* No control characters but tab, and no white space at either end. May be empty. */
bool http_is_field_value(const char *data, size_t length);
/* Printable ASCII without space and '#', at least one byte: a request target. */
bool http_is_target(const char *data, size_t length);
/* Digits alone, below 2^63. */
bool http_parse_length(struct http_text text, uint64_t *ret_length);

/* Content-Length of the head: 0 with *ret_has_length set, -EBADMSG for one that is no number or
 * for several that differ. */
int http_head_length(const struct http_head *head, bool *ret_has_length, uint64_t *ret_length);
/* Whether a field's list (all fields of that name taken together) has the element. */
bool http_head_lists(const struct http_head *head, const char *name, const char *element);

/* Drops the fields that concern one connection alone, and those that Connection names (RFC 9110
 * section 7.6.1), framing included; then Expect, which is answered by each leg for itself. */
void http_head_drop_connection_fields(struct http_head *head);

/* The usual words for a status, "" for an unknown one. */
const char *http_reason(unsigned status);

#endif
