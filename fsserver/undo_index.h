/*
 * Lookup by hash into arrays that the caller owns, and an arena of names. Open addressing; the
 * hash is seeded per table, because guests choose the names.
 */
#ifndef FSSERVER_UNDO_INDEX_H
#define FSSERVER_UNDO_INDEX_H

#include <stddef.h>
#include <stdint.h>

struct undo_slot {
	uint32_t hash;
	uint32_t index; /* into the caller's array, plus one; 0: free */
};

struct undo_slots {
	struct undo_slot *slots;
	uint32_t capacity; /* a power of two, or 0 */
	uint32_t count;
	uint64_t seed;
};

/* 0 or a negative errno (no randomness). */
int undo_slots_init(struct undo_slots *slots);
void undo_slots_finish(struct undo_slots *slots);
uint32_t undo_slots_hash_number(const struct undo_slots *slots, uint64_t number);
uint32_t undo_slots_hash_name(const struct undo_slots *slots, uint32_t directory, const char *name,
			      size_t length);

/* Candidates with that hash, one a call: start with *cursor = hash. UINT32_MAX at the end. */
uint32_t undo_slots_next(const struct undo_slots *slots, uint32_t hash, uint32_t *cursor);
/* Makes room for one more, so that the next insert cannot fail. 0 or -ENOMEM. */
int undo_slots_reserve(struct undo_slots *slots);
void undo_slots_insert(struct undo_slots *slots, uint32_t hash, uint32_t index);

struct undo_names {
	char *bytes;
	uint32_t length;
	uint32_t capacity;
};

/* Copies a name with a closing NUL. 0, -ENOMEM, or -EOVERFLOW at 4 GiB. */
int undo_names_add(struct undo_names *names, const char *name, size_t length, uint32_t *ret_offset);

/* Grows `array` of elements of `size` bytes so that one more fits. 0 or -ENOMEM. */
int undo_grow(void **array, uint32_t count, uint32_t *capacity, size_t size);

#endif
