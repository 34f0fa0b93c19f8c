/*
 * What guest-fused knows of one export without asking the server: nodes with their attributes,
 * directories with their names, the contents of small files, and the handles that are open.
 *
 * Everything is guarded by cache->lock, which is never held across I/O. Pointers to nodes,
 * directories and entries are good only while it is held, except that a node which the kernel
 * holds (any node of a request at hand) is not freed before the kernel forgets it.
 *
 * Times are milliseconds of CLOCK_MONOTONIC; FUSED_FOREVER is "until the server notifies".
 */
#ifndef GUEST_FUSED_CACHE_H
#define GUEST_FUSED_CACHE_H

#include "wire/fs.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUSED_FOREVER UINT64_MAX

/* Bounds of what is kept; beyond them the oldest goes. */
#define FUSED_NODES_MAX 262144u
#define FUSED_ENTRIES_MAX 131072u /* names in listed directories: each a descriptor of the host */
#define FUSED_CONTENT_MAX (8u << 20)	   /* bytes of small files */
#define FUSED_CONTENT_FILE_MAX (32u << 10) /* bytes of one small file */
#define FUSED_HANDLES_MAX 512u		   /* handles held open between requests */

/*
 * Theory of operation: staleness
 *
 * The server's reply may be overtaken: by a mutation of another thread of ours, or by a notice
 * on the notifications stream, about the same object. A clock counts such events. Each request
 * takes the clock's reading before it is sent (`since`); each event sets node->changed to the
 * clock's next reading. A reply's attributes are kept, and promised to the kernel for longer
 * than this moment, only when node->changed <= since. A mutation is an event twice, when it
 * starts and when it ends: a GETATTR that runs beside it can be believed in neither order.
 *
 * A notice for a node not yet known (its LOOKUP is still under way) sets unknown_changed, which
 * stands for the `changed` of every node that a reply brings in.
 *
 * A thread also must not write a reply to the kernel that it composed before a notice, after
 * the notice went there; see fused_export_wait_for_replies().
 */

struct fused_directory;
struct fused_entry;

struct fused_node {
	struct fused_node *chain;
	uint64_t nodeid;
	uint64_t changed;
	uint64_t kernel_lookups; /* what the kernel will FORGET */
	uint64_t server_lookups; /* what we shall FORGET */
	uint32_t entry_count;	 /* entries of known directories that point here */
	struct fs_attr attr;
	uint64_t attr_expires; /* 0: attr is not to be used */
	bool attr_known;       /* attr tells what the kernel's pages were read from */
	struct fused_directory *directory;
	struct fused_entry *entry; /* the latest of its names in a known directory, or NULL */

	uint64_t handle; /* FS_HANDLE_NONE: none held */
	uint32_t handle_flags;
	uint32_t handle_users;
	uint64_t handle_used; /* when */
	struct fused_node *handle_next;
	struct fused_node *handle_previous;

	bool read_before; /* from its start, by the kernel, which has the pages since */
	uint8_t *content; /* the whole file, of attr.size bytes, or NULL */
	struct fused_node *content_next;
	struct fused_node *content_previous;
};

struct fused_entry {
	struct fused_entry *chain;
	struct fused_directory *directory;
	struct fused_node *node; /* NULL: listed without attributes, or removed */
	uint64_t next;		 /* READDIR offset of what follows */
	uint64_t expires;
	uint64_t ino;
	uint32_t hash;
	uint32_t position; /* in the list; UINT32_MAX: not listed */
	uint16_t name_length;
	uint8_t type;
	bool removed; /* keeps its place in the list so that a reader finds its offset */
	char name[];
};

struct fused_directory {
	struct fused_node *node;
	struct fused_directory *older; /* by last use; NULL-terminated both ways */
	struct fused_directory *newer;

	struct fused_entry **buckets;
	uint32_t bucket_count;
	uint32_t live_count; /* entries in the buckets */
	bool complete;	     /* a name that is not here does not exist ... */
	uint64_t expires;    /* ... until then */

	struct fused_entry **list; /* in the server's order */
	uint32_t list_count;
	uint32_t list_capacity;
	uint64_t list_since;  /* clock when the listing was begun */
	uint64_t list_start;  /* READDIR offset of its first entry */
	uint64_t list_offset; /* where the server goes on */
	bool list_ended;      /* all of it is here */
	bool list_stale;      /* good for readers under way, not for new ones */
	uint32_t hint;	      /* position the latest reader reached */

	uint32_t misses;	  /* lookups that went to the server */
	uint32_t listed_children; /* directories in it that the kernel listed */
	uint32_t reads;		  /* small files in it whose READ went to the server */
	uint32_t prefetch_window; /* small files to bring along with the next one */
	uint32_t prefetched;	  /* with the latest such READ ... */
	uint32_t prefetch_hits;	  /* ... and how many of them were then asked for */
	bool too_large;		  /* not worth listing for a lookup */
};

struct fused_forget {
	uint64_t nodeid;
	uint64_t lookups;
	uint64_t handle; /* to be released first */
};

struct fused_cache {
	pthread_mutex_t lock;
	_Atomic uint64_t clock;
	uint64_t unknown_changed;

	struct fused_node **buckets;
	size_t bucket_count;
	size_t node_count;

	struct fused_directory *oldest;
	struct fused_directory *newest;
	uint32_t entry_total;

	struct fused_node *handle_oldest;
	struct fused_node *handle_newest;
	uint32_t handle_count;

	struct fused_node *content_oldest;
	struct fused_node *content_newest;
	size_t content_total;

	/* Nodes whose pages the kernel is to drop, for the keeper. The content of a file whose
	 * attributes are good for a limited time was found to have changed. */
	uint64_t *stale;
	size_t stale_count;
	size_t stale_capacity;
	_Atomic bool keeper_wanted; /* at once: something is stale, or there are too many nodes */

	/* Each node known to us is one held open by the server, which has a limit. */
	size_t node_limit;
	bool prune_wanted;

	/* To be given back to the server, by the keeper. */
	struct fused_forget *forgets;
	size_t forget_count;
	size_t forget_capacity;
};

int fused_cache_init(struct fused_cache *cache);
void fused_cache_destroy(struct fused_cache *cache);

static inline void fused_cache_lock(struct fused_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
}

static inline void fused_cache_unlock(struct fused_cache *cache)
{
	pthread_mutex_unlock(&cache->lock);
}

/* The clock's reading, to be taken before a request is sent. */
static inline uint64_t fused_cache_now(struct fused_cache *cache)
{
	return atomic_load(&cache->clock);
}

/* ---- time ---- */

/* When something valid for `valid_ms` from now expires. */
uint64_t fused_expiry(uint32_t valid_ms);
/* Whether `expires` has not come. */
bool fused_valid(uint64_t expires);

/* ---- nodes; all with the lock held ---- */

struct fused_node *fused_node_find(struct fused_cache *cache, uint64_t nodeid);
/* Finds or makes a node; NULL when memory is out. */
struct fused_node *fused_node_get(struct fused_cache *cache, uint64_t nodeid);
/* Frees the node, and queues its FORGET, if nothing refers to it any more. */
void fused_node_unreferenced(struct fused_cache *cache, struct fused_node *node);
/* An event happened to the node. Returns the clock. */
uint64_t fused_node_touch(struct fused_cache *cache, struct fused_node *node);
/* The same for a node that may be unknown. */
uint64_t fused_nodeid_touch(struct fused_cache *cache, uint64_t nodeid);
/* Has the kernel drop its pages of the node, soon. */
void fused_node_stale(struct fused_cache *cache, const struct fused_node *node);
/* Takes a reply's attributes if nothing happened after `since`; else they expire at once. When
 * they show that somebody else changed the content, the node is stale. Returns whether they were
 * taken. */
bool fused_node_set_attr(struct fused_cache *cache, struct fused_node *node,
			 const struct fs_attr *attr, uint32_t valid_ms, uint64_t since);
/* Accounts a reply's entry: one more lookup at the server, its attributes. The caller adds the
 * kernel's lookup or a directory's entry. NULL when memory is out or the entry is not sane. */
struct fused_node *fused_node_adopt(struct fused_cache *cache, const struct fs_entry *entry,
				    uint64_t since);
void fused_node_forget(struct fused_cache *cache, uint64_t nodeid, uint64_t lookups);
/* Whether nodes that nobody asked for may be brought in. */
bool fused_cache_has_room(const struct fused_cache *cache);
/* The server has no room for more: from now on the limit is below what is known now. */
void fused_cache_full(struct fused_cache *cache);

/* ---- handles ---- */

/* The node's open handle with at least the FS_O_* `flags`, kept from being closed until
 * fused_handle_put(); FS_HANDLE_NONE when there is none. */
uint64_t fused_handle_take(struct fused_cache *cache, uint64_t nodeid, uint32_t flags);
void fused_handle_put(struct fused_cache *cache, uint64_t nodeid);
/* Gives a fresh handle to the cache, which closes it some time after its last use. */
void fused_handle_adopt(struct fused_cache *cache, uint64_t nodeid, uint64_t handle,
			uint32_t flags);
/* Queues the release of handles not used since `before`, save those that could not be opened
 * again. Returns how many handles are held still that could be released later. */
size_t fused_handle_expire(struct fused_cache *cache, uint64_t before);
/* Queues one handle's release. */
void fused_cache_release(struct fused_cache *cache, uint64_t nodeid, uint64_t handle);

/* ---- contents of small files ---- */

/* Keeps a copy of a whole file if attr is good still and says `length`. */
void fused_content_set(struct fused_cache *cache, struct fused_node *node, const uint8_t *data,
		       size_t length);
void fused_content_drop(struct fused_cache *cache, struct fused_node *node);

#endif
