/*
 * The keeper: the thread that takes the server's notifications to the kernel and gives back to
 * the server what is no longer needed.
 *
 * Theory of operation: telling the kernel to drop something waits for locks that a request in
 * work may hold, so no worker ever does it; the keeper holds none itself. Giving back is put off
 * so that many forgets and released handles make one frame, which nobody waits for.
 */
#include "guest-fused/export.h"

#include "base/clock.h"
#include "guest-fused/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define GIVE_BACK_MS 100
#define HANDLE_IDLE_MS 200u
#define FORGETS_AT_ONCE 2048u
#define RELEASES_AT_ONCE 32u
#define PRUNE_INTERVAL_MS 200u
#define MINOR_EXPIRE_ONLY 38u

/* ---- telling the kernel ------------------------------------------------------------------- */

static void notify_kernel(struct fused_export *export, int32_t code, const void *body,
			  size_t body_length, const char *name, size_t name_length)
{
	struct fuse_out_header header = { .error = code };
	/* Read from only. */
	union {
		const void *source;
		void *base;
	} parts[2] = { { .source = body }, { .source = name } };
	struct iovec vector[3] = {
		{ &header, sizeof(header) },
		{ parts[0].base, body_length },
		{ parts[1].base, name_length },
	};

	header.len = (uint32_t)(sizeof(header) + body_length + name_length);
	/* ENOENT: the kernel had nothing of it. */
	while (writev(export->workers[0].fuse_fd, vector, name_length > 0 ? 3 : 2) < 0 &&
	       errno == EINTR)
		continue;
}

static void drop_inode(struct fused_export *export, uint64_t nodeid)
{
	struct fuse_notify_inval_inode_out out = { .ino = nodeid };

	notify_kernel(export, FUSE_NOTIFY_INVAL_INODE, &out, sizeof(out), NULL, 0);
}

/* `name` is NUL-terminated. Where the kernel can, the entry is only expired: dropping one would
 * unmount what is mounted below it. */
static void drop_entry(struct fused_export *export, uint64_t parent, const char *name,
		       size_t length)
{
	struct fuse_notify_inval_entry_out out = {
		.parent = parent,
		.namelen = (uint32_t)length,
		.flags = export->minor >= MINOR_EXPIRE_ONLY ? FUSE_EXPIRE_ONLY : 0,
	};

	notify_kernel(export, FUSE_NOTIFY_INVAL_ENTRY, &out, sizeof(out), name, length + 1);
}

/* ---- notices ------------------------------------------------------------------------------ */

struct notice {
	struct fs_notify fixed;
	char name[FS_NAME_MAX + 1];
};

/* What is known here is distrusted from now on. */
static void apply(struct fused_cache *cache, const struct notice *notice)
{
	struct fused_node *node = fused_node_find(cache, notice->fixed.nodeid);

	fused_nodeid_touch(cache, notice->fixed.nodeid);
	if (node == NULL)
		return;
	if (notice->fixed.what == FS_NOTIFY_ENTRY) {
		fused_directory_name_changed(cache, node->directory, notice->name,
					     notice->fixed.name_length);
	} else {
		/* Its pages go now; the next attributes are no further news of them. */
		node->attr_known = false;
		fused_directory_distrust(node->directory);
	}
}

struct everything {
	uint64_t *nodeids;
	size_t count;
};

static void distrust_all(struct fused_cache *cache, struct everything *everything)
{
	cache->unknown_changed = atomic_fetch_add(&cache->clock, 1) + 1;
	everything->count = 0;
	everything->nodeids = malloc((cache->node_count + 1) * sizeof(uint64_t));
	for (size_t i = 0; i < cache->bucket_count; i++) {
		for (struct fused_node *node = cache->buckets[i]; node; node = node->chain) {
			fused_node_touch(cache, node);
			node->attr_known = false;
			fused_directory_distrust(node->directory);
			if (everything->nodeids != NULL && node->kernel_lookups > 0)
				everything->nodeids[everything->count++] = node->nodeid;
		}
	}
}

/* The names of one directory that are known here; the kernel may know more, see below. */
static void drop_known_entries(struct fused_export *export, uint64_t nodeid)
{
	struct fused_cache *cache = &export->cache;
	struct fused_directory *directory;
	struct fused_node *node;
	char *names = NULL;
	size_t size = 0;
	size_t used = 0;

	fused_cache_lock(cache);
	node = fused_node_find(cache, nodeid);
	directory = node != NULL ? node->directory : NULL;
	if (directory != NULL) {
		size = (size_t)directory->live_count * (FS_NAME_MAX + 1);
		names = malloc(size + 1);
	}
	for (uint32_t i = 0; names != NULL && i < directory->bucket_count; i++) {
		for (struct fused_entry *entry = directory->buckets[i]; entry;
		     entry = entry->chain) {
			if (entry->name_length + 1u > size - used)
				break;
			memcpy(names + used, entry->name, entry->name_length);
			names[used + entry->name_length] = '\0';
			used += entry->name_length + 1u;
		}
	}
	fused_cache_unlock(cache);
	for (size_t at = 0; at < used; at += strlen(names + at) + 1)
		drop_entry(export, nodeid, names + at, strlen(names + at));
	free(names);
}

/* Names and inodes that the kernel keeps in case they are asked for again. Where that is not
 * permitted they last as long as the kernel likes. */
static void drop_unused_entries(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	while (write(fd, "2\n", 2) < 0 && errno == EINTR)
		continue;
	close(fd);
}

/*
 * The server lost track. The kernel's inodes and the names known here are dropped one by one.
 * It also remembers names that are not there, which nobody else has a list of: in a guest they
 * go with all its unused entries.
 */
static void drop_everything(struct fused_export *export, struct everything *everything)
{
	for (size_t i = 0; i < everything->count; i++) {
		drop_inode(export, everything->nodeids[i]);
		drop_known_entries(export, everything->nodeids[i]);
	}
	free(everything->nodeids);
	everything->nodeids = NULL;
	drop_unused_entries();
}

/* One operation of a frame. Returns 0, 1 for GOODBYE, or -EBADMSG. */
static int parse_notice(struct byte_reader *reader, struct notice *ret_notice)
{
	struct fs_op_reply op;
	struct byte_reader body;

	byte_reader_copy(reader, &op, sizeof(op));
	body = byte_reader_slice(reader, op.length);
	if (!byte_reader_ok(reader))
		return -EBADMSG;
	if (op.opcode == FS_GOODBYE)
		return 1;
	if (op.opcode != FS_NOTIFY)
		return -EBADMSG;
	byte_reader_copy(&body, &ret_notice->fixed, sizeof(ret_notice->fixed));
	if (!byte_reader_ok(&body) || ret_notice->fixed.name_length > FS_NAME_MAX ||
	    ret_notice->fixed.what < FS_NOTIFY_INODE ||
	    ret_notice->fixed.what > FS_NOTIFY_EVERYTHING)
		return -EBADMSG;
	byte_reader_copy(&body, ret_notice->name, ret_notice->fixed.name_length);
	ret_notice->name[ret_notice->fixed.name_length] = '\0';
	if (!byte_reader_done(&body) ||
	    (ret_notice->fixed.what == FS_NOTIFY_ENTRY &&
	     fs_name_check(ret_notice->name, ret_notice->fixed.name_length) != 0))
		return -EBADMSG;
	return 0;
}

/* Parses all operations before any is acted on. */
static int take_notices(struct fused_export *export, struct notice *notices, size_t *ret_count)
{
	struct fs_frame header;
	struct byte_reader reader;
	size_t length;
	int result = fused_stream_receive(&export->notifications, false, &length);

	if (result != 0)
		return result;
	byte_reader_init(&reader, export->notifications.buffer, length);
	byte_reader_copy(&reader, &header, sizeof(header));
	for (unsigned i = 0; i < header.op_count; i++) {
		result = parse_notice(&reader, &notices[i]);
		if (result != 0)
			return result == 1 ? -ESHUTDOWN : result;
	}
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	*ret_count = header.op_count;
	return 0;
}

static int handle_notices(struct fused_export *export, struct notice *notices)
{
	struct fused_cache *cache = &export->cache;
	struct everything everything = { 0 };
	bool all = false;
	size_t count;
	int result = take_notices(export, notices, &count);

	if (result != 0)
		return result;
	fused_cache_lock(cache);
	for (size_t i = 0; i < count; i++) {
		if (notices[i].fixed.what == FS_NOTIFY_EVERYTHING)
			all = true;
		else
			apply(cache, &notices[i]);
	}
	if (all)
		distrust_all(cache, &everything);
	fused_cache_unlock(cache);
	/* What was composed from what is now distrusted must reach the kernel before this does. */
	fused_export_wait_for_replies(export);
	for (size_t i = 0; i < count; i++) {
		if (notices[i].fixed.what == FS_NOTIFY_INODE)
			drop_inode(export, notices[i].fixed.nodeid);
		else if (notices[i].fixed.what == FS_NOTIFY_ENTRY)
			drop_entry(export, notices[i].fixed.nodeid, notices[i].name,
				   notices[i].fixed.name_length);
	}
	if (all)
		drop_everything(export, &everything);
	return 0;
}

/*
 * The server holds each node open that is known here. What nobody uses is given back: first what
 * only this process remembers, then what the kernel does.
 */
static void prune(struct fused_export *export, uint64_t *last)
{
	struct fused_cache *cache = &export->cache;
	uint64_t now = clock_now_ms();
	bool wanted;

	fused_cache_lock(cache);
	wanted = cache->prune_wanted && now - *last >= PRUNE_INTERVAL_MS;
	if (wanted) {
		cache->prune_wanted = false;
		while (cache->oldest != NULL)
			fused_directory_drop(cache, cache->oldest);
		wanted = cache->node_count > cache->node_limit / 2;
	}
	fused_cache_unlock(cache);
	if (wanted) {
		*last = now;
		drop_unused_entries();
	}
}

static void drop_stale(struct fused_export *export)
{
	struct fused_cache *cache = &export->cache;
	uint64_t *stale;
	size_t count;

	fused_cache_lock(cache);
	stale = cache->stale;
	count = cache->stale_count;
	cache->stale = NULL;
	cache->stale_count = 0;
	cache->stale_capacity = 0;
	fused_cache_unlock(cache);
	for (size_t i = 0; i < count; i++)
		drop_inode(export, stale[i]);
	free(stale);
}

/* ---- giving back -------------------------------------------------------------------------- */

static int post(struct fused_export *export)
{
	struct fs_hello_reply hello;
	int result = 0;

	if (export->posts.fd < 0)
		result = fused_stream_open(&export->posts, &export->endpoint, export->id,
					   FS_STREAM_REQUESTS, &hello);
	return result == 0 ? fused_stream_post(&export->posts, &export->post_frame) : result;
}

static int post_releases(struct fused_export *export, const struct fused_forget *forgets,
			 size_t count)
{
	struct fused_frame *frame = &export->post_frame;
	int result = 0;

	uint32_t in_frame = 0;

	fused_frame_begin(frame);
	for (size_t i = 0; i < count && result == 0; i++) {
		if (forgets[i].handle == FS_HANDLE_NONE)
			continue;
		/* None fails, which would end its frame: these are handles that the server gave. */
		fused_frame_node(frame, FS_RELEASE, forgets[i].nodeid, forgets[i].handle);
		if (++in_frame < RELEASES_AT_ONCE)
			continue;
		result = post(export);
		fused_frame_begin(frame);
		in_frame = 0;
	}
	if (result == 0 && in_frame > 0)
		result = post(export);
	return result;
}

static int post_forgets(struct fused_export *export, const struct fused_forget *forgets,
			size_t count)
{
	struct fused_frame *frame = &export->post_frame;
	size_t at = 0;
	int result = 0;

	while (at < count && result == 0) {
		struct fs_forget *fixed;
		uint32_t in_frame = 0;

		fused_frame_begin(frame);
		fixed = fused_frame_op(frame, FS_FORGET, sizeof(*fixed));
		for (; at < count && in_frame < FORGETS_AT_ONCE; at++) {
			struct fs_forget_one one = { forgets[at].nodeid, forgets[at].lookups };

			if (one.lookups == 0)
				continue;
			fused_frame_bytes(frame, &one, sizeof(one));
			in_frame++;
		}
		fixed->count = in_frame;
		if (in_frame > 0)
			result = post(export);
	}
	return result;
}

/* Returns 0 and whether anything is left to be given back later. */
static int give_back(struct fused_export *export, bool *ret_left)
{
	struct fused_cache *cache = &export->cache;
	uint64_t now = clock_now_ms();
	struct fused_forget *forgets;
	size_t count;
	int result;

	fused_cache_lock(cache);
	*ret_left = fused_handle_expire(cache, now > HANDLE_IDLE_MS ? now - HANDLE_IDLE_MS : 0) > 0;
	forgets = cache->forgets;
	count = cache->forget_count;
	cache->forgets = NULL;
	cache->forget_count = 0;
	cache->forget_capacity = 0;
	fused_cache_unlock(cache);
	/* A node must not be forgotten before its handle is released. */
	result = post_releases(export, forgets, count);
	if (result == 0)
		result = post_forgets(export, forgets, count);
	free(forgets);
	return result;
}

/* ---- the thread --------------------------------------------------------------------------- */

static int run(struct fused_export *export, struct notice *notices)
{
	struct pollfd polled[2] = {
		{ .fd = export->notifications.fd, .events = POLLIN },
		{ .fd = export->keeper_fd, .events = POLLIN },
	};
	uint64_t last_prune = 0;
	uint64_t deadline = 0;
	uint64_t wakes;
	bool left;
	int result = 0;

	while (result == 0) {
		bool awake = atomic_load(&export->keeper_awake);
		uint64_t now = clock_now_ms();
		int timeout = -1;

		if (awake) {
			if (deadline == 0)
				deadline = now + GIVE_BACK_MS;
			timeout = deadline > now ? (int)(deadline - now) : 0;
		}
		if (poll(polled, 2, timeout) < 0 && errno != EINTR)
			return -errno;
		if (polled[1].revents != 0 && read(export->keeper_fd, &wakes, sizeof(wakes)) < 0 &&
		    errno != EAGAIN)
			return -errno;
		if (polled[0].revents != 0)
			result = handle_notices(export, notices);
		atomic_store(&export->cache.keeper_wanted, false);
		drop_stale(export);
		prune(export, &last_prune);
		if (result == 0 && awake &&
		    (clock_now_ms() >= deadline || atomic_load(&export->waiting) > 0)) {
			/* Cleared first: what is queued from here on wakes it again. */
			atomic_store(&export->keeper_awake, false);
			deadline = 0;
			result = give_back(export, &left);
			if (left)
				atomic_store(&export->keeper_awake, true);
		}
	}
	return result;
}

void *fused_keeper_run(void *argument)
{
	struct fused_export *export = argument;
	struct notice *notices = calloc(FS_OPS_MAX, sizeof(*notices));
	int result = notices != NULL ? run(export, notices) : -ENOMEM;

	free(notices);
	fused_export_lose(export, result);
	return NULL;
}
