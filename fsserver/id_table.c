#include "fsserver/id_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 64u
#define SLOTS_MAX (UINT32_C(1) << 30)

void id_table_free(struct id_table *table)
{
	free(table->slots);
	*table = (struct id_table){ 0 };
}

static int grow(struct id_table *table)
{
	uint32_t capacity = table->capacity ? table->capacity * 2 : FIRST_CAPACITY;
	struct id_slot *slots;

	if (capacity > SLOTS_MAX)
		return -ENOMEM;
	slots = realloc(table->slots, capacity * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	memset(slots + table->capacity, 0, (capacity - table->capacity) * sizeof(*slots));
	table->slots = slots;
	table->capacity = capacity;
	if (table->used == 0)
		table->used = 1;
	return 0;
}

int id_table_add(struct id_table *table, void *object, uint64_t *ret_id)
{
	uint32_t index = table->first_free;

	if (index) {
		table->first_free = table->slots[index].next_free;
	} else {
		if (table->used >= table->capacity) {
			int error = grow(table);

			if (error)
				return error;
		}
		index = table->used++;
	}
	table->slots[index].object = object;
	table->slots[index].next_free = 0;
	table->count++;
	*ret_id = (uint64_t)table->slots[index].generation << 32 | index;
	return 0;
}

static struct id_slot *slot_of(const struct id_table *table, uint64_t id)
{
	uint32_t index = (uint32_t)id;

	if (index >= table->used || !table->slots[index].object ||
	    table->slots[index].generation != id >> 32)
		return NULL;
	return &table->slots[index];
}

void *id_table_get(const struct id_table *table, uint64_t id)
{
	const struct id_slot *slot = slot_of(table, id);

	return slot ? slot->object : NULL;
}

void id_table_remove(struct id_table *table, uint64_t id)
{
	struct id_slot *slot = slot_of(table, id);

	if (!slot)
		return;
	slot->object = NULL;
	table->count--;
	slot->generation++;
	/* The last generation is left out so that UINT64_MAX can never be an id. */
	if (slot->generation == UINT32_MAX)
		return;
	slot->next_free = table->first_free;
	table->first_free = (uint32_t)id;
}

void *id_table_next(const struct id_table *table, uint32_t *position)
{
	while (*position < table->used) {
		void *object = table->slots[(*position)++].object;

		if (object)
			return object;
	}
	return NULL;
}
