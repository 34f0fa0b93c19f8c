/*
 * Names whose addresses are known without asking: what the person pinned with --add-host, and the
 * host's own /etc/hosts. A name keeps its addresses in the order they came, at most
 * HOST_TABLE_ADDRESSES_MAX of them.
 *
 * Sources: hosts(5).
 */
#ifndef PROXY_HOST_TABLE_H
#define PROXY_HOST_TABLE_H

#include "proxy/address_class.h"
#include "proxy/host_name.h"

#define HOST_TABLE_ADDRESSES_MAX 16u

struct host_table;

struct host_table_entry {
	size_t count;
	struct ip_address addresses[HOST_TABLE_ADDRESSES_MAX];
};

/* NULL without memory. */
struct host_table *host_table_new(void);
void host_table_free(struct host_table *table);

/* -ENOMEM; -ENOSPC when the name has as many addresses as it can. */
int host_table_add(struct host_table *table, const struct host_name *name,
		   const struct ip_address *address);
/* Adds the text of a hosts file. Lines, names and addresses that are none are passed over, as
 * every resolver does. -ENOMEM. */
int host_table_read(struct host_table *table, const char *text, size_t length);
/* Borrowed until the table changes; NULL for a name that is not there. */
const struct host_table_entry *host_table_find(const struct host_table *table,
					       const struct host_name *name);

#endif
