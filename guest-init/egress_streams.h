/*
 * The connections that egress carries, each between a TCP socket in the guest and a stream of the
 * host's: bytes both ways, ends of direction, resets.
 *
 * A side that takes nothing stops the other: at most EGRESS_HELD_MAX bytes of a direction wait
 * here, and an idle connection holds no buffer. What goes wrong is told by what TCP has: a stream
 * that cannot be made or breaks resets the guest's connection.
 */
#ifndef GUEST_INIT_EGRESS_STREAMS_H
#define GUEST_INIT_EGRESS_STREAMS_H

#include "base/event_loop.h"
#include "wire/egress.h"

#include <stdbool.h>

#define EGRESS_HELD_MAX 65536

/* Starts a connection to the host's `port`: a non-blocking socket, perhaps still connecting, or a
 * negative errno. */
typedef int (*egress_dial)(void *context, unsigned port);

struct egress_streams;

/* `loop` is borrowed. NULL without memory. */
struct egress_streams *egress_streams_new(struct event_loop *loop, egress_dial dial, void *context);
void egress_streams_free(struct egress_streams *streams);

/* A connection that a program in the guest made; takes the socket over. With NULL for `target` the
 * stream begins without a hello. */
void egress_streams_out(struct egress_streams *streams, int tcp, unsigned port,
			const struct egress_target *target);
/* A stream that the host made, before its hello was read; takes the socket over. */
void egress_streams_in(struct egress_streams *streams, int stream);

/* Whether some have more to move now, with no event to wait for; egress_streams_turn() goes on. */
bool egress_streams_are_busy(const struct egress_streams *streams);
void egress_streams_turn(struct egress_streams *streams);

#endif
