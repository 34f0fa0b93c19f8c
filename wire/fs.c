#include "wire/fs.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>

static const char *const opcode_names[] = {
	[FS_HELLO] = "hello",
	[FS_LOOKUP] = "lookup",
	[FS_FORGET] = "forget",
	[FS_GETATTR] = "getattr",
	[FS_SETATTR] = "setattr",
	[FS_READLINK] = "readlink",
	[FS_SYMLINK] = "symlink",
	[FS_MKNOD] = "mknod",
	[FS_MKDIR] = "mkdir",
	[FS_UNLINK] = "unlink",
	[FS_RMDIR] = "rmdir",
	[FS_RENAME] = "rename",
	[FS_LINK] = "link",
	[FS_OPEN] = "open",
	[FS_CREATE] = "create",
	[FS_TMPFILE] = "tmpfile",
	[FS_READ] = "read",
	[FS_WRITE] = "write",
	[FS_RELEASE] = "release",
	[FS_FSYNC] = "fsync",
	[FS_OPENDIR] = "opendir",
	[FS_READDIR] = "readdir",
	[FS_STATFS] = "statfs",
	[FS_GETXATTR] = "getxattr",
	[FS_SETXATTR] = "setxattr",
	[FS_LISTXATTR] = "listxattr",
	[FS_REMOVEXATTR] = "removexattr",
	[FS_FALLOCATE] = "fallocate",
	[FS_LSEEK] = "lseek",
	[FS_COPY_RANGE] = "copy_range",
	[FS_SYNCFS] = "syncfs",
	[FS_NOTIFY] = "notify",
	[FS_GOODBYE] = "goodbye",
};

const char *fs_opcode_name(enum fs_opcode opcode)
{
	if ((size_t)opcode >= ARRAY_LENGTH(opcode_names) || !opcode_names[opcode])
		return "unknown";
	return opcode_names[opcode];
}

int fs_name_check(const void *name, size_t length)
{
	const char *text = name;

	if (length == 0)
		return -EINVAL;
	if (length > FS_NAME_MAX)
		return -ENAMETOOLONG;
	if (memchr(text, '/', length) || memchr(text, '\0', length))
		return -EINVAL;
	if (text[0] == '.' && (length == 1 || (length == 2 && text[1] == '.')))
		return -EINVAL;
	return 0;
}

int fs_frame_check(const struct fs_frame *frame)
{
	if (frame->length < sizeof(struct fs_frame) + sizeof(struct fs_op) ||
	    frame->length > FS_FRAME_MAX)
		return -EBADMSG;
	if (frame->op_count == 0 || frame->op_count > FS_OPS_MAX)
		return -EBADMSG;
	if (frame->flags & ~FS_FRAME_NO_REPLY)
		return -EBADMSG;
	return 0;
}

/* Takes `length` bytes as a name into `target` (FS_NAME_MAX + 1). A wrong name is the operation's
 * own error; bytes that are not there fail the reader. */
static int take_name(struct byte_reader *body, size_t length, char *target)
{
	const uint8_t *bytes = byte_reader_bytes(body, length);
	int error;

	if (!bytes)
		return -EBADMSG;
	error = fs_name_check(bytes, length);
	if (error)
		return error;
	memcpy(target, bytes, length);
	target[length] = '\0';
	return 0;
}

static int take_target(struct byte_reader *body, size_t length, char *target)
{
	const uint8_t *bytes = byte_reader_bytes(body, length);

	if (!bytes)
		return -EBADMSG;
	if (length == 0 || memchr(bytes, '\0', length))
		return -EINVAL;
	if (length > FS_TARGET_MAX)
		return -ENAMETOOLONG;
	memcpy(target, bytes, length);
	target[length] = '\0';
	return 0;
}

/* offset and length as the kernel's loff_t can hold them. */
static int check_range(uint64_t offset, uint64_t length, int error)
{
	uint64_t end;

	if (!checked_add_u64(offset, length, &end) || end > INT64_MAX)
		return error;
	return 0;
}

static int decode_hello(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->hello, sizeof(ret->hello));
	return 0;
}

static int decode_parent(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->parent, sizeof(ret->parent));
	return take_name(body, ret->parent.name_length, ret->name);
}

static int decode_forget(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->forget, sizeof(ret->forget));
	if (ret->forget.count > FS_FORGETS_MAX)
		return -EBADMSG;
	ret->data_length = ret->forget.count * sizeof(struct fs_forget_one);
	ret->data = byte_reader_bytes(body, ret->data_length);
	return ret->data ? 0 : -EBADMSG;
}

static int decode_node(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->node, sizeof(ret->node));
	return 0;
}

static int decode_setattr(struct byte_reader *body, struct fs_request *ret)
{
	const struct fs_setattr *set = &ret->setattr;

	byte_reader_copy(body, &ret->setattr, sizeof(ret->setattr));
	if (set->valid & ~FS_SET_ALL)
		return -EINVAL;
	if ((set->valid & FS_SET_SIZE) && set->size > INT64_MAX)
		return -EFBIG;
	if ((set->valid & FS_SET_ATIME) && set->atime_nsec >= 1000000000)
		return -EINVAL;
	if ((set->valid & FS_SET_MTIME) && set->mtime_nsec >= 1000000000)
		return -EINVAL;
	return 0;
}

static int decode_make(struct byte_reader *body, struct fs_request *ret)
{
	const struct fs_make *make = &ret->make;
	bool opens = ret->opcode == FS_CREATE || ret->opcode == FS_TMPFILE;
	int error = 0;

	byte_reader_copy(body, &ret->make, sizeof(ret->make));
	if (ret->opcode == FS_TMPFILE && make->name_length != 0)
		return -EBADMSG;
	if (ret->opcode != FS_SYMLINK && make->target_length != 0)
		return -EBADMSG;
	if (ret->opcode != FS_TMPFILE)
		error = take_name(body, make->name_length, ret->name);
	if (error)
		return error;
	if (ret->opcode == FS_SYMLINK)
		error = take_target(body, make->target_length, ret->target);
	if (error)
		return error;
	if (make->flags & ~(opens ? FS_O_ALL : 0))
		return -EINVAL;
	return 0;
}

static int decode_rename(struct byte_reader *body, struct fs_request *ret)
{
	int error;

	byte_reader_copy(body, &ret->rename, sizeof(ret->rename));
	error = take_name(body, ret->rename.name_length, ret->name);
	if (error)
		return error;
	error = take_name(body, ret->rename.new_name_length, ret->new_name);
	if (error)
		return error;
	if (ret->rename.flags & ~(FS_RENAME_NOREPLACE | FS_RENAME_EXCHANGE) ||
	    ret->rename.flags == (FS_RENAME_NOREPLACE | FS_RENAME_EXCHANGE))
		return -EINVAL;
	return 0;
}

static int decode_link(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->link, sizeof(ret->link));
	return take_name(body, ret->link.name_length, ret->name);
}

static int decode_open(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->open, sizeof(ret->open));
	if (ret->open.reserved != 0)
		return -EBADMSG;
	if (ret->open.flags & ~(FS_O_ALL & ~FS_O_EXCLUSIVE))
		return -EINVAL;
	return 0;
}

static int decode_io(struct byte_reader *body, struct fs_request *ret)
{
	const struct fs_io *io = &ret->io;

	byte_reader_copy(body, &ret->io, sizeof(ret->io));
	if (ret->opcode == FS_WRITE) {
		ret->data = byte_reader_bytes(body, io->size);
		ret->data_length = io->size;
		if (!ret->data)
			return -EBADMSG;
	}
	if (io->size > FS_DATA_MAX || io->flags & ~(ret->opcode == FS_WRITE ? FS_IO_APPEND : 0))
		return -EINVAL;
	if (io->flags & FS_IO_APPEND)
		return 0;
	return check_range(io->offset, io->size, ret->opcode == FS_WRITE ? -EFBIG : -EINVAL);
}

static int decode_fsync(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->fsync, sizeof(ret->fsync));
	return 0;
}

static int decode_readdir(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->readdir, sizeof(ret->readdir));
	if (ret->readdir.size > FS_DATA_MAX || ret->readdir.flags & ~FS_READDIR_PLUS)
		return -EINVAL;
	return check_range(ret->readdir.offset, 0, -EINVAL);
}

static int decode_xattr(struct byte_reader *body, struct fs_request *ret)
{
	const struct fs_xattr *xattr = &ret->xattr;
	const uint8_t *name;
	bool sets = ret->opcode == FS_SETXATTR;

	byte_reader_copy(body, &ret->xattr, sizeof(ret->xattr));
	if (!sets && xattr->value_length != 0)
		return -EBADMSG;
	name = byte_reader_bytes(body, xattr->name_length);
	ret->data = byte_reader_bytes(body, xattr->value_length);
	ret->data_length = xattr->value_length;
	if (!name || !ret->data)
		return -EBADMSG;
	/* An attribute's name may hold any byte but NUL; it never becomes a path. */
	if (xattr->name_length > FS_XATTR_NAME_MAX)
		return -ERANGE;
	if (xattr->name_length == 0 || memchr(name, '\0', xattr->name_length))
		return -EINVAL;
	if (xattr->value_length > FS_XATTR_VALUE_MAX)
		return -E2BIG;
	if (xattr->flags & ~(sets ? FS_XATTR_CREATE | FS_XATTR_REPLACE : 0))
		return -EINVAL;
	memcpy(ret->name, name, xattr->name_length);
	ret->name[xattr->name_length] = '\0';
	return 0;
}

static int decode_fallocate(struct byte_reader *body, struct fs_request *ret)
{
	const struct fs_fallocate *fallocate = &ret->fallocate;

	byte_reader_copy(body, &ret->fallocate, sizeof(ret->fallocate));
	if (fallocate->length == 0)
		return -EINVAL;
	if (fallocate->mode &
	    ~(FS_FALLOCATE_KEEP_SIZE | FS_FALLOCATE_PUNCH_HOLE | FS_FALLOCATE_ZERO_RANGE))
		return -EOPNOTSUPP;
	if ((fallocate->mode & FS_FALLOCATE_PUNCH_HOLE) &&
	    fallocate->mode != (FS_FALLOCATE_PUNCH_HOLE | FS_FALLOCATE_KEEP_SIZE))
		return -EOPNOTSUPP;
	return check_range(fallocate->offset, fallocate->length, -EFBIG);
}

static int decode_lseek(struct byte_reader *body, struct fs_request *ret)
{
	byte_reader_copy(body, &ret->lseek, sizeof(ret->lseek));
	if (ret->lseek.whence != FS_SEEK_DATA && ret->lseek.whence != FS_SEEK_HOLE)
		return -EINVAL;
	return check_range(ret->lseek.offset, 0, -ENXIO);
}

static int decode_copy_range(struct byte_reader *body, struct fs_request *ret)
{
	const struct fs_copy_range *copy = &ret->copy_range;
	int error;

	byte_reader_copy(body, &ret->copy_range, sizeof(ret->copy_range));
	error = check_range(copy->source_offset, copy->length, -EINVAL);
	if (error)
		return error;
	return check_range(copy->target_offset, copy->length, -EFBIG);
}

typedef int decode_function(struct byte_reader *body, struct fs_request *ret);

static decode_function *const decoders[FS_OPCODE_END] = {
	[FS_HELLO] = decode_hello,	 [FS_LOOKUP] = decode_parent,
	[FS_FORGET] = decode_forget,	 [FS_GETATTR] = decode_node,
	[FS_SETATTR] = decode_setattr,	 [FS_READLINK] = decode_node,
	[FS_SYMLINK] = decode_make,	 [FS_MKNOD] = decode_make,
	[FS_MKDIR] = decode_make,	 [FS_UNLINK] = decode_parent,
	[FS_RMDIR] = decode_parent,	 [FS_RENAME] = decode_rename,
	[FS_LINK] = decode_link,	 [FS_OPEN] = decode_open,
	[FS_CREATE] = decode_make,	 [FS_TMPFILE] = decode_make,
	[FS_READ] = decode_io,		 [FS_WRITE] = decode_io,
	[FS_RELEASE] = decode_node,	 [FS_FSYNC] = decode_fsync,
	[FS_OPENDIR] = decode_node,	 [FS_READDIR] = decode_readdir,
	[FS_STATFS] = decode_node,	 [FS_GETXATTR] = decode_xattr,
	[FS_SETXATTR] = decode_xattr,	 [FS_LISTXATTR] = decode_node,
	[FS_REMOVEXATTR] = decode_xattr, [FS_FALLOCATE] = decode_fallocate,
	[FS_LSEEK] = decode_lseek,	 [FS_COPY_RANGE] = decode_copy_range,
	[FS_SYNCFS] = decode_node,
};

int fs_request_decode(struct byte_reader *body, struct fs_request *ret)
{
	struct fs_op op;
	struct byte_reader own;
	int error;

	byte_reader_copy(body, &op, sizeof(op));
	ret->opcode = (enum fs_opcode)op.opcode;
	ret->name[0] = '\0';
	ret->new_name[0] = '\0';
	ret->target[0] = '\0';
	ret->data = NULL;
	ret->data_length = 0;
	own = byte_reader_slice(body, op.length);
	if (!byte_reader_ok(body) || op.reserved != 0)
		return -EBADMSG;
	if (op.opcode == FS_NOTIFY || op.opcode == FS_GOODBYE)
		return -EBADMSG;
	if (op.opcode >= FS_OPCODE_END || !decoders[op.opcode])
		return -ENOSYS;
	error = decoders[op.opcode](&own, ret);
	if (!byte_reader_ok(&own) || error == -EBADMSG)
		return -EBADMSG;
	/* Bytes left over are a disagreement about lengths, unless the operation was refused
	 * before its last variable part. */
	if (!error && !byte_reader_done(&own))
		return -EBADMSG;
	return error;
}
