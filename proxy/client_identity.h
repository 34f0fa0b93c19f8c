/*
 * Certificates that the broker shows to servers which ask for one (RFC 8446 section 4.3.2), each
 * with its key: PEM texts out of the secret bundle, by the names that rules give them.
 *
 * The guest has neither. Which connection shows one is the policy's to say
 * (egress_policy_client_certificate()); a server sees it only after its own certificate was
 * verified.
 */
#ifndef PROXY_CLIENT_IDENTITY_H
#define PROXY_CLIENT_IDENTITY_H

#include <openssl/types.h>
#include <stddef.h>

struct client_identity;
/* By name; zero-initialise. */
struct client_identities {
	struct client_identity *all;
};

/* The key lies in secret_heap. Takes what `pem` holds: the certificate, others up to its root
 * behind it, and the key, which may stand anywhere; other blocks are passed over. A name that is
 * there stays what it is. 0, or -EINVAL with *ret_problem, a static text that begins with a small
 * letter; -ENOMEM. */
int client_identities_add(struct client_identities *identities, const char *name, const char *pem,
			  size_t length, const char **ret_problem);
void client_identities_release(struct client_identities *identities);

/* Lets a client's SSL show the one of that name. -ENOENT: there is none. -EINVAL: the library does
 * not take it. */
int client_identities_use(const struct client_identities *identities, const char *name, SSL *ssl);

#endif
