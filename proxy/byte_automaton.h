/*
 * Finds any of several byte patterns in one pass (Aho and Corasick, "Efficient string matching",
 * CACM 18:6, 1975), a byte at a time, so that a stream may be cut anywhere.
 *
 * A state stands for the longest suffix of the bytes seen that begins some pattern; its depth is
 * that suffix's length, and thus how much of the stream may still turn out to be part of a match.
 * After each step, byte_automaton_match() walks the patterns that end there, longest first.
 *
 * Some bytes count as equal, because what the patterns encode is written with either: '-' and '+',
 * '_' and
 * '/' (the two alphabets of base64, RFC 4648), and ' ' and '+' (forms).
 *
 * The tables hold the patterns; `in_locked_memory` puts them into secret_memory. They are never
 * changed after being built, and counted: a stream keeps its automaton while a new one takes over.
 */
#ifndef PROXY_BYTE_AUTOMATON_H
#define PROXY_BYTE_AUTOMATON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BYTE_PATTERN_MAX 16384u /* bytes in one pattern */
#define BYTE_AUTOMATON_STATES_MAX (1u << 20)

struct byte_pattern {
	const uint8_t *data;
	size_t length; /* 1 .. BYTE_PATTERN_MAX */
	uint32_t tag;  /* what a match reports; below 2^31 */
};

/* A byte that the caller reads as something else when one of `followers` comes after it: what may
 * begin a match right before it is not skipped then, nor is the byte itself where `may_begin` says
 * so of it and the two after it. `begins` says it of every byte that is read as it is. */
struct byte_stop {
	char byte;	       /* 0 ends a list of these */
	const char *followers; /* NULL: any byte */
	bool (*may_begin)(const uint8_t bytes[3], const bool begins[256]); /* NULL: always */
};

struct byte_automaton;

/* Patterns are copied. Of two that are equal the first is reported. `stops` may be NULL. Returns 0,
 * -EINVAL for a pattern of a wrong length, -E2BIG, -ENOMEM, or -EPERM (secret_memory.h). */
int byte_automaton_new(const struct byte_pattern *patterns, size_t count,
		       const struct byte_stop *stops, bool in_locked_memory,
		       struct byte_automaton **ret_automaton);
/* Another owner. */
struct byte_automaton *byte_automaton_hold(struct byte_automaton *automaton);
/* One owner less; NULL is fine. */
void byte_automaton_release(struct byte_automaton *automaton);

#define BYTE_AUTOMATON_START 0u
uint32_t byte_automaton_step(const struct byte_automaton *automaton, uint32_t state, uint8_t byte);
/* Steps as long as each byte makes the state deeper by one, no pattern ends, and no stop comes.
 * Returns how many bytes that were. */
size_t byte_automaton_deepen(const struct byte_automaton *automaton, uint32_t *state,
			     const uint8_t *data, size_t length);
size_t byte_automaton_depth(const struct byte_automaton *automaton, uint32_t state);
/* Whether any pattern ends at this state. */
bool byte_automaton_matches(const struct byte_automaton *automaton, uint32_t state);
/* The longest pattern that ends at *cursor, which begins as the state; moves *cursor on. False when
 * there is none left. */
bool byte_automaton_match(const struct byte_automaton *automaton, uint32_t *cursor,
			  uint32_t *ret_tag, size_t *ret_length);
/* A pattern that begins with all that the state stands for and goes on behind it. False when the
 * state stands for nothing, or for the whole of a pattern. */
bool byte_automaton_beginning(const struct byte_automaton *automaton, uint32_t state,
			      uint32_t *ret_tag);
/* The state in which to go on after a match: a shorter one when this one leads nowhere by itself,
 * so that nothing is held for a match that is over. */
uint32_t byte_automaton_settle(const struct byte_automaton *automaton, uint32_t state);
/* How many bytes of the data can begin no match, so that stepping from the start state may begin
 * after them. */
size_t byte_automaton_skip(const struct byte_automaton *automaton, const uint8_t *data,
			   size_t length);
/* How byte_automaton_skip() looks for where a match may begin: place by place, or at many at once.
 */
enum byte_blocks {
	BYTE_BLOCKS_NONE,
	BYTE_BLOCKS_AVX2,   /* 32 places */
	BYTE_BLOCKS_AVX512, /* 64; AVX-512 BW and VBMI */
};
/* The best that this processor can, which a new automaton uses. */
enum byte_blocks byte_blocks_here(void);
/* Another way, for tests; the processor must have it. */
void byte_automaton_use_blocks(struct byte_automaton *automaton, enum byte_blocks blocks);
size_t byte_automaton_state_count(const struct byte_automaton *automaton);

#endif
