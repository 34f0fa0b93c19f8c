/*
 * Theory of operation
 *
 * The content of a file goes to the store once, before its first change, in the cheapest form that
 * the file and the file system allow:
 *     up to 4 KiB, no holes         in the log record itself
 *     the file system reflinks      FICLONE into pre/N
 *     up to 64 KiB                  a sparse copy in pre/N
 *     larger                        pre/N is a hole of the same size; 64 KiB blocks are copied to
 *                                   it, each before its first change, and the log lists them
 * The record follows the copy and precedes the change, so at every instruction either the record
 * exists and so does the copy, or the file is still unchanged.
 */
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
#include "fsserver/undo_session.h"

#define INLINE_MAX 4096u
#define WHOLE_MAX UNDO_BLOCK_BYTES
#define COPY_PIECE_BLOCKS 256u /* 16 MiB between two looks at the quota */
#define UNSYNCED_MAX 64u

void session_unsynced(struct undo *undo, uint64_t pre_number)
{
	if (undo->sync_all)
		return;
	if (undo->unsynced_count > 0 && undo->unsynced[undo->unsynced_count - 1] == pre_number)
		return;
	if (undo->unsynced_count == UNSYNCED_MAX ||
	    undo_grow((void **)&undo->unsynced, undo->unsynced_count, &undo->unsynced_capacity,
		      sizeof(*undo->unsynced)) < 0) {
		undo->sync_all = true;
		return;
	}
	undo->unsynced[undo->unsynced_count++] = pre_number;
}

static int open_source(struct undo *undo, int fd)
{
	int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
	int source = undo_reopen(undo->proc_fd, fd, flags | O_NOATIME);

	/* Only the owner may leave the access time alone. */
	return source == -EPERM ? undo_reopen(undo->proc_fd, fd, flags) : source;
}

static int record_pre(struct undo *undo, struct session_object *object, uint32_t kind,
		      const uint8_t *data, size_t data_length)
{
	struct undo_record record = {
		.type = UNDO_RECORD_PRE,
		.object = object->number,
		.flags = kind,
		.value = object->pre_number,
		.count = object->size_before,
		.data = data,
		.data_length = data_length,
	};
	int result = undo_log_append(&undo->log, &record);

	if (result == 0 && kind != UNDO_PRE_BLOCKS)
		object->flags |= SESSION_COVERED;
	return result;
}

/* 1 when done, 0 when the file does not fit this form. */
static int save_inline(struct undo *undo, struct session_object *object, int source)
{
	uint8_t data[INLINE_MAX];
	ssize_t count;

	if (object->size_before > INLINE_MAX)
		return 0;
	if (object->size_before > 0 && lseek(source, 0, SEEK_HOLE) < (off_t)object->size_before)
		return 0;
	count = pread(source, data, (size_t)object->size_before, 0);
	if (count < 0)
		return -errno;
	object->size_before = (uint64_t)count;
	count = record_pre(undo, object, UNDO_PRE_INLINE, data, (size_t)count);
	return count < 0 ? (int)count : 1;
}

/* 1 when done, 0 when the file system cannot. */
static int try_reflink(struct undo *undo, int source, int target)
{
	if (undo->no_reflink)
		return 0;
	if (ioctl(target, FICLONE, source) == 0)
		return 1;
	if (errno == ENOSPC || errno == EDQUOT || errno == EIO)
		return -errno;
	if (errno == EOPNOTSUPP || errno == ENOTTY || errno == ENOSYS)
		undo->no_reflink = true;
	return 0;
}

static bool block_saved(const struct session_object *object, uint64_t block)
{
	return object->bitmap[block / 8] & (1u << (block % 8));
}

static int record_blocks(struct undo *undo, struct session_object *object, uint64_t first,
			 uint64_t count)
{
	struct undo_record record = {
		.type = UNDO_RECORD_BLOCKS,
		.object = object->number,
		.value = first,
		.count = count,
	};
	int result = undo_log_append(&undo->log, &record);

	for (uint64_t i = first; result == 0 && i < first + count; i++)
		object->bitmap[i / 8] |= (uint8_t)(1u << (i % 8));
	return result;
}

static int save_run(struct undo *undo, struct session_object *object, int source, int target,
		    uint64_t first, uint64_t count)
{
	while (count > 0) {
		uint64_t piece = MIN_OF(count, (uint64_t)COPY_PIECE_BLOCKS);
		uint64_t offset = first * UNDO_BLOCK_BYTES;
		uint64_t length = MIN_OF(piece * UNDO_BLOCK_BYTES, object->size_before - offset);
		uint64_t copied;
		int result = session_charge(undo, 0, 0);

		if (result == 0)
			result = undo_copy_sparse(source, target, offset, length, &copied);
		if (result == 0)
			result = session_charge(undo, copied, 0);
		if (result == 0)
			result = record_blocks(undo, object, first, piece);
		if (result < 0)
			return result;
		first += piece;
		count -= piece;
	}
	return 0;
}

static int save_blocks(struct undo *undo, struct session_object *object, int fd, uint64_t offset,
		       uint64_t length)
{
	cleanup_fd int source = -1;
	cleanup_fd int target = -1;
	uint64_t block = offset / UNDO_BLOCK_BYTES;
	uint64_t end;
	uint64_t last;

	if (length == 0 || offset >= object->size_before)
		return 0;
	if (!checked_add_u64(offset, length, &end))
		end = UINT64_MAX;
	last = (MIN_OF(end, object->size_before) - 1) / UNDO_BLOCK_BYTES;
	while (block <= last) {
		uint64_t run = block;
		int result;

		if (block_saved(object, block)) {
			block++;
			continue;
		}
		while (run <= last && !block_saved(object, run))
			run++;
		if (source < 0) {
			source = open_source(undo, fd);
			if (source < 0)
				return source;
			target = undo_open_beneath(undo->pre_fd,
						   undo_number_name(object->pre_number).text,
						   O_WRONLY, 0);
			if (target < 0)
				return target;
		}
		result = session_begin(undo);
		if (result == 0)
			result = save_run(undo, object, source, target, block, run - block);
		if (result < 0)
			return result;
		block = run;
		session_unsynced(undo, object->pre_number);
	}
	return 0;
}

static int fill_pre(struct undo *undo, struct session_object *object, int source, int target)
{
	uint64_t size = object->size_before;
	uint64_t blocks = (size + UNDO_BLOCK_BYTES - 1) / UNDO_BLOCK_BYTES;
	uint64_t copied = 0;
	int result = try_reflink(undo, source, target);

	if (result < 0)
		return result;
	if (result == 1)
		return record_pre(undo, object, UNDO_PRE_WHOLE, NULL, 0);
	if (blocks > UNDO_BLOCKS_MAX)
		return -EFBIG;
	if (ftruncate(target, (off_t)size))
		return -errno;
	if (size <= WHOLE_MAX) {
		result = undo_copy_sparse(source, target, 0, size, &copied);
		if (result == 0)
			result = session_charge(undo, copied, 0);
		return result < 0 ? result : record_pre(undo, object, UNDO_PRE_WHOLE, NULL, 0);
	}
	free(object->bitmap);
	object->bitmap = calloc(1, (size_t)(blocks + 7) / 8);
	if (!object->bitmap)
		return -ENOMEM;
	result = record_pre(undo, object, UNDO_PRE_BLOCKS, NULL, 0);
	if (result < 0) {
		free(object->bitmap);
		object->bitmap = NULL;
	}
	return result;
}

int session_save_content(struct undo *undo, struct session_object *object, int fd, uint64_t offset,
			 uint64_t length)
{
	cleanup_fd int source = -1;
	cleanup_fd int target = -1;
	struct undo_number_name name;
	int result;

	if (object->flags & SESSION_COVERED)
		return 0;
	if (object->bitmap)
		return save_blocks(undo, object, fd, offset, length);
	if (object->size_before == 0)
		return record_pre(undo, object, UNDO_PRE_INLINE, NULL, 0);
	source = open_source(undo, fd);
	if (source < 0)
		return source;
	result = save_inline(undo, object, source);
	if (result != 0)
		return result < 0 ? result : 0;
	result = session_charge(undo, 0, 1);
	if (result < 0)
		return result;
	object->pre_number = undo->next_pre++;
	name = undo_number_name(object->pre_number);
	target = undo_open_beneath(undo->pre_fd, name.text, O_WRONLY | O_CREAT | O_EXCL, 0600);
	result = target < 0 ? target : fill_pre(undo, object, source, target);
	if (result < 0) {
		undo->stored_files--;
		(void)!unlinkat(undo->pre_fd, name.text, 0);
		return result;
	}
	session_unsynced(undo, object->pre_number);
	return object->bitmap ? save_blocks(undo, object, fd, offset, length) : 0;
}

static int save_xattr(struct undo *undo, struct session_object *object, int source,
		      const char *name, uint8_t *value)
{
	ssize_t length = fgetxattr(source, name, value, UNDO_DATA_MAX);
	struct undo_record record = {
		.type = UNDO_RECORD_XATTR,
		.object = object->number,
		.name = name,
		.name_length = strlen(name),
		.data = value,
	};
	int result;

	if (length < 0)
		return errno == ENODATA ? 0 : -errno;
	record.data_length = (size_t)length;
	result = session_charge(undo, (uint64_t)length, 0);
	return result < 0 ? result : undo_log_append(&undo->log, &record);
}

/* Only user.* attributes: no other can be changed through the server. A file that the server may
 * not read keeps none in the log, and is tried again at the next change of its attributes. */
int session_save_xattrs(struct undo *undo, struct session_object *object, int fd)
{
	cleanup_free char *list = NULL;
	cleanup_free uint8_t *value = NULL;
	cleanup_fd int source = -1;
	struct statx stat;
	ssize_t length;
	int result = undo_statx(fd, "", &stat);

	if (result < 0)
		return result;
	if (!S_ISREG(stat.stx_mode) && !S_ISDIR(stat.stx_mode))
		return session_touch(undo, object, &stat, SESSION_XATTRS);
	source = open_source(undo, fd);
	if (source == -EACCES)
		return 0;
	if (source < 0)
		return source;
	length = flistxattr(source, NULL, 0);
	if (length < 0 && errno != EOPNOTSUPP)
		return -errno;
	if (length > 0) {
		list = malloc(XATTR_LIST_MAX);
		value = malloc(UNDO_DATA_MAX);
		if (!list || !value)
			return -ENOMEM;
		length = flistxattr(source, list, XATTR_LIST_MAX);
		if (length < 0)
			return -errno;
	}
	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1) {
		if (strncmp(list + at, "user.", 5) != 0)
			continue;
		result = save_xattr(undo, object, source, list + at, value);
		if (result < 0)
			return result;
	}
	return session_touch(undo, object, &stat, SESSION_XATTRS);
}
