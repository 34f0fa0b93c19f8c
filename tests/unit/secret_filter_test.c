/*
 * proxy/secret_filter.h: no value reaches the guest and no placeholder another host, in any form
 * and however the body is cut; what goes through keeps its length and is not delayed.
 */
#include <check.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "proxy/secret_filter.h"
#include "tests/unit/secret_filter_world.h"

static int feed_buffer(struct body_filter *filter, const char *data, size_t length,
		       struct byte_buffer *out)
{
	struct byte_buffer in;
	struct byte_buffer piece;
	int result;

	byte_buffer_init(&in, 65536);
	byte_buffer_init(&piece, 65536);
	ck_assert_int_eq(byte_buffer_append(&in, data, length), 0);
	result = filter->feed_buffer(filter, &in, false, &piece);
	ck_assert(result != 0 || byte_buffer_length(&in) == 0);
	ck_assert_int_eq(
		byte_buffer_append(out, byte_buffer_front(&piece), byte_buffer_length(&piece)), 0);
	byte_buffer_release(&in);
	byte_buffer_release(&piece);
	return result;
}

/* Feeds `text` up to the cut in one piece, in a buffer or not, and then byte by byte; the output,
 * with a NUL, in `output`. */
static int run(struct body_filter *filter, const char *text, size_t cut, char *output, size_t size)
{
	struct byte_buffer out;
	size_t length = strlen(text);
	int result;

	byte_buffer_init(&out, 65536);
	if (cut % 2 == 1)
		result = feed_buffer(filter, text, cut, &out);
	else
		result = filter->feed(filter, (const uint8_t *)text, cut, false, &out);
	for (size_t at = cut; result == 0 && at < length; at++) {
		/* Of the exact size, so that a read past the end is seen. */
		uint8_t *byte = malloc(1);

		ck_assert_ptr_nonnull(byte);
		*byte = (uint8_t)text[at];
		result = filter->feed(filter, byte, 1, false, &out);
		free(byte);
	}
	if (result == 0)
		result = filter->feed(filter, NULL, 0, true, &out);
	ck_assert_uint_lt(byte_buffer_length(&out), size);
	if (byte_buffer_length(&out) > 0)
		memcpy(output, byte_buffer_front(&out), byte_buffer_length(&out));
	output[byte_buffer_length(&out)] = '\0';
	byte_buffer_release(&out);
	return result;
}

static void expect_redacted(const char *text, const char *expected)
{
	char output[4096];
	char *copy = NULL;

	for (size_t cut = 0; cut <= strlen(text); cut++) {
		struct body_filter *filter = secret_response_filter_new(store);

		ck_assert_ptr_nonnull(filter);
		ck_assert_int_eq(run(filter, text, cut, output, sizeof(output)), 0);
		ck_assert_str_eq(output, expected);
		filter->free(filter);
	}
	ck_assert_int_eq(secret_redact(store, text, strlen(text), &copy),
			 strcmp(text, expected) != 0);
	ck_assert_mem_eq(copy ? copy : text, expected, strlen(expected));
	free(copy);
}

/* Both texts with each '@' standing for the value and the placeholder, changed by `write`. */
static void expect_form(const char *frame, void (*write)(const char *text, char *output))
{
	char texts[2][2048];
	const char *sources[2] = { VALUE, placeholder(KEY) };

	for (int i = 0; i < 2; i++) {
		size_t used = 0;

		for (const char *at = frame; *at; at++) {
			if (*at == '@') {
				write(sources[i], texts[i] + used);
				used += strlen(texts[i] + used);
			} else {
				texts[i][used++] = *at;
			}
		}
		texts[i][used] = '\0';
	}
	expect_redacted(texts[0], texts[1]);
}

static void as_it_is(const char *text, char *output)
{
	snprintf(output, 512, "%s", text);
}

static void percent(const char *text, char *output)
{
	for (; *text; text++)
		output += strchr("/+", *text) ? snprintf(output, 4, "%%%02X", *text)
					      : snprintf(output, 4, "%c", *text);
}

static void percent_all(const char *text, char *output)
{
	for (; *text; text++)
		output += snprintf(output, 4, "%%%02x", *text);
}

static void percent_every_third(const char *text, char *output)
{
	for (int i = 0; text[i]; i++)
		output += i % 3 == 0 ? snprintf(output, 4, "%%%02x", text[i])
				     : snprintf(output, 4, "%c", text[i]);
}

static void json_slashes(const char *text, char *output)
{
	for (; *text; text++)
		output += snprintf(output, 4, *text == '/' ? "\\%c" : "%c", *text);
}

static void json_all(const char *text, char *output)
{
	for (; *text; text++)
		output += snprintf(output, 8, "\\u%04x", *text);
}

static void json_some(const char *text, char *output)
{
	for (int i = 0; text[i]; i++)
		output += i % 4 == 1 ? snprintf(output, 8, "\\u00%02x", text[i])
				     : snprintf(output, 4, "%c", text[i]);
}

static void hex(const char *text, char *output)
{
	for (; *text; text++)
		output += snprintf(output, 4, "%02x", *text);
}

static void hex_capital(const char *text, char *output)
{
	for (; *text; text++)
		output += snprintf(output, 4, "%02X", *text);
}

static void (*const writers[])(const char *, char *) = {
	as_it_is, percent,   percent_all, percent_every_third, json_slashes,
	json_all, json_some, hex,	  hex_capital,
};

START_TEST(a_value_becomes_its_placeholder_in_every_form)
{
	expect_form("{\"you_sent\": \"@\"}\n", writers[_i]);
	expect_form("@", writers[_i]);
	expect_form("@@ sk-ant-api03- @", writers[_i]);
}
END_TEST

/* The tail alone is what opens something. */
START_TEST(a_value_without_its_prefix_is_found)
{
	const struct secret *key = secret_store_get(store, KEY);

	expect_redacted(&usual[KEY].value[key->kept], key->placeholder + key->kept);
}
END_TEST

/* base64 of before + text + after, in either alphabet, with padding or without. */
static void base64(const char *text, int before, int after, bool for_url, char *output)
{
	uint8_t bytes[256];
	size_t length = strlen(text);

	memset(bytes, 'u', sizeof(bytes));
	memcpy(bytes + before, text, length);
	EVP_EncodeBlock((uint8_t *)output, bytes, before + (int)length + after);
	if (!for_url)
		return;
	output[strcspn(output, "=")] = '\0';
	for (; *output; output++)
		*output = (char)(*output == '+' ? '-' : *output == '/' ? '_' : *output);
}

/* Where what is secret does not begin or end with a group, one character there has bits of both. */
static void expect_base64(int before, int after, bool for_url)
{
	char sent[512];
	char wanted[512];
	char output[512];

	base64(VALUE, before, after, for_url, sent);
	base64(placeholder(KEY), before, after, for_url, wanted);
	for (size_t cut = 0; cut <= strlen(sent); cut++) {
		struct body_filter *filter = secret_response_filter_new(store);
		size_t last = 8 * ((size_t)before + strlen(VALUE)) / 6;
		size_t first = 8 * ((size_t)before + secret_store_get(store, KEY)->kept) / 6;

		ck_assert_ptr_nonnull(filter);
		ck_assert_int_eq(run(filter, sent, cut, output, sizeof(output)), 0);
		filter->free(filter);
		ck_assert_uint_eq(strlen(output), strlen(wanted));
		for (size_t i = 0; wanted[i]; i++) {
			if (strchr("+/-_", wanted[i]) || strchr("+/-_", output[i]))
				continue; /* the alphabet may be unknown */
			if (i != first && i != last)
				ck_assert_msg(output[i] == wanted[i], "%s is not %s at %zu", output,
					      wanted, i);
		}
	}
}

START_TEST(base64_is_redacted_at_each_offset)
{
	for (int before = 0; before < 4; before++) {
		for (int after = 0; after < 3; after++) {
			expect_base64(before, after, false);
			expect_base64(before, after, true);
		}
	}
}
END_TEST

START_TEST(basic_credentials_are_redacted)
{
	char output[512];
	char text[512] = "Authorization: Basic ";
	uint8_t decoded[512];
	struct body_filter *filter = secret_response_filter_new(store);
	int length;

	EVP_EncodeBlock((uint8_t *)text + strlen(text), (const uint8_t *)("user:" VALUE),
			(int)strlen("user:" VALUE));
	ck_assert_ptr_nonnull(filter);
	ck_assert_int_eq(run(filter, text, 5, output, sizeof(output)), 0);
	filter->free(filter);
	length = EVP_DecodeBlock(decoded, (const uint8_t *)output + 21, (int)strlen(output + 21));
	ck_assert_int_gt(length, 0);
	ck_assert_mem_eq(decoded, "user:", 5);
	ck_assert_mem_eq(decoded + 5, placeholder(KEY), strlen(VALUE) - 1);
}
END_TEST

START_TEST(what_is_no_secret_stays)
{
	expect_redacted("", "");
	expect_redacted("sk-ant-api03-", "sk-ant-api03-");
	expect_redacted("sk-ant-api03-Ab/C", "sk-ant-api03-Ab/C");
	expect_redacted("%%% \\u \\u00 %4 Ab/C", "%%% \\u \\u00 %4 Ab/C");
	expect_redacted(placeholder(KEY), placeholder(KEY));
	expect_redacted(usual[DECOY].value, usual[DECOY].value);
}
END_TEST

START_TEST(all_but_the_last_character_is_no_secret)
{
	const char *text = "sk-ant-api03-Ab/C012+def345Gh";
	char output[64];

	for (size_t cut = 0; cut <= strlen(text); cut++) {
		struct body_filter *filter = secret_response_filter_new(store);

		ck_assert_int_eq(run(filter, text, cut, output, sizeof(output)), 0);
		ck_assert_str_eq(output, text);
		filter->free(filter);
		/* One that has not been probed yet. */
		tear_down();
		build();
	}
}
END_TEST

START_TEST(secrets_that_overlap_are_all_gone)
{
	static const struct fixture_secret two[] = {
		{ .name = "A", .value = "abcdefgh12", .host = "a.test" },
		{ .name = "B", .value = "abcdefgh12345678", .host = "a.test" },
		{ .name = "C", .value = "12345678zyxwvuts", .host = "a.test" },
	};
	struct secret_store *other = fixture_store(two, 3);
	const char *text = "abcdefgh12345678zyxwvuts";
	char output[128];

	ck_assert_ptr_nonnull(other);
	for (size_t cut = 0; cut <= strlen(text); cut++) {
		struct body_filter *filter = secret_response_filter_new(other);

		ck_assert_int_eq(run(filter, text, cut, output, sizeof(output)), 0);
		filter->free(filter);
		ck_assert_mem_eq(output, secret_store_get(other, 1)->placeholder, 8);
		ck_assert_str_eq(output + 8, secret_store_get(other, 2)->placeholder);
	}
	secret_store_free(other);
}
END_TEST

/* After each byte, what is missing from the output is at most what a value begins with. */
START_TEST(nothing_is_held_back_that_cannot_become_a_secret)
{
	const char *text = "event: x\ndata: hello Ab/C0 wor%6cd\\n\n\n" VALUE "\n\n";
	struct body_filter *filter = secret_response_filter_new(store);
	struct byte_buffer out;
	size_t fed = 0;

	byte_buffer_init(&out, 4096);
	for (const char *at = text; *at; at++) {
		size_t behind;

		ck_assert_int_eq(filter->feed(filter, (const uint8_t *)at, 1, false, &out), 0);
		behind = ++fed - byte_buffer_length(&out);
		if (*at == '\n' || *at == ':' || *at == ' ' || at[1] == '\n')
			ck_assert_msg(behind == 0, "%zu held at %s", behind, at);
		ck_assert_uint_lt(behind, strlen(VALUE));
	}
	byte_buffer_release(&out);
	filter->free(filter);
}
END_TEST

/* An answer of two pieces. */
static int answer_in_two(const char *first, const char *second)
{
	struct body_filter *filter = secret_response_filter_new(store);
	struct byte_buffer out;
	int result;

	byte_buffer_init(&out, 4096);
	result = filter->feed(filter, (const uint8_t *)first, strlen(first), false, &out);
	if (result == 0)
		result = filter->feed(filter, (const uint8_t *)second, strlen(second), true, &out);
	byte_buffer_release(&out);
	filter->free(filter);
	return result;
}

START_TEST(guessing_a_value_by_pauses_ends)
{
	/* Neither what goes on to be the value counts, nor what pauses early in it. */
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(answer_in_two("Ab/C012+d", "ef345Ghi"), 0);
		ck_assert_int_eq(answer_in_two("Ab/C", "x"), 0);
		ck_assert_int_eq(answer_in_two("sk-ant-api03-", "x"), 0);
		ck_assert_int_eq(answer_in_two("Ab/C012+dx", "x"), 0);
	}
	ck_assert(!secret_store_is_probed(store));
	for (unsigned i = 0; i < SECRET_PROBES_MAX; i++)
		ck_assert_int_eq(answer_in_two("Ab/C012+d", i % 2 ? "x" : ""), 0);
	ck_assert(!secret_store_is_probed(store));
	ck_assert_int_eq(answer_in_two("Ab/C0", "x"), -EACCES);
	ck_assert(secret_store_is_probed(store));
	/* From now on nothing tells a right guess from a wrong one. */
	ck_assert_int_eq(answer_in_two("Ab/C0", "x"), -EACCES);
	ck_assert_int_eq(answer_in_two("hello", "x"), -EACCES);
}
END_TEST

START_TEST(a_full_output_takes_nothing)
{
	struct body_filter *filter = secret_response_filter_new(store);
	char expected[128];
	struct byte_buffer out;

	byte_buffer_init(&out, 64);
	ck_assert_int_eq(filter->feed(filter, (const uint8_t *)"xx" VALUE, 12, false, &out), 0);
	ck_assert_int_eq(filter->feed(filter, (const uint8_t *)VALUE VALUE VALUE, 90, false, &out),
			 -ENOBUFS);
	ck_assert_int_eq(filter->feed(filter, (const uint8_t *)VALUE + 10, 20, true, &out), 0);
	snprintf(expected, sizeof(expected), "xx%s", placeholder(KEY));
	ck_assert_uint_eq(byte_buffer_length(&out), strlen(expected));
	ck_assert_mem_eq(byte_buffer_front(&out), expected, strlen(expected));
	byte_buffer_release(&out);
	filter->free(filter);
}
END_TEST

/* ---- requests ---------------------------------------------------------------------------------
 */

/* Feeds the body cut at each place. Returns the refusal, which is always the same one. */
static enum secret_refusal send_body(const char *text, const char *expected, bool over_tls)
{
	enum secret_refusal refusal = SECRET_REFUSAL_NONE;
	char output[4096];

	for (size_t cut = 0; cut <= strlen(text); cut++) {
		struct secret_verdict verdict = { 0 };
		struct body_filter *filter = secret_request_filter_new(store, &bound, over_tls);
		int result = run(filter, text, cut, output, sizeof(output));

		secret_filter_report(filter, &verdict);
		if (cut > 0)
			ck_assert_int_eq(verdict.refusal, refusal);
		refusal = verdict.refusal;
		ck_assert_int_eq(result, refusal == SECRET_REFUSAL_NONE ? 0 : -EACCES);
		ck_assert((verdict.hint[0] != '\0') == (result == -EACCES));
		if (expected)
			ck_assert_str_eq(output, expected);
		else
			ck_assert_ptr_null(strstr(output, text));
		filter->free(filter);
	}
	return refusal;
}

static enum secret_refusal send_placeholder(size_t index, void (*write)(const char *, char *))
{
	char text[1024] = "a=";

	write(placeholder(index), text + 2);
	return send_body(text, NULL, true);
}

START_TEST(a_placeholder_for_another_host_ends_the_body)
{
	ck_assert_int_eq(send_placeholder(OTHER, writers[_i]), SECRET_REFUSAL_WRONG_HOST);
	ck_assert_int_eq(send_placeholder(DECOY, writers[_i]), SECRET_REFUSAL_CANARY);
}
END_TEST

START_TEST(so_it_does_in_base64)
{
	for (int before = 0; before < 3; before++) {
		char text[256];

		base64(placeholder(OTHER), before, 1, before == 1, text);
		ck_assert_int_eq(send_body(text, NULL, true), SECRET_REFUSAL_WRONG_HOST);
	}
}
END_TEST

START_TEST(nothing_of_it_goes_out_with_the_piece_that_completes_it)
{
	struct body_filter *filter = secret_request_filter_new(store, &bound, true);
	char text[128];
	struct byte_buffer out;

	snprintf(text, sizeof(text), "0123456789%s", placeholder(OTHER));
	byte_buffer_init(&out, 4096);
	ck_assert_int_eq(filter->feed(filter, (const uint8_t *)text, 15, false, &out), 0);
	ck_assert_uint_eq(byte_buffer_length(&out), 10);
	ck_assert_int_eq(
		filter->feed(filter, (const uint8_t *)text + 15, strlen(text) - 15, true, &out),
		-EACCES);
	ck_assert_uint_eq(byte_buffer_length(&out), 10);
	/* It stays over. */
	ck_assert_int_eq(filter->feed(filter, (const uint8_t *)"x", 1, true, &out), -EACCES);
	byte_buffer_release(&out);
	filter->free(filter);
}
END_TEST

START_TEST(a_placeholder_for_its_own_host_is_a_text)
{
	char text[256];

	snprintf(text, sizeof(text), "log: KEY=%s\n", placeholder(KEY));
	ck_assert_int_eq(send_body(text, text, true), SECRET_REFUSAL_NONE);
	ck_assert_int_eq(send_body(text, text, false), SECRET_REFUSAL_NONE);
}
END_TEST

static void json_string(const char *text, char *output)
{
	for (; *text; text++)
		output += snprintf(output, 4, strchr("\"\\", *text) ? "\\%c" : "%c", *text);
}

START_TEST(a_placeholder_is_replaced_in_the_body_where_that_is_allowed)
{
	static void (*const forms[])(const char *, char *) = {
		as_it_is, percent_all, json_string, json_all, percent_every_third,
	};

	for (size_t i = 0; i < ARRAY_LENGTH(forms); i++) {
		char text[1024] = "{\"token\":\"";
		char expected[1024] = "{\"token\":\"";

		forms[i](placeholder(BODY), text + strlen(text));
		forms[i](usual[BODY].value, expected + strlen(expected));
		snprintf(text + strlen(text), 16, "\"}");
		snprintf(expected + strlen(expected), 16, "\"}");
		ck_assert_int_eq(send_body(text, expected, true), SECRET_REFUSAL_NONE);
		ck_assert_int_eq(send_body(text, NULL, false), SECRET_REFUSAL_NEEDS_TLS);
	}
}
END_TEST

START_TEST(what_was_replaced_is_reported)
{
	struct body_filter *filter = secret_request_filter_new(store, &bound, true);
	struct secret_verdict verdict = { 0 };
	char output[256];

	ck_assert_int_eq(run(filter, "nothing", 3, output, sizeof(output)), 0);
	secret_filter_report(filter, &verdict);
	ck_assert(!verdict.is_injected && secret_set_is_empty(&verdict.used));
	filter->free(filter);
	filter = secret_request_filter_new(store, &bound, true);
	ck_assert_int_eq(run(filter, placeholder(BODY), 3, output, sizeof(output)), 0);
	secret_filter_report(filter, &verdict);
	ck_assert(verdict.is_injected && secret_set_has(&verdict.used, BODY));
	filter->free(filter);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("secret_filter");
	TCase *tests = tcase_create("secret_filter");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, build, tear_down);
	tcase_add_loop_test(tests, a_value_becomes_its_placeholder_in_every_form, 0,
			    (int)ARRAY_LENGTH(writers));
	tcase_add_test(tests, a_value_without_its_prefix_is_found);
	tcase_add_test(tests, base64_is_redacted_at_each_offset);
	tcase_add_test(tests, basic_credentials_are_redacted);
	tcase_add_test(tests, what_is_no_secret_stays);
	tcase_add_test(tests, all_but_the_last_character_is_no_secret);
	tcase_add_test(tests, secrets_that_overlap_are_all_gone);
	tcase_add_test(tests, nothing_is_held_back_that_cannot_become_a_secret);
	tcase_add_test(tests, guessing_a_value_by_pauses_ends);
	tcase_add_test(tests, a_full_output_takes_nothing);
	tcase_add_loop_test(tests, a_placeholder_for_another_host_ends_the_body, 0,
			    (int)ARRAY_LENGTH(writers));
	tcase_add_test(tests, so_it_does_in_base64);
	tcase_add_test(tests, nothing_of_it_goes_out_with_the_piece_that_completes_it);
	tcase_add_test(tests, a_placeholder_for_its_own_host_is_a_text);
	tcase_add_test(tests, a_placeholder_is_replaced_in_the_body_where_that_is_allowed);
	tcase_add_test(tests, what_was_replaced_is_reported);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
