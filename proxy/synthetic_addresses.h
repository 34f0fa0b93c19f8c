/*
 * Addresses that stand for names. Each name that the guest asks for gets one address of each
 * family, the same for the whole session; a connection to it then says which name is meant. No
 * packet is ever sent to any of them.
 *
 * IPv4: 198.18.0.0/15 (RFC 2544: never on the Internet), without final octets of 0 and 255, which
 * some programs take for networks and broadcasts. IPv6: a unique local /96 (RFC 4193) that ends in
 * the IPv4 address.
 *
 * A guest can name what it likes, so there are at most SYNTHETIC_NAMES_MAX names; none is
 * forgotten, because a program may hold its address for as long as it runs.
 */
#ifndef PROXY_SYNTHETIC_ADDRESSES_H
#define PROXY_SYNTHETIC_ADDRESSES_H

#include "proxy/address_class.h"
#include "proxy/host_name.h"

#define SYNTHETIC_NAMES_MAX 32768u

struct synthetic_addresses;

/* NULL without memory. */
struct synthetic_addresses *synthetic_addresses_new(void);
void synthetic_addresses_free(struct synthetic_addresses *table);

/* The name's addresses, new ones if need be; either may be NULL. -ENOSPC when all are given out,
 * -ENOMEM. */
int synthetic_addresses_of(struct synthetic_addresses *table, const struct host_name *name,
			   struct ip_address *ret_v4, struct ip_address *ret_v6);
/* The name that the address stands for; -ENOENT for every other address. */
int synthetic_addresses_name(const struct synthetic_addresses *table,
			     const struct ip_address *address, struct host_name *ret_name);

#endif
