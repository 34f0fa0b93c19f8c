#include "proxy/egress_rule.h"

#include "proxy/http_syntax.h"

#include <string.h>

const uint16_t egress_web_ports[] = { 443, 80, 0 };

/* ---- which it is for ------------------------------------------------------------------------- */

const uint16_t *egress_rule_ports(const struct egress_rule *rule)
{
	return rule->ports[0] ? rule->ports : egress_web_ports;
}

bool egress_rule_has_port(const struct egress_rule *rule, uint16_t port)
{
	for (const uint16_t *item = egress_rule_ports(rule); *item; item++) {
		if (*item == port)
			return true;
	}
	return false;
}

unsigned egress_rule_rank(const struct egress_rule *rule)
{
	return rule->host.is_wildcard ? rule->host.name.length : UINT8_MAX + 1u;
}

void egress_rule_name(const struct egress_rule *rule, struct egress_verdict *verdict)
{
	char host[HOST_PATTERN_MAX];

	host_pattern_text(&rule->host, host);
	egress_verdict_name(verdict, "%s host %s", rule->where, host);
}

/* ---- requests -------------------------------------------------------------------------------- */

void egress_request_read(const struct http_head *head, struct egress_request *request)
{
	request->head = head;
	request->has_path = request_path_parse(http_head_path(head), &request->path) == 0;
}

static bool has_text(const struct egress_texts *texts, struct http_text text)
{
	for (size_t i = 0; i < texts->count; i++) {
		if (http_text_is_exactly(text, texts->items[i]))
			return true;
	}
	return false;
}

static bool selects_method(const struct egress_selector *selector,
			   const struct egress_request *request)
{
	return selector->methods.count == 0 ||
	       has_text(&selector->methods, http_head_method(request->head));
}

static bool selects_path(const struct egress_selector *selector,
			 const struct egress_request *request)
{
	if (selector->path_count == 0)
		return true;
	for (size_t i = 0; i < selector->path_count && request->has_path; i++) {
		if (request_path_matches(&selector->paths[i], &request->path))
			return true;
	}
	return false;
}

/* There once, with the wanted value. */
static bool has_required(const struct http_head *head, const struct egress_header *wanted)
{
	ssize_t index = http_head_find(head, wanted->name, 0);

	if (index < 0 || http_head_find(head, wanted->name, (size_t)index + 1) >= 0)
		return false;
	return !wanted->value ||
	       http_text_is_exactly(http_head_field(head, (size_t)index).value, wanted->value);
}

static enum egress_stage judge_headers(const struct egress_rule *rule, const struct http_head *head,
				       struct egress_verdict *verdict)
{
	for (size_t i = 0; i < rule->required_count; i++) {
		if (has_required(head, &rule->required[i]))
			continue;
		egress_verdict_deny(verdict, "header_missing");
		egress_verdict_hint(verdict, "send the header %s as %s asks",
				    rule->required[i].name, rule->where);
		return EGRESS_STAGE_REQUIRED;
	}
	for (size_t i = 0; i < rule->denied_headers.count; i++) {
		if (http_head_find(head, rule->denied_headers.items[i], 0) < 0)
			continue;
		egress_verdict_deny(verdict, "header_not_allowed");
		egress_verdict_hint(verdict, "leave out the header %s, or change %s",
				    rule->denied_headers.items[i], rule->where);
		return EGRESS_STAGE_DENIED;
	}
	return EGRESS_STAGE_PASSED;
}

static enum egress_stage judge_sizes(const struct egress_rule *rule, const struct http_head *head,
				     struct egress_verdict *verdict)
{
	bool has_length = false;
	uint64_t length = 0;

	if (http_head_size(head) > rule->head_bytes_max) {
		egress_verdict_deny(verdict, "head_too_large");
		egress_verdict_hint(verdict, "%s allows %llu bytes of head", rule->where,
				    (unsigned long long)rule->head_bytes_max);
		return EGRESS_STAGE_SIZE;
	}
	if (http_head_length(head, &has_length, &length) < 0 ||
	    (has_length && length > rule->body_bytes_max)) {
		egress_verdict_deny(verdict, "body_too_large");
		egress_verdict_hint(verdict, "%s allows %llu bytes of body", rule->where,
				    (unsigned long long)rule->body_bytes_max);
		return EGRESS_STAGE_SIZE;
	}
	return EGRESS_STAGE_PASSED;
}

enum egress_stage egress_rule_judge(const struct egress_rule *rule, uint16_t port,
				    const struct egress_request *request,
				    struct egress_verdict *verdict)
{
	enum egress_stage stage;

	if (!egress_rule_has_port(rule, port)) {
		egress_verdict_deny(verdict, "port_not_allowed");
		egress_verdict_hint(verdict, "add port %u to the rule at %s", port, rule->where);
		return EGRESS_STAGE_PORT;
	}
	if (!selects_method(&rule->selector, request)) {
		egress_verdict_deny(verdict, "method_not_allowed");
		egress_verdict_hint(verdict, "add the method to the rule at %s", rule->where);
		return EGRESS_STAGE_METHOD;
	}
	if (!selects_path(&rule->selector, request)) {
		egress_verdict_deny(verdict,
				    request->has_path ? "path_not_allowed" : "path_ambiguous");
		egress_verdict_hint(verdict,
				    request->has_path
					    ? "add the path to the rule at %s"
					    : "write the path in normal form; %s looks at it",
				    rule->where);
		return EGRESS_STAGE_PATH;
	}
	stage = judge_headers(rule, request->head, verdict);
	if (stage == EGRESS_STAGE_PASSED)
		stage = judge_sizes(rule, request->head, verdict);
	if (stage == EGRESS_STAGE_PASSED) {
		verdict->allowed = true;
		verdict->limits = rule;
	}
	return stage;
}

void egress_rule_judge_secret(const struct egress_rule *limits, const char *secret,
			      const struct http_head *head, struct egress_verdict *ret_verdict)
{
	struct egress_request request;
	bool is_bound = false;

	*ret_verdict = (struct egress_verdict){ .allowed = true, .limits = limits };
	if (!limits || limits->binding_count == 0)
		return;
	egress_rule_name(limits, ret_verdict);
	egress_request_read(head, &request);
	for (size_t i = 0; i < limits->binding_count; i++) {
		const struct egress_binding *binding = &limits->bindings[i];

		if (strcmp(binding->secret, secret) != 0)
			continue;
		is_bound = true;
		if (selects_method(&binding->selector, &request) &&
		    selects_path(&binding->selector, &request))
			return;
	}
	if (!is_bound)
		return;
	egress_verdict_deny(ret_verdict, "secret_not_bound");
	egress_verdict_hint(ret_verdict, "%s binds %s to other methods or paths", limits->where,
			    secret);
}

/* ---- git push -------------------------------------------------------------------------------- */

/* "**" any text, "*" any text without a slash. The last star of either kind takes more as long as
 * the rest does not fit; a single one hands over to the double one before it at a slash. */
static bool ref_matches(const char *pattern, const char *text)
{
	const char *single = NULL, *single_text = NULL;
	const char *twice = NULL, *twice_text = NULL;

	while (*text) {
		if (pattern[0] == '*' && pattern[1] == '*') {
			pattern += 2;
			twice = pattern;
			twice_text = text;
			single = NULL;
		} else if (*pattern == '*') {
			single = ++pattern;
			single_text = text;
		} else if (*pattern == *text) {
			pattern++;
			text++;
		} else if (single && *single_text != '/') {
			pattern = single;
			text = ++single_text;
		} else if (twice) {
			pattern = twice;
			text = ++twice_text;
			single = NULL;
		} else {
			return false;
		}
	}
	return pattern[strspn(pattern, "*")] == '\0';
}

static bool push_allows(const struct egress_push *push, const char *ref)
{
	for (size_t i = 0; i < push->refs.count && ref; i++) {
		if (ref_matches(push->refs.items[i], ref))
			return true;
	}
	return !ref;
}

void egress_rule_judge_push(const struct egress_rule *limits, const char *repository,
			    const char *ref, struct egress_verdict *ret_verdict)
{
	*ret_verdict = (struct egress_verdict){ .allowed = true, .limits = limits };
	if (!limits || !limits->limits_pushes)
		return;
	egress_rule_name(limits, ret_verdict);
	for (size_t i = 0; i < limits->push_count; i++) {
		if (strcmp(limits->pushes[i].repository, repository) == 0 &&
		    push_allows(&limits->pushes[i], ref))
			return;
	}
	egress_verdict_deny(ret_verdict, "push_not_allowed");
	egress_verdict_hint(ret_verdict, "%s allows git push to other repositories or refs alone",
			    limits->where);
}
