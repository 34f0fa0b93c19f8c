/*
 * Where Matchlock keeps things on the host (XDG Base Directory Specification 0.8), and the few
 * judgements about paths that a session depends on.
 *
 *     state    $XDG_STATE_HOME/matchlock    sessions/ID/, undo/ID/
 *     cache    $XDG_CACHE_HOME/matchlock    kernel/
 *     config   $XDG_CONFIG_HOME/matchlock   config.yaml
 *     runtime  $XDG_RUNTIME_DIR/matchlock   ID/ with a running session's sockets
 *
 * A variable that is unset, empty or not absolute counts as unset. Without XDG_RUNTIME_DIR the
 * runtime directory is /tmp/matchlock-UID. What Matchlock makes has mode 0700.
 */
#ifndef CLI_PATHS_H
#define CLI_PATHS_H

#include "cli/text.h"

#include <stdbool.h>
#include <sys/types.h>

struct paths {
	char *home; /* of the user who calls, canonical */
	char *state;
	char *cache;
	char *config;
	char *runtime;
	char *programs; /* the directory of the running program */
};

/* Finds, makes nothing. `state` is canonical as far as it exists. */
int paths_find(struct paths *paths, struct problem *problem);
void paths_free(struct paths *paths);

/* mkdir -p with mode 0700 for what is missing. 0 or a negative errno. */
int make_directories(const char *path);
/* Makes and opens a directory that only its owner can enter: it must be a real directory (no
 * symlink), ours, and closed to others; its mode is repaired when it is ours. */
int open_private_directory(const char *path, struct problem *problem);

/* The daemon's or script's full path: beside this program (a build tree), in ../libexec/matchlock,
 * or in ../scripts or ../../scripts for scripts of a build tree. NULL with *problem set. */
char *find_program(const struct paths *paths, const char *name, struct problem *problem);
/* The guest's initramfs: beside this program, or in ../libexec/matchlock. */
char *find_initramfs(const struct paths *paths, struct problem *problem);

/* True when `path` is `directory` or lies below it; both are canonical. */
bool path_is_within(const char *path, const char *directory);
/* Number of components. */
size_t path_depth(const char *path);
/* Canonical form of `path` of which a tail may not exist yet. */
char *canonical_prefix(const char *path);
/* `path` relative to `directory`, which holds it: "" for itself. Borrowed from `path`. */
const char *path_below(const char *path, const char *directory);

/* Whether a file in (or to be made in) `a` can be renamed into `b`: same device, same mount. */
bool same_mount(const char *a, const char *b);

/* `path` without symlinks, dot components or doubled slashes: purely textual, absolute. */
bool path_is_plain_absolute(const char *path);

#endif
