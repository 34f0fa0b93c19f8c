#include "fsserver/node_table.h"

#include "fsserver/host_paths.h"
#include "wire/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define FIRST_BUCKETS 256u

struct node_table {
	struct id_table ids;
	struct node **buckets;
	size_t bucket_count; /* a power of two */
	uint64_t seed;
	struct quota *quota;
	node_gone_function *gone;
	void *context;
};

int node_table_new(struct quota *quota, node_gone_function *gone, void *context,
		   struct node_table **ret_table)
{
	struct node_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	table->buckets = calloc(FIRST_BUCKETS, sizeof(*table->buckets));
	if (!table->buckets) {
		free(table);
		return -ENOMEM;
	}
	table->bucket_count = FIRST_BUCKETS;
	table->quota = quota;
	table->gone = gone;
	table->context = context;
	/* A guest that makes files can steer inode numbers a little; it cannot know the seed. */
	if (getrandom(&table->seed, sizeof(table->seed), 0) != sizeof(table->seed))
		table->seed = (uint64_t)(uintptr_t)table;
	*ret_table = table;
	return 0;
}

static size_t bucket_of(const struct node_table *table, const struct node_key *key)
{
	uint64_t hash = key->ino ^ table->seed;

	hash = (hash ^ hash >> 33) * UINT64_C(0xff51afd7ed558ccd);
	hash ^= key->device * UINT64_C(0x9e3779b97f4a7c15) + key->mount;
	hash = (hash ^ hash >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
	return (hash ^ hash >> 33) & (table->bucket_count - 1);
}

static void release(struct node_table *table, struct node *node)
{
	struct node **link = &table->buckets[bucket_of(table, &node->key)];

	while (*link != node)
		link = &(*link)->hash_next;
	*link = node->hash_next;
	if (table->gone)
		table->gone(node, table->context);
	id_table_remove(&table->ids, node->id);
	close(node->fd);
	free(node);
	table->quota->used--;
}

void node_table_free(struct node_table *table)
{
	uint32_t position = 0;
	struct node *node;

	if (!table)
		return;
	while ((node = id_table_next(&table->ids, &position)))
		release(table, node);
	id_table_free(&table->ids);
	free(table->buckets);
	free(table);
}

/* A failure leaves the table as it is, only slower. */
static void grow_buckets(struct node_table *table)
{
	struct node **old = table->buckets;
	size_t old_count = table->bucket_count;
	struct node **fresh = calloc(old_count * 2, sizeof(*fresh));

	if (!fresh)
		return;
	table->buckets = fresh;
	table->bucket_count = old_count * 2;
	for (size_t i = 0; i < old_count; i++) {
		struct node *next;

		for (struct node *node = old[i]; node; node = next) {
			struct node **bucket = &fresh[bucket_of(table, &node->key)];

			next = node->hash_next;
			node->hash_next = *bucket;
			*bucket = node;
		}
	}
	free(old);
}

bool node_table_has_room(const struct node_table *table, unsigned nodes)
{
	return table->quota->used + nodes <= table->quota->max;
}

int node_table_add(struct node_table *table, const struct node_key *key, mode_t type, int fd,
		   struct node **ret_node)
{
	struct node *node = NULL;
	struct node **bucket;
	int error = -ENFILE;

	if (!node_table_has_room(table, 1))
		goto fail;
	error = -ENOMEM;
	node = malloc(sizeof(*node));
	if (!node)
		goto fail;
	*node = (struct node){
		.key = *key, .fd = fd, .type = type & S_IFMT, .read_fd = -1, .watch = -1
	};
	error = id_table_add(&table->ids, node, &node->id);
	if (error)
		goto fail;
	if (table->ids.count > table->bucket_count)
		grow_buckets(table);
	bucket = &table->buckets[bucket_of(table, key)];
	node->hash_next = *bucket;
	*bucket = node;
	table->quota->used++;
	*ret_node = node;
	return 0;
fail:
	free(node);
	close(fd);
	return error;
}

struct node *node_table_get(const struct node_table *table, uint64_t id)
{
	return id_table_get(&table->ids, id);
}

struct node *node_table_find(const struct node_table *table, const struct node_key *key)
{
	struct node *node = table->buckets[bucket_of(table, key)];

	while (node && (node->key.ino != key->ino || node->key.device != key->device ||
			node->key.mount != key->mount))
		node = node->hash_next;
	return node;
}

void node_reference(struct node *node)
{
	node->references++;
}

void node_table_settle(struct node_table *table, struct node *node)
{
	if (node->lookups == 0 && node->references == 0 && node->id != FS_NODE_ROOT)
		release(table, node);
}

void node_unreference(struct node_table *table, struct node *node)
{
	node->references--;
	node_table_settle(table, node);
}

void node_remember(struct node *node)
{
	if (node->id != FS_NODE_ROOT)
		node->lookups++;
}

bool node_forget(struct node_table *table, struct node *node, uint64_t count)
{
	bool had = count <= node->lookups;

	if (node->id == FS_NODE_ROOT)
		return true;
	node->lookups = had ? node->lookups - count : 0;
	node_table_settle(table, node);
	return had;
}

void node_table_forget_all(struct node_table *table)
{
	uint32_t position = 0;
	struct node *node;

	while ((node = id_table_next(&table->ids, &position))) {
		node->lookups = 0;
		node_table_settle(table, node);
	}
}

uint32_t node_table_count(const struct node_table *table)
{
	return table->ids.count;
}

struct node *node_table_next(const struct node_table *table, uint32_t *position)
{
	return id_table_next(&table->ids, position);
}

struct node_stamp node_stamp_of(const struct statx *stat)
{
	return (struct node_stamp){
		.size = stat->stx_size,
		.mtime_sec = stat->stx_mtime.tv_sec,
		.ctime_sec = stat->stx_ctime.tv_sec,
		.mtime_nsec = stat->stx_mtime.tv_nsec,
		.ctime_nsec = stat->stx_ctime.tv_nsec,
	};
}

bool node_stamp_equal(const struct node_stamp *a, const struct node_stamp *b)
{
	return a->size == b->size && a->mtime_sec == b->mtime_sec &&
	       a->mtime_nsec == b->mtime_nsec && a->ctime_sec == b->ctime_sec &&
	       a->ctime_nsec == b->ctime_nsec;
}

struct node_key node_key_of(const struct statx *stat)
{
	return (struct node_key){
		.mount = stat->stx_mnt_id,
		.device = host_stat_device(stat),
		.ino = stat->stx_ino,
	};
}
