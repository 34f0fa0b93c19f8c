/*
 * Building request frames and taking reply frames apart (wire/fs.h has the layout).
 *
 * A fused_frame collects operations; their fixed structs are filled in place. File data is not
 * copied into it: it is borrowed and sent from where the kernel put it.
 *
 * A fused_reply is the parsed form of a reply frame; bodies borrow from the receive buffer. The
 * host is trusted more than the guest, but its bytes are checked all the same.
 */
#ifndef GUEST_FUSED_FRAME_H
#define GUEST_FUSED_FRAME_H

#include "wire/fs.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room for headers, names and an extended attribute's value; file data lies elsewhere. */
#define FUSED_FRAME_CAPACITY (FS_XATTR_VALUE_MAX + 16384u)

struct fused_frame {
	size_t length;
	size_t op_start; /* of the operation under construction; 0: none */
	uint16_t op_count;
	uint16_t opcodes[FS_OPS_MAX];
	const void *external; /* borrowed data, sent after bytes[0..external_at) */
	size_t external_at;
	size_t external_length;
	uint8_t bytes[FUSED_FRAME_CAPACITY];
};

void fused_frame_begin(struct fused_frame *frame);
/* Starts an operation and returns its zeroed fixed struct of `size` bytes. At most FS_OPS_MAX
 * operations, and within the capacity: both are the caller's to see to, and abort otherwise. */
void *fused_frame_op(struct fused_frame *frame, enum fs_opcode opcode, size_t size);
/* Adds a variable part to the operation under construction. */
void fused_frame_bytes(struct fused_frame *frame, const void *data, size_t length);
/* Adds borrowed data to the operation under construction; once in a frame. */
void fused_frame_external(struct fused_frame *frame, const void *data, size_t length);
/* Closes the last operation and writes the frame's header. */
void fused_frame_finish(struct fused_frame *frame, uint64_t tag, uint16_t flags);

/* Shorthands for operations used in many frames. */
void fused_frame_node(struct fused_frame *frame, enum fs_opcode opcode, uint64_t nodeid,
		      uint64_t handle);
void fused_frame_parent(struct fused_frame *frame, enum fs_opcode opcode, uint64_t parent,
			const char *name, size_t name_length);
void fused_frame_open(struct fused_frame *frame, uint64_t nodeid, uint32_t flags);
/* READDIR from `offset` on, with attributes if `plus`, and the directory's own GETATTR. */
void fused_frame_list(struct fused_frame *frame, uint64_t nodeid, uint64_t offset, uint32_t size,
		      bool plus);

struct fused_reply_op {
	uint16_t error; /* positive errno the kernel may see, or 0 */
	uint32_t length;
	uint8_t *body;
};

struct fused_reply {
	uint16_t count;	 /* operations answered */
	uint16_t failed; /* 1: the last one answered has an error */
	struct fused_reply_op ops[FS_OPS_MAX];
};

/* Parses the whole reply frame data[0..length) to `frame`, which was sent with `tag`. Returns 0
 * or -EBADMSG. */
int fused_reply_parse(const struct fused_frame *frame, uint64_t tag, uint8_t *data, size_t length,
		      struct fused_reply *ret_reply);
/* Whether operation `index` was answered without error; its error otherwise (negative errno;
 * that of the operation that ended the frame when it never ran). */
int fused_reply_error(const struct fused_reply *reply, unsigned index);
/* Copies the fixed body of a successful operation. Returns 0, its error, or -EBADMSG when the
 * body is not of exactly `size` bytes. */
int fused_reply_fixed(const struct fused_reply *reply, unsigned index, void *ret_body, size_t size);

#endif
