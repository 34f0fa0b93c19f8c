/*
 * What became of the secrets in one request: whether it may go on, and if not, why, in words for
 * the 403 that the guest gets and for the audit log. Nothing in it is secret.
 */
#ifndef PROXY_SECRET_VERDICT_H
#define PROXY_SECRET_VERDICT_H

#include "proxy/host_name.h"
#include "proxy/secret_set.h"
#include "proxy/secret_store.h"

#include <stdbool.h>
#include <stdint.h>

#define SECRET_HINT_MAX 640u

/* Why a request may not go on. */
enum secret_refusal {
	SECRET_REFUSAL_NONE,
	SECRET_REFUSAL_WRONG_HOST,   /* "secret_wrong_host" */
	SECRET_REFUSAL_NEEDS_TLS,    /* "secret_needs_tls" */
	SECRET_REFUSAL_OUTSIDE_SLOT, /* "secret_outside_slot" */
	SECRET_REFUSAL_CANARY,	     /* "canary" */
	SECRET_REFUSAL_FOREIGN,	     /* "foreign_credential" */
	SECRET_REFUSAL_SIGNATURE,    /* "signature_not_possible" */
	SECRET_REFUSAL_ENCODED,	     /* "encoded_response" */
	SECRET_REFUSAL_TOKEN,	     /* "token_not_capturable" */
	SECRET_REFUSAL_PROBED,	     /* "secret_probed" */
	SECRET_REFUSAL_CODED,	     /* "coded_request" */
	SECRET_REFUSALS,
};

struct secret_verdict {
	enum secret_refusal refusal; /* SECRET_REFUSAL_NONE: it may go on */
	char hint[SECRET_HINT_MAX];  /* what to do instead; empty when allowed */
	struct secret_set bound;     /* the secrets that may go to that host and port */
	struct secret_set named;     /* those of that name, whatever the port */
	struct secret_set used;	     /* those whose values the request carries, or refused it */
	/* The bytes of a secret are in it, so that the answer may hold them. */
	bool is_injected;
	bool needs_body_digest; /* secret_request.h */
};

/* The stable code in answers and in the log; NULL for none. */
const char *secret_refusal_code(enum secret_refusal refusal);

/* Refuses, with the hint that belongs to it; the first refusal stays. `index` is the secret's, and
 * ignored for those that concern none. `detail` may be NULL. */
void secret_verdict_refuse(struct secret_verdict *verdict, const struct secret_store *store,
			   enum secret_refusal refusal, size_t index, const char *detail);

#endif
