/*
 * TLS on both sides of the broker: what is set once for all connections, and what a connection
 * needs besides. The guest's side presents leaves of the session's authority; the upstream side
 * verifies strictly. TLS 1.2 or newer on both.
 *
 * Theory of operation. A guest's handshake stops at its ClientHello (OpenSSL's client hello
 * callback, with "retry") until the broker knows what to answer: which protocol the server speaks,
 * or that there is none to be reached. tls_guest_answer() sets that and the handshake goes on. So
 * the guest negotiates with the server's own answer, and nothing is minted for a name before it is
 * known which one it is.
 */
#ifndef PROXY_TLS_H
#define PROXY_TLS_H

#include "proxy/host_name.h"
#include "proxy/session_ca.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Application protocols (RFC 7301), as bits. */
enum tls_protocol {
	TLS_PROTOCOL_HTTP1 = 1 << 0,
	TLS_PROTOCOL_HTTP2 = 1 << 1,
};

struct stream;
struct tls;

/* Loads the host's trusted certificates and those of `extra_ca_fd` (PEM, -1: none), so call it
 * before the jail. Borrows `ca`. 0, -ENOENT when there are no trusted certificates at all, -EBADMSG
 * for extra ones that cannot be read, -ENOMEM. */
int tls_new(struct session_ca *ca, int extra_ca_fd, struct tls **ret_tls);
void tls_free(struct tls *tls);

/* ---- the guest's side ----------------------------------------------------------------------- */

/* What the guest's ClientHello asks for; set when its handshake first stops. */
struct tls_hello {
	bool has_name;
	bool has_bad_name;     /* a server name that is no host name */
	struct host_name name; /* server name indication */
	bool has_protocols;    /* the extension was there */
	unsigned protocols;    /* those of enum tls_protocol in it */
	unsigned answer;       /* what tls_guest_answer() chose */
	bool is_answered;
	int alert; /* instead of an answer, or 0 */
};

/* A server's SSL for stream_set_tls(); `hello` stays the caller's. NULL without memory. */
SSL *tls_guest_new(struct tls *tls, struct stream *stream, struct tls_hello *hello);
/* Lets the handshake go on with a leaf for `name` and that protocol (0: none). 0 or an error of
 * session_ca_leaf(). */
int tls_guest_answer(struct tls *tls, SSL *ssl, struct tls_hello *hello,
		     const struct host_name *name, unsigned protocol);
/* Lets it end with an alert (SSL_AD_...). */
void tls_guest_refuse(struct tls_hello *hello, int alert);

/* ---- upstream ------------------------------------------------------------------------------- */

/* A client's SSL for stream_set_tls(), to the server `name`, offering `protocols`
 * (0: no extension). It resumes an earlier session where there is one. One that shall show a
 * client's certificate is made with `is_identified`, which resumes none and leaves none: a session
 * stands for who was there when it began. */
SSL *tls_upstream_new(struct tls *tls, struct stream *stream, const struct host_name *name,
		      unsigned protocols, bool is_identified);
/* After the handshake. */
unsigned tls_upstream_protocol(SSL *ssl);
/* Why a handshake failed, for people: the check that the certificate did not pass, or what else.
 * Static or per-thread storage of the library. */
const char *tls_upstream_failure(SSL *ssl, bool *ret_is_certificate);

/* Frees an SSL such that its session can be resumed. */
void tls_end(SSL *ssl);

#endif
