/*
 * One stream of an HTTP/2 connection, as a leg. Between http2_codec.c, which knows the connection
 * and nghttp2's events, and http2_leg.c, which knows what they mean for a message; nobody else
 * looks in here.
 *
 * Events come in here by the functions below, none of which calls the leg's user: they mark it.
 */
#ifndef PROXY_HTTP2_LEG_H
#define PROXY_HTTP2_LEG_H

#include "proxy/byte_buffer.h"
#include "proxy/http2_codec.h"
#include "proxy/http_head.h"
#include "proxy/http_leg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a body that come before the user takes them. */
#define HTTP2_STREAM_WINDOW 262144u

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

static inline struct http2_leg *http2_leg_of(struct http_leg *leg)
{
	return (struct http2_leg *)leg;
}

/* In the codec's list. NULL without memory. */
struct http2_leg *http2_leg_new(struct http2_codec *codec);
/* When the user is done and the stream closed. */
void http2_leg_free(struct http2_leg *leg);

/* A head or trailers begin; a field of them; they are complete, and with `ends` the message is. The
 * first two: 0 or a negative errno, which ends the stream. */
int http2_leg_begin_head(struct http2_leg *leg);
int http2_leg_take_field(struct http2_leg *leg, struct http_text name, struct http_text value);
void http2_leg_end_head(struct http2_leg *leg, bool ends);
/* Bytes of the body were taken or given up: the peer may send as many more. */
void http2_leg_consume(struct http2_leg *leg, size_t length);
/* Nothing more comes, and nothing can be sent. `problem` is static. */
void http2_leg_fail(struct http2_leg *leg, const char *problem);

#endif
