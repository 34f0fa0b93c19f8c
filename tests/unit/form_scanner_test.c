/*
 * proxy/form_scanner.h and proxy/secret_forms.h: a text is found in every form and escape, told
 * with its place in the stream, wherever the stream is cut.
 */
#include "proxy/form_scanner.h"
#include "proxy/secret_forms.h"

#include <check.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define NEEDLE "K/x+9Q7-zw"

static struct byte_automaton *automaton;

static void build(void)
{
	static uint8_t texts[SECRET_FORM_COUNT][64];
	struct byte_pattern patterns[SECRET_FORM_COUNT];

	for (int form = 0; form < SECRET_FORM_COUNT; form++) {
		size_t length = secret_form_length((enum secret_form)form, strlen(NEEDLE));

		for (size_t i = 0; i < length; i++)
			texts[form][i] = secret_form_character((enum secret_form)form, NEEDLE,
							       strlen(NEEDLE), i);
		patterns[form] = (struct byte_pattern){ texts[form], length, (uint32_t)form };
	}
	ck_assert_int_eq(byte_automaton_new(patterns, SECRET_FORM_COUNT, form_escape_stops, false,
					    &automaton),
			 0);
}

static void tear_down(void)
{
	byte_automaton_release(automaton);
}

struct finds {
	struct form_match list[1024];
	size_t count;
};

static void take(void *context, const struct form_match *match)
{
	struct finds *finds = context;

	for (size_t i = 0; i < finds->count; i++) {
		if (finds->list[i].tag == match->tag && finds->list[i].start == match->start &&
		    finds->list[i].end == match->end)
			return;
	}
	ck_assert_uint_lt(finds->count, ARRAY_LENGTH(finds->list));
	finds->list[finds->count++] = *match;
}

/* Feeds pieces of `step` bytes, keeping only what the scanner wants kept. */
static void scan(const char *text, size_t step, struct finds *finds)
{
	size_t length = strlen(text);
	struct form_scanner scanner;
	uint64_t from = 0;
	size_t have = 0;

	finds->count = 0;
	form_scanner_init(&scanner, automaton);
	while (have < length) {
		struct form_window window = { .offset = from };
		/* Of the exact size, so that a read outside is seen. */
		uint8_t *copy;

		have = MIN_OF(have + step, length);
		window.length = have - from;
		copy = malloc(window.length);
		ck_assert_ptr_nonnull(copy);
		memcpy(copy, text + from, window.length);
		window.data = copy;
		from = form_scanner_run(&scanner, &window, have == length, take, finds);
		ck_assert_uint_le(from, have);
		free(copy);
	}
	ck_assert_uint_eq(from, length);
}

/* The text holds the needle once, in that form, at that place; in pieces of every size. */
static void expect(const char *text, enum secret_form form, size_t start, size_t length)
{
	struct finds finds;

	for (size_t step = 1; step <= strlen(text); step++) {
		scan(text, step, &finds);
		ck_assert_msg(finds.count == 1, "%zu finds in %s by %zu", finds.count, text, step);
		ck_assert_int_eq(finds.list[0].tag, form);
		ck_assert_uint_eq(finds.list[0].start, start);
		ck_assert_uint_eq(finds.list[0].end, start + length);
	}
}

static void expect_nothing(const char *text)
{
	struct finds finds;

	for (size_t step = 1; step <= strlen(text); step++) {
		scan(text, step, &finds);
		ck_assert_msg(finds.count == 0, "found in %s by %zu", text, step);
	}
}

START_TEST(it_is_found_as_it_is)
{
	expect("K/x+9Q7-zw", SECRET_FORM_RAW, 0, 10);
	expect("...K/x+9Q7-zw...", SECRET_FORM_RAW, 3, 10);
	expect("K/x+9Q7-zK/x+9Q7-zw", SECRET_FORM_RAW, 9, 10);
	expect("K_x-9Q7+zw", SECRET_FORM_RAW, 0, 10);
	expect_nothing("K/x+9Q7-z");
	expect_nothing("K/x+9Q7-zW");
}
END_TEST

START_TEST(percent_escapes_are_undone)
{
	expect("?a=K%2Fx%2B9Q7-zw&b", SECRET_FORM_RAW, 3, 14);
	expect("?a=K%2fx%2b9Q7-zw&b", SECRET_FORM_RAW, 3, 14);
	expect("%4b%2f%78%2B%39%51%37%2d%7A%77", SECRET_FORM_RAW, 0, 30);
	expect("K/x+9Q7-z%77", SECRET_FORM_RAW, 0, 12);
	expect("%4B/x+9Q7-zw", SECRET_FORM_RAW, 0, 12);
	expect("%%4B/x+9Q7-zw", SECRET_FORM_RAW, 1, 12);
	expect("%4%4B/x+9Q7-zw%", SECRET_FORM_RAW, 2, 12);
	expect_nothing("%4B/x+9Q7-z%7");
	expect_nothing("%4B/x+9Q7-z%7w");
}
END_TEST

START_TEST(json_escapes_are_undone)
{
	expect("{\"a\":\"K\\/x+9Q7-zw\"}", SECRET_FORM_RAW, 6, 11);
	expect("\\u004b/x\\u002B9Q7-zw", SECRET_FORM_RAW, 0, 20);
	expect("\\\\\\u004B/x+9Q7-zw", SECRET_FORM_RAW, 2, 15);
	expect("K/x+9Q7-z\\u0077\\u0077", SECRET_FORM_RAW, 0, 15);
	/* The backslash before is escaped itself: then what follows is no escape in that view. */
	expect_nothing("\\\\u004B/x+9Q7-zw");
	expect_nothing("\\u014b/x+9Q7-zw");
	expect_nothing("K/x+9Q7-z\\u007");
}
END_TEST

/* Nothing begins in the middle of an escape, wherever that is cut off. */
START_TEST(an_escape_is_read_from_its_beginning)
{
	expect_nothing("%04%622f782b3951372d7a77");
	expect("%0 4%622f782b3951372d7a77", SECRET_FORM_HEX_LOWER, 3, 22);
	expect("%044%622f782b3951372d7a77", SECRET_FORM_HEX_LOWER, 3, 22);
}
END_TEST

START_TEST(both_are_undone_together)
{
	expect("K\\/x%2B9Q7-zw", SECRET_FORM_RAW, 0, 13);
	expect("\\u004B%2fx+9Q7-zw", SECRET_FORM_RAW, 0, 17);
}
END_TEST

START_TEST(base64_is_found_at_each_offset_and_in_both_alphabets)
{
	for (int before = 0; before < 6; before++) {
		for (int after = 0; after < 4; after++) {
			uint8_t bytes[64];
			char text[128];
			enum secret_form form =
				(enum secret_form)(SECRET_FORM_BASE64_0 + before % 3);
			size_t length = secret_form_length(form, strlen(NEEDLE));
			size_t start = (size_t)(8 * before + 5) / 6;
			int size = before + (int)strlen(NEEDLE) + after;

			memset(bytes, '>', sizeof(bytes));
			memcpy(bytes + before, NEEDLE, strlen(NEEDLE));
			EVP_EncodeBlock((uint8_t *)text, bytes, size);
			expect(text, form, start, length);
			/* Without padding, and in the alphabet of URLs. */
			text[strcspn(text, "=")] = '\0';
			for (char *at = text; *at; at++)
				*at = (char)(*at == '+' ? '-' : *at == '/' ? '_' : *at);
			expect(text, form, start, length);
		}
	}
}
END_TEST

START_TEST(base64_is_found_inside_escapes)
{
	/* base64("K/x+9Q7-zw") is Sy94KzlRNy16dw== */
	expect("Basic Sy94KzlRNy16dw%3D%3D", SECRET_FORM_BASE64_0, 6, 13);
	expect("\"\\u0053y94KzlRNy16dw\"", SECRET_FORM_BASE64_0, 1, 18);
}
END_TEST

START_TEST(hexadecimal_is_found_in_both_cases)
{
	expect("0x4b2f782b3951372d7a77;", SECRET_FORM_HEX_LOWER, 2, 20);
	expect("4B2F782B3951372D7A77", SECRET_FORM_HEX_UPPER, 0, 20);
}
END_TEST

/* What may still become a match, and only that, is kept. */
START_TEST(no_more_is_kept_than_may_match)
{
	static const struct {
		const char *text;
		size_t kept;
	} samples[] = {
		{ "data: hello\n\n", 0 }, { "abcK", 1 },       { "abcK/x+9Q", 6 },
		{ "abcK/x+9Q!", 0 },	  { "abcK/xK/", 2 },   { "abc%", 1 },
		{ "abc%4", 2 },		  { "abc%4b", 3 },     { "abc%40", 0 },
		{ "abc\\", 1 },		  { "abc\\u00", 4 },   { "abc\\u004b", 6 },
		{ "abc\\u0040", 0 },	  { "K/x+9Q7-zw", 0 }, { "abc%4b/x\\u002b", 11 },
	};

	for (size_t i = 0; i < ARRAY_LENGTH(samples); i++) {
		struct form_scanner scanner;
		struct finds finds = { .count = 0 };
		struct form_window window = { (const uint8_t *)samples[i].text,
					      strlen(samples[i].text), 0 };
		uint64_t from;

		form_scanner_init(&scanner, automaton);
		from = form_scanner_run(&scanner, &window, false, take, &finds);
		ck_assert_msg(window.length - from == samples[i].kept, "%s: %zu kept",
			      samples[i].text, (size_t)(window.length - from));
	}
}
END_TEST

/* ---- against a plain reading ------------------------------------------------------------------
 */

#define TEXTS 3
#define TEXT_SIZE 10

/* Pieces of escapes, of what looks like one, and of what stands in the patterns' way. */
static const char *const pieces[] = {
	"%",	 "\\",	"\\\\", "%4",  "%41", "%61",	 "\\u0041",
	"\\u00", "\\u", "\\/",	"\\n", "4",   "1",	 "a",
	"b",	 "%%",	"%62",	"/",   "%2f", "-",	 "+",
	"%zz",	 "\\z", "u",	"0",   "41",  "\\u4141", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
};

#define LONGEST_FORM 8 /* with the NUL */

static size_t write_escaped(char text[LONGEST_FORM], char byte)
{
	switch (rand() % 6) {
	case 0:
		return (size_t)snprintf(text, LONGEST_FORM, "%%%02x", byte);
	case 1:
		return (size_t)snprintf(text, LONGEST_FORM, "%%%02X", byte);
	case 2:
		return (size_t)snprintf(text, LONGEST_FORM, "\\u00%02x", byte);
	default:
		*text = byte;
		return 1;
	}
}

static void make_text(char texts[TEXTS][TEXT_SIZE], char *text, size_t size)
{
	size_t used = 0;

	for (int i = rand() % 40; i >= 0; i--) {
		const char *piece = pieces[(size_t)rand() % ARRAY_LENGTH(pieces)];

		if (rand() % 3 > 0) {
			used += (size_t)snprintf(text + used, size - used, "%s", piece);
			continue;
		}
		piece = texts[rand() % TEXTS];
		for (size_t j = 0, end = (size_t)rand() % (strlen(piece) + 1); j < end; j++)
			used += write_escaped(text + used, piece[j]);
		ck_assert_uint_lt(used + TEXT_SIZE * LONGEST_FORM, size);
	}
	text[used] = '\0';
}

static char equal_form(uint8_t byte)
{
	return (char)(byte == '-' || byte == ' ' ? '+' : byte == '_' ? '/' : byte);
}

/* Every match, by reading the whole text in each view and comparing at each of its tokens. */
static void read_plainly(const struct byte_pattern *patterns, const char *text, struct finds *finds)
{
	static uint64_t starts[2048];
	static char bytes[2048];

	finds->count = 0;
	for (unsigned view = 0; view < FORM_VIEWS; view++) {
		size_t count = 0;
		size_t at = 0;

		for (; text[at]; count++) {
			uint8_t byte;

			starts[count] = at;
			at += form_token((const uint8_t *)text + at, strlen(text + at), view, true,
					 &byte);
			bytes[count] = equal_form(byte);
		}
		starts[count] = at;
		for (size_t i = 0; i < count * TEXTS; i++) {
			const struct byte_pattern *pattern = &patterns[i % TEXTS];
			size_t first = i / TEXTS;
			struct form_match match = { .tag = pattern->tag, .escapes = view };
			size_t same = 0;

			while (same < pattern->length && first + same < count &&
			       equal_form(pattern->data[same]) == bytes[first + same])
				same++;
			if (same < pattern->length)
				continue;
			match.start = starts[first];
			match.end = starts[first + same];
			take(finds, &match);
		}
	}
}

static bool has(const struct finds *finds, const struct form_match *match)
{
	for (size_t i = 0; i < finds->count; i++) {
		if (finds->list[i].tag == match->tag && finds->list[i].start == match->start &&
		    finds->list[i].end == match->end)
			return true;
	}
	return false;
}

START_TEST(it_finds_what_a_plain_reading_finds)
{
	static const char letters[] = "ab41/+c-%\\u0z";
	static struct finds expected;
	static struct finds found;
	size_t total = 0;

	srand(5);
	for (int round = 0; round < 1500; round++) {
		char texts[TEXTS][TEXT_SIZE];
		struct byte_pattern patterns[TEXTS];
		size_t kinds = rand() % 4 > 0 ? 5 : sizeof(letters) - 1;
		char text[4096];

		for (uint32_t i = 0; i < TEXTS; i++) {
			/* None equals another: then only one would be told. */
			size_t length = 1 + i + TEXTS * ((size_t)rand() % 3U);

			for (size_t j = 0; j < length; j++)
				texts[i][j] = letters[(size_t)rand() % kinds];
			texts[i][length] = '\0';
			patterns[i] = (struct byte_pattern){ (uint8_t *)texts[i], length, i };
		}
		byte_automaton_release(automaton);
		ck_assert_int_eq(
			byte_automaton_new(patterns, TEXTS, form_escape_stops, false, &automaton),
			0);
		make_text(texts, text, sizeof(text));
		read_plainly(patterns, text, &expected);
		scan(text, 1 + (size_t)rand() % (1 + strlen(text)), &found);
		ck_assert_msg(found.count == expected.count, "%zu of %zu finds in %s of %s %s %s",
			      found.count, expected.count, text, texts[0], texts[1], texts[2]);
		for (size_t i = 0; i < expected.count; i++)
			ck_assert_msg(has(&found, &expected.list[i]), "%s: %u at %zu", text,
				      expected.list[i].tag, (size_t)expected.list[i].start);
		total += found.count;
	}
	ck_assert_uint_gt(total, 5000);
}
END_TEST

START_TEST(a_token_is_written_in_its_own_length)
{
	static const struct {
		const char *before;
		uint8_t byte;
		const char *after;
	} samples[] = {
		{ "a", 'b', "b" },
		{ "%2F", 'z', "%7a" },
		{ "\\u0041", 'k', "\\u006b" },
		{ "\\uFF41", 'k', "\\u006b" },
		{ "\\/", '"', "\\\"" },
		{ "\\/", 'a', "aa" },
	};

	for (size_t i = 0; i < ARRAY_LENGTH(samples); i++) {
		char text[8];

		snprintf(text, sizeof(text), "%s", samples[i].before);
		form_token_write((uint8_t *)text, strlen(text), samples[i].byte);
		ck_assert_str_eq(text, samples[i].after);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("form_scanner");
	TCase *tests = tcase_create("form_scanner");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, build, tear_down);
	tcase_add_test(tests, it_is_found_as_it_is);
	tcase_add_test(tests, percent_escapes_are_undone);
	tcase_add_test(tests, json_escapes_are_undone);
	tcase_add_test(tests, an_escape_is_read_from_its_beginning);
	tcase_add_test(tests, both_are_undone_together);
	tcase_add_test(tests, base64_is_found_at_each_offset_and_in_both_alphabets);
	tcase_add_test(tests, base64_is_found_inside_escapes);
	tcase_add_test(tests, hexadecimal_is_found_in_both_cases);
	tcase_add_test(tests, no_more_is_kept_than_may_match);
	tcase_add_test(tests, it_finds_what_a_plain_reading_finds);
	tcase_add_test(tests, a_token_is_written_in_its_own_length);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
