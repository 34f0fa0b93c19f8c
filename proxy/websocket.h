/*
 * The opening handshake of WebSocket over HTTP/1.1 (RFC 6455 section 4): the only upgrade that the
 * broker carries, and only where both sides keep to the handshake, because behind it bytes are
 * opaque.
 */
#ifndef PROXY_WEBSOCKET_H
#define PROXY_WEBSOCKET_H

#include "proxy/http_head.h"

#include <stdbool.h>

/* Base64 of a SHA-1 digest, with its NUL. */
#define WEBSOCKET_ACCEPT_SIZE 29u

/* Whether the request asks for it rightly; then `accept` is what the answer must say. */
bool websocket_is_request(const struct http_head *request, char accept[WEBSOCKET_ACCEPT_SIZE]);
/* Whether the response, a 101, is the answer to that request. */
bool websocket_is_accepted(const struct http_head *response, const char *accept);

#endif
