#include "fsserver/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "fsserver/policy_internal.h"

/*
 * Theory of operation
 *
 * A path is folded and split once, and the index tells the rules that concern it in one of three
 * ways: they cover it; it is a proper ancestor of what they cover, reached through names alone; or
 * the same, reached through a wildcard. Most paths concern no rule, and are allowed.
 *
 * Covered means: nothing may change here. An ancestor may be a directory (what comes to be in it
 * is judged by itself) or a harmless regular file, but never a symlink, which would lead the host
 * past the rule, and never go away, because something else could then stand there.
 *
 * Git directories are the exception that the design asks for. Their rules are kept apart by
 * effect, so that a repository which the session made (policy_born.h) is exempt from exactly
 * those, and never from the rule on hooks. A git directory by another name is judged on a path
 * in which that name is replaced by ".git".
 *
 * Rules that open (`allow`) are matched on raw bytes, those that refuse on folded names.
 */

struct request {
	const struct policy *policy;
	enum policy_access access;
	const char *text; /* the path as the caller gave it */
	/* Where it comes from when a directory above it is moving; else NULL. */
	const char *old_text;
	const struct policy_path *path;
	mode_t mode;
	bool born; /* in a repository that the session made, or one that moves here */
	struct policy_verdict *verdict;
};

static const char reason_link[] =
	"something the host trusts may come to be below this name, so that no link, device or "
	"other stand-in may take its place";
static const char reason_ancestor[] =
	"something the host trusts is or may come to be below this name, so that it stays in place";
static const char reason_dot_git[] =
	"a repository that was here before keeps its .git: it may not be removed, renamed or "
	"replaced";
static const char reason_dot_git_alias[] =
	"some file systems take this name for .git, which git on the host trusts";
static const char reason_bare[] =
	"this is a bare repository that was here before; its place is kept";
static const char rule_dot_git[] = "git: .git";
static const char rule_path[] = "limits: path";
static const char rule_read_only[] = "export: read-only";

static void refuse(struct policy_verdict *verdict, const char *rule, const char *reason)
{
	verdict->allowed = false;
	verdict->hidden = false;
	verdict->final = false;
	verdict->rule = rule;
	verdict->reason = reason;
}

static void allow(struct policy_verdict *verdict)
{
	verdict->allowed = true;
	verdict->hidden = false;
	verdict->final = false;
	verdict->rule = NULL;
	verdict->reason = NULL;
}

/* ---- what an access would put in place ---------------------------------------------------------
 */

/* Whether what comes to stand here is, or may be, neither directory nor regular file. */
static bool puts_stand_in(enum policy_access access, mode_t mode)
{
	if (access == POLICY_CREATE_SYMLINK || access == POLICY_CREATE_SPECIAL)
		return true;
	if (access == POLICY_LINK_TARGET || access == POLICY_RENAME_TARGET)
		return !S_ISREG(mode);
	return false;
}

/* Whether what goes away here is, or may be, more than a regular file or an empty directory. A
 * directory that is renamed is stopped by policy_pins. */
static bool takes_away(enum policy_access access, mode_t mode)
{
	return access == POLICY_REMOVE && !S_ISREG(mode) && !S_ISDIR(mode);
}

/* ---- allow -------------------------------------------------------------------------------------
 */

static bool opened_by_allow(const struct request *request, bool ancestors_too)
{
	struct policy_matches matches;
	const struct policy_rule *rule = NULL;

	if (policy_set_count(request->policy->allow) == 0)
		return false;
	/* The index is by folded names, those of an exact glob by raw ones: ask each. There are
	 * few, and only paths that a built-in rule refuses get here. */
	memset(&matches, 0, sizeof(matches));
	for (size_t i = 0; i < policy_set_count(request->policy->allow) && rule == NULL; i++) {
		const struct policy_rule *candidate = policy_set_rule(request->policy->allow, i);
		enum policy_glob_match match = policy_glob_match(candidate->glob, request->path);

		if (match == POLICY_GLOB_COVERED || (ancestors_too && match != POLICY_GLOB_NONE &&
						     policy_glob_is_anchored(candidate->glob)))
			rule = candidate;
	}
	if (rule == NULL)
		return false;
	allow(request->verdict);
	request->verdict->rule = rule->label;
	request->verdict->reason = rule->reason;
	return true;
}

/* ---- the rules of one effect -------------------------------------------------------------------
 */

/* Judges a change by the rules of `effect`; true when they refuse. */
static bool refused_by(const struct request *request, const struct policy_matches *matches,
		       enum policy_effect effect)
{
	const struct policy_rule *covered = matches->covered[effect];
	const struct policy_rule *above = matches->above[effect];
	const struct policy_rule *above_any = matches->above_any[effect];

	if (covered != NULL) {
		refuse(request->verdict, covered->label, covered->reason);
		return true;
	}
	if (above != NULL && takes_away(request->access, request->mode)) {
		refuse(request->verdict, above->label, reason_ancestor);
		return true;
	}
	if (above == NULL)
		above = above_any;
	if (above != NULL && puts_stand_in(request->access, request->mode)) {
		refuse(request->verdict, above->label, reason_link);
		return true;
	}
	return false;
}

/* ---- git ---------------------------------------------------------------------------------------
 */

static bool last_name_is(const struct policy_path *path, const char *literal)
{
	return path->count > 0 &&
	       policy_name_is(&path->names[path->count - 1], literal, strlen(literal));
}

/* `.git` itself. */
static bool dot_git_refused(const struct request *request)
{
	const struct policy_name *name = &request->path->names[request->path->count - 1];

	if (!policy_name_is_exactly(name, ".git")) {
		refuse(request->verdict, rule_dot_git, reason_dot_git_alias);
		return true;
	}
	switch (request->access) {
	case POLICY_CREATE_FILE:
	case POLICY_CREATE_DIRECTORY:
	case POLICY_RENAME_TARGET_DIRECTORY:
		/* None can be there, since none goes away: a repository is being made. */
		return false;
	case POLICY_CREATE_SYMLINK:
	case POLICY_CREATE_SPECIAL:
		refuse(request->verdict, rule_dot_git, reason_link);
		return true;
	case POLICY_LINK_TARGET:
	case POLICY_RENAME_TARGET:
		if (request->born && S_ISREG(request->mode))
			return false;
		refuse(request->verdict, rule_dot_git,
		       request->born ? reason_link : reason_dot_git);
		return true;
	case POLICY_READ:
	case POLICY_WRITE:
	case POLICY_CHMOD:
	case POLICY_REMOVE:
	case POLICY_LINK_SOURCE:
	default:
		if (request->born)
			return false;
		refuse(request->verdict, rule_dot_git, reason_dot_git);
		return true;
	}
}

/* A file directly in hooks/ that git never runs: what `git init` copies from its templates. */
static bool is_hook_sample(const struct policy_path *path)
{
	static const char suffix[] = ".sample";
	const struct policy_name *name;

	if (path->count < 2 || !policy_name_is(&path->names[path->count - 2], "hooks", 5))
		return false;
	name = &path->names[path->count - 1];
	return name->raw_length >= sizeof(suffix) - 1 &&
	       memcmp(name->raw + name->raw_length - (sizeof(suffix) - 1), suffix,
		      sizeof(suffix) - 1) == 0;
}

/* A name below modules/ that may be a git directory's hooks/ or a git directory. Others may be
 * symlinks: `git init` makes one to see whether it can. */
static bool is_hooks_or_module(const struct policy_path *path)
{
	return last_name_is(path, "hooks") ||
	       (path->count > 1 && policy_name_is(&path->names[path->count - 2], "modules", 7));
}

/* In a repository of the session's own: config and links are its own, hooks are not. */
static bool born_refused(const struct request *request, const struct policy_matches *matches)
{
	const struct policy_rule *hooks = matches->covered[POLICY_EFFECT_GIT_HOOKS];
	const struct policy_rule *above = matches->above[POLICY_EFFECT_GIT_HOOKS];
	bool stand_in = request->access == POLICY_CREATE_SYMLINK ||
			request->access == POLICY_CREATE_SPECIAL || S_ISLNK(request->mode);

	if (hooks != NULL && request->access == POLICY_REMOVE)
		return false;
	if (hooks != NULL && !(is_hook_sample(request->path) && !stand_in)) {
		refuse(request->verdict, hooks->label, hooks->reason);
		return true;
	}
	if (above == NULL && is_hooks_or_module(request->path))
		above = matches->above_any[POLICY_EFFECT_GIT_HOOKS];
	if (above == NULL || hooks != NULL)
		return false;
	if (last_name_is(request->path, "hooks"))
		stand_in = puts_stand_in(request->access, request->mode);
	if (request->access == POLICY_REMOVE || !stand_in)
		return false;
	refuse(request->verdict, above->label, reason_link);
	return true;
}

/* Whether the directory that holds `text`, a path, has a .git that the session made. */
static bool has_born_sibling(const struct policy *policy, const char *text)
{
	const char *slash = strrchr(text, '/');
	size_t directory = slash != NULL ? (size_t)(slash - text) + 1 : 0;
	cleanup_free char *sibling = malloc(directory + sizeof(".git"));
	size_t length;

	if (sibling == NULL)
		return false;
	memcpy(sibling, text, directory);
	memcpy(sibling + directory, ".git", sizeof(".git"));
	return policy_roots_born(policy->roots, sibling, &length) && length == directory + 4;
}

/* .gitmodules in the work tree of a repository that the session made. */
static bool is_born_gitmodules(const struct request *request)
{
	if (request->access == POLICY_CREATE_SYMLINK || S_ISLNK(request->mode))
		return false;
	return has_born_sibling(request->policy, request->text) ||
	       (request->old_text != NULL && has_born_sibling(request->policy, request->old_text));
}

static bool git_refused(const struct request *request, const struct policy_matches *matches)
{
	if (matches->covered[POLICY_EFFECT_GIT_MODULES] != NULL && !is_born_gitmodules(request))
		return refused_by(request, matches, POLICY_EFFECT_GIT_MODULES);
	if (last_name_is(request->path, ".git") && dot_git_refused(request))
		return true;
	if (request->born)
		return born_refused(request, matches);
	if (last_name_is(request->path, ".git") &&
	    matches->covered[POLICY_EFFECT_GIT_INSIDE] == NULL &&
	    matches->covered[POLICY_EFFECT_GIT_HOOKS] == NULL)
		return false;
	return refused_by(request, matches, POLICY_EFFECT_GIT_INSIDE) ||
	       refused_by(request, matches, POLICY_EFFECT_GIT_HOOKS);
}

/* The path with its first `length` bytes, a git directory, called ".git". */
static char *as_dot_git(const char *text, size_t length)
{
	char *replaced;

	text += length;
	text += *text == '/';
	if (asprintf(&replaced, "%s%s%s", ".git", *text != '\0' ? "/" : "", text) < 0)
		return NULL;
	return replaced;
}

/* In a git directory by another name: a bare repository, found or made. */
static bool outside_refused(const struct request *request)
{
	policy_path_variable struct policy_path path;
	struct request as_git = *request;
	struct policy_matches matches;
	cleanup_free char *text = NULL;
	size_t length;
	bool born;

	if (!policy_roots_outside(request->policy->roots, request->text, &length, &born)) {
		path.heap = NULL;
		return false;
	}
	text = as_dot_git(request->text, length);
	if (text == NULL) {
		path.heap = NULL;
		refuse(request->verdict, rule_path, "no memory to judge it");
		return true;
	}
	if (policy_path_init(&path, text) < 0) {
		refuse(request->verdict, rule_path, "no memory to judge it");
		return true;
	}
	if (path.count == 1) {
		/* Its own directory. */
		if (born || (request->access != POLICY_REMOVE &&
			     !puts_stand_in(request->access, request->mode)))
			return false;
		refuse(request->verdict, rule_dot_git, reason_bare);
		return true;
	}
	policy_set_match(request->policy->rules, &path, &matches);
	if (!matches.any)
		return false;
	matches.covered[POLICY_EFFECT_GIT_MODULES] = NULL;
	as_git.text = text;
	as_git.path = &path;
	as_git.born = born;
	return git_refused(&as_git, &matches);
}

/* ---- judging -----------------------------------------------------------------------------------
 */

static bool hidden(const struct request *request, const struct policy_matches *matches)
{
	const struct policy_rule *rule = matches->covered[POLICY_EFFECT_HIDE];

	if (rule == NULL) {
		rule = matches->covered[POLICY_EFFECT_HIDE_BUILTIN];
		if (rule == NULL || opened_by_allow(request, request->access == POLICY_READ))
			return false;
	}
	refuse(request->verdict, rule->label, rule->reason);
	request->verdict->hidden = true;
	return true;
}

/* Reads are refused by the user's deny alone, and what is hidden. */
static bool read_refused(const struct request *request, const struct policy_matches *matches)
{
	const struct policy_rule *rule = matches->covered[POLICY_EFFECT_DENY];

	if (hidden(request, matches))
		return true;
	if (rule == NULL)
		return false;
	refuse(request->verdict, rule->label, rule->reason);
	request->verdict->final = true;
	return true;
}

static bool built_in_refused(const struct request *request, const struct policy_matches *matches)
{
	bool refused = false;

	if (matches->any)
		refused = refused_by(request, matches, POLICY_EFFECT_PROTECT) ||
			  git_refused(request, matches);
	if (!refused)
		refused = outside_refused(request);
	return refused && !opened_by_allow(request, false);
}

static void judge(struct request *request)
{
	const struct policy *policy = request->policy;
	struct policy_matches matches;
	size_t length;

	policy_set_match(policy->rules, request->path, &matches);
	if (matches.any && read_refused(request, &matches))
		return;
	if (request->access == POLICY_READ)
		return;
	if (policy->read_only || policy->image) {
		refuse(request->verdict, rule_read_only,
		       "this export is read-only in this session");
		return;
	}
	if (matches.any && (refused_by(request, &matches, POLICY_EFFECT_DENY) ||
			    refused_by(request, &matches, POLICY_EFFECT_READONLY) ||
			    refused_by(request, &matches, POLICY_EFFECT_HIDE))) {
		request->verdict->final = true;
		return;
	}
	if (matches.any && !request->born)
		request->born = policy_roots_born(policy->roots, request->text, &length);
	built_in_refused(request, &matches);
}

void policy_judge(const struct policy *policy, enum policy_access access, const char *path,
		  mode_t mode, struct policy_verdict *ret_verdict)
{
	policy_path_variable struct policy_path prepared;
	struct request request = { .policy = policy,
				   .access = access,
				   .text = path,
				   .path = &prepared,
				   .mode = mode,
				   .verdict = ret_verdict };

	allow(ret_verdict);
	if (policy_path_init(&prepared, path) < 0) {
		refuse(ret_verdict, rule_path, "it is too long to be judged");
		return;
	}
	judge(&request);
}

/* Whether `path` lies in a git directory that was there before, in any spelling of ".git". */
static bool in_foreign_git(const struct policy *policy, const char *path)
{
	size_t length;
	bool born;

	if (policy_roots_born(policy->roots, path, &length))
		return false;
	return policy_roots_inside_dot_git(path) ||
	       (policy_roots_outside(policy->roots, path, &length, &born) && !born);
}

static char *join(const char *directory, const char *tail)
{
	char *path;

	if (asprintf(&path, "%s%s%s", directory, *directory != '\0' && *tail != '\0' ? "/" : "",
		     tail) < 0)
		return NULL;
	return path;
}

/* Whether `old_path` belongs to a repository of the session's own that keeps its own name, or
 * moves as a whole, when old_path becomes new_path; and does not land in a foreign one. */
static bool stays_born(const struct policy *policy, const char *from, const char *old_path,
		       const char *new_path)
{
	size_t new_length = strlen(new_path);
	size_t tail;
	size_t root;

	if (!policy_roots_born(policy->roots, old_path, &root) || root < strlen(from))
		return false;
	tail = strlen(old_path) - root;
	if (tail > new_length)
		return false;
	cleanup_free char *place = strndup(new_path, new_length - tail);

	return place != NULL && !in_foreign_git(policy, place);
}

void policy_judge_moved(const struct policy *policy, enum policy_access access, const char *from,
			const char *to, const char *tail, mode_t mode,
			struct policy_verdict *ret_verdict)
{
	policy_path_variable struct policy_path prepared;
	cleanup_free char *old_path = join(from, tail);
	cleanup_free char *new_path = join(to, tail);
	struct request request = { .policy = policy,
				   .access = access,
				   .text = new_path,
				   .old_text = *tail != '\0' ? old_path : NULL,
				   .path = &prepared,
				   .mode = mode,
				   .verdict = ret_verdict };
	size_t root;

	prepared.heap = NULL;
	allow(ret_verdict);
	if (old_path == NULL || new_path == NULL || policy_path_init(&prepared, new_path) < 0) {
		refuse(ret_verdict, rule_path, "it is too long to be judged");
		return;
	}
	request.born = policy_roots_born(policy->roots, new_path, &root) ||
		       stays_born(policy, from, old_path, new_path);
	judge(&request);
}

bool policy_pins(const struct policy *policy, const char *path, struct policy_verdict *ret_verdict)
{
	static const enum policy_effect pinning[] = {
		POLICY_EFFECT_HIDE,	 POLICY_EFFECT_HIDE_BUILTIN, POLICY_EFFECT_DENY,
		POLICY_EFFECT_READONLY,	 POLICY_EFFECT_PROTECT,	     POLICY_EFFECT_GIT_INSIDE,
		POLICY_EFFECT_GIT_HOOKS, POLICY_EFFECT_GIT_MODULES,
	};
	policy_path_variable struct policy_path prepared;
	struct policy_matches matches;
	struct request request = {
		.policy = policy, .text = path, .path = &prepared, .verdict = ret_verdict
	};
	const struct policy_rule *rule = NULL;
	bool born_root = false;
	size_t length;

	allow(ret_verdict);
	if (policy_path_init(&prepared, path) < 0) {
		refuse(ret_verdict, rule_path, "it is too long to be judged");
		return true;
	}
	if (policy_roots_found_below(policy->roots, path)) {
		refuse(ret_verdict, rule_dot_git, reason_bare);
		return true;
	}
	request.access = POLICY_REMOVE;
	request.mode = S_IFLNK;
	if (outside_refused(&request))
		return true;
	policy_set_match(policy->rules, &prepared, &matches);
	if (!matches.any)
		return false;
	born_root = policy_roots_born(policy->roots, path, &length);
	for (size_t i = 0; i < sizeof(pinning) / sizeof(pinning[0]) && rule == NULL; i++) {
		enum policy_effect effect = pinning[i];

		/* Its hooks included: renamed away, they are no hooks; a rename into place is
		 * judged there. */
		if (born_root && effect >= POLICY_EFFECT_GIT_INSIDE)
			continue;
		rule = matches.covered[effect];
		if (rule != NULL && effect >= POLICY_EFFECT_PROTECT &&
		    opened_by_allow(&request, false))
			return false;
		if (rule == NULL)
			rule = matches.above[effect];
		if (rule == NULL)
			rule = matches.above_any[effect];
	}
	if (rule == NULL)
		return false;
	refuse(ret_verdict, rule->label, reason_ancestor);
	ret_verdict->final = rule->effect == POLICY_EFFECT_HIDE ||
			     rule->effect == POLICY_EFFECT_DENY ||
			     rule->effect == POLICY_EFFECT_READONLY;
	return true;
}

bool policy_may_hide_below(const struct policy *policy, const char *path)
{
	static const enum policy_effect refusing[] = { POLICY_EFFECT_HIDE,
						       POLICY_EFFECT_HIDE_BUILTIN,
						       POLICY_EFFECT_DENY };
	policy_path_variable struct policy_path prepared;
	struct policy_matches matches;

	prepared.heap = NULL;
	if (!policy->refuses_reads)
		return false;
	if (policy->refuses_anywhere || *path == '\0')
		return true;
	if (policy_path_init(&prepared, path) < 0)
		return true;
	policy_set_match(policy->rules, &prepared, &matches);
	if (!matches.any)
		return false;
	for (size_t i = 0; i < sizeof(refusing) / sizeof(refusing[0]); i++)
		if (matches.covered[refusing[i]] != NULL || matches.above[refusing[i]] != NULL ||
		    matches.above_any[refusing[i]] != NULL)
			return true;
	return false;
}

/* ---- small ones --------------------------------------------------------------------------------
 */

const char *policy_name(const struct policy *policy)
{
	return policy->name;
}

const char *policy_hash(const struct policy *policy)
{
	return policy->hash;
}

size_t policy_rule_count(const struct policy *policy)
{
	return policy_set_count(policy->rules) + policy_set_count(policy->allow);
}

void policy_directory_created(struct policy *policy, const char *path)
{
	policy_roots_created(policy->roots, path);
}

void policy_directory_renamed(struct policy *policy, const char *old_path, const char *new_path)
{
	policy_roots_renamed(policy->roots, old_path, new_path);
}

void policy_directory_removed(struct policy *policy, const char *path)
{
	policy_roots_removed(policy->roots, path);
}

void policy_bare_repository_found(struct policy *policy, const char *path)
{
	policy_roots_bare_found(policy->roots, path);
}

void policy_each_born(const struct policy *policy,
		      void (*callback)(const char *path, void *context), void *context)
{
	policy_roots_each_born(policy->roots, callback, context);
}

bool policy_narrowest_allow(const char *path, char *output, size_t capacity)
{
	return policy_glob_quote(path, output, capacity);
}
