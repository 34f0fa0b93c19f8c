#include "proxy/byte_automaton.h"

#include "base/checked.h"
#include "proxy/secret_memory.h"

#include <errno.h>
#include <immintrin.h>
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
 * To stay there is cheaper still. A byte is skipped when it and the next two together begin no
 * pattern, which few do. Where the processor has AVX2, 32 such places are looked at in one go: the
 * bytes that may come first are dealt out to eight buckets, and four tables of half bytes say which
 * buckets a byte may be in as the first and as the second of them (the first step of Hyperscan's
 * "Teddy"; Wang et al., NSDI 2019, section 4.3). That lets some through that begin none, so each is
 * looked up, and only there is the third byte looked at: to stop where nothing is costs more than
 * all the rest. With AVX-512's permutation of bytes it is 64 places, and tables by six bits of a
 * byte, which let fewer through and need no mask: vpermb takes the lower six by itself.
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
#define BUCKETS_OF_STOPS 2u
#define BUCKET_BEFORE_STOP BUCKETS_OF_STOPS
#define BUCKET_OTHER (BUCKET_BEFORE_STOP + BUCKETS_OF_STOPS)
#define BUCKETS_OTHER (8u - BUCKET_OTHER)
#define HALVES 16u
#define SIXES 64u

/* A bit for each bucket: by the lower and the upper half of the byte, and by six bits of it. */
struct bucket_tables {
	uint8_t low[HALVES];
	uint8_t high[HALVES];
	uint8_t low_six[SIXES];
	uint8_t high_six[SIXES];
};

struct byte_automaton {
	size_t owners;
	bool is_locked;
	enum byte_blocks blocks;
	bool is_stop[256];
	bool begins[256];		 /* bytes that may begin a match */
	bool is_first[256];		 /* the same, and stops */
	uint8_t first_pairs[PAIRS_SIZE]; /* what may be its first two bytes, a bit each */
	uint8_t next_pairs[PAIRS_SIZE];	 /* and its second and third */
	struct bucket_tables first;	 /* of the first pair */
	struct bucket_tables second;
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

static const struct byte_stop *find_stop(const struct byte_stop *stops, unsigned byte)
{
	for (; stops && stops->byte != 0; stops++) {
		if ((uint8_t)stops->byte == byte)
			return stops;
	}
	return NULL;
}

static bool is_follower(const struct byte_stop *stop, unsigned byte)
{
	return stop && (!stop->followers || (byte != 0 && strchr(stop->followers, (int)byte)));
}

static void set_beginning(struct byte_automaton *automaton, unsigned first, unsigned second,
			  unsigned third)
{
	set_pair(automaton->first_pairs, (uint8_t)first, (uint8_t)second);
	set_pair(automaton->next_pairs, (uint8_t)second, (uint8_t)third);
}

/* Whether a pattern that has come up to `state`, 0 if it has not, may go on with this byte. */
static bool may_go_on(const struct byte_automaton *automaton, uint32_t state, unsigned byte)
{
	return state != 0 && (automaton->states[state].matches || automaton->is_stop[byte] ||
			      find_child(automaton, state, equal_form((uint8_t)byte)));
}

/* What patterns begin with, as they are or up to where a stop comes. */
static void set_plain_beginnings(struct byte_automaton *automaton, unsigned first,
				 const struct byte_stop *stops)
{
	uint32_t state = automaton->start[first];

	for (unsigned second = 0; second < 256; second++) {
		const struct byte_stop *stop = find_stop(stops, second);
		uint32_t child = find_child(automaton, state, equal_form((uint8_t)second));

		if (!automaton->states[state].matches && !stop && child == 0)
			continue;
		for (unsigned third = 0; third < 256; third++) {
			if (automaton->states[state].matches || is_follower(stop, third) ||
			    may_go_on(automaton, child, third))
				set_beginning(automaton, first, second, third);
		}
	}
}

static void set_beginnings_at_stop(struct byte_automaton *automaton, const struct byte_stop *stop)
{
	uint8_t bytes[3] = { (uint8_t)stop->byte, 0, 0 };

	for (unsigned second = 0; second < 256; second++) {
		if (!is_follower(stop, second))
			continue;
		bytes[1] = (uint8_t)second;
		for (unsigned third = 0; third < 256; third++) {
			bytes[2] = (uint8_t)third;
			if (!stop->may_begin || stop->may_begin(bytes, automaton->begins))
				set_beginning(automaton, bytes[0], second, third);
		}
	}
}

static void set_beginnings(struct byte_automaton *automaton, const struct byte_stop *stops)
{
	for (unsigned byte = 0; byte < 256; byte++) {
		automaton->is_stop[byte] = find_stop(stops, byte) != NULL;
		automaton->begins[byte] = automaton->start[byte] != BYTE_AUTOMATON_START;
		automaton->is_first[byte] = automaton->begins[byte] || automaton->is_stop[byte];
	}
	for (unsigned byte = 0; byte < 256; byte++) {
		if (automaton->begins[byte])
			set_plain_beginnings(automaton, byte, stops);
	}
	for (; stops && stops->byte != 0; stops++)
		set_beginnings_at_stop(automaton, stops);
}

static void add_to_bucket(struct bucket_tables *tables, unsigned byte, unsigned bucket)
{
	uint8_t bit = (uint8_t)(1U << bucket);

	tables->low[byte % HALVES] |= bit;
	tables->high[byte / HALVES] |= bit;
	tables->low_six[byte % SIXES] |= bit;
	tables->high_six[byte / (256 / SIXES)] |= bit;
}

/* Each stop has a bucket as the first and one as the second of a pair, so that the others let less
 * through. */
static void set_buckets(struct byte_automaton *automaton, const struct byte_stop *stops)
{
	unsigned next = 0;

	for (unsigned first = 0; first < 256; first++) {
		const struct byte_stop *stop = find_stop(stops, first);
		unsigned own = stop ? (unsigned)(stop - stops) % BUCKETS_OF_STOPS
				    : BUCKET_OTHER + next % BUCKETS_OTHER;

		next += !stop && automaton->begins[first];
		for (unsigned second = 0; second < 256; second++) {
			const struct byte_stop *before = stop ? NULL : find_stop(stops, second);
			unsigned bucket = own;

			if (!has_pair(automaton->first_pairs, (uint8_t)first, (uint8_t)second))
				continue;
			if (before)
				bucket = BUCKET_BEFORE_STOP +
					 (unsigned)(before - stops) % BUCKETS_OF_STOPS;
			add_to_bucket(&automaton->first, first, bucket);
			add_to_bucket(&automaton->second, second, bucket);
		}
	}
}

enum byte_blocks byte_blocks_here(void)
{
	if (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bw"))
		return BYTE_BLOCKS_AVX512;
	return __builtin_cpu_supports("avx2") ? BYTE_BLOCKS_AVX2 : BYTE_BLOCKS_NONE;
}

int byte_automaton_new(const struct byte_pattern *patterns, size_t count,
		       const struct byte_stop *stops, bool in_locked_memory,
		       struct byte_automaton **ret_automaton)
{
	struct byte_automaton *automaton;
	void *block = NULL;
	size_t states = 1;
	size_t size;
	int error = 0;

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
	set_beginnings(automaton, stops);
	set_buckets(automaton, stops);
	automaton->blocks = byte_blocks_here();
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

size_t byte_automaton_deepen(const struct byte_automaton *automaton, uint32_t *state,
			     const uint8_t *data, size_t length)
{
	uint32_t current = *state;
	size_t at = 0;

	for (; at < length && !automaton->is_stop[data[at]]; at++) {
		uint32_t child = find_child(automaton, current, equal_form(data[at]));

		if (child == 0 || automaton->states[child].matches)
			break;
		current = child;
	}
	*state = current;
	return at;
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

bool byte_automaton_beginning(const struct byte_automaton *automaton, uint32_t state,
			      uint32_t *ret_tag)
{
	const struct state *states = automaton->states;

	if (state == BYTE_AUTOMATON_START || states[state].tag != 0)
		return false;
	while (states[state].tag == 0)
		state = states[state].child;
	*ret_tag = states[state].tag - 1;
	return true;
}

uint32_t byte_automaton_settle(const struct byte_automaton *automaton, uint32_t state)
{
	while (state != BYTE_AUTOMATON_START && automaton->states[state].child == 0)
		state = automaton->states[state].failure;
	return state;
}

/* The buckets that the bytes of a block may be in. */
__attribute__((target("avx2"))) static __m256i buckets_of(const struct bucket_tables *tables,
							  __m256i block)
{
	const __m256i half = _mm256_set1_epi8(HALVES - 1);
	__m128i low = _mm_loadu_si128((const __m128i_u *)tables->low);
	__m128i high = _mm_loadu_si128((const __m128i_u *)tables->high);
	__m256i upper = _mm256_and_si256(_mm256_srli_epi16(block, 4), half);

	return _mm256_and_si256(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(low),
						    _mm256_and_si256(block, half)),
				_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(high), upper));
}

static bool may_begin_at(const struct byte_automaton *automaton, const uint8_t *bytes)
{
	return has_pair(automaton->first_pairs, bytes[0], bytes[1]) &&
	       has_pair(automaton->next_pairs, bytes[1], bytes[2]);
}

/* Goes on by blocks, up to a place where a match may begin or less than a block and two bytes
 * before the end. */
__attribute__((target("avx2"))) static size_t skip_blocks(const struct byte_automaton *automaton,
							  const uint8_t *data, size_t length)
{
	size_t at = 0;

	for (; at + sizeof(__m256i) + 1 < length; at += sizeof(__m256i)) {
		__m256i first = _mm256_loadu_si256((const __m256i_u *)(data + at));
		__m256i second = _mm256_loadu_si256((const __m256i_u *)(data + at + 1));
		__m256i both = _mm256_and_si256(buckets_of(&automaton->first, first),
						buckets_of(&automaton->second, second));
		__m256i none = _mm256_cmpeq_epi8(both, _mm256_setzero_si256());
		uint32_t found = ~(uint32_t)_mm256_movemask_epi8(none);

		for (; found != 0; found &= found - 1) {
			size_t place = at + (size_t)__builtin_ctz(found);

			if (may_begin_at(automaton, data + place))
				return place;
		}
	}
	return at;
}

#define AVX512 __attribute__((target("avx512vbmi,avx512bw")))

AVX512 static __m512i wide_buckets_of(const struct bucket_tables *tables, __m512i block)
{
	__m512i low = _mm512_loadu_si512(tables->low_six);
	__m512i high = _mm512_loadu_si512(tables->high_six);

	/* What the shift brings in from the byte before is above the six bits. */
	return _mm512_and_si512(_mm512_permutexvar_epi8(block, low),
				_mm512_permutexvar_epi8(_mm512_srli_epi16(block, 2), high));
}

/* The same by twice as large blocks, and by the others at the end. */
AVX512 static size_t skip_wide_blocks(const struct byte_automaton *automaton, const uint8_t *data,
				      size_t length)
{
	size_t at = 0;

	for (; at + sizeof(__m512i) + 1 < length; at += sizeof(__m512i)) {
		__m512i first = _mm512_loadu_si512(data + at);
		__m512i second = _mm512_loadu_si512(data + at + 1);
		uint64_t found = _mm512_test_epi8_mask(wide_buckets_of(&automaton->first, first),
						       wide_buckets_of(&automaton->second, second));

		for (; found != 0; found &= found - 1) {
			size_t place = at + (size_t)__builtin_ctzll(found);

			if (may_begin_at(automaton, data + place))
				return place;
		}
	}
	return at + skip_blocks(automaton, data + at, length - at);
}

size_t byte_automaton_skip(const struct byte_automaton *automaton, const uint8_t *data,
			   size_t length)
{
	size_t at = 0;

	if (automaton->blocks == BYTE_BLOCKS_AVX512)
		at = skip_wide_blocks(automaton, data, length);
	else if (automaton->blocks == BYTE_BLOCKS_AVX2)
		at = skip_blocks(automaton, data, length);
	while (at + 2 < length &&
	       !(automaton->is_first[data[at]] && may_begin_at(automaton, data + at)))
		at++;
	if (at + 2 == length && !has_pair(automaton->first_pairs, data[at], data[at + 1]))
		at++;
	if (at + 1 == length && !automaton->is_first[data[at]])
		at++;
	return at;
}

void byte_automaton_use_blocks(struct byte_automaton *automaton, enum byte_blocks blocks)
{
	automaton->blocks = blocks;
}

size_t byte_automaton_state_count(const struct byte_automaton *automaton)
{
	return automaton->state_count;
}
