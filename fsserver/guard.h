/*
 * Whether the guest may: policy and identity, asked about where things really are. Each refusal
 * is told to the audit log with its rule and with what would grant it, and comes back as the
 * errno for the guest: -EACCES, -EPERM where it is about mode or owner, -ENOENT for what is
 * hidden.
 */
#ifndef FSSERVER_GUARD_H
#define FSSERVER_GUARD_H

#include "fsserver/export.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

/* A name in a directory, by the paths that undo log and policy speak of. */
struct place {
	char parent[PATH_MAX];
	char path[PATH_MAX];
};

/* Finds where `parent`/`name` is. -ENOENT when the parent was removed, -ESTALE, -ENAMETOOLONG. */
int guard_place(struct export *export, const struct node *parent, const char *name,
		struct place *ret_place);

/* -EROFS on a read-only export. */
int guard_writable(const struct export *export);

/* Judges one path. `operation` is for the audit log. */
int guard_path(struct export *export, enum policy_access access, const char *operation,
	       const char *path, mode_t mode);
/* The same for a name that is about to be made, changed or removed; finds embedded bare
 * repositories. */
int guard_name(struct export *export, enum policy_access access, const char *operation,
	       const struct node *parent, const char *name, const struct place *place, mode_t mode);
/* The same for what a rename brings from `from` to the name. */
int guard_arrival(struct export *export, const char *operation, const char *from,
		  const struct node *parent, const char *name, const struct place *place,
		  mode_t mode);

/*
 * Judges a change to the inode behind `fd` (content, attributes): by its path and its identity.
 * `path` receives where it is; *ret_path is `path`, or NULL when the object has no name any more.
 * `handle` may be NULL; its earlier verdict is used while path and policy are the same.
 */
int guard_object(struct export *export, enum policy_access access, const char *operation,
		 struct handle *handle, int fd, const struct statx *stat, mode_t mode,
		 char path[static PATH_MAX], const char **ret_path);

/* Judges the move of a whole directory, from `old_path` to `new_path`, by everything in it. */
int guard_directory_move(struct export *export, const char *operation, int directory_fd,
			 const char *old_path, const char *new_path);

/* A refusal that no policy rule makes (device nodes, mounts); `error` is returned. */
int guard_refuse(struct export *export, const char *operation, const char *path, const char *rule,
		 const char *reason, int error);

/* Whether a name in a directory is hidden from the guest. `parent_path` from guard_place or
 * export_path_of. Reports nothing: looking is not an attack. */
bool guard_hides(const struct export *export, const char *parent_path, const char *name);

#endif
