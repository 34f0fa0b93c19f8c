/*
 * The only place that opens names which a guest had a hand in, and the only place that turns an
 * O_PATH descriptor into one that reads or writes.
 *
 * A name is resolved as one component of a directory that is already open, with openat2 and
 * RESOLVE_BENEATH|NO_SYMLINKS|NO_MAGICLINKS|NO_XDEV; the result is O_PATH|O_NOFOLLOW, so that a
 * symlink, a FIFO or a device is named and never acted on. Reopening goes through a descriptor
 * of /proc/self/fd taken at the start, after fstat has said "regular file" or "directory".
 *
 * All functions return 0 or a negative errno; descriptors come back close-on-exec and are the
 * caller's. Sources: openat2(2), statx(2), proc(5).
 */
#ifndef FSSERVER_HOST_PATHS_H
#define FSSERVER_HOST_PATHS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* How far names may lead; one for each export. */
struct host_scope {
	int proc_fd; /* /proc/self/fd, from host_scope_init */
	/* Follow mounts below the export, but never into proc, sysfs, devtmpfs and their kin. */
	bool cross_mounts;
	uint64_t device_tree; /* st_dev of /dev, which is devtmpfs and looks like any tmpfs */
};

int host_scope_init(struct host_scope *scope, bool cross_mounts);
void host_scope_close(struct host_scope *scope);

/* O_PATH on the object `name` (one component) in `parent_fd`. -EXDEV for a mount that the scope
 * does not cover. */
int host_open_child(const struct host_scope *scope, int parent_fd, const char *name, int *ret_fd);
/* The same for a path below `root_fd` that the host itself gave ("" is the root). */
int host_open_below(const struct host_scope *scope, int root_fd, const char *path, int *ret_fd);
/* A directory for reading; for walks. Never crosses a mount. */
int host_open_directory(int parent_fd, const char *name, int *ret_fd);
/* A new regular file, read-write, which must not have existed. setuid and setgid never survive. */
int host_create_file(int parent_fd, const char *name, mode_t mode, int *ret_fd);
/* A new regular file without a name in the directory; read-write, may be linked later. */
int host_create_unnamed(const struct host_scope *scope, int parent_fd, mode_t mode, int *ret_fd);
/* `fd` again, with O_RDONLY, O_WRONLY, O_RDWR, O_PATH, and O_SYNC or O_DSYNC. Only regular files
 * and directories: others are -ENXIO (-ELOOP for symlinks), except for O_PATH. */
int host_reopen(const struct host_scope *scope, int fd, int flags, int *ret_fd);

/* Basic attributes, the mount id, and the time of birth where there is one. */
int host_stat(int fd, struct statx *ret_stat);
void host_stat_convert(const struct statx *from, struct stat *to);
uint64_t host_stat_device(const struct statx *stat);

/* The absolute path by which the kernel knows `fd` now; " (deleted)" is left on. Its length, or
 * a negative errno (-ENAMETOOLONG when it does not fit). */
ssize_t host_path_of(const struct host_scope *scope, int fd, char *path, size_t capacity);

/* Decimal descriptor number, the name of `fd` below proc_fd. */
#define HOST_FD_NAME_MAX 12
const char *host_fd_name(int fd, char name[static HOST_FD_NAME_MAX]);

#endif
