/* proxy/byte_automaton.h: every occurrence is found, wherever the others lie. */
#include "proxy/byte_automaton.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define PATTERN(text, number)                                                                      \
	{                                                                                          \
		(const uint8_t *)(text), sizeof(text) - 1, (number)                                \
	}

static struct byte_automaton *build(const struct byte_pattern *patterns, size_t count)
{
	struct byte_automaton *automaton;

	ck_assert_int_eq(byte_automaton_new(patterns, count, NULL, true, &automaton), 0);
	return automaton;
}

/* Writes "end:tag" of each match into `output`. */
static void find(const struct byte_automaton *automaton, const char *text, char *output,
		 size_t size)
{
	uint32_t state = BYTE_AUTOMATON_START;
	size_t used = 0;

	output[0] = '\0';
	for (size_t i = 0; text[i]; i++) {
		size_t before = used;
		uint32_t cursor;
		uint32_t tag;
		size_t length;

		state = byte_automaton_step(automaton, state, (uint8_t)text[i]);
		cursor = state;
		ck_assert_uint_le(byte_automaton_depth(automaton, state), i + 1);
		while (byte_automaton_match(automaton, &cursor, &tag, &length))
			used += (size_t)snprintf(output + used, size - used, "%zu:%u ", i + 1, tag);
		ck_assert(byte_automaton_matches(automaton, state) == (used > before));
	}
}

START_TEST(overlapping_patterns_are_all_found)
{
	static const struct byte_pattern patterns[] = {
		PATTERN("he", 1),
		PATTERN("she", 2),
		PATTERN("his", 3),
		PATTERN("hers", 4),
	};
	struct byte_automaton *automaton = build(patterns, ARRAY_LENGTH(patterns));
	char output[256];

	find(automaton, "ushers", output, sizeof(output));
	ck_assert_str_eq(output, "4:2 4:1 6:4 ");
	find(automaton, "hishe", output, sizeof(output));
	ck_assert_str_eq(output, "3:3 5:2 5:1 ");
	byte_automaton_release(automaton);
}
END_TEST

START_TEST(a_pattern_inside_another_is_found_on_the_way)
{
	static const struct byte_pattern patterns[] = { PATTERN("xabcy", 7), PATTERN("abc", 8) };
	struct byte_automaton *automaton = build(patterns, ARRAY_LENGTH(patterns));
	char output[256];

	find(automaton, "xabcz", output, sizeof(output));
	ck_assert_str_eq(output, "4:8 ");
	find(automaton, "xabcy", output, sizeof(output));
	ck_assert_str_eq(output, "4:8 5:7 ");
	byte_automaton_release(automaton);
}
END_TEST

START_TEST(the_two_alphabets_are_one)
{
	static const struct byte_pattern patterns[] = { PATTERN("a+/b", 1), PATTERN("-q", 2) };
	struct byte_automaton *automaton = build(patterns, ARRAY_LENGTH(patterns));
	char output[256];

	find(automaton, "a-_b a+/b a-/b", output, sizeof(output));
	ck_assert_str_eq(output, "4:1 9:1 14:1 ");
	find(automaton, "+q q", output, sizeof(output));
	ck_assert_str_eq(output, "2:2 4:2 ");
	byte_automaton_release(automaton);
}
END_TEST

START_TEST(depth_is_what_may_still_become_a_match)
{
	static const struct byte_pattern patterns[] = { PATTERN("abab!", 1), PATTERN("babx", 2) };
	struct byte_automaton *automaton = build(patterns, ARRAY_LENGTH(patterns));
	static const size_t depths[] = { 1, 2, 3, 4, 3, 4, 0, 1, 2, 3, 4 };
	const char *text = "ababab.babx";
	uint32_t state = BYTE_AUTOMATON_START;

	for (size_t i = 0; text[i]; i++) {
		state = byte_automaton_step(automaton, state, (uint8_t)text[i]);
		ck_assert_uint_eq(byte_automaton_depth(automaton, state), depths[i]);
	}
	byte_automaton_release(automaton);
}
END_TEST

START_TEST(a_match_that_is_over_holds_nothing)
{
	static const struct byte_pattern patterns[] = { PATTERN("abab", 1), PATTERN("babcd", 2) };
	struct byte_automaton *automaton = build(patterns, ARRAY_LENGTH(patterns));
	uint32_t state = BYTE_AUTOMATON_START;

	for (const char *at = "abab"; *at; at++)
		state = byte_automaton_step(automaton, state, (uint8_t)*at);
	ck_assert_uint_eq(byte_automaton_depth(automaton, state), 4);
	state = byte_automaton_settle(automaton, state);
	ck_assert_uint_eq(byte_automaton_depth(automaton, state), 3);
	for (const char *at = "cd"; *at; at++)
		state = byte_automaton_step(automaton, state, (uint8_t)*at);
	ck_assert(byte_automaton_matches(automaton, state));
	ck_assert_uint_eq(byte_automaton_settle(automaton, state), BYTE_AUTOMATON_START);
	byte_automaton_release(automaton);
}
END_TEST

/* Of "&1c", which is read as c. */
static bool may_begin(const uint8_t bytes[3], const bool begins[256])
{
	ck_assert_mem_eq(bytes, "&1", 2);
	return begins[bytes[2]];
}

static const struct byte_stop any_percent[] = { { '%', NULL, NULL }, { 0, NULL, NULL } };
static const struct byte_stop stops[] = {
	{ '$', "xyz", NULL },
	{ '&', "1", may_begin },
	{ 0, NULL, NULL },
};

struct skip_sample {
	const char *text;
	size_t skipped;
};

/* The tests of skipping are run once for each way of looking that this processor has. */
static void expect_skips(int blocks, const struct byte_pattern *patterns, size_t count,
			 const struct byte_stop *with, const struct skip_sample *samples,
			 size_t sample_count)
{
	struct byte_automaton *automaton;

	ck_assert_int_eq(byte_automaton_new(patterns, count, with, false, &automaton), 0);
	byte_automaton_use_blocks(automaton, (enum byte_blocks)blocks);
	for (size_t i = 0; i < sample_count; i++)
		ck_assert_msg(byte_automaton_skip(automaton, (const uint8_t *)samples[i].text,
						  strlen(samples[i].text)) == samples[i].skipped,
			      "%s", samples[i].text);
	byte_automaton_release(automaton);
}

START_TEST(only_what_begins_a_pattern_is_not_skipped)
{
	static const struct byte_pattern patterns[] = { PATTERN("ab-d", 1) };
	static const struct skip_sample samples[] = {
		{ "", 0 },	{ "qqq", 3 },	 { "qqab", 2 },	 { "qqac", 4 },	 { "qqaa", 3 },
		{ "qqaaq", 5 }, { "aaab", 2 },	 { "qabq", 4 },	 { "qab-q", 1 }, { "qab+q", 1 },
		{ "qab_q", 5 }, { "q$q", 3 },	 { "q$y", 1 },	 { "qq$", 2 },	 { "qa$q", 4 },
		{ "qa$y", 1 },	{ "qa$", 1 },	 { "qab$q", 1 }, { "q&1q", 4 },	 { "q&1a", 1 },
		{ "q&2a", 3 },	{ "q&2aq", 5 },	 { "q&1", 1 },	 { "qa&1q", 1 }, { "qa&2q", 5 },
		{ "qq&", 2 },	{ "q&1qab", 4 },
	};

	expect_skips(_i, patterns, ARRAY_LENGTH(patterns), stops, samples, ARRAY_LENGTH(samples));
}
END_TEST

START_TEST(a_pattern_of_one_byte_or_two_is_not_skipped)
{
	static const struct byte_pattern patterns[] = { PATTERN("x", 1), PATTERN("ab", 2) };
	static const struct skip_sample samples[] = {
		{ "qqx", 2 },  { "qxq", 1 },  { "qxqq", 1 }, { "qqq", 3 },    { "qab", 1 },
		{ "qabq", 1 }, { "qacq", 4 }, { "q&1x", 1 }, { "q&1xqq", 1 }, { "q&qqqq", 6 },
	};

	expect_skips(_i, patterns, ARRAY_LENGTH(patterns), stops, samples, ARRAY_LENGTH(samples));
}
END_TEST

START_TEST(a_stop_may_be_read_with_any_byte)
{
	static const struct byte_pattern patterns[] = { PATTERN("ab-d", 1) };
	static const struct skip_sample samples[] = {
		{ "q%q", 1 },  { "qq%", 2 },   { "q%qq", 1 }, { "qa%", 1 },
		{ "qa%q", 1 }, { "qab%q", 1 }, { "qac", 3 },
	};

	expect_skips(_i, patterns, ARRAY_LENGTH(patterns), any_percent, samples,
		     ARRAY_LENGTH(samples));
}
END_TEST

/* Whether what begins at `at` is a match, or may become one with what comes after the text or with
 * the byte that is read as something else. */
static bool may_match(const struct byte_pattern *pattern, const char *text, size_t length,
		      size_t at)
{
	size_t same = 0;

	while (same < pattern->length && at + same < length && text[at + same] != '%' &&
	       (uint8_t)text[at + same] == pattern->data[same])
		same++;
	return same == pattern->length ||
	       (same > 0 && (at + same == length || text[at + same] == '%'));
}

START_TEST(no_block_skips_a_match)
{
	static const struct byte_pattern patterns[] = {
		PATTERN("xyzabdabcabe", 1),
		PATTERN("bcabcabd", 2),
		PATTERN("abababababababababababab", 3),
	};
	/* Mostly what no pattern has, with pieces of patterns between. */
	static const char *const pieces[] = {
		"qqqqqqqqqqqqqqqqqqq",
		"qq",
		"xyzabd",
		"abcabe",
		"bcabcabd",
		"abababab",
		"%",
		"qqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
		"a",
		"b",
	};
	struct byte_automaton *automaton;
	size_t blocks = 0;

	ck_assert_int_eq(byte_automaton_new(patterns, ARRAY_LENGTH(patterns), any_percent, false,
					    &automaton),
			 0);
	byte_automaton_use_blocks(automaton, (enum byte_blocks)_i);
	srand(11);
	for (int round = 0; round < 2000; round++) {
		char text[400] = "";
		size_t length = 0;
		size_t skipped;

		for (int i = rand() % 12; i >= 0; i--)
			length += (size_t)snprintf(text + length, sizeof(text) - length, "%s",
						   pieces[(size_t)rand() % ARRAY_LENGTH(pieces)]);
		skipped = byte_automaton_skip(automaton, (const uint8_t *)text, length);
		ck_assert_uint_le(skipped, length);
		for (size_t at = 0; at < skipped; at++) {
			ck_assert_int_ne(text[at], '%');
			for (size_t i = 0; i < ARRAY_LENGTH(patterns); i++)
				ck_assert_msg(!may_match(&patterns[i], text, length, at), "%s: %zu",
					      text, at);
		}
		blocks += skipped >= 32;
	}
	ck_assert_uint_gt(blocks, 100);
	byte_automaton_release(automaton);
}
END_TEST

/* Bytes of all values, and many that begin something. */
START_TEST(many_at_once_are_as_good_as_one_by_one)
{
	static const struct byte_pattern patterns[] = { PATTERN("ab-d", 1), PATTERN("\xff\x80q", 2),
							PATTERN("\x40\xc0\x3f", 3) };
	static const uint8_t frequent[] = { 'a', 'b', '+', 0xff, 0x80, 0x40, 0xc0, '$', '&', '1' };
	struct byte_automaton *automaton;
	size_t stops_within = 0;

	ck_assert_int_eq(
		byte_automaton_new(patterns, ARRAY_LENGTH(patterns), stops, false, &automaton), 0);
	srand(13);
	for (int round = 0; round < 20000; round++) {
		uint8_t text[300];
		size_t length = (size_t)rand() % sizeof(text);
		int rarity = 1 + rand() % 40;
		size_t expected;

		for (size_t i = 0; i < length; i++)
			text[i] = rand() % rarity == 0 ? frequent[(size_t)rand() % sizeof(frequent)]
						       : (uint8_t)rand();
		if (length > 3)
			memcpy(text + (size_t)rand() % (length - 2),
			       patterns[(size_t)rand() % ARRAY_LENGTH(patterns)].data, 3);
		byte_automaton_use_blocks(automaton, BYTE_BLOCKS_NONE);
		expected = byte_automaton_skip(automaton, text, length);
		byte_automaton_use_blocks(automaton, (enum byte_blocks)_i);
		ck_assert_uint_eq(byte_automaton_skip(automaton, text, length), expected);
		stops_within += expected > 70 && expected + 70 < length;
	}
	ck_assert_uint_gt(stops_within, 1000);
	byte_automaton_release(automaton);
}
END_TEST

START_TEST(nothing_is_read_past_the_end)
{
	static const struct byte_pattern patterns[] = { PATTERN("ab-d", 1) };
	struct byte_automaton *automaton;

	ck_assert_int_eq(byte_automaton_new(patterns, 1, NULL, false, &automaton), 0);
	byte_automaton_use_blocks(automaton, (enum byte_blocks)_i);
	for (size_t length = 2; length < 140; length++) {
		uint8_t *text = malloc(length);

		ck_assert_ptr_nonnull(text);
		memset(text, 'q', length);
		ck_assert_uint_eq(byte_automaton_skip(automaton, text, length), length);
		memcpy(text + length - 2, "ab", 2);
		ck_assert_uint_eq(byte_automaton_skip(automaton, text, length), length - 2);
		free(text);
	}
	byte_automaton_release(automaton);
}
END_TEST

/* Against a search by hand, over random texts of few letters, where links matter most. */
START_TEST(it_finds_what_a_plain_search_finds)
{
	srand(7);
	for (int round = 0; round < 300; round++) {
		char texts[6][9];
		struct byte_pattern patterns[6];
		struct byte_automaton *automaton;
		char text[200];
		uint32_t state = BYTE_AUTOMATON_START;

		for (size_t i = 0; i < 6; i++) {
			size_t length = 1 + (size_t)rand() % 8;

			for (size_t j = 0; j < length; j++)
				texts[i][j] = (char)('a' + rand() % 2);
			texts[i][length] = '\0';
			patterns[i] =
				(struct byte_pattern){ (uint8_t *)texts[i], length, (uint32_t)i };
		}
		automaton = build(patterns, 6);
		for (size_t at = 0; at < sizeof(text); at++) {
			unsigned expected = 0;
			unsigned found = 0;
			uint32_t cursor;
			uint32_t tag;
			size_t length;

			text[at] = (char)('a' + rand() % 2);
			state = byte_automaton_step(automaton, state, (uint8_t)text[at]);
			cursor = state;
			while (byte_automaton_match(automaton, &cursor, &tag, &length)) {
				ck_assert_uint_eq(length, patterns[tag].length);
				found |= 1u << tag;
			}
			for (size_t i = 0; i < 6; i++) {
				size_t size = patterns[i].length;
				bool is_here = size <= at + 1 &&
					       !memcmp(text + at + 1 - size, texts[i], size);

				/* Of equal ones only the first is told. */
				for (size_t j = 0; j < i; j++)
					is_here = is_here && strcmp(texts[i], texts[j]) != 0;
				expected |= (unsigned)is_here << i;
			}
			ck_assert_uint_eq(found, expected);
		}
		byte_automaton_release(automaton);
	}
}
END_TEST

START_TEST(limits_are_kept)
{
	static uint8_t bytes[BYTE_PATTERN_MAX + 1];
	static struct byte_pattern many[BYTE_AUTOMATON_STATES_MAX / BYTE_PATTERN_MAX + 1];
	struct byte_pattern pattern = { bytes, 0, 0 };
	struct byte_automaton *automaton;

	ck_assert_int_eq(byte_automaton_new(&pattern, 1, NULL, false, &automaton), -EINVAL);
	pattern.length = BYTE_PATTERN_MAX + 1;
	ck_assert_int_eq(byte_automaton_new(&pattern, 1, NULL, false, &automaton), -EINVAL);
	for (size_t i = 0; i < ARRAY_LENGTH(many); i++)
		many[i] = (struct byte_pattern){ bytes, BYTE_PATTERN_MAX, 0 };
	ck_assert_int_eq(byte_automaton_new(many, ARRAY_LENGTH(many), NULL, false, &automaton),
			 -E2BIG);
	ck_assert_int_eq(byte_automaton_new(NULL, 0, NULL, false, &automaton), 0);
	ck_assert_uint_eq(byte_automaton_step(automaton, 0, 'a'), 0);
	ck_assert_ptr_eq(byte_automaton_hold(automaton), automaton);
	byte_automaton_release(automaton);
	ck_assert_uint_eq(byte_automaton_state_count(automaton), 1);
	byte_automaton_release(automaton);
	byte_automaton_release(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("byte_automaton");
	TCase *tests = tcase_create("byte_automaton");
	int ways = (int)byte_blocks_here() + 1;
	SRunner *runner;
	int failed;

	tcase_add_test(tests, overlapping_patterns_are_all_found);
	tcase_add_test(tests, a_pattern_inside_another_is_found_on_the_way);
	tcase_add_test(tests, the_two_alphabets_are_one);
	tcase_add_test(tests, depth_is_what_may_still_become_a_match);
	tcase_add_test(tests, a_match_that_is_over_holds_nothing);
	tcase_add_loop_test(tests, only_what_begins_a_pattern_is_not_skipped, 0, ways);
	tcase_add_loop_test(tests, a_pattern_of_one_byte_or_two_is_not_skipped, 0, ways);
	tcase_add_loop_test(tests, a_stop_may_be_read_with_any_byte, 0, ways);
	tcase_add_loop_test(tests, no_block_skips_a_match, 0, ways);
	tcase_add_loop_test(tests, many_at_once_are_as_good_as_one_by_one, 0, ways);
	tcase_add_loop_test(tests, nothing_is_read_past_the_end, 0, ways);
	tcase_add_test(tests, it_finds_what_a_plain_search_finds);
	tcase_add_test(tests, limits_are_kept);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
