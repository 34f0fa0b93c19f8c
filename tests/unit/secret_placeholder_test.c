/* proxy/secret_placeholder.h: placeholders look like their secrets and tell nothing of them. */
#include "proxy/secret_placeholder.h"

#include <check.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

static char placeholder[4096];

static size_t make(const char *value)
{
	size_t kept = 0;

	memset(placeholder, 0, sizeof(placeholder));
	ck_assert_int_eq(secret_placeholder_make(value, strlen(value), 0, placeholder, &kept), 0);
	ck_assert_uint_eq(strlen(placeholder), strlen(value));
	ck_assert_str_ne(placeholder, value);
	ck_assert_mem_eq(placeholder, value, kept);
	for (size_t i = 0; value[i]; i++) {
		unsigned char was = (unsigned char)value[i];
		unsigned char is = (unsigned char)placeholder[i];

		ck_assert(!islower(was) == !islower(is));
		ck_assert(!isupper(was) == !isupper(is));
		ck_assert(!isdigit(was) == !isdigit(is));
		ck_assert(isalnum(was) || was == is);
	}
	return kept;
}

static const struct {
	const char *value;
	size_t kept;
} samples[] = {
	{ "sk-ant-api03-abcDEF0123456789-_xyz", 13 },
	{ "sk-proj-abcDEF0123456789", 8 },
	{ "ghp_0123456789abcdefghijABCDEFGHIJ123456", 4 },
	{ "github_pat_11ABCDEFG0abcdefghijkl_mnopqr", 11 },
	{ "AKIAIOSFODNN7EXAMPLE", 4 },
	{ "xoxb-123456789012-abcdefABCDEF", 5 },
	{ "glpat-aaaabbbbccccdddd", 6 },
	{ "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", 0 },
	{ "correct horse battery", 0 },
	{ "p@ssw0rd-1", 0 },
	{ "sk-short1", 0 }, /* too little would remain */
	{ "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijklmnopqrstuv0123", 37 },
	{ "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.short", 0 },
};

START_TEST(the_prefix_stays_and_the_rest_keeps_its_classes)
{
	ck_assert_uint_eq(make(samples[_i].value), samples[_i].kept);
}
END_TEST

START_TEST(alphabets_stay)
{
	for (int round = 0; round < 100; round++) {
		make("0123456789abcdef0123456789abcdef");
		ck_assert_uint_eq(strspn(placeholder, "0123456789abcdef"), 32);
		make("0123456789ABCDEF");
		ck_assert_uint_eq(strspn(placeholder, "0123456789ABCDEF"), 16);
		make("AKIAIOSFODNN7EXAMPLE");
		ck_assert_uint_eq(strspn(placeholder, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"), 20);
		make("5bd1a9a2-8e3c-4f6d-9a1b-0c2d3e4f5a6b");
		ck_assert_int_eq(placeholder[14], '4');
		ck_assert_int_eq(placeholder[19], '9');
		ck_assert_int_eq(placeholder[8], '-');
	}
}
END_TEST

START_TEST(the_callers_prefix_is_kept)
{
	size_t kept = 0;

	ck_assert_int_eq(secret_placeholder_make("corp_abcdefghij", 15, 5, placeholder, &kept), 0);
	ck_assert_uint_eq(kept, 5);
	ck_assert_mem_eq(placeholder, "corp_", 5);
	ck_assert_int_eq(secret_placeholder_make("corp_abcdefghij", 15, 10, placeholder, &kept),
			 -EINVAL);
	ck_assert_int_eq(secret_placeholder_make("corp_abcdefghij", 15, 15, placeholder, &kept),
			 -EINVAL);
}
END_TEST

START_TEST(too_little_to_change_is_refused)
{
	size_t kept;

	ck_assert_int_eq(secret_placeholder_make("!!!!abcde!!!!", 13, 0, placeholder, &kept),
			 -EINVAL);
	ck_assert_int_eq(secret_placeholder_make("!!!!abcdef!!!", 13, 0, placeholder, &kept), 0);
}
END_TEST

/* No two are alike, and each character of a class comes up: a stuck source would show. */
START_TEST(they_are_drawn_evenly)
{
	unsigned counts[26] = { 0 };
	char last[27] = "";

	for (int round = 0; round < 400; round++) {
		make("abcdefghijklmnopqrstuvwxyz");
		ck_assert_str_ne(placeholder, last);
		memcpy(last, placeholder, 26);
		for (int i = 0; i < 26; i++)
			counts[placeholder[i] - 'a']++;
	}
	/* 400 are expected of each; 200 or 600 are ten standard deviations away. */
	for (int i = 0; i < 26; i++)
		ck_assert(counts[i] > 200 && counts[i] < 600);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("secret_placeholder");
	TCase *tests = tcase_create("secret_placeholder");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tests, the_prefix_stays_and_the_rest_keeps_its_classes, 0,
			    (int)ARRAY_LENGTH(samples));
	tcase_add_test(tests, alphabets_stay);
	tcase_add_test(tests, the_callers_prefix_is_kept);
	tcase_add_test(tests, too_little_to_change_is_refused);
	tcase_add_test(tests, they_are_drawn_evenly);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
