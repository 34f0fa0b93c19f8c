/*
 * Whether a request may go where it wants to: its names agree, its method is one that is carried,
 * the session's rules allow it, and its secrets are where they may be. A request that may go has
 * its authority in one form, and its secrets, afterwards.
 */
#ifndef PROXY_REQUEST_CHECK_H
#define PROXY_REQUEST_CHECK_H

#include "proxy/http_leg.h"
#include "proxy/services.h"

#include <stdbool.h>

#define HTTP_METHOD_LOGGED_MAX 32u
#define REQUEST_TEXT_MAX 256u

struct exchange_origin;

struct request_verdict {
	bool is_allowed;
	/* Of what is not allowed: */
	bool is_denial; /* by policy; else the request is a bad one */
	unsigned status;
	const char *reason; /* static */
	char hint[REQUEST_TEXT_MAX];
	/* Always: */
	char rule[REQUEST_TEXT_MAX];	/* "" for none */
	char secrets[REQUEST_TEXT_MAX]; /* names of those that were put in, with commas */
};

void request_check(const struct services *services, const struct exchange_origin *origin,
		   struct http_leg *guest, struct request_verdict *ret_verdict);

#endif
