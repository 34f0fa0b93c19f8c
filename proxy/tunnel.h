/*
 * Bytes both ways between two streams, for what is not HTTP or no longer: after an upgrade, or by a
 * rule for other protocols. Each direction ends for itself.
 *
 * A screen, if there is one, sees all bytes before they go on, and can stop the tunnel: nothing
 * more goes through then, both sides get what was written and an end, and what they still send is
 * thrown away until they end too.
 */
#ifndef PROXY_TUNNEL_H
#define PROXY_TUNNEL_H

#include "proxy/byte_buffer.h"
#include "proxy/stream.h"

#include <stdbool.h>
#include <stdint.h>

#define TUNNEL_BUFFER_MAX 65536u

struct tunnel_screen {
	/* Appends to `out` what may go on of this and earlier bytes of that direction; it may add
	 * TUNNEL_SCREEN_SURPLUS bytes. Anything but 0 stops the tunnel. */
	int (*pass)(struct tunnel_screen *screen, bool from_guest, const uint8_t *data,
		    size_t length, struct byte_buffer *out);
	/* The tunnel was stopped: last words to either side. Or NULL. */
	void (*stop)(struct tunnel_screen *screen, struct byte_buffer *to_guest,
		     struct byte_buffer *to_server);
};

#define TUNNEL_SCREEN_SURPLUS 262144u

struct tunnel_direction {
	struct stream *from;
	struct stream *to;
	struct byte_buffer *early;
	struct byte_buffer output;
	bool ended; /* all bytes and the end are passed on */
	uint64_t moved;
	uint64_t discarded;
};

struct tunnel {
	struct tunnel_direction out; /* from the guest */
	struct tunnel_direction in;
	struct tunnel_screen *screen;
	bool failed;
	bool is_stopped; /* by the screen */
};

/* Borrows both streams, both buffers, in which bytes that were read before may wait, and the
 * screen, which may be NULL. */
void tunnel_init(struct tunnel *tunnel, struct stream *guest, struct byte_buffer *from_guest,
		 struct stream *server, struct byte_buffer *from_server,
		 struct tunnel_screen *screen);
/* Also of one that is all zero. */
void tunnel_release(struct tunnel *tunnel);
/* Moves what can be moved. False when it is over: both directions ended, or one failed. */
bool tunnel_turn(struct tunnel *tunnel);

#endif
