/*
 * What the broker reads of a ClientHello: the server name (RFC 6066 section 3) and the application
 * protocols (RFC 7301 section 3.1). The extensions are given as they are on the wire, without type
 * and length. A whole ClientHello is looked at only where TLS is not the broker's own, that is, for
 * hosts that are passed through.
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

/* The server name in the TLS record at data[0..length) (RFC 8446 sections 4.1.2 and 5.1). -EAGAIN
 * when the record is not complete; -ENOENT when it names none; -EBADMSG for what is no ClientHello
 * in one record; else as client_hello_server_name(). */
int client_hello_record(const uint8_t *data, size_t length, struct host_name *ret_name);

/* Bytes of the largest record. */
#define CLIENT_HELLO_RECORD_MAX (5u + 16384u)

#endif
