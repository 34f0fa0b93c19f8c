#include "guest-fused/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void fused_frame_begin(struct fused_frame *frame)
{
	frame->length = sizeof(struct fs_frame);
	frame->op_start = 0;
	frame->op_count = 0;
	frame->external = NULL;
	frame->external_at = 0;
	frame->external_length = 0;
}

static void close_op(struct fused_frame *frame)
{
	struct fs_op op;
	size_t length;

	if (frame->op_start == 0)
		return;
	length = frame->length - frame->op_start - sizeof(op);
	if (frame->external_at > frame->op_start)
		length += frame->external_length;
	op.opcode = frame->opcodes[frame->op_count - 1];
	op.reserved = 0;
	op.length = (uint32_t)length;
	memcpy(frame->bytes + frame->op_start, &op, sizeof(op));
	frame->op_start = 0;
}

static uint8_t *reserve(struct fused_frame *frame, size_t size)
{
	uint8_t *place = frame->bytes + frame->length;

	if (size > sizeof(frame->bytes) - frame->length)
		abort();
	frame->length += size;
	return place;
}

void *fused_frame_op(struct fused_frame *frame, enum fs_opcode opcode, size_t size)
{
	uint8_t *place;

	close_op(frame);
	if (frame->op_count == FS_OPS_MAX)
		abort();
	frame->op_start = frame->length;
	frame->opcodes[frame->op_count++] = (uint16_t)opcode;
	reserve(frame, sizeof(struct fs_op));
	place = reserve(frame, size);
	memset(place, 0, size);
	return place;
}

void fused_frame_bytes(struct fused_frame *frame, const void *data, size_t length)
{
	uint8_t *place = reserve(frame, length);

	if (length > 0)
		memcpy(place, data, length);
}

void fused_frame_external(struct fused_frame *frame, const void *data, size_t length)
{
	frame->external = data;
	frame->external_at = frame->length;
	frame->external_length = length;
}

void fused_frame_finish(struct fused_frame *frame, uint64_t tag, uint16_t flags)
{
	struct fs_frame header = {
		.length = (uint32_t)(frame->length + frame->external_length),
		.op_count = frame->op_count,
		.flags = flags,
		.tag = tag,
	};

	close_op(frame);
	memcpy(frame->bytes, &header, sizeof(header));
}

void fused_frame_node(struct fused_frame *frame, enum fs_opcode opcode, uint64_t nodeid,
		      uint64_t handle)
{
	struct fs_node *node = fused_frame_op(frame, opcode, sizeof(*node));

	node->nodeid = nodeid;
	node->handle = handle;
}

void fused_frame_parent(struct fused_frame *frame, enum fs_opcode opcode, uint64_t parent,
			const char *name, size_t name_length)
{
	struct fs_parent *fixed = fused_frame_op(frame, opcode, sizeof(*fixed));

	fixed->parent = parent;
	fixed->name_length = (uint16_t)name_length;
	fused_frame_bytes(frame, name, name_length);
}

void fused_frame_open(struct fused_frame *frame, uint64_t nodeid, uint32_t flags)
{
	struct fs_open *open = fused_frame_op(frame, FS_OPEN, sizeof(*open));

	open->nodeid = nodeid;
	open->flags = flags;
}

void fused_frame_list(struct fused_frame *frame, uint64_t nodeid, uint64_t offset, uint32_t size,
		      bool plus)
{
	struct fs_readdir *readdir = fused_frame_op(frame, FS_READDIR, sizeof(*readdir));

	readdir->nodeid = nodeid;
	readdir->offset = offset;
	readdir->size = size;
	readdir->flags = plus ? FS_READDIR_PLUS : 0;
	fused_frame_node(frame, FS_GETATTR, nodeid, FS_HANDLE_NONE);
}

/* What the kernel may be told: it refuses errnos from 512 on, and takes ENOSYS to mean that the
 * operation will never work on this mount. */
static uint16_t kernel_error(uint16_t error)
{
	if (error == ENOSYS)
		return EOPNOTSUPP;
	return error >= 512 ? EIO : error;
}

int fused_reply_parse(const struct fused_frame *frame, uint64_t tag, uint8_t *data, size_t length,
		      struct fused_reply *ret_reply)
{
	struct byte_reader reader;
	struct fs_frame header;
	unsigned count;

	byte_reader_init(&reader, data, length);
	byte_reader_copy(&reader, &header, sizeof(header));
	if (!byte_reader_ok(&reader) || header.length != length || header.tag != tag ||
	    header.flags != 0 || header.op_count == 0 || header.op_count > frame->op_count)
		return -EBADMSG;
	count = header.op_count;
	ret_reply->failed = 0;
	for (unsigned i = 0; i < count; i++) {
		struct fs_op_reply op;

		byte_reader_copy(&reader, &op, sizeof(op));
		if (op.opcode != frame->opcodes[i] || (op.error != 0 && op.length != 0) ||
		    (op.error != 0 && i + 1 != count))
			return -EBADMSG;
		ret_reply->ops[i].error = kernel_error(op.error);
		ret_reply->ops[i].length = op.length;
		ret_reply->ops[i].body = data + reader.position;
		if (byte_reader_bytes(&reader, op.length) == NULL && !byte_reader_ok(&reader))
			return -EBADMSG;
		if (op.error != 0)
			ret_reply->failed = 1;
	}
	if (!byte_reader_done(&reader) || (count < frame->op_count && !ret_reply->failed))
		return -EBADMSG;
	ret_reply->count = (uint16_t)count;
	return 0;
}

int fused_reply_error(const struct fused_reply *reply, unsigned index)
{
	if (index < reply->count)
		return -(int)reply->ops[index].error;
	return reply->count > 0 ? -(int)reply->ops[reply->count - 1].error : -EIO;
}

int fused_reply_fixed(const struct fused_reply *reply, unsigned index, void *ret_body, size_t size)
{
	int error = fused_reply_error(reply, index);

	if (error != 0)
		return error;
	if (reply->ops[index].length != size)
		return -EBADMSG;
	memcpy(ret_body, reply->ops[index].body, size);
	return 0;
}
