/*
 * What undo_plan.c and undo_rollback.c share. Nobody else includes this; undo.h is the contract.
 */
#ifndef FSSERVER_UNDO_ROLLBACK_H
#define FSSERVER_UNDO_ROLLBACK_H

#include <stdbool.h>
#include <stdint.h>

#include "fsserver/undo.h"
#include "fsserver/undo_log.h"
#include "fsserver/undo_model.h"

#define SUFFIX_BEFORE ".matchlock-before" /* of a pre-session version beside the host's */

struct rollback_beside { /* a copy of `object` as it was, to be made at a name of its own */
	uint32_t object;
	uint32_t directory;
	uint32_t name;
};

struct rollback {
	struct undo_model model;
	const struct undo_callbacks *callbacks;
	struct undo_report report;
	struct undo_log progress;
	int kept_fd;
	uint64_t next_stage;
	uint64_t done;
	uint64_t total;
	bool planned; /* by an earlier roll-back that did not finish */
	struct rollback_beside *besides;
	uint32_t beside_count;
	uint32_t beside_capacity;
	char store_path[MODEL_PATH_MAX]; /* for messages */
};

/* Opens `progress`, reads an earlier plan. *ret_done: a roll-back finished. */
int rollback_open_progress(struct rollback *rollback, bool *ret_done);
/* Applies the plan that was read, or makes one and writes it down. After the scan. */
int rollback_plan(struct rollback *rollback);
/* A free name next to `name`, and the entry that wants `object` there, written down first. */
int rollback_redirect(struct rollback *rollback, uint32_t entry, uint32_t object,
		      const char *suffix, uint32_t *ret_entry);
void rollback_kept(struct rollback *rollback, const char *path, const char *kept_path);
void rollback_failed(struct rollback *rollback, const char *path, int error);

#endif
