/*
 * A bounded walk over everything below a directory of the host. Follows no symlink, crosses no
 * mount, holds one descriptor per level.
 */
#ifndef FSSERVER_TREE_WALK_H
#define FSSERVER_TREE_WALK_H

#include <stdint.h>

#define TREE_WALK_ENTRIES_MAX 1000000u
#define TREE_WALK_DEPTH_MAX 200u

struct tree_entry {
	const char *path; /* relative to the walk's root, '/'-separated */
	int parent_fd;
	const char *name;
	unsigned char type; /* DT_... */
};

/* Called for each object but the root, directories before what they hold. Not 0 ends the walk. */
typedef int tree_walk_function(const struct tree_entry *entry, void *context);

/* Walks below `fd` (a directory open for reading; stays the caller's, its position is moved).
 * Returns 0, what the callback returned, -E2BIG over the limits, or another negative errno.
 * Directories that vanish or cannot be opened meanwhile give the error of that. */
int tree_walk(int fd, uint64_t entries_max, tree_walk_function *callback, void *context);

#endif
