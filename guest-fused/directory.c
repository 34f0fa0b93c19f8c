#include "guest-fused/directory.h"

#include "base/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NOT_LISTED UINT32_MAX
#define BUCKETS_FIRST 16u
/* No larger entry can follow in a READDIR reply. */
#define LISTED_MAX (sizeof(struct fs_dirent) + sizeof(struct fs_entry) + FS_NAME_MAX)

static uint32_t hash_name(const char *name, size_t length)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (uint8_t)name[i]) * 16777619u;
	return hash ^ (hash >> 15);
}

/* ---- life --------------------------------------------------------------------------------- */

static void order_unlink(struct fused_cache *cache, struct fused_directory *directory)
{
	if (directory->older != NULL)
		directory->older->newer = directory->newer;
	else if (cache->oldest == directory)
		cache->oldest = directory->newer;
	if (directory->newer != NULL)
		directory->newer->older = directory->older;
	else if (cache->newest == directory)
		cache->newest = directory->older;
	directory->older = NULL;
	directory->newer = NULL;
}

static void order_append(struct fused_cache *cache, struct fused_directory *directory)
{
	directory->older = cache->newest;
	if (cache->newest != NULL)
		cache->newest->newer = directory;
	else
		cache->oldest = directory;
	cache->newest = directory;
}

struct fused_directory *fused_directory_get(struct fused_cache *cache, struct fused_node *node)
{
	struct fused_directory *directory = node->directory;

	if (directory != NULL) {
		if (cache->newest != directory) {
			order_unlink(cache, directory);
			order_append(cache, directory);
		}
		return directory;
	}
	directory = calloc(1, sizeof(*directory));
	if (directory == NULL)
		return NULL;
	directory->buckets = calloc(BUCKETS_FIRST, sizeof(struct fused_entry *));
	if (directory->buckets == NULL) {
		free(directory);
		return NULL;
	}
	directory->bucket_count = BUCKETS_FIRST;
	directory->node = node;
	directory->list_stale = true;
	node->directory = directory;
	order_append(cache, directory);
	return directory;
}

static void entry_detach_node(struct fused_cache *cache, struct fused_entry *entry)
{
	struct fused_node *node = entry->node;

	if (node == NULL)
		return;
	entry->node = NULL;
	node->entry_count--;
	if (node->entry == entry)
		node->entry = NULL;
	fused_node_unreferenced(cache, node);
}

static void entry_unhash(struct fused_directory *directory, struct fused_entry *entry)
{
	struct fused_entry **link =
		&directory->buckets[entry->hash & (directory->bucket_count - 1)];

	while (*link != entry)
		link = &(*link)->chain;
	*link = entry->chain;
	directory->live_count--;
}

/* Frees all entries, live and removed. */
static void clear_entries(struct fused_cache *cache, struct fused_directory *directory)
{
	for (uint32_t i = 0; i < directory->bucket_count; i++) {
		struct fused_entry *entry = directory->buckets[i];

		directory->buckets[i] = NULL;
		while (entry != NULL) {
			struct fused_entry *chain = entry->chain;

			entry_detach_node(cache, entry);
			cache->entry_total--;
			if (entry->position == NOT_LISTED)
				free(entry);
			entry = chain;
		}
	}
	directory->live_count = 0;
	for (uint32_t i = 0; i < directory->list_count; i++) {
		if (directory->list[i]->removed)
			cache->entry_total--;
		free(directory->list[i]);
	}
	directory->list_count = 0;
	directory->hint = 0;
	directory->complete = false;
	directory->list_ended = false;
	directory->list_stale = true;
}

void fused_directory_drop(struct fused_cache *cache, struct fused_directory *directory)
{
	/* Detached first: freeing the children may come round to this node. */
	directory->node->directory = NULL;
	order_unlink(cache, directory);
	clear_entries(cache, directory);
	free(directory->buckets);
	free(directory->list);
	free(directory);
}

/* ---- names -------------------------------------------------------------------------------- */

static struct fused_entry *find(const struct fused_directory *directory, const char *name,
				size_t length)
{
	uint32_t hash = hash_name(name, length);
	struct fused_entry *entry = directory->buckets[hash & (directory->bucket_count - 1)];

	while (entry != NULL && (entry->hash != hash || entry->name_length != length ||
				 memcmp(entry->name, name, length) != 0))
		entry = entry->chain;
	return entry;
}

enum fused_answer fused_directory_lookup(struct fused_directory *directory, const char *name,
					 size_t length, struct fused_entry **ret_entry)
{
	struct fused_entry *entry = find(directory, name, length);

	if (entry == NULL)
		return directory->complete && fused_valid(directory->expires) ? FUSED_ABSENT
									      : FUSED_UNKNOWN;
	if (entry->node == NULL || !fused_valid(entry->expires) ||
	    !fused_valid(entry->node->attr_expires))
		return FUSED_UNKNOWN;
	*ret_entry = entry;
	return FUSED_PRESENT;
}

static void grow(struct fused_directory *directory)
{
	uint32_t count = directory->bucket_count * 2;
	struct fused_entry **buckets = calloc(count, sizeof(struct fused_entry *));

	if (buckets == NULL)
		return;
	for (uint32_t i = 0; i < directory->bucket_count; i++) {
		struct fused_entry *entry = directory->buckets[i];

		while (entry != NULL) {
			struct fused_entry *chain = entry->chain;
			struct fused_entry **bucket = &buckets[entry->hash & (count - 1)];

			entry->chain = *bucket;
			*bucket = entry;
			entry = chain;
		}
	}
	free(directory->buckets);
	directory->buckets = buckets;
	directory->bucket_count = count;
}

/* Removes a live entry; one that is listed keeps its place. */
static void remove_entry(struct fused_cache *cache, struct fused_directory *directory,
			 struct fused_entry *entry)
{
	entry_unhash(directory, entry);
	entry_detach_node(cache, entry);
	if (entry->position != NOT_LISTED) {
		entry->removed = true;
		return;
	}
	cache->entry_total--;
	free(entry);
}

static struct fused_entry *add_entry(struct fused_cache *cache, struct fused_directory *directory,
				     const char *name, size_t length, struct fused_node *node)
{
	struct fused_entry *entry = find(directory, name, length);
	struct fused_entry **bucket;

	if (node != NULL)
		node->entry_count++;
	if (entry != NULL)
		remove_entry(cache, directory, entry);
	entry = calloc(1, sizeof(*entry) + length);
	if (entry == NULL) {
		if (node != NULL)
			node->entry_count--;
		return NULL;
	}
	if (directory->live_count >= directory->bucket_count * 2)
		grow(directory);
	entry->directory = directory;
	entry->node = node;
	entry->hash = hash_name(name, length);
	entry->position = NOT_LISTED;
	entry->name_length = (uint16_t)length;
	memcpy(entry->name, name, length);
	bucket = &directory->buckets[entry->hash & (directory->bucket_count - 1)];
	entry->chain = *bucket;
	*bucket = entry;
	directory->live_count++;
	cache->entry_total++;
	if (node != NULL)
		node->entry = entry;
	return entry;
}

void fused_directory_add(struct fused_cache *cache, struct fused_directory *directory,
			 const char *name, size_t length, struct fused_node *node, uint64_t expires)
{
	struct fused_entry *entry;

	if (directory == NULL)
		return;
	directory->list_stale = true;
	if (!directory->complete)
		return;
	entry = add_entry(cache, directory, name, length, node);
	if (entry == NULL) {
		fused_directory_distrust(directory);
		return;
	}
	entry->expires = expires;
	entry->ino = node->attr.ino;
}

void fused_directory_remove(struct fused_cache *cache, struct fused_directory *directory,
			    const char *name, size_t length)
{
	struct fused_entry *entry;

	if (directory == NULL)
		return;
	entry = find(directory, name, length);
	if (entry != NULL)
		remove_entry(cache, directory, entry);
}

void fused_directory_name_changed(struct fused_cache *cache, struct fused_directory *directory,
				  const char *name, size_t length)
{
	if (directory == NULL)
		return;
	fused_directory_remove(cache, directory, name, length);
	directory->complete = false;
	directory->list_stale = true;
}

struct fused_node *fused_directory_child(const struct fused_directory *directory, const char *name,
					 size_t length)
{
	struct fused_entry *entry = directory != NULL ? find(directory, name, length) : NULL;

	return entry != NULL ? entry->node : NULL;
}

void fused_directory_made(struct fused_cache *cache, struct fused_node *node, uint32_t valid_ms)
{
	struct fused_directory *directory = fused_directory_get(cache, node);

	if (directory == NULL)
		return;
	directory->complete = true;
	directory->expires = fused_expiry(valid_ms);
}

void fused_directory_distrust(struct fused_directory *directory)
{
	if (directory == NULL)
		return;
	directory->complete = false;
	directory->list_stale = true;
	for (uint32_t i = 0; i < directory->bucket_count; i++)
		for (struct fused_entry *entry = directory->buckets[i]; entry; entry = entry->chain)
			entry->expires = 0;
}

/* ---- listings ----------------------------------------------------------------------------- */

void fused_directory_begin(struct fused_cache *cache, struct fused_directory *directory,
			   uint64_t since, uint64_t offset)
{
	clear_entries(cache, directory);
	directory->list_since = since;
	directory->list_start = offset;
	directory->list_offset = offset;
	directory->list_stale = false;
	directory->expires = FUSED_FOREVER;
}

struct listed {
	struct fs_dirent dirent;
	struct fs_entry entry;
	const char *name;
};

static bool next_listed(struct byte_reader *reader, struct listed *ret_listed)
{
	const uint8_t *name;

	byte_reader_copy(reader, &ret_listed->dirent, sizeof(ret_listed->dirent));
	if (ret_listed->dirent.has_entry == 1)
		byte_reader_copy(reader, &ret_listed->entry, sizeof(ret_listed->entry));
	else
		ret_listed->entry.nodeid = 0;
	name = byte_reader_bytes(reader, ret_listed->dirent.name_length);
	if (name == NULL || ret_listed->dirent.has_entry > 1 ||
	    ret_listed->dirent.next > (uint64_t)INT64_MAX ||
	    fs_name_check(name, ret_listed->dirent.name_length) != 0)
		return false;
	ret_listed->name = (const char *)name;
	return true;
}

void fused_listing_discard(struct fused_cache *cache, const uint8_t *body, size_t length)
{
	struct byte_reader reader;
	struct listed listed;

	byte_reader_init(&reader, body, length);
	while (byte_reader_remaining(&reader) > 0 && next_listed(&reader, &listed)) {
		struct fused_node *node = NULL;

		if (listed.entry.nodeid > FS_NODE_ROOT)
			node = fused_node_get(cache, listed.entry.nodeid);
		if (node == NULL)
			continue;
		node->server_lookups++;
		fused_node_unreferenced(cache, node);
	}
}

static int append_listed(struct fused_cache *cache, struct fused_directory *directory,
			 uint64_t since, const struct listed *listed)
{
	struct fused_node *node = NULL;
	struct fused_entry *entry;

	if (directory->list_count == directory->list_capacity) {
		uint32_t capacity =
			directory->list_capacity == 0 ? 64 : directory->list_capacity * 2;
		struct fused_entry **list =
			realloc(directory->list, capacity * sizeof(struct fused_entry *));

		if (list == NULL)
			return -ENOMEM;
		directory->list = list;
		directory->list_capacity = capacity;
	}
	if (listed->entry.nodeid != 0) {
		node = fused_node_adopt(cache, &listed->entry, since);
		if (node == NULL)
			return -EBADMSG;
	}
	entry = add_entry(cache, directory, listed->name, listed->dirent.name_length, node);
	if (entry == NULL)
		return -ENOMEM;
	entry->next = listed->dirent.next;
	entry->ino = listed->dirent.ino;
	entry->type = (uint8_t)listed->dirent.type;
	if (node != NULL && directory->node->changed <= since) {
		entry->expires = fused_expiry(listed->entry.entry_valid_ms);
		if (entry->expires < directory->expires)
			directory->expires = entry->expires;
	}
	entry->position = directory->list_count;
	directory->list[directory->list_count++] = entry;
	directory->list_offset = entry->next;
	return 0;
}

static void make_room(struct fused_cache *cache, struct fused_directory *keep)
{
	struct fused_directory *directory = cache->oldest;

	while (cache->entry_total > FUSED_ENTRIES_MAX && directory != NULL && directory != keep) {
		/* Dropping one may drop others below it, so start over each time. */
		fused_directory_drop(cache, directory);
		directory = cache->oldest;
	}
}

int fused_directory_absorb(struct fused_cache *cache, struct fused_directory *directory,
			   uint64_t since, const uint8_t *body, size_t length, uint32_t size,
			   uint32_t valid_ms)
{
	struct byte_reader reader;
	struct listed listed;
	uint64_t expires = fused_expiry(valid_ms);
	int result = 0;

	byte_reader_init(&reader, body, length);
	while (result == 0 && byte_reader_remaining(&reader) > 0) {
		if (!next_listed(&reader, &listed))
			result = -EBADMSG;
		else
			result = append_listed(cache, directory, since, &listed);
	}
	if (result != 0) {
		clear_entries(cache, directory);
		return result;
	}
	if (expires < directory->expires)
		directory->expires = expires;
	/* As many as fit were sent: what leaves room for the largest entry is the end. */
	directory->list_ended = length == 0 || length + LISTED_MAX <= size;
	if (directory->node->changed > directory->list_since)
		directory->list_stale = true;
	if (directory->list_ended)
		directory->complete = !directory->list_stale && directory->list_start == 0 &&
				      directory->expires != 0;
	make_room(cache, directory);
	return 0;
}

int64_t fused_directory_position(struct fused_directory *directory, uint64_t offset)
{
	uint32_t hint = directory->hint;

	if (offset == directory->list_start)
		return 0;
	if (hint > 0 && hint <= directory->list_count && directory->list[hint - 1]->next == offset)
		return hint;
	for (uint32_t i = 0; i < directory->list_count; i++)
		if (directory->list[i]->next == offset)
			return (int64_t)i + 1;
	return -1;
}
