/*
 * What a store's log says, laid beside what the tree is: the common ground of rolling back and of
 * listing changes. Reading only; the store on disk is not trusted further than its form (see
 * undo_log.h), and every name is opened below the root or the store, never through a symlink.
 */
#ifndef FSSERVER_UNDO_MODEL_H
#define FSSERVER_UNDO_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fsserver/undo_index.h"
#include "fsserver/undo_log.h"

#define MODEL_NONE 0u		 /* no object */
#define MODEL_FOREIGN UINT32_MAX /* an object that the log does not know: the host's */
/* Directories outside the tree, where an object may be found. */
#define MODEL_GRAVE (UINT32_MAX - 1)
#define MODEL_STAGE (UINT32_MAX - 2)
#define MODEL_NO_ENTRY UINT32_MAX
#define MODEL_PATH_MAX 4096u
#define MODEL_DEPTH_MAX 2048u

struct model_object {
	struct undo_identity identity;
	uint32_t mode;	      /* at first sight; the type does not change */
	uint32_t parent;      /* where it was met; 0: without a name */
	uint32_t name;	      /* in the arena */
	uint32_t touched;     /* enum undo_touch */
	uint32_t first_claim; /* the entry where it was before, or MODEL_NO_ENTRY */
	uint32_t first_entry; /* of this directory, or MODEL_NO_ENTRY */
	uint32_t first_xattr; /* plus one */
	uint32_t depth;	      /* of the place before, from the root; a roll-back's */
	bool born;
	bool dead; /* its inode number belongs to a later object */
	bool stamped;
	bool dirty;
	bool host_edit;
	bool has_before;
	bool scanned;
	bool unreachable;
	uint8_t pre_kind; /* 0: none */
	uint64_t pre_number;
	uint64_t pre_size;
	uint64_t pre_data; /* offset in the log */
	uint8_t *bitmap;
	uint64_t blocks;
	struct undo_attributes before;
	struct undo_attributes stamp;
	/* Where it is now. */
	bool located;
	uint32_t now_directory;
	uint32_t now_name;
	struct undo_attributes now;
	uint32_t decision; /* enum rollback_decision, a roll-back's */
};

struct model_entry {
	uint32_t directory;
	uint32_t name;
	uint32_t next;	 /* of the same directory, or MODEL_NO_ENTRY */
	uint32_t wanted; /* what was there before */
	uint32_t now;
	uint32_t now_mode;
	bool seen;	 /* `now` is known */
	bool left;	 /* the host's: a roll-back does not touch it */
	uint32_t origin; /* a roll-back's: the entry, plus one, whose object goes here instead */
};

struct model_displaced { /* the host took the place of `object` during the session */
	uint32_t entry;
	uint32_t object;
};

struct model_xattr {
	uint32_t name;
	uint32_t next; /* plus one */
	uint32_t length;
	uint64_t offset; /* in the log */
};

struct model_instance { /* a name outside the tree under which an object stands */
	uint32_t object;
	uint32_t directory;
	uint32_t name;
	bool used;
};

struct model_directory_fd {
	uint32_t object;
	uint32_t tick;
	int fd;
};

struct undo_model {
	int store_fd; /* the caller's */
	int root_fd;  /* the caller's */
	int log_fd;
	int pre_fd;
	int grave_fd;
	int stage_fd; /* -1 when there is none */
	uint64_t log_end;
	uint64_t log_sequence;
	bool closed;
	bool repair; /* set by a roll-back: directories that the guest closed are opened up */
	struct model_object *objects; /* [0] is unused */
	uint32_t object_count;
	uint32_t object_capacity;
	struct undo_slots object_slots;
	struct model_entry *entries;
	uint32_t entry_count;
	uint32_t entry_capacity;
	struct undo_slots entry_slots;
	struct undo_names names;
	struct model_displaced *displaced;
	uint32_t displaced_count;
	uint32_t displaced_capacity;
	struct model_xattr *xattrs;
	uint32_t xattr_count;
	uint32_t xattr_capacity;
	struct model_instance *instances;
	uint32_t instance_count;
	uint32_t instance_capacity;
	/* A creation that a crash interrupted. */
	uint32_t pending_entry;
	uint32_t pending_type;
	struct timespec pending_time;
	struct model_directory_fd *fds;
	uint32_t fd_count;
	uint32_t fd_hand;
	uint32_t fd_tick;
};

/* Loads the log. -ENOENT when the store holds none, -EBADMSG when it is none of ours. */
int undo_model_load(struct undo_model *model, int store_fd, int root_fd);
/* Finds everything that the log names. */
int undo_model_scan(struct undo_model *model);
void undo_model_free(struct undo_model *model);

struct model_object *undo_model_object(struct undo_model *model, uint32_t number);
const char *undo_model_name(const struct undo_model *model, uint32_t name);
/* The entry, made when there is none. */
int undo_model_entry(struct undo_model *model, uint32_t directory, const char *name, size_t length,
		     uint32_t *ret_entry);
/* The object number behind `stat`: known and alive, or MODEL_FOREIGN. */
uint32_t undo_model_identify(const struct undo_model *model, const struct statx *stat);
/* A descriptor (O_PATH) of a directory, the model's own; it holds until eight more directories
 * were opened. */
int undo_model_directory(struct undo_model *model, uint32_t number);
/* Notes where an object stands; `stat` may be NULL when its attributes are known. */
void undo_model_place(struct undo_model *model, uint32_t number, uint32_t directory, uint32_t name,
		      const struct statx *stat);
int undo_model_add_instance(struct undo_model *model, uint32_t object, uint32_t directory,
			    uint32_t name);
/* An object without entry: looks where it was met. False when it is not there. */
bool undo_model_locate(struct undo_model *model, uint32_t number);
/* Opens the object where it is now. */
int undo_model_open(struct undo_model *model, uint32_t number, int flags);

/* Paths from the root; false when there is none, or it is too long. */
bool undo_model_path_now(struct undo_model *model, uint32_t directory, const char *name,
			 char path[MODEL_PATH_MAX]);
bool undo_model_path_before(struct undo_model *model, uint32_t directory, const char *name,
			    char path[MODEL_PATH_MAX]);
/* The object's path: where it is now, else where it was. */
void undo_model_describe(struct undo_model *model, uint32_t number, char path[MODEL_PATH_MAX]);
bool undo_model_block_saved(const struct model_object *object, uint64_t block);

#endif
