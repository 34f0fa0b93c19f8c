#include "fsserver/undo_restore.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_model.h"

#define LIST_BYTES 65536u

static int open_pre(struct undo_model *model, const struct model_object *object)
{
	struct stat stat;
	int fd;

	if (model->pre_fd < 0)
		return -ENOENT;
	fd = undo_open_beneath(model->pre_fd, undo_number_name(object->pre_number).text,
			       O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd >= 0 && (fstat(fd, &stat) || !S_ISREG(stat.st_mode) ||
			(uint64_t)stat.st_size != object->pre_size)) {
		close(fd);
		return -EBADMSG;
	}
	return fd;
}

static int write_inline(struct undo_model *model, const struct model_object *object, int target)
{
	cleanup_free char *data = malloc((size_t)object->pre_size + 1);
	size_t size = (size_t)object->pre_size;

	if (!data)
		return -ENOMEM;
	if (pread(model->log_fd, data, size, (off_t)object->pre_data) != (ssize_t)size)
		return -EBADMSG;
	if (size > 0 && pwrite(target, data, size, 0) != (ssize_t)size)
		return errno ? -errno : -EIO;
	return ftruncate(target, (off_t)size) ? -errno : 0;
}

static int write_blocks(const struct model_object *object, int pre, int target)
{
	uint64_t block = 0;

	while (block < object->blocks) {
		uint64_t run = block;
		uint64_t offset = block * UNDO_BLOCK_BYTES;
		uint64_t length;
		int result;

		while (run < object->blocks && undo_model_block_saved(object, run))
			run++;
		if (run == block) {
			block++;
			continue;
		}
		length = MIN_OF((run - block) * UNDO_BLOCK_BYTES, object->pre_size - offset);
		result = undo_restore_range(pre, target, offset, length);
		if (result < 0)
			return result;
		block = run;
	}
	return 0;
}

static int write_before(struct undo_model *model, const struct model_object *object, int target)
{
	cleanup_fd int pre = -1;

	if (object->pre_kind == UNDO_PRE_INLINE)
		return write_inline(model, object, target);
	pre = open_pre(model, object);
	if (pre < 0)
		return pre;
	if (ftruncate(target, (off_t)object->pre_size))
		return -errno;
	if (object->pre_kind == UNDO_PRE_BLOCKS)
		return write_blocks(object, pre, target);
	if (ioctl(target, FICLONE, pre) == 0)
		return 0;
	return undo_restore_range(pre, target, 0, object->pre_size);
}

/* Opens for writing, whatever the guest made of the mode; that is restored later. */
static int open_writable(struct undo_model *model, uint32_t number)
{
	int fd = undo_model_open(model, number, O_RDWR);
	cleanup_fd int path = -1;
	struct statx stat;
	int result;

	if (fd != -EACCES)
		return fd;
	path = undo_model_open(model, number, O_PATH);
	if (path < 0)
		return path;
	result = undo_statx(path, "", &stat);
	if (result == 0)
		result = undo_chmod(-1, path, (stat.stx_mode & 07777) | S_IRUSR | S_IWUSR);
	return result < 0 ? result : undo_model_open(model, number, O_RDWR);
}

int undo_restore_content(struct undo_model *model, uint32_t number)
{
	const struct model_object *object = undo_model_object(model, number);
	cleanup_fd int fd = -1;

	if (!object->pre_kind || !S_ISREG(object->mode))
		return -EBADMSG;
	fd = open_writable(model, number);
	return fd < 0 ? fd : write_before(model, object, fd);
}

bool undo_has_before(struct undo_model *model, uint32_t number)
{
	const struct model_object *object = undo_model_object(model, number);

	if (!S_ISREG(object->mode) || !object->pre_kind)
		return false;
	return object->pre_kind != UNDO_PRE_BLOCKS || undo_model_locate(model, number);
}

int undo_build_before(struct undo_model *model, uint32_t number, int target)
{
	const struct model_object *object = undo_model_object(model, number);
	cleanup_fd int now = -1;
	uint64_t copied;
	int result;

	if (object->pre_kind == UNDO_PRE_BLOCKS) {
		now = undo_model_open(model, number, O_RDONLY);
		if (now < 0)
			return now;
		result = undo_copy_sparse(now, target, 0, object->pre_size, &copied);
		if (result < 0)
			return result;
	}
	return write_before(model, object, target);
}

/* ---- attributes ------------------------------------------------------------------------------ */

static const struct model_xattr *find_xattr(const struct undo_model *model,
					    const struct model_object *object, const char *name)
{
	for (uint32_t i = object->first_xattr; i; i = model->xattrs[i - 1].next) {
		if (strcmp(undo_model_name(model, model->xattrs[i - 1].name), name) == 0)
			return &model->xattrs[i - 1];
	}
	return NULL;
}

static int drop_new_xattrs(struct undo_model *model, const struct model_object *object, int fd)
{
	cleanup_free char *list = malloc(LIST_BYTES);
	ssize_t length;

	if (!list)
		return -ENOMEM;
	length = flistxattr(fd, list, LIST_BYTES);
	if (length < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1) {
		if (strncmp(list + at, "user.", 5) != 0 || find_xattr(model, object, list + at))
			continue;
		if (fremovexattr(fd, list + at) && errno != ENODATA)
			return -errno;
	}
	return 0;
}

static int restore_xattrs(struct undo_model *model, const struct model_object *object, int fd)
{
	cleanup_free char *value = NULL;
	int result = drop_new_xattrs(model, object, fd);

	if (result < 0 || !object->first_xattr)
		return result;
	value = malloc(UNDO_DATA_MAX);
	if (!value)
		return -ENOMEM;
	for (uint32_t i = object->first_xattr; i; i = model->xattrs[i - 1].next) {
		const struct model_xattr *xattr = &model->xattrs[i - 1];
		const char *name = undo_model_name(model, xattr->name);

		if (pread(model->log_fd, value, xattr->length, (off_t)xattr->offset) !=
		    (ssize_t)xattr->length)
			return -EBADMSG;
		if (fsetxattr(fd, name, value, xattr->length, 0))
			return -errno;
	}
	return 0;
}

bool undo_xattrs_differ(struct undo_model *model, uint32_t number)
{
	const struct model_object *object = undo_model_object(model, number);
	cleanup_fd int fd = -1;
	cleanup_free char *list = NULL;
	cleanup_free char *values = NULL;
	uint32_t seen = 0;
	uint32_t logged = 0;
	ssize_t length;

	if (!(S_ISREG(object->mode) || S_ISDIR(object->mode)) ||
	    !(object->touched & UNDO_TOUCH_XATTRS))
		return false;
	fd = undo_model_open(model, number, O_RDONLY);
	list = malloc(LIST_BYTES);
	values = malloc((size_t)UNDO_DATA_MAX * 2);
	length = fd >= 0 && list && values ? flistxattr(fd, list, LIST_BYTES) : -1;
	for (uint32_t i = object->first_xattr; i; i = model->xattrs[i - 1].next)
		logged++;
	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1) {
		const struct model_xattr *xattr;
		ssize_t size;

		if (strncmp(list + at, "user.", 5) != 0)
			continue;
		xattr = find_xattr(model, object, list + at);
		size = fgetxattr(fd, list + at, values, UNDO_DATA_MAX);
		if (!xattr || size != (ssize_t)xattr->length ||
		    pread(model->log_fd, values + UNDO_DATA_MAX, (size_t)size,
			  (off_t)xattr->offset) != size ||
		    memcmp(values, values + UNDO_DATA_MAX, (size_t)size) != 0)
			return true;
		seen++;
	}
	return length >= 0 && seen != logged;
}

static int reach_xattrs(struct undo_model *model, uint32_t number, int path)
{
	const struct model_object *object = undo_model_object(model, number);
	cleanup_fd int fd = undo_model_open(model, number, O_RDONLY);
	struct statx stat;
	int result;

	if (fd == -EACCES) {
		result = undo_statx(path, "", &stat);
		if (result == 0)
			result = undo_chmod(-1, path, (stat.stx_mode & 07777) | S_IRWXU);
		if (result < 0)
			return result;
		fd = undo_model_open(model, number, O_RDONLY);
	}
	if (fd < 0)
		return fd;
	result = restore_xattrs(model, object, fd);
	/* Setting one needs write permission, which the mode before or after may not grant. */
	if (result == -EACCES && undo_statx(path, "", &stat) == 0 &&
	    undo_chmod(-1, path, (stat.stx_mode & 07777) | S_IRWXU) == 0)
		result = restore_xattrs(model, object, fd);
	return result;
}

static int restore_owner_and_mode(const struct undo_attributes *before, int fd)
{
	struct statx now;
	int result = undo_statx(fd, "", &now);

	if (result < 0)
		return result;
	if ((now.stx_uid != before->uid || now.stx_gid != before->gid) &&
	    fchownat(fd, "", before->uid, before->gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (S_ISLNK(now.stx_mode))
		return 0;
	/* A change of owner clears set-id bits, so the mode comes after it. */
	if (undo_statx(fd, "", &now) == 0 && (now.stx_mode & 07777) == (before->mode & 07777))
		return 0;
	return undo_chmod(-1, fd, before->mode & 07777);
}

int undo_restore_attributes(struct undo_model *model, uint32_t number, uint32_t decision)
{
	const struct model_object *object = undo_model_object(model, number);
	bool plain = S_ISREG(object->mode) || S_ISDIR(object->mode);
	cleanup_fd int fd = -1;
	int result = 0;

	if (!object->has_before)
		return 0;
	fd = undo_model_open(model, number, O_PATH);
	if (fd < 0)
		return fd;
	if ((object->touched & UNDO_TOUCH_XATTRS) && plain)
		result = reach_xattrs(model, number, fd);
	if (result == 0 && !(decision & ROLLBACK_KEEP_MODE) &&
	    (object->touched & (UNDO_TOUCH_ATTRIBUTES | UNDO_TOUCH_CONTENT)))
		result = restore_owner_and_mode(&object->before, fd);
	if (result == 0 && !(decision & (ROLLBACK_KEEP_CONTENT | ROLLBACK_KEEP_TIMES)))
		result = undo_set_times(fd, &object->before);
	return result;
}
