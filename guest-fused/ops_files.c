/* Contents of files. */
#include "guest-fused/worker.h"

#include "base/checked.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bringing along: files of the same directory, this many at first, and bytes in one reply. */
#define PREFETCH_FIRST 4u
#define PREFETCH_FILES (FS_OPS_MAX - 4u)
#define PREFETCH_BYTES (256u * 1024u)

static int judged(struct fused_worker *worker, int result)
{
	if (result != -EBADMSG)
		return result;
	fused_malformed(worker);
	return -EIO;
}

/* ---- reading ------------------------------------------------------------------------------ */

struct prefetch {
	unsigned count;
	struct {
		uint64_t nodeid;
		uint32_t size;
	} files[PREFETCH_FILES];
};

/* Answers a READ from the content kept of a small file. */
static bool read_known(struct fused_worker *worker, const struct fused_request *request,
		       const struct fuse_read_in *in)
{
	struct fused_cache *cache = &worker->export->cache;
	uint8_t *place = worker->out + sizeof(struct fuse_out_header);
	struct fused_node *node;
	size_t count = 0;
	bool known = false;

	fused_cache_lock(cache);
	node = fused_node_find(cache, request->header->nodeid);
	if (node != NULL && node->content != NULL && fused_valid(node->attr_expires)) {
		known = true;
		if (in->offset < node->attr.size)
			count = MIN_OF(in->size, node->attr.size - in->offset);
		memcpy(place, node->content + (count > 0 ? in->offset : 0), count);
		if (node->entry != NULL)
			node->entry->directory->prefetch_hits++;
		/* The kernel's pages have it now. */
		if (count == node->attr.size)
			fused_content_drop(cache, node);
	}
	fused_cache_unlock(cache);
	if (known)
		fused_answer_in_place(worker, request, place, count);
	return known;
}

static bool worth_bringing(const struct fused_entry *entry)
{
	const struct fused_node *node = entry->node;

	return node != NULL && !entry->removed && S_ISREG(node->attr.mode) && node->attr.size > 0 &&
	       node->attr.size <= FUSED_CONTENT_FILE_MAX && node->content == NULL &&
	       !node->read_before && fused_valid(node->attr_expires);
}

/* How many files to bring along: more while they turn out to be read, fewer while not. */
static void adapt_window(struct fused_directory *directory)
{
	if (directory->prefetched == 0) {
		directory->prefetch_window = PREFETCH_FIRST;
	} else if (directory->prefetch_hits * 2 >= directory->prefetched) {
		directory->prefetch_window =
			MIN_OF(directory->prefetch_window * 2 + 1, PREFETCH_FILES);
	} else {
		directory->prefetch_window /= 2;
		/* Not for ever: reading may become regular again. */
		if (directory->prefetch_window == 0 && directory->reads % 16 == 0)
			directory->prefetch_window = PREFETCH_FIRST;
	}
	directory->prefetched = 0;
	directory->prefetch_hits = 0;
}

/* With the lock held: chooses files that follow in the directory, once a second file in it is
 * being read from its start. */
static void choose_prefetch(struct fused_node *node, struct prefetch *prefetch)
{
	struct fused_entry *entry = node->entry;
	struct fused_directory *directory;
	uint32_t bytes = 0;
	uint32_t position;

	if (entry == NULL || node->read_before)
		return;
	directory = entry->directory;
	if (++directory->reads < 2 || directory->list_count == 0)
		return;
	adapt_window(directory);
	position = entry->position < directory->list_count ? entry->position : 0;
	for (uint32_t i = 1; i < directory->list_count && i < 1024; i++) {
		struct fused_entry *other = directory->list[(position + i) % directory->list_count];

		if (prefetch->count >= directory->prefetch_window)
			break;
		if (!worth_bringing(other) || other->node == node)
			continue;
		if (bytes + other->node->attr.size > PREFETCH_BYTES)
			break;
		prefetch->files[prefetch->count].nodeid = other->node->nodeid;
		prefetch->files[prefetch->count].size = (uint32_t)other->node->attr.size;
		prefetch->count++;
		bytes += (uint32_t)other->node->attr.size;
	}
	directory->prefetched = prefetch->count;
}

static void ask_read(struct fused_frame *frame, uint64_t nodeid, uint64_t handle, uint64_t offset,
		     uint32_t size)
{
	struct fs_io *io = fused_frame_op(frame, FS_READ, sizeof(*io));

	io->nodeid = nodeid;
	io->handle = handle;
	io->offset = offset;
	io->size = size;
}

/* Keeps what came along, where nothing happened to it meanwhile. */
static void keep_prefetched(struct fused_worker *worker, const struct prefetch *prefetch,
			    uint64_t since)
{
	struct fused_cache *cache = &worker->export->cache;

	if (prefetch->count == 0)
		return;
	fused_cache_lock(cache);
	for (unsigned i = 0; i < prefetch->count; i++) {
		const struct fused_reply_op *op = &worker->reply.ops[i + 1];
		struct fused_node *node;

		if (fused_reply_error(&worker->reply, i + 1) != 0)
			break;
		node = fused_node_find(cache, prefetch->files[i].nodeid);
		if (node != NULL && node->changed <= since && fused_valid(node->attr_expires))
			fused_content_set(cache, node, op->body, op->length);
	}
	fused_cache_unlock(cache);
}

void fused_read(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_read_in *in = request->body;
	struct fused_cache *cache = &worker->export->cache;
	uint64_t nodeid = request->header->nodeid;
	struct prefetch prefetch = { .count = 0 };
	uint64_t since = fused_cache_now(cache);
	uint32_t size = MIN_OF(in->size, worker->export->hello.data_max);
	struct fused_frame *frame = fused_ask(worker);
	struct fused_node *node;
	uint64_t handle;
	int result;

	if (in->offset < FUSED_CONTENT_FILE_MAX && read_known(worker, request, in))
		return;
	fused_cache_lock(cache);
	handle = fused_handle_take(cache, nodeid, FS_O_READ);
	node = fused_node_find(cache, nodeid);
	if (node != NULL && in->offset == 0) {
		if (node->attr.size <= FUSED_CONTENT_FILE_MAX &&
		    size + PREFETCH_BYTES <= worker->export->hello.data_max)
			choose_prefetch(node, &prefetch);
		node->read_before = true;
	}
	fused_cache_unlock(cache);
	ask_read(frame, nodeid, handle, in->offset, size);
	for (unsigned i = 0; i < prefetch.count; i++)
		ask_read(frame, prefetch.files[i].nodeid, FS_HANDLE_NONE, 0,
			 prefetch.files[i].size);
	result = fused_asked(worker);
	if (handle != FS_HANDLE_NONE) {
		fused_cache_lock(cache);
		fused_handle_put(cache, nodeid);
		fused_cache_unlock(cache);
	}
	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	if (result == 0 && worker->reply.ops[0].length > size)
		result = judged(worker, -EBADMSG);
	if (result != 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	/* Before the answer, whose header overwrites nothing but what precedes its own data. */
	keep_prefetched(worker, &prefetch, since);
	fused_answer_in_place(worker, request, worker->reply.ops[0].body,
			      worker->reply.ops[0].length);
}

/* ---- handles for writing ------------------------------------------------------------------ */

/* One frame's use of a handle for writing: the one held, or one opened in the frame. */
struct writing {
	uint64_t nodeid;
	uint64_t handle;
	unsigned first; /* index of the operation that uses it */
};

static void begin_writing(struct fused_worker *worker, uint64_t nodeid, struct writing *writing)
{
	struct fused_cache *cache = &worker->export->cache;
	struct fused_frame *frame = fused_ask(worker);

	writing->nodeid = nodeid;
	writing->first = 0;
	fused_cache_lock(cache);
	writing->handle = fused_handle_take(cache, nodeid, FS_O_WRITE);
	fused_cache_unlock(cache);
	if (writing->handle != FS_HANDLE_NONE)
		return;
	fused_frame_open(frame, nodeid, FS_O_WRITE);
	writing->handle = FS_HANDLE_PREVIOUS;
	writing->first = 1;
}

/* Asks, and keeps the handle. Returns the error of the operation that uses it. */
static int finish_writing(struct fused_worker *worker, const struct writing *writing)
{
	struct fused_cache *cache = &worker->export->cache;
	struct fs_open_reply open;
	int result = fused_asked(worker);

	if (result == 0 && writing->first == 1)
		result = judged(worker, fused_reply_fixed(&worker->reply, 0, &open, sizeof(open)));
	fused_cache_lock(cache);
	if (writing->first == 0)
		fused_handle_put(cache, writing->nodeid);
	else if (result == 0)
		fused_handle_adopt(cache, writing->nodeid, open.handle, FS_O_WRITE);
	fused_cache_unlock(cache);
	if (writing->first == 1)
		fused_export_wake_keeper(worker->export);
	return result == 0 ? fused_reply_error(&worker->reply, writing->first) : result;
}

void fused_write(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_write_in *in = request->body;
	uint64_t nodeid = request->header->nodeid;
	struct fuse_write_out out = { 0 };
	struct fs_attr_reply attr;
	struct fs_count count;
	struct writing writing;
	struct fs_io *io;
	uint64_t since;
	bool append;
	int result;

	if (in->size > request->length - sizeof(*in) || in->size > worker->export->hello.data_max) {
		fused_answer_error(worker, request, -EINVAL);
		return;
	}
	/* Pages written back have their place; what a program appends goes to the true end. */
	append = (in->flags & O_APPEND) && !(in->write_flags & FUSE_WRITE_CACHE);
	since = fused_mutating(worker, nodeid);
	begin_writing(worker, nodeid, &writing);
	io = fused_frame_op(&worker->frame, FS_WRITE, sizeof(*io));
	io->nodeid = nodeid;
	io->handle = writing.handle;
	io->offset = in->offset;
	io->size = in->size;
	io->flags = append ? FS_IO_APPEND : 0;
	fused_frame_external(&worker->frame, in + 1, in->size);
	fused_frame_node(&worker->frame, FS_GETATTR, nodeid, FS_HANDLE_NONE);
	result = finish_writing(worker, &writing);
	if (result == 0)
		result = judged(worker, fused_reply_fixed(&worker->reply, writing.first, &count,
							  sizeof(count)));
	if (result == 0 && count.count > in->size)
		result = judged(worker, -EBADMSG);
	fused_mutated(worker, nodeid, since,
		      result == 0 ? fused_reply_attr(worker, writing.first + 1, &attr) : NULL);
	if (result != 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	if (append && fused_reply_attr(worker, writing.first + 1, &attr) != NULL &&
	    attr.attr.size != in->offset + count.count) {
		/* The end was elsewhere than the kernel thought: its pages are wrong. */
		struct fused_cache *cache = &worker->export->cache;
		struct fused_node *node;

		fused_cache_lock(cache);
		node = fused_node_find(cache, nodeid);
		if (node != NULL)
			fused_node_stale(cache, node);
		fused_cache_unlock(cache);
	}
	out.size = (uint32_t)count.count;
	fused_answer(worker, request, &out, sizeof(out));
}

void fused_fallocate(struct fused_worker *worker, const struct fused_request *request)
{
	static const uint32_t known =
		FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
	const struct fuse_fallocate_in *in = request->body;
	uint64_t nodeid = request->header->nodeid;
	struct fs_fallocate *range;
	struct fs_attr_reply attr;
	struct writing writing;
	uint64_t since;
	int result;

	if ((in->mode & ~known) != 0) {
		fused_answer_error(worker, request, -EOPNOTSUPP);
		return;
	}
	since = fused_mutating(worker, nodeid);
	begin_writing(worker, nodeid, &writing);
	range = fused_frame_op(&worker->frame, FS_FALLOCATE, sizeof(*range));
	range->nodeid = nodeid;
	range->handle = writing.handle;
	range->offset = in->offset;
	range->length = in->length;
	if (in->mode & FALLOC_FL_KEEP_SIZE)
		range->mode |= FS_FALLOCATE_KEEP_SIZE;
	if (in->mode & FALLOC_FL_PUNCH_HOLE)
		range->mode |= FS_FALLOCATE_PUNCH_HOLE;
	if (in->mode & FALLOC_FL_ZERO_RANGE)
		range->mode |= FS_FALLOCATE_ZERO_RANGE;
	fused_frame_node(&worker->frame, FS_GETATTR, nodeid, FS_HANDLE_NONE);
	result = finish_writing(worker, &writing);
	fused_mutated(worker, nodeid, since,
		      result == 0 ? fused_reply_attr(worker, writing.first + 1, &attr) : NULL);
	fused_answer_error(worker, request, result);
}

void fused_copy_file_range(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_copy_file_range_in *in = request->body;
	struct fuse_write_out out = { 0 };
	struct fs_copy_range *copy;
	struct fs_attr_reply attr;
	struct fs_count count;
	struct writing writing;
	uint64_t since;
	int result;

	if (in->flags != 0) {
		fused_answer_error(worker, request, -EINVAL);
		return;
	}
	since = fused_mutating(worker, in->nodeid_out);
	begin_writing(worker, in->nodeid_out, &writing);
	copy = fused_frame_op(&worker->frame, FS_COPY_RANGE, sizeof(*copy));
	copy->source_nodeid = request->header->nodeid;
	copy->source_handle = FS_HANDLE_NONE;
	copy->source_offset = in->off_in;
	copy->target_nodeid = in->nodeid_out;
	copy->target_handle = writing.handle;
	copy->target_offset = in->off_out;
	/* The kernel takes 32 bits of the answer. */
	copy->length = MIN_OF(in->len, UINT64_C(1) << 30);
	fused_frame_node(&worker->frame, FS_GETATTR, in->nodeid_out, FS_HANDLE_NONE);
	result = finish_writing(worker, &writing);
	if (result == 0)
		result = judged(worker, fused_reply_fixed(&worker->reply, writing.first, &count,
							  sizeof(count)));
	if (result == 0 && count.count > in->len)
		result = judged(worker, -EBADMSG);
	fused_mutated(worker, in->nodeid_out, since,
		      result == 0 ? fused_reply_attr(worker, writing.first + 1, &attr) : NULL);
	if (result != 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	out.size = (uint32_t)count.count;
	fused_answer(worker, request, &out, sizeof(out));
}

/* ---- the rest ----------------------------------------------------------------------------- */

static void sync_node(struct fused_worker *worker, const struct fused_request *request,
		      uint32_t flags)
{
	struct fused_cache *cache = &worker->export->cache;
	uint64_t nodeid = request->header->nodeid;
	struct fs_fsync *fsync = fused_frame_op(fused_ask(worker), FS_FSYNC, sizeof(*fsync));
	int result;

	fused_cache_lock(cache);
	fsync->handle = fused_handle_take(cache, nodeid, FS_O_WRITE);
	fused_cache_unlock(cache);
	fsync->nodeid = nodeid;
	fsync->data_only = flags & FUSE_FSYNC_FDATASYNC ? 1 : 0;
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	if (fsync->handle != FS_HANDLE_NONE) {
		fused_cache_lock(cache);
		fused_handle_put(cache, nodeid);
		fused_cache_unlock(cache);
	}
	fused_answer_error(worker, request, result);
}

void fused_fsync(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_fsync_in *in = request->body;

	sync_node(worker, request, in->fsync_flags);
}

void fused_fsyncdir(struct fused_worker *worker, const struct fused_request *request)
{
	fused_fsync(worker, request);
}

void fused_syncfs(struct fused_worker *worker, const struct fused_request *request)
{
	int result;

	fused_frame_node(fused_ask(worker), FS_SYNCFS, request->header->nodeid, FS_HANDLE_NONE);
	result = fused_asked(worker);
	if (result == 0)
		result = fused_reply_error(&worker->reply, 0);
	fused_answer_error(worker, request, result);
}

/* A file with as many blocks as its size needs has no holes that anybody must be told of. */
static bool seek_known(struct fused_cache *cache, uint64_t nodeid, const struct fuse_lseek_in *in,
		       uint64_t *ret_offset, int *ret_error)
{
	struct fused_node *node;
	uint64_t size;
	bool known;

	fused_cache_lock(cache);
	node = fused_node_find(cache, nodeid);
	known = node != NULL && fused_valid(node->attr_expires) &&
		node->attr.size <= node->attr.blocks * 512;
	size = known ? node->attr.size : 0;
	fused_cache_unlock(cache);
	if (!known)
		return false;
	*ret_error = in->offset >= size ? -ENXIO : 0;
	*ret_offset = in->whence == SEEK_DATA ? in->offset : size;
	return true;
}

void fused_lseek(struct fused_worker *worker, const struct fused_request *request)
{
	const struct fuse_lseek_in *in = request->body;
	uint64_t nodeid = request->header->nodeid;
	struct fuse_lseek_out out = { 0 };
	struct fs_count count = { 0 };
	struct fs_lseek *seek;
	uint64_t offset;
	int result;

	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE) {
		fused_answer_error(worker, request, -EINVAL);
		return;
	}
	if (seek_known(&worker->export->cache, nodeid, in, &offset, &result)) {
		count.count = offset;
	} else {
		seek = fused_frame_op(fused_ask(worker), FS_LSEEK, sizeof(*seek));
		seek->nodeid = nodeid;
		seek->offset = in->offset;
		seek->whence = in->whence == SEEK_DATA ? FS_SEEK_DATA : FS_SEEK_HOLE;
		result = fused_asked(worker);
		if (result == 0)
			result = judged(worker, fused_reply_fixed(&worker->reply, 0, &count,
								  sizeof(count)));
	}
	if (result != 0) {
		fused_answer_error(worker, request, result);
		return;
	}
	out.offset = count.count;
	fused_answer(worker, request, &out, sizeof(out));
}
