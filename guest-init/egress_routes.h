/*
 * Routes that bring every TCP connection of the guest to the guest itself, and nothing else
 * anywhere: raw rtnetlink.
 *
 * The loopback interface gets one address of each family, the source of all connections. They are
 * no loopback addresses, because resolvers take a machine that has none but those for one without
 * network (AI_ADDRCONFIG). A rule sends the lookups of TCP to a table of its own, whose default
 * route is of type "local": the kernel hands a packet to any address to itself. There is no other
 * route, so UDP, ICMP and raw sockets get ENETUNREACH at once.
 */
#ifndef GUEST_INIT_EGRESS_ROUTES_H
#define GUEST_INIT_EGRESS_ROUTES_H

#include "guest-init/failure.h"

#include <stdint.h>

/* 192.0.0.2, for hosts that reach IPv4 through something else (RFC 7335). */
#define EGRESS_OWN_V4 0xc0000002U
/* Unique local (RFC 4193). */
extern const uint8_t egress_own_v6[16];

/* Loopback is up. 0 or a negative errno. */
int egress_routes_set(struct failure *failure);
/* TCP gets ENETUNREACH, too: for when nobody takes the connections any more, which would wait for
 * an answer that has no way back. */
void egress_routes_clear(void);

#endif
