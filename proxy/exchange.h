/*
 * One request and its response: judged, given its secrets, sent to the server, and the answer back.
 *
 * The guest's leg comes with a complete head; a server's leg is taken from the pool or connected
 * for it. Bodies pass through in both directions at once, each held in one bounded buffer, so that
 * a slow side slows the other and nothing waits for an end. When it is over, or the guest is to be
 * answered in the broker's own name, one audit event says so.
 *
 * `done` is called once, from a turn and as its last act, when the last byte of the response is
 * with the guest's leg; the owner then flushes and frees.
 */
#ifndef PROXY_EXCHANGE_H
#define PROXY_EXCHANGE_H

#include "proxy/host_name.h"
#include "proxy/http_leg.h"
#include "proxy/services.h"
#include "proxy/upstream.h"

#include <stdbool.h>
#include <stdint.h>

/* Where the guest's connection goes. */
struct exchange_origin {
	struct host_name name; /* what the synthetic address stands for */
	uint16_t port;
	bool is_tls;
	const char *denied; /* every request is refused for this reason; static, or NULL */
};

enum exchange_outcome {
	EXCHANGE_DONE,	   /* the guest's connection may go on, if its leg does */
	EXCHANGE_CUT,	   /* the response is incomplete: end the connection so that it shows */
	EXCHANGE_UPGRADED, /* bytes follow both ways: exchange_take_upstream() */
};

struct exchange;
struct websocket_relay;
typedef void exchange_done(void *context, enum exchange_outcome outcome);

/* The leg has received a head. `services` and `origin` outlive the exchange. NULL without memory.
 * It does nothing before its first turn. */
struct exchange *exchange_new(const struct services *services, const struct exchange_origin *origin,
			      struct http_leg *guest, exchange_done *done, void *context);
/* At any time; the server's connection is closed unless it is at rest. Tells the log when nothing
 * was told yet. */
void exchange_free(struct exchange *exchange);
/* Goes as far as it gets. To be called when the guest's leg has changed. */
void exchange_turn(struct exchange *exchange);

/* A connection that was made ahead for the first request, which it fits; the exchange releases it.
 */
void exchange_give_upstream(struct exchange *exchange, struct upstream *upstream);
/* After EXCHANGE_UPGRADED: the caller's now. */
struct upstream *exchange_take_upstream(struct exchange *exchange);
/* After EXCHANGE_UPGRADED: the caller's now, and borrows the exchange's origin. What all bytes have
 * to go through. */
struct websocket_relay *exchange_take_websocket(struct exchange *exchange);

#endif
