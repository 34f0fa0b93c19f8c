/*
 * What the body of a request goes through on its way to the server: secrets are put in or stop it,
 * a push of git is held to its rule, and what is left is counted against the rule's limits.
 */
#ifndef PROXY_REQUEST_FILTERS_H
#define PROXY_REQUEST_FILTERS_H

#include "proxy/body_filter.h"
#include "proxy/body_pipe.h"
#include "proxy/http_leg.h"
#include "proxy/request_check.h"
#include "proxy/services.h"

struct request_filters {
	const struct services *services;
	struct request_verdict *verdict;
	const struct body_pipe *pipe;
	/* In the pipe, borrowed; each may be NULL. */
	struct body_filter *secrets;
	struct body_filter *push;
	struct body_filter *limit;
};

/* Puts into the pipe what this request, which was allowed, needs. 0; -EACCES with the verdict, or
 * -ENOMEM, and what was made is in the pipe. `filters` is not to be moved; all is borrowed. */
int request_filters_add(struct request_filters *filters, const struct services *services,
			const struct exchange_origin *origin, struct http_leg *guest,
			struct body_pipe *pipe, struct request_verdict *verdict);
/* Adds the secrets found so far to the verdict. Also of filters that are all zero. */
void request_filters_report(const struct request_filters *filters);
/* The pipe is blocked: writes into the verdict why. A decoy may freeze the session. */
void request_filters_refuse(const struct request_filters *filters);

#endif
