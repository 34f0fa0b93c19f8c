/*
 * What happens to secrets in the head of a request, before it goes upstream.
 *
 * Every text of the head is searched for placeholders in every form. One of a secret of that host,
 * over verified TLS, in a place meant for it, becomes the value; any other refuses the request.
 * Places meant for a secret are its slots (headers, Basic decoded and encoded again) and, with
 * SECRET_FLAG_QUERY, the query.
 *
 * Credential pinning: where a secret is bound to a host's name, a request to that name, whatever
 * the port, may carry no other credential (credential_rules.h): an attacker's own key would turn an
 * allowed host into a way out. SECRET_FLAG_UNPINNED lifts that.
 *
 * Requests signed by AWS Signature Version 4 with a placeholder pair are signed anew (sigv4.h).
 */
#ifndef PROXY_SECRET_REQUEST_H
#define PROXY_SECRET_REQUEST_H

#include "proxy/http_head.h"
#include "proxy/secret_store.h"
#include "proxy/secret_verdict.h"

#include <stdint.h>

/* Largest body that is kept to be hashed for a signature. */
#define SECRET_SIGNED_BODY_MAX (1u << 20)

struct secret_request {
	struct host_name host;
	uint16_t port;
	bool is_verified; /* the upstream leg is TLS, and its certificate was verified */
	/* SHA-256 of the body, or NULL when that is not known (yet). */
	const uint8_t *body_digest;
};

/* Judges the head and replaces in it. Returns 0 with *ret_verdict, or -ENOMEM or -E2BIG when the
 * head cannot be changed and the request not go on. The head of a refused request is as it was.
 *
 * When ret_verdict->needs_body_digest is set, nothing has been changed: the request is signed over
 * its body, and is to be prepared again with the digest of that. */
int secrets_prepare_request(const struct secret_store *store, struct http_head *head,
			    const struct secret_request *request,
			    struct secret_verdict *ret_verdict);

/* The same for the trailer fields of a request: nothing is replaced in those. Refusals are added to
 * the verdict of its head. */
void secrets_check_trailers(const struct secret_store *store, const struct http_head *trailers,
			    struct secret_verdict *verdict);

#endif
