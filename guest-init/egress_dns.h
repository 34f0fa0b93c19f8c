/*
 * The guest's name server, at 127.0.0.1 and ::1: it passes queries to the host over one stream and
 * the answers back. It does not look into them beyond their id, which is the stub's own on the
 * stream, so that any number of programs may use the same.
 *
 * Limits: EGRESS_DNS_PENDING queries at a time, the oldest is forgotten then; what the stream does
 * not take within EGRESS_DNS_OUTPUT_MAX bytes is dropped, as the network might. A resolver asks
 * again.
 */
#ifndef GUEST_INIT_EGRESS_DNS_H
#define GUEST_INIT_EGRESS_DNS_H

#include "base/event_loop.h"
#include "guest-init/egress_streams.h"

#define EGRESS_DNS_PENDING 4096 /* power of two */
#define EGRESS_DNS_OUTPUT_MAX 262144

struct egress_dns;

/* Serves queries that come to `sockets`, bound UDP sockets, non-blocking, which become the stub's.
 * `loop` is borrowed. 0 or a negative errno, with the sockets still the caller's. */
int egress_dns_new(struct event_loop *loop, egress_dial dial, void *context, const int sockets[2],
		   struct egress_dns **ret_dns);
void egress_dns_free(struct egress_dns *dns);

#endif
