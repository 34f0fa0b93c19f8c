/* proxy/http2_head.h: no field that HTTP/1 could not carry, whatever the library lets through. */
#include "proxy/http2_head.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"

static struct http_head *head;

static void set_up(void)
{
	head = http_head_new();
	ck_assert_ptr_nonnull(head);
}

static void tear_down(void)
{
	http_head_free(head);
}

static struct http_text text_of(const char *text)
{
	return (struct http_text){ text, strlen(text) };
}

static const struct {
	const char *name;
	const char *value;
	bool is_trailers;
	int result;
} fields[] = {
	{ ":method", "GET", false, 0 },
	{ ":method", "GE T", false, -EBADMSG },
	{ ":method", "", false, -EBADMSG },
	{ ":path", "/a?b", false, 0 },
	{ ":path", "/a b", false, -EBADMSG },
	{ ":path", "/a\r\nX: 1", false, -EBADMSG },
	{ ":path", "", false, -EBADMSG },
	{ ":status", "200", false, 0 },
	{ ":status", "101", false, -EBADMSG },
	{ ":status", "20", false, -EBADMSG },
	{ ":status", "2000", false, -EBADMSG },
	{ ":status", "2x0", false, -EBADMSG },
	{ ":status", "-20", false, -EBADMSG },
	{ ":protocol", "websocket", false, -EBADMSG },
	{ ":path", "/", true, -EBADMSG },
	{ "x-a", "b", false, 0 },
	{ "x-a", "b", true, 0 },
	{ "x-a", "", false, 0 },
	{ "x a", "b", false, -EBADMSG },
	{ "x:a", "b", false, -EBADMSG },
	{ "", "b", false, -EBADMSG },
	{ "x-a", "b\rc", false, -EBADMSG },
	{ "x-a", "b\nc", true, -EBADMSG },
	{ "x-a", " b", false, -EBADMSG },
};

START_TEST(what_http1_cannot_carry_is_not_taken)
{
	ck_assert_int_eq(http2_head_take(head, fields[_i].is_trailers, text_of(fields[_i].name),
					 text_of(fields[_i].value)),
			 fields[_i].result);
	if (fields[_i].result == 0)
		return;
	ck_assert_uint_eq(http_head_field_count(head), 0);
	ck_assert_uint_eq(http_head_size(head), 0);
	ck_assert_uint_eq(http_head_status(head), 0);
}
END_TEST

START_TEST(a_nul_is_not_taken)
{
	const struct http_text value = { "b\0c", 3 };

	ck_assert_int_eq(http2_head_take(head, false, text_of("x-a"), value), -EBADMSG);
}
END_TEST

START_TEST(a_text_need_not_end_with_a_nul)
{
	const struct http_text value = { "2049", 3 };

	ck_assert_int_eq(http2_head_take(head, false, text_of(":status"), value), 0);
	ck_assert_uint_eq(http_head_status(head), 204);
}
END_TEST

START_TEST(crumbs_become_one_cookie)
{
	ck_assert_int_eq(http2_head_take(head, false, text_of("cookie"), text_of("a=1")), 0);
	ck_assert_int_eq(http2_head_take(head, false, text_of("x"), text_of("y")), 0);
	ck_assert_int_eq(http2_head_take(head, false, text_of("cookie"), text_of("b=2")), 0);
	ck_assert_uint_eq(http_head_field_count(head), 2);
	ck_assert(http_text_is_exactly(http_head_field(head, 0).value, "a=1; b=2"));
}
END_TEST

START_TEST(a_head_is_bounded)
{
	static char value[40001];
	int result = 0;

	memset(value, 'a', sizeof(value) - 1);
	for (unsigned i = 0; i < 2 && result == 0; i++)
		result = http2_head_take(head, false, text_of(_i == 0 ? "x" : "cookie"),
					 text_of(value));
	ck_assert_int_eq(result, -E2BIG);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http2_head");
	TCase *tests = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_loop_test(tests, what_http1_cannot_carry_is_not_taken, 0, ARRAY_LENGTH(fields));
	tcase_add_test(tests, a_nul_is_not_taken);
	tcase_add_test(tests, a_text_need_not_end_with_a_nul);
	tcase_add_test(tests, crumbs_become_one_cookie);
	tcase_add_loop_test(tests, a_head_is_bounded, 0, 2);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
