#include "proxy/guest.h"

#include "base/clock.h"
#include "proxy/client_hello.h"
#include "proxy/egress_policy.h"
#include "proxy/egress_report.h"
#include "proxy/exchange.h"
#include "proxy/guest_handshake.h"
#include "proxy/guest_http2.h"
#include "proxy/guest_tunnel.h"
#include "proxy/http1_codec.h"
#include "proxy/shortage.h"
#include "proxy/synthetic_addresses.h"
#include "proxy/upstream.h"
#include "wire/egress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

/*
 * Theory of operation. A connection is driven by events of its stream and by callbacks of what it
 * started: a server's connection made ahead, an exchange, a tunnel. Each enters here by enter() and
 * leaves by leave(); a connection that was closed meanwhile is freed by the outermost leave(), so
 * that nobody further up the stack finds it gone.
 */
enum guest_state {
	GUEST_HELLO,   /* the struct egress_hello has not all come */
	GUEST_FIRST,   /* nor the first byte behind it */
	GUEST_TLS,     /* `handshake` */
	GUEST_PASSED,  /* TLS that is passed through: its ClientHello has not all come */
	GUEST_PARKED,  /* `handshake` or `tunnel` waits for a server's connection */
	GUEST_HTTP,    /* requests; `exchange` while there is one */
	GUEST_HTTP2,   /* `http2` */
	GUEST_TUNNEL,  /* `tunnel` */
	GUEST_CLOSING, /* the last answer is on its way; what still comes is thrown away */
	GUEST_CLOSED,
};

#define HELLO_MS 30000u
#define HANDSHAKE_MS 30000u
#define IDLE_MS 300000u /* between requests, and before the first byte */
#define HEAD_MS 60000u	/* from a head's first byte to its last */
#define CLOSING_MS 10000u
#define DISCARD_MAX (1u << 20)

/* The first byte of a TLS record that is a handshake (RFC 8446 section 5.1). */
#define TLS_HANDSHAKE_RECORD 0x16

struct guest {
	struct stream stream; /* first: events find the connection by it */
	struct guests *guests;
	enum guest_state state;
	unsigned depth; /* of enter() */
	bool wants_turn;
	bool head_begun;
	uint8_t hello[EGRESS_HELLO_SIZE];
	size_t hello_length;
	struct exchange_origin origin;
	struct guest_handshake *handshake;
	bool has_codec;
	struct http1_codec codec;
	struct exchange *exchange;
	struct guest_http2 *http2;
	struct upstream *upstream; /* made ahead, for the first request */
	struct guest_tunnel *tunnel;
	size_t discarded;
	uint64_t deadline_ms; /* 0: none */
	struct guest *prev;
	struct guest *next;
};

struct guests {
	const struct services *services;
	struct guest *all;
	size_t count;
	unsigned deep_left; /* stream_may_deepen() */
};

/* ---- lifetime ------------------------------------------------------------------------------- */

static void close_guest(struct guest *guest)
{
	if (guest->state == GUEST_CLOSED)
		return;
	if (guest->tunnel)
		guest_tunnel_close(guest->tunnel);
	if (guest->handshake)
		guest_handshake_close(guest->handshake);
	if (guest->upstream)
		upstream_release(guest->upstream);
	guest->upstream = NULL;
	exchange_free(guest->exchange);
	guest->exchange = NULL;
	stream_release(&guest->stream);
	guest->state = GUEST_CLOSED;
}

static void enter(struct guest *guest)
{
	guest->depth++;
}

static void leave(struct guest *guest)
{
	struct guests *guests = guest->guests;

	if (--guest->depth > 0 || guest->state != GUEST_CLOSED)
		return;
	DL_DELETE(guests->all, guest);
	guests->count--;
	if (guest->has_codec)
		http1_codec_release(&guest->codec);
	guest_http2_free(guest->http2);
	guest_tunnel_free(guest->tunnel);
	guest_handshake_free(guest->handshake);
	free(guest);
}

static void set_deadline(struct guest *guest, uint64_t after_ms)
{
	guest->deadline_ms = after_ms ? clock_now_ms() + after_ms : 0;
}

/* What cannot be said in the connection's own protocol: an end, and a line in the log. */
static void tell_denial(struct guest *guest, const char *reason, const char *hint)
{
	const struct egress_entry entry = {
		.operation = "connect",
		.host = guest->origin.name.text,
		.port = guest->origin.port,
		.protocol = guest->stream.ssl ? "tls" : "tcp",
		.reason = reason,
		.hint = hint,
	};

	egress_report_denial(guest->guests->services->report, &entry);
}

static void deny(struct guest *guest, const char *reason, const char *hint)
{
	tell_denial(guest, reason, hint);
	stream_reset(&guest->stream);
	close_guest(guest);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void start_closing(struct guest *guest)
{
	guest->state = GUEST_CLOSING;
	guest->wants_turn = true;
	set_deadline(guest, CLOSING_MS);
}

static void on_ready(struct stream *stream);
static bool make_tunnel(struct guest *guest, const char *rule);

/* The relay borrows nothing of the exchange, which is freed. */
static void start_websocket(struct guest *guest)
{
	if (!make_tunnel(guest, NULL))
		return;
	guest_tunnel_upgrade(guest->tunnel, &guest->codec, exchange_take_upstream(guest->exchange),
			     exchange_take_websocket(guest->exchange));
	guest->state = GUEST_TUNNEL;
	guest->deadline_ms = 0;
}

static void on_exchange_done(void *context, enum exchange_outcome outcome)
{
	struct guest *guest = context;
	struct http_leg *leg = &guest->codec.leg;

	enter(guest);
	if (outcome == EXCHANGE_UPGRADED)
		start_websocket(guest);
	exchange_free(guest->exchange);
	guest->exchange = NULL;
	if (outcome == EXCHANGE_CUT) {
		/* No close_notify, or a reset: what came is not all. */
		(void)leg->ops->flush(leg);
		stream_reset(&guest->stream);
		close_guest(guest);
	} else if (outcome == EXCHANGE_DONE && http1_codec_is_reusable(&guest->codec)) {
		http1_codec_next(&guest->codec);
		set_deadline(guest, IDLE_MS);
	} else if (outcome == EXCHANGE_DONE) {
		start_closing(guest);
	}
	guest->wants_turn = true;
	/* From an event of the server's nobody else goes on here. */
	if (guest->depth == 1 && guest->state != GUEST_CLOSED)
		on_ready(&guest->stream);
	leave(guest);
}

static void start_exchange(struct guest *guest)
{
	guest->exchange = exchange_new(guest->guests->services, &guest->origin, &guest->codec.leg,
				       on_exchange_done, guest);
	if (!guest->exchange) {
		close_guest(guest);
		return;
	}
	if (guest->upstream)
		exchange_give_upstream(guest->exchange, guest->upstream);
	guest->upstream = NULL;
	guest->deadline_ms = 0;
	exchange_turn(guest->exchange);
}

/* Bytes that are no request: an answer if they look like one, so that a person sees why. */
static void refuse_bytes(struct guest *guest)
{
	static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
				   "Matchlock-Error: request_malformed\r\nConnection: close\r\n"
				   "Content-Length: ";
	const char *problem = guest->codec.leg.problem;
	struct byte_buffer *output = &guest->codec.output;
	char line[32];

	tell_denial(guest, "request_malformed", problem);
	snprintf(line, sizeof(line), "%zu\r\n\r\n", strlen(problem) + 1);
	if (byte_buffer_append(output, text, strlen(text)) < 0 ||
	    byte_buffer_append(output, line, strlen(line)) < 0 ||
	    byte_buffer_append(output, problem, strlen(problem)) < 0 ||
	    byte_buffer_append(output, "\n", 1) < 0)
		close_guest(guest);
	else
		start_closing(guest);
}

static void on_leg_changed(struct http_leg *leg)
{
	struct guest *guest = leg->user;

	if (guest->exchange) {
		exchange_turn(guest->exchange);
		return;
	}
	switch (leg->receiving) {
	case HTTP_RECEIVING_HEAD:
		/* The clock of a head runs from its first byte. */
		if (http1_codec_has_input(&guest->codec) && !guest->head_begun) {
			guest->head_begun = true;
			set_deadline(guest, HEAD_MS);
		}
		break;
	case HTTP_RECEIVING_BODY:
	case HTTP_RECEIVING_ENDED:
		/* One answer at a time waits to be written. */
		if (leg->ops->flush(leg)) {
			guest->head_begun = false;
			start_exchange(guest);
		}
		break;
	case HTTP_RECEIVING_FAILED:
		if (http1_codec_has_input(&guest->codec))
			refuse_bytes(guest);
		else
			close_guest(guest);
		break;
	}
}

static void start_http(struct guest *guest)
{
	if (http1_codec_init(&guest->codec, &guest->stream, HTTP1_SERVER) < 0) {
		close_guest(guest);
		return;
	}
	guest->has_codec = true;
	guest->codec.leg.user = guest;
	guest->codec.leg.changed = on_leg_changed;
	guest->state = GUEST_HTTP;
	set_deadline(guest, IDLE_MS);
}

static void start_http2(struct guest *guest)
{
	/* The connection that was made ahead is there for every request. */
	guest_handshake_close(guest->handshake);
	guest->http2 = guest_http2_new(guest->guests->services, &guest->origin, &guest->stream);
	if (!guest->http2) {
		close_guest(guest);
		return;
	}
	guest->state = GUEST_HTTP2;
	set_deadline(guest, IDLE_MS);
}

static void step_http2(struct guest *guest)
{
	if (!guest_http2_turn(guest->http2))
		close_guest(guest);
	else
		set_deadline(guest, guest_http2_is_idle(guest->http2) ? IDLE_MS : 0);
}

/* ---- tunnels -------------------------------------------------------------------------------- */

static void cut_tunnel(struct guest *guest)
{
	stream_reset(&guest->stream);
	close_guest(guest);
}

static void turn_tunnel(struct guest *guest)
{
	switch (guest_tunnel_turn(guest->tunnel)) {
	case GUEST_TUNNEL_OPEN:
		break;
	case GUEST_TUNNEL_STOPPED:
		if (guest->deadline_ms == 0)
			set_deadline(guest, CLOSING_MS);
		break;
	case GUEST_TUNNEL_OVER:
		close_guest(guest);
		break;
	case GUEST_TUNNEL_CUT:
		cut_tunnel(guest);
		break;
	}
}

static void on_tunnel_changed(void *context)
{
	struct guest *guest = context;

	enter(guest);
	guest->state = GUEST_TUNNEL;
	turn_tunnel(guest);
	leave(guest);
}

/* False without memory, and the connection is closed. */
static bool make_tunnel(struct guest *guest, const char *rule)
{
	guest->tunnel = guest_tunnel_new(guest->guests->services, &guest->origin, &guest->stream,
					 rule, on_tunnel_changed, guest);
	if (!guest->tunnel)
		close_guest(guest);
	return guest->tunnel != NULL;
}

/* By a rule for it, or passed through: bytes that nobody looks at. */
static void connect_tunnel(struct guest *guest, const struct egress_rule *limits)
{
	const struct services *services = guest->guests->services;
	const int error = guest_tunnel_connect(guest->tunnel, limits);

	if (error) {
		char hint[SHORTAGE_TEXT_MAX];

		shortage_text(error, services->files_max, hint);
		deny(guest, "too_many_connections", hint);
		return;
	}
	guest->state = GUEST_PARKED;
	guest->deadline_ms = 0;
}

/* Only to the host that the connection is for, as far as its TLS says. */
static bool step_passed(struct guest *guest)
{
	uint8_t record[CLIENT_HELLO_RECORD_MAX];
	ssize_t count =
		recv(stream_fd(&guest->stream), record, sizeof(record), MSG_PEEK | MSG_DONTWAIT);
	struct host_name name;
	int result;

	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (count <= 0) {
		close_guest(guest);
		return true;
	}
	result = client_hello_record(record, (size_t)count, &name);
	if (result == -EAGAIN)
		return false;
	if (result || !host_name_equal(&name, &guest->origin.name))
		deny(guest, "host_mismatch",
		     "what is passed through must be TLS with the server name that was looked up");
	else
		connect_tunnel(guest, NULL);
	return true;
}

/* ---- TLS ------------------------------------------------------------------------------------ */

static bool step_tls(struct guest *guest)
{
	switch (guest_handshake_turn(guest->handshake)) {
	case GUEST_HANDSHAKE_OPEN:
		return false;
	case GUEST_HANDSHAKE_PARKED:
		guest->state = GUEST_PARKED;
		guest->deadline_ms = 0;
		break;
	case GUEST_HANDSHAKE_HTTP1:
		guest->upstream = guest_handshake_take_upstream(guest->handshake);
		start_http(guest);
		break;
	case GUEST_HANDSHAKE_HTTP2:
		start_http2(guest);
		break;
	case GUEST_HANDSHAKE_FAILED:
		close_guest(guest);
		break;
	}
	return true;
}

static void on_handshake_changed(void *context)
{
	struct guest *guest = context;

	guest->state = GUEST_TLS;
	set_deadline(guest, HANDSHAKE_MS);
	on_ready(&guest->stream);
}

static void start_tls(struct guest *guest)
{
	guest->handshake = guest_handshake_new(guest->guests->services, &guest->origin,
					       &guest->stream, on_handshake_changed, guest);
	if (!guest->handshake) {
		close_guest(guest);
		return;
	}
	guest->origin.is_tls = true;
	guest->state = GUEST_TLS;
	set_deadline(guest, HANDSHAKE_MS);
}

/* The program went away while a server is being connected. */
static void step_parked(struct guest *guest)
{
	uint8_t byte;

	if (recv(stream_fd(&guest->stream), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		close_guest(guest);
}

/* ---- the beginning -------------------------------------------------------------------------- */

/* What the rules say of the connection as a whole; a refusal is told in its own protocol, later. */
static void choose_transport(struct guest *guest)
{
	struct egress_verdict verdict = { .transport = EGRESS_INTERCEPTED };

	guest->state = GUEST_FIRST;
	set_deadline(guest, IDLE_MS);
	if (guest->origin.denied)
		return;
	egress_policy_judge_connection(guest->guests->services->policy, &guest->origin.name,
				       guest->origin.port, &verdict);
	if (!verdict.allowed && verdict.transport == EGRESS_OPAQUE) {
		deny(guest, verdict.reason, verdict.hint);
		return;
	}
	if (!verdict.allowed || verdict.transport == EGRESS_INTERCEPTED)
		return;
	if (!make_tunnel(guest, verdict.rule))
		return;
	if (verdict.transport == EGRESS_OPAQUE) {
		connect_tunnel(guest, verdict.limits);
		return;
	}
	guest->state = GUEST_PASSED;
	set_deadline(guest, HANDSHAKE_MS);
}

static void take_hello(struct guest *guest)
{
	struct egress_target target;
	struct ip_address address = { 0 };

	if (egress_decode_hello(guest->hello, &target) < 0) {
		close_guest(guest);
		return;
	}
	address.family = target.family;
	memcpy(address.bytes, target.address, sizeof(address.bytes));
	guest->origin.port = target.port;
	if (synthetic_addresses_name(guest->guests->services->addresses, &address,
				     &guest->origin.name) < 0) {
		char text[IP_ADDRESS_TEXT_MAX];

		/* For the log; it is no name that could be asked for. */
		ip_address_text(&address, text);
		memcpy(guest->origin.name.text, text, sizeof(text));
		guest->origin.name.length = (uint8_t)strlen(text);
		guest->origin.denied = "address_literal";
	}
	choose_transport(guest);
}

static bool step_hello(struct guest *guest)
{
	ssize_t count = stream_read(&guest->stream, guest->hello + guest->hello_length,
				    sizeof(guest->hello) - guest->hello_length);

	if (count == -EAGAIN)
		return false;
	if (count <= 0) {
		close_guest(guest);
		return true;
	}
	guest->hello_length += (size_t)count;
	if (guest->hello_length == sizeof(guest->hello))
		take_hello(guest);
	return true;
}

/* TLS, or what may be a request, or nothing that is spoken here. */
static bool step_first(struct guest *guest)
{
	uint8_t byte;
	ssize_t count = recv(stream_fd(&guest->stream), &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (count <= 0)
		close_guest(guest);
	else if (byte == TLS_HANDSHAKE_RECORD)
		start_tls(guest);
	else if ((byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z'))
		start_http(guest);
	else
		deny(guest, "protocol_not_allowed",
		     "neither TLS nor HTTP; another protocol needs a rule of its own");
	return true;
}

/* Until the program has read the answer and ended its side too, or time is up. */
static void step_closing(struct guest *guest)
{
	uint8_t waste[4096];
	ssize_t count;

	if (!guest->codec.leg.ops->flush(&guest->codec.leg))
		return;
	stream_end_write(&guest->stream);
	do {
		count = stream_read(&guest->stream, waste, sizeof(waste));
		guest->discarded += count > 0 ? (size_t)count : 0;
	} while (count > 0 && guest->discarded < DISCARD_MAX);
	if (count != -EAGAIN)
		close_guest(guest);
}

/* ---- events --------------------------------------------------------------------------------- */

/* True when the state changed, so that there may be more to do. */
static bool step(struct guest *guest)
{
	switch (guest->state) {
	case GUEST_HELLO:
		return step_hello(guest);
	case GUEST_FIRST:
		return step_first(guest);
	case GUEST_TLS:
		return step_tls(guest);
	case GUEST_PASSED:
		return step_passed(guest);
	case GUEST_PARKED:
		step_parked(guest);
		return false;
	case GUEST_HTTP:
		guest->wants_turn = false;
		http1_codec_turn(&guest->codec);
		return guest->wants_turn;
	case GUEST_HTTP2:
		step_http2(guest);
		return false;
	case GUEST_TUNNEL:
		turn_tunnel(guest);
		return false;
	case GUEST_CLOSING:
		step_closing(guest);
		return false;
	case GUEST_CLOSED:
		return false;
	}
	return false;
}

static void on_ready(struct stream *stream)
{
	struct guest *guest = (struct guest *)stream;

	enter(guest);
	while (step(guest)) {
	}
	leave(guest);
}

struct guests *guests_new(const struct services *services)
{
	struct guests *guests = calloc(1, sizeof(*guests));

	if (!guests)
		return NULL;
	guests->services = services;
	guests->deep_left = GUESTS_DEEP_MAX;
	return guests;
}

void guests_free(struct guests *guests)
{
	if (!guests)
		return;
	while (guests->all) {
		struct guest *guest = guests->all;

		enter(guest);
		close_guest(guest);
		leave(guest);
	}
	free(guests);
}

void guests_add(struct guests *guests, int fd)
{
	struct guest *guest = guests->count < GUESTS_MAX ? calloc(1, sizeof(*guest)) : NULL;

	if (!guest) {
		close(fd);
		return;
	}
	if (stream_init(&guest->stream, guests->services->loop, fd, on_ready) < 0) {
		free(guest);
		return;
	}
	stream_may_deepen(&guest->stream, &guests->deep_left);
	guest->guests = guests;
	DL_APPEND(guests->all, guest);
	guests->count++;
	set_deadline(guest, HELLO_MS);
	on_ready(&guest->stream);
}

void guests_sweep(struct guests *guests, uint64_t now_ms)
{
	struct guest *guest = guests->all;

	while (guest) {
		struct guest *next = guest->next;

		if (guest->deadline_ms > 0 && now_ms >= guest->deadline_ms) {
			enter(guest);
			close_guest(guest);
			leave(guest);
		} else if (guest->state == GUEST_TUNNEL && guest_tunnel_is_frozen(guest->tunnel)) {
			enter(guest);
			cut_tunnel(guest);
			leave(guest);
		}
		guest = next;
	}
}
