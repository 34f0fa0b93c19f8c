#include "proxy/upstream.h"

#include "proxy/connector.h"
#include "proxy/http1_codec.h"
#include "proxy/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/*
 * Theory of operation. A connection goes through the states in their order; from USED it comes back
 * to IDLE or is closed. `stream` exists from HANDSHAKE on. Every connection is in the pool's list,
 * the idle ones in the order in which they became so.
 */
enum upstream_state {
	UPSTREAM_CONNECTING, /* `attempt` */
	UPSTREAM_HANDSHAKE,
	UPSTREAM_USED,
	UPSTREAM_IDLE,
};

struct upstream {
	struct stream stream; /* first: events find the connection by it */
	struct http1_codec codec;
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

static void complete(struct upstream *upstream)
{
	upstream->state = UPSTREAM_USED;
	upstream->done(upstream->context, upstream, NULL);
}

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

/* Nothing is to be expected of a server that was asked nothing. */
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
	case UPSTREAM_IDLE: {
		uint8_t byte;

		/* TLS has records of its own, such as tickets. */
		if (stream_read(stream, &byte, 1) != -EAGAIN)
			drop(upstream);
		break;
	}
	}
}

static void on_connected(void *context, struct connect_result *result)
{
	struct upstream *upstream = context;
	const struct upstream_target *target = &upstream->target;
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
	upstream->since_ms = services_now_ms();
	if (!target->is_tls) {
		complete(upstream);
		return;
	}
	ssl = tls_upstream_new(upstream->pool->services->tls, result->fd, &target->name,
			       target->protocols);
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
	upstream->since_ms = services_now_ms();
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

struct upstream *upstream_take_idle(struct upstream_pool *pool,
				    const struct upstream_target *target)
{
	struct upstream *upstream;

	/* The latest one: it is the least likely to be closed by its server just now. */
	for (upstream = pool->idle ? pool->idle->prev : NULL; upstream;
	     upstream = upstream == pool->idle ? NULL : upstream->prev) {
		if (upstream->target.port != target->port ||
		    upstream->target.is_tls != target->is_tls ||
		    !host_name_equal(&upstream->target.name, &target->name))
			continue;
		DL_DELETE(pool->idle, upstream);
		pool->idle_count--;
		DL_APPEND(pool->all, upstream);
		upstream->state = UPSTREAM_USED;
		return upstream;
	}
	return NULL;
}

void upstream_release(struct upstream *upstream)
{
	struct upstream_pool *pool = upstream->pool;

	upstream->codec.leg.changed = NULL;
	if (upstream->tunnel_ready ||
	    (!upstream->is_new && !http1_codec_is_reusable(&upstream->codec))) {
		drop(upstream);
		return;
	}
	if (byte_buffer_length(&upstream->codec.input) > 0 || upstream->stream.failed) {
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
	upstream->since_ms = services_now_ms();
}

void upstream_pool_sweep(struct upstream_pool *pool, uint64_t now_ms)
{
	while (pool->idle && now_ms - pool->idle->since_ms > UPSTREAM_IDLE_MS)
		drop(pool->idle);
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
	return &upstream->codec.leg;
}

struct http_leg *upstream_begin(struct upstream *upstream)
{
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
	return http1_codec_has_input(&upstream->codec);
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
