/*
 * The repositories among what a session made, since running git in one runs what its config says.
 *
 * One is a name ".git" (a directory, or the file that leads to one) that was not there before, or a
 * directory in which git finds HEAD, objects and refs, at least one of which was not there before:
 * bare repositories, those of submodules, and directories that were completed to one.
 * gitrepository-layout(5).
 */
#ifndef FSSERVER_REVIEW_REPOSITORIES_H
#define FSSERVER_REVIEW_REPOSITORIES_H

#include "fsserver/undo.h"

#include <stdint.h>

struct review_repositories {
	char **paths; /* sorted after review_repositories_finish(); "." is the root */
	uint32_t count;
	uint32_t capacity;
};

/* Takes a look at one change. `root_fd`: the tree as it is now. */
int review_repositories_note(struct review_repositories *repositories, int root_fd,
			     const struct undo_change *change);
/* Sorts, and drops what was found more than once. */
void review_repositories_finish(struct review_repositories *repositories);
void review_repositories_free(struct review_repositories *repositories);

#endif
