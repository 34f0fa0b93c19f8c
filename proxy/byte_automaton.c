#include "proxy/byte_automaton.h"

#include "base/checked.h"
#include "proxy/secret_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * The patterns are long and few, so the trie is a handful of long chains: a state has one child
 * nearly always, and a table of 256 successors for each would be three hundred times the size, all
 * of it locked memory. So a state has its first child and its next sibling, and only the start,
 * where most bytes of an ordinary stream stay, has a table.
 *
 * To stay there is cheaper still. A byte is skipped when it and the next one together begin no
 * pattern, which few pairs do. And whole strides, as long as the shortest pattern, are skipped by a
 * look at their last two bytes (Wu and Manber, "A fast algorithm for multi-pattern searching",
 * 1994): a match that begins in one has them among its own first bytes, unless these are to be read
 * as something else, so that no stride reaches over a byte in `never`.
 *
 * Adding a pattern walks the trie and appends states. Then the failure links are set level by
 * level; the queue that this needs is threaded through the states themselves (`next`), which later
 * have no use for it.
 */

struct state {
	uint32_t failure;
	uint32_t child;
	uint32_t sibling;
	uint32_t next; /* while the links are being set */
	uint32_t tag;  /* of the pattern that ends here, plus one */
	uint16_t depth;
	uint8_t byte;
	bool matches; /* a pattern ends here, or at a state down the failure links */
};

#define PAIRS_SIZE (65536 / 8)
#define STOPS_MAX 7u
/* With less than two bytes to skip a stride is none; longer ones have ever more pairs in them. */
#define STRIDE_MIN 3u
#define STRIDE_MAX BLOCK_SIZE
/* What is looked through at once for bytes that are never skipped. */
#define BLOCK_SIZE 16u
typedef uint8_t block_type __attribute__((vector_size(BLOCK_SIZE)));

struct byte_automaton {
	size_t owners;
	bool is_locked;
	bool stops[256];	      /* bytes that may begin a match, and those given */
	uint8_t never[STOPS_MAX + 1]; /* those given, and a 0 */
	uint8_t pairs[PAIRS_SIZE];    /* two bytes that may, a bit each */
	size_t stride;		      /* at most BLOCK_SIZE */
	uint8_t inner[PAIRS_SIZE];    /* two bytes anywhere in the first `stride` of a pattern */
	uint32_t start[256];
	uint32_t state_count;
	struct state states[];
};

static bool has_pair(const uint8_t *pairs, uint8_t first, uint8_t second)
{
	unsigned pair = (unsigned)first << 8 | second;

	return pairs[pair / 8] >> pair % 8 & 1;
}

static void set_pair(uint8_t *pairs, uint8_t first, uint8_t second)
{
	unsigned pair = (unsigned)first << 8 | second;

	pairs[pair / 8] |= (uint8_t)(1U << pair % 8);
}

static uint8_t equal_form(uint8_t byte)
{
	switch (byte) {
	case '-':
	case ' ':
		return '+';
	case '_':
		return '/';
	default:
		return byte;
	}
}

static uint32_t find_child(const struct byte_automaton *automaton, uint32_t state, uint8_t byte)
{
	uint32_t child = automaton->states[state].child;

	while (child != 0 && automaton->states[child].byte != byte)
		child = automaton->states[child].sibling;
	return child;
}

static void add_pattern(struct byte_automaton *automaton, const struct byte_pattern *pattern)
{
	uint32_t state = BYTE_AUTOMATON_START;

	for (size_t i = 0; i < pattern->length; i++) {
		uint8_t byte = equal_form(pattern->data[i]);
		uint32_t child = find_child(automaton, state, byte);

		if (child == 0) {
			child = automaton->state_count++;
			automaton->states[child] = (struct state){
				.byte = byte,
				.depth = (uint16_t)(i + 1),
				.sibling = automaton->states[state].child,
			};
			automaton->states[state].child = child;
		}
		state = child;
	}
	if (automaton->states[state].tag == 0)
		automaton->states[state].tag = pattern->tag + 1;
	automaton->states[state].matches = true;
}

/* Where a byte leads from a state whose own links are set. */
static uint32_t follow(const struct byte_automaton *automaton, uint32_t state, uint8_t byte)
{
	while (state != BYTE_AUTOMATON_START) {
		uint32_t child = find_child(automaton, state, byte);

		if (child != 0)
			return child;
		state = automaton->states[state].failure;
	}
	return automaton->start[byte];
}

static void set_links(struct byte_automaton *automaton)
{
	struct state *states = automaton->states;
	uint32_t first = 0;
	uint32_t last = 0;

	for (uint32_t child = states[0].child; child != 0; child = states[child].sibling) {
		automaton->start[states[child].byte] = child;
		states[last].next = child;
		last = child;
	}
	first = states[0].next;
	while (first != 0) {
		for (uint32_t child = states[first].child; child != 0;
		     child = states[child].sibling) {
			uint32_t failure =
				follow(automaton, states[first].failure, states[child].byte);

			states[child].failure = failure;
			states[child].matches |= states[failure].matches;
			states[last].next = child;
			last = child;
		}
		first = states[first].next;
	}
	for (unsigned byte = 0; byte < 256; byte++) {
		automaton->start[byte] = automaton->start[equal_form((uint8_t)byte)];
	}
}

static bool is_listed(const char *stops, unsigned byte)
{
	return byte != 0 && strchr(stops, (int)byte);
}

/* Marks the pairs of bytes at the beginnings of patterns, in all forms that count as equal. */
static void set_inner(struct byte_automaton *automaton, const struct byte_pattern *patterns,
		      size_t count)
{
	automaton->stride = STRIDE_MAX;
	for (size_t i = 0; i < count; i++)
		automaton->stride = MIN_OF(automaton->stride, patterns[i].length);
	for (size_t i = 0; i < count; i++) {
		for (size_t at = 0; at + 1 < automaton->stride; at++) {
			uint8_t first = equal_form(patterns[i].data[at]);
			uint8_t second = equal_form(patterns[i].data[at + 1]);

			set_pair(automaton->inner, first, second);
		}
	}
	for (unsigned pair = 0; pair < 65536; pair++) {
		uint8_t first = equal_form((uint8_t)(pair >> 8));
		uint8_t second = equal_form((uint8_t)pair);

		if (has_pair(automaton->inner, first, second))
			set_pair(automaton->inner, (uint8_t)(pair >> 8), (uint8_t)pair);
	}
}

/* Marks which pairs of bytes are more than a false start. */
static void set_pairs(struct byte_automaton *automaton, const char *stops)
{
	for (unsigned byte = 0; byte < 256; byte++) {
		uint32_t state = automaton->start[byte];
		bool is_given = is_listed(stops, byte);
		bool is_all = is_given || automaton->states[state].matches;

		automaton->stops[byte] = is_given || state != 0;
		for (unsigned next = 0; automaton->stops[byte] && next < 256; next++) {
			if (is_all || is_listed(stops, next) ||
			    find_child(automaton, state, equal_form((uint8_t)next)) != 0)
				set_pair(automaton->pairs, (uint8_t)byte, (uint8_t)next);
		}
	}
}

int byte_automaton_new(const struct byte_pattern *patterns, size_t count, const char *stops,
		       bool in_locked_memory, struct byte_automaton **ret_automaton)
{
	struct byte_automaton *automaton;
	void *block = NULL;
	size_t states = 1;
	size_t size;
	int error = 0;

	if (strlen(stops) > STOPS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		if (patterns[i].length < 1 || patterns[i].length > BYTE_PATTERN_MAX)
			return -EINVAL;
		states += patterns[i].length;
		if (states > BYTE_AUTOMATON_STATES_MAX)
			return -E2BIG;
	}
	size = sizeof(*automaton) + states * sizeof(automaton->states[0]);
	if (in_locked_memory)
		error = secret_memory_new(size, &block);
	else if (!(block = calloc(1, size)))
		error = -ENOMEM;
	if (error)
		return error;
	automaton = block;
	automaton->owners = 1;
	automaton->is_locked = in_locked_memory;
	automaton->state_count = 1;
	for (size_t i = 0; i < count; i++)
		add_pattern(automaton, &patterns[i]);
	set_links(automaton);
	set_pairs(automaton, stops);
	set_inner(automaton, patterns, count);
	memcpy(automaton->never, stops, strlen(stops));
	*ret_automaton = automaton;
	return 0;
}

struct byte_automaton *byte_automaton_hold(struct byte_automaton *automaton)
{
	automaton->owners++;
	return automaton;
}

void byte_automaton_release(struct byte_automaton *automaton)
{
	if (!automaton || --automaton->owners > 0)
		return;
	if (automaton->is_locked)
		secret_memory_free(automaton);
	else
		free(automaton);
}

uint32_t byte_automaton_step(const struct byte_automaton *automaton, uint32_t state, uint8_t byte)
{
	if (state == BYTE_AUTOMATON_START)
		return automaton->start[byte];
	return follow(automaton, state, equal_form(byte));
}

size_t byte_automaton_depth(const struct byte_automaton *automaton, uint32_t state)
{
	return automaton->states[state].depth;
}

bool byte_automaton_matches(const struct byte_automaton *automaton, uint32_t state)
{
	return automaton->states[state].matches;
}

bool byte_automaton_match(const struct byte_automaton *automaton, uint32_t *cursor,
			  uint32_t *ret_tag, size_t *ret_length)
{
	const struct state *state = &automaton->states[*cursor];

	while (state->matches && state->tag == 0)
		state = &automaton->states[state->failure];
	if (!state->matches)
		return false;
	*ret_tag = state->tag - 1;
	*ret_length = state->depth;
	*cursor = state->failure;
	return true;
}

uint32_t byte_automaton_settle(const struct byte_automaton *automaton, uint32_t state)
{
	while (state != BYTE_AUTOMATON_START && automaton->states[state].child == 0)
		state = automaton->states[state].failure;
	return state;
}

/* Whether a byte that is never skipped is among BLOCK_SIZE ones. */
static bool has_stop(const struct byte_automaton *automaton, const uint8_t *data)
{
	block_type block;
	block_type found = { 0 };
	uint64_t halves[2];

	memcpy(&block, data, sizeof(block));
	for (const uint8_t *stop = automaton->never; *stop; stop++)
		found |= (block_type)(block == *stop);
	memcpy(halves, &found, sizeof(found));
	return (halves[0] | halves[1]) != 0;
}

/* Goes on by strides up to one in which a match may begin, or one with a stop, or the end. */
static size_t skip_strides(const struct byte_automaton *automaton, const uint8_t *data, size_t at,
			   size_t end)
{
	size_t stride = automaton->stride;

	while (stride >= STRIDE_MIN && at + BLOCK_SIZE <= end &&
	       !has_pair(automaton->inner, data[at + stride - 2], data[at + stride - 1]) &&
	       !has_stop(automaton, data + at))
		at += stride - 1;
	return at;
}

size_t byte_automaton_skip(const struct byte_automaton *automaton, const uint8_t *data,
			   size_t length)
{
	size_t at = 0;

	while (at + 1 < length) {
		size_t from = at;

		at = skip_strides(automaton, data, at, length);
		/* What does not begin in the way to the next try for strides. */
		while (at + 1 < length && at < from + BLOCK_SIZE) {
			if (has_pair(automaton->pairs, data[at], data[at + 1]))
				return at;
			at++;
		}
	}
	if (at < length && !automaton->stops[data[at]])
		at++;
	return at;
}

size_t byte_automaton_state_count(const struct byte_automaton *automaton)
{
	return automaton->state_count;
}
