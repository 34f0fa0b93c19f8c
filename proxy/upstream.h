/*
 * Connections to servers: made through the connector, verified, used for one exchange after
 * another, and kept for a while in between.
 *
 * Of HTTP/1 a connection is used by one leg at a time; of HTTP/2 many legs share one, and a struct
 * upstream is the use of it. Who waits for one is called back, never from inside the call that
 * asks.
 */
#ifndef PROXY_UPSTREAM_H
#define PROXY_UPSTREAM_H

#include "proxy/address_class.h"
#include "proxy/host_name.h"
#include "proxy/http_leg.h"
#include "proxy/services.h"
#include "proxy/stream.h"

#include <stdbool.h>
#include <stdint.h>

#define UPSTREAM_IDLE_MAX 64u
#define UPSTREAM_IDLE_MS 60000u
#define UPSTREAM_HANDSHAKE_MS 15000u

struct upstream_pool;
struct upstream;

struct upstream_target {
	struct host_name name;
	uint16_t port;
	bool is_tls;
	unsigned protocols; /* to offer (enum tls_protocol); 0: no offer */
};

struct upstream_failure {
	const char *reason; /* a word that stays, such as "upstream_certificate" */
	char detail[256];   /* for a person, printable */
};

/* With a connection, which is the callee's until upstream_release(), or with a failure. */
typedef void upstream_done(void *context, struct upstream *upstream,
			   const struct upstream_failure *failure);

/* NULL without memory. */
struct upstream_pool *upstream_pool_new(const struct services *services);
/* Every connection must have been released or cancelled. */
void upstream_pool_free(struct upstream_pool *pool);
/* Closes what has been idle or unfinished for too long; to be called about once a second. */
void upstream_pool_sweep(struct upstream_pool *pool, uint64_t now_ms);

/* An idle connection to the target, or a share in one; of HTTP/2 only where that is in its
 * protocols. Or NULL. */
struct upstream *upstream_take_idle(struct upstream_pool *pool,
				    const struct upstream_target *target);
/* The same for a request that must not be sent twice, or is not known yet: one that its server has
 * ended since, or has said anything on, is closed instead of given. */
struct upstream *upstream_take_live(struct upstream_pool *pool,
				    const struct upstream_target *target);
/* Begins a new one. 0 or a negative errno. */
int upstream_connect(struct upstream_pool *pool, const struct upstream_target *target,
		     upstream_done *done, void *context, struct upstream **ret_upstream);
/* Before `done` was called: it will not be. */
void upstream_cancel(struct upstream *upstream);
/* Keeps the connection for the next one if it may carry another message, else closes it. */
void upstream_release(struct upstream *upstream);

/* The leg for another message; and the same leg while it lasts. */
struct http_leg *upstream_begin(struct upstream *upstream);
struct http_leg *upstream_leg(struct upstream *upstream);
/* Which of enum tls_protocol it speaks. */
unsigned upstream_protocol(const struct upstream *upstream);
/* Its other end. */
const struct ip_address *upstream_address(const struct upstream *upstream);
/* It has carried a message before, so its end may have come at any time. */
bool upstream_was_used(const struct upstream *upstream);
/* Bytes of an answer have come. */
bool upstream_has_answered(const struct upstream *upstream);
/* For a tunnel: the stream, what of it was read already, and who is told from now on when the
 * stream is ready. Both stay the upstream's, which is closed when it is released. */
struct stream *upstream_open_tunnel(struct upstream *upstream, void (*ready)(void *context),
				    void *context, struct byte_buffer **ret_input);

#endif
