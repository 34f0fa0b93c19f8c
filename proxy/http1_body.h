/*
 * Bodies of HTTP/1 messages as they arrive: by Content-Length, chunked or until the connection
 * closes. Source: RFC 9112 sections 6 and 7.
 *
 * Chunk extensions are dropped; a body may carry HTTP1_EXTENSIONS_MAX bytes of them in all, so that
 * nobody hides a flood in them. Trailer fields that would say something about framing, routing or
 * credentials are an error (RFC 9110 section 6.5.1).
 */
#ifndef PROXY_HTTP1_BODY_H
#define PROXY_HTTP1_BODY_H

#include "proxy/byte_buffer.h"
#include "proxy/http1_parser.h"

#include <stdbool.h>
#include <stdint.h>

#define HTTP1_EXTENSIONS_MAX 4096u
#define HTTP1_SIZE_LINE_MAX 1024u
#define HTTP1_TRAILERS_MAX 16384u

enum http1_body_state {
	HTTP1_BODY_DATA,      /* `remaining` bytes, of the body or of a chunk */
	HTTP1_BODY_SIZE_LINE, /* the line before a chunk */
	HTTP1_BODY_CHUNK_END, /* the CR LF behind one */
	HTTP1_BODY_TRAILERS,
	HTTP1_BODY_UNTIL_CLOSE,
	HTTP1_BODY_ENDED,
};

struct http1_body {
	enum http1_body_state state;
	bool is_chunked;
	uint64_t remaining;
	size_t extensions; /* bytes so far */
	struct http1_parser trailer_parser;
	struct http_head *trailers; /* owned; NULL when there are none */
};

void http1_body_begin(struct http1_body *body, const struct http_framing *framing);
void http1_body_release(struct http1_body *body);

/* Takes what it can of `data`, appending the body's own bytes to `out` as far as that has room.
 * Returns the bytes consumed, which may be 0: more is needed, `out` is full, or the state is ENDED.
 * -EBADMSG or -ENOMEM with *ret_problem. Data that was not consumed comes again, at the front. */
ssize_t http1_body_decode(struct http1_body *body, const uint8_t *data, size_t length,
			  struct byte_buffer *out, const char **ret_problem);

/* Counts `length` bytes, at least one and not beyond the body, that came without framing and went
 * where they belong without passing through here; in the states DATA and UNTIL_CLOSE. */
void http1_body_count(struct http1_body *body, size_t length);

/* The connection ended: true when the body may end there, and it has. */
bool http1_body_close(struct http1_body *body);

#endif
