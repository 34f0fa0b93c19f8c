#include "fsserver/undo_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/checked.h"

#define SLOTS_FIRST 1024u
#define NAMES_FIRST 4096u
#define GROW_FIRST 64u

int undo_slots_init(struct undo_slots *slots)
{
	uint64_t seed;

	*slots = (struct undo_slots){ 0 };
	if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		return -EIO;
	slots->seed = seed;
	return 0;
}

void undo_slots_finish(struct undo_slots *slots)
{
	free(slots->slots);
	*slots = (struct undo_slots){ 0 };
}

/* The finaliser of MurmurHash3: every bit of the input reaches every bit of the output. */
static uint64_t mix(uint64_t value)
{
	value ^= value >> 33;
	value *= UINT64_C(0xff51afd7ed558ccd);
	value ^= value >> 33;
	value *= UINT64_C(0xc4ceb9fe1a85ec53);
	return value ^ value >> 33;
}

uint32_t undo_slots_hash_number(const struct undo_slots *slots, uint64_t number)
{
	return (uint32_t)mix(number ^ slots->seed);
}

uint32_t undo_slots_hash_name(const struct undo_slots *slots, uint32_t directory, const char *name,
			      size_t length)
{
	uint64_t hash = mix(slots->seed ^ directory ^ (uint64_t)length << 32);

	while (length > 0) {
		size_t piece = MIN_OF(length, sizeof(uint64_t));
		uint64_t word = 0;

		memcpy(&word, name, piece);
		hash = mix(hash ^ word) + slots->seed;
		name += piece;
		length -= piece;
	}
	return (uint32_t)mix(hash);
}

uint32_t undo_slots_next(const struct undo_slots *slots, uint32_t hash, uint32_t *cursor)
{
	if (slots->capacity == 0)
		return UINT32_MAX;
	for (;;) {
		const struct undo_slot *slot = &slots->slots[*cursor & (slots->capacity - 1)];

		if (slot->index == 0)
			return UINT32_MAX;
		(*cursor)++;
		if (slot->hash == hash)
			return slot->index - 1;
	}
}

void undo_slots_insert(struct undo_slots *slots, uint32_t hash, uint32_t index)
{
	uint32_t mask = slots->capacity - 1;
	uint32_t at = hash & mask;

	while (slots->slots[at].index)
		at = (at + 1) & mask;
	slots->slots[at] = (struct undo_slot){ .hash = hash, .index = index + 1 };
	slots->count++;
}

int undo_slots_reserve(struct undo_slots *slots)
{
	struct undo_slots larger = *slots;

	if (slots->capacity && slots->count < slots->capacity / 2)
		return 0;
	if (slots->capacity > UINT32_MAX / 4)
		return -ENOMEM;
	larger.capacity = slots->capacity ? slots->capacity * 2 : SLOTS_FIRST;
	larger.count = 0;
	larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < slots->capacity; i++) {
		if (slots->slots[i].index)
			undo_slots_insert(&larger, slots->slots[i].hash, slots->slots[i].index - 1);
	}
	free(slots->slots);
	*slots = larger;
	return 0;
}

int undo_names_add(struct undo_names *names, const char *name, size_t length, uint32_t *ret_offset)
{
	uint64_t need = (uint64_t)names->length + length + 1;

	if (need > UINT32_MAX)
		return -EOVERFLOW;
	if (need > names->capacity) {
		uint64_t larger = MAX_OF((uint64_t)NAMES_FIRST, (uint64_t)names->capacity * 2);
		char *bytes;

		larger = MIN_OF(MAX_OF(larger, need), (uint64_t)UINT32_MAX);
		bytes = realloc(names->bytes, (size_t)larger);
		if (!bytes)
			return -ENOMEM;
		names->bytes = bytes;
		names->capacity = (uint32_t)larger;
	}
	if (length > 0)
		memcpy(names->bytes + names->length, name, length);
	names->bytes[names->length + length] = '\0';
	*ret_offset = names->length;
	names->length = (uint32_t)need;
	return 0;
}

int undo_grow(void **array, uint32_t count, uint32_t *capacity, size_t size)
{
	uint32_t larger = *capacity ? *capacity * 2 : GROW_FIRST;
	size_t bytes;
	void *grown;

	if (count < *capacity)
		return 0;
	if (*capacity > UINT32_MAX / 2 || !checked_multiply_size(larger, size, &bytes))
		return -ENOMEM;
	grown = realloc(*array, bytes);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*capacity = larger;
	return 0;
}
