/*
 * The undo log of one writable export: nothing changes in the tree before what it replaces is in
 * the store. The same module rolls a tree back and lists what changed, from the store alone, so
 * that both work after any process was killed at any instruction.
 *
 * The store is a directory on the export's own file system, never visible to the guest:
 *     log        append-only records, each with a CRC
 *     pre/N      pre-image of an inode's content (reflink, whole copy, or sparse blocks + bitmap)
 *     grave/N    what was unlinked, removed or overwritten: the very inode, moved here
 *     kept/...   at roll-back: a version that the host and the guest both touched
 *     progress   how far a roll-back came
 * docs/undo-log.md holds the record formats.
 *
 * Paths are relative to the export's root, without leading slash, true at the moment of the call
 * ("" is the root). Descriptors are the caller's; nothing here follows a symlink. All functions
 * return 0 or a negative errno; on an error the tree is unchanged and the caller refuses the
 * guest's operation with it (-ENOSPC and -EDQUOT when the store is full or over its quota).
 * One thread, one session.
 */
#ifndef FSSERVER_UNDO_H
#define FSSERVER_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct undo;

struct undo_options {
	uint64_t store_bytes_max; /* 0: no quota; counts copied bytes and graveyard files */
	uint64_t files_max;	  /* 0: no quota; entries in pre/ and grave/ */
};

/* Which inode: stable while anybody holds it open. */
struct undo_inode {
	uint64_t device;
	uint64_t ino;
};

/* Opens (creating) the store in `store_fd` for the tree at `root_fd`; both stay the caller's and
 * must outlive the undo. -EXDEV when they are not on one mount and rename would fail; -EBUSY when
 * another session has it. */
int undo_open(int store_fd, int root_fd, const struct undo_options *options,
	      struct undo **ret_undo);
/* Ends the session cleanly: closing record with the final stamps of what was changed. */
int undo_close(struct undo *undo);

/*
 * Before content changes. `fd` refers to the inode (O_PATH suffices); `path` is where it is now,
 * or NULL when it has no name. `offset`, `length`: the range about to change, UINT64_MAX length
 * for "to the end" (truncate, and anything that moves the end). Cheap after the first time for an
 * inode: no system call when the range is covered or the inode was made by this session.
 */
int undo_will_write(struct undo *undo, int fd, struct undo_inode inode, const char *path,
		    uint64_t offset, uint64_t length);
/* Before mode, owner, times or xattrs change. */
int undo_will_set_attributes(struct undo *undo, int fd, struct undo_inode inode, const char *path);
/* After a change to content or attributes was made through this session: remembers the inode's
 * stamp (size, mtime, ctime), by which a later edit of the host's is told apart. Call at least when
 * a handle that wrote is released, and after every attribute change. */
void undo_did_change(struct undo *undo, struct undo_inode inode, const struct stat *now);

/*
 * Around making a name (create, mkdir, symlink, mknod, link). `existing`: NULL, or for link the
 * inode that gains a name (`existing_fd` refers to it).
 * will_create records the parent's attributes on its first change and the intent; did_create
 * records the result. A failed creation is told with undo_did_not_create.
 */
int undo_will_create(struct undo *undo, int parent_fd, const char *parent_path, const char *name,
		     mode_t type);
int undo_will_link(struct undo *undo, int parent_fd, const char *parent_path, const char *name,
		   int existing_fd, struct undo_inode existing);
void undo_did_create(struct undo *undo, const struct stat *made);
void undo_did_not_create(struct undo *undo);
/* An inode without a name (O_TMPFILE) that this session made: it needs no pre-image. */
void undo_did_create_unnamed(struct undo *undo, const struct stat *made);

/*
 * Removal and rename are carried out here, because the old object moves into the store. All
 * names are single components in the two parents. `child`/`source`/`target`: what the caller
 * judged (its O_PATH descriptor and inode); a different object found under the name by now gives
 * -ESTALE and nothing happens. `target_fd` is -1 when nothing stands there.
 */
int undo_remove(struct undo *undo, int parent_fd, const char *parent_path, const char *name,
		int child_fd, struct undo_inode child, bool directory);
struct undo_rename {
	int old_parent_fd;
	const char *old_parent_path;
	const char *old_name;
	int new_parent_fd;
	const char *new_parent_path;
	const char *new_name;
	int source_fd;
	struct undo_inode source;
	int target_fd;
	struct undo_inode target;
	unsigned flags; /* RENAME_NOREPLACE, RENAME_EXCHANGE */
};
int undo_rename(struct undo *undo, const struct undo_rename *rename);

/* Pre-images and log reach the disk; before a guest's fsync is acknowledged. */
int undo_sync(struct undo *undo);

/* Bytes and entries in the store. */
void undo_usage(const struct undo *undo, uint64_t *ret_bytes, uint64_t *ret_entries);

/* ---- afterwards: in a process of its own, by anyone who may write the tree ------------------- */

struct undo_report {
	uint64_t restored; /* objects put back: content, name or attributes */
	uint64_t removed;  /* objects that the session made, gone now */
	uint64_t kept;	   /* conflicts: both versions kept; named through `on_kept` */
	uint64_t failed;   /* named through `on_failed`; the roll-back can be run again */
	bool already_done; /* an earlier roll-back finished: nothing was done */
};

struct undo_callbacks {
	/* The host edited `path` meanwhile; the guest's or host's other version is at `kept_path`.
	 */
	void (*on_kept)(const char *path, const char *kept_path, void *context);
	void (*on_failed)(const char *path, int error, void *context);
	void (*on_progress)(uint64_t done, uint64_t total, void *context); /* may be NULL */
	void *context;
};

/* Puts the tree back as it was when the store was made. Can be killed and run again. */
int undo_roll_back(int store_fd, int root_fd, const struct undo_callbacks *callbacks,
		   struct undo_report *ret_report);

enum undo_change_kind {
	UNDO_CREATED,
	UNDO_CHANGED, /* content */
	UNDO_DELETED,
	UNDO_RENAMED,	 /* perhaps changed too */
	UNDO_ATTRIBUTES, /* mode, owner or xattrs alone */
};

struct undo_change {
	enum undo_change_kind kind;
	bool content_changed; /* for UNDO_RENAMED */
	const char *path;     /* now (for UNDO_DELETED: before) */
	const char *old_path; /* for UNDO_RENAMED; else NULL */
	struct stat before;   /* zeroed for UNDO_CREATED */
	struct stat after;    /* zeroed for UNDO_DELETED */
	/* Readable content, -1 where there is none or it is no regular file; closed after the call.
	 */
	int before_fd;
	int after_fd;
};

/* The net changes, sorted by path: what made and removed itself again is not listed. Works on a
 * live, a closed and a crashed session that was not rolled back. */
int undo_each_change(int store_fd, int root_fd,
		     int (*callback)(const struct undo_change *change, void *context),
		     void *context);

/* Deletes the store's content (prune, or after a roll-back). */
int undo_discard(int store_fd);

#endif
