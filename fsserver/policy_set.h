/*
 * A set of rules, indexed so that a path which no rule concerns costs one table look-up per
 * component whatever the number of rules.
 */
#ifndef FSSERVER_POLICY_SET_H
#define FSSERVER_POLICY_SET_H

#include <stdbool.h>
#include <stddef.h>

#include "fsserver/policy_glob.h"
#include "fsserver/policy_names.h"

enum policy_effect {
	POLICY_EFFECT_HIDE,	    /* the user's */
	POLICY_EFFECT_HIDE_BUILTIN, /* opened by an explicit allow */
	POLICY_EFFECT_DENY,	    /* the user's: neither read nor changed */
	POLICY_EFFECT_READONLY,	    /* the user's: not changed */
	POLICY_EFFECT_PROTECT,	    /* built in: not changed; opened by an explicit allow */
	POLICY_EFFECT_GIT_INSIDE,   /* the same, with the exceptions of policy_builtin.h */
	POLICY_EFFECT_GIT_HOOKS,
	POLICY_EFFECT_GIT_MODULES,
	POLICY_EFFECT_ALLOW,
	POLICY_EFFECT_COUNT,
};

struct policy_rule {
	enum policy_effect effect;
	struct policy_glob *glob;
	const char *label;
	const char *reason;
	char *owned_label; /* freed with the rule; NULL when `label` is static */
};

/* The first rule of each effect that covers the path, or of which it is an ancestor. */
struct policy_matches {
	const struct policy_rule *covered[POLICY_EFFECT_COUNT];
	const struct policy_rule *above[POLICY_EFFECT_COUNT];
	const struct policy_rule *above_any[POLICY_EFFECT_COUNT];
	bool any;
};

struct policy_set;

int policy_set_new(struct policy_set **ret_set);
void policy_set_free(struct policy_set *set);
/* Takes over rule->glob and rule->owned_label, also on failure. -ENOMEM. */
int policy_set_add(struct policy_set *set, const struct policy_rule *rule);
/* Builds the index; afterwards nothing is added. -ENOMEM. */
int policy_set_finish(struct policy_set *set);
size_t policy_set_count(const struct policy_set *set);
const struct policy_rule *policy_set_rule(const struct policy_set *set, size_t index);

/* *ret_matches is whole only when `any` is set; else only `any` is. */
void policy_set_match(const struct policy_set *set, const struct policy_path *path,
		      struct policy_matches *ret_matches);

#endif
