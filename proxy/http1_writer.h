/*
 * Writes HTTP/1.1 messages anew from what was parsed: nothing of the original's spelling but names
 * and values of fields goes on. Source: RFC 9112.
 */
#ifndef PROXY_HTTP1_WRITER_H
#define PROXY_HTTP1_WRITER_H

#include "proxy/byte_buffer.h"
#include "proxy/http_head.h"
#include "proxy/http_syntax.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The line before a chunk and the CR LF behind it take no more. */
#define HTTP1_CHUNK_OVERHEAD 20u

/* What the writer adds to a head that has no connection fields (http_head_drop_connection_fields).
 */
struct http1_options {
	struct http_framing framing;
	bool closes;	       /* Connection: close */
	bool is_old;	       /* the peer speaks HTTP/1.0: say keep-alive where it stays open */
	bool accepts_trailers; /* TE: trailers */
	const char *upgrade;   /* Upgrade: this, or NULL */
};

/* Each appends everything or nothing: 0, -ENOBUFS or -ENOMEM. A request is written in origin-form,
 * with its authority as the Host. */
int http1_write_request(struct byte_buffer *out, const struct http_head *head,
			const struct http1_options *options);
int http1_write_response(struct byte_buffer *out, const struct http_head *head,
			 const struct http1_options *options);
/* One chunk around `length` > 0 bytes. */
int http1_write_chunk(struct byte_buffer *out, const uint8_t *data, size_t length);
/* The last chunk; `trailers` may be NULL. */
int http1_write_last_chunk(struct byte_buffer *out, const struct http_head *trailers);

#endif
