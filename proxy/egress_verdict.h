/*
 * What the session's policy says of a connection or a request: allowed or not, by which rule, and
 * what would open it. Texts are cut to fit and made printable.
 */
#ifndef PROXY_EGRESS_VERDICT_H
#define PROXY_EGRESS_VERDICT_H

#include <stdbool.h>

#define EGRESS_RULE_NAME_MAX 256u
#define EGRESS_HINT_MAX 256u

struct egress_rule;

enum egress_transport {
	EGRESS_INTERCEPTED, /* HTTP, with or without TLS */
	EGRESS_PASSTHROUGH, /* TLS of which only the name is seen */
	EGRESS_OPAQUE,	    /* anything */
};

struct egress_verdict {
	bool allowed;
	/* NULL, or a word that stays: host_not_allowed, port_not_allowed, method_not_allowed,
	 * path_not_allowed, path_ambiguous, header_missing, header_not_allowed, head_too_large,
	 * body_too_large, response_too_large, requests_exhausted, bytes_exhausted,
	 * secret_not_bound, push_not_allowed, session_frozen */
	const char *reason;
	char rule[EGRESS_RULE_NAME_MAX]; /* the one that decided; printable */
	char hint[EGRESS_HINT_MAX];	 /* what would open it; "" when nothing to say */
	enum egress_transport transport;
	/* Of an allowed request or opaque connection: limits that only its bytes will tell. */
	const struct egress_rule *limits; /* NULL: none */
};

/* `reason` is static. */
void egress_verdict_deny(struct egress_verdict *verdict, const char *reason);
void egress_verdict_name(struct egress_verdict *verdict, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void egress_verdict_hint(struct egress_verdict *verdict, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
