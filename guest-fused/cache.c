#include "guest-fused/cache.h"

#include "base/clock.h"
#include "guest-fused/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUCKETS_FIRST 1024u
#define NODE_LIMIT_LEAST 64u

int fused_cache_init(struct fused_cache *cache)
{
	int result;

	memset(cache, 0, sizeof(*cache));
	cache->buckets = calloc(BUCKETS_FIRST, sizeof(struct fused_node *));
	if (cache->buckets == NULL)
		return -ENOMEM;
	cache->bucket_count = BUCKETS_FIRST;
	cache->node_limit = FUSED_NODES_MAX;
	result = pthread_mutex_init(&cache->lock, NULL);
	if (result != 0)
		free(cache->buckets);
	return -result;
}

void fused_cache_destroy(struct fused_cache *cache)
{
	while (cache->newest != NULL)
		fused_directory_drop(cache, cache->newest);
	for (size_t i = 0; i < cache->bucket_count; i++) {
		struct fused_node *node = cache->buckets[i];

		while (node != NULL) {
			struct fused_node *chain = node->chain;

			free(node->content);
			free(node);
			node = chain;
		}
	}
	free(cache->buckets);
	free(cache->forgets);
	free(cache->stale);
	pthread_mutex_destroy(&cache->lock);
}

/* ---- time --------------------------------------------------------------------------------- */

uint64_t fused_expiry(uint32_t valid_ms)
{
	if (valid_ms == UINT32_MAX)
		return FUSED_FOREVER;
	return valid_ms == 0 ? 0 : clock_now_ms() + valid_ms;
}

bool fused_valid(uint64_t expires)
{
	if (expires == FUSED_FOREVER || expires == 0)
		return expires != 0;
	return clock_now_ms() < expires;
}

/* ---- nodes -------------------------------------------------------------------------------- */

static struct fused_node **node_bucket(const struct fused_cache *cache, uint64_t nodeid)
{
	uint64_t hash = nodeid * UINT64_C(0x9e3779b97f4a7c15);

	return &cache->buckets[(hash >> 32) & (cache->bucket_count - 1)];
}

struct fused_node *fused_node_find(struct fused_cache *cache, uint64_t nodeid)
{
	struct fused_node *node = *node_bucket(cache, nodeid);

	while (node != NULL && node->nodeid != nodeid)
		node = node->chain;
	return node;
}

/* Failing to grow is harmless: chains become longer. */
static void grow_buckets(struct fused_cache *cache)
{
	struct fused_node **old = cache->buckets;
	size_t old_count = cache->bucket_count;
	struct fused_node **buckets = calloc(old_count * 2, sizeof(struct fused_node *));

	if (buckets == NULL)
		return;
	cache->buckets = buckets;
	cache->bucket_count = old_count * 2;
	for (size_t i = 0; i < old_count; i++) {
		struct fused_node *node = old[i];

		while (node != NULL) {
			struct fused_node *chain = node->chain;
			struct fused_node **bucket = node_bucket(cache, node->nodeid);

			node->chain = *bucket;
			*bucket = node;
			node = chain;
		}
	}
	free(old);
}

struct fused_node *fused_node_get(struct fused_cache *cache, uint64_t nodeid)
{
	struct fused_node *node = fused_node_find(cache, nodeid);
	struct fused_node **bucket;

	if (node != NULL)
		return node;
	if (cache->node_count >= cache->bucket_count)
		grow_buckets(cache);
	node = calloc(1, sizeof(*node));
	if (node == NULL)
		return NULL;
	node->nodeid = nodeid;
	node->changed = cache->unknown_changed;
	bucket = node_bucket(cache, nodeid);
	node->chain = *bucket;
	*bucket = node;
	if (++cache->node_count > cache->node_limit && !cache->prune_wanted) {
		cache->prune_wanted = true;
		atomic_store(&cache->keeper_wanted, true);
	}
	return node;
}

static void queue_forget(struct fused_cache *cache, struct fused_forget forget)
{
	if (cache->forget_count == cache->forget_capacity) {
		size_t capacity = cache->forget_capacity == 0 ? 256 : cache->forget_capacity * 2;
		struct fused_forget *forgets = realloc(cache->forgets, capacity * sizeof(*forgets));

		/* Lost: the server keeps the node, or the handle, until the session's end. */
		if (forgets == NULL)
			return;
		cache->forgets = forgets;
		cache->forget_capacity = capacity;
	}
	cache->forgets[cache->forget_count++] = forget;
}

static void handle_unlink(struct fused_cache *cache, struct fused_node *node)
{
	if (node->handle_previous != NULL)
		node->handle_previous->handle_next = node->handle_next;
	else
		cache->handle_oldest = node->handle_next;
	if (node->handle_next != NULL)
		node->handle_next->handle_previous = node->handle_previous;
	else
		cache->handle_newest = node->handle_previous;
	node->handle_next = NULL;
	node->handle_previous = NULL;
}

static void handle_append(struct fused_cache *cache, struct fused_node *node)
{
	node->handle_previous = cache->handle_newest;
	node->handle_next = NULL;
	if (cache->handle_newest != NULL)
		cache->handle_newest->handle_next = node;
	else
		cache->handle_oldest = node;
	cache->handle_newest = node;
}

void fused_node_unreferenced(struct fused_cache *cache, struct fused_node *node)
{
	struct fused_node **link;
	struct fused_forget forget = { .nodeid = node->nodeid, .lookups = node->server_lookups };

	if (node->kernel_lookups > 0 || node->entry_count > 0 || node->handle_users > 0 ||
	    node->nodeid == FS_NODE_ROOT)
		return;
	if (node->directory != NULL)
		fused_directory_drop(cache, node->directory);
	fused_content_drop(cache, node);
	if (node->handle != FS_HANDLE_NONE) {
		handle_unlink(cache, node);
		cache->handle_count--;
		forget.handle = node->handle;
	}
	for (link = node_bucket(cache, node->nodeid); *link != node; link = &(*link)->chain)
		continue;
	*link = node->chain;
	cache->node_count--;
	free(node);
	if (forget.lookups > 0 || forget.handle != FS_HANDLE_NONE)
		queue_forget(cache, forget);
}

uint64_t fused_node_touch(struct fused_cache *cache, struct fused_node *node)
{
	node->changed = atomic_fetch_add(&cache->clock, 1) + 1;
	node->attr_expires = 0;
	node->read_before = false;
	fused_content_drop(cache, node);
	return node->changed;
}

uint64_t fused_nodeid_touch(struct fused_cache *cache, uint64_t nodeid)
{
	struct fused_node *node = fused_node_find(cache, nodeid);

	if (node != NULL)
		return fused_node_touch(cache, node);
	cache->unknown_changed = atomic_fetch_add(&cache->clock, 1) + 1;
	return cache->unknown_changed;
}

void fused_node_stale(struct fused_cache *cache, const struct fused_node *node)
{
	if (cache->stale_count == cache->stale_capacity) {
		size_t capacity = cache->stale_capacity == 0 ? 64 : cache->stale_capacity * 2;
		uint64_t *stale = realloc(cache->stale, capacity * sizeof(*stale));

		if (stale == NULL)
			return;
		cache->stale = stale;
		cache->stale_capacity = capacity;
	}
	cache->stale[cache->stale_count++] = node->nodeid;
	atomic_store(&cache->keeper_wanted, true);
}

static bool same_content(const struct fs_attr *a, const struct fs_attr *b)
{
	return a->size == b->size && a->mtime_sec == b->mtime_sec && a->mtime_nsec == b->mtime_nsec;
}

bool fused_node_set_attr(struct fused_cache *cache, struct fused_node *node,
			 const struct fs_attr *attr, uint32_t valid_ms, uint64_t since)
{
	bool taken = node->changed <= since;

	if (!taken || !same_content(attr, &node->attr)) {
		fused_content_drop(cache, node);
		if (taken && node->attr_known && node->kernel_lookups > 0 && S_ISREG(attr->mode))
			fused_node_stale(cache, node);
	}
	node->attr_known = taken;
	node->attr = *attr;
	node->attr_expires = taken ? fused_expiry(valid_ms) : 0;
	return taken;
}

struct fused_node *fused_node_adopt(struct fused_cache *cache, const struct fs_entry *entry,
				    uint64_t since)
{
	struct fused_node *node;

	if (entry->nodeid <= FS_NODE_ROOT || entry->nodeid == FS_NODE_PREVIOUS)
		return NULL;
	node = fused_node_get(cache, entry->nodeid);
	if (node == NULL)
		return NULL;
	node->server_lookups++;
	fused_node_set_attr(cache, node, &entry->attr, entry->attr_valid_ms, since);
	return node;
}

void fused_node_forget(struct fused_cache *cache, uint64_t nodeid, uint64_t lookups)
{
	struct fused_node *node = fused_node_find(cache, nodeid);

	if (node == NULL)
		return;
	node->kernel_lookups -= lookups <= node->kernel_lookups ? lookups : node->kernel_lookups;
	fused_node_unreferenced(cache, node);
}

bool fused_cache_has_room(const struct fused_cache *cache)
{
	return cache->node_count < cache->node_limit / 2;
}

void fused_cache_full(struct fused_cache *cache)
{
	size_t limit = cache->node_count / 4 * 3;

	if (limit < cache->node_limit)
		cache->node_limit = limit > NODE_LIMIT_LEAST ? limit : NODE_LIMIT_LEAST;
	cache->prune_wanted = true;
	atomic_store(&cache->keeper_wanted, true);
}

/* ---- handles ------------------------------------------------------------------------------ */

uint64_t fused_handle_take(struct fused_cache *cache, uint64_t nodeid, uint32_t flags)
{
	struct fused_node *node = fused_node_find(cache, nodeid);

	if (node == NULL || node->handle == FS_HANDLE_NONE || (flags & ~node->handle_flags) != 0)
		return FS_HANDLE_NONE;
	node->handle_users++;
	return node->handle;
}

void fused_handle_put(struct fused_cache *cache, uint64_t nodeid)
{
	struct fused_node *node = fused_node_find(cache, nodeid);

	if (node == NULL || node->handle_users == 0)
		return;
	node->handle_users--;
	node->handle_used = clock_now_ms();
	if (cache->handle_newest != node) {
		handle_unlink(cache, node);
		handle_append(cache, node);
	}
	fused_node_unreferenced(cache, node);
}

void fused_cache_release(struct fused_cache *cache, uint64_t nodeid, uint64_t handle)
{
	queue_forget(cache, (struct fused_forget){ .nodeid = nodeid, .handle = handle });
}

static void handle_close(struct fused_cache *cache, struct fused_node *node)
{
	fused_cache_release(cache, node->nodeid, node->handle);
	handle_unlink(cache, node);
	cache->handle_count--;
	node->handle = FS_HANDLE_NONE;
}

void fused_handle_adopt(struct fused_cache *cache, uint64_t nodeid, uint64_t handle, uint32_t flags)
{
	struct fused_node *node = fused_node_find(cache, nodeid);

	if (node == NULL || node->handle != FS_HANDLE_NONE) {
		fused_cache_release(cache, nodeid, handle);
		return;
	}
	node->handle = handle;
	node->handle_flags = flags;
	node->handle_used = clock_now_ms();
	handle_append(cache, node);
	if (++cache->handle_count <= FUSED_HANDLES_MAX)
		return;
	for (node = cache->handle_oldest; node != NULL; node = node->handle_next) {
		if (node->handle_users == 0) {
			handle_close(cache, node);
			return;
		}
	}
}

/* A file whose owner may not open it for reading and writing can be reached through the handle
 * it was made with alone. */
static bool handle_is_precious(const struct fused_node *node)
{
	return (node->attr.mode & (S_IRUSR | S_IWUSR)) != (S_IRUSR | S_IWUSR);
}

size_t fused_handle_expire(struct fused_cache *cache, uint64_t before)
{
	struct fused_node *node = cache->handle_oldest;
	size_t left = 0;

	while (node != NULL) {
		struct fused_node *next = node->handle_next;

		if (!handle_is_precious(node)) {
			if (node->handle_users == 0 && node->handle_used < before)
				handle_close(cache, node);
			else
				left++;
		}
		node = next;
	}
	return left;
}

/* ---- contents ----------------------------------------------------------------------------- */

void fused_content_drop(struct fused_cache *cache, struct fused_node *node)
{
	if (node->content == NULL)
		return;
	if (node->content_previous != NULL)
		node->content_previous->content_next = node->content_next;
	else
		cache->content_oldest = node->content_next;
	if (node->content_next != NULL)
		node->content_next->content_previous = node->content_previous;
	else
		cache->content_newest = node->content_previous;
	cache->content_total -= node->attr.size;
	free(node->content);
	node->content = NULL;
}

void fused_content_set(struct fused_cache *cache, struct fused_node *node, const uint8_t *data,
		       size_t length)
{
	uint8_t *copy;

	fused_content_drop(cache, node);
	if (node->attr_expires == 0 || node->attr.size != length || length == 0 ||
	    length > FUSED_CONTENT_FILE_MAX)
		return;
	while (cache->content_total + length > FUSED_CONTENT_MAX && cache->content_oldest != NULL)
		fused_content_drop(cache, cache->content_oldest);
	copy = malloc(length);
	if (copy == NULL)
		return;
	memcpy(copy, data, length);
	node->content = copy;
	cache->content_total += length;
	node->content_next = NULL;
	node->content_previous = cache->content_newest;
	if (cache->content_newest != NULL)
		cache->content_newest->content_next = node;
	else
		cache->content_oldest = node;
	cache->content_newest = node;
}
