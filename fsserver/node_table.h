/*
 * The objects of one export that a guest knows: each a node with an id, an O_PATH descriptor, the
 * guest's lookup count and the server's own references. One inode (as seen through one mount) is
 * one node.
 *
 * A node lives as long as either count is above zero. The guest moves only the lookup count:
 * forgetting too much, or forgetting while the server uses the node, frees nothing early.
 *
 * -ENFILE when the quota (nodes of all exports together, or what RLIMIT_NOFILE leaves) is used up.
 */
#ifndef FSSERVER_NODE_TABLE_H
#define FSSERVER_NODE_TABLE_H

#include "fsserver/id_table.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Shared by all tables of a server. */
struct quota {
	uint64_t used;
	uint64_t max;
};

/* What tells one version of a file from another. */
struct node_stamp {
	uint64_t size;
	int64_t mtime_sec;
	int64_t ctime_sec;
	uint32_t mtime_nsec;
	uint32_t ctime_nsec;
};

struct node_key {
	uint64_t mount;
	uint64_t device;
	uint64_t ino;
};

struct node {
	uint64_t id;
	struct node_key key;
	uint64_t lookups;    /* the guest's */
	uint32_t references; /* the server's: handles, operations in flight */
	int fd;		     /* O_PATH */
	mode_t type;	     /* S_IFMT bits: an inode never changes these */
	/* A descriptor for reading, kept for requests without a handle; -1 when there is none.
	 * Owned by the export's cache (read_cache.h), which unlinks it before the node goes. */
	int read_fd;
	struct node *cache_previous;
	struct node *cache_next;
	/* Content as the guest last had it; see FS_OPEN_KEEP_CACHE. */
	struct node_stamp content;
	bool content_known;
	/* What the guest was last told of it, to tell news from echoes; see watch.h. */
	struct node_stamp told;
	uint64_t parent; /* id of the directory it was last found in; it may be gone */
	int watch;	 /* inotify watch descriptor of a directory, -1 for none */
	struct node *hash_next;
};

struct node_table;

/* Called before a node is freed. */
typedef void node_gone_function(struct node *node, void *context);

int node_table_new(struct quota *quota, node_gone_function *gone, void *context,
		   struct node_table **ret_table);
void node_table_free(struct node_table *table);

/* Takes `fd` over, also on failure. Adds no lookup and no reference: a caller that does neither
 * leaves it for node_table_settle(). The first node added has the id FS_NODE_ROOT. */
int node_table_add(struct node_table *table, const struct node_key *key, mode_t type, int fd,
		   struct node **ret_node);
struct node *node_table_get(const struct node_table *table, uint64_t id);
struct node *node_table_find(const struct node_table *table, const struct node_key *key);
bool node_table_has_room(const struct node_table *table, unsigned nodes);

void node_reference(struct node *node);
void node_unreference(struct node_table *table, struct node *node);
/* One more lookup that the guest has to give back. */
void node_remember(struct node *node);
/* Gives `count` back. False when the guest never had so many; all are gone then. */
bool node_forget(struct node_table *table, struct node *node, uint64_t count);
/* Takes all lookups back, when the guest is gone. The root stays. */
void node_table_forget_all(struct node_table *table);
/* Frees the node if nobody counts it. */
void node_table_settle(struct node_table *table, struct node *node);

uint32_t node_table_count(const struct node_table *table);
struct node *node_table_next(const struct node_table *table, uint32_t *position);

struct node_stamp node_stamp_of(const struct statx *stat);
bool node_stamp_equal(const struct node_stamp *a, const struct node_stamp *b);
struct node_key node_key_of(const struct statx *stat);

#endif
