/*
 * The connections of the guest's programs (wire/egress.h): from the hello, through TLS if that is
 * what comes, to one request after another, or a tunnel.
 */
#ifndef PROXY_GUEST_H
#define PROXY_GUEST_H

#include "proxy/services.h"

#include <stddef.h>
#include <stdint.h>

#define GUESTS_MAX 12288u
/* Connections with a deep socket at a time, of up to 2 MiB in the kernel each, if nobody reads. */
#define GUESTS_DEEP_MAX 16u

struct guests;

/* NULL without memory. */
struct guests *guests_new(const struct services *services);
/* Closes all of them. */
void guests_free(struct guests *guests);
/* Takes over a connection of EGRESS_STREAM_PORT, non-blocking. Over GUESTS_MAX, or without memory,
 * it is closed at once. */
void guests_add(struct guests *guests, int fd);
/* Ends what takes too long; to be called about once a second. */
void guests_sweep(struct guests *guests, uint64_t now_ms);

#endif
