/*
 * Answers to the guest's DNS queries, made here: no query of a guest is ever sent anywhere, so
 * that a name carries nothing out.
 *
 *	A, AAAA			the name's synthetic address, for every name, allowed or not: a
 *				refusal is then an HTTP answer that can be read, not an outage
 *	HTTPS, SVCB, any other	no data: no ECH, no hint at HTTP/3, nothing to tunnel with
 *	no host name		NXDOMAIN, as for .invalid and .onion (RFC 6761, RFC 7686)
 *	localhost		the guest's own loopback (RFC 6761)
 *	ipv4only.arpa		NXDOMAIN: there is no NAT64 to be discovered (RFC 7050, RFC 8880)
 *	use-application-dns.net	NXDOMAIN, by which resolvers in browsers stay off
 *	not of class IN		REFUSED
 *	not a standard query	NOTIMP
 *	all names given out	SERVFAIL
 *
 * Sources: RFC 1035, 2181, 6891 (EDNS), 9460 (SVCB and HTTPS).
 */
#ifndef PROXY_DNS_ANSWER_H
#define PROXY_DNS_ANSWER_H

#include "proxy/synthetic_addresses.h"

#include <stddef.h>
#include <stdint.h>

/* No question is longer; a longer message has something else in it. */
#define DNS_QUERY_MAX 1232u
/* Every answer fits a datagram of the oldest kind. */
#define DNS_ANSWER_MAX 512u

/* Answers query[0..length) into `answer`. -EBADMSG for what deserves no answer (shorter than a
 * header, or itself an answer), -ENOMEM. */
int dns_answer(struct synthetic_addresses *addresses, const uint8_t *query, size_t length,
	       uint8_t answer[static DNS_ANSWER_MAX], size_t *ret_length);

#endif
