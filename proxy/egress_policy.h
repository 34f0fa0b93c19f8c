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

#include "proxy/host_pattern.h"
#include "proxy/http_head.h"
#include "proxy/request_path.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EGRESS_PATTERNS_MAX 1024u
#define EGRESS_RULES_MAX 256u
#define EGRESS_LIST_MAX 64u /* items of one list of a rule */
#define EGRESS_NO_LIMIT UINT64_MAX
#define EGRESS_RULE_NAME_MAX 256u

/* ---- rules, as the configuration has them ---------------------------------------------------- */

struct egress_texts {
	const char **items;
	size_t count;
};

/* A request that a list of methods and one of paths let through; an empty list is any. */
struct egress_selector {
	struct egress_texts methods;
	struct request_path_pattern *paths;
	size_t path_count;
};

struct egress_header {
	const char *name;
	const char *value; /* NULL: any */
};

/* The secret goes to the rule's hosts only in such requests. */
struct egress_binding {
	const char *secret;
	struct egress_selector selector;
};

/* What may be pushed with git: to a repository, given by its path without ".git", refs that match
 * one of the patterns, in which "*" is any text without a slash and "**" any text. */
struct egress_push {
	const char *repository;
	struct egress_texts refs;
};

struct egress_rule {
	const char *where; /* "file:line" */
	struct host_pattern host;
	uint16_t ports[EGRESS_LIST_MAX + 1]; /* ends with 0; empty: 443 and 80 */
	struct egress_selector selector;
	struct egress_header *required;
	size_t required_count;
	struct egress_texts denied_headers;
	uint64_t head_bytes_max;
	uint64_t body_bytes_max; /* of a request; sent on an opaque connection */
	uint64_t response_bytes_max;
	uint64_t requests_max; /* in the session; or opaque connections */
	uint64_t bytes_max;    /* in the session, both directions, bodies alone */
	struct egress_binding *bindings;
	size_t binding_count;
	bool limits_pushes; /* else `pushes` is empty and says nothing */
	struct egress_push *pushes;
	size_t push_count;
	/* Name of what is shown to a server that asks for a client's certificate; or NULL. It is
	 * one of the connection, so rules for the same host and port have the same. */
	const char *client_certificate;
	/* Bodies of requests in a coding that cannot be read go on, though there are secrets. */
	bool passes_unread_bodies;
};

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

/* ---- verdicts -------------------------------------------------------------------------------- */

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
	char hint[256];			 /* what would open it; "" when nothing to say */
	enum egress_transport transport;
	/* Of an allowed request or opaque connection: limits that only its bytes will tell. */
	const struct egress_rule *limits; /* NULL: none */
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
/* May the secret be put into this request, which was allowed? */
void egress_policy_judge_secret(const struct egress_rule *limits, const char *secret,
				const struct http_head *head, struct egress_verdict *ret_verdict);
/* May git push to this repository, or to a ref in it (NULL: any)? */
void egress_policy_judge_push(const struct egress_rule *limits, const char *repository,
			      const char *ref, struct egress_verdict *ret_verdict);

/* Writes the rule's name, as verdicts have it, into one that is made elsewhere. */
void egress_policy_name_rule(const struct egress_rule *rule, struct egress_verdict *verdict);

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
