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
	struct form_match list[64];
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
	tcase_add_test(tests, both_are_undone_together);
	tcase_add_test(tests, base64_is_found_at_each_offset_and_in_both_alphabets);
	tcase_add_test(tests, base64_is_found_inside_escapes);
	tcase_add_test(tests, hexadecimal_is_found_in_both_cases);
	tcase_add_test(tests, no_more_is_kept_than_may_match);
	tcase_add_test(tests, a_token_is_written_in_its_own_length);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
