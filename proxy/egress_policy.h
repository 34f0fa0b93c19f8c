/*
 * What a session may reach: which hosts, and for hosts with rules which requests.
 *
 * Deny wins and missing means deny. A host is open when a pattern of the person's names it. A rule
 * opens its host too, and closes it: as soon as a rule names a host, only its rules count, on
 * their ports alone, and no pattern, allow-all included, opens more. Of rules for the same host
 * those with the narrowest name count (the name itself before `*.b.example` before `*.example`),
 * and a request must satisfy one of them entirely.
 *
 * A rule for `tcp://name:port` has limits alone: it opens an opaque connection and counts all its
 * bytes. It may not open what another rule closes.
 *
 * Patterns without a port are of ports 443 and 80, those of passthrough hosts of 443. A `tcp://`
 * pattern opens an opaque connection on its one port.
 *
 * A path is compared decoded, and only when every server would read it alike: with dot segments,
 * empty segments, or encoded slashes, backslashes, percent signs or NULs it is refused where rules
 * name paths (proxy/request_path.h).
 *
 * One thread; a change of the lists is whole or does not happen.
 */
#ifndef PROXY_EGRESS_POLICY_H
#define PROXY_EGRESS_POLICY_H

#include "proxy/egress_rule.h"
#include "proxy/egress_verdict.h"
#include "proxy/host_name.h"
#include "proxy/http_head.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EGRESS_PATTERNS_MAX 1024u
#define EGRESS_RULES_MAX 256u

/* Everything is borrowed for the policy's life. */
struct egress_policy_options {
	const char *session; /* for hints */
	bool allow_all;
	const char *const *allow; /* patterns */
	size_t allow_count;
	const char *const *passthrough;
	size_t passthrough_count;
	const struct egress_rule *rules;
	size_t rule_count;
	bool freezes_on_canary;
};

struct egress_policy;

#define EGRESS_ERROR_MAX 512

/* -EINVAL for a bad pattern or rules that contradict each other, with a message; -ENOMEM. */
int egress_policy_new(const struct egress_policy_options *options,
		      struct egress_policy **ret_policy, char error[static EGRESS_ERROR_MAX]);
void egress_policy_free(struct egress_policy *policy);

/* May the guest connect there at all, and who will look at the connection? For an intercepted one
 * each request is then judged by itself. */
void egress_policy_judge_connection(const struct egress_policy *policy,
				    const struct host_name *name, uint16_t port,
				    struct egress_verdict *ret_verdict);
/* Which certificate a TLS connection there shows when it is asked; NULL: none. */
const char *egress_policy_client_certificate(const struct egress_policy *policy,
					     const struct host_name *name, uint16_t port);
/* Counts an allowed opaque connection against its rule's budget. */
void egress_policy_spend_connection(struct egress_policy *policy, const struct egress_rule *limits);
/* Counts an allowed request against its rule's budget. */
void egress_policy_judge_request(struct egress_policy *policy, const struct host_name *name,
				 uint16_t port, const struct http_head *head,
				 struct egress_verdict *ret_verdict);
/* Counts bytes of bodies against the budget of the rule that allowed a request. 0, or -EDQUOT when
 * they are more than is left, which uses it up. */
int egress_policy_spend(struct egress_policy *policy, const struct egress_rule *limits,
			uint64_t bytes);

/* A request carried a decoy. If the session wants that, everything is refused from then on
 * (session_frozen), for as long as it lives; what is under way is for its owners to end. */
void egress_policy_note_canary(struct egress_policy *policy);
bool egress_policy_is_frozen(const struct egress_policy *policy);

/* ---- changes while the session runs ---------------------------------------------------------- */

/* -EINVAL: no pattern, or it would open what a rule closes; -EEXIST; -ENOSPC; -ENOMEM. */
int egress_policy_add(struct egress_policy *policy, const char *pattern);
/* -EINVAL; -ENOENT. Rules cannot be removed. */
int egress_policy_remove(struct egress_policy *policy, const char *pattern);
/* A line for each pattern and rule; the caller frees. NULL without memory. */
char *egress_policy_list(const struct egress_policy *policy);

#endif
