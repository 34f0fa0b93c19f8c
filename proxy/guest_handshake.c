#include "proxy/guest_handshake.h"

#include "proxy/egress_policy.h"
#include "proxy/egress_report.h"
#include "proxy/tls.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdlib.h>

struct guest_handshake {
	const struct services *services;
	struct exchange_origin *origin;
	struct stream *guest;
	void (*changed)(void *context);
	void *context;
	struct tls_hello hello;
	struct upstream *upstream;
	bool is_parked; /* `upstream` is not ours to use yet */
	bool has_failed;
};

static void refuse(struct guest_handshake *handshake, int alert, const char *reason,
		   const char *hint)
{
	const struct egress_entry entry = {
		.operation = "connect",
		.host = handshake->origin->name.text,
		.port = handshake->origin->port,
		.protocol = "tls",
		.reason = reason,
		.hint = hint,
	};

	egress_report_denial(handshake->services->report, &entry);
	tls_guest_refuse(&handshake->hello, alert);
	(void)stream_handshake(handshake->guest);
	handshake->has_failed = true;
}

/* Goes on with what the server chose, or, where none was asked, with what the broker prefers. */
static void answer(struct guest_handshake *handshake)
{
	const struct tls_hello *hello = &handshake->hello;
	unsigned protocol = TLS_PROTOCOL_HTTP1;

	if (handshake->upstream)
		protocol = upstream_protocol(handshake->upstream);
	else if (hello->has_protocols && !(hello->protocols & TLS_PROTOCOL_HTTP1))
		protocol = TLS_PROTOCOL_HTTP2;
	if (hello->has_protocols && !(hello->protocols & protocol)) {
		refuse(handshake, SSL_AD_NO_APPLICATION_PROTOCOL, "protocol_not_offered",
		       "the server does not speak the protocol that was asked for");
		return;
	}
	if (tls_guest_answer(handshake->services->tls, handshake->guest->ssl, &handshake->hello,
			     &handshake->origin->name, protocol) < 0)
		handshake->has_failed = true;
}

static void on_connected(void *context, struct upstream *upstream,
			 const struct upstream_failure *failure)
{
	struct guest_handshake *handshake = context;

	/* A failure shows again when the request comes, and is told there. */
	(void)failure;
	handshake->upstream = upstream;
	handshake->is_parked = false;
	answer(handshake);
	handshake->changed(handshake->context);
}

static bool is_allowed(const struct guest_handshake *handshake)
{
	struct egress_verdict verdict;

	if (handshake->origin->denied)
		return false;
	egress_policy_judge_connection(handshake->services->policy, &handshake->origin->name,
				       handshake->origin->port, &verdict);
	return verdict.allowed;
}

static void connect_ahead(struct guest_handshake *handshake)
{
	const struct tls_hello *hello = &handshake->hello;
	const struct upstream_target target = {
		.name = handshake->origin->name,
		.port = handshake->origin->port,
		.is_tls = true,
		.protocols = hello->has_protocols ? hello->protocols : TLS_PROTOCOL_HTTP1,
	};
	struct upstream_pool *pool = handshake->services->upstreams;

	if (is_allowed(handshake)) {
		/* What the request will be, nobody knows yet. */
		handshake->upstream = upstream_take_live(pool, &target);
		if (!handshake->upstream && upstream_connect(pool, &target, on_connected, handshake,
							     &handshake->upstream) == 0) {
			handshake->is_parked = true;
			return;
		}
	}
	answer(handshake);
}

static void judge_hello(struct guest_handshake *handshake)
{
	const struct tls_hello *hello = &handshake->hello;
	struct exchange_origin *origin = handshake->origin;

	if (hello->has_bad_name || (origin->denied && !hello->has_name)) {
		refuse(handshake, SSL_AD_UNRECOGNIZED_NAME, "server_name_invalid",
		       "TLS without a server name that is a host name");
		return;
	}
	if (origin->denied) {
		origin->name = hello->name;
	} else if (hello->has_name && !host_name_equal(&hello->name, &origin->name)) {
		refuse(handshake, SSL_AD_UNRECOGNIZED_NAME, "host_mismatch",
		       "the TLS server name is not the name that was looked up");
		return;
	}
	if (hello->has_protocols && hello->protocols == 0) {
		refuse(handshake, SSL_AD_NO_APPLICATION_PROTOCOL, "protocol_not_allowed",
		       "neither HTTP/1.1 nor HTTP/2; another protocol needs a rule");
		return;
	}
	connect_ahead(handshake);
}

struct guest_handshake *guest_handshake_new(const struct services *services,
					    struct exchange_origin *origin, struct stream *guest,
					    void (*changed)(void *context), void *context)
{
	struct guest_handshake *handshake = calloc(1, sizeof(*handshake));
	SSL *ssl = handshake ? tls_guest_new(services->tls, guest, &handshake->hello) : NULL;

	if (!ssl) {
		free(handshake);
		return NULL;
	}
	handshake->services = services;
	handshake->origin = origin;
	handshake->guest = guest;
	handshake->changed = changed;
	handshake->context = context;
	stream_set_tls(guest, ssl);
	return handshake;
}

void guest_handshake_close(struct guest_handshake *handshake)
{
	if (handshake->upstream && handshake->is_parked)
		upstream_cancel(handshake->upstream);
	else if (handshake->upstream)
		upstream_release(handshake->upstream);
	handshake->upstream = NULL;
}

void guest_handshake_free(struct guest_handshake *handshake)
{
	if (!handshake)
		return;
	guest_handshake_close(handshake);
	free(handshake);
}

enum guest_handshake_progress guest_handshake_turn(struct guest_handshake *handshake)
{
	int result = -EINPROGRESS;

	while (!handshake->is_parked && !handshake->has_failed && result == -EINPROGRESS) {
		result = stream_handshake(handshake->guest);
		if (result == -EINPROGRESS)
			judge_hello(handshake);
	}
	if (handshake->has_failed)
		return GUEST_HANDSHAKE_FAILED;
	if (handshake->is_parked)
		return GUEST_HANDSHAKE_PARKED;
	if (result == -EAGAIN)
		return GUEST_HANDSHAKE_OPEN;
	if (result < 0)
		return GUEST_HANDSHAKE_FAILED;
	return handshake->hello.answer == TLS_PROTOCOL_HTTP2 ? GUEST_HANDSHAKE_HTTP2
							     : GUEST_HANDSHAKE_HTTP1;
}

struct upstream *guest_handshake_take_upstream(struct guest_handshake *handshake)
{
	struct upstream *upstream = handshake->upstream;

	handshake->upstream = NULL;
	return upstream;
}
