/*
 * git push over HTTP, recognised and held to what a rule allows (`git_push` of a rule).
 *
 * A push is a request for ".../git-receive-pack", announced by one for ".../info/refs" with that
 * service. Its body begins with the list of refs that are to change; the objects follow. The filter
 * keeps the list back until all of it is judged, so of a push that is refused nothing leaves.
 *
 * Refused as well, where a rule limits pushes: what could be a push and cannot be read for certain
 * (another path that names the service, a body with a content coding, a signed push, more refs than
 * GIT_PUSH_LIST_MAX bytes hold), and pushing by WebDAV.
 *
 * Sources: git's Documentation/gitprotocol-http, gitprotocol-pack and gitprotocol-common, and
 * git-check-ref-format.
 */
#ifndef PROXY_GIT_PUSH_H
#define PROXY_GIT_PUSH_H

#include "proxy/body_filter.h"
#include "proxy/egress_policy.h"

/* Bytes of a list of refs: about 250 of them. */
#define GIT_PUSH_LIST_MAX 32768u

/* Looks at a request that `limits` allowed. 0 with *ret_filter for its body, or NULL there when it
 * is no push, or pushes are not limited; -EACCES with *ret_verdict, -ENOMEM. What the filter puts
 * out must have room for GIT_PUSH_LIST_MAX bytes beside its input. */
int git_push_prepare(const struct egress_rule *limits, const struct http_head *head,
		     struct body_filter **ret_filter, struct egress_verdict *ret_verdict);

/* Of a filter made here, after -EACCES. */
const struct egress_verdict *git_push_verdict(const struct body_filter *filter);

#endif
