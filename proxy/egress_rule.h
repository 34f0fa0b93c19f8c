/*
 * One rule of the session's policy, as the configuration has it, and what it says by itself: of a
 * request, of a secret in it, of a push. Which of several rules counts, and what is left of their
 * budgets, is egress_policy.h's.
 */
#ifndef PROXY_EGRESS_RULE_H
#define PROXY_EGRESS_RULE_H

#include "proxy/egress_verdict.h"
#include "proxy/host_pattern.h"
#include "proxy/http_head.h"
#include "proxy/request_path.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EGRESS_LIST_MAX 64u /* items of one list of a rule */
#define EGRESS_NO_LIMIT UINT64_MAX

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

/* ---- which it is for ------------------------------------------------------------------------- */

/* 443 and 80, with a 0 behind them. */
extern const uint16_t egress_web_ports[];

/* Ends with 0. */
const uint16_t *egress_rule_ports(const struct egress_rule *rule);
bool egress_rule_has_port(const struct egress_rule *rule, uint16_t port);
/* How narrow its host is; more is narrower, and none is 0. Only meaningful among those that match
 * one name. */
unsigned egress_rule_rank(const struct egress_rule *rule);
/* Writes the rule's name, as all verdicts have it. */
void egress_rule_name(const struct egress_rule *rule, struct egress_verdict *verdict);

/* ---- requests -------------------------------------------------------------------------------- */

/* How far a request came with a rule; the farthest refusal is the one worth telling. */
enum egress_stage {
	EGRESS_STAGE_PORT,
	EGRESS_STAGE_METHOD,
	EGRESS_STAGE_PATH,
	EGRESS_STAGE_REQUIRED,
	EGRESS_STAGE_DENIED,
	EGRESS_STAGE_SIZE,
	EGRESS_STAGE_BUDGET,
	EGRESS_STAGE_PASSED,
};

/* A request, read once for all rules. */
struct egress_request {
	const struct http_head *head;
	struct request_path path;
	bool has_path; /* in normal form */
};

/* Borrows the head. */
void egress_request_read(const struct http_head *head, struct egress_request *ret_request);
/* Judges a request to a host that the rule is for, by everything but its budget:
 * EGRESS_STAGE_PASSED with `allowed` and `limits`, else with the reason and a hint. The rest of the
 * verdict is left. */
enum egress_stage egress_rule_judge(const struct egress_rule *rule, uint16_t port,
				    const struct egress_request *request,
				    struct egress_verdict *verdict);
/* May the secret be put into this request, which the rule (NULL: none) allowed? */
void egress_rule_judge_secret(const struct egress_rule *limits, const char *secret,
			      const struct http_head *head, struct egress_verdict *ret_verdict);
/* May git push to this repository, or to a ref in it (NULL: any)? */
void egress_rule_judge_push(const struct egress_rule *limits, const char *repository,
			    const char *ref, struct egress_verdict *ret_verdict);

#endif
