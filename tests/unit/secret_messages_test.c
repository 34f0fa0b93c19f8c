/*
 * proxy/secret_filter.h, secret_filter_take_messages(): what is cut at the end of a message is
 * found as in one body, nothing waits for the next message, and of a value no more than
 * SECRET_PROBE_DEPTH - 1 characters are told before it is known to be one.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "proxy/grpc_filter.h"
#include "proxy/secret_filter.h"
#include "tests/unit/secret_filter_world.h"

#define TEXT_MAX 512

static struct body_filter *from_server(void)
{
	struct body_filter *filter = secret_response_filter_new(store);

	ck_assert_ptr_nonnull(filter);
	secret_filter_take_messages(filter);
	return filter;
}

static struct body_filter *from_guest(void)
{
	struct body_filter *filter = secret_request_filter_new(store, &bound, true);

	ck_assert_ptr_nonnull(filter);
	secret_filter_take_messages(filter);
	return filter;
}

/* A piece, in a block of its exact size; what comes out is appended to `output`, a string. */
static int feed(struct body_filter *filter, const char *text, size_t length, bool is_last,
		char *output)
{
	struct byte_buffer out;
	char *copy = malloc(length + (length == 0));
	int result;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, text, length);
	byte_buffer_init(&out, 65536);
	result = filter->feed(filter, (const uint8_t *)copy, length, is_last, &out);
	free(copy);
	if (byte_buffer_length(&out) > 0)
		strncat(output, (const char *)byte_buffer_front(&out), byte_buffer_length(&out));
	byte_buffer_release(&out);
	return result;
}

/* A message as a whole, in a buffer, or byte for byte. It has gone on at its end. */
static int say_part(struct body_filter *filter, const char *text, size_t length, int manner,
		    char *output)
{
	size_t before = strlen(output);
	int result = 0;

	if (manner == 0) {
		result = feed(filter, text, length, true, output);
	} else if (manner == 1) {
		for (size_t i = 0; result == 0 && i < length; i++)
			result = feed(filter, text + i, 1, false, output);
		if (result == 0)
			result = feed(filter, "", 0, true, output);
	} else {
		struct byte_buffer in;
		struct byte_buffer out;

		byte_buffer_init(&in, 65536);
		byte_buffer_init(&out, 65536);
		ck_assert_int_eq(byte_buffer_append(&in, text, length), 0);
		result = filter->feed_buffer(filter, &in, true, &out);
		if (byte_buffer_length(&out) > 0)
			strncat(output, (const char *)byte_buffer_front(&out),
				byte_buffer_length(&out));
		byte_buffer_release(&in);
		byte_buffer_release(&out);
	}
	if (result == 0)
		ck_assert_uint_eq(strlen(output) - before, length);
	return result;
}

static int say(struct body_filter *filter, const char *text, char *output)
{
	return say_part(filter, text, strlen(text), 0, output);
}

/* ---- forms ---------------------------------------------------------------------------------- */

static void as_it_is(const char *text, size_t length, char *output)
{
	snprintf(output, TEXT_MAX, "%.*s", (int)length, text);
}

static void percent_all(const char *text, size_t length, char *output)
{
	for (size_t i = 0; i < length; i++)
		output += snprintf(output, 4, "%%%02x", text[i]);
}

static void percent_every_third(const char *text, size_t length, char *output)
{
	for (size_t i = 0; i < length; i++)
		output += i % 3 == 0 ? snprintf(output, 4, "%%%02x", text[i])
				     : snprintf(output, 4, "%c", text[i]);
}

static void json_all(const char *text, size_t length, char *output)
{
	for (size_t i = 0; i < length; i++)
		output += snprintf(output, 8, "\\u%04x", text[i]);
}

static void json_slashes(const char *text, size_t length, char *output)
{
	for (size_t i = 0; i < length; i++)
		output += snprintf(output, 4, text[i] == '/' ? "\\%c" : "%c", text[i]);
}

static void hex(const char *text, size_t length, char *output)
{
	for (size_t i = 0; i < length; i++)
		output += snprintf(output, 4, "%02x", text[i]);
}

static void (*const writers[])(const char *, size_t, char *) = {
	as_it_is, percent_all, percent_every_third, json_all, json_slashes, hex,
};

/* Bytes of a value in this form in which that many characters of the form are behind the prefix. */
static size_t length_with(int form, size_t characters)
{
	char text[TEXT_MAX] = "";

	if (writers[form] == hex)
		return 2 * strlen(PREFIX) + characters;
	writers[form](VALUE, strlen(PREFIX) + characters, text);
	return strlen(text);
}

/* In a few hexadecimal digits both cases may be the same. */
static void expect_text(int form, const char *text, const char *wanted, size_t length)
{
	if (writers[form] == hex)
		ck_assert_int_eq(strncasecmp(text, wanted, length), 0);
	else
		ck_assert_mem_eq(text, wanted, length);
}

/* ---- from a server -------------------------------------------------------------------------- */

START_TEST(a_value_that_goes_on_in_the_next_message_becomes_its_placeholder)
{
	size_t told = length_with(_i, SECRET_PROBE_DEPTH);
	char value[TEXT_MAX] = "";
	char wanted[TEXT_MAX] = "";

	writers[_i](VALUE, strlen(VALUE), value);
	writers[_i](placeholder(KEY), strlen(VALUE), wanted);
	for (size_t cut = 0; cut <= strlen(value); cut++) {
		for (int manner = 0; manner < 3; manner++) {
			struct body_filter *filter = from_server();
			char output[TEXT_MAX] = "";

			ck_assert_int_eq(say(filter, "hello ", output), 0);
			ck_assert_int_eq(say_part(filter, value, cut, manner, output), 0);
			if (cut >= told)
				expect_text(_i, output + 6, wanted, cut);
			ck_assert_int_eq(
				say_part(filter, value + cut, strlen(value) - cut, manner, output),
				0);
			ck_assert_int_eq(say(filter, " bye", output), 0);
			ck_assert_str_eq(output + 6 + strlen(value), " bye");
			expect_text(_i, output + 6, cut < told ? value : wanted, cut);
			expect_text(_i, output + 6 + cut, wanted + cut, strlen(value) - cut);
			filter->free(filter);
		}
	}
	/* It was a value each time, so nobody guessed. */
	ck_assert(!secret_store_is_probed(store));
}
END_TEST

START_TEST(so_does_one_of_a_byte_a_message)
{
	size_t told = length_with(_i, SECRET_PROBE_DEPTH);
	struct body_filter *filter = from_server();
	char value[TEXT_MAX] = "";
	char wanted[TEXT_MAX] = "";
	char output[TEXT_MAX] = "";

	writers[_i](VALUE, strlen(VALUE), value);
	writers[_i](placeholder(KEY), strlen(VALUE), wanted);
	for (size_t i = 0; value[i]; i++) {
		ck_assert_int_eq(say_part(filter, value + i, 1, 0, output), 0);
		ck_assert_int_eq(say(filter, "", output), 0);
	}
	expect_text(_i, output + told - 1, wanted + told - 1, strlen(wanted) - told + 2);
	ck_assert(!secret_store_is_probed(store));
	filter->free(filter);
}
END_TEST

START_TEST(what_is_no_beginning_of_a_value_stays)
{
	static const char *const messages[] = { PREFIX,	 "Ab/C", "hello", "%",	"41%4",
						"\\u00", "anot", "x",	  "pa", "!" };
	struct body_filter *filter = from_server();
	char output[TEXT_MAX] = "";
	char wanted[TEXT_MAX] = "";

	for (size_t i = 0; i < 2 * ARRAY_LENGTH(messages); i++) {
		const char *message = messages[i % ARRAY_LENGTH(messages)];

		strncat(wanted, message, sizeof(wanted) - 1 - strlen(wanted));
		ck_assert_int_eq(say(filter, message, output), 0);
	}
	ck_assert_str_eq(output, wanted);
	filter->free(filter);
}
END_TEST

START_TEST(guessing_a_value_by_the_ends_of_messages_ends)
{
	char output[8192] = "";
	unsigned right = 0;

	/* The guest sees at once that the guess was right; it may go on or hang up then. */
	for (int i = 0; i < 100; i++) {
		struct body_filter *filter = from_server();

		ck_assert_int_eq(say(filter, "Ab/C", output), 0);
		ck_assert_int_eq(say(filter, "Ab/Cx", output), 0);
		filter->free(filter);
	}
	ck_assert(!secret_store_is_probed(store));
	for (int result = 0; result == 0; right++) {
		struct body_filter *filter = from_server();

		ck_assert_uint_le(right, SECRET_PROBES_MAX);
		output[0] = '\0';
		result = say(filter, "Ab/C0", output);
		if (result == 0 && right % 2 == 0)
			result = say(filter, "x", output);
		filter->free(filter);
	}
	ck_assert(secret_store_is_probed(store));
}
END_TEST

START_TEST(what_came_into_the_store_since_is_found)
{
	struct body_filter *filter = from_server();
	struct body_filter *guest = from_guest();
	const char *token = "captured-Token-0123456";
	char output[TEXT_MAX] = "";
	size_t index;

	ck_assert_int_eq(say(filter, "Ab/C", output), 0);
	ck_assert_int_eq(say(filter, token, output), 0);
	ck_assert_int_eq(feed(filter, "x", 1, false, output), 0);
	ck_assert_int_eq(feed(filter, "", 0, true, output), 0);
	ck_assert_int_eq(say(filter, "Ab/C", output), 0);
	ck_assert_int_eq(say(guest, "hello", output), 0);
	ck_assert_int_eq(secret_store_capture(store, OTHER, "token", token, strlen(token), &index),
			 0);
	/* And what began before it came is not lost. */
	output[0] = '\0';
	ck_assert_int_eq(say(filter, "012+def345Ghi", output), 0);
	ck_assert_str_eq(output, placeholder(KEY) + strlen(PREFIX "Ab/C"));
	output[0] = '\0';
	ck_assert_int_eq(say(filter, token, output), 0);
	ck_assert_str_eq(output, placeholder(index));
	ck_assert_int_eq(say(guest, placeholder(index), output), -EACCES);
	filter->free(filter);
	guest->free(guest);
}
END_TEST

/* ---- from the guest ------------------------------------------------------------------------- */

static void expect_refused(size_t index, int form, enum secret_refusal refusal)
{
	char text[TEXT_MAX] = "";

	writers[form](placeholder(index), strlen(placeholder(index)), text);
	for (size_t cut = 1; cut < strlen(text); cut++) {
		for (int manner = 0; manner < 3; manner++) {
			struct body_filter *filter = from_guest();
			struct secret_verdict verdict = { 0 };
			char output[TEXT_MAX] = "";

			/* What has left is less than the placeholder, and as it was. */
			ck_assert_int_eq(say_part(filter, text, cut, manner, output), 0);
			ck_assert_mem_eq(output, text, cut);
			ck_assert_int_eq(
				say_part(filter, text + cut, strlen(text) - cut, manner, output),
				-EACCES);
			ck_assert_uint_lt(strlen(output), strlen(text));
			secret_filter_report(filter, &verdict);
			ck_assert_int_eq(verdict.refusal, refusal);
			ck_assert(secret_set_has(&verdict.used, index));
			filter->free(filter);
		}
	}
}

START_TEST(a_placeholder_in_two_messages_ends_them)
{
	expect_refused(OTHER, _i, SECRET_REFUSAL_WRONG_HOST);
	expect_refused(DECOY, _i, SECRET_REFUSAL_CANARY);
}
END_TEST

START_TEST(one_that_would_be_replaced_passes_as_it_is)
{
	const char *text = placeholder(BODY);

	for (size_t cut = 1; cut < strlen(text); cut++) {
		struct body_filter *filter = from_guest();
		struct secret_verdict verdict = { 0 };
		char output[TEXT_MAX] = "";

		ck_assert_int_eq(say_part(filter, text, cut, 0, output), 0);
		ck_assert_int_eq(say_part(filter, text + cut, strlen(text) - cut, 0, output), 0);
		ck_assert_str_eq(output, text);
		secret_filter_report(filter, &verdict);
		ck_assert(!verdict.is_injected && secret_set_is_empty(&verdict.used));
		/* In one message it is replaced, as ever. */
		ck_assert_int_eq(say(filter, text, output), 0);
		ck_assert_str_eq(output + strlen(text), usual[BODY].value);
		filter->free(filter);
	}
}
END_TEST

/* ---- gRPC ----------------------------------------------------------------------------------- */

static void put_message(uint8_t *body, size_t *used, const char *text, size_t length)
{
	const uint8_t prefix[GRPC_PREFIX_SIZE] = { 0, 0, 0, 0, (uint8_t)length };

	memcpy(body + *used, prefix, sizeof(prefix));
	memcpy(body + *used + sizeof(prefix), text, length);
	*used += sizeof(prefix) + length;
}

START_TEST(a_value_in_two_messages_of_grpc_becomes_its_placeholder)
{
	size_t told = strlen(PREFIX) + SECRET_PROBE_DEPTH;

	for (size_t cut = 1; cut < strlen(VALUE); cut++) {
		struct body_filter *filter =
			grpc_filter_new(secret_response_filter_new(store), false);
		uint8_t body[TEXT_MAX];
		uint8_t wanted[TEXT_MAX];
		struct byte_buffer out;
		size_t length = 0;
		size_t again = 0;

		ck_assert_ptr_nonnull(filter);
		put_message(body, &length, VALUE, cut);
		put_message(body, &length, &VALUE[cut], strlen(VALUE) - cut);
		put_message(wanted, &again, cut < told ? VALUE : placeholder(KEY), cut);
		put_message(wanted, &again, placeholder(KEY) + cut, strlen(VALUE) - cut);
		/* Room for the bytes that come out, and no more. */
		byte_buffer_init(&out, length);
		ck_assert_int_eq(filter->feed(filter, body, length, false, &out), 0);
		ck_assert_uint_eq(byte_buffer_length(&out), length);
		ck_assert_mem_eq(byte_buffer_front(&out), wanted, length);
		ck_assert_int_eq(filter->feed(filter, NULL, 0, true, &out), 0);
		byte_buffer_release(&out);
		filter->free(filter);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("secret_messages");
	TCase *tests = tcase_create("secret_messages");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, build, tear_down);
	tcase_add_loop_test(tests, a_value_that_goes_on_in_the_next_message_becomes_its_placeholder,
			    0, (int)ARRAY_LENGTH(writers));
	tcase_add_loop_test(tests, so_does_one_of_a_byte_a_message, 0, (int)ARRAY_LENGTH(writers));
	tcase_add_test(tests, what_is_no_beginning_of_a_value_stays);
	tcase_add_test(tests, guessing_a_value_by_the_ends_of_messages_ends);
	tcase_add_test(tests, what_came_into_the_store_since_is_found);
	tcase_add_loop_test(tests, a_placeholder_in_two_messages_ends_them, 0,
			    (int)ARRAY_LENGTH(writers));
	tcase_add_test(tests, one_that_would_be_replaced_passes_as_it_is);
	tcase_add_test(tests, a_value_in_two_messages_of_grpc_becomes_its_placeholder);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
