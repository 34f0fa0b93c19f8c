/*
 * Putting one object's content and attributes back, from the store. The object is found through
 * the model; each function can be interrupted anywhere and called again.
 */
#ifndef FSSERVER_UNDO_RESTORE_H
#define FSSERVER_UNDO_RESTORE_H

#include <stdbool.h>
#include <stdint.h>

struct undo_model;

/* What a roll-back decided about an object. */
enum rollback_decision {
	ROLLBACK_KEEP_CONTENT = 1, /* the host edited it: content and times stay */
	ROLLBACK_KEEP_MODE = 2,	   /* the host changed mode or owner */
	ROLLBACK_KEEP_TIMES = 4,
	ROLLBACK_COPY_FIRST = 8, /* open at a crash: the current version goes to kept/ */
};

/* The pre-image into the very inode. */
int undo_restore_content(struct undo_model *model, uint32_t number);
/* Mode, owner, xattrs and times, as far as the session touched them and `decision` allows. */
int undo_restore_attributes(struct undo_model *model, uint32_t number, uint32_t decision);
/* Whether the object's user.* attributes are no longer those in the log. */
bool undo_xattrs_differ(struct undo_model *model, uint32_t number);
/* Whether the content before can be had at all. */
bool undo_has_before(struct undo_model *model, uint32_t number);
/* Writes the content before into the empty file `target`. */
int undo_build_before(struct undo_model *model, uint32_t number, int target);

#endif
