/*
 * Bytes both ways between two streams, for what is not HTTP or no longer: after an upgrade, or by a
 * rule for other protocols. Each direction ends for itself.
 */
#ifndef PROXY_TUNNEL_H
#define PROXY_TUNNEL_H

#include "proxy/body_filter.h"
#include "proxy/byte_buffer.h"
#include "proxy/stream.h"

#include <stdbool.h>
#include <stdint.h>

#define TUNNEL_BUFFER_MAX 65536u

struct tunnel_direction {
	struct stream *from;
	struct stream *to;
	struct byte_buffer *buffer;
	struct body_filter *filter; /* borrowed, or NULL: what all bytes go through */
	bool ended;		    /* all bytes and the end are passed on */
	uint64_t moved;
};

struct tunnel {
	struct tunnel_direction out; /* from the guest */
	struct tunnel_direction in;
	bool failed;
};

/* Borrows both streams, and both buffers, in which bytes that were read before may wait. */
void tunnel_init(struct tunnel *tunnel, struct stream *guest, struct byte_buffer *from_guest,
		 struct stream *server, struct byte_buffer *from_server);
/* Sends what comes from the server through a filter that blocks nothing and outlives the tunnel,
 * what waits already included. False when that failed, and the tunnel cannot begin. */
bool tunnel_filter_in(struct tunnel *tunnel, struct body_filter *filter);
/* Moves what can be moved. False when it is over: both directions ended, or one failed. */
bool tunnel_turn(struct tunnel *tunnel);

#endif
