/*
 * A body held to the limits of the rule that allowed its request: its own size, and what is left of
 * the session's bytes. What was counted has gone on; the piece that is too much does not.
 */
#ifndef PROXY_BODY_LIMIT_H
#define PROXY_BODY_LIMIT_H

#include "proxy/body_filter.h"
#include "proxy/egress_policy.h"

/* True where such a body has any limit. */
bool body_limit_is_needed(const struct egress_rule *limits, bool is_response);

/* For a request's body or a response's. The policy and the rule are borrowed. NULL without memory.
 */
struct body_filter *body_limit_new(struct egress_policy *policy, const struct egress_rule *limits,
				   bool is_response);

/* Counts bytes that do not pass through the filter: 0, or -EACCES when they are too many. */
int body_limit_count(struct body_filter *filter, size_t length);

/* Of a filter made here, after -EACCES: body_too_large, response_too_large or bytes_exhausted. */
const struct egress_verdict *body_limit_verdict(const struct body_filter *filter);

#endif
