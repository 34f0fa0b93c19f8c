/*
 * What can be done with a session's changes after it ended: look at them, and undo them. The work
 * itself is matchlock-fsserver's, which owns the undo store's format; this starts it.
 */
#ifndef CLI_UNDO_ACTIONS_H
#define CLI_UNDO_ACTIONS_H

#include "cli/paths.h"
#include "cli/session_record.h"
#include "cli/text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define DIFF_OUTPUT_MAX (64u << 20) /* bytes of a rendered diff that are kept */

struct rollback_result {
	uint64_t restored; /* objects put back */
	uint64_t removed;  /* objects that the session had made */
	uint64_t kept;	   /* edited on the host meanwhile: both versions are there */
	uint64_t failed;
	char *details; /* lines for a person, such as where kept versions are; NULL for none */
};
void rollback_result_free(struct rollback_result *result);

/* Writes diff.txt and diff.json into the session's directory, unless they are there. Failing is
 * no reason not to roll back; the caller may warn. */
int save_diff(const struct paths *paths, const struct session_record *record,
	      struct problem *problem);

/* Rolls all exports back, and brings the record up to date when that succeeded. Can be run again
 * after a failure. The caller holds the session's lock. */
int roll_back(const struct paths *paths, struct session_record *record,
	      struct rollback_result *ret_result, struct problem *problem);

/* Adds a roll-back that was asked for later to the session's audit log. */
int log_rollback(const struct paths *paths, const struct session_record *record,
		 const struct rollback_result *result, struct problem *problem);

/* "3 restored, 2 removed" */
char *rollback_text(const struct rollback_result *result);
json_t *rollback_json(const struct rollback_result *result);

#endif
