/*
 * proxy/secret_response.h and proxy/token_capture.h: an echo endpoint, a server that compresses all
 * the same, and one that hands out new tokens tell the guest nothing.
 */
#include "proxy/secret_response.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>

#include "proxy/secret_request.h"
#include "proxy/token_capture.h"
#include "tests/unit/secret_fixture.h"

#define VALUE "sk-ant-api03-AbC012def345Ghi"
#define TOKEN "ya29.A0AfH6SNabcdefgh-0123"
#define REFRESH "1//0gabcdefgh/ijklmnop"

enum { KEY, CLIENT, COOKIE };

static const struct fixture_secret usual[] = {
	[KEY] = { .name = "KEY", .value = VALUE, .host = "api.test" },
	[CLIENT] = { .name = "CLIENT",
		     .value = "client-secret-0123456",
		     .host = "auth.test",
		     .flags = SECRET_FLAG_BODY | SECRET_FLAG_CAPTURE },
	[COOKIE] = { .name = "COOKIE",
		     .value = "cookie-secret-0123456",
		     .host = "site.test",
		     .slot = "Cookie" },
};

static struct secret_store *store;
static struct http_head *head;
static struct secret_verdict verdict;
static struct body_filter *filter;

static void add(const char *name, const char *value)
{
	ck_assert_int_eq(http_head_add(head, name, strlen(name), value, strlen(value)), 0);
}

/* A request to the host that carries `value` in a header, or nothing; then an empty answer. */
static void ask(const char *host, const char *name, const char *value)
{
	struct secret_request request = { .port = 443, .is_verified = true };

	http_head_clear(head);
	http_head_set_method(head, "GET", 3);
	http_head_set_path(head, "/", 1);
	ck_assert_int_eq(host_name_parse(host, strlen(host), &request.host), 0);
	if (name)
		add(name, value);
	ck_assert_int_eq(secrets_prepare_request(store, head, &request, &verdict), 0);
	ck_assert_int_eq(verdict.refusal, SECRET_REFUSAL_NONE);
	http_head_clear(head);
	http_head_set_status(head, 200);
}

static void build(void)
{
	store = fixture_store(usual, ARRAY_LENGTH(usual));
	head = http_head_new();
	ck_assert_ptr_nonnull(store);
	ck_assert_ptr_nonnull(head);
	filter = NULL;
	ask("api.test", "x-api-key", secret_store_get(store, KEY)->placeholder);
}

static void tear_down(void)
{
	if (filter)
		filter->free(filter);
	http_head_free(head);
	secret_store_free(store);
}

static enum secret_refusal answer(bool has_body)
{
	if (filter)
		filter->free(filter);
	ck_assert_int_eq(secrets_prepare_response(store, head, has_body, &verdict, &filter), 0);
	return verdict.refusal;
}

static const char *value_of(const char *name)
{
	static char text[1024];
	ssize_t index = http_head_find(head, name, 0);
	struct http_text value;

	if (index < 0)
		return "(none)";
	value = http_head_field(head, (size_t)index).value;
	snprintf(text, sizeof(text), "%.*s", (int)value.length, value.data);
	return text;
}

/* The body through the filter, cut at `cut` and byte by byte after it. */
static int receive(const char *text, size_t cut, char *output, size_t size)
{
	struct byte_buffer out;
	int result;

	byte_buffer_init(&out, 65536);
	result = filter->feed(filter, (const uint8_t *)text, cut, false, &out);
	for (const char *at = text + cut; result == 0 && *at; at++)
		result = filter->feed(filter, (const uint8_t *)at, 1, false, &out);
	if (result == 0)
		result = filter->feed(filter, NULL, 0, true, &out);
	ck_assert_uint_lt(byte_buffer_length(&out), size);
	if (byte_buffer_length(&out) > 0)
		memcpy(output, byte_buffer_front(&out), byte_buffer_length(&out));
	output[byte_buffer_length(&out)] = '\0';
	byte_buffer_release(&out);
	return result;
}

START_TEST(an_echo_shows_the_placeholder)
{
	char wanted[256];
	char output[256];

	add("X-Echo", "you sent " VALUE);
	add("Location", "https://evil.test/?k=" VALUE);
	add("X-" VALUE, "1");
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	snprintf(wanted, sizeof(wanted), "you sent %s", secret_store_get(store, KEY)->placeholder);
	ck_assert_str_eq(value_of("x-echo"), wanted);
	ck_assert_ptr_null(strstr(value_of("location"), VALUE));
	ck_assert_str_eq(value_of("X-" VALUE), "(none)");
	ck_assert_int_eq(http_head_field_count(head), 2);
	ck_assert_ptr_nonnull(filter);
	ck_assert_int_eq(receive("you sent " VALUE, 12, output, sizeof(output)), 0);
	ck_assert_str_eq(output, wanted);
}
END_TEST

/* What was stored by a request with the secret may be asked for by one without. */
START_TEST(answers_to_any_request_are_searched)
{
	ask("api.test", NULL, NULL);
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	ck_assert_ptr_nonnull(filter);
	ask("else.test", NULL, NULL);
	add("Set-Cookie", "a=b");
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	ck_assert_ptr_null(filter);
	ck_assert_str_eq(value_of("set-cookie"), "a=b");
}
END_TEST

static const char *const codings[] = { "gzip", "br", "identity, gzip", "x-unknown" };

START_TEST(a_compressed_answer_is_refused_and_never_changed)
{
	add("Content-Encoding", codings[_i]);
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_ENCODED);
	ck_assert_ptr_null(filter);
	/* Without a body it is only a header. */
	ask("api.test", "x-api-key", secret_store_get(store, KEY)->placeholder);
	add("Content-Encoding", codings[_i]);
	ck_assert_int_eq(answer(false), SECRET_REFUSAL_NONE);
	ck_assert_ptr_null(filter);
	/* Nothing was sent that it could show; its bytes are left as they are. */
	ask("api.test", NULL, NULL);
	add("Content-Encoding", codings[_i]);
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	ck_assert_ptr_null(filter);
}
END_TEST

START_TEST(identity_is_no_coding)
{
	add("Content-Encoding", "identity");
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	ck_assert_ptr_nonnull(filter);
}
END_TEST

START_TEST(cookies_of_pinned_hosts_are_dropped)
{
	add("Set-Cookie", "a=b");
	add("set-cookie", "c=d");
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	ck_assert_str_eq(value_of("set-cookie"), "(none)");
	ask("site.test", NULL, NULL);
	add("Set-Cookie", "a=cookie-secret-0123456");
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	ck_assert_ptr_nonnull(strstr(value_of("set-cookie"), "a="));
	ck_assert_ptr_null(strstr(value_of("set-cookie"), "cookie-secret-0123456"));
}
END_TEST

START_TEST(trailers_are_searched)
{
	add("X-Trailer", VALUE);
	ck_assert_int_eq(secrets_redact_trailers(store, head, &verdict), 0);
	ck_assert_str_eq(value_of("x-trailer"), secret_store_get(store, KEY)->placeholder);
}
END_TEST

/* ---- tokens ------------------------------------------------------------------------------------
 */

static void ask_for_token(const char *type)
{
	ask("auth.test", "Authorization", secret_store_get(store, CLIENT)->placeholder);
	add("Content-Type", type);
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	ck_assert_ptr_nonnull(filter);
}

/* The secret captured under that name; NULL. */
static const struct secret *captured(const char *name)
{
	for (size_t i = 0; i < secret_store_count(store); i++) {
		if (!strcmp(secret_store_get(store, i)->name, name))
			return secret_store_get(store, i);
	}
	return NULL;
}

START_TEST(tokens_become_placeholders_wherever_the_answer_is_cut)
{
	const char *text =
		"{\"token_type\":\"Bearer\", \"access_token\" : \"" TOKEN "\",\n"
		"\"expires_in\":3599,\"nested\":[{\"refresh_token\":\"1\\/\\/0gabcdefgh\\/"
		"ijklmnop\"}],\"again\":\"" TOKEN "\",\"scope\":\"access_token\"}";

	for (size_t cut = 0; cut <= strlen(text); cut++) {
		const struct secret *access;
		const struct secret *refresh;
		char output[512];
		char wanted[512];
		char escaped[64];
		size_t used = 0;

		ask_for_token("application/json; charset=utf-8");
		ck_assert_int_eq(receive(text, cut, output, sizeof(output)), 0);
		access = captured("CLIENT/access_token");
		refresh = captured("CLIENT/refresh_token");
		ck_assert_ptr_nonnull(access);
		ck_assert_ptr_nonnull(refresh);
		ck_assert_mem_eq(access->value, TOKEN, strlen(TOKEN));
		ck_assert_uint_eq(refresh->length, strlen(REFRESH));
		ck_assert_mem_eq(refresh->value, REFRESH, strlen(REFRESH));
		for (const char *at = refresh->placeholder; *at; at++)
			used += (size_t)snprintf(escaped + used, sizeof(escaped) - used,
						 *at == '/' ? "\\%c" : "%c", *at);
		snprintf(wanted, sizeof(wanted),
			 "{\"token_type\":\"Bearer\", \"access_token\" : \"%s\",\n"
			 "\"expires_in\":3599,\"nested\":[{\"refresh_token\":\"%s\"}],"
			 "\"again\":\"%s\",\"scope\":\"access_token\"}",
			 access->placeholder, escaped, access->placeholder);
		ck_assert_str_eq(output, wanted);
	}
	/* The same tokens each time are the same secrets. */
	ck_assert_uint_eq(secret_store_count(store), 5);
}
END_TEST

START_TEST(a_captured_token_is_a_secret_of_the_same_hosts)
{
	char output[512];
	char value[64];
	struct secret_request request = { .port = 443, .is_verified = true };

	ask_for_token("application/json");
	ck_assert_int_eq(receive("{\"access_token\":\"" TOKEN "\"}", 20, output, sizeof(output)),
			 0);
	snprintf(value, sizeof(value), "Bearer %s", captured("CLIENT/access_token")->placeholder);
	http_head_clear(head);
	add("Authorization", value);
	ck_assert_int_eq(host_name_parse("evil.test", 9, &request.host), 0);
	ck_assert_int_eq(secrets_prepare_request(store, head, &request, &verdict), 0);
	ck_assert_int_eq(verdict.refusal, SECRET_REFUSAL_WRONG_HOST);
	ck_assert_int_eq(host_name_parse("auth.test", 9, &request.host), 0);
	ck_assert_int_eq(secrets_prepare_request(store, head, &request, &verdict), 0);
	ck_assert_int_eq(verdict.refusal, SECRET_REFUSAL_NONE);
	ck_assert_str_eq(value_of("authorization"), "Bearer " TOKEN);
}
END_TEST

static const char *const quiet[] = {
	"{}",
	"[\"access_token\", \"" TOKEN "\"]",
	"{\"access_token\":null,\"x\":\"" TOKEN "\"}",
	"{\"access_token\":\"\"}",
	"{\"access_token\":\"short\"}",
	"{\"access_tokens\":\"" TOKEN "\"}",
	"{\"x\":\"\\\"access_token\\\":\\\"" TOKEN "\\\"\"}",
	"\"access_token",
	"{\"a\":\"access_token\",\"b\":\"" TOKEN "\"}",
};

START_TEST(what_is_no_token_goes_through)
{
	char output[512];

	for (size_t cut = 0; cut <= strlen(quiet[_i]); cut++) {
		ask_for_token("application/json");
		ck_assert_int_eq(receive(quiet[_i], cut, output, sizeof(output)), 0);
		ck_assert_str_eq(output, quiet[_i]);
		ck_assert_uint_eq(secret_store_count(store), ARRAY_LENGTH(usual));
	}
}
END_TEST

START_TEST(a_key_may_be_escaped)
{
	char output[512];

	ask_for_token("application/json");
	ck_assert_int_eq(
		receive("{\"access\\u005ftoken\":\"" TOKEN "\"}", 5, output, sizeof(output)), 0);
	ck_assert_ptr_null(strstr(output, TOKEN));
}
END_TEST

static const char *const hopeless[] = {
	("{\"access_token\":\"" TOKEN),
	"{\"access_token\":\"line\\nbreak in a token\"}",
	"{\"access_token\":\"caf\xc3\xa9-token-0123\"}",
	"{\"access_token\":\"............\"}",
};

START_TEST(a_token_that_cannot_be_kept_does_not_go_through)
{
	char output[512];

	ask_for_token("application/json");
	ck_assert_int_eq(receive(hopeless[_i], 3, output, sizeof(output)), -EACCES);
	ck_assert_ptr_null(strstr(output, "token-0"));
	ck_assert_ptr_null(strstr(output, TOKEN));
	token_capture_report(filter, &verdict);
	ck_assert_int_eq(verdict.refusal, SECRET_REFUSAL_TOKEN);
	ck_assert_ptr_null(strstr(verdict.hint, TOKEN));
	/* It stays over. */
	ck_assert_int_eq(receive("x", 1, output, sizeof(output)), -EACCES);
}
END_TEST

START_TEST(a_token_of_any_length_has_an_end)
{
	static char text[8 * SECRET_VALUE_MAX];
	static char output[8 * SECRET_VALUE_MAX];

	memset(text, 'a', sizeof(text) - 1);
	memcpy(text, "{\"access_token\":\"", 17);
	ask_for_token("application/json");
	ck_assert_int_eq(receive(text, sizeof(text) - 1, output, sizeof(output)), -EACCES);
}
END_TEST

START_TEST(only_json_and_only_for_who_asked_is_captured)
{
	char output[512];

	ask_for_token("text/plain");
	ck_assert_int_eq(receive("{\"access_token\":\"" TOKEN "\"}", 3, output, sizeof(output)), 0);
	ck_assert_ptr_nonnull(strstr(output, TOKEN));
	ask("api.test", "x-api-key", secret_store_get(store, KEY)->placeholder);
	add("Content-Type", "application/json");
	ck_assert_int_eq(answer(true), SECRET_REFUSAL_NONE);
	ck_assert_int_eq(receive("{\"access_token\":\"" TOKEN "\"}", 3, output, sizeof(output)), 0);
	ck_assert_ptr_nonnull(strstr(output, TOKEN));
	ck_assert_uint_eq(secret_store_count(store), ARRAY_LENGTH(usual));
}
END_TEST

START_TEST(a_full_output_takes_nothing)
{
	struct byte_buffer out;

	ask_for_token("application/json");
	byte_buffer_init(&out, 40);
	ck_assert_int_eq(
		filter->feed(filter, (const uint8_t *)"{\"access_token\":\"ya29.", 22, false, &out),
		0);
	ck_assert_uint_eq(byte_buffer_length(&out), 17);
	ck_assert_int_eq(
		filter->feed(filter, (const uint8_t *)"A0AfH6SNabcdefgh-0123\"}", 23, true, &out),
		-ENOBUFS);
	byte_buffer_consume(&out, 17);
	ck_assert_int_eq(
		filter->feed(filter, (const uint8_t *)"A0AfH6SNabcdefgh-0123\"}", 23, true, &out),
		0);
	ck_assert_uint_eq(byte_buffer_length(&out), 28);
	byte_buffer_release(&out);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("secret_response");
	TCase *tests = tcase_create("secret_response");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, build, tear_down);
	tcase_add_test(tests, an_echo_shows_the_placeholder);
	tcase_add_test(tests, answers_to_any_request_are_searched);
	tcase_add_loop_test(tests, a_compressed_answer_is_refused_and_never_changed, 0,
			    (int)ARRAY_LENGTH(codings));
	tcase_add_test(tests, identity_is_no_coding);
	tcase_add_test(tests, cookies_of_pinned_hosts_are_dropped);
	tcase_add_test(tests, trailers_are_searched);
	tcase_add_test(tests, tokens_become_placeholders_wherever_the_answer_is_cut);
	tcase_add_test(tests, a_captured_token_is_a_secret_of_the_same_hosts);
	tcase_add_loop_test(tests, what_is_no_token_goes_through, 0, (int)ARRAY_LENGTH(quiet));
	tcase_add_test(tests, a_key_may_be_escaped);
	tcase_add_loop_test(tests, a_token_that_cannot_be_kept_does_not_go_through, 0,
			    (int)ARRAY_LENGTH(hopeless));
	tcase_add_test(tests, a_token_of_any_length_has_an_end);
	tcase_add_test(tests, only_json_and_only_for_who_asked_is_captured);
	tcase_add_test(tests, a_full_output_takes_nothing);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
