/*
 * What the broker's connections work with, over real sockets on loopback: names are pinned to
 * 127.0.0.1, where the test plays the server byte by byte, and servers' certificates are those of
 * the session's own authority. One thread: whatever waits turns the loop.
 */
#ifndef TESTS_UNIT_PROXY_WORLD_H
#define TESTS_UNIT_PROXY_WORLD_H

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "proxy/connector.h"
#include "proxy/egress_policy.h"
#include "proxy/egress_report.h"
#include "proxy/host_table.h"
#include "proxy/resolver.h"
#include "proxy/services.h"
#include "proxy/session_ca.h"
#include "proxy/stream.h"
#include "proxy/tls.h"
#include "proxy/upstream.h"
#include "tests/unit/secret_fixture.h"

#define WORLD_HOST "api.test"
#define WORLD_WAIT_MS 10000u

/* What the secret of the next world is for; NULL: WORLD_HOST and its port. */
static const char *world_secret_host;

struct proxy_world {
	struct services services;
	struct event_loop loop;
	struct host_table *pinned;
	struct resolver *resolver;
	struct session_ca *ca;
	struct host_name name; /* of WORLD_HOST, which is allowed on the port */
	uint16_t port;
	int listener;
	int log[2];
};

/* Turns the loop until the condition holds. */
#define WORLD_UNTIL(world, condition)                                                              \
	do {                                                                                       \
		uint64_t world_end = clock_now_ms() + WORLD_WAIT_MS;                               \
                                                                                                   \
		while (!(condition)) {                                                             \
			ck_assert_msg(clock_now_ms() < world_end, "in vain: %s", #condition);      \
			ck_assert_int_ge(event_loop_run_once(&(world)->loop, 5), 0);               \
		}                                                                                  \
	} while (0)

/* Turns it until nothing happens any more. */
static inline void world_settle(struct proxy_world *world)
{
	for (unsigned quiet = 0; quiet < 3;)
		quiet = event_loop_run_once(&world->loop, 5) == 0 ? quiet + 1 : 0;
}

/* ---- the other ends ------------------------------------------------------------------------- */

/* A socket of the test's, and what was read from it. */
struct peer {
	int fd;
	char *text; /* ends with a NUL */
	size_t length;
	bool has_ended;
	bool was_reset;
};

static inline void peer_take(struct peer *peer, int fd)
{
	*peer = (struct peer){ .fd = fd, .text = calloc(1, 1) };
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

static inline void peer_close(struct peer *peer)
{
	if (peer->fd >= 0)
		close(peer->fd);
	free(peer->text);
	*peer = (struct peer){ .fd = -1 };
}

static inline void peer_reset(struct peer *peer)
{
	const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	(void)setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	peer_close(peer);
}

static inline void peer_read(struct peer *peer)
{
	char block[65536];
	ssize_t count;

	while ((count = recv(peer->fd, block, sizeof(block), 0)) > 0) {
		peer->text = realloc(peer->text, peer->length + (size_t)count + 1);
		ck_assert_ptr_nonnull(peer->text);
		memcpy(peer->text + peer->length, block, (size_t)count);
		peer->length += (size_t)count;
		peer->text[peer->length] = '\0';
	}
	peer->has_ended = peer->has_ended || count == 0;
	peer->was_reset = peer->was_reset || (count < 0 && errno == ECONNRESET);
}

static inline bool peer_has(struct peer *peer, const char *text)
{
	peer_read(peer);
	return memmem(peer->text, peer->length, text, strlen(text)) != NULL;
}

static inline bool peer_is_over(struct peer *peer)
{
	peer_read(peer);
	return peer->has_ended || peer->was_reset;
}

static inline void peer_forget(struct peer *peer)
{
	peer_read(peer);
	peer->length = 0;
	peer->text[0] = '\0';
}

static inline void peer_say_bytes(struct peer *peer, const void *data, size_t length)
{
	ck_assert_int_eq(send(peer->fd, data, length, MSG_NOSIGNAL), (ssize_t)length);
}

static inline void peer_say(struct peer *peer, const char *text)
{
	peer_say_bytes(peer, text, strlen(text));
}

/* Sends until the sockets between are full and stay so; returns how much went. */
static inline size_t peer_fill(struct proxy_world *world, struct peer *peer, size_t most)
{
	static const char block[16384];
	size_t sent = 0;
	unsigned refusals = 0;

	while (sent < most && refusals < 3) {
		ssize_t count =
			send(peer->fd, block, MIN_OF(sizeof(block), most - sent), MSG_NOSIGNAL);

		if (count > 0) {
			sent += (size_t)count;
			refusals = 0;
			continue;
		}
		ck_assert_int_eq(errno, EAGAIN);
		world_settle(world);
		refusals++;
	}
	return sent;
}

/* The next connection that the broker makes. */
static inline void world_accept(struct proxy_world *world, struct peer *peer)
{
	int fd = -1;

	WORLD_UNTIL(world, (fd = accept4(world->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
	peer_take(peer, fd);
}

static inline bool world_has_connection(const struct proxy_world *world)
{
	struct pollfd poll_fd = { .fd = world->listener, .events = POLLIN };

	return poll(&poll_fd, 1, 0) == 1;
}

/* Whether an event of the log says so; what is read is gone. */
static inline bool world_was_told(const struct proxy_world *world, const char *text)
{
	char event[65536];
	ssize_t count;

	egress_report_flush(world->services.report);
	count = recv(world->log[0], event, sizeof(event), MSG_DONTWAIT);
	return count > 0 && memmem(event, (size_t)count, text, strlen(text)) != NULL;
}

/* ---- the broker's side ---------------------------------------------------------------------- */

static inline void world_listen(struct proxy_world *world)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	world->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(world->listener, (struct sockaddr *)&address, length), 0);
	ck_assert_int_eq(listen(world->listener, 16), 0);
	ck_assert_int_eq(getsockname(world->listener, (struct sockaddr *)&address, &length), 0);
	world->port = ntohs(address.sin_port);
}

static inline void world_make_names(struct proxy_world *world)
{
	struct resolver_options resolver = { .loop = &world->loop,
					     .hosts_path = "/nonexistent",
					     .servers = "127.0.0.1:1" };
	struct connector_options connector = { .loop = &world->loop };
	struct ip_address address;

	ck_assert_int_eq(host_name_parse(WORLD_HOST, strlen(WORLD_HOST), &world->name), 0);
	ck_assert_int_eq(ip_address_parse("127.0.0.1", &address), 0);
	world->pinned = host_table_new();
	ck_assert_int_eq(host_table_add(world->pinned, &world->name, &address), 0);
	resolver.pinned = world->pinned;
	ck_assert_int_eq(resolver_new(&resolver, &world->resolver), 0);
	connector.resolver = world->resolver;
	ck_assert_int_eq(connector_new(&connector, &world->services.connector), 0);
}

static inline void world_make_tls(struct proxy_world *world)
{
	int fd = memfd_create("authority", MFD_CLOEXEC);
	const char *pem;

	ck_assert_int_eq(session_ca_new("test", &world->ca), 0);
	pem = session_ca_certificate(world->ca);
	ck_assert_int_eq(write(fd, pem, strlen(pem)), (ssize_t)strlen(pem));
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	ck_assert_int_eq(tls_new(world->ca, fd, &world->services.tls), 0);
	close(fd);
}

/* With WORLD_HOST allowed, or with rules instead; the secret, if there is one, is for it. */
static inline void world_start(struct proxy_world *world, const struct fixture_secret *secret,
			       const struct egress_rule *rules, size_t rule_count)
{
	static char pattern[64];
	static const char *allow[] = { pattern };
	struct egress_policy_options policy = { .session = "test",
						.allow = allow,
						.allow_count = rule_count > 0 ? 0 : 1,
						.rules = rules,
						.rule_count = rule_count };
	char error[EGRESS_ERROR_MAX];

	*world = (struct proxy_world){ 0 };
	ck_assert_int_eq(event_loop_init(&world->loop), 0);
	world->services.loop = &world->loop;
	world_listen(world);
	world_make_names(world);
	world_make_tls(world);
	snprintf(pattern, sizeof(pattern), "%s:%u", WORLD_HOST, world->port);
	ck_assert_int_eq(egress_policy_new(&policy, &world->services.policy, error), 0);
	if (secret) {
		struct fixture_secret bound = *secret;

		bound.host = world_secret_host ? world_secret_host : pattern;
		world->services.secrets = fixture_store(&bound, 1);
		ck_assert_ptr_nonnull(world->services.secrets);
	}
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, world->log), 0);
	world->services.report = egress_report_new(world->log[1]);
	world->services.upstreams = upstream_pool_new(&world->services);
	ck_assert(world->services.report && world->services.upstreams);
}

static inline void world_stop(struct proxy_world *world)
{
	upstream_pool_free(world->services.upstreams);
	egress_report_free(world->services.report);
	close(world->log[0]);
	close(world->log[1]);
	secret_store_free(world->services.secrets);
	egress_policy_free(world->services.policy);
	tls_free(world->services.tls);
	session_ca_free(world->ca);
	connector_free(world->services.connector);
	resolver_free(world->resolver);
	host_table_free(world->pinned);
	close(world->listener);
	event_loop_release(&world->loop);
}

/* ---- a server that speaks TLS --------------------------------------------------------------- */

struct tls_peer {
	struct stream stream; /* first */
	struct proxy_world *world;
	struct tls_hello hello;
	unsigned protocol; /* to be chosen */
	bool is_ready;
	bool has_failed;
	void (*ready)(struct tls_peer *peer); /* once the handshake is complete */
};

static inline void tls_peer_ready(struct stream *stream)
{
	struct tls_peer *peer = (struct tls_peer *)stream;
	int result = -EAGAIN;

	while (!peer->is_ready && !peer->has_failed) {
		result = stream_handshake(stream);
		if (result == -EINPROGRESS)
			ck_assert_int_eq(tls_guest_answer(peer->world->services.tls, stream->ssl,
							  &peer->hello, &peer->hello.name,
							  peer->protocol),
					 0);
		else if (result == -EAGAIN)
			return;
		else if (result == 0)
			peer->is_ready = true;
		else
			peer->has_failed = true;
	}
	if (peer->is_ready && peer->ready)
		peer->ready(peer);
}

/* The next connection that the broker makes, in the loop. */
static inline void tls_peer_accept(struct tls_peer *peer, struct proxy_world *world,
				   unsigned protocol, void (*ready)(struct tls_peer *peer))
{
	struct peer plain;

	world_accept(world, &plain);
	free(plain.text);
	*peer = (struct tls_peer){ .world = world, .protocol = protocol, .ready = ready };
	ck_assert_int_eq(stream_init(&peer->stream, &world->loop, plain.fd, tls_peer_ready), 0);
	stream_set_tls(&peer->stream,
		       tls_guest_new(world->services.tls, &peer->stream, &peer->hello));
	tls_peer_ready(&peer->stream);
	WORLD_UNTIL(world, peer->is_ready || peer->has_failed);
}

#endif
