/* A set of secrets, by their index in the store. */
#ifndef PROXY_SECRET_SET_H
#define PROXY_SECRET_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECRET_SET_MAX 256u

struct secret_set {
	uint64_t words[SECRET_SET_MAX / 64];
};

static inline void secret_set_add(struct secret_set *set, size_t index)
{
	set->words[index / 64] |= UINT64_C(1) << index % 64;
}

static inline void secret_set_remove(struct secret_set *set, size_t index)
{
	set->words[index / 64] &= ~(UINT64_C(1) << index % 64);
}

static inline bool secret_set_has(const struct secret_set *set, size_t index)
{
	return set->words[index / 64] >> index % 64 & 1;
}

static inline bool secret_set_is_empty(const struct secret_set *set)
{
	uint64_t all = 0;

	for (size_t i = 0; i < SECRET_SET_MAX / 64; i++)
		all |= set->words[i];
	return all == 0;
}

#endif
