/*
 * The filter of secrets that fits a request's body: of gRPC message by message, of a content coding
 * by what it says, else of the body itself.
 */
#ifndef PROXY_REQUEST_BODY_H
#define PROXY_REQUEST_BODY_H

#include "proxy/body_filter.h"
#include "proxy/egress_policy.h"
#include "proxy/http_head.h"
#include "proxy/secret_verdict.h"

#include <stdbool.h>

/* *ret_filter is for the body, and *ret_secrets, which it owns, what secret_filter_report() asks;
 * both NULL when the rule lets a body pass that cannot be read. 0; -EACCES with the verdict when no
 * rule does; -ENOMEM. */
int request_body_filter(const struct secret_store *store, const struct http_head *head,
			const struct egress_rule *limits, bool over_tls,
			struct secret_verdict *verdict, struct body_filter **ret_filter,
			struct body_filter **ret_secrets);

#endif
