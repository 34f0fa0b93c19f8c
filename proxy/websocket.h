/*
 * The opening handshake of WebSocket over HTTP/1.1 (RFC 6455 section 4): the only upgrade that the
 * broker carries, and only where both sides keep to the handshake. What comes behind it is for
 * websocket_frames.h.
 */
#ifndef PROXY_WEBSOCKET_H
#define PROXY_WEBSOCKET_H

#include "proxy/http_head.h"

#include <stdbool.h>

/* Base64 of a SHA-1 digest, with its NUL. */
#define WEBSOCKET_ACCEPT_SIZE 29u

/* Whether the request asks for it rightly; then `accept` is what the answer must say. */
bool websocket_is_request(const struct http_head *request, char accept[WEBSOCKET_ACCEPT_SIZE]);
/* Takes all extensions out of such a request, so that frames are what RFC 6455 says: compressed
 * ones could not be searched. */
void websocket_drop_extensions(struct http_head *request);
/* Whether the response, a 101, is the answer to that request, without any extension. */
bool websocket_is_accepted(const struct http_head *response, const char *accept);

#endif
