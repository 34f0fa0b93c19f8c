/*
 * What a session changed, for a person to judge before he trusts it: the output of `matchlock
 * diff`. Made from the undo store and the tree alone, for a live, a closed or a crashed session.
 *
 * As text: first the repositories that the session made (review_repositories.h), "! new repository
 * PATH", then what the host might run or trust later (policy_is_flagged), marked "!", then the
 * rest by path; a summary list and below it unified diffs of text files. Every name and every line
 * of a file passes base/escape.h, since a guest wrote them. As JSON: one object
 *     {"new_repositories": [..], "changes": [{"path", "old_path"?, "kind", "flagged",
 *      "content_changed", "mode_before"?, "mode_after"?, "size_before"?, "size_after"?,
 *      "diff"?}], "flagged": N, "total": N}
 * with bytes that are no UTF-8 escaped likewise.
 *
 * Limits: a file over REVIEW_DIFF_MAX bytes, with a NUL byte, or with more than REVIEW_EDITS_MAX
 * differences is named with its sizes, without a diff.
 */
#ifndef FSSERVER_REVIEW_H
#define FSSERVER_REVIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define REVIEW_DIFF_MAX (1024u * 1024u) /* bytes of one file that is compared line by line */
#define REVIEW_EDITS_MAX 4096u		/* changed lines of one file that are looked for */

struct review_options {
	bool json;
	bool name_only; /* the list without diffs; with json, no "diff" */
	bool colour;	/* terminal colours, text only */
	/* Only these paths and what is below them; none: everything. Relative to the root. */
	const char *const *paths;
	size_t path_count;
};

/* Returns 0 (also when nothing changed: text says so), or a negative errno: of reading the store,
 * or of writing `output`. */
int review_print(int store_fd, int root_fd, const struct review_options *options, FILE *output);

#endif
