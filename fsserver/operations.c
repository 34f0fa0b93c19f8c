#include "fsserver/operations.h"

#include "base/checked.h"
#include "fsserver/operations_internal.h"
#include "fsserver/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

static operation_function *const operations[FS_OPCODE_END] = {
	[FS_LOOKUP] = operation_lookup,
	[FS_FORGET] = operation_forget,
	[FS_GETATTR] = operation_getattr,
	[FS_SETATTR] = operation_setattr,
	[FS_READLINK] = operation_readlink,
	[FS_SYMLINK] = operation_make,
	[FS_MKNOD] = operation_make,
	[FS_MKDIR] = operation_make,
	[FS_UNLINK] = operation_unlink,
	[FS_RMDIR] = operation_rmdir,
	[FS_RENAME] = operation_rename,
	[FS_LINK] = operation_link,
	[FS_OPEN] = operation_open,
	[FS_CREATE] = operation_create,
	[FS_TMPFILE] = operation_tmpfile,
	[FS_READ] = operation_read,
	[FS_WRITE] = operation_write,
	[FS_RELEASE] = operation_release,
	[FS_FSYNC] = operation_fsync,
	[FS_OPENDIR] = operation_opendir,
	[FS_READDIR] = operation_readdir,
	[FS_STATFS] = operation_statfs,
	[FS_GETXATTR] = operation_getxattr,
	[FS_SETXATTR] = operation_setxattr,
	[FS_LISTXATTR] = operation_listxattr,
	[FS_REMOVEXATTR] = operation_removexattr,
	[FS_FALLOCATE] = operation_fallocate,
	[FS_LSEEK] = operation_lseek,
	[FS_COPY_RANGE] = operation_copy_range,
	[FS_SYNCFS] = operation_syncfs,
};

/* ---- buffers -------------------------------------------------------------------------------- */

struct buffer *buffer_new(size_t capacity)
{
	struct buffer *buffer = calloc(1, sizeof(*buffer));

	if (!buffer)
		return NULL;
	buffer->data = malloc(capacity);
	if (!buffer->data) {
		free(buffer);
		return NULL;
	}
	buffer->capacity = capacity;
	return buffer;
}

int buffer_grow(struct buffer *buffer, size_t capacity)
{
	uint8_t *data;

	if (capacity <= buffer->capacity)
		return 0;
	if (capacity > FS_FRAME_MAX)
		return -EMSGSIZE;
	/* Twice at least, so that growing by small steps stays linear. */
	if (capacity < buffer->capacity * 2)
		capacity = MIN_OF(buffer->capacity * 2, (size_t)FS_FRAME_MAX);
	data = realloc(buffer->data, capacity);
	if (!data)
		return -ENOMEM;
	buffer->data = data;
	buffer->capacity = capacity;
	return 0;
}

void buffer_free(struct buffer *buffer)
{
	if (!buffer)
		return;
	free(buffer->data);
	free(buffer);
}

/* ---- a job's reply -------------------------------------------------------------------------- */

void *job_reply(struct job *job, size_t length)
{
	struct buffer *reply = job->reply;
	void *place;

	if (buffer_grow(reply, reply->length + length))
		return NULL;
	place = reply->data + reply->length;
	reply->length += length;
	return place;
}

int job_budget(struct job *job, uint32_t size)
{
	if (size > job->data_left)
		return -EMSGSIZE;
	job->data_left -= size;
	return 0;
}

static void finish_operation(struct job *job, size_t offset, enum fs_opcode opcode, int error)
{
	struct fs_op_reply reply = { .opcode = (uint16_t)opcode };

	if (error) {
		job->reply->length = offset + sizeof(reply);
		reply.error = (uint16_t)-error;
		job->operations_left = 0;
	} else {
		reply.length = (uint32_t)(job->reply->length - offset - sizeof(reply));
	}
	memcpy(job->reply->data + offset, &reply, sizeof(reply));
	job->replies++;
}

static void finish_frame(struct job *job)
{
	struct fs_frame frame = {
		.length = (uint32_t)job->reply->length,
		.op_count = (uint16_t)job->replies,
		.tag = job->tag,
	};

	memcpy(job->reply->data, &frame, sizeof(frame));
}

/* ---- ids ------------------------------------------------------------------------------------ */

int job_node(struct job *job, uint64_t id, struct node **ret_node)
{
	struct node *node;
	int error;

	if (id == FS_NODE_PREVIOUS) {
		if (!job->previous_node)
			return -EINVAL;
		*ret_node = job->previous_node;
		return 0;
	}
	node = node_table_get(job->export->nodes, id);
	if (!node)
		return -ESTALE;
	error = export_use(job->export, node);
	if (error)
		return error;
	*ret_node = node;
	return 0;
}

int job_directory(struct job *job, uint64_t id, struct node **ret_node)
{
	int error = job_node(job, id, ret_node);

	if (error)
		return error;
	return (*ret_node)->type == S_IFDIR ? 0 : -ENOTDIR;
}

int job_handle(struct job *job, uint64_t id, const struct node *node, struct handle **ret_handle)
{
	struct handle *handle;

	if (id == FS_HANDLE_NONE) {
		*ret_handle = NULL;
		return 0;
	}
	if (id == FS_HANDLE_PREVIOUS) {
		if (job->previous_handle == FS_HANDLE_NONE)
			return -EINVAL;
		id = job->previous_handle;
	}
	handle = handle_table_get(&job->export->handles, id);
	if (!handle || handle->node != node)
		return -EBADF;
	*ret_handle = handle;
	return 0;
}

void job_remember_node(struct job *job, struct node *node)
{
	if (node)
		node_reference(node);
	if (job->previous_node)
		node_unreference(job->export->nodes, job->previous_node);
	job->previous_node = node;
}

/* ---- attributes ----------------------------------------------------------------------------- */

void operations_attributes(const struct export *export, const struct statx *stat,
			   struct fs_attr *ret_attr)
{
	uint64_t device = host_stat_device(stat);

	*ret_attr = (struct fs_attr){
		/* Numbers of several file systems must not meet: the other device's go into the
		 * upper bits, where inode numbers of real file systems are zero. */
		.ino = stat->stx_ino ^ (device == export->root_device ? 0 : device << 40),
		.size = stat->stx_size,
		.blocks = stat->stx_blocks,
		.atime_sec = stat->stx_atime.tv_sec,
		.mtime_sec = stat->stx_mtime.tv_sec,
		.ctime_sec = stat->stx_ctime.tv_sec,
		.atime_nsec = stat->stx_atime.tv_nsec,
		.mtime_nsec = stat->stx_mtime.tv_nsec,
		.ctime_nsec = stat->stx_ctime.tv_nsec,
		.mode = stat->stx_mode,
		.nlink = stat->stx_nlink,
		.uid = stat->stx_uid,
		.gid = stat->stx_gid,
		.rdev = (uint32_t)makedev(stat->stx_rdev_major, stat->stx_rdev_minor),
		.blksize = stat->stx_blksize,
	};
}

void operations_told(struct node *node, const struct statx *stat)
{
	node->told = node_stamp_of(stat);
}

uint32_t job_attr_validity(struct job *job, const struct node *node, const struct statx *stat)
{
	struct export *export = job->export;
	const struct node *directory = node;

	if (export->config->immutable)
		return UINT32_MAX;
	if (node->type != S_IFDIR) {
		/* A change through another name may happen where nobody watches. */
		if (node->type == S_IFREG && stat->stx_nlink != 1)
			return EXPORT_SHORT_VALIDITY_MS;
		directory = node_table_get(export->nodes, node->parent);
	}
	return export_validity(export, directory);
}

void job_fill_entry(struct job *job, struct node *parent, struct node *node,
		    const struct statx *stat, struct fs_entry *entry)
{
	if (parent)
		node->parent = parent->id;
	node_remember(node);
	operations_told(node, stat);
	*entry = (struct fs_entry){
		.nodeid = node->id,
		.entry_valid_ms = export_validity(job->export, parent),
		.attr_valid_ms = job_attr_validity(job, node, stat),
	};
	operations_attributes(job->export, stat, &entry->attr);
}

int job_reply_entry(struct job *job, struct node *parent, struct node *node,
		    const struct statx *stat)
{
	struct fs_entry entry;
	void *place = job_reply(job, sizeof(entry));

	if (!place) {
		node_table_settle(job->export->nodes, node);
		return -ENOMEM;
	}
	job_fill_entry(job, parent, node, stat, &entry);
	memcpy(place, &entry, sizeof(entry));
	job_remember_node(job, node);
	return 0;
}

/* ---- changes -------------------------------------------------------------------------------- */

struct undo_inode operations_inode(const struct statx *stat)
{
	return (struct undo_inode){ .device = host_stat_device(stat), .ino = stat->stx_ino };
}

void operations_report(struct export *export, const char *operation, const char *path,
		       const char *path2, const mode_t *mode)
{
	report_mutation(export->server->report, &(struct report_mutation){
							.operation = operation,
							.export_name = export->config->name,
							.path = path,
							.path2 = path2,
							.mode = mode,
						});
}

void operations_guest_gone(struct export *export)
{
	uint32_t position = 0;
	struct handle *handle;

	while ((handle = handle_table_next(&export->handles, &position)))
		operations_release(export, handle);
	node_table_forget_all(export->nodes);
}

/* ---- jobs ----------------------------------------------------------------------------------- */

int job_begin(struct job *job, struct export *export, const struct fs_frame *frame,
	      const uint8_t *body, uint32_t data_max)
{
	*job = (struct job){
		.export = export,
		.tag = frame->tag,
		.no_reply = frame->flags & FS_FRAME_NO_REPLY,
		.operations_left = frame->op_count,
		.data_max = data_max,
		.data_left = data_max,
		.previous_handle = FS_HANDLE_NONE,
	};
	byte_reader_init(&job->body, body, frame->length - sizeof(*frame));
	job->reply = buffer_new(BUFFER_SMALL);
	if (!job->reply)
		return -ENOMEM;
	job->reply->length = sizeof(struct fs_frame);
	return 0;
}

/* NO_REPLY is for what needs no answer. */
static bool answered_by_silence(const struct fs_request *request)
{
	return request->opcode == FS_FORGET || request->opcode == FS_RELEASE;
}

enum job_state job_run(struct job *job)
{
	struct fs_request request;

	while (job->operations_left > 0) {
		size_t offset = job->reply->length;
		int result = fs_request_decode(&job->body, &request);

		if (result == -EBADMSG || request.opcode == FS_HELLO ||
		    (job->no_reply && !answered_by_silence(&request)))
			return JOB_VIOLATED;
		job->operations_left--;
		if (!job_reply(job, sizeof(struct fs_op_reply)))
			return JOB_VIOLATED;
		node_table_begin(job->export->nodes);
		if (!result)
			result = operations[request.opcode](job, &request);
		if (result == JOB_WAITS) {
			job->pending.opcode = request.opcode;
			job->pending.reply_offset = offset;
			return JOB_WAITS;
		}
		finish_operation(job, offset, request.opcode, result);
		if (result) {
			finish_frame(job);
			return JOB_DONE;
		}
	}
	if (byte_reader_remaining(&job->body) > 0)
		return JOB_VIOLATED;
	finish_frame(job);
	return JOB_DONE;
}

static void pending_end(struct job *job)
{
	struct export *export = job->export;

	if (job->pending.close_fd >= 0)
		close(job->pending.close_fd);
	if (job->pending.handle)
		handle_unreference(&export->handles, export->nodes, job->pending.handle);
	if (job->pending.node)
		node_unreference(export->nodes, job->pending.node);
	job->pending.handle = NULL;
	job->pending.node = NULL;
}

enum job_state job_continue(struct job *job, int64_t result)
{
	int error = result < 0 ? (int)result : 0;

	if (job->pending.kind == PENDING_WRITE)
		error = operation_write_done(job, result);
	else if (job->pending.kind == PENDING_READ)
		error = operation_read_done(job, result);
	pending_end(job);
	finish_operation(job, job->pending.reply_offset, job->pending.opcode, error);
	if (error) {
		finish_frame(job);
		return JOB_DONE;
	}
	return job_run(job);
}

int64_t job_do_pending(struct job *job)
{
	struct iovec vector = { .iov_base = job->pending.data, .iov_len = job->pending.length };
	off_t offset = (off_t)job->pending.offset;
	ssize_t count = 0;

	switch (job->pending.kind) {
	case PENDING_READ:
		count = preadv2(job->pending.fd, &vector, 1, offset, 0);
		break;
	case PENDING_WRITE:
		count = pwritev2(job->pending.fd, &vector, 1, offset, job->pending.flags);
		break;
	case PENDING_FSYNC:
		count = job->pending.flags ? fdatasync(job->pending.fd) : fsync(job->pending.fd);
		break;
	}
	return count < 0 ? -errno : count;
}

void job_end(struct job *job)
{
	job_remember_node(job, NULL);
	buffer_free(job->reply);
	buffer_free(job->request);
	job->reply = NULL;
	job->request = NULL;
}
