/*
 * One exported tree, or one file of it: its root, the nodes and handles that the guest has of it,
 * its policy and its undo log. The body is open to the operations, which work on it; everything is
 * used by the one thread of the server.
 */
#ifndef FSSERVER_EXPORT_H
#define FSSERVER_EXPORT_H

#include "fsserver/config.h"
#include "fsserver/handle_table.h"
#include "fsserver/host_paths.h"
#include "fsserver/node_table.h"
#include "fsserver/policy.h"
#include "fsserver/report.h"
#include "fsserver/undo.h"

#include <limits.h>

struct aliases;
struct watch;

/* Validity of what a guest is told while changes by the host cannot be pushed. */
#define EXPORT_SHORT_VALIDITY_MS 1000u
/* Descriptors kept open for reading without a handle. */
#define EXPORT_READ_CACHE_MAX 512u

/* What all exports share. */
struct server {
	const struct config *config;
	struct report *report;
	struct quota nodes;
	struct quota handles;
	struct descriptor_budget descriptors; /* for nodes */
};

struct export
{
	struct server *server;
	const struct config_export *config;
	struct host_scope scope;
	int root_fd; /* O_PATH: the tree's root, or with config->file that file */
	int base_fd; /* O_PATH: the directory in which paths begin; root_fd's, or the file's */
	char root_path[PATH_MAX]; /* of base_fd */
	size_t root_length;	  /* 0 when the root is "/" */
	uint64_t root_device;

	struct policy *policy;
	uint64_t policy_generation; /* grows when earlier verdicts may no longer hold */
	bool may_hide;

	int store_fd; /* -1: no undo log */
	char store_path[PATH_MAX];
	/* The store and, when it lies below the root, the directory it is in: never shown. */
	struct node_key store_keys[2];
	unsigned store_key_count;
	struct undo *undo;

	struct node_table *nodes;
	/* Of root_fd. When that is a file there is no directory among the nodes, and nothing that
	 * takes a name finds one to look in. */
	struct node *root;
	struct handle_table handles;
	struct aliases *aliases;
	struct node *cache_newest;
	struct node *cache_oldest;
	unsigned cache_count;

	bool unstamped;	      /* some handle is */
	unsigned slow_writes; /* so many writes are to go through the ring */
	struct watch *watch;  /* NULL until a notification stream is open */
	unsigned request_streams;
};

#define EXPORT_ERROR_MAX 1024

/* Opens everything the export needs; `config` and `server` must outlive it. On failure a negative
 * errno and a message in `error`. */
int export_open(struct server *server, const struct config_export *config,
		struct export **ret_export, char error[static EXPORT_ERROR_MAX]);
/* Ends the undo log cleanly and frees all. Handles are to be released before. */
int export_close(struct export *export);

/* The path of `fd` below the root, "" for the root itself. `links`: the inode's link count.
 * -ENOENT when the object has no name in the export any more (unlinked, or in the undo store),
 * -ESTALE when the host moved it out. */
int export_path_of(struct export *export, int fd, uint32_t links, char path[static PATH_MAX]);

/* The child `name` of `parent`: the descriptor O_PATH and its attributes. The undo store is
 * -ENOENT, a mount that is not crossed -EXDEV. */
int export_open_child(struct export *export, int parent_fd, const char *name, int *ret_fd,
		      struct statx *ret_stat);
/* Sees to it that the node has its descriptor, and keeps it until the next node_table_begin(). A
 * cold node is opened anew by where it was last seen, or by its name in the directory through which
 * the guest found it. -ESTALE when neither leads to the very object: the host moved, replaced or
 * removed it. */
int export_use(struct export *export, struct node *node);
/* The node that the guest has of this inode, cold ones included, or NULL. */
struct node *export_known_node(struct export *export, const struct statx *stat);
/* Gives the node of the inode that `fd` is a descriptor of its own one, when it was cold: its path
 * is about to be another, or none. */
void export_keep_warm(struct export *export, const struct statx *stat, int fd);
/* The node of an inode; takes `fd` over, also on failure. */
int export_node(struct export *export, const struct statx *stat, int fd, struct node **ret_node);
bool export_is_store(const struct export *export, const struct statx *stat);

/* A descriptor for reading the node (a regular file or directory), from the cache. It stays the
 * cache's and may be closed by the next call: use it at once, or keep the node referenced and
 * export_cache_pin() it. */
int export_read_fd(struct export *export, struct node *node, int *ret_fd);

/* Milliseconds for which what is told of a node, or of names in a directory, may be kept. */
uint32_t export_validity(const struct export *export, const struct node *directory);

#endif
