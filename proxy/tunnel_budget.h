/*
 * A tunnel of bytes that nobody looks at, held to the limits of its `tcp://` rule: what one
 * connection may send and receive, and what is left of the session's bytes. What is too much stops
 * the tunnel, and the log is told.
 */
#ifndef PROXY_TUNNEL_BUDGET_H
#define PROXY_TUNNEL_BUDGET_H

#include "proxy/egress_policy.h"
#include "proxy/exchange.h"
#include "proxy/services.h"
#include "proxy/tunnel.h"

struct tunnel_budget;

/* Borrows everything. NULL without memory. */
struct tunnel_budget *tunnel_budget_new(const struct services *services,
					const struct exchange_origin *origin,
					const struct egress_rule *limits);
void tunnel_budget_free(struct tunnel_budget *budget);

/* The budget's; what the tunnel is to have. */
struct tunnel_screen *tunnel_budget_screen(struct tunnel_budget *budget);
/* Why it was stopped, a word that stays; NULL when it was not. */
const char *tunnel_budget_reason(const struct tunnel_budget *budget);

#endif
