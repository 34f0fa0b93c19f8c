/*
 * 64-bit ids for objects that a guest names: the low half is a slot, the high half the slot's
 * generation, which grows at each removal. No id is issued twice; a slot whose generation is used
 * up is retired. An id from a guest is only ever compared, never trusted: get() checks both
 * halves.
 *
 * The first id of a fresh table is 1 (slot 1, generation 0). 0 and UINT64_MAX are never issued.
 */
#ifndef FSSERVER_ID_TABLE_H
#define FSSERVER_ID_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct id_slot {
	void *object; /* NULL: free */
	uint32_t generation;
	uint32_t next_free; /* 0: none */
};

struct id_table {
	struct id_slot *slots;
	uint32_t capacity; /* slots allocated */
	uint32_t used;	   /* slots ever issued, slot 0 included */
	uint32_t first_free;
	uint32_t count; /* objects in the table */
};

/* A zeroed table is an empty one. */
void id_table_free(struct id_table *table);
/* Returns 0 with the id in *ret_id, or -ENOMEM. */
int id_table_add(struct id_table *table, void *object, uint64_t *ret_id);
/* NULL when the id is not in force. */
void *id_table_get(const struct id_table *table, uint64_t id);
void id_table_remove(struct id_table *table, uint64_t id);
/* Object of the first occupied slot at or after *position, which moves behind it; NULL at the
 * end. The table may change between calls. */
void *id_table_next(const struct id_table *table, uint32_t *position);

#endif
