/*
 * HTTP/1 on one connection, in either role: carries one leg after another over a stream.
 *
 * The owner keeps the stream and calls http1_codec_turn() whenever it is ready. Messages are framed
 * anew: what was chunked is in other chunks, and a body whose end only the connection's end told is
 * chunked to those who know chunks.
 */
#ifndef PROXY_HTTP1_CODEC_H
#define PROXY_HTTP1_CODEC_H

#include "proxy/byte_buffer.h"
#include "proxy/http1_body.h"
#include "proxy/http1_parser.h"
#include "proxy/http_leg.h"
#include "proxy/stream.h"

#include <stdbool.h>

enum http1_role {
	HTTP1_SERVER, /* receives requests */
	HTTP1_CLIENT,
};

struct http1_codec {
	struct http_leg leg; /* first: the operations find the codec by it */
	struct stream *stream;
	enum http1_role role;
	struct byte_buffer input;
	struct byte_buffer output;
	struct http1_parser parser;
	struct http1_body body;
	struct http_framing sending;
	bool is_sending;       /* a head went out, the message's end has not */
	bool has_sent;	       /* the whole message went out */
	bool has_received_any; /* a byte of this message has come */
	bool closes;	       /* this connection carries no further message */
	bool to_head;	       /* client: the request was HEAD */
};

/* 0 or -ENOMEM. Borrows the stream. */
int http1_codec_init(struct http1_codec *codec, struct stream *stream, enum http1_role role);
void http1_codec_release(struct http1_codec *codec);

/* Begins with the next message in both directions: the leg is as new. */
void http1_codec_next(struct http1_codec *codec);

/* Reads and writes what can be; calls leg.changed at its end, as the last thing. */
void http1_codec_turn(struct http1_codec *codec);

/* Bytes have come for this message, or wait behind the last one. */
bool http1_codec_has_input(const struct http1_codec *codec);
/* Both messages of the leg are complete and the connection may carry another. */
bool http1_codec_is_reusable(const struct http1_codec *codec);

#endif
