/*
 * The TLS handshake of a guest's connection (tls.h): its ClientHello is judged, and a server is
 * connected first where one may be, so that the guest's client learns what the server speaks. A
 * name that is refused gets a handshake with the broker, for an answer of the broker's own.
 */
#ifndef PROXY_GUEST_HANDSHAKE_H
#define PROXY_GUEST_HANDSHAKE_H

#include "proxy/exchange.h"
#include "proxy/services.h"
#include "proxy/stream.h"
#include "proxy/upstream.h"

enum guest_handshake_progress {
	GUEST_HANDSHAKE_OPEN,	/* more is to come from the guest */
	GUEST_HANDSHAKE_PARKED, /* a server is being connected */
	GUEST_HANDSHAKE_HTTP1,	/* complete, with that protocol */
	GUEST_HANDSHAKE_HTTP2,
	GUEST_HANDSHAKE_FAILED, /* the log was told what there is to tell */
};

struct guest_handshake;

/* Makes the guest's stream one of TLS. `changed` is called when it is parked no longer; inside it
 * the handshake may be freed. All is borrowed; an origin that is denied gets the name that the
 * guest says, and both outlive the stream's TLS. NULL without memory. */
struct guest_handshake *guest_handshake_new(const struct services *services,
					    struct exchange_origin *origin, struct stream *guest,
					    void (*changed)(void *context), void *context);
/* When the stream has been released. NULL does nothing. */
void guest_handshake_free(struct guest_handshake *handshake);
/* Gives up the server's connection. */
void guest_handshake_close(struct guest_handshake *handshake);

/* Goes as far as it gets. */
enum guest_handshake_progress guest_handshake_turn(struct guest_handshake *handshake);
/* The connection that was made ahead, the caller's now; NULL: none. */
struct upstream *guest_handshake_take_upstream(struct guest_handshake *handshake);

#endif
