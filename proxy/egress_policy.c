#include "proxy/egress_policy.h"

#include "base/checked.h"
#include "base/escape.h"
#include "proxy/host_pattern.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint16_t passthrough_ports[] = { 443, 0 };

/* A host that is open, or passed through. */
struct entry {
	struct host_pattern pattern;
	bool was_added; /* while the session ran */
};

struct entries {
	struct entry *items;
	size_t count;
};

struct budget {
	uint64_t requests;
	uint64_t bytes;
};

/* What egress_rule_name() says. */
struct rule_name {
	char text[EGRESS_RULE_NAME_MAX];
};

struct egress_policy {
	const char *session;
	bool allow_all;
	bool freezes_on_canary;
	bool is_frozen;
	struct entries allow;
	struct entries passthrough;
	const struct egress_rule *rules;
	size_t rule_count;
	struct budget *left;	 /* of each rule */
	struct rule_name *names; /* the same */
};

/* ---- verdicts -------------------------------------------------------------------------------- */

/* The same of a rule of this policy, which is named for each request. */
static void name_own_rule(const struct egress_policy *policy, const struct egress_rule *rule,
			  struct egress_verdict *verdict)
{
	const char *name = policy->names[rule - policy->rules].text;

	memcpy(verdict->rule, name, strlen(name) + 1);
}

static void name_entry(struct egress_verdict *verdict, const struct entry *entry, const char *list)
{
	char text[HOST_PATTERN_MAX];

	host_pattern_text(&entry->pattern, text);
	egress_verdict_name(verdict, "%s %s", entry->was_added ? "matchlock allow add" : list,
			    text);
}

/* ---- hosts ----------------------------------------------------------------------------------- */

/* The rank of the rules that count for the name; 0 when there are none. */
static unsigned rank_for(const struct egress_policy *policy, const struct host_name *name)
{
	unsigned rank = 0;

	for (size_t i = 0; i < policy->rule_count; i++) {
		if (!policy->rules[i].host.is_tcp &&
		    host_pattern_matches_name(&policy->rules[i].host, name))
			rank = MAX_OF(rank, egress_rule_rank(&policy->rules[i]));
	}
	return rank;
}

static bool counts_for(const struct egress_rule *rule, unsigned rank, const struct host_name *name)
{
	return !rule->host.is_tcp && egress_rule_rank(rule) == rank &&
	       host_pattern_matches_name(&rule->host, name);
}

static const struct entry *find_entry(const struct entries *entries, const struct host_name *name,
				      uint16_t port, bool is_tcp, const uint16_t *default_ports)
{
	for (size_t i = 0; i < entries->count; i++) {
		const struct entry *entry = &entries->items[i];

		if (entry->pattern.is_tcp == is_tcp &&
		    host_pattern_matches(&entry->pattern, name, port, default_ports))
			return entry;
	}
	return NULL;
}

static bool knows_name(const struct entries *entries, const struct host_name *name)
{
	for (size_t i = 0; i < entries->count; i++) {
		if (host_pattern_matches_name(&entries->items[i].pattern, name))
			return true;
	}
	return false;
}

/* Whether the name has rules; the verdict is then theirs. */
static bool judge_by_rules(const struct egress_policy *policy, const struct host_name *name,
			   uint16_t port, struct egress_verdict *verdict)
{
	unsigned rank = rank_for(policy, name);
	const struct egress_rule *last = NULL;

	for (size_t i = 0; i < policy->rule_count && rank > 0; i++) {
		const struct egress_rule *rule = &policy->rules[i];

		if (!counts_for(rule, rank, name))
			continue;
		last = rule;
		if (!egress_rule_has_port(rule, port))
			continue;
		verdict->allowed = true;
		egress_rule_name(rule, verdict);
		return true;
	}
	if (!last)
		return false;
	egress_verdict_deny(verdict, "port_not_allowed");
	egress_rule_name(last, verdict);
	egress_verdict_hint(verdict, "add port %u to the rule at %s", port, last->where);
	return true;
}

static void judge_by_patterns(const struct egress_policy *policy, const struct host_name *name,
			      uint16_t port, struct egress_verdict *verdict)
{
	const struct entry *entry = find_entry(&policy->allow, name, port, false, egress_web_ports);
	bool is_known;

	if (entry || policy->allow_all) {
		verdict->allowed = true;
		if (entry)
			name_entry(verdict, entry, "--allow-host");
		else
			egress_verdict_name(verdict, "--allow-all-hosts");
		return;
	}
	is_known = knows_name(&policy->allow, name) || knows_name(&policy->passthrough, name);
	egress_verdict_deny(verdict, is_known ? "port_not_allowed" : "host_not_allowed");
	egress_verdict_name(verdict, is_known ? "the host is allowed on other ports"
					      : "no rule allows this host");
	if (port == 443 || port == 80)
		egress_verdict_hint(verdict, "matchlock allow add %s %s", policy->session,
				    name->text);
	else
		egress_verdict_hint(
			verdict, "matchlock allow add %s %s:%u, or tcp://%s:%u when it is not HTTP",
			policy->session, name->text, port, name->text, port);
}

static bool has_budget(const struct egress_policy *policy, const struct egress_rule *rule,
		       struct egress_verdict *verdict)
{
	const struct budget *left = &policy->left[rule - policy->rules];

	if (left->requests > 0 && left->bytes > 0)
		return true;
	egress_verdict_deny(verdict,
			    left->requests == 0 ? "requests_exhausted" : "bytes_exhausted");
	egress_verdict_hint(verdict, "the session's budget at %s is used up", rule->where);
	return false;
}

/* Whether a rule is for opaque connections there, of which the narrowest counts. */
static bool judge_by_tcp_rules(const struct egress_policy *policy, const struct host_name *name,
			       uint16_t port, struct egress_verdict *verdict)
{
	const struct egress_rule *found = NULL;

	for (size_t i = 0; i < policy->rule_count; i++) {
		const struct egress_rule *rule = &policy->rules[i];

		if (rule->host.is_tcp &&
		    host_pattern_matches(&rule->host, name, port, egress_web_ports) &&
		    (!found || egress_rule_rank(rule) > egress_rule_rank(found)))
			found = rule;
	}
	if (!found)
		return false;
	verdict->transport = EGRESS_OPAQUE;
	egress_rule_name(found, verdict);
	if (has_budget(policy, found, verdict)) {
		verdict->allowed = true;
		verdict->limits = found;
	}
	return true;
}

static void judge_lists(const struct egress_policy *policy, const struct host_name *name,
			uint16_t port, struct egress_verdict *ret_verdict)
{
	const struct entry *opaque = find_entry(&policy->allow, name, port, true, egress_web_ports);
	const struct entry *passed;

	*ret_verdict = (struct egress_verdict){ .transport = EGRESS_INTERCEPTED };
	if (judge_by_tcp_rules(policy, name, port, ret_verdict))
		return;
	if (opaque) {
		ret_verdict->allowed = true;
		ret_verdict->transport = EGRESS_OPAQUE;
		name_entry(ret_verdict, opaque, "--allow-host");
		return;
	}
	if (judge_by_rules(policy, name, port, ret_verdict))
		return;
	passed = find_entry(&policy->passthrough, name, port, false, passthrough_ports);
	if (passed) {
		ret_verdict->allowed = true;
		ret_verdict->transport = EGRESS_PASSTHROUGH;
		name_entry(ret_verdict, passed, "--passthrough");
		return;
	}
	judge_by_patterns(policy, name, port, ret_verdict);
}

static void refuse_frozen(struct egress_verdict *verdict)
{
	egress_verdict_deny(verdict, "session_frozen");
	verdict->limits = NULL;
	egress_verdict_name(verdict, "canary: freeze");
	egress_verdict_hint(verdict,
			    "a decoy credential was used, so nothing of this session may reach the "
			    "network any more; nothing opens it again but a new session");
}

void egress_policy_judge_connection(const struct egress_policy *policy,
				    const struct host_name *name, uint16_t port,
				    struct egress_verdict *ret_verdict)
{
	judge_lists(policy, name, port, ret_verdict);
	/* How the refusal is told stays as it was. */
	if (policy->is_frozen)
		refuse_frozen(ret_verdict);
}

void egress_policy_note_canary(struct egress_policy *policy)
{
	policy->is_frozen = policy->freezes_on_canary;
}

bool egress_policy_is_frozen(const struct egress_policy *policy)
{
	return policy->is_frozen;
}

/* ---- requests -------------------------------------------------------------------------------- */

static enum egress_stage judge_by_rule(const struct egress_policy *policy,
				       const struct egress_rule *rule, uint16_t port,
				       const struct egress_request *request,
				       struct egress_verdict *verdict)
{
	enum egress_stage stage;

	*verdict = (struct egress_verdict){ .transport = EGRESS_INTERCEPTED };
	name_own_rule(policy, rule, verdict);
	stage = egress_rule_judge(rule, port, request, verdict);
	if (stage != EGRESS_STAGE_PASSED || has_budget(policy, rule, verdict))
		return stage;
	verdict->limits = NULL;
	return EGRESS_STAGE_BUDGET;
}

const char *egress_policy_client_certificate(const struct egress_policy *policy,
					     const struct host_name *name, uint16_t port)
{
	unsigned rank = rank_for(policy, name);

	for (size_t i = 0; i < policy->rule_count; i++) {
		const struct egress_rule *rule = &policy->rules[i];

		if (counts_for(rule, rank, name) && egress_rule_has_port(rule, port))
			return rule->client_certificate;
	}
	return NULL;
}

static void spend_request(struct egress_policy *policy, const struct egress_rule *rule)
{
	struct budget *left = &policy->left[rule - policy->rules];

	if (rule->requests_max != EGRESS_NO_LIMIT)
		left->requests--;
}

void egress_policy_spend_connection(struct egress_policy *policy, const struct egress_rule *limits)
{
	spend_request(policy, limits);
}

void egress_policy_judge_request(struct egress_policy *policy, const struct host_name *name,
				 uint16_t port, const struct http_head *head,
				 struct egress_verdict *ret_verdict)
{
	unsigned rank = rank_for(policy, name);
	struct egress_verdict verdict;
	struct egress_request request;
	bool is_first = true;
	enum egress_stage farthest = EGRESS_STAGE_PORT;

	if (rank == 0 || policy->is_frozen) {
		egress_policy_judge_connection(policy, name, port, ret_verdict);
		return;
	}
	egress_request_read(head, &request);
	for (size_t i = 0; i < policy->rule_count; i++) {
		enum egress_stage stage;

		if (!counts_for(&policy->rules[i], rank, name))
			continue;
		stage = judge_by_rule(policy, &policy->rules[i], port, &request, &verdict);
		if (is_first || stage > farthest) {
			*ret_verdict = verdict;
			farthest = stage;
		}
		is_first = false;
		if (stage == EGRESS_STAGE_PASSED) {
			spend_request(policy, &policy->rules[i]);
			return;
		}
	}
}

int egress_policy_spend(struct egress_policy *policy, const struct egress_rule *limits,
			uint64_t bytes)
{
	struct budget *left;

	if (!limits || limits->bytes_max == EGRESS_NO_LIMIT)
		return 0;
	left = &policy->left[limits - policy->rules];
	if (bytes > left->bytes) {
		left->bytes = 0;
		return -EDQUOT;
	}
	left->bytes -= bytes;
	return 0;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static bool is_same(const struct host_pattern *a, const struct host_pattern *b)
{
	return host_name_equal(&a->name, &b->name) && a->is_wildcard == b->is_wildcard &&
	       a->is_tcp == b->is_tcp && a->ports == b->ports && a->port == b->port;
}

/* Whether some name matches both. */
static bool names_overlap(const struct host_pattern *a, const struct host_pattern *b)
{
	if (!a->is_wildcard)
		return host_pattern_matches_name(b, &a->name);
	if (!b->is_wildcard)
		return host_pattern_matches_name(a, &b->name);
	return host_name_is_under(&a->name, b->name.text) ||
	       host_name_is_under(&b->name, a->name.text);
}

static bool pattern_has_port(const struct host_pattern *pattern, uint16_t port)
{
	if (pattern->ports == HOST_PATTERN_PORTS_DEFAULT)
		return port == passthrough_ports[0];
	return pattern->ports == HOST_PATTERN_PORTS_ALL || pattern->port == port;
}

/* The rule whose requests nobody would look at, if such connections to the pattern were open. */
static const struct egress_rule *find_conflict(const struct egress_policy *policy,
					       const struct host_pattern *pattern)
{
	for (size_t i = 0; i < policy->rule_count; i++) {
		const struct egress_rule *rule = &policy->rules[i];

		if (rule->host.is_tcp || !names_overlap(&rule->host, pattern))
			continue;
		for (const uint16_t *port = egress_rule_ports(rule); *port; port++) {
			if (pattern_has_port(pattern, *port))
				return rule;
		}
	}
	return NULL;
}

static int add_entry(struct egress_policy *policy, struct entries *entries, const char *text,
		     bool was_added)
{
	struct entry entry = { .was_added = was_added };
	bool is_unseen = entries == &policy->passthrough;
	struct entry *items;

	if (host_pattern_parse(text, strlen(text), &entry.pattern) < 0 ||
	    (entry.pattern.is_tcp && is_unseen))
		return -EINVAL;
	if ((entry.pattern.is_tcp || is_unseen) && find_conflict(policy, &entry.pattern))
		return -EINVAL;
	for (size_t i = 0; i < entries->count; i++) {
		if (is_same(&entries->items[i].pattern, &entry.pattern))
			return -EEXIST;
	}
	if (entries->count == EGRESS_PATTERNS_MAX)
		return -ENOSPC;
	items = reallocarray(entries->items, entries->count + 1, sizeof(*items));
	if (!items)
		return -ENOMEM;
	items[entries->count++] = entry;
	entries->items = items;
	return 0;
}

int egress_policy_add(struct egress_policy *policy, const char *pattern)
{
	return add_entry(policy, &policy->allow, pattern, true);
}

int egress_policy_remove(struct egress_policy *policy, const char *pattern)
{
	struct entries *entries = &policy->allow;
	struct host_pattern parsed;

	if (host_pattern_parse(pattern, strlen(pattern), &parsed) < 0)
		return -EINVAL;
	for (size_t i = 0; i < entries->count; i++) {
		if (!is_same(&entries->items[i].pattern, &parsed))
			continue;
		memmove(&entries->items[i], &entries->items[i + 1],
			(entries->count - i - 1) * sizeof(entries->items[0]));
		entries->count--;
		return 0;
	}
	return -ENOENT;
}

static void list_entries(FILE *out, const struct entries *entries, const char *list)
{
	for (size_t i = 0; i < entries->count; i++) {
		char text[HOST_PATTERN_MAX];

		host_pattern_text(&entries->items[i].pattern, text);
		fprintf(out, "%s\t%s\n", text,
			entries->items[i].was_added ? "matchlock allow add" : list);
	}
}

char *egress_policy_list(const struct egress_policy *policy)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	if (policy->allow_all)
		fputs("*\t--allow-all-hosts\n", out);
	list_entries(out, &policy->allow, "--allow-host");
	list_entries(out, &policy->passthrough, "--passthrough");
	for (size_t i = 0; i < policy->rule_count; i++) {
		char host[HOST_PATTERN_MAX];

		host_pattern_text(&policy->rules[i].host, host);
		fprintf(out, "%s\t%s\n", host, policy->rules[i].where);
	}
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- making ---------------------------------------------------------------------------------- */

static int add_all(struct egress_policy *policy, struct entries *entries, const char *const *texts,
		   size_t count, const char *flag, char *error)
{
	for (size_t i = 0; i < count; i++) {
		int result = add_entry(policy, entries, texts[i], false);
		char shown[HOST_PATTERN_MAX];

		if (result == 0 || result == -EEXIST)
			continue;
		escape_text(texts[i], strlen(texts[i]), shown, sizeof(shown));
		snprintf(error, EGRESS_ERROR_MAX, "%s %s: %s", flag, shown,
			 result == -EINVAL ? "is no pattern of hosts (name, *.name, name:port, "
					     "tcp://name:port), or goes past a rule for that host"
					   : strerror(-result));
		return result;
	}
	return 0;
}

/* Each rule for opaque connections must leave the others their requests. */
static int check_tcp_rules(const struct egress_policy *policy, char *error)
{
	for (size_t i = 0; i < policy->rule_count; i++) {
		const struct egress_rule *rule = &policy->rules[i];
		const struct egress_rule *other =
			rule->host.is_tcp ? find_conflict(policy, &rule->host) : NULL;

		if (!other)
			continue;
		snprintf(error, EGRESS_ERROR_MAX, "%s: host: goes past the rule at %s", rule->where,
			 other->where);
		return -EINVAL;
	}
	return 0;
}

static bool is_same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool shares_port(const struct egress_rule *a, const struct egress_rule *b)
{
	for (const uint16_t *port = egress_rule_ports(a); *port; port++) {
		if (egress_rule_has_port(b, *port))
			return true;
	}
	return false;
}

/* A connection is made, and used again, before it is known which of its host's rules a request
 * falls under. */
static int check_certificates(const struct egress_policy *policy, char *error)
{
	for (size_t i = 0; i < policy->rule_count; i++) {
		const struct egress_rule *rule = &policy->rules[i];

		for (size_t j = 0; j < i; j++) {
			const struct egress_rule *other = &policy->rules[j];

			if (is_same(&rule->host, &other->host) && shares_port(rule, other) &&
			    !is_same_text(rule->client_certificate, other->client_certificate)) {
				snprintf(error, EGRESS_ERROR_MAX,
					 "%s: client_certificate: is not that of the rule at %s; a "
					 "connection has one, so rules for the same host and port "
					 "name the same",
					 rule->where, other->where);
				return -EINVAL;
			}
		}
	}
	return 0;
}

int egress_policy_new(const struct egress_policy_options *options,
		      struct egress_policy **ret_policy, char error[static EGRESS_ERROR_MAX])
{
	struct egress_policy *policy = calloc(1, sizeof(*policy));
	int result = 0;

	if (!policy)
		return -ENOMEM;
	policy->session = options->session;
	policy->allow_all = options->allow_all;
	policy->freezes_on_canary = options->freezes_on_canary;
	policy->rules = options->rules;
	policy->rule_count = options->rule_count;
	policy->left = calloc(options->rule_count + 1, sizeof(*policy->left));
	policy->names = calloc(options->rule_count + 1, sizeof(*policy->names));
	if (!policy->left || !policy->names)
		result = -ENOMEM;
	for (size_t i = 0; i < options->rule_count && !result; i++) {
		struct egress_verdict verdict;

		egress_rule_name(&options->rules[i], &verdict);
		memcpy(policy->names[i].text, verdict.rule, sizeof(verdict.rule));
		policy->left[i].requests = options->rules[i].requests_max;
		policy->left[i].bytes = options->rules[i].bytes_max;
	}
	if (!result)
		result = check_tcp_rules(policy, error);
	if (!result)
		result = check_certificates(policy, error);
	if (!result)
		result = add_all(policy, &policy->allow, options->allow, options->allow_count,
				 "--allow-host", error);
	if (!result)
		result = add_all(policy, &policy->passthrough, options->passthrough,
				 options->passthrough_count, "--passthrough", error);
	if (result) {
		egress_policy_free(policy);
		return result;
	}
	*ret_policy = policy;
	return 0;
}

void egress_policy_free(struct egress_policy *policy)
{
	if (!policy)
		return;
	free(policy->allow.items);
	free(policy->passthrough.items);
	free(policy->left);
	free(policy->names);
	free(policy);
}
