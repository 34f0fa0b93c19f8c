/*
 * The two extensions of a ClientHello that the broker reads: server name (RFC 6066 section 3) and
 * application protocols (RFC 7301 section 3.1). Both as they are on the wire, without the
 * extension's type and length.
 */
#ifndef PROXY_CLIENT_HELLO_H
#define PROXY_CLIENT_HELLO_H

#include "proxy/host_name.h"

#include <stddef.h>
#include <stdint.h>

/* -EBADMSG for a list that is malformed or has other than one host name in it; -EINVAL or -ENOTSUP
 * for a name that is none (host_name_parse()). */
int client_hello_server_name(const uint8_t *data, size_t length, struct host_name *ret_name);

/* Those protocols of enum tls_protocol that are offered, as bits; 0 also for a malformed list. */
unsigned client_hello_protocols(const uint8_t *data, size_t length);

#endif
