/*
 * Decoys in the body of a request that goes nowhere anyway: who sends one to a host that is not
 * allowed is still somebody that a person wants to know of, and the session may have to freeze. The
 * heads of such requests are searched with all others (request_check.h).
 */
#ifndef PROXY_CANARY_SEARCH_H
#define PROXY_CANARY_SEARCH_H

#include "proxy/byte_buffer.h"
#include "proxy/http_leg.h"
#include "proxy/request_check.h"
#include "proxy/services.h"

#include <stdbool.h>

/* So much of a body is waited for and searched; then the guest gets its answer. */
#define CANARY_SEARCH_MAX 65536u

/* Whether there are decoys, and a body that is coming without being asked for. */
bool canary_search_is_wanted(const struct services *services, const struct http_leg *guest,
			     const struct request_verdict *verdict);
/* Takes what has come of the body into `held`, of CANARY_SEARCH_MAX bytes at most. False when there
 * is more to wait for. Else the verdict is the old one, or speaks of a decoy. */
bool canary_search(const struct services *services, struct http_leg *guest,
		   struct byte_buffer *held, struct request_verdict *verdict);

#endif
