/*
 * The HTTP proxy between the host and the world that some networks insist on: its URL, the request
 * for a tunnel through it, and what it answers.
 *
 * A proxy resolves names itself. Which addresses it then connects to is its own affair; the broker
 * can only judge the name.
 *
 * Sources: RFC 9110 section 9.3.6 (CONNECT), RFC 9112 section 4, RFC 7617 (Basic).
 */
#ifndef PROXY_UPSTREAM_PROXY_H
#define PROXY_UPSTREAM_PROXY_H

#include "proxy/address_class.h"
#include "proxy/host_name.h"

#include <sys/types.h>

#define UPSTREAM_PROXY_URL_MAX 2048u
#define UPSTREAM_PROXY_CREDENTIALS_MAX 512u /* bytes of USER:PASSWORD */
#define UPSTREAM_PROXY_REQUEST_MAX 2048u
#define UPSTREAM_PROXY_RESPONSE_MAX 8192u /* bytes of the head of an answer */

struct upstream_proxy {
	bool has_name; /* else `address` */
	struct host_name name;
	struct ip_address address;
	uint16_t port;
	char authorization[768]; /* a field's value, a secret; or "" */
};

/* "http://[USER[:PASSWORD]@]HOST[:PORT][/]"; the host may be an address, the port is 80 by
 * default. -EINVAL; -EPROTONOSUPPORT for another scheme. */
int upstream_proxy_parse(const char *url, struct upstream_proxy *ret_proxy);

/* Writes the request for a tunnel to name:port and returns its length. */
size_t upstream_proxy_request(const struct upstream_proxy *proxy, const struct host_name *name,
			      uint16_t port, char request[static UPSTREAM_PROXY_REQUEST_MAX]);

/* The length of the head at the beginning of data[0..length), its empty line included; 0 when it
 * is not complete yet. */
size_t upstream_proxy_head_length(const char *data, size_t length);
/* The status code of a whole head; -EBADMSG for what is not HTTP/1. */
int upstream_proxy_status(const char *head, size_t length);

#endif
