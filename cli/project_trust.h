/*
 * Which .matchlock.yaml the user has looked at: STATE/trust/NAME.json, one record for each file,
 * with its absolute path and the SHA-256 of its bytes. NAME is the SHA-256 of the path.
 *
 * Path and content are what counts, not the inode: git replaces files by new ones with the same
 * bytes. Another byte, or another place, and the file is ignored until it is trusted again. The
 * state directory is never visible to a guest.
 */
#ifndef CLI_PROJECT_TRUST_H
#define CLI_PROJECT_TRUST_H

#include "cli/options.h"
#include "cli/paths.h"
#include "cli/project_file.h"

#include <time.h>

enum trust_state {
	TRUST_NONE,
	TRUST_CHANGED, /* it was trusted with other bytes */
	TRUST_GIVEN,
};

struct trust_record {
	char *path;
	char sha256[65];
	time_t since;
};

/* *ret_state tells how the user stands to these bytes at this path. */
int trust_look_up(const struct paths *paths, const struct project_bytes *bytes,
		  enum trust_state *ret_state, struct problem *problem);
/* Replaces an earlier record, in one step. */
int trust_give(const struct paths *paths, const struct project_bytes *bytes,
	       struct problem *problem);
/* 1 when there was a record of this path, 0 when there was none. */
int trust_take_back(const struct paths *paths, const char *path, struct problem *problem);
/* All records, by path; the caller frees with trust_list_free(). */
int trust_list(const struct paths *paths, struct trust_record **ret_records, size_t *ret_count,
	       struct problem *problem);
void trust_list_free(struct trust_record *records, size_t count);

/* Tightens the options by what the workspace's file asks for, when it is trusted; else leaves a
 * notice in options->notices that says how to trust it. */
int project_apply(struct run_options *options, const struct paths *paths, struct problem *problem);

#endif
