#include "fsserver/node_table.h"

#include "base/checked.h"
#include "fsserver/host_paths.h"
#include "wire/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define FIRST_BUCKETS 256u
/* Rounds of the clock that a node outlives after it was used. What lies below a directory is
 * reached through it. */
#define CHANCES_FILE 1u
#define CHANCES_DIRECTORY 4u
/* The search is given up after so many nodes that cannot do without their descriptors. */
#define REFUSALS_MAX 16384u

struct node_table {
	struct id_table ids;
	struct node **buckets;
	size_t bucket_count; /* a power of two */
	uint64_t seed;
	struct quota *quota;
	struct node_table_owner owner;
	struct descriptor_budget *budget;
	struct node_table *next_table; /* of the budget */
	/* A clock: the hand is at the oldest, used nodes go round once more. */
	struct node *newest;
	struct node *oldest;
	uint32_t warm;
	uint32_t operation;
};

int node_table_new(struct quota *quota, struct descriptor_budget *budget,
		   const struct node_table_owner *owner, struct node_table **ret_table)
{
	struct node_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	table->buckets = calloc(FIRST_BUCKETS, sizeof(struct node *));
	if (!table->buckets) {
		free(table);
		return -ENOMEM;
	}
	table->bucket_count = FIRST_BUCKETS;
	table->operation = 1;
	table->quota = quota;
	table->owner = *owner;
	table->budget = budget;
	table->next_table = budget->tables;
	budget->tables = table;
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

/* ---- descriptors ---------------------------------------------------------------------------- */

static void clock_insert(struct node_table *table, struct node *node)
{
	node->place.warm.previous = NULL;
	node->place.warm.next = table->newest;
	if (table->newest)
		table->newest->place.warm.previous = node;
	else
		table->oldest = node;
	table->newest = node;
}

static void clock_remove(struct node_table *table, struct node *node)
{
	struct node *previous = node->place.warm.previous;
	struct node *next = node->place.warm.next;

	if (previous)
		previous->place.warm.next = next;
	else
		table->newest = next;
	if (next)
		next->place.warm.previous = previous;
	else
		table->oldest = previous;
}

static void take_descriptor(struct node_table *table, struct node *node, int fd)
{
	node->fd = fd;
	clock_insert(table, node);
	table->warm++;
	table->budget->used++;
}

static void drop_descriptor(struct node_table *table, struct node *node)
{
	clock_remove(table, node);
	close(node->fd);
	node->fd = -1;
	table->warm--;
	table->budget->used--;
}

/* One node of the table becomes cold. False when none can. */
static bool cool_one(struct node_table *table)
{
	uint64_t steps = (uint64_t)table->warm * (CHANCES_DIRECTORY + 1);
	unsigned refusals = 0;

	if (!table->owner.cool)
		return false;
	while (steps-- > 0 && refusals < REFUSALS_MAX) {
		struct node *node = table->oldest;
		struct node_cold cold;

		clock_remove(table, node);
		clock_insert(table, node);
		if (node->references > 0 || node->id == FS_NODE_ROOT ||
		    node->operation == table->operation)
			continue;
		if (node->chances > 0) {
			node->chances--;
			continue;
		}
		if (!table->owner.cool(node, table->owner.context, &cold)) {
			refusals++;
			continue;
		}
		drop_descriptor(table, node);
		node->place.cold = cold;
		return true;
	}
	return false;
}

/* Room for one more descriptor. The table that has most gives first, so that a small working set
 * is not worn down by a large one. */
static int make_room(struct descriptor_budget *budget)
{
	struct node_table *largest = NULL;

	if (budget->used < budget->max)
		return 0;
	for (struct node_table *table = budget->tables; table; table = table->next_table) {
		if (!largest || table->warm > largest->warm)
			largest = table;
	}
	if (largest && cool_one(largest))
		return 0;
	for (struct node_table *table = budget->tables; table; table = table->next_table) {
		if (table != largest && cool_one(table))
			return 0;
	}
	return -ENFILE;
}

void node_table_begin(struct node_table *table)
{
	/* 0 is what nodes have that no operation used. */
	if (++table->operation == 0)
		table->operation = 1;
}

void node_table_used(struct node_table *table, struct node *node)
{
	node->operation = table->operation;
	node->chances = node->type == S_IFDIR ? CHANCES_DIRECTORY : CHANCES_FILE;
}

int node_table_warm(struct node_table *table, struct node *node, int fd)
{
	int error = make_room(table->budget);

	if (error) {
		close(fd);
		return error;
	}
	free(node->place.cold.path);
	take_descriptor(table, node, fd);
	return 0;
}

uint32_t node_table_warm_count(const struct node_table *table)
{
	return table->warm;
}

/* Where `path` lies when what stood at `from` stands at `to`; NULL when it is not affected. */
static const char *below(const char *path, const char *from)
{
	size_t length = strlen(from);

	if (strncmp(path, from, length) != 0 || (path[length] != '/' && path[length] != '\0'))
		return NULL;
	return path + length;
}

void node_table_moved(struct node_table *table, const char *from, const char *to, bool exchange)
{
	uint32_t position = 0;
	struct node *node;

	if (table->warm == table->ids.count)
		return;
	while ((node = id_table_next(&table->ids, &position))) {
		const char *rest;
		const char *head = to;
		char *path;
		size_t head_length;
		size_t rest_length;

		if (node->fd >= 0)
			continue;
		rest = below(node->place.cold.path, from);
		if (!rest && exchange) {
			rest = below(node->place.cold.path, to);
			head = from;
		}
		if (!rest)
			continue;
		head_length = strlen(head);
		rest_length = strlen(rest) + 1;
		path = malloc(head_length + rest_length);
		if (!path)
			continue;
		memcpy(path, head, head_length);
		memcpy(path + head_length, rest, rest_length);
		free(node->place.cold.path);
		node->place.cold.path = path;
	}
}

/* ---- nodes ---------------------------------------------------------------------------------- */

static void release(struct node_table *table, struct node *node)
{
	struct node **link = &table->buckets[bucket_of(table, &node->key)];

	while (*link != node)
		link = &(*link)->hash_next;
	*link = node->hash_next;
	if (table->owner.gone)
		table->owner.gone(node, table->owner.context);
	id_table_remove(&table->ids, node->id);
	if (node->fd >= 0)
		drop_descriptor(table, node);
	else
		free(node->place.cold.path);
	free(node);
	table->quota->used--;
}

void node_table_free(struct node_table *table)
{
	struct node_table **link;
	uint32_t position = 0;
	struct node *node;

	if (!table)
		return;
	for (link = &table->budget->tables; *link != table;)
		link = &(*link)->next_table;
	*link = table->next_table;
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
	struct node **fresh = calloc(old_count * 2, sizeof(struct node *));

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

bool node_table_has_room(struct node_table *table)
{
	return table->quota->used < table->quota->max && make_room(table->budget) == 0;
}

int node_table_add(struct node_table *table, const struct node_key *key, mode_t type, int fd,
		   struct node **ret_node)
{
	struct node *node = NULL;
	struct node **bucket;
	int error = -ENFILE;

	if (!node_table_has_room(table))
		goto fail;
	error = -ENOMEM;
	node = malloc(sizeof(*node));
	if (!node)
		goto fail;
	*node = (struct node){
		.key = *key, .fd = -1, .type = type & S_IFMT, .read_fd = -1, .watch = -1
	};
	error = id_table_add(&table->ids, node, &node->id);
	if (error)
		goto fail;
	if (table->ids.count > table->bucket_count)
		grow_buckets(table);
	bucket = &table->buckets[bucket_of(table, key)];
	node->hash_next = *bucket;
	*bucket = node;
	take_descriptor(table, node, fd);
	if (node->type == S_IFDIR)
		node->chances = CHANCES_DIRECTORY;
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

static bool same_key(const struct node_key *a, const struct node_key *b)
{
	return a->ino == b->ino && a->device == b->device && a->mount == b->mount;
}

struct node *node_table_find(const struct node_table *table, const struct node_key *key)
{
	struct node *node = table->buckets[bucket_of(table, key)];

	while (node && (node->fd < 0 || !same_key(&node->key, key)))
		node = node->hash_next;
	return node;
}

struct node *node_table_find_inode(const struct node_table *table, const struct statx *stat)
{
	struct node_key key = node_key_of(stat);
	struct node *node = table->buckets[bucket_of(table, &key)];
	struct node *cold = NULL;

	for (; node; node = node->hash_next) {
		if (!same_key(&node->key, &key))
			continue;
		if (node->fd >= 0)
			return node;
		if (node->place.cold.birth == node_birth_of(stat) &&
		    node->type == (stat->stx_mode & S_IFMT))
			cold = node;
	}
	return cold;
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

int64_t node_birth_of(const struct statx *stat)
{
	if (!(stat->stx_mask & STATX_BTIME))
		return 0;
	/* A broken clock's overflow makes another number, which identifies as well. */
	return (int64_t)((uint64_t)stat->stx_btime.tv_sec * 1000000000u + stat->stx_btime.tv_nsec);
}
