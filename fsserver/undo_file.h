/*
 * File work that the undo log's parts share: opening below a directory without ever leaving it,
 * sparse-aware copies, attributes through descriptors. No state; 0 or a negative errno.
 */
#ifndef FSSERVER_UNDO_FILE_H
#define FSSERVER_UNDO_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct undo_attributes;

/* A number as the name of a file in the store. */
struct undo_number_name {
	char text[24];
};
struct undo_number_name undo_number_name(uint64_t number);
/* Whether `name` is such a name; its number. */
bool undo_parse_number(const char *name, uint64_t *ret_number);

/* openat2 with RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS, NO_XDEV; O_NOFOLLOW and O_CLOEXEC are
 * added. `path` may have several components; "" gives the directory again. */
int undo_open_beneath(int directory_fd, const char *path, int flags, mode_t mode);
/* Another open of the inode that `fd` (O_PATH will do) refers to, through `proc_fd`, an open
 * /proc/self/fd. */
int undo_reopen(int proc_fd, int fd, int flags);
/* An inode that symlinks cannot misdirect: `name` in `directory_fd`, or "" for the descriptor. */
int undo_statx(int directory_fd, const char *name, struct statx *ret_stat);

/* Copies the data of [offset, offset + length) to the same place in `target`, leaving holes out.
 * *ret_copied counts the bytes that took room. */
int undo_copy_sparse(int source, int target, uint64_t offset, uint64_t length,
		     uint64_t *ret_copied);
/* The same, and makes holes in `target` where `source` has them. */
int undo_restore_range(int source, int target, uint64_t offset, uint64_t length);

/* 0 when empty, -ENOTEMPTY, or an error. */
int undo_directory_empty(int directory_fd);
/* fchmod that works on O_PATH descriptors too: through `proc_fd`, an open /proc/self/fd, or with -1
 * by whatever the kernel offers outside a jail. */
int undo_chmod(int proc_fd, int fd, mode_t mode);
int undo_set_times(int fd, const struct undo_attributes *attributes);

#endif
