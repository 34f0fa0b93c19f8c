/*
 * Whether a request may go where it wants to: its names agree, its method is one that is carried,
 * the session's rules allow it, and its secrets are where they may be. A request that may go has
 * its authority in one form, and its secrets, afterwards.
 */
#ifndef PROXY_REQUEST_CHECK_H
#define PROXY_REQUEST_CHECK_H

#include "proxy/body_filter.h"
#include "proxy/egress_policy.h"
#include "proxy/http_leg.h"
#include "proxy/secret_verdict.h"
#include "proxy/services.h"

#include <stdbool.h>
#include <stdint.h>

#define HTTP_METHOD_LOGGED_MAX 32u
#define REQUEST_RULE_MAX 256u
#define REQUEST_HINT_MAX SECRET_HINT_MAX
#define REQUEST_SECRETS_MAX 512u

struct exchange_origin;

struct request_verdict {
	bool is_allowed;
	/* Of what is not allowed: */
	bool is_denial; /* by policy; else the request is a bad one */
	unsigned status;
	const char *reason; /* static */
	char hint[REQUEST_HINT_MAX];
	/* Always: */
	char rule[REQUEST_RULE_MAX];	  /* "" for none */
	const struct egress_rule *limits; /* what its bytes are counted against; NULL: nothing */
	struct secret_verdict secret;
};

/* The first judgement. When verdict->secret.needs_body_digest is set, it is not the last: the
 * request is to be checked again with the digest of its body. */
void request_check(const struct services *services, const struct exchange_origin *origin,
		   struct http_leg *guest, struct request_verdict *ret_verdict);
void request_check_signed(const struct services *services, const struct exchange_origin *origin,
			  struct http_leg *guest, const uint8_t *body_digest,
			  struct request_verdict *verdict);

/* Whether it is a push of git that a rule limits: 0 with a filter for its body, or NULL; -EACCES
 * with the verdict; -ENOMEM. */
int request_check_push(struct http_leg *guest, struct body_filter **ret_filter,
		       struct request_verdict *verdict);

/* Refuses by what a rule says. */
void request_refuse(struct request_verdict *verdict, const struct egress_verdict *judged);
/* Refuses if the secrets do. False when they do. A decoy is noted, which may freeze the session. */
bool request_check_secrets(const struct services *services, struct request_verdict *verdict);
/* Names of the secrets that are used, with commas, cut to fit; "" for none. */
void request_secret_names(const struct services *services, const struct request_verdict *verdict,
			  char names[REQUEST_SECRETS_MAX]);

#endif
