/*
 * A guest's connection that speaks HTTP/2: any number of exchanges at once.
 */
#ifndef PROXY_GUEST_HTTP2_H
#define PROXY_GUEST_HTTP2_H

#include "proxy/exchange.h"
#include "proxy/services.h"
#include "proxy/stream.h"

#include <stdbool.h>

struct guest_http2;

/* All is borrowed. NULL without memory. */
struct guest_http2 *guest_http2_new(const struct services *services,
				    const struct exchange_origin *origin, struct stream *stream);
void guest_http2_free(struct guest_http2 *guest);
/* To be called when the stream is ready. False when the connection is over. */
bool guest_http2_turn(struct guest_http2 *guest);
bool guest_http2_is_idle(const struct guest_http2 *guest);

#endif
