/*
 * What each code point above ASCII compares as: the NFKD form of its full case folding, without
 * combining marks and default-ignorable code points, ASCII look-alikes as what they look like.
 * Each table is sorted by code point, and no code point is in two of them. Hangul syllables are
 * decomposed by arithmetic (Unicode 15, section 3.12) and are in none.
 */
#ifndef FSSERVER_POLICY_FOLD_TABLE_H
#define FSSERVER_POLICY_FOLD_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Left out: first..last. */
struct policy_fold_range {
	uint32_t first;
	uint32_t last;
};

/* first, first + step, .. last become themselves + delta. */
struct policy_fold_shift {
	uint32_t first;
	uint32_t last;
	int32_t step;
	int32_t delta;
};

/* Becomes the UTF-8 text policy_fold_pool[offset .. offset + length). */
struct policy_fold_text {
	uint32_t code;
	uint16_t offset;
	uint16_t length;
};

extern const struct policy_fold_range policy_fold_removed[];
extern const size_t policy_fold_removed_count;
extern const struct policy_fold_shift policy_fold_shifted[];
extern const size_t policy_fold_shifted_count;
extern const struct policy_fold_text policy_fold_texts[];
extern const size_t policy_fold_texts_count;
extern const uint8_t policy_fold_pool[];

#endif
