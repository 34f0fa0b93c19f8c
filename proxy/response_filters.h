/*
 * What a server's answer goes through before the guest reads it: secrets are taken out of heads,
 * body and trailers, and what is left of the body is counted against the limits of the request's
 * rule.
 */
#ifndef PROXY_RESPONSE_FILTERS_H
#define PROXY_RESPONSE_FILTERS_H

#include "proxy/body_filter.h"
#include "proxy/body_pipe.h"
#include "proxy/egress_verdict.h"
#include "proxy/http_leg.h"
#include "proxy/request_check.h"
#include "proxy/services.h"

struct response_filters {
	const struct services *services;
	struct request_verdict *verdict;
	struct body_pipe *pipe;
	/* In the pipe, borrowed; each may be NULL. */
	struct body_filter *secrets;
	struct body_filter *limit;
};

/* All is borrowed; the verdict is that of the request. Not to be moved. */
void response_filters_init(struct response_filters *filters, const struct services *services,
			   struct body_pipe *pipe, struct request_verdict *verdict);
/* Takes secrets out of a head: of each interim response, and of the final one, whose body is then
 * prepared. 0; -EACCES with a refusal in the verdict's `secret`; -ENOMEM or -E2BIG. */
int response_filters_redact(struct response_filters *filters, struct http_leg *server);
/* Then puts into the pipe what the body of the final response needs. 0 or -ENOMEM. */
int response_filters_add(struct response_filters *filters);
/* The pipe is blocked: why, a word that stays. *ret_limit is what a limit says, else NULL: it was a
 * secret. */
const char *response_filters_reason(const struct response_filters *filters,
				    const struct egress_verdict **ret_limit);

#endif
