/*
 * Stored guests, by which later sessions start sooner (vmm/snapshot.h).
 *
 * The first session of a kind, which is a kernel, a number of processors and a size of memory, has
 * its guest stored as it boots, before anything of the session has reached it, in
 * $XDG_CACHE_HOME/matchlock/snapshots, which only the user can enter. Later ones go on from there.
 * Whether a file fits is for the VMM to say; one that does not is replaced.
 *
 * Nothing here fails a session: without a snapshot the guest boots.
 */
#ifndef CLI_START_SNAPSHOT_H
#define CLI_START_SNAPSHOT_H

#include "cli/paths.h"

#include <stdbool.h>

#define START_SNAPSHOT_DAYS 7 /* an unused one is kept for so long */

struct start_snapshot {
	int directory; /* -1: nothing is stored */
	int stored;    /* what there is; -1: nothing */
	int fresh;     /* an empty file, NAME.new until it is kept; -1: none */
	char *name;    /* in the directory */
	char *fresh_name;
};

#define START_SNAPSHOT_INIT                                                                        \
	{                                                                                          \
		.directory = -1, .stored = -1, .fresh = -1                                         \
	}

void start_snapshot_open(const struct paths *paths, const char *engine, bool trimmed_kernel,
			 unsigned cpus, unsigned memory_mib, struct start_snapshot *ret_snapshot);
/* The VMM has written `fresh`, before the guest was connected to anything: it takes the place of
 * what there was, and files that were not used for long go. */
void start_snapshot_keep(struct start_snapshot *snapshot);
/* The same, and it is what this session goes on from. */
void start_snapshot_turn(struct start_snapshot *snapshot);
/* What was stored does not start: nobody shall meet it again. */
void start_snapshot_drop(struct start_snapshot *snapshot);
void start_snapshot_close(struct start_snapshot *snapshot);

#endif
