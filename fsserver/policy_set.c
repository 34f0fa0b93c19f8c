#include "fsserver/policy_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define BUCKETS 4096u /* a power of two; rules are a few hundred, seldom thousands */
#define NO_RULE UINT32_MAX

struct policy_set {
	struct policy_rule *rules;
	uint32_t *next; /* rule -> the next one in the same list */
	size_t count;
	size_t capacity;
	uint32_t literal[BUCKETS];
	uint32_t first_byte[256];
	uint32_t last_byte[256];
	uint32_t rest;
	bool has_first;
	bool has_last;
};

int policy_set_new(struct policy_set **ret_set)
{
	struct policy_set *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return -ENOMEM;
	memset(set->literal, 0xff, sizeof(set->literal));
	memset(set->first_byte, 0xff, sizeof(set->first_byte));
	memset(set->last_byte, 0xff, sizeof(set->last_byte));
	set->rest = NO_RULE;
	*ret_set = set;
	return 0;
}

void policy_set_free(struct policy_set *set)
{
	if (set == NULL)
		return;
	for (size_t i = 0; i < set->count; i++) {
		policy_glob_free(set->rules[i].glob);
		free(set->rules[i].owned_label);
	}
	free(set->rules);
	free(set->next);
	free(set);
}

int policy_set_add(struct policy_set *set, const struct policy_rule *rule)
{
	if (set->count == set->capacity) {
		size_t capacity = set->capacity == 0 ? 128 : set->capacity * 2;
		struct policy_rule *rules =
			reallocarray(set->rules, capacity, sizeof(struct policy_rule));

		if (rules == NULL) {
			policy_glob_free(rule->glob);
			free(rule->owned_label);
			return -ENOMEM;
		}
		set->rules = rules;
		set->capacity = capacity;
	}
	set->rules[set->count++] = *rule;
	return 0;
}

static uint32_t *list_for(struct policy_set *set, const struct policy_glob *glob)
{
	struct policy_glob_key key;

	policy_glob_key(glob, &key);
	switch (key.kind) {
	case POLICY_GLOB_KEY_LITERAL:
		return &set->literal[policy_hash_bytes(key.text, key.length) % BUCKETS];
	case POLICY_GLOB_KEY_FIRST_BYTE:
		set->has_first = true;
		return &set->first_byte[key.byte];
	case POLICY_GLOB_KEY_LAST_BYTE:
		set->has_last = true;
		return &set->last_byte[key.byte];
	case POLICY_GLOB_KEY_NONE:
	default:
		return &set->rest;
	}
}

int policy_set_finish(struct policy_set *set)
{
	set->next = calloc(set->count + 1, sizeof(uint32_t));
	if (set->next == NULL)
		return -ENOMEM;
	/* Backwards, so that each list runs in the order of the rules. */
	for (size_t i = set->count; i-- > 0;) {
		uint32_t *list = list_for(set, set->rules[i].glob);

		set->next[i] = *list;
		*list = (uint32_t)i;
	}
	return 0;
}

size_t policy_set_count(const struct policy_set *set)
{
	return set->count;
}

const struct policy_rule *policy_set_rule(const struct policy_set *set, size_t index)
{
	return &set->rules[index];
}

static void try_rule(const struct policy_set *set, size_t index, const struct policy_path *path,
		     size_t start, struct policy_matches *matches)
{
	const struct policy_rule *rule = &set->rules[index];
	const struct policy_rule **slot = NULL;
	enum policy_glob_match match;

	if (start != 0 && policy_glob_is_anchored(rule->glob))
		return;
	match = policy_glob_match_at(rule->glob, path, start);
	if (match == POLICY_GLOB_NONE)
		return;
	if (!matches->any) {
		memset(matches, 0, sizeof(*matches));
		matches->any = true;
	}
	if (match == POLICY_GLOB_COVERED)
		slot = &matches->covered[rule->effect];
	else if (match == POLICY_GLOB_ABOVE)
		slot = &matches->above[rule->effect];
	else
		slot = &matches->above_any[rule->effect];
	if (*slot == NULL || *slot > rule)
		*slot = rule;
}

static void try_list(const struct policy_set *set, uint32_t index, const struct policy_path *path,
		     size_t start, struct policy_matches *matches)
{
	for (; index != NO_RULE; index = set->next[index])
		try_rule(set, index, path, start, matches);
}

void policy_set_match(const struct policy_set *set, const struct policy_path *path,
		      struct policy_matches *ret_matches)
{
	ret_matches->any = false;
	for (size_t i = 0; i < path->count; i++) {
		const struct policy_name *name = &path->names[i];

		/* Such a name may equal many literals: ask every rule. */
		if (name->odd || name->length == 0) {
			for (size_t rule = 0; rule < set->count; rule++)
				try_rule(set, rule, path, i, ret_matches);
			continue;
		}
		try_list(set, set->literal[name->hash % BUCKETS], path, i, ret_matches);
		if (set->has_first)
			try_list(set, set->first_byte[(uint8_t)name->text[0]], path, i,
				 ret_matches);
		if (set->has_last)
			try_list(set, set->last_byte[(uint8_t)name->text[name->length - 1]], path,
				 i, ret_matches);
		try_list(set, set->rest, path, i, ret_matches);
	}
}
