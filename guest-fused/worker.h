/*
 * Requests of the kernel and answers to them; the format is linux/fuse.h (FUSE protocol 7.38).
 */
#ifndef GUEST_FUSED_WORKER_H
#define GUEST_FUSED_WORKER_H

#include "guest-fused/export.h"

#include <linux/fuse.h>

/* One request as read from the device. */
struct fused_request {
	const struct fuse_in_header *header;
	const void *body; /* at least as long as the operation's fixed struct */
	size_t length;
};

typedef void fused_operation(struct fused_worker *worker, const struct fused_request *request);

/* ops_names.c */
fused_operation fused_lookup, fused_forget, fused_batch_forget, fused_mknod, fused_mkdir,
	fused_symlink, fused_unlink, fused_rmdir, fused_rename, fused_rename2, fused_link,
	fused_create, fused_tmpfile;
/* ops_attributes.c */
fused_operation fused_getattr, fused_setattr, fused_readlink, fused_statfs, fused_getxattr,
	fused_setxattr, fused_listxattr, fused_removexattr;
/* ops_files.c */
fused_operation fused_read, fused_write, fused_fsync, fused_fsyncdir, fused_fallocate, fused_lseek,
	fused_copy_file_range, fused_syncfs;
/* ops_directories.c */
fused_operation fused_readdir, fused_readdirplus;

void *fused_worker_run(void *worker);

/* ---- asking the server ---- */

/* The worker's empty frame. */
struct fused_frame *fused_ask(struct fused_worker *worker);
/* Sends it and waits. 0 and worker->reply, or -EIO when the server is lost. While it waits, what
 * this thread knew of the cache becomes old: look again, and compare with the clock before. */
int fused_asked(struct fused_worker *worker);
/* The reply is of no more use: another worker may have the stream. */
void fused_ask_end(struct fused_worker *worker);
/* A reply was not of the agreed form: the server cannot be worked with. */
void fused_malformed(struct fused_worker *worker);

/* ---- answering the kernel ---- */

void fused_answer_error(struct fused_worker *worker, const struct fused_request *request,
			int error); /* 0 or a negative errno */
void fused_answer(struct fused_worker *worker, const struct fused_request *request,
		  const void *body, size_t length);
/* The 16 bytes before `body` are free to be overwritten with the header. */
void fused_answer_in_place(struct fused_worker *worker, const struct fused_request *request,
			   uint8_t *body, size_t length);

/* How long the kernel may keep what expires then. */
void fused_kernel_validity(uint64_t expires, uint64_t *ret_seconds, uint32_t *ret_nanoseconds);
void fused_kernel_attr(const struct fs_attr *attr, struct fuse_attr *ret_attr);
/* With the lock held: a LOOKUP's answer; counts it as one of the kernel's lookups. */
void fused_kernel_entry(struct fused_node *node, uint64_t expires,
			struct fuse_entry_out *ret_entry);

/* ---- mutations ---- */

/* Something is about to happen to a node. Returns the clock, for fused_mutated(). */
uint64_t fused_mutating(struct fused_worker *worker, uint64_t nodeid);
/* It happened; `attr` is what the server said of it in the same frame, or NULL. */
void fused_mutated(struct fused_worker *worker, uint64_t nodeid, uint64_t since,
		   const struct fs_attr_reply *attr);
/* The attributes in operation `index` of the reply, if it was answered. */
const struct fs_attr_reply *fused_reply_attr(const struct fused_worker *worker, unsigned index,
					     struct fs_attr_reply *attr);

#endif
