/*
 * A guest's connection whose bytes go both ways as they are: by a rule for what is not HTTP, passed
 * through, or as a WebSocket that a request opened. It is told to the log when it ends.
 */
#ifndef PROXY_GUEST_TUNNEL_H
#define PROXY_GUEST_TUNNEL_H

#include "proxy/egress_rule.h"
#include "proxy/exchange.h"
#include "proxy/http1_codec.h"
#include "proxy/services.h"
#include "proxy/stream.h"
#include "proxy/upstream.h"
#include "proxy/websocket_relay.h"

#include <stdbool.h>

enum guest_tunnel_progress {
	GUEST_TUNNEL_OPEN,
	GUEST_TUNNEL_STOPPED, /* by what screens it; both sides are still to end */
	GUEST_TUNNEL_OVER,
	GUEST_TUNNEL_CUT, /* there is no server, or the session is frozen: to end with a reset */
};

struct guest_tunnel;

/* `guest` is the guest's stream. `changed` is called when the server's side was reached or not, and
 * when that is ready; inside it the tunnel may be freed. All but `rule`, a name for the
 * log or NULL, is borrowed. NULL without memory. */
struct guest_tunnel *guest_tunnel_new(const struct services *services,
				      const struct exchange_origin *origin, struct stream *guest,
				      const char *rule, void (*changed)(void *context),
				      void *context);
/* Closes. NULL does nothing. */
void guest_tunnel_free(struct guest_tunnel *tunnel);
/* Tells the log, of a tunnel that was open, and ends the server's side. */
void guest_tunnel_close(struct guest_tunnel *tunnel);

/* Connects to the origin. `limits` (NULL: none) are those of the rule for such connections, and
 * this one counts. 0 or a negative errno. */
int guest_tunnel_connect(struct guest_tunnel *tunnel, const struct egress_rule *limits);
/* Goes on where an exchange has ended with an upgrade: what waits in the codec is first. Takes over
 * the connection and the relay, and borrows the codec. */
void guest_tunnel_upgrade(struct guest_tunnel *tunnel, struct http1_codec *codec,
			  struct upstream *upstream, struct websocket_relay *websocket);

/* Moves what can be moved; not while the server is being connected. */
enum guest_tunnel_progress guest_tunnel_turn(struct guest_tunnel *tunnel);
/* A tunnel that is stopped says goodbye, and carries nothing any more: it is not frozen. */
bool guest_tunnel_is_frozen(const struct guest_tunnel *tunnel);

#endif
