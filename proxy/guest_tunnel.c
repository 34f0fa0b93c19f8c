#include "proxy/guest_tunnel.h"

#include "base/clock.h"
#include "proxy/egress_policy.h"
#include "proxy/egress_report.h"
#include "proxy/request_check.h"
#include "proxy/tunnel.h"
#include "proxy/tunnel_budget.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct guest_tunnel {
	const struct services *services;
	const struct exchange_origin *origin;
	struct stream *guest;
	char *rule;
	void (*changed)(void *context);
	void *context;
	struct upstream *upstream;
	bool is_connecting; /* `upstream` is not ours to use yet */
	bool is_open;
	struct http1_codec *codec; /* of the request that was upgraded, or NULL */
	struct byte_buffer early;  /* of a tunnel that never was HTTP: empty */
	struct tunnel tunnel;
	struct websocket_relay *websocket;
	struct tunnel_budget *budget; /* of one whose rule has limits */
	uint64_t started_ns;
};

/* ---- the log -------------------------------------------------------------------------------- */

bool guest_tunnel_is_frozen(const struct guest_tunnel *tunnel)
{
	return egress_policy_is_frozen(tunnel->services->policy) && !tunnel->tunnel.is_stopped;
}

static const char *reason_of(const struct guest_tunnel *tunnel)
{
	const struct websocket_relay *websocket = tunnel->websocket;

	if (websocket &&
	    (websocket_relay_reason(websocket) || websocket_relay_is_closed(websocket)))
		return websocket_relay_reason(websocket);
	if (tunnel->budget && tunnel_budget_reason(tunnel->budget))
		return tunnel_budget_reason(tunnel->budget);
	if (guest_tunnel_is_frozen(tunnel))
		return "session_frozen";
	return tunnel->tunnel.failed ? "broken" : NULL;
}

static void tell(const struct guest_tunnel *tunnel)
{
	const struct services *services = tunnel->services;
	const struct request_verdict *verdict =
		tunnel->websocket ? websocket_relay_verdict(tunnel->websocket) : NULL;
	char secrets[REQUEST_SECRETS_MAX] = "";
	struct egress_entry entry = {
		.operation = "tunnel",
		.host = tunnel->origin->name.text,
		.port = tunnel->origin->port,
		.address = upstream_address(tunnel->upstream),
		.protocol = verdict ? "websocket" : "tcp",
		.reason = reason_of(tunnel),
		.rule = verdict && verdict->rule[0] ? verdict->rule : tunnel->rule,
		.sent = tunnel->tunnel.out.moved,
		.received = tunnel->tunnel.in.moved,
		.duration_ns = clock_now_ns() - tunnel->started_ns,
	};

	if (verdict)
		request_secret_names(services, verdict, secrets);
	entry.secrets = secrets[0] ? secrets : NULL;
	egress_report_connection(services->report, &entry);
}

static void tell_unreached(const struct guest_tunnel *tunnel,
			   const struct upstream_failure *failure)
{
	const struct egress_entry entry = {
		.operation = "tunnel",
		.host = tunnel->origin->name.text,
		.port = tunnel->origin->port,
		.protocol = "tcp",
		.reason = failure->reason,
		.rule = tunnel->rule,
		.duration_ns = clock_now_ns() - tunnel->started_ns,
	};

	egress_report_connection(tunnel->services->report, &entry);
}

/* ---- lifetime ------------------------------------------------------------------------------- */

struct guest_tunnel *guest_tunnel_new(const struct services *services,
				      const struct exchange_origin *origin, struct stream *guest,
				      const char *rule, void (*changed)(void *context),
				      void *context)
{
	struct guest_tunnel *tunnel = calloc(1, sizeof(*tunnel));

	if (!tunnel)
		return NULL;
	tunnel->services = services;
	tunnel->origin = origin;
	tunnel->guest = guest;
	tunnel->rule = rule ? strdup(rule) : NULL;
	tunnel->changed = changed;
	tunnel->context = context;
	byte_buffer_init(&tunnel->early, TUNNEL_BUFFER_MAX);
	return tunnel;
}

void guest_tunnel_close(struct guest_tunnel *tunnel)
{
	if (tunnel->is_open)
		tell(tunnel);
	tunnel->is_open = false;
	if (tunnel->upstream && tunnel->is_connecting)
		upstream_cancel(tunnel->upstream);
	else if (tunnel->upstream)
		upstream_release(tunnel->upstream);
	tunnel->upstream = NULL;
}

void guest_tunnel_free(struct guest_tunnel *tunnel)
{
	if (!tunnel)
		return;
	guest_tunnel_close(tunnel);
	byte_buffer_release(&tunnel->early);
	free(tunnel->rule);
	tunnel_release(&tunnel->tunnel);
	websocket_relay_free(tunnel->websocket);
	tunnel_budget_free(tunnel->budget);
	free(tunnel);
}

/* ---- the server's side ---------------------------------------------------------------------- */

static void on_ready(void *context)
{
	struct guest_tunnel *tunnel = context;

	tunnel->changed(tunnel->context);
}

static void open_tunnel(struct guest_tunnel *tunnel)
{
	struct tunnel_screen *screen = NULL;
	struct byte_buffer *input;
	struct stream *stream = upstream_open_tunnel(tunnel->upstream, on_ready, tunnel, &input);

	if (tunnel->websocket)
		screen = websocket_relay_screen(tunnel->websocket);
	else if (tunnel->budget)
		screen = tunnel_budget_screen(tunnel->budget);
	tunnel_init(&tunnel->tunnel, tunnel->guest,
		    tunnel->codec ? &tunnel->codec->input : &tunnel->early, stream, input, screen);
	tunnel->started_ns = clock_now_ns();
	tunnel->is_open = true;
}

static void on_connected(void *context, struct upstream *upstream,
			 const struct upstream_failure *failure)
{
	struct guest_tunnel *tunnel = context;

	tunnel->upstream = upstream;
	tunnel->is_connecting = false;
	if (upstream)
		open_tunnel(tunnel);
	else
		tell_unreached(tunnel, failure);
	tunnel->changed(tunnel->context);
}

int guest_tunnel_connect(struct guest_tunnel *tunnel, const struct egress_rule *limits)
{
	const struct services *services = tunnel->services;
	const struct upstream_target target = {
		.name = tunnel->origin->name,
		.port = tunnel->origin->port,
	};
	int error;

	if (limits) {
		egress_policy_spend_connection(services->policy, limits);
		tunnel->budget = tunnel_budget_new(services, tunnel->origin, limits);
		if (!tunnel->budget)
			return -ENOMEM;
	}
	tunnel->started_ns = clock_now_ns();
	error = upstream_connect(services->upstreams, &target, on_connected, tunnel,
				 &tunnel->upstream);
	tunnel->is_connecting = !error;
	return error;
}

void guest_tunnel_upgrade(struct guest_tunnel *tunnel, struct http1_codec *codec,
			  struct upstream *upstream, struct websocket_relay *websocket)
{
	tunnel->codec = codec;
	tunnel->upstream = upstream;
	tunnel->websocket = websocket;
	open_tunnel(tunnel);
}

enum guest_tunnel_progress guest_tunnel_turn(struct guest_tunnel *tunnel)
{
	if (!tunnel->is_open || guest_tunnel_is_frozen(tunnel))
		return GUEST_TUNNEL_CUT;
	/* The answer that opened it goes first. */
	if (tunnel->codec && !tunnel->codec->leg.ops->flush(&tunnel->codec->leg))
		return GUEST_TUNNEL_OPEN;
	if (!tunnel_turn(&tunnel->tunnel))
		return GUEST_TUNNEL_OVER;
	return tunnel->tunnel.is_stopped ? GUEST_TUNNEL_STOPPED : GUEST_TUNNEL_OPEN;
}
