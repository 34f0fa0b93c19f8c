/*
 * The guest's DNS queries (EGRESS_DNS_PORT): streams of messages, each behind its length (RFC 1035
 * section 4.2.2), answered in order and at once by dns_answer.h.
 */
#ifndef PROXY_DNS_STREAM_H
#define PROXY_DNS_STREAM_H

#include "proxy/services.h"

#define DNS_STREAMS_MAX 256u

struct dns_streams;

/* NULL without memory. */
struct dns_streams *dns_streams_new(const struct services *services);
/* Closes all of them. */
void dns_streams_free(struct dns_streams *streams);
/* Takes over a connection, non-blocking. Over DNS_STREAMS_MAX it is closed at once. */
void dns_streams_add(struct dns_streams *streams, int fd);

#endif
