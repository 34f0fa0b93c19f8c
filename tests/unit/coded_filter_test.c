/*
 * proxy/coded_filter.h: what a compressed body says is searched, it goes on byte for byte, and what
 * cannot be read for certain is refused.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "proxy/coded_filter.h"
#include "proxy/request_body.h"
#include "proxy/secret_filter.h"
#include "tests/unit/secret_fixture.h"

enum { KEY, OTHER, BODY, DECOY };

static const struct fixture_secret usual[] = {
	[KEY] = { .name = "KEY", .value = "sk-ant-api03-Ab/C012+def345Ghi", .host = "api.test" },
	[OTHER] = { .name = "OTHER", .value = "another-secret-0123", .host = "other.test" },
	[BODY] = { .name = "BODY",
		   .value = "in-a-body-0123456",
		   .host = "api.test",
		   .flags = SECRET_FLAG_BODY },
	[DECOY] = { .name = "DECOY", .value = "ghp_0123456789abcdefghij", .kind = SECRET_CANARY },
};

static struct secret_store *store;
static struct http_head *head;
static struct secret_verdict verdict;
static uint8_t packed[1 << 20];
static size_t packed_length;

static void build(void)
{
	struct host_name host;

	store = fixture_store(usual, ARRAY_LENGTH(usual));
	head = http_head_new();
	ck_assert(store && head);
	verdict = (struct secret_verdict){ .refusal = SECRET_REFUSAL_NONE };
	ck_assert_int_eq(host_name_parse("api.test", 8, &host), 0);
	secret_store_bound(store, &host, 443, &verdict.bound);
	packed_length = 0;
}

static void tear_down(void)
{
	secret_store_free(store);
	http_head_free(head);
}

/* One more member or stream of the text, repeated. */
static void pack(const char *text, unsigned times, int bits)
{
	z_stream stream = { 0 };

	ck_assert_int_eq(deflateInit2(&stream, 9, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
	stream.next_out = packed + packed_length;
	stream.avail_out = (uInt)(sizeof(packed) - packed_length);
	for (unsigned i = 0; i < times; i++) {
		stream.next_in = (Bytef *)(uintptr_t)text;
		stream.avail_in = (uInt)strlen(text);
		ck_assert_int_eq(deflate(&stream, Z_NO_FLUSH), Z_OK);
	}
	ck_assert_int_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
	packed_length += stream.total_out;
	deflateEnd(&stream);
}

#define GZIP (MAX_WBITS + 16)
#define DEFLATE MAX_WBITS

static void declare(const char *coding)
{
	ck_assert_int_eq(http_head_add(head, "Content-Encoding", 16, coding, strlen(coding)), 0);
}

/* The packed bytes in pieces; the refusal. What comes out is what went in. */
static enum secret_refusal run(size_t piece)
{
	struct body_filter *filter, *secrets;
	struct byte_buffer out;
	int error = request_body_filter(store, head, NULL, true, &verdict, &filter, &secrets);
	size_t at = 0;

	if (error == -EACCES)
		return verdict.refusal;
	ck_assert_int_eq(error, 0);
	byte_buffer_init(&out, sizeof(packed));
	do {
		size_t step = MIN_OF(piece, packed_length - at);

		error = filter->feed(filter, packed + at, step, at + step == packed_length, &out);
		at += step;
	} while (!error && at < packed_length);
	secret_filter_report(secrets, &verdict);
	ck_assert_int_eq(error, verdict.refusal == SECRET_REFUSAL_NONE ? 0 : -EACCES);
	ck_assert(error || byte_buffer_length(&out) == packed_length);
	if (byte_buffer_length(&out) > 0)
		ck_assert_mem_eq(byte_buffer_front(&out), packed, byte_buffer_length(&out));
	filter->free(filter);
	byte_buffer_release(&out);
	return verdict.refusal;
}

static const size_t pieces[] = { 1, 7, 1000, sizeof(packed) };

START_TEST(what_is_harmless_goes_on)
{
	declare(_i % 2 ? "GZIP" : "deflate");
	pack("harmless text. ", 5000, _i % 2 ? GZIP : DEFLATE);
	ck_assert_int_eq(run(pieces[_i / 2]), SECRET_REFUSAL_NONE);
}
END_TEST

static const struct {
	int secret;
	enum secret_refusal refusal;
} found[] = {
	{ KEY, SECRET_REFUSAL_NONE }, /* opens nothing */
	{ OTHER, SECRET_REFUSAL_WRONG_HOST },
	{ BODY, SECRET_REFUSAL_CODED }, /* would have to be replaced */
	{ DECOY, SECRET_REFUSAL_CANARY },
};

START_TEST(placeholders_are_found)
{
	size_t which = (size_t)_i % ARRAY_LENGTH(found);
	const char *placeholder = secret_store_get(store, (size_t)found[which].secret)->placeholder;

	declare("gzip");
	pack("some text before ", 3000, GZIP);
	pack(placeholder, 1, GZIP);
	ck_assert_int_eq(run(pieces[(size_t)_i / ARRAY_LENGTH(found)]), found[which].refusal);
}
END_TEST

START_TEST(one_that_is_split_over_members_is_found)
{
	const char *placeholder = secret_store_get(store, DECOY)->placeholder;
	char first[13] = "";

	declare("x-gzip");
	memcpy(first, placeholder, 12);
	pack(first, 1, GZIP);
	pack(placeholder + 12, 1, GZIP);
	ck_assert_int_eq(run(pieces[_i]), SECRET_REFUSAL_CANARY);
}
END_TEST

START_TEST(what_is_not_whole_is_refused)
{
	declare("gzip");
	pack("some text", 100, GZIP);
	switch (_i) {
	case 0:
		packed_length--;
		break;
	case 1: /* the sum */
		packed[packed_length - 6] ^= 1;
		break;
	case 2: /* behind the end */
		packed[packed_length++] = 'x';
		break;
	case 3:
		packed[packed_length++] = 0;
		break;
	default: /* no gzip at all */
		packed[0] = '{';
		break;
	}
	ck_assert_int_eq(run(pieces[2]), SECRET_REFUSAL_CODED);
	ck_assert_ptr_nonnull(strstr(verdict.hint, "pass_unread_bodies"));
}
END_TEST

START_TEST(deflate_has_one_form_and_one_end)
{
	declare("deflate");
	pack("some text", 100, _i == 0 ? -MAX_WBITS : DEFLATE);
	if (_i == 1)
		pack("more", 1, DEFLATE);
	ck_assert_int_eq(run(pieces[_i == 2 ? 0 : 2]),
			 _i == 2 ? SECRET_REFUSAL_NONE : SECRET_REFUSAL_CODED);
}
END_TEST

START_TEST(a_bomb_is_refused)
{
	static char zeros[4097];

	declare("gzip");
	memset(zeros, '0', sizeof(zeros) - 1);
	pack(zeros, 20000, GZIP);
	ck_assert_int_eq(run(pieces[_i + 2]), SECRET_REFUSAL_CODED);
	ck_assert_ptr_nonnull(strstr(verdict.hint, "too much"));
}
END_TEST

static const char *const unreadable[] = { "br",		"zstd",	   "compress",
					  "gzip, gzip", "gzip,br", "\033[1mx" };

START_TEST(another_coding_is_refused)
{
	declare(unreadable[_i]);
	ck_assert_int_eq(run(1), SECRET_REFUSAL_CODED);
	ck_assert_ptr_null(strchr(verdict.hint, '\033'));
}
END_TEST

START_TEST(or_passes_by_a_rule)
{
	const struct egress_rule rule = { .passes_unread_bodies = true };
	struct body_filter *filter, *secrets;

	declare("br");
	ck_assert_int_eq(request_body_filter(store, head, &rule, true, &verdict, &filter, &secrets),
			 0);
	ck_assert(!filter && !secrets);
	http_head_remove_all(head, "Content-Encoding");
	declare("identity, gzip");
	ck_assert_int_eq(request_body_filter(store, head, &rule, true, &verdict, &filter, &secrets),
			 0);
	ck_assert(filter && secrets);
	filter->free(filter);
}
END_TEST

START_TEST(two_fields_are_two_codings)
{
	declare("gzip");
	declare("gzip");
	ck_assert_int_eq(run(1), SECRET_REFUSAL_CODED);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("coded_filter");
	TCase *tests = tcase_create("coded_filter");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, build, tear_down);
	tcase_add_loop_test(tests, what_is_harmless_goes_on, 0, 2 * (int)ARRAY_LENGTH(pieces));
	tcase_add_loop_test(tests, placeholders_are_found, 0,
			    (int)(ARRAY_LENGTH(found) * ARRAY_LENGTH(pieces)));
	tcase_add_loop_test(tests, one_that_is_split_over_members_is_found, 0,
			    (int)ARRAY_LENGTH(pieces));
	tcase_add_loop_test(tests, what_is_not_whole_is_refused, 0, 5);
	tcase_add_loop_test(tests, deflate_has_one_form_and_one_end, 0, 3);
	tcase_add_loop_test(tests, a_bomb_is_refused, 0, 2);
	tcase_add_loop_test(tests, another_coding_is_refused, 0, (int)ARRAY_LENGTH(unreadable));
	tcase_add_test(tests, or_passes_by_a_rule);
	tcase_add_test(tests, two_fields_are_two_codings);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
