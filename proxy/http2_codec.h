/*
 * HTTP/2 on one connection, in either role, by nghttp2: carries many legs at once over a stream.
 * Source: RFC 9113.
 *
 * nghttp2 keeps the protocol's own rules (pseudo-fields, connection fields, Content-Length against
 * DATA, flow control); a field that breaks them ends its stream, as does one that HTTP/1 could not
 * carry. Limits: HTTP2_STREAMS_MAX at once, heads of HTTP_HEAD_SIZE_MAX, no push, and the
 * library's limit on how fast streams are reset. A body waits in its own buffer until the leg's
 * user takes it, and only then is there window for more. Interim responses wait for the user to
 * skip them, HTTP2_INTERIM_MAX at most; more at once are left out, as RFC 9110 section 15.2 allows.
 */
#ifndef PROXY_HTTP2_CODEC_H
#define PROXY_HTTP2_CODEC_H

#include "proxy/byte_buffer.h"
#include "proxy/http_leg.h"
#include "proxy/stream.h"

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>

#define HTTP2_STREAMS_MAX 100u
#define HTTP2_INTERIM_MAX 4u

enum http2_role {
	HTTP2_SERVER, /* receives requests */
	HTTP2_CLIENT,
};

struct http2_leg;

struct http2_codec {
	struct stream *stream; /* borrowed */
	enum http2_role role;
	nghttp2_session *session;
	struct byte_buffer output;
	struct http2_leg *legs;
	size_t leg_count;
	bool is_over;  /* the connection carries nothing any more */
	bool is_ended; /* no new leg */
	/* Server: a request's head is complete; sets the leg's user and `changed`. */
	void (*accept)(void *user, struct http_leg *leg);
	void *user;
};

/* 0 or -ENOMEM. The preface goes out at the first turn. */
int http2_codec_init(struct http2_codec *codec, struct stream *stream, enum http2_role role);
/* Legs that are still there are gone. */
void http2_codec_release(struct http2_codec *codec);

/* Reads and writes what can be; calls `accept` and the legs' `changed`. */
void http2_codec_turn(struct http2_codec *codec);

/* Writes what can be; true when nothing is left. For legs. */
bool http2_codec_write(struct http2_codec *codec);

/* Client: a leg for another request. NULL without memory or when there is no stream for it. */
struct http_leg *http2_codec_open(struct http2_codec *codec);
bool http2_codec_has_room(const struct http2_codec *codec);
/* The user is done with the leg; what it sent still goes out. With `is_cut` the message is not
 * whole, and the peer is told so. */
void http2_leg_release(struct http_leg *leg, bool is_cut);
/* Bytes of a message have come. */
bool http2_leg_has_answered(const struct http_leg *leg);

#endif
