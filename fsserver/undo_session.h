/*
 * What undo.c, undo_open.c, undo_move.c and undo_preimage.c share: the state of a live session.
 * Nobody else includes this; undo.h is the contract.
 */
#ifndef FSSERVER_UNDO_SESSION_H
#define FSSERVER_UNDO_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fsserver/undo.h"
#include "fsserver/undo_index.h"
#include "fsserver/undo_log.h"

enum session_flag {
	SESSION_CONTENT = UNDO_TOUCH_CONTENT,
	SESSION_ATTRIBUTES = UNDO_TOUCH_ATTRIBUTES,
	SESSION_ENTRIES = UNDO_TOUCH_ENTRIES,
	SESSION_XATTRS = UNDO_TOUCH_XATTRS,
	SESSION_BORN = 1 << 8,	     /* made by this session: needs no pre-image */
	SESSION_UNRECORDED = 1 << 9, /* born without a name; its record waits for one */
	SESSION_DIRTY = 1 << 10,     /* changes go on since the last stamp; identity was verified */
	SESSION_COVERED = 1 << 11,   /* the whole content is in the store */
	SESSION_STAMPED = 1 << 12,
	SESSION_NAMED = 1 << 14, /* the log holds a name by which it can be found */
	SESSION_MOVED = 1 << 13, /* not (only) at the names where the session met it */
};

/* One inode that the session met. Found by inode number, so an inode number given anew takes its
 * predecessor's place; the object number in the log is new. */
struct session_object {
	struct undo_identity identity;
	uint32_t number;
	uint32_t flags;
	uint64_t size_before;
	uint64_t pre_number;
	uint8_t *bitmap; /* blocks in the store, for UNDO_PRE_BLOCKS */
	uint64_t stamp_size;
	struct timespec stamp_modification;
};

/* One name that the session touched. */
struct session_entry {
	uint32_t directory;
	uint32_t name;	  /* in the arena */
	uint32_t current; /* the object number that this session left there; 0: none */
	uint32_t claimed; /* the object number that the log says was there before; 0: none */
};

struct undo {
	int store_fd; /* the caller's */
	int root_fd;  /* the caller's */
	int pre_fd;
	int grave_fd;
	int proc_fd;
	uint64_t device;
	struct undo_options options;
	struct undo_log log;
	struct undo_slots object_slots;
	struct session_object *objects;
	uint32_t object_count;
	uint32_t object_capacity;
	uint32_t next_number;
	struct undo_slots entry_slots;
	struct session_entry *entries;
	uint32_t entry_count;
	uint32_t entry_capacity;
	struct undo_names names;
	uint64_t next_pre;
	uint64_t next_grave;
	uint64_t stored_bytes;
	uint64_t stored_files;
	bool no_reflink;
	uint64_t *unsynced; /* pre-images not yet on disk */
	uint32_t unsynced_count;
	uint32_t unsynced_capacity;
	bool sync_all; /* too many, or lost count */
	/* Between will_create and did_create. */
	struct {
		bool active;
		uint32_t entry;
		int parent_fd;
		uint32_t linked; /* object number, 0 when a new object is made */
	} pending;
	/* Records that a full disk kept out after the fact; written before anything else. */
	struct undo_record late[2];
	uint32_t late_count;
};

/* ---- objects and entries ---- */

/* Writes the records that a full disk kept out. */
int session_pay_debts(struct undo *undo);
/* To be called first by whatever records: pays debts, checks the quota, promises room. */
int session_begin(struct undo *undo);
struct session_object *session_find(const struct undo *undo, uint64_t ino);
/* The object behind `stat`; made known to the log, with the name it had, when it is new. */
int session_object(struct undo *undo, const struct statx *stat, uint32_t directory,
		   const char *name, struct session_object **ret_object);
/* The directory behind `fd`, whose entries are about to change. */
int session_directory(struct undo *undo, int fd, const char *path, uint32_t *ret_number);
/* Records attributes before a first change of the kinds in `flags`. */
int session_touch(struct undo *undo, struct session_object *object, const struct statx *stat,
		  uint32_t flags);
/* Opens a period of changes: the last stamp is compared and withdrawn. */
int session_dirty(struct undo *undo, struct session_object *object, const struct statx *stat);
/* What stands at `name` before the session changes it; `number` 0: nothing. `recorded`: the
 * caller's own record says so. */
int session_claim(struct undo *undo, uint32_t directory, const char *name,
		  const struct session_object *object, struct session_entry **ret_entry);
int session_append(struct undo *undo, enum undo_record_type type, uint32_t object);

/* ---- pre-images ---- */

int session_save_content(struct undo *undo, struct session_object *object, int fd, uint64_t offset,
			 uint64_t length);
int session_save_xattrs(struct undo *undo, struct session_object *object, int fd);
/* Adds to the usage; -EDQUOT over a quota, with nothing added. */
int session_charge(struct undo *undo, uint64_t bytes, uint64_t files);
/* Bytes to a pre-image must be synced before the next fsync is acknowledged. */
void session_unsynced(struct undo *undo, uint64_t pre_number);

#endif
