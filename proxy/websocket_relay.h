/*
 * What an opened WebSocket carries, held to the same as the request that opened it: placeholders of
 * secrets that may not go to that host end it, those of secrets that may be in a body are replaced,
 * values that the server says become placeholders, and all bytes behind the opening handshake,
 * frames' heads included, count against the limits of the rule. All messages of a side are searched
 * as one text, and all its control frames as another.
 *
 * What ends it is told to the log at once, and to both sides in a Close frame: to the guest with
 * the reason, to the server that its client goes away.
 */
#ifndef PROXY_WEBSOCKET_RELAY_H
#define PROXY_WEBSOCKET_RELAY_H

#include "proxy/exchange.h"
#include "proxy/request_check.h"
#include "proxy/services.h"
#include "proxy/tunnel.h"

struct websocket_relay;

/* `origin` and `services` are borrowed, `verdict` (of the request, which was allowed) and `path`
 * are copied. NULL without memory. */
struct websocket_relay *websocket_relay_new(const struct services *services,
					    const struct exchange_origin *origin,
					    const struct request_verdict *verdict,
					    const char *path);
void websocket_relay_free(struct websocket_relay *relay);

/* The relay's; what the tunnel is to have. */
struct tunnel_screen *websocket_relay_screen(struct websocket_relay *relay);
/* Why it was stopped, a word that stays; NULL when it was not. */
const char *websocket_relay_reason(const struct websocket_relay *relay);
/* Both sides have said Close: whatever comes after it breaks nothing. */
bool websocket_relay_is_closed(const struct websocket_relay *relay);
/* Of the request, with the secrets that were put into frames until now. */
const struct request_verdict *websocket_relay_verdict(struct websocket_relay *relay);

#endif
