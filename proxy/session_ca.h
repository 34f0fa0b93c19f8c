/*
 * The session's own certificate authority: made at the start, kept in memory alone, trusted by the
 * session's guest and by nobody else. It mints a leaf certificate for each host name that the guest
 * speaks TLS to.
 *
 * All keys are P-256; one leaf key serves all names, because making keys is what costs. Leaves are
 * cached, the SESSION_CA_LEAVES_MAX used last. Profile: RFC 5280 sections 4.2.1.1 to 4.2.1.12, with
 * critical basicConstraints and keyUsage, key identifiers, and a start two days ago, because the
 * guest's clock need not be ours.
 */
#ifndef PROXY_SESSION_CA_H
#define PROXY_SESSION_CA_H

#include "proxy/host_name.h"

#include <openssl/types.h>

#define SESSION_CA_LEAVES_MAX 512u

struct session_ca;

/* `session` is a name for people, in the authority's subject. 0, -ENOMEM, or -EIO when the library
 * fails. */
int session_ca_new(const char *session, struct session_ca **ret_ca);
void session_ca_free(struct session_ca *ca);

/* Its certificate, PEM; lives as long as it does. */
const char *session_ca_certificate(const struct session_ca *ca);

/* A leaf for exactly that name, and its key: borrowed until the next call, but a user of both may
 * take references. Errors as above. */
int session_ca_leaf(struct session_ca *ca, const struct host_name *name, X509 **ret_leaf,
		    EVP_PKEY **ret_key);

#endif
