#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/escape.h"
#include "base/io.h"
#include "fsserver/policy_builtin.h"
#include "fsserver/policy_file.h"
#include "fsserver/policy_internal.h"

/* Builds a policy: built-in rows for the profile, the user's file, the command line; its hash. */

struct loader {
	const struct policy_options *options;
	struct policy *policy;
	EVP_MD_CTX *digest;
	const char *file_name;
	char *error;
	size_t error_capacity;
};

/* ---- hash --------------------------------------------------------------------------------------
 */

/* Each piece goes in with its length, so that no two policies feed the same bytes. */
static int hash_bytes(struct loader *loader, const void *bytes, size_t length)
{
	uint64_t prefix = length;

	if (EVP_DigestUpdate(loader->digest, &prefix, sizeof(prefix)) != 1 ||
	    EVP_DigestUpdate(loader->digest, bytes, length) != 1)
		return -ENOMEM;
	return 0;
}

static int hash_text(struct loader *loader, const char *text)
{
	return hash_bytes(loader, text, strlen(text));
}

static int hash_finish(struct loader *loader)
{
	unsigned char bytes[EVP_MAX_MD_SIZE];
	unsigned length = 0;

	if (EVP_DigestFinal_ex(loader->digest, bytes, &length) != 1 || length != 32)
		return -ENOMEM;
	for (unsigned i = 0; i < length; i++)
		snprintf(loader->policy->hash + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

static int hash_head(struct loader *loader)
{
	const struct policy_options *options = loader->options;
	char head[128];
	int error;

	snprintf(head, sizeof(head),
		 "matchlock policy, built-in table %d, profile %d, read-only %d",
		 POLICY_BUILTIN_VERSION, (int)options->profile, (int)options->read_only);
	error = hash_text(loader, head);
	for (size_t i = 0; error == 0 && i < policy_builtin_workspace_count; i++)
		error = hash_text(loader, policy_builtin_workspace[i].label);
	for (size_t i = 0; error == 0 && i < policy_builtin_home_count; i++)
		error = hash_text(loader, policy_builtin_home[i].label);
	for (size_t i = 0; error == 0 && i < policy_builtin_system_count; i++)
		error = hash_text(loader, policy_builtin_system[i].label);
	return error;
}

/* ---- adding rules ------------------------------------------------------------------------------
 */

/* Adds `pattern`, or says in the error text where the malformed one stands. `label`: static, or
 * NULL to take over `owned_label`. */
static int add_rule(struct loader *loader, enum policy_effect effect, const char *pattern,
		    unsigned flags, const char *label, char *owned_label, const char *reason,
		    const char **ret_problem)
{
	struct policy_rule rule = { .effect = effect, .reason = reason };
	struct policy_set *set =
		effect == POLICY_EFFECT_ALLOW ? loader->policy->allow : loader->policy->rules;
	int error = policy_glob_compile(pattern, flags, &rule.glob, ret_problem);

	if (error < 0) {
		free(owned_label);
		return error;
	}
	rule.owned_label = owned_label;
	rule.label = owned_label != NULL ? owned_label : label;
	if (effect == POLICY_EFFECT_HIDE || effect == POLICY_EFFECT_HIDE_BUILTIN ||
	    effect == POLICY_EFFECT_DENY) {
		loader->policy->refuses_reads = true;
		if (!policy_glob_is_anchored(rule.glob))
			loader->policy->refuses_anywhere = true;
	}
	return policy_set_add(set, &rule);
}

static enum policy_effect builtin_effect(enum policy_builtin_kind kind)
{
	switch (kind) {
	case POLICY_BUILTIN_GIT_INSIDE:
		return POLICY_EFFECT_GIT_INSIDE;
	case POLICY_BUILTIN_GIT_HOOKS:
		return POLICY_EFFECT_GIT_HOOKS;
	case POLICY_BUILTIN_GIT_MODULES:
		return POLICY_EFFECT_GIT_MODULES;
	case POLICY_BUILTIN_PLAIN:
	case POLICY_BUILTIN_INSTRUCTIONS:
	default:
		return POLICY_EFFECT_PROTECT;
	}
}

static int add_protections(struct loader *loader, bool instructions_open)
{
	for (size_t i = 0; i < policy_builtin_workspace_count; i++) {
		const struct policy_builtin *row = &policy_builtin_workspace[i];
		const char *problem;
		int error;

		if (row->kind == POLICY_BUILTIN_INSTRUCTIONS && instructions_open)
			continue;
		error = add_rule(loader, builtin_effect(row->kind), row->pattern,
				 POLICY_GLOB_ANY_DEPTH, row->label, NULL, row->reason, &problem);
		if (error < 0)
			return error;
	}
	return 0;
}

/* Skips '/' and returns the component's end. */
static const char *component(const char **text)
{
	*text += strspn(*text, "/");
	return *text + strcspn(*text, "/");
}

/* Whether a component of a pattern, its escapes undone, is `name`, or is "*". */
static bool component_is(const char *pattern, size_t length, const char *name, size_t name_length)
{
	size_t used = 0;

	if (length == 1 && *pattern == '*')
		return true;
	for (size_t i = 0; i < length; i++) {
		if (pattern[i] == '\\' && i + 1 < length)
			i++;
		if (used >= name_length || name[used] != pattern[i])
			return false;
		used++;
	}
	return used == name_length;
}

/*
 * What is left of the absolute `pattern` below `export`: its tail when the export is on the way to
 * what the pattern names, NULL when it is elsewhere, or when the export's own root is inside: then
 * the user asked for it by name. Components of the pattern may be "*".
 */
static const char *tail_below(const char *pattern, const char *export)
{
	for (;;) {
		const char *export_end = component(&export);
		const char *pattern_end = component(&pattern);
		size_t length = (size_t)(export_end - export);
		size_t wanted = (size_t)(pattern_end - pattern);

		if (wanted == 0 || (wanted == 2 && memcmp(pattern, "**", 2) == 0))
			return NULL;
		if (length == 0)
			return pattern;
		if (!component_is(pattern, wanted, export, length))
			return NULL;
		export = export_end;
		pattern = pattern_end;
	}
}

static int add_hidden(struct loader *loader, const char *home, const struct policy_builtin *row)
{
	char absolute[2 * POLICY_PATTERN_MAX + 4];
	char anchored[2 * POLICY_PATTERN_MAX + 4];
	const char *export = loader->options->export_path;
	const char *problem;
	const char *tail;

	if ((size_t)snprintf(absolute, sizeof(absolute), "%s/%s", home, row->pattern) >=
	    sizeof(absolute))
		return -ENAMETOOLONG;
	tail = tail_below(absolute, export != NULL ? export : "/");
	if (tail == NULL)
		return 0;
	snprintf(anchored, sizeof(anchored), "/%s", tail);
	return add_rule(loader, POLICY_EFFECT_HIDE_BUILTIN, anchored, 0, row->label, NULL,
			row->reason, &problem);
}

/* The homes are paths, in which characters of globs stand for themselves. */
static int hide_home(struct loader *loader, const char *home)
{
	char quoted[POLICY_PATTERN_MAX];

	home += strspn(home, "/");
	if (!policy_glob_quote(home, quoted, sizeof(quoted)))
		return -ENAMETOOLONG;
	for (size_t length = strlen(quoted); length > 1 && quoted[length - 1] == '/'; length--)
		quoted[length - 1] = '\0';
	for (size_t i = 0; i < policy_builtin_home_count; i++) {
		int error = add_hidden(loader, quoted, &policy_builtin_home[i]);

		if (error < 0)
			return error;
	}
	return 0;
}

static int add_hidden_builtins(struct loader *loader)
{
	const struct policy_options *options = loader->options;
	int error = 0;

	for (size_t i = 0; error == 0 && i < policy_builtin_home_count; i++) {
		error = add_hidden(loader, "/home/*", &policy_builtin_home[i]);
		if (error == 0)
			error = add_hidden(loader, "/root", &policy_builtin_home[i]);
	}
	for (size_t i = 0; error == 0 && i < options->home_count; i++)
		error = hide_home(loader, options->homes[i]);
	for (size_t i = 0; error == 0 && i < policy_builtin_system_count; i++)
		error = add_hidden(loader, "", &policy_builtin_system[i]);
	return error;
}

/* ---- the user's rules --------------------------------------------------------------------------
 */

static const struct {
	enum policy_effect effect;
	unsigned flags;
	const char *reason;
} list_rules[POLICY_FILE_LISTS] = {
	[POLICY_FILE_DENY] = { POLICY_EFFECT_DENY, 0,
			       "the policy of this session denies reading and changing it" },
	[POLICY_FILE_ALLOW] = { POLICY_EFFECT_ALLOW, POLICY_GLOB_EXACT,
				"the policy of this session opens it" },
	[POLICY_FILE_HIDE] = { POLICY_EFFECT_HIDE, 0, "the policy of this session hides it" },
	[POLICY_FILE_READONLY] = { POLICY_EFFECT_READONLY, 0,
				   "the policy of this session lets it be read, not changed" },
};

/* "file:line deny pattern", escaped: it goes to logs and terminals. */
static char *make_label(const char *where, unsigned line, const char *list, const char *pattern)
{
	char escaped[4 * POLICY_PATTERN_MAX + 1];
	char *label = NULL;
	int length;

	escape_text(pattern, strlen(pattern), escaped, sizeof(escaped));
	if (line != 0)
		length = asprintf(&label, "%s:%u %s %s", where, line, list, escaped);
	else
		length = asprintf(&label, "%s %s %s", where, list, escaped);
	return length < 0 ? NULL : label;
}

static int add_user_rule(struct loader *loader, enum policy_file_list list, const char *pattern,
			 const char *where, unsigned line)
{
	const char *list_name = policy_file_list_name(list);
	char *label = make_label(where, line, list_name, pattern);
	char shown[256];
	const char *problem;
	int error;

	if (label == NULL)
		return -ENOMEM;
	error = add_rule(loader, list_rules[list].effect, pattern, list_rules[list].flags, NULL,
			 label, list_rules[list].reason, &problem);
	if (error != -EINVAL)
		return error;
	escape_text(pattern, strlen(pattern), shown, sizeof(shown));
	if (line != 0)
		snprintf(loader->error, loader->error_capacity, "%s:%u: %s: the pattern '%s' %s",
			 where, line, list_name, shown, problem);
	else
		snprintf(loader->error, loader->error_capacity, "%s: %s: the pattern '%s' %s",
			 where, list_name, shown, problem);
	return error;
}

static int add_file_rules(struct loader *loader, const struct policy_file *file)
{
	for (size_t list = 0; list < POLICY_FILE_LISTS; list++) {
		for (size_t i = 0; i < file->rule_count[list]; i++) {
			const struct policy_file_rule *rule = &file->rules[list][i];
			int error = add_user_rule(loader, (enum policy_file_list)list,
						  rule->pattern, loader->file_name, rule->line);

			if (error < 0)
				return error;
		}
	}
	return 0;
}

static int add_extra(struct loader *loader, enum policy_file_list list, const char *const *patterns,
		     size_t count)
{
	if (count > POLICY_RULES_MAX) {
		snprintf(loader->error, loader->error_capacity,
			 "command line: %s: more than %u rules", policy_file_list_name(list),
			 POLICY_RULES_MAX);
		return -EINVAL;
	}
	for (size_t i = 0; i < count; i++) {
		int error;

		if (strlen(patterns[i]) > POLICY_PATTERN_MAX) {
			snprintf(loader->error, loader->error_capacity,
				 "command line: %s: a pattern of more than %u bytes",
				 policy_file_list_name(list), POLICY_PATTERN_MAX);
			return -EINVAL;
		}
		error = hash_text(loader, policy_file_list_name(list));
		if (error == 0)
			error = hash_text(loader, patterns[i]);
		if (error == 0)
			error = add_user_rule(loader, list, patterns[i], "command line", 0);
		if (error < 0)
			return error;
	}
	return 0;
}

/* Rules that a project asks for. Their lists can only take away. */
static int add_extra_rules(struct loader *loader)
{
	const struct policy_options *options = loader->options;
	int error = 0;

	if (options->extra_rule_count > POLICY_RULES_MAX)
		return -EINVAL;
	for (size_t i = 0; error == 0 && i < options->extra_rule_count; i++) {
		const struct policy_extra_rule *rule = &options->extra_rules[i];
		size_t list = POLICY_FILE_LISTS;

		for (size_t j = 0; j < POLICY_FILE_LISTS; j++)
			if (j != POLICY_FILE_ALLOW &&
			    strcmp(rule->list, policy_file_list_name((enum policy_file_list)j)) ==
				    0)
				list = j;
		if (list == POLICY_FILE_LISTS || strlen(rule->pattern) > POLICY_PATTERN_MAX) {
			snprintf(loader->error, loader->error_capacity,
				 "%s: no rule of deny, hide or readonly, or one of more than %u "
				 "bytes",
				 rule->where, POLICY_PATTERN_MAX);
			return -EINVAL;
		}
		error = hash_text(loader, rule->list);
		if (error == 0)
			error = hash_text(loader, rule->pattern);
		if (error == 0)
			error = add_user_rule(loader, (enum policy_file_list)list, rule->pattern,
					      rule->where, 0);
	}
	return error;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static int read_policy_file(struct loader *loader, struct policy_file *ret_file)
{
	cleanup_free char *text = NULL;
	size_t length = 0;
	int error = read_file(loader->options->policy_fd, POLICY_FILE_MAX, &text, &length);

	if (error == -EFBIG) {
		snprintf(loader->error, loader->error_capacity,
			 "%s:1: version: the file is larger than %u bytes; join rules with "
			 "wildcards",
			 loader->file_name, POLICY_FILE_MAX);
		return -EINVAL;
	}
	if (error < 0) {
		snprintf(loader->error, loader->error_capacity, "%s: cannot be read: %s",
			 loader->file_name, strerror(-error));
		return error;
	}
	error = hash_bytes(loader, text, length);
	if (error < 0)
		return error;
	return policy_file_parse(text, length, loader->file_name, ret_file, loader->error,
				 loader->error_capacity);
}

static int set_name(struct loader *loader, const struct policy_file *file)
{
	const char *name = "built-in";

	if (file->name != NULL)
		name = file->name;
	else if (loader->options->policy_fd >= 0)
		name = loader->file_name;
	if (loader->options->extra_rule_count == 0) {
		loader->policy->name = strdup(name);
	} else {
		/* Where the first of them stands, less the line: the project's file. */
		const char *where = loader->options->extra_rules[0].where;
		size_t length = strlen(where);
		const char *colon = strrchr(where, ':');

		if (colon != NULL && colon[1 + strspn(colon + 1, "0123456789")] == '\0')
			length = (size_t)(colon - where);
		if (asprintf(&loader->policy->name, "%s + %.*s", name, (int)length, where) < 0)
			loader->policy->name = NULL;
	}
	return loader->policy->name != NULL ? 0 : -ENOMEM;
}

static int add_all(struct loader *loader, const struct policy_file *file)
{
	const struct policy_options *options = loader->options;
	int error = 0;

	/* The user's rules first: of two that cover a path, the first is the one named. */
	error = add_file_rules(loader, file);
	if (error == 0)
		error = add_extra_rules(loader);
	if (error == 0)
		error = add_extra(loader, POLICY_FILE_ALLOW, options->extra_allow,
				  options->extra_allow_count);
	if (error == 0)
		error = add_extra(loader, POLICY_FILE_HIDE, options->extra_hide,
				  options->extra_hide_count);
	if (error == 0 && options->profile != POLICY_PROFILE_IMAGE)
		error = add_protections(loader, file->agent_instructions_open);
	if (error == 0 && options->profile != POLICY_PROFILE_WORKSPACE)
		error = add_hidden_builtins(loader);
	if (error == 0)
		error = policy_set_finish(loader->policy->rules);
	if (error == 0)
		error = policy_set_finish(loader->policy->allow);
	return error;
}

static int hash_places(struct loader *loader)
{
	const struct policy_options *options = loader->options;
	int error;

	/* A workspace is judged the same wherever it lies. */
	if (options->profile == POLICY_PROFILE_WORKSPACE)
		return 0;
	error = hash_text(loader, options->export_path != NULL ? options->export_path : "/");
	for (size_t i = 0; error == 0 && i < options->home_count; i++)
		error = hash_text(loader, options->homes[i]);
	return error;
}

static int load(struct loader *loader)
{
	struct policy_file file = { .name = NULL };
	int error;

	if (EVP_DigestInit_ex(loader->digest, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	error = hash_head(loader);
	if (error == 0)
		error = hash_places(loader);
	if (error == 0 && loader->options->policy_fd >= 0)
		error = read_policy_file(loader, &file);
	if (error == 0)
		error = set_name(loader, &file);
	if (error == 0)
		error = add_all(loader, &file);
	if (error == 0)
		error = hash_finish(loader);
	policy_file_release(&file);
	return error;
}

int policy_load(const struct policy_options *options, struct policy **ret_policy, char *error,
		size_t error_capacity)
{
	struct loader loader = {
		.options = options,
		.file_name = options->policy_name != NULL ? options->policy_name : "policy",
		.error = error,
		.error_capacity = error_capacity,
	};
	struct policy *policy = calloc(1, sizeof(*policy));
	int result = -ENOMEM;

	if (error_capacity > 0)
		error[0] = '\0';
	loader.policy = policy;
	loader.digest = EVP_MD_CTX_new();
	if (policy != NULL && loader.digest != NULL) {
		policy->read_only = options->read_only;
		policy->image = options->profile == POLICY_PROFILE_IMAGE;
		result = policy_set_new(&policy->rules);
		if (result == 0)
			result = policy_set_new(&policy->allow);
		if (result == 0)
			result = policy_roots_new(&policy->roots);
		if (result == 0)
			result = load(&loader);
	}
	EVP_MD_CTX_free(loader.digest);
	if (result < 0) {
		if (error_capacity > 0 && error[0] == '\0')
			snprintf(error, error_capacity, "%s: cannot be loaded: %s",
				 loader.file_name, strerror(-result));
		policy_free(policy);
		return result;
	}
	*ret_policy = policy;
	return 0;
}

void policy_free(struct policy *policy)
{
	if (policy == NULL)
		return;
	policy_set_free(policy->rules);
	policy_set_free(policy->allow);
	policy_roots_free(policy->roots);
	free(policy->name);
	free(policy);
}
