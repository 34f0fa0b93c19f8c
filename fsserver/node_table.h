/*
 * The objects of one export that a guest knows: each a node with an id, an O_PATH descriptor, the
 * guest's lookup count and the server's own references. One inode (as seen through one mount) is
 * one node.
 *
 * A node lives as long as either count is above zero. The guest moves only the lookup count:
 * forgetting too much, or forgetting while the server uses the node, frees nothing early.
 *
 * A guest may know many more objects than the server may have descriptors. When those run out, the
 * nodes that were used longest ago become cold: they give up the descriptor and keep a path
 * and the time of birth, by which the table's owner finds the same object again (export_use() in
 * export.h). A descriptor holds its inode; a path holds nothing, so that the inode number of a cold
 * node may come to be another object's. A cold node is therefore only ever the node of an inode
 * that was born at the same time.
 *
 * -ENFILE when the quota (nodes of all exports together) is used up, or when all descriptors belong
 * to nodes that cannot do without: those in use, and those of objects without a name.
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

/* The descriptors that the nodes of all tables may hold. */
struct descriptor_budget {
	uint64_t used;
	uint64_t max;
	struct node_table *tables;
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

/* How a cold node's object is found again. */
struct node_cold {
	char *path;    /* below the export's root; owned */
	int64_t birth; /* node_birth_of() */
};

struct node {
	uint64_t id;
	struct node_key key;
	uint64_t lookups;    /* the guest's */
	uint32_t references; /* the server's: handles, operations in flight */
	/* O_PATH; -1 while the node is cold. Whoever has the node not from job_node() calls
	 * export_use() first. */
	int fd;
	union {
		struct {
			struct node *previous;
			struct node *next;
		} warm;
		struct node_cold cold;
	} place;
	uint32_t operation; /* that last used it, see node_table_begin() */
	uint8_t chances;    /* to keep the descriptor for another round */
	mode_t type;	    /* S_IFMT bits: an inode never changes these */
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

/* Asked before a node gives up its descriptor: fills in how to find it again. False: it cannot. */
typedef bool node_cool_function(struct node *node, void *context, struct node_cold *ret_cold);

struct node_table_owner {
	node_gone_function *gone; /* may be NULL */
	node_cool_function *cool; /* NULL: nodes never become cold */
	void *context;
};

/* `quota` and `budget` are shared by all tables of a server and outlive them. */
int node_table_new(struct quota *quota, struct descriptor_budget *budget,
		   const struct node_table_owner *owner, struct node_table **ret_table);
void node_table_free(struct node_table *table);

/* Takes `fd` over, also on failure. Adds no lookup and no reference: a caller that does neither
 * leaves it for node_table_settle(). The first node added has the id FS_NODE_ROOT. */
int node_table_add(struct node_table *table, const struct node_key *key, mode_t type, int fd,
		   struct node **ret_node);
struct node *node_table_get(const struct node_table *table, uint64_t id);
/* The warm node of an inode number. */
struct node *node_table_find(const struct node_table *table, const struct node_key *key);
/* The node of an inode, cold ones included. */
struct node *node_table_find_inode(const struct node_table *table, const struct statx *stat);
/* Whether the next node_table_add() will find its place; makes descriptors free for it. */
bool node_table_has_room(struct node_table *table);

/* Begins an operation: no node that it uses from here on becomes cold before the next begins. */
void node_table_begin(struct node_table *table);
/* Notes that a warm node is used. */
void node_table_used(struct node_table *table, struct node *node);
/* Gives a cold node a descriptor of the same object; takes `fd` over, also on failure. */
int node_table_warm(struct node_table *table, struct node *node, int fd);
/* The guest moved what stood at `from`; cold nodes at and below it follow. With `exchange` what
 * stood at `to` went the other way. A node for which there is no memory becomes stale. */
void node_table_moved(struct node_table *table, const char *from, const char *to, bool exchange);
/* Warm nodes of this table. */
uint32_t node_table_warm_count(const struct node_table *table);

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
/* Nanoseconds since 1970; 0 where the file system does not tell. */
int64_t node_birth_of(const struct statx *stat);

#endif
