#include "guest-fused/worker.h"

#include "base/checked.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* "For ever", in the kernel's terms. */
#define VALID_SECONDS (UINT64_C(1) << 31)
/* Programs size their buffers by st_blksize, and each buffer is a request. */
#define BLOCK_SIZE_MIN 65536u
/* Together a second. */
#define ROOM_ATTEMPTS 100u
#define ROOM_WAIT_NS 10000000

/* ---- asking the server -------------------------------------------------------------------- */

struct fused_frame *fused_ask(struct fused_worker *worker)
{
	fused_frame_begin(&worker->frame);
	return &worker->frame;
}

/* There is one for each worker. */
static void take_stream(struct fused_worker *worker)
{
	struct fused_export *export = worker->export;

	pthread_mutex_lock(&export->idle_lock);
	worker->stream = export->idle[--export->idle_count];
	pthread_mutex_unlock(&export->idle_lock);
}

void fused_ask_end(struct fused_worker *worker)
{
	struct fused_export *export = worker->export;

	if (worker->stream == NULL)
		return;
	pthread_mutex_lock(&export->idle_lock);
	export->idle[export->idle_count++] = worker->stream;
	pthread_mutex_unlock(&export->idle_lock);
	worker->stream = NULL;
}

static int open_stream(struct fused_worker *worker)
{
	struct fused_export *export = worker->export;
	struct fs_hello_reply hello;
	int result = fused_stream_open(worker->stream, &export->endpoint, export->id,
				       FS_STREAM_REQUESTS, &hello);

	if (result == 0 && hello.data_max < export->hello.data_max)
		result = -EPROTO;
	return result;
}

/*
 * Asks again, for a while, when the server has no room for another node: the keeper has the
 * kernel forget some. One worker never waits, so that what is forgotten can be read.
 */
static int call(struct fused_worker *worker)
{
	struct fused_export *export = worker->export;
	const struct timespec moment = { .tv_nsec = ROOM_WAIT_NS };
	int result = 0;

	for (unsigned attempt = 0; attempt < ROOM_ATTEMPTS && result == 0; attempt++) {
		result = fused_stream_call(worker->stream, &worker->frame, &worker->reply);
		if (result != 0 || worker->reply.count != 1 || worker->reply.ops[0].error != ENFILE)
			break;
		fused_cache_lock(&export->cache);
		fused_cache_full(&export->cache);
		fused_cache_unlock(&export->cache);
		fused_export_hurry_keeper(export);
		if (atomic_fetch_add(&export->waiting, 1) + 1 < export->worker_count)
			nanosleep(&moment, NULL);
		else
			attempt = ROOM_ATTEMPTS;
		atomic_fetch_sub(&export->waiting, 1);
	}
	return result;
}

int fused_asked(struct fused_worker *worker)
{
	struct fused_export *export = worker->export;
	int result = atomic_load(&export->lost);

	if (result != 0)
		return -EIO;
	fused_count(&worker->asked[worker->opcode], 1);
	atomic_fetch_add(&worker->cycle, 1);
	if (worker->stream == NULL)
		take_stream(worker);
	if (worker->stream->fd < 0)
		result = open_stream(worker);
	if (result == 0)
		result = call(worker);
	atomic_fetch_add(&worker->cycle, 1);
	if (result == 0)
		return 0;
	fused_export_lose(export, result);
	return -EIO;
}

void fused_malformed(struct fused_worker *worker)
{
	fused_export_lose(worker->export, -EBADMSG);
}

/* ---- answering the kernel ----------------------------------------------------------------- */

static void write_answer(struct fused_worker *worker, const void *data, size_t length)
{
	/* ENOENT: the request was given up; ENODEV: unmounted. Neither needs anything done, as
	 * everything else the kernel could object to is composed here. */
	while (write(worker->fuse_fd, data, length) < 0 && errno == EINTR)
		continue;
}

void fused_answer_error(struct fused_worker *worker, const struct fused_request *request, int error)
{
	struct fuse_out_header header = {
		.len = sizeof(header),
		.error = error,
		.unique = request->header->unique,
	};

	write_answer(worker, &header, sizeof(header));
}

void fused_answer_in_place(struct fused_worker *worker, const struct fused_request *request,
			   uint8_t *body, size_t length)
{
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + length),
		.unique = request->header->unique,
	};

	memcpy(body - sizeof(header), &header, sizeof(header));
	write_answer(worker, body - sizeof(header), sizeof(header) + length);
}

void fused_answer(struct fused_worker *worker, const struct fused_request *request,
		  const void *body, size_t length)
{
	uint8_t *place = worker->out + sizeof(struct fuse_out_header);

	memcpy(place, body, length);
	fused_answer_in_place(worker, request, place, length);
}

void fused_kernel_validity(uint64_t expires, uint64_t *ret_seconds, uint32_t *ret_nanoseconds)
{
	uint64_t now;

	*ret_nanoseconds = 0;
	if (expires == FUSED_FOREVER || expires == 0) {
		*ret_seconds = expires == 0 ? 0 : VALID_SECONDS;
		return;
	}
	now = clock_now_ms();
	*ret_seconds = now < expires ? (expires - now) / 1000 : 0;
	if (now < expires)
		*ret_nanoseconds = (uint32_t)((expires - now) % 1000) * 1000000;
}

void fused_kernel_attr(const struct fs_attr *attr, struct fuse_attr *ret_attr)
{
	*ret_attr = (struct fuse_attr){
		.ino = attr->ino,
		.size = attr->size,
		.blocks = attr->blocks,
		.atime = (uint64_t)attr->atime_sec,
		.mtime = (uint64_t)attr->mtime_sec,
		.ctime = (uint64_t)attr->ctime_sec,
		.atimensec = attr->atime_nsec,
		.mtimensec = attr->mtime_nsec,
		.ctimensec = attr->ctime_nsec,
		.mode = attr->mode,
		.nlink = attr->nlink,
		.uid = attr->uid,
		.gid = attr->gid,
		.rdev = attr->rdev,
		.blksize = attr->blksize,
	};
	if (S_ISREG(attr->mode) && attr->blksize < BLOCK_SIZE_MIN)
		ret_attr->blksize = BLOCK_SIZE_MIN;
}

void fused_kernel_entry(struct fused_node *node, uint64_t expires, struct fuse_entry_out *ret_entry)
{
	memset(ret_entry, 0, sizeof(*ret_entry));
	ret_entry->nodeid = node->nodeid;
	fused_kernel_validity(expires, &ret_entry->entry_valid, &ret_entry->entry_valid_nsec);
	fused_kernel_validity(node->attr_expires, &ret_entry->attr_valid,
			      &ret_entry->attr_valid_nsec);
	fused_kernel_attr(&node->attr, &ret_entry->attr);
	node->kernel_lookups++;
}

/* ---- mutations ---------------------------------------------------------------------------- */

uint64_t fused_mutating(struct fused_worker *worker, uint64_t nodeid)
{
	struct fused_cache *cache = &worker->export->cache;
	uint64_t since;

	fused_cache_lock(cache);
	since = fused_nodeid_touch(cache, nodeid);
	fused_cache_unlock(cache);
	return since;
}

void fused_mutated(struct fused_worker *worker, uint64_t nodeid, uint64_t since,
		   const struct fs_attr_reply *attr)
{
	struct fused_cache *cache = &worker->export->cache;
	struct fused_node *node;

	fused_cache_lock(cache);
	node = fused_node_find(cache, nodeid);
	if (node != NULL) {
		bool alone = node->changed == since;
		uint64_t now = fused_node_touch(cache, node);

		/* The difference is our own doing, and the kernel's pages have it. */
		node->attr_known = false;
		if (alone && attr != NULL)
			fused_node_set_attr(cache, node, &attr->attr, attr->attr_valid_ms, now);
	}
	fused_cache_unlock(cache);
}

const struct fs_attr_reply *fused_reply_attr(const struct fused_worker *worker, unsigned index,
					     struct fs_attr_reply *attr)
{
	return fused_reply_fixed(&worker->reply, index, attr, sizeof(*attr)) == 0 ? attr : NULL;
}

/* ---- the loop ----------------------------------------------------------------------------- */

static void answer_enosys(struct fused_worker *worker, const struct fused_request *request)
{
	fused_answer_error(worker, request, -ENOSYS);
}

static void answer_success(struct fused_worker *worker, const struct fused_request *request)
{
	fused_answer_error(worker, request, 0);
}

static void answer_ioctl(struct fused_worker *worker, const struct fused_request *request)
{
	fused_answer_error(worker, request, -ENOTTY);
}

static void destroy(struct fused_worker *worker, const struct fused_request *request)
{
	fused_answer_error(worker, request, 0);
	fused_export_end(worker->export);
}

/*
 * ENOSYS has a meaning of its own in FUSE: "never ask again". So OPEN and OPENDIR cost nothing
 * (files are read by node; writing opens a handle when it begins), nor do FLUSH, ACCESS and
 * INTERRUPT. Locks are not asked for: the guest's kernel keeps them.
 */
static const struct {
	fused_operation *run;
	size_t fixed; /* shortest body */
} operations[FUSED_OPCODES] = {
	[FUSE_LOOKUP] = { fused_lookup, 2 },
	[FUSE_FORGET] = { fused_forget, sizeof(struct fuse_forget_in) },
	[FUSE_GETATTR] = { fused_getattr, 0 },
	[FUSE_SETATTR] = { fused_setattr, sizeof(struct fuse_setattr_in) },
	[FUSE_READLINK] = { fused_readlink, 0 },
	[FUSE_SYMLINK] = { fused_symlink, 4 },
	[FUSE_MKNOD] = { fused_mknod, sizeof(struct fuse_mknod_in) + 2 },
	[FUSE_MKDIR] = { fused_mkdir, sizeof(struct fuse_mkdir_in) + 2 },
	[FUSE_UNLINK] = { fused_unlink, 2 },
	[FUSE_RMDIR] = { fused_rmdir, 2 },
	[FUSE_RENAME] = { fused_rename, sizeof(struct fuse_rename_in) + 4 },
	[FUSE_LINK] = { fused_link, sizeof(struct fuse_link_in) + 2 },
	[FUSE_OPEN] = { answer_enosys, 0 },
	[FUSE_READ] = { fused_read, sizeof(struct fuse_read_in) },
	[FUSE_WRITE] = { fused_write, sizeof(struct fuse_write_in) },
	[FUSE_STATFS] = { fused_statfs, 0 },
	[FUSE_RELEASE] = { answer_success, 0 },
	[FUSE_FSYNC] = { fused_fsync, sizeof(struct fuse_fsync_in) },
	[FUSE_SETXATTR] = { fused_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE + 2 },
	[FUSE_GETXATTR] = { fused_getxattr, sizeof(struct fuse_getxattr_in) + 2 },
	[FUSE_LISTXATTR] = { fused_listxattr, sizeof(struct fuse_getxattr_in) },
	[FUSE_REMOVEXATTR] = { fused_removexattr, 2 },
	[FUSE_FLUSH] = { answer_enosys, 0 },
	[FUSE_OPENDIR] = { answer_enosys, 0 },
	[FUSE_READDIR] = { fused_readdir, sizeof(struct fuse_read_in) },
	[FUSE_RELEASEDIR] = { answer_success, 0 },
	[FUSE_FSYNCDIR] = { fused_fsyncdir, sizeof(struct fuse_fsync_in) },
	[FUSE_ACCESS] = { answer_enosys, 0 },
	[FUSE_CREATE] = { fused_create, sizeof(struct fuse_create_in) + 2 },
	[FUSE_INTERRUPT] = { answer_enosys, 0 },
	[FUSE_IOCTL] = { answer_ioctl, 0 },
	[FUSE_DESTROY] = { destroy, 0 },
	[FUSE_BATCH_FORGET] = { fused_batch_forget, sizeof(struct fuse_batch_forget_in) },
	[FUSE_FALLOCATE] = { fused_fallocate, sizeof(struct fuse_fallocate_in) },
	[FUSE_READDIRPLUS] = { fused_readdirplus, sizeof(struct fuse_read_in) },
	[FUSE_RENAME2] = { fused_rename2, sizeof(struct fuse_rename2_in) + 4 },
	[FUSE_LSEEK] = { fused_lseek, sizeof(struct fuse_lseek_in) },
	[FUSE_COPY_FILE_RANGE] = { fused_copy_file_range, sizeof(struct fuse_copy_file_range_in) },
	[FUSE_SYNCFS] = { fused_syncfs, 0 },
	[FUSE_TMPFILE] = { fused_tmpfile, sizeof(struct fuse_create_in) + 2 },
};

static void serve(struct fused_worker *worker, size_t length)
{
	struct fused_request request = {
		.header = (const struct fuse_in_header *)(const void *)worker->in,
		.body = worker->in + sizeof(struct fuse_in_header),
		.length = length - sizeof(struct fuse_in_header),
	};
	uint32_t opcode = request.header->opcode;

	if (opcode >= FUSED_OPCODES || operations[opcode].run == NULL) {
		fused_answer_error(worker, &request, -ENOSYS);
		return;
	}
	worker->opcode = opcode;
	fused_count(&worker->requests[opcode], 1);
	if (request.length < operations[opcode].fixed)
		fused_answer_error(worker, &request, -EINVAL);
	else
		operations[opcode].run(worker, &request);
}

void *fused_worker_run(void *argument)
{
	struct fused_worker *worker = argument;

	for (;;) {
		ssize_t length = read(worker->fuse_fd, worker->in, FUSED_IN_SIZE);

		if (length < 0) {
			/* ENOENT: the request was given up while it was being read. */
			if (errno == EINTR || errno == EAGAIN || errno == ENOENT)
				continue;
			break;
		}
		if ((size_t)length < sizeof(struct fuse_in_header))
			break;
		atomic_fetch_add(&worker->cycle, 1);
		serve(worker, (size_t)length);
		fused_ask_end(worker);
		atomic_fetch_add(&worker->cycle, 1);
		if (atomic_load_explicit(&worker->export->cache.keeper_wanted,
					 memory_order_relaxed))
			fused_export_hurry_keeper(worker->export);
	}
	fused_export_end(worker->export);
	return NULL;
}
