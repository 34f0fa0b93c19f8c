/* base/escape.h: what may reach a terminal, and the way back. */
#include "base/escape.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *escaped(const char *text, size_t length)
{
	static char output[1024];

	escape_text(text, length, output, sizeof(output));
	return output;
}

#define ESCAPED(literal) escaped(literal, sizeof(literal) - 1)

START_TEST(unsafe_characters_are_spelt_out)
{
	ck_assert_str_eq(ESCAPED("plain text/with.dots"), "plain text/with.dots");
	ck_assert_str_eq(ESCAPED("gr\xc3\xbc\xc3\x9f \xe4\xb8\xad \xf0\x9f\x98\x80"),
			 "gr\xc3\xbc\xc3\x9f \xe4\xb8\xad \xf0\x9f\x98\x80");
	ck_assert_str_eq(ESCAPED("\033[31m"), "\\x1b[31m");
	ck_assert_str_eq(ESCAPED("a\nb\tc\rd"), "a\\nb\\tc\\x0dd");
	ck_assert_str_eq(ESCAPED("back\\slash"), "back\\\\slash");
	ck_assert_str_eq(ESCAPED("\x7f"), "\\x7f");
	ck_assert_str_eq(ESCAPED("nul\0!"), "nul\\x00!");
	ck_assert_str_eq(ESCAPED("\xc2\x9b"), "\\u{009b}");
	ck_assert_str_eq(ESCAPED("\xe2\x80\xae"), "\\u{202e}");
	ck_assert_str_eq(ESCAPED("\xe2\x80\xa8"), "\\u{2028}");
	ck_assert_str_eq(ESCAPED("\xef\xbb\xbf"), "\\u{feff}");
	ck_assert_str_eq(ESCAPED("\xd8\x9c"), "\\u{061c}");
}
END_TEST

START_TEST(malformed_utf8_is_bytes)
{
	ck_assert_str_eq(ESCAPED("\xff\xfe"), "\\xff\\xfe");
	ck_assert_str_eq(ESCAPED("\x80"), "\\x80");
	ck_assert_str_eq(ESCAPED("\xc0\xaf"), "\\xc0\\xaf");
	ck_assert_str_eq(ESCAPED("\xe0\x80\xaf"), "\\xe0\\x80\\xaf");
	ck_assert_str_eq(ESCAPED("\xed\xa0\x80"), "\\xed\\xa0\\x80");
	ck_assert_str_eq(ESCAPED("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
	ck_assert_str_eq(ESCAPED("cut\xe4\xb8"), "cut\\xe4\\xb8");
}
END_TEST

START_TEST(output_is_cut_between_escapes)
{
	char output[8];

	ck_assert_uint_eq(escape_text("abcdefghij", 10, output, sizeof(output)), 7);
	ck_assert_str_eq(output, "abcdefg");
	ck_assert_uint_eq(escape_text("abcde\033", 6, output, sizeof(output)), 5);
	ck_assert_str_eq(output, "abcde");
	ck_assert_uint_eq(escape_text("abcd\xf0\x9f\x98\x80", 8, output, sizeof(output)), 4);
	ck_assert_str_eq(output, "abcd");
	ck_assert_uint_eq(escape_text("x", 1, output, 1), 0);
	ck_assert_str_eq(output, "");
}
END_TEST

START_TEST(utf8_is_decoded_by_the_table)
{
	uint32_t code_point = 7;

	ck_assert_uint_eq(utf8_decode("", 0, &code_point), 0);
	ck_assert_uint_eq(code_point, 7);
	ck_assert_uint_eq(utf8_decode("\xf4\x8f\xbf\xbf", 4, &code_point), 4);
	ck_assert_uint_eq(code_point, 0x10ffff);
	ck_assert_uint_eq(utf8_decode("\xed\x9f\xbf", 3, &code_point), 3);
	ck_assert_uint_eq(code_point, 0xd7ff);
	ck_assert_uint_eq(utf8_decode("\xf8\x88\x80\x80\x80", 5, &code_point), 0);
	ck_assert_uint_eq(utf8_decode("\xc3", 1, &code_point), 0);
	ck_assert_uint_eq(utf8_decode("\xc3(", 2, &code_point), 0);
}
END_TEST

/* Every byte pair in a frame of two others, some thousands of random strings. */
START_TEST(unescaping_gives_the_bytes_back)
{
	char text[24];
	char form[4 * sizeof(text) + 1];
	char back[sizeof(form)];
	unsigned seed = 1;

	for (unsigned i = 0; i < 65536 + 20000; i++) {
		size_t length = i < 65536 ? 4 : i % sizeof(text);
		size_t form_length;

		for (size_t k = 0; k < length; k++) {
			seed = seed * 1103515245u + 12345u;
			text[k] = (char)(seed >> 16);
		}
		if (i < 65536) {
			text[0] = '\\';
			text[1] = (char)(i >> 8);
			text[2] = (char)i;
			text[3] = '{';
		}
		form_length = escape_text(text, length, form, sizeof(form));
		for (size_t k = 0; k < form_length; k++) {
			if ((unsigned char)form[k] < 0x20)
				ck_abort_msg("round %u: a raw control character", i);
		}
		if (unescape_text(form, form_length, back) != (ssize_t)length ||
		    memcmp(back, text, length) != 0)
			ck_abort_msg("round %u came back as something else: %s", i, form);
	}
}
END_TEST

START_TEST(unescaping_refuses_what_escaping_does_not_write)
{
	static const char *const bad[] = {
		"\\",	 "\\q",	     "\\x",	"\\x1",	   "\\xg0",	  "\\xFF",
		"\\u{}", "\\u{0041", "\\u{41}", "\\u{zz}", "\\u{110000}", "\\u0041",
	};
	char output[32];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(unescape_text(bad[i], strlen(bad[i]), output) == -EBADMSG,
			      "%s was taken", bad[i]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("escape");
	TCase *tests = tcase_create("escape");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, unsafe_characters_are_spelt_out);
	tcase_add_test(tests, malformed_utf8_is_bytes);
	tcase_add_test(tests, output_is_cut_between_escapes);
	tcase_add_test(tests, utf8_is_decoded_by_the_table);
	tcase_add_test(tests, unescaping_gives_the_bytes_back);
	tcase_add_test(tests, unescaping_refuses_what_escaping_does_not_write);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
