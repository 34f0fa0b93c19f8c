/*
 * One glob over paths, compiled. The syntax is gitignore's, without negation:
 *
 *     name, *.x      no '/': matches a component at any depth
 *     /a/b, a/b      anchored at the export's root
 *     ** /a/b         (written without the blank) at any depth
 *     a/ ** /b        any number of components between
 *     a/ **           all below a, not a itself
 *     * ? [a-z] [!x] within one component; '\' takes the next character as it is
 *
 * A pattern that matches a directory covers all below it. Matching takes time proportional to
 * pattern times path at worst: components through a set of states, characters through one
 * remembered star. Nothing recurses.
 */
#ifndef FSSERVER_POLICY_GLOB_H
#define FSSERVER_POLICY_GLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fsserver/policy_names.h"

#define POLICY_GLOB_PARTS_MAX 63 /* components of one pattern: states fit 64 bits */

struct policy_glob;

enum policy_glob_match {
	POLICY_GLOB_NONE,
	/* The path is a proper ancestor of what the pattern may match, reached through "*" or
	 * "**" at least once. */
	POLICY_GLOB_ABOVE_ANY,
	/* The same, through names that the pattern spells out. */
	POLICY_GLOB_ABOVE,
	/* The path, or a directory that holds it, matches. */
	POLICY_GLOB_COVERED,
};

enum policy_glob_flags {
	/* Compare raw bytes rather than folded names: for rules that open. */
	POLICY_GLOB_EXACT = 1 << 0,
	/* A pattern with a '/' matches at any depth (the built-in table's convention). */
	POLICY_GLOB_ANY_DEPTH = 1 << 1,
};

/* Compiles `pattern`. -EINVAL with a static sentence in *ret_problem ("ends in a backslash"), or
 * -ENOMEM. Freed with policy_glob_free. */
int policy_glob_compile(const char *pattern, unsigned flags, struct policy_glob **ret_glob,
			const char **ret_problem);
void policy_glob_free(struct policy_glob *glob);

/* Matches from component `start` of the path on. An anchored glob matches from 0 alone. */
enum policy_glob_match policy_glob_match_at(const struct policy_glob *glob,
					    const struct policy_path *path, size_t start);
/* From every component that the glob may begin at: the strongest answer. */
enum policy_glob_match policy_glob_match(const struct policy_glob *glob,
					 const struct policy_path *path);

bool policy_glob_is_anchored(const struct policy_glob *glob);

/* How a dispatcher finds the glob by the first component that it can begin at. */
struct policy_glob_key {
	enum {
		POLICY_GLOB_KEY_LITERAL,    /* the component is `text`, or odd (policy_names.h) */
		POLICY_GLOB_KEY_FIRST_BYTE, /* it begins with `byte`, or is odd */
		POLICY_GLOB_KEY_LAST_BYTE,  /* it ends with `byte`, or is odd */
		POLICY_GLOB_KEY_NONE,	    /* anything */
	} kind;
	const char *text; /* the glob's; not NUL-terminated */
	size_t length;
	uint8_t byte;
};
void policy_glob_key(const struct policy_glob *glob, struct policy_glob_key *ret_key);

/* Writes a pattern that matches `path` and what is below it alone: "/" and its characters, those
 * with a meaning escaped. False when it does not fit. */
bool policy_glob_quote(const char *path, char *output, size_t capacity);

#endif
