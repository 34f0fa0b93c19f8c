/*
 * Heads as HTTP/2 carries them: fields one by one from nghttp2, and lists of fields for it.
 * Source: RFC 9113 section 8.
 */
#ifndef PROXY_HTTP2_HEAD_H
#define PROXY_HTTP2_HEAD_H

#include "proxy/http_head.h"
#include "proxy/http_syntax.h"

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>

/* Takes a field that came into the head, crumbs of a cookie into one field. 0; -EBADMSG for what
 * HTTP/1 could not carry, for status 101, and for pseudo-fields that are unknown or among trailers;
 * -E2BIG, -ENOMEM. */
int http2_head_take(struct http_head *head, bool is_trailers, struct http_text name,
		    struct http_text value);

/* What nghttp2 copies from. Not to be moved; borrows the values of its head. */
struct http2_fields {
	nghttp2_nv *list;
	size_t count;
	char *names; /* in lower case */
	size_t names_used;
	char status[8];
	char length[24];
};

/* Each: 0 or -ENOMEM, and then, too, what was made is to be released. A sensitive field is marked
 * as never to be indexed. The framing gives Content-Length where that was said. */
int http2_fields_of_request(struct http2_fields *fields, const struct http_head *head,
			    const struct http_framing *framing, bool accepts_trailers);
int http2_fields_of_response(struct http2_fields *fields, const struct http_head *head,
			     const struct http_framing *framing);
int http2_fields_of_trailers(struct http2_fields *fields, const struct http_head *trailers);
void http2_fields_release(struct http2_fields *fields);

#endif
