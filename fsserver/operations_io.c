/* Open files: opening, reading, writing, releasing. */
#include "fsserver/operations_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/io_uring.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Files up to this size are hashed for the audit log. */
#define HASH_SIZE_MAX (1024u * 1024u)
/* A write is a copy into the page cache, which the ring would only make slower (it hands buffered
 * writes to a worker thread). But when the kernel holds writers back because the disk is behind,
 * the next ones of this size or more go through the ring, so that nobody else waits with them. */
#define SLOW_WRITE_NS UINT64_C(10000000)
#define SLOW_WRITES 32u
#define RING_WRITE_MIN (64u * 1024u)
#define COPY_RANGE_MAX (UINT64_C(8) << 20)

/* ---- the audit log's hashes ----------------------------------------------------------------- */

/* SHA-256 of a file's content. False when it cannot be had (too large, changing, unreadable). */
static bool hash_file(struct export *export, int node_fd, uint64_t size,
		      uint8_t digest[static SHA256_DIGEST_LENGTH])
{
	cleanup_fd int fd = -1;
	cleanup_free uint8_t *content = NULL;
	size_t done = 0;

	if (size > HASH_SIZE_MAX || host_reopen(&export->scope, node_fd, O_RDONLY, &fd))
		return false;
	content = malloc(size ? size : 1);
	while (content && done < size) {
		ssize_t count = pread(fd, content + done, size - done, (off_t)done);

		if (count <= 0)
			return false;
		done += (size_t)count;
	}
	return content && EVP_Digest(content, size, digest, NULL, EVP_sha256(), NULL) == 1;
}

void operations_hash_before(struct export *export, struct handle *handle, const struct statx *stat)
{
	if (handle->created || handle->changed)
		return;
	handle->before_known = hash_file(export, handle->node->fd, stat->stx_size, handle->before);
}

/* ---- opening and releasing ------------------------------------------------------------------ */

static int access_flags(uint32_t flags)
{
	int result = O_RDONLY;

	if ((flags & FS_O_WRITE) && (flags & FS_O_READ))
		result = O_RDWR;
	else if (flags & FS_O_WRITE)
		result = O_WRONLY;
	if (flags & FS_O_SYNC)
		result |= O_SYNC;
	else if (flags & FS_O_DSYNC)
		result |= O_DSYNC;
	return result;
}

int operations_open_handle(struct job *job, struct node *node, uint32_t flags,
			   struct handle **ret_handle)
{
	struct export *export = job->export;
	bool writes = flags & (FS_O_WRITE | FS_O_TRUNCATE);
	char path_buffer[PATH_MAX];
	const char *path = NULL;
	struct handle *handle;
	struct statx stat;
	int fd;
	int error;

	if (node->type == S_IFDIR)
		return -EISDIR;
	if (node->type != S_IFREG)
		return node->type == S_IFLNK ? -ELOOP : -ENXIO;
	if (!handle_table_has_room(&export->handles))
		return -ENFILE;
	error = host_stat(node->fd, &stat);
	if (!error && writes)
		error = guard_object(export, POLICY_WRITE, "open for writing", NULL, node->fd,
				     &stat, stat.stx_mode, path_buffer, &path);
	if (flags & FS_O_TRUNCATE)
		flags |= FS_O_WRITE;
	if (!error)
		error = host_reopen(&export->scope, node->fd, access_flags(flags), &fd);
	if (!error)
		error = handle_table_add(&export->handles, node, fd, &handle);
	if (error)
		return error;
	handle->readable = (flags & FS_O_READ) || !(flags & FS_O_WRITE);
	handle->writable = flags & FS_O_WRITE;
	handle->append = flags & FS_O_APPEND;
	if (flags & FS_O_TRUNCATE)
		error = operations_truncate(job, node, handle, fd, &stat, path, 0);
	if (error) {
		handle_table_remove(&export->handles, handle);
		handle_unreference(&export->handles, export->nodes, handle);
		return error;
	}
	*ret_handle = handle;
	return 0;
}

int operations_reply_open(struct job *job, const struct handle *handle, bool keep_cache)
{
	struct fs_open_reply reply = {
		.handle = handle->id,
		.flags = keep_cache ? FS_OPEN_KEEP_CACHE : 0,
	};
	void *place = job_reply(job, sizeof(reply));

	if (!place)
		return -ENOMEM;
	memcpy(place, &reply, sizeof(reply));
	job->previous_handle = handle->id;
	return 0;
}

int operation_open(struct job *job, const struct fs_request *request)
{
	struct handle *handle;
	struct node *node;
	struct statx stat;
	struct node_stamp stamp;
	bool keep;
	int error = job_node(job, request->open.nodeid, &node);

	if (!error)
		error = operations_open_handle(job, node, request->open.flags, &handle);
	if (error)
		return error;
	error = host_stat(handle->fd, &stat);
	if (error)
		return error;
	stamp = node_stamp_of(&stat);
	keep = node->content_known && node_stamp_equal(&stamp, &node->content);
	node->content = stamp;
	node->content_known = true;
	return operations_reply_open(job, handle, keep);
}

/* What the handle did, in one event. */
static void report_handle(struct export *export, struct handle *handle, const struct statx *stat)
{
	uint8_t after[SHA256_DIGEST_LENGTH];
	bool after_known = hash_file(export, handle->node->fd, stat->stx_size, after);
	char path[PATH_MAX];
	mode_t mode = stat->stx_mode & 07777;
	const char *shown = handle->judged_path ? handle->judged_path : "(unlinked)";

	if (export_path_of(export, handle->node->fd, stat->stx_nlink, path) == 0)
		shown = path;
	report_mutation(export->server->report,
			&(struct report_mutation){
				.operation = handle->created ? "create" : "write",
				.export_name = export->config->name,
				.path = shown,
				.bytes = &handle->bytes_written,
				.before = handle->before_known ? handle->before : NULL,
				.after = after_known ? after : NULL,
				.mode = handle->created ? &mode : NULL,
			});
}

void operations_changed(struct export *export, struct handle *handle)
{
	handle->changed = true;
	handle->unstamped = true;
	export->unstamped = true;
}

static void stamp_as(struct export *export, struct handle *handle, const struct statx *stat)
{
	struct stat now;

	handle->unstamped = false;
	if (!export->undo)
		return;
	host_stat_convert(stat, &now);
	undo_did_change(export->undo, operations_inode(stat), &now);
}

static void stamp(struct export *export, struct handle *handle)
{
	struct statx stat;

	if (handle->unstamped && host_stat(handle->fd, &stat) == 0)
		stamp_as(export, handle, &stat);
}

void operations_stamp(struct export *export)
{
	uint32_t position = 0;
	struct handle *handle;

	if (!export->unstamped)
		return;
	export->unstamped = false;
	while ((handle = handle_table_next(&export->handles, &position)))
		stamp(export, handle);
}

void operations_release(struct export *export, struct handle *handle)
{
	struct statx stat;

	if ((handle->changed || handle->created) && host_stat(handle->fd, &stat) == 0) {
		if (handle->unstamped)
			stamp_as(export, handle, &stat);
		report_handle(export, handle, &stat);
	}
	handle_table_remove(&export->handles, handle);
	handle_unreference(&export->handles, export->nodes, handle);
}

int operation_release(struct job *job, const struct fs_request *request)
{
	struct handle *handle;
	struct node *node;
	int error = job_node(job, request->node.nodeid, &node);

	if (!error)
		error = job_handle(job, request->node.handle, node, &handle);
	if (error)
		return error;
	if (!handle)
		return -EBADF;
	operations_release(job->export, handle);
	return 0;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* The descriptor to read from: the handle's, or one kept for the node. */
static int reading_fd(struct job *job, struct node *node, struct handle *handle, int *ret_fd)
{
	if (handle) {
		if (!handle->readable)
			return -EBADF;
		*ret_fd = handle->fd;
		return 0;
	}
	if (node->type == S_IFDIR)
		return -EISDIR;
	return export_read_fd(job->export, node, ret_fd);
}

/* A descriptor of the cache may be closed while the ring reads from it. */
static int keep_for_ring(struct job *job, struct node *node, struct handle *handle, int fd)
{
	job->pending.close_fd = -1;
	job->pending.handle = NULL;
	job->pending.node = NULL;
	if (handle) {
		handle_reference(handle);
		job->pending.handle = handle;
	} else {
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (fd < 0)
			return -errno;
		job->pending.close_fd = fd;
	}
	node_reference(node);
	job->pending.node = node;
	job->pending.fd = fd;
	return 0;
}

int operation_read(struct job *job, const struct fs_request *request)
{
	const struct fs_io *io = &request->io;
	struct iovec vector;
	struct handle *handle;
	struct node *node;
	ssize_t count = 0;
	int fd;
	int error = job_node(job, io->nodeid, &node);

	if (!error)
		error = job_handle(job, io->handle, node, &handle);
	if (!error)
		error = reading_fd(job, node, handle, &fd);
	if (!error)
		error = job_budget(job, io->size);
	if (error)
		return error;
	vector.iov_len = io->size;
	vector.iov_base = job_reply(job, io->size);
	if (!vector.iov_base)
		return -ENOMEM;
	if (io->size == 0)
		return 0;
	/* What is in memory is answered here; what would wait for the disk goes to the ring. A
	 * short count may be the end of the file or of what is in memory, which only a read that
	 * may wait can tell. */
	count = preadv2(fd, &vector, 1, (off_t)io->offset, RWF_NOWAIT);
	if (count == (ssize_t)io->size)
		return 0;
	if (count >= 0) {
		ssize_t more;

		vector.iov_base = (uint8_t *)vector.iov_base + count;
		vector.iov_len -= (size_t)count;
		more = preadv2(fd, &vector, 1, (off_t)io->offset + count, RWF_NOWAIT);
		if (more == 0) {
			job->reply->length -= vector.iov_len;
			return 0;
		}
		vector.iov_base = (uint8_t *)vector.iov_base - count;
		vector.iov_len = io->size;
	} else if (errno != EAGAIN && errno != EOPNOTSUPP) {
		return -errno;
	}
	error = keep_for_ring(job, node, handle, fd);
	if (error)
		return error;
	job->pending.kind = PENDING_READ;
	job->pending.data = vector.iov_base;
	job->pending.length = vector.iov_len;
	job->pending.offset = io->offset;
	job->pending.flags = 0;
	return JOB_WAITS;
}

int operation_read_done(struct job *job, int64_t result)
{
	if (result < 0)
		return (int)result;
	/* A regular file gives less only at its end, or when a signal came between. */
	while ((size_t)result < job->pending.length) {
		ssize_t more = pread(job->pending.fd, (uint8_t *)job->pending.data + result,
				     job->pending.length - (size_t)result,
				     (off_t)(job->pending.offset + (uint64_t)result));

		if (more <= 0)
			break;
		result += more;
	}
	job->reply->length -= job->pending.length - (size_t)result;
	return 0;
}

/* ---- writing -------------------------------------------------------------------------------- */

static int reply_count(struct job *job, uint64_t count)
{
	struct fs_count *reply = job_reply(job, sizeof(*reply));

	if (!reply)
		return -ENOMEM;
	memcpy(reply, &count, sizeof(count));
	return 0;
}

/* Everything that comes before a change to content through a handle. */
static int before_change(struct job *job, struct handle *handle, const char *operation,
			 uint64_t offset, uint64_t length, bool append, struct statx *ret_stat)
{
	struct export *export = job->export;
	char path_buffer[PATH_MAX];
	const char *path;
	int error;

	if (!handle || !handle->writable)
		return -EBADF;
	error = host_stat(handle->fd, ret_stat);
	if (!error)
		error = guard_object(export, POLICY_WRITE, operation, handle, handle->node->fd,
				     ret_stat, ret_stat->stx_mode, path_buffer, &path);
	if (error)
		return error;
	operations_hash_before(export, handle, ret_stat);
	if (append)
		offset = ret_stat->stx_size;
	if (export->undo && length > 0)
		error = undo_will_write(export->undo, handle->fd, operations_inode(ret_stat), path,
					offset, length);
	if (!error)
		operations_changed(export, handle);
	return error;
}

/* After it: what the guest has cached is what it has written, if nobody wrote in between. */
static void after_change(struct node *node, int fd, const struct node_stamp *before)
{
	struct statx stat;
	struct node_stamp now;

	if (host_stat(fd, &stat))
		return;
	now = node_stamp_of(&stat);
	if (node_stamp_equal(&node->told, before))
		node->told = now;
	if (node->content_known && node_stamp_equal(&node->content, before))
		node->content = now;
	else
		node->content_known = false;
}

static ssize_t write_here(struct export *export, int fd, const struct iovec *vector, off_t offset,
			  int flags)
{
	uint64_t began = clock_now_ns();
	ssize_t count;

	do {
		count = pwritev2(fd, vector, 1, offset, flags);
	} while (count < 0 && errno == EINTR);
	if (count < 0)
		return -errno;
	if (clock_now_ns() - began > SLOW_WRITE_NS)
		export->slow_writes = SLOW_WRITES;
	return count;
}

int operation_write(struct job *job, const struct fs_request *request)
{
	const struct fs_io *io = &request->io;
	struct iovec vector = { .iov_base = (void *)(uintptr_t)request->data,
				.iov_len = request->data_length };
	struct handle *handle;
	struct node *node;
	struct statx stat;
	bool append;
	ssize_t count;
	int error = job_node(job, io->nodeid, &node);

	if (!error)
		error = job_handle(job, io->handle, node, &handle);
	if (!error)
		error = job_budget(job, io->size);
	if (error)
		return error;
	append = (io->flags & FS_IO_APPEND) || (handle && handle->append);
	error = before_change(job, handle, "write", io->offset, io->size, append, &stat);
	if (error)
		return error;
	job->pending.before = node_stamp_of(&stat);
	job->pending.flags = append ? RWF_APPEND : 0;
	if (io->size >= RING_WRITE_MIN && job->export->slow_writes > 0) {
		job->export->slow_writes--;
		error = keep_for_ring(job, node, handle, handle->fd);
		if (error)
			return error;
		job->pending.kind = PENDING_WRITE;
		job->pending.data = vector.iov_base;
		job->pending.length = vector.iov_len;
		job->pending.offset = io->offset;
		return JOB_WAITS;
	}
	count = write_here(job->export, handle->fd, &vector, append ? 0 : (off_t)io->offset,
			   job->pending.flags);
	if (count < 0)
		return (int)count;
	handle->bytes_written += (uint64_t)count;
	after_change(node, handle->fd, &job->pending.before);
	return reply_count(job, (uint64_t)count);
}

int operation_write_done(struct job *job, int64_t result)
{
	struct handle *handle = job->pending.handle;

	if (result < 0)
		return (int)result;
	handle->bytes_written += (uint64_t)result;
	after_change(job->pending.node, handle->fd, &job->pending.before);
	return reply_count(job, (uint64_t)result);
}

static int fallocate_mode(uint32_t mode)
{
	int result = 0;

	if (mode & FS_FALLOCATE_KEEP_SIZE)
		result |= FALLOC_FL_KEEP_SIZE;
	if (mode & FS_FALLOCATE_PUNCH_HOLE)
		result |= FALLOC_FL_PUNCH_HOLE;
	if (mode & FS_FALLOCATE_ZERO_RANGE)
		result |= FALLOC_FL_ZERO_RANGE;
	return result;
}

int operation_fallocate(struct job *job, const struct fs_request *request)
{
	const struct fs_fallocate *range = &request->fallocate;
	struct node_stamp before;
	struct handle *handle;
	struct node *node;
	struct statx stat;
	int error = job_node(job, range->nodeid, &node);

	if (!error)
		error = job_handle(job, range->handle, node, &handle);
	if (!error)
		error = before_change(job, handle, "fallocate", range->offset, range->length, false,
				      &stat);
	if (error)
		return error;
	before = node_stamp_of(&stat);
	if (fallocate(handle->fd, fallocate_mode(range->mode), (off_t)range->offset,
		      (off_t)range->length) < 0)
		return -errno;
	after_change(node, handle->fd, &before);
	return 0;
}

int operation_copy_range(struct job *job, const struct fs_request *request)
{
	const struct fs_copy_range *copy = &request->copy_range;
	uint64_t length = copy->length < COPY_RANGE_MAX ? copy->length : COPY_RANGE_MAX;
	off_t source_offset = (off_t)copy->source_offset;
	off_t target_offset = (off_t)copy->target_offset;
	struct node_stamp before;
	struct handle *source_handle;
	struct handle *handle;
	struct node *source;
	struct node *node;
	struct statx stat;
	ssize_t count;
	int fd;
	int error = job_node(job, copy->source_nodeid, &source);

	if (!error)
		error = job_handle(job, copy->source_handle, source, &source_handle);
	if (!error)
		error = job_node(job, copy->target_nodeid, &node);
	if (!error)
		error = job_handle(job, copy->target_handle, node, &handle);
	if (!error)
		error = reading_fd(job, source, source_handle, &fd);
	if (!error)
		error = before_change(job, handle, "copy", copy->target_offset, length, false,
				      &stat);
	if (error)
		return error;
	before = node_stamp_of(&stat);
	count = copy_file_range(fd, &source_offset, handle->fd, &target_offset, length, 0);
	if (count < 0)
		return -errno;
	handle->bytes_written += (uint64_t)count;
	after_change(node, handle->fd, &before);
	return reply_count(job, (uint64_t)count);
}

/* ---- the rest ------------------------------------------------------------------------------- */

int operation_fsync(struct job *job, const struct fs_request *request)
{
	struct export *export = job->export;
	struct handle *handle;
	struct node *node;
	int fd;
	int error = job_node(job, request->fsync.nodeid, &node);

	if (!error)
		error = job_handle(job, request->fsync.handle, node, &handle);
	if (error)
		return error;
	if (node->type != S_IFREG && node->type != S_IFDIR)
		return -EINVAL;
	if (export->config->read_only)
		return 0;
	if (handle)
		fd = handle->fd;
	else
		error = export_read_fd(export, node, &fd);
	if (!error && export->undo) {
		if (handle)
			stamp(export, handle);
		error = undo_sync(export->undo);
	}
	if (!error)
		error = keep_for_ring(job, node, handle, fd);
	if (error)
		return error;
	job->pending.kind = PENDING_FSYNC;
	job->pending.flags = request->fsync.data_only ? IORING_FSYNC_DATASYNC : 0;
	return JOB_WAITS;
}

int operation_lseek(struct job *job, const struct fs_request *request)
{
	struct handle *handle;
	struct node *node;
	off_t offset;
	int fd;
	int error = job_node(job, request->lseek.nodeid, &node);

	if (!error)
		error = job_handle(job, request->lseek.handle, node, &handle);
	if (error)
		return error;
	if (node->type != S_IFREG)
		return -EINVAL;
	/* Data is never read or written at a descriptor's own position, so moving it is free. */
	if (handle)
		fd = handle->fd;
	else
		error = export_read_fd(job->export, node, &fd);
	if (error)
		return error;
	offset = lseek(fd, (off_t)request->lseek.offset,
		       request->lseek.whence == FS_SEEK_DATA ? SEEK_DATA : SEEK_HOLE);
	return offset < 0 ? -errno : reply_count(job, (uint64_t)offset);
}
