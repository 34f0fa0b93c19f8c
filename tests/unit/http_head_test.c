/* proxy/http_head.h: what is put in comes out, whatever moves underneath; the caps. */
#include "proxy/http_head.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add(struct http_head *head, const char *name, const char *value)
{
	ck_assert_int_eq(http_head_add(head, name, strlen(name), value, strlen(value)), 0);
}

static void must_be(struct http_text text, const char *wanted)
{
	ck_assert_msg(http_text_is_exactly(text, wanted), "%.*s is not %s", (int)text.length,
		      text.data, wanted);
}

static bool has(const struct http_head *head, const char *text)
{
	struct http_text texts = http_head_texts(head);

	return memmem(texts.data, texts.length, text, strlen(text)) != NULL;
}

START_TEST(texts_come_back)
{
	struct http_head *head = http_head_new();

	must_be(http_head_method(head), "");
	must_be(http_head_texts(head), "");
	ck_assert_uint_eq(http_head_field_count(head), 0);
	ck_assert_int_eq(http_head_set_method(head, "GET", 3), 0);
	ck_assert_int_eq(http_head_set_scheme(head, "https", 5), 0);
	ck_assert_int_eq(http_head_set_authority(head, "example.test", 12), 0);
	ck_assert_int_eq(http_head_set_path(head, "/a?b", 4), 0);
	http_head_set_status(head, 204);
	add(head, "Accept", "*/*");
	add(head, "Empty", "");
	must_be(http_head_method(head), "GET");
	must_be(http_head_scheme(head), "https");
	must_be(http_head_authority(head), "example.test");
	must_be(http_head_path(head), "/a?b");
	ck_assert_uint_eq(http_head_status(head), 204);
	must_be(http_head_field(head, 0).name, "Accept");
	must_be(http_head_field(head, 1).value, "");
	ck_assert_uint_eq(http_head_size(head), 3 + 5 + 12 + 4 + 6 + 3 + 5);
	ck_assert(has(head, "GET") && has(head, "https") && has(head, "example.test") &&
		  has(head, "/a?b") && has(head, "Accept") && has(head, "*/*") &&
		  has(head, "Empty"));
	http_head_clear(head);
	must_be(http_head_texts(head), "");
	ck_assert_uint_eq(http_head_size(head), 0);
	must_be(http_head_path(head), "");
	http_head_free(head);
}
END_TEST

START_TEST(fields_are_found_replaced_and_removed)
{
	struct http_head *head = http_head_new();

	add(head, "Cookie", "a=1");
	add(head, "Authorization", "Bearer placeholder");
	add(head, "cookie", "b=2");
	ck_assert_int_eq(http_head_find(head, "COOKIE", 0), 0);
	ck_assert_int_eq(http_head_find(head, "COOKIE", 1), 2);
	ck_assert_int_eq(http_head_find(head, "Cook", 0), -ENOENT);
	ck_assert_int_eq(http_head_replace(head, 1, "Bearer secret", 13, true), 0);
	must_be(http_head_field(head, 1).value, "Bearer secret");
	ck_assert(http_head_field(head, 1).is_sensitive);
	ck_assert(has(head, "Bearer secret"));
	http_head_remove_all(head, "cookie");
	ck_assert_uint_eq(http_head_field_count(head), 1);
	must_be(http_head_field(head, 0).name, "Authorization");
	ck_assert_uint_eq(http_head_size(head), 13 + 13);
	http_head_free(head);
}
END_TEST

START_TEST(the_arena_moves_without_loss)
{
	struct http_head *head = http_head_new();
	char value[64];

	ck_assert_int_eq(http_head_set_path(head, "/", 1), 0);
	for (int i = 0; i < 100; i++) {
		snprintf(value, sizeof(value), "value %d", i);
		add(head, "Name", value);
	}
	for (int i = 0; i < 100000; i++) {
		snprintf(value, sizeof(value), "new value %d", i);
		ck_assert_int_eq(
			http_head_replace(head, (size_t)i % 100, value, strlen(value), false), 0);
	}
	for (int i = 0; i < 100; i++) {
		snprintf(value, sizeof(value), "new value %d", 99900 + i);
		must_be(http_head_field(head, (size_t)i).value, value);
		must_be(http_head_field(head, (size_t)i).name, "Name");
	}
	/* A text of the head itself, again and again, so that it is moved at some point. */
	for (int i = 0; i < 20000; i++) {
		struct http_text text = http_head_field(head, (size_t)i % 100).value;

		ck_assert_int_eq(http_head_set_authority(head, text.data, text.length), 0);
	}
	must_be(http_head_authority(head), "new value 99999");
	http_head_free(head);
}
END_TEST

START_TEST(caps_hold_and_leave_the_head_as_it_was)
{
	struct http_head *head = http_head_new();
	char *big = calloc(1, HTTP_HEAD_SIZE_MAX + 1);

	memset(big, 'x', HTTP_HEAD_SIZE_MAX + 1);
	ck_assert_int_eq(http_head_set_path(head, big, HTTP_HEAD_SIZE_MAX + 1), -E2BIG);
	ck_assert_int_eq(http_head_set_path(head, big, SIZE_MAX), -E2BIG);
	ck_assert_int_eq(http_head_set_path(head, big, HTTP_HEAD_SIZE_MAX - 2), 0);
	ck_assert_int_eq(http_head_add(head, "ab", 2, "c", 1), -E2BIG);
	ck_assert_int_eq(http_head_add(head, "ab", 2, big, SIZE_MAX), -E2BIG);
	ck_assert_uint_eq(http_head_field_count(head), 0);
	add(head, "a", "b");
	ck_assert_int_eq(http_head_replace(head, 0, "bb", 2, true), -E2BIG);
	must_be(http_head_field(head, 0).value, "b");
	ck_assert(!http_head_field(head, 0).is_sensitive);
	/* Exchanging one big text for another fits. */
	ck_assert_int_eq(http_head_set_path(head, big, HTTP_HEAD_SIZE_MAX - 2), 0);
	ck_assert_int_eq(http_head_set_path(head, "/", 1), 0);
	for (size_t i = 1; i < HTTP_FIELDS_MAX; i++)
		add(head, "a", "b");
	ck_assert_int_eq(http_head_add(head, "a", 1, "b", 1), -E2BIG);
	http_head_free(head);
	free(big);
}
END_TEST

START_TEST(lists_are_taken_apart)
{
	static const char text[] = " ,gzip\t, chunked,,x y ,";
	struct http_text list = { text, strlen(text) };
	struct http_text element;

	ck_assert(http_text_next_element(&list, &element));
	must_be(element, "gzip");
	ck_assert(http_text_next_element(&list, &element));
	must_be(element, "chunked");
	ck_assert(http_text_next_element(&list, &element));
	must_be(element, "x y");
	ck_assert(!http_text_next_element(&list, &element));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http_head");
	TCase *tcase = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, texts_come_back);
	tcase_add_test(tcase, fields_are_found_replaced_and_removed);
	tcase_add_test(tcase, the_arena_moves_without_loss);
	tcase_add_test(tcase, caps_hold_and_leave_the_head_as_it_was);
	tcase_add_test(tcase, lists_are_taken_apart);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
