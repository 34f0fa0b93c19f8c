/*
 * Shared by the operations_*.c files. Each operation returns 0, a negative errno that becomes its
 * answer, or JOB_WAITS.
 */
#ifndef FSSERVER_OPERATIONS_INTERNAL_H
#define FSSERVER_OPERATIONS_INTERNAL_H

#include "fsserver/guard.h"
#include "fsserver/operations.h"

typedef int operation_function(struct job *job, const struct fs_request *request);

operation_function operation_lookup, operation_forget, operation_getattr, operation_setattr,
	operation_readlink, operation_statfs, operation_syncfs;
operation_function operation_make, operation_create, operation_tmpfile, operation_unlink,
	operation_rmdir, operation_rename, operation_link;
operation_function operation_open, operation_read, operation_write, operation_release,
	operation_fsync, operation_fallocate, operation_lseek, operation_copy_range;
operation_function operation_opendir, operation_readdir;
operation_function operation_getxattr, operation_setxattr, operation_listxattr,
	operation_removexattr;

int operation_write_done(struct job *job, int64_t result);
int operation_read_done(struct job *job, int64_t result);

/* ---- ids ------------------------------------------------------------------------------------ */

/* FS_NODE_PREVIOUS included. The node has its descriptor, for this operation and as long as it is
 * referenced. -ESTALE, -EINVAL, -ENFILE. */
int job_node(struct job *job, uint64_t id, struct node **ret_node);
/* The node as a directory: -ENOTDIR. */
int job_directory(struct job *job, uint64_t id, struct node **ret_node);
/* The handle, which must be the node's; FS_HANDLE_NONE gives NULL. -EBADF, -EINVAL. */
int job_handle(struct job *job, uint64_t id, const struct node *node, struct handle **ret_handle);
void job_remember_node(struct job *job, struct node *node);

/* ---- replies -------------------------------------------------------------------------------- */

/* Room for `length` bytes of reply body, NULL when there is no memory or no room in the frame. */
void *job_reply(struct job *job, size_t length);
/* Takes bytes off the frame's data budget: -EMSGSIZE. */
int job_budget(struct job *job, uint32_t size);

/* Fills in an entry and counts the lookup. `parent` NULL: not known. */
void job_fill_entry(struct job *job, struct node *parent, struct node *node,
		    const struct statx *stat, struct fs_entry *entry);
int job_reply_entry(struct job *job, struct node *parent, struct node *node,
		    const struct statx *stat);
uint32_t job_attr_validity(struct job *job, const struct node *node, const struct statx *stat);

/* ---- changes -------------------------------------------------------------------------------- */

/* After a change to the node made by this guest: what it now is, is what the guest expects. */
void operations_told(struct node *node, const struct statx *stat);
/* Notes that content changed through the handle. */
void operations_changed(struct export *export, struct handle *handle);
/* Tells undo and audit what a handle did, and takes it out of the table. */
void operations_release(struct export *export, struct handle *handle);
/* Tells the audit log of a change. */
void operations_report(struct export *export, const char *operation, const char *path,
		       const char *path2, const mode_t *mode);
/* Before the first change of content through a handle: SHA-256 of what was there, if small. */
void operations_hash_before(struct export *export, struct handle *handle, const struct statx *stat);
struct undo_inode operations_inode(const struct statx *stat);
/* Opens the node with FS_O_* flags; undo, truncation and the handle included. */
int operations_open_handle(struct job *job, struct node *node, uint32_t flags,
			   struct handle **ret_handle);
int operations_reply_open(struct job *job, const struct handle *handle, bool keep_cache);
/* Makes a change to the size. `fd` open for writing. */
int operations_truncate(struct job *job, struct node *node, struct handle *handle, int fd,
			const struct statx *stat, const char *path, uint64_t size);

#endif
