/*
 * Unified diffs of two texts by lines. Algorithm: Eugene W. Myers, "An O(ND) Difference Algorithm
 * and Its Variations", Algorithmica 1, 1986 (the greedy form, its trace kept).
 */
#ifndef FSSERVER_REVIEW_DIFF_H
#define FSSERVER_REVIEW_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define REVIEW_LINES_MAX (1024u * 1024u) /* lines of one text */

struct review_text {
	const char *bytes;
	size_t length;
};

/* Writes the hunks (no file header) with three lines of context; every line passes through
 * review_put_line. Returns 1 when there were differences, 0 when none, -E2BIG with more than
 * `edits_max` of them, -ENOMEM. */
int review_diff(struct review_text before, struct review_text after, uint32_t edits_max,
		FILE *output, uint32_t *ret_added, uint32_t *ret_removed);

/* Text for a terminal: tabs and backslashes stand, whatever else could move the cursor or is no
 * UTF-8 is escaped. */
void review_put_line(const char *text, size_t length, FILE *output);

#endif
