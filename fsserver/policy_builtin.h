/*
 * The built-in protections, as data. docs/policy.md shows the same table to users.
 *
 * Patterns are globs (policy_glob.h) that match at any depth, but those of `policy_builtin_home`
 * are relative to a home directory and those of `policy_builtin_system` to the root of the host.
 */
#ifndef FSSERVER_POLICY_BUILTIN_H
#define FSSERVER_POLICY_BUILTIN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Part of the policy's hash: raised whenever a row or what it means changes. */
#define POLICY_BUILTIN_VERSION 1

enum policy_builtin_kind {
	POLICY_BUILTIN_PLAIN,
	POLICY_BUILTIN_INSTRUCTIONS, /* the three that `protect: {agent_instructions: false}` opens
				      */
	POLICY_BUILTIN_GIT_INSIDE,   /* open in a repository that the session made */
	POLICY_BUILTIN_GIT_HOOKS,    /* there too shut, but for the samples */
	POLICY_BUILTIN_GIT_MODULES,  /* .gitmodules: open beside a .git that the session made */
};

struct policy_builtin {
	enum policy_builtin_kind kind;
	const char *pattern;
	const char *label; /* "group: pattern" */
	const char *reason;
};

extern const struct policy_builtin policy_builtin_workspace[];
extern const size_t policy_builtin_workspace_count;
extern const struct policy_builtin policy_builtin_home[];
extern const size_t policy_builtin_home_count;
extern const struct policy_builtin policy_builtin_system[];
extern const size_t policy_builtin_system_count;

#endif
