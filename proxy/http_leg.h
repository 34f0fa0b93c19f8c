/*
 * One end of one request and its response: the guest's, where the request is received and the
 * response sent, or the server's, where it is the other way round. Whatever version of HTTP carries
 * it gives the operations below (http1_codec.h), and exchange.h uses two legs.
 *
 * Nothing here blocks and nothing is queued beyond fixed buffers: who receives takes what there is,
 * who sends asks for room first. Whenever something may have changed, the codec calls `changed`;
 * inside that the leg may be given up.
 */
#ifndef PROXY_HTTP_LEG_H
#define PROXY_HTTP_LEG_H

#include "proxy/byte_buffer.h"
#include "proxy/http_head.h"
#include "proxy/http_syntax.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_leg;

enum http_receiving {
	HTTP_RECEIVING_HEAD,   /* not there yet */
	HTTP_RECEIVING_BODY,   /* `head` and `framing` are there */
	HTTP_RECEIVING_ENDED,  /* so are the whole body and `trailers` */
	HTTP_RECEIVING_FAILED, /* `problem` says why; nothing more comes */
};

struct http_leg_ops {
	/* Appends to `out` what has come of the body, as far as there is room, and moves
	 * `receiving` on. */
	void (*receive)(struct http_leg *leg, struct byte_buffer *out);
	/* The head that was received was an interim response: the next one is wanted. */
	void (*skip_head)(struct http_leg *leg);
	/* Sends a head without connection fields. With kind NONE the message ends with it, but for
	 * interim responses. 0 or a negative errno, after which sending has failed. */
	int (*send_head)(struct http_leg *leg, const struct http_head *head,
			 const struct http_framing *framing);
	/* How many bytes of body send_body() takes now. */
	size_t (*room)(struct http_leg *leg);
	int (*send_body)(struct http_leg *leg, const uint8_t *data, size_t length);
	/* The end of a body with kind CHUNKED or LENGTH; `trailers` may be NULL. */
	int (*send_end)(struct http_leg *leg, const struct http_head *trailers);
	/* Hands what is queued to the transport; true when nothing is left. */
	bool (*flush)(struct http_leg *leg);
	/* Sees to it that `changed` is called again, from the loop, though nothing came. */
	void (*again)(struct http_leg *leg);
};

struct http_leg {
	const struct http_leg_ops *ops;
	void (*changed)(struct http_leg *leg); /* set by the user */
	void *user;			       /* the same */
	enum http_receiving receiving;
	const char *problem;	    /* static */
	struct http_head *head;	    /* received; the codec's */
	struct http_head *trailers; /* the same; NULL when there are none */
	struct http_framing framing;
	const char *upgrade; /* set by the user: the next head says Upgrade with this; static */
	bool closes; /* set by the user before a head: the connection ends with the message */
	bool send_failed;
	bool is_old;	       /* no interim responses and no upgrade: the peer speaks HTTP/1.0 */
	bool accepts_trailers; /* received: TE: trailers; set by the user: the next head says so */
	unsigned version;      /* of the codec: 1 or 2 */
};

#endif
