#include "proxy/upstream.h"

#include "base/clock.h"
#include "proxy/connector.h"
#include "proxy/egress_policy.h"
#include "proxy/http1_codec.h"
#include "proxy/http2_codec.h"
#include "proxy/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

/*
 * Theory of operation. A struct upstream is a connection, or a share in one that is a carrier. A
 * connection goes through the states in their order; from USED it comes back
 * to IDLE or is closed. `stream` exists from HANDSHAKE on. Every connection is in one of the
 * pool's lists, the idle ones in the order in which they became so. One that turns out to speak
 * HTTP/2 becomes a carrier, stays one, and is closed by the sweep when nobody has a share in it.
 */
enum upstream_state {
	UPSTREAM_CONNECTING, /* `attempt` */
	UPSTREAM_HANDSHAKE,
	UPSTREAM_USED,
	UPSTREAM_IDLE,
	UPSTREAM_CARRIER, /* `http2`, `shares` */
	UPSTREAM_SHARE,	  /* `carrier`, `leg`; in no list, and without a stream */
};

struct upstream {
	struct stream stream; /* first: events find the connection by it */
	struct http1_codec codec;
	struct http2_codec http2;
	size_t shares;
	struct upstream *carrier;
	struct http_leg *leg;
	struct upstream_pool *pool;
	struct upstream_target target;
	struct ip_address address;
	enum upstream_state state;
	struct connector_attempt *attempt;
	upstream_done *done;
	void (*tunnel_ready)(void *context); /* USED, and not for HTTP */
	void *context;
	uint64_t since_ms;
	bool was_used;
	bool is_new; /* no message was begun on it */
	struct upstream *prev;
	struct upstream *next;
};

struct upstream_pool {
	const struct services *services;
	struct upstream *all;
	struct upstream *idle;
	struct upstream *carriers;
	size_t idle_count;
};

struct upstream_pool *upstream_pool_new(const struct services *services)
{
	struct upstream_pool *pool = calloc(1, sizeof(*pool));

	if (pool)
		pool->services = services;
	return pool;
}

static void drop(struct upstream *upstream)
{
	struct upstream_pool *pool = upstream->pool;

	if (upstream->state == UPSTREAM_IDLE) {
		DL_DELETE(pool->idle, upstream);
		pool->idle_count--;
	} else if (upstream->state == UPSTREAM_CARRIER) {
		DL_DELETE(pool->carriers, upstream);
		http2_codec_release(&upstream->http2);
	} else {
		DL_DELETE(pool->all, upstream);
	}
	if (upstream->attempt)
		connector_cancel(upstream->attempt);
	http1_codec_release(&upstream->codec);
	stream_release(&upstream->stream);
	free(upstream);
}

void upstream_pool_free(struct upstream_pool *pool)
{
	if (!pool)
		return;
	while (pool->idle)
		drop(pool->idle);
	while (pool->carriers)
		drop(pool->carriers);
	free(pool);
}

/* ---- connecting ----------------------------------------------------------------------------- */

static void fail(struct upstream *upstream, const char *reason, const char *detail)
{
	struct upstream_failure failure = { .reason = reason };
	upstream_done *done = upstream->done;
	void *context = upstream->context;

	snprintf(failure.detail, sizeof(failure.detail), "%s", detail);
	drop(upstream);
	done(context, NULL, &failure);
}

/* ---- sharing -------------------------------------------------------------------------------- */

/* A share in the carrier, or NULL. */
static struct upstream *share(struct upstream *carrier)
{
	struct upstream *upstream;

	if (!http2_codec_has_room(&carrier->http2))
		return NULL;
	upstream = calloc(1, sizeof(*upstream));
	if (upstream)
		upstream->leg = http2_codec_open(&carrier->http2);
	if (!upstream || !upstream->leg) {
		free(upstream);
		return NULL;
	}
	upstream->pool = carrier->pool;
	upstream->target = carrier->target;
	upstream->address = carrier->address;
	upstream->state = UPSTREAM_SHARE;
	upstream->carrier = carrier;
	carrier->shares++;
	return upstream;
}

static void release_share(struct upstream *upstream)
{
	struct upstream *carrier = upstream->carrier;

	carrier->shares--;
	carrier->since_ms = clock_now_ms();
	http2_leg_release(upstream->leg, false);
	free(upstream);
}

static void become_carrier(struct upstream *upstream)
{
	struct upstream_pool *pool = upstream->pool;
	upstream_done *done = upstream->done;
	void *context = upstream->context;
	struct upstream *first;

	if (http2_codec_init(&upstream->http2, &upstream->stream, HTTP2_CLIENT) < 0) {
		fail(upstream, "connect_failed", "the broker is out of memory");
		return;
	}
	DL_DELETE(pool->all, upstream);
	DL_APPEND(pool->carriers, upstream);
	upstream->state = UPSTREAM_CARRIER;
	upstream->since_ms = clock_now_ms();
	first = share(upstream);
	if (!first) {
		const struct upstream_failure failure = {
			.reason = "connect_failed",
			.detail = "the broker is out of memory",
		};

		done(context, NULL, &failure);
		return;
	}
	done(context, first, NULL);
}

static void complete(struct upstream *upstream)
{
	if (upstream->stream.ssl &&
	    tls_upstream_protocol(upstream->stream.ssl) == TLS_PROTOCOL_HTTP2) {
		become_carrier(upstream);
		return;
	}
	upstream->state = UPSTREAM_USED;
	upstream->done(upstream->context, upstream, NULL);
}

/* ---- events --------------------------------------------------------------------------------- */

static void shake_hands(struct upstream *upstream)
{
	int result = stream_handshake(&upstream->stream);
	bool is_certificate;
	char detail[HOST_NAME_MAX_LENGTH + 256];
	const char *why;

	if (result == -EAGAIN)
		return;
	if (result == 0) {
		complete(upstream);
		return;
	}
	why = tls_upstream_failure(upstream->stream.ssl, &is_certificate);
	snprintf(detail, sizeof(detail), "%s:%u: %s", upstream->target.name.text,
		 upstream->target.port, why);
	fail(upstream, is_certificate ? "upstream_certificate" : "upstream_tls", detail);
}

/* Nothing is to be expected of a server that was asked nothing: neither bytes nor its end. TLS has
 * records of its own, such as tickets. */
static bool is_silent(struct upstream *upstream)
{
	uint8_t byte;

	return stream_read(&upstream->stream, &byte, 1) == -EAGAIN;
}

static void on_ready(struct stream *stream)
{
	struct upstream *upstream = (struct upstream *)stream;

	switch (upstream->state) {
	case UPSTREAM_CONNECTING:
		break;
	case UPSTREAM_HANDSHAKE:
		shake_hands(upstream);
		break;
	case UPSTREAM_USED:
		if (upstream->tunnel_ready)
			upstream->tunnel_ready(upstream->context);
		else
			http1_codec_turn(&upstream->codec);
		break;
	case UPSTREAM_CARRIER:
		http2_codec_turn(&upstream->http2);
		if (upstream->http2.is_over && upstream->shares == 0)
			drop(upstream);
		break;
	case UPSTREAM_SHARE:
		break;
	case UPSTREAM_IDLE:
		if (!is_silent(upstream))
			drop(upstream);
		break;
	}
}

static void on_connected(void *context, struct connect_result *result)
{
	struct upstream *upstream = context;
	const struct upstream_target *target = &upstream->target;
	const struct services *services = upstream->pool->services;
	const char *identity;
	SSL *ssl;

	upstream->attempt = NULL;
	if (result->fd < 0) {
		fail(upstream, result->reason, result->detail);
		return;
	}
	upstream->address = result->address;
	if (stream_init(&upstream->stream, upstream->pool->services->loop, result->fd, on_ready) <
	    0) {
		fail(upstream, "connect_failed", "the broker is out of resources");
		return;
	}
	upstream->state = UPSTREAM_HANDSHAKE;
	upstream->since_ms = clock_now_ms();
	if (!target->is_tls) {
		complete(upstream);
		return;
	}
	identity = egress_policy_client_certificate(services->policy, &target->name, target->port);
	ssl = tls_upstream_new(services->tls, &upstream->stream, &target->name, target->protocols,
			       identity != NULL);
	if (ssl && identity && client_identities_use(&services->identities, identity, ssl) < 0) {
		tls_end(ssl);
		ssl = NULL;
	}
	if (!ssl) {
		fail(upstream, "connect_failed", "the broker is out of memory");
		return;
	}
	stream_set_tls(&upstream->stream, ssl);
	shake_hands(upstream);
}

int upstream_connect(struct upstream_pool *pool, const struct upstream_target *target,
		     upstream_done *done, void *context, struct upstream **ret_upstream)
{
	struct upstream *upstream = calloc(1, sizeof(*upstream));
	int error;

	if (!upstream)
		return -ENOMEM;
	upstream->pool = pool;
	upstream->target = *target;
	upstream->done = done;
	upstream->context = context;
	upstream->since_ms = clock_now_ms();
	upstream->stream.source.fd = -1;
	upstream->is_new = true;
	error = http1_codec_init(&upstream->codec, &upstream->stream, HTTP1_CLIENT);
	if (!error)
		error = connector_start(pool->services->connector, &target->name, target->port,
					on_connected, upstream, &upstream->attempt);
	if (error) {
		http1_codec_release(&upstream->codec);
		free(upstream);
		return error;
	}
	DL_APPEND(pool->all, upstream);
	*ret_upstream = upstream;
	return 0;
}

void upstream_cancel(struct upstream *upstream)
{
	drop(upstream);
}

/* ---- the idle ones -------------------------------------------------------------------------- */

static bool is_for(const struct upstream *upstream, const struct upstream_target *target)
{
	return upstream->target.port == target->port && upstream->target.is_tls == target->is_tls &&
	       host_name_equal(&upstream->target.name, &target->name);
}

struct upstream *upstream_take_idle(struct upstream_pool *pool,
				    const struct upstream_target *target)
{
	bool takes_http2 = (target->protocols & TLS_PROTOCOL_HTTP2) != 0;
	struct upstream *upstream;

	for (upstream = pool->carriers; upstream && takes_http2; upstream = upstream->next) {
		struct upstream *shared = is_for(upstream, target) ? share(upstream) : NULL;

		if (shared)
			return shared;
	}
	/* The latest one: it is the least likely to be closed by its server just now. */
	for (upstream = pool->idle ? pool->idle->prev : NULL; upstream;
	     upstream = upstream == pool->idle ? NULL : upstream->prev) {
		/* One that was not asked for HTTP/2 does not say that the server has none. */
		if (!is_for(upstream, target) ||
		    (takes_http2 && !(upstream->target.protocols & TLS_PROTOCOL_HTTP2)))
			continue;
		DL_DELETE(pool->idle, upstream);
		pool->idle_count--;
		DL_APPEND(pool->all, upstream);
		upstream->state = UPSTREAM_USED;
		return upstream;
	}
	return NULL;
}

/* The event that tells of it may be on its way still. */
static bool has_ended(const struct upstream *upstream)
{
	uint8_t byte;

	return recv(stream_fd(&upstream->stream), &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 ||
	       errno != EAGAIN;
}

struct upstream *upstream_take_live(struct upstream_pool *pool,
				    const struct upstream_target *target)
{
	struct upstream *upstream = upstream_take_idle(pool, target);

	while (upstream && upstream->state == UPSTREAM_USED && has_ended(upstream)) {
		drop(upstream);
		upstream = upstream_take_idle(pool, target);
	}
	return upstream;
}

void upstream_release(struct upstream *upstream)
{
	struct upstream_pool *pool = upstream->pool;

	if (upstream->state == UPSTREAM_SHARE) {
		release_share(upstream);
		return;
	}
	upstream->codec.leg.changed = NULL;
	if (upstream->tunnel_ready ||
	    (!upstream->is_new && !http1_codec_is_reusable(&upstream->codec))) {
		drop(upstream);
		return;
	}
	/* What came with the message's last byte brings no event of its own. */
	if (byte_buffer_length(&upstream->codec.input) > 0 || !is_silent(upstream)) {
		drop(upstream);
		return;
	}
	if (pool->idle_count >= UPSTREAM_IDLE_MAX)
		drop(pool->idle);
	if (!upstream->is_new)
		http1_codec_next(&upstream->codec);
	DL_DELETE(pool->all, upstream);
	DL_APPEND(pool->idle, upstream);
	pool->idle_count++;
	upstream->state = UPSTREAM_IDLE;
	upstream->since_ms = clock_now_ms();
}

void upstream_pool_sweep(struct upstream_pool *pool, uint64_t now_ms)
{
	while (pool->idle && now_ms - pool->idle->since_ms > UPSTREAM_IDLE_MS)
		drop(pool->idle);
	for (struct upstream *carrier = pool->carriers; carrier;) {
		struct upstream *next = carrier->next;

		if (carrier->shares == 0 &&
		    (carrier->http2.is_over || now_ms - carrier->since_ms > UPSTREAM_IDLE_MS))
			drop(carrier);
		carrier = next;
	}
	for (struct upstream *upstream = pool->all; upstream; upstream = upstream->next) {
		if (upstream->state == UPSTREAM_HANDSHAKE &&
		    now_ms - upstream->since_ms > UPSTREAM_HANDSHAKE_MS) {
			fail(upstream, "connect_timeout", "the server did not complete TLS");
			/* The callback may have given up others too. */
			return;
		}
	}
}

/* ---- in use --------------------------------------------------------------------------------- */

struct http_leg *upstream_leg(struct upstream *upstream)
{
	return upstream->state == UPSTREAM_SHARE ? upstream->leg : &upstream->codec.leg;
}

unsigned upstream_protocol(const struct upstream *upstream)
{
	return upstream->state == UPSTREAM_SHARE ? TLS_PROTOCOL_HTTP2 : TLS_PROTOCOL_HTTP1;
}

struct http_leg *upstream_begin(struct upstream *upstream)
{
	if (upstream->state == UPSTREAM_SHARE) {
		upstream->was_used = !upstream->carrier->is_new;
		upstream->carrier->is_new = false;
		return upstream->leg;
	}
	upstream->was_used = !upstream->is_new;
	upstream->is_new = false;
	return &upstream->codec.leg;
}

const struct ip_address *upstream_address(const struct upstream *upstream)
{
	return &upstream->address;
}

bool upstream_was_used(const struct upstream *upstream)
{
	return upstream->was_used;
}

bool upstream_has_answered(const struct upstream *upstream)
{
	return upstream->state == UPSTREAM_SHARE ? http2_leg_has_answered(upstream->leg)
						 : http1_codec_has_input(&upstream->codec);
}

struct stream *upstream_open_tunnel(struct upstream *upstream, void (*ready)(void *context),
				    void *context, struct byte_buffer **ret_input)
{
	upstream->tunnel_ready = ready;
	upstream->context = context;
	upstream->codec.closes = true;
	*ret_input = &upstream->codec.input;
	return &upstream->stream;
}
