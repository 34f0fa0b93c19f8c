/* Attributes, plain and extended. */
#include "guest-fused/worker.h"

#include <errno.h>
#include <string.h>

static void answer_attr(struct fused_worker *worker, const struct fused_request *request,
			const struct fs_attr *attr, uint64_t expires)
{
	struct fuse_attr_out out = { 0 };

	fused_kernel_validity(expires, &out.attr_valid, &out.attr_valid_nsec);
	fused_kernel_attr(attr, &out.attr);
	fused_answer(worker, request, &out, sizeof(out));
}

/* A reply's error, after ending the session over a malformed one. */
static int judged(struct fused_worker *worker, int result)
{
	if (result != -EBADMSG)
		return result;
	fused_malformed(worker);
	return -EIO;
}

void fused_getattr(struct fused_worker *worker, const struct fused_request *request)
{
	struct fused_cache *cache = &worker->export->cache;
	uint64_t nodeid = request->header->nodeid;
	uint64_t since = fused_cache_now(cache);
	uint64_t handle = FS_HANDLE_NONE;
	uint64_t expires = 0;
	struct fused_node *node;
	struct fs_attr_reply attr;
	int result;

	fused_cache_lock(cache);
	node = fused_node_find(cache, nodeid);
	if (node != NULL && fused_valid(node->attr_expires)) {
		attr.attr = node->attr;
		expires = node->attr_expires;
		fused_cache_unlock(cache);
		answer_attr(worker, request, &attr.attr, expires);
		return;
	}
	handle = fused_handle_take(cache, nodeid, 0);
	fused_cache_unlock(cache);
	fused_frame_node(fused_ask(worker), FS_GETATTR, nodeid, handle);
	result = fused_asked(worker);
	if (result == 0)
		result = judged(worker, fused_reply_fixed(&worker->reply, 0, &attr, sizeof(attr)));
	fused_cache_lock(cache);
	if (handle != FS_HANDLE_NONE)
		fused_handle_put(cache, nodeid);
	node = fused_node_find(cache, nodeid);
	if (result == 0 && node != NULL) {
		fused_node_set_attr(cache, node, &attr.attr, attr.attr_valid_ms, since);
		expires = node->attr_expires;
	}
	fused_cache_unlock(cache);
	if (result != 0)
		fused_answer_error(worker, request, result);
	else
		answer_attr(worker, request, &attr.attr, expires);
}

static void fill_setattr(const struct fuse_setattr_in *in, struct fs_setattr *set)
{
	static const struct {
		uint32_t kernel;
		uint32_t wire;
	} bits[] = {
		{ FATTR_MODE, FS_SET_MODE },   { FATTR_UID, FS_SET_UID },
		{ FATTR_GID, FS_SET_GID },     { FATTR_SIZE, FS_SET_SIZE },
		{ FATTR_ATIME, FS_SET_ATIME }, { FATTR_MTIME, FS_SET_MTIME },
	};

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (in->valid & bits[i].kernel)
			set->valid |= bits[i].wire;
	/* "Now" takes the place of the time that came with it. */
	if (in->valid & FATTR_ATIME_NOW)
		set->valid = (set->valid & ~FS_SET_ATIME) | FS_SET_ATIME_NOW;
	if (in->valid & FATTR_MTIME_NOW)
		set->valid = (set->valid & ~FS_SET_MTIME) | FS_SET_MTIME_NOW;
	if (set->valid & FS_SET_MODE)
		set->mode = in->mode & 07777;
	if (set->valid & FS_SET_UID)
		set->uid = in->uid;
	if (set->valid & FS_SET_GID)
		set->gid = in->gid;
	if (set->valid & FS_SET_SIZE)
		set->size = in->size;
	if (set->valid & FS_SET_ATIME) {
		set->atime_sec = (int64_t)in->atime;
		set->atime_nsec = in->atimensec;
	}
	if (set->valid & FS_SET_MTIME) {
		set->mtime_sec = (int64_t)in->mtime;
		set->mtime_nsec = in->mtimensec;
	}
}

void fused_setattr(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_setattr_in *in = request->body;
	struct fused_cache *cache = &worker->export->cache;
	uint64_t nodeid = request->header->nodeid;
	uint64_t since = fused_mutating(worker, nodeid);
	uint64_t expires = 0;
	uint64_t handle;
	struct fused_node *node;
	struct fs_setattr *set;
	struct fs_attr_reply attr;
	int result;

	fused_cache_lock(cache);
	handle = fused_handle_take(cache, nodeid, FS_O_WRITE);
	fused_cache_unlock(cache);
	set = fused_frame_op(fused_ask(worker), FS_SETATTR, sizeof(*set));
	set->nodeid = nodeid;
	set->handle = handle;
	fill_setattr(in, set);
	/* Change time alone, or set-id bits that the server drops by itself: nothing to set. */
	if (set->valid == 0)
		fused_frame_node(fused_ask(worker), FS_GETATTR, nodeid, FS_HANDLE_NONE);
	result = fused_asked(worker);
	if (result == 0)
		result = judged(worker, fused_reply_fixed(&worker->reply, 0, &attr, sizeof(attr)));
	if (handle != FS_HANDLE_NONE) {
		fused_cache_lock(cache);
		fused_handle_put(cache, nodeid);
		fused_cache_unlock(cache);
	}
	fused_mutated(worker, nodeid, since, result == 0 ? &attr : NULL);
	if (result != 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	fused_cache_lock(cache);
	node = fused_node_find(cache, nodeid);
	if (node != NULL)
		expires = node->attr_expires;
	fused_cache_unlock(cache);
	answer_attr(worker, request, &attr.attr, expires);
}

void fused_readlink(struct fused_worker *worker, const struct fused_request *request)
{
	int result;

	fused_frame_node(fused_ask(worker), FS_READLINK, request->header->nodeid, FS_HANDLE_NONE);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	if (result == 0 && worker->reply.ops[0].length > FS_TARGET_MAX)
		result = judged(worker, -EBADMSG);
	if (result != 0)
		fused_answer_error(worker, request, result);
	else
		fused_answer_in_place(worker, request, worker->reply.ops[0].body,
				      worker->reply.ops[0].length);
}

void fused_statfs(struct fused_worker *worker, const struct fused_request *request)
{
	struct fuse_statfs_out out = { 0 };
	struct fs_statfs statfs;
	int result;

	fused_frame_node(fused_ask(worker), FS_STATFS, request->header->nodeid, FS_HANDLE_NONE);
	result = fused_asked(worker);
	if (result == 0)
		result = judged(worker,
				fused_reply_fixed(&worker->reply, 0, &statfs, sizeof(statfs)));
	if (result != 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	out.st.blocks = statfs.blocks;
	out.st.bfree = statfs.blocks_free;
	out.st.bavail = statfs.blocks_available;
	out.st.files = statfs.files;
	out.st.ffree = statfs.files_free;
	out.st.bsize = statfs.block_size;
	out.st.frsize = statfs.block_size;
	out.st.namelen = statfs.name_max;
	fused_answer(worker, request, &out, sizeof(out));
}

/* ---- extended attributes ------------------------------------------------------------------ */

/* The NUL-terminated name at `offset`; its length, or 0 when there is none that fits. */
static size_t take_xattr_name(const struct fused_request *request, size_t offset,
			      const char **ret_name)
{
	const char *name = (const char *)request->body + offset;
	size_t length = strnlen(name, request->length - offset);

	if (length == request->length - offset || length > FS_XATTR_NAME_MAX)
		return 0;
	*ret_name = name;
	return length;
}

static bool is_user(const char *name)
{
	return strncmp(name, "user.", 5) == 0;
}

static void ask_xattr(struct fused_worker *worker, enum fs_opcode opcode, uint64_t nodeid,
		      const char *name, size_t name_length, uint32_t flags, const void *value,
		      uint32_t value_length)
{
	struct fs_xattr *xattr = fused_frame_op(fused_ask(worker), opcode, sizeof(*xattr));

	xattr->nodeid = nodeid;
	xattr->flags = flags;
	xattr->value_length = value_length;
	xattr->name_length = (uint16_t)name_length;
	fused_frame_bytes(&worker->frame, name, name_length);
	fused_frame_bytes(&worker->frame, value, value_length);
}

/* Answers with the body of operation 0, or its size alone when `size` is 0. */
static void answer_value(struct fused_worker *worker, const struct fused_request *request,
			 uint32_t size)
{
	int result = fused_asked(worker);
	struct fused_reply_op *op = &worker->reply.ops[0];

	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	if (result == 0 && op->length > FS_XATTR_VALUE_MAX)
		result = judged(worker, -EBADMSG);
	if (result == 0 && size > 0 && op->length > size)
		result = -ERANGE;
	if (result != 0) {
		fused_answer_error(worker, request, result);
	} else if (size == 0) {
		struct fuse_getxattr_out out = { .size = op->length };

		fused_answer(worker, request, &out, sizeof(out));
	} else {
		fused_answer_in_place(worker, request, op->body, op->length);
	}
}

/*
 * Only user.* goes to the server, which refuses the rest. The kernel itself asks for others all
 * the time (security.capability before a write, POSIX ACLs, those of overlayfs); on an export
 * that has none at all ENOSYS ends that for good.
 */
void fused_getxattr(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_getxattr_in *in = request->body;
	const char *name;
	size_t length = take_xattr_name(request, sizeof(*in), &name);

	if (worker->export->unattributed) {
		fused_answer_error(worker, request, -ENOSYS);
	} else if (length == 0) {
		fused_answer_error(worker, request, -ERANGE);
	} else if (!is_user(name)) {
		fused_answer_error(worker, request,
				   strncmp(name, "security.", 9) == 0 ? -ENODATA : -EOPNOTSUPP);
	} else {
		ask_xattr(worker, FS_GETXATTR, request->header->nodeid, name, length, 0, NULL, 0);
		answer_value(worker, request, in->size);
	}
}

void fused_listxattr(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_getxattr_in *in = request->body;

	if (worker->export->unattributed) {
		fused_answer_error(worker, request, -ENOSYS);
		return;
	}
	fused_frame_node(fused_ask(worker), FS_LISTXATTR, request->header->nodeid, FS_HANDLE_NONE);
	answer_value(worker, request, in->size);
}

static void change_xattr(struct fused_worker *worker, const struct fused_request *request)
{
	uint64_t nodeid = request->header->nodeid;
	uint64_t since = fused_mutating(worker, nodeid);
	int result = fused_asked(worker);

	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	fused_mutated(worker, nodeid, since, NULL);
	fused_answer_error(worker, request, result);
}

void fused_setxattr(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_setxattr_in *in = request->body;
	const char *name;
	size_t length = take_xattr_name(request, FUSE_COMPAT_SETXATTR_IN_SIZE, &name);
	size_t value_at = FUSE_COMPAT_SETXATTR_IN_SIZE + length + 1;
	uint32_t flags = 0;

	if (length == 0 || in->size > request->length - value_at) {
		fused_answer_error(worker, request, length == 0 ? -ERANGE : -EINVAL);
		return;
	}
	if (!is_user(name)) {
		fused_answer_error(worker, request, -EOPNOTSUPP);
		return;
	}
	if (in->size > FS_XATTR_VALUE_MAX) {
		fused_answer_error(worker, request, -E2BIG);
		return;
	}
	if (in->flags & 1) /* XATTR_CREATE */
		flags |= FS_XATTR_CREATE;
	if (in->flags & 2) /* XATTR_REPLACE */
		flags |= FS_XATTR_REPLACE;
	ask_xattr(worker, FS_SETXATTR, request->header->nodeid, name, length, flags,
		  name + length + 1, in->size);
	change_xattr(worker, request);
}

void fused_removexattr(struct fused_worker *worker, const struct fused_request *request)
{
	const char *name;
	size_t length = take_xattr_name(request, 0, &name);

	if (length == 0) {
		fused_answer_error(worker, request, -ERANGE);
	} else if (!is_user(name)) {
		fused_answer_error(worker, request, -EOPNOTSUPP);
	} else {
		ask_xattr(worker, FS_REMOVEXATTR, request->header->nodeid, name, length, 0, NULL,
			  0);
		change_xattr(worker, request);
	}
}
