/*
 * Open files and directories of one export. A handle holds a descriptor, a reference on its node,
 * and what was done through it, for the audit log and the undo log at release.
 *
 * -ENFILE when the quota is used up.
 */
#ifndef FSSERVER_HANDLE_TABLE_H
#define FSSERVER_HANDLE_TABLE_H

#include "fsserver/node_table.h"

#include <openssl/sha.h>
#include <stdbool.h>
#include <stdint.h>

struct handle {
	uint64_t id;
	struct node *node; /* referenced */
	int fd;
	uint32_t references; /* the table's own, and one for each operation in flight */
	bool readable;
	bool writable;
	bool append;
	bool directory;
	bool released; /* no longer in the table */
	/* The place that policy allowed, and when: another path or a newer policy is judged anew.
	 */
	char *judged_path;
	uint64_t judged_generation;
	/* What happened through this handle. */
	bool created;
	bool changed;
	bool unstamped; /* changed since the undo log was last told how the file stands */
	uint64_t bytes_written;
	bool before_known;
	uint8_t before[SHA256_DIGEST_LENGTH];
};

struct handle_table {
	struct id_table ids;
	struct quota *quota;
};

void handle_table_init(struct handle_table *table, struct quota *quota);
bool handle_table_has_room(const struct handle_table *table);
/* Takes `fd` over, also on failure; references `node`. */
int handle_table_add(struct handle_table *table, struct node *node, int fd,
		     struct handle **ret_handle);
struct handle *handle_table_get(const struct handle_table *table, uint64_t id);
struct handle *handle_table_next(const struct handle_table *table, uint32_t *position);
/* Takes the handle out of the table: its id is gone, its descriptor stays until the last
 * reference is given back. */
void handle_table_remove(struct handle_table *table, struct handle *handle);
void handle_reference(struct handle *handle);
/* Frees it, and gives its node back, when it was the last. */
void handle_unreference(struct handle_table *table, struct node_table *nodes,
			struct handle *handle);
void handle_table_free(struct handle_table *table);

#endif
