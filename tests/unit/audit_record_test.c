/* One record of the log, both ways. */
#include "audit/record.h"
#include "audit/text.h"
#include "base/cleanup.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static struct audit_event event;
static struct audit_event_view view;
static struct record record;
static uint8_t previous[DIGEST_SIZE];
static uint8_t output[2 * RECORD_LINE_MAX];
static struct byte_writer writer;
static struct record_encoder *encoder;

static void setup(void)
{
	encoder = record_encoder_new();
	ck_assert_ptr_nonnull(encoder);
}

static void teardown(void)
{
	record_encoder_free(encoder);
}

/* The finished event as a line with its newline in `output`. */
static size_t encode(void)
{
	const struct record_stamp stamp = {
		.sequence = 41,
		.monotonic_ns = 123,
		.realtime_ns = UINT64_C(1795201818717028138),
		.previous = previous,
	};
	const void *data;
	size_t length;

	ck_assert(audit_event_finish(&event, &data, &length));
	ck_assert_int_eq(audit_event_decode(data, length, &view), 0);
	byte_writer_init(&writer, output, sizeof(output));
	record_encode(encoder, &view, &stamp, &writer);
	ck_assert(byte_writer_ok(&writer));
	ck_assert_uint_le(writer.length, RECORD_LINE_MAX);
	ck_assert_int_eq(output[writer.length - 1], '\n');
	return writer.length;
}

START_TEST(a_line_looks_as_documented)
{
	memset(previous, 0xab, sizeof(previous));
	audit_event_begin(&event, AUDIT_MUTATION);
	audit_event_text(&event, AUDIT_FIELD_OPERATION, "write");
	audit_event_text(&event, AUDIT_FIELD_PATH, "a \"b\"\\\n<\x7f\xc3\xbc");
	audit_event_bytes(&event, AUDIT_FIELD_PATH2, "\xff\\\0", 3);
	audit_event_number(&event, AUDIT_FIELD_BYTES, 0);
	output[encode()] = '\0';
	ck_assert_str_eq((const char *)output,
			 "{\"seq\":41,\"mono_ns\":123,\"time\":\"2026-11-20T19:10:18.717028138Z\","
			 "\"kind\":\"mutation\",\"operation\":\"write\","
			 "\"path\":\"a \\\"b\\\"\\\\\\n\\u003c\\u007f\xc3\xbc\","
			 "\"path2\":\"\\\\xff\\\\\\\\\\\\x00\",\"bytes\":0,\"escaped\":[\"path2\"],"
			 "\"prev\":\"ababababababababababababababababababababababababababababababab"
			 "ab\"}\n");
}
END_TEST

START_TEST(times_are_utc_dates)
{
	static const struct {
		uint64_t second;
		const char *text;
	} cases[] = {
		{ 0, "1970-01-01T00:00:00.000000000Z" },
		{ 951782399, "2000-02-28T23:59:59.000000000Z" },
		{ 951782400, "2000-02-29T00:00:00.000000000Z" },
		{ 951868800, "2000-03-01T00:00:00.000000000Z" },
		{ 1709164800, "2024-02-29T00:00:00.000000000Z" },
		{ 1735689599, "2024-12-31T23:59:59.000000000Z" },
		{ 4107542400, "2100-03-01T00:00:00.000000000Z" },
		{ 4107542399, "2100-02-28T23:59:59.000000000Z" },
	};
	char text[RECORD_TIME_LENGTH + 1];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		record_format_time(cases[i].second * 1000000000u, text);
		ck_assert_str_eq(text, cases[i].text);
	}
	record_format_time(999999999, text);
	ck_assert_str_eq(text, "1970-01-01T00:00:00.999999999Z");
	record_format_time(UINT64_MAX, text);
	ck_assert_str_eq(text, "2554-07-21T23:34:33.709551615Z");
}
END_TEST

/* The line is JSON to others, has no raw control character, and its text is what went in. */
static void check_round_trip(const char *text, size_t length)
{
	static char back[RECORD_TEXT_MAX];
	const struct record_field *field;
	size_t line_length;
	json_t *json;

	audit_event_begin(&event, AUDIT_DENIAL);
	audit_event_bytes(&event, AUDIT_FIELD_PATH, text, length);
	line_length = encode() - 1;
	/* Plain ifs: each ck_assert() costs a write to the test's parent. */
	for (size_t i = 0; i < line_length; i++) {
		if (output[i] < 0x20 || output[i] == 0x7f || output[i] == '<')
			ck_abort_msg("byte %zu of the line is raw", i);
	}
	json = json_loadb((const char *)output, line_length, 0, NULL);
	ck_assert_ptr_nonnull(json);
	ck_assert_str_eq(json_string_value(json_object_get(json, "kind")), "denial");
	json_decref(json);
	ck_assert_int_eq(record_parse((const char *)output, line_length, &record), 0);
	ck_assert_uint_eq(record.sequence, 41);
	field = record_find(&record, AUDIT_FIELD_PATH);
	ck_assert_ptr_nonnull(field);
	ck_assert_int_eq(record_text(field, back), (ssize_t)length);
	ck_assert(memcmp(back, text, length) == 0);
}

START_TEST(any_bytes_come_back)
{
	char text[64];
	unsigned seed = 7;

	check_round_trip("", 0);
	for (unsigned i = 0; i < 65536; i++) {
		text[0] = (char)(i >> 8);
		text[1] = (char)i;
		check_round_trip(text, 2);
	}
	for (unsigned i = 0; i < 20000; i++) {
		size_t length = i % sizeof(text);

		for (size_t k = 0; k < length; k++) {
			seed = seed * 1103515245u + 12345u;
			/* Half of it where the interesting characters of UTF-8 begin. */
			text[k] = (char)(seed & 1u << 30 ? seed >> 16 : 0xe2 - (seed >> 16 & 0x62));
		}
		check_round_trip(text, length);
	}
}
END_TEST

START_TEST(the_worst_event_fits_a_line)
{
	static const char *const worst[] = { "\xff", "<", "\xc2\x80", "\xe2\x80\xae", "\\" };
	static char text[AUDIT_TEXT_MAX];

	for (size_t i = 0; i < sizeof(worst) / sizeof(worst[0]); i++) {
		size_t unit = strlen(worst[i]);

		for (size_t k = 0; k + unit <= sizeof(text); k += unit)
			memcpy(text + k, worst[i], unit);
		/* With and without a byte that forces the escaped form. */
		for (int forced = 0; forced < 2; forced++) {
			if (forced)
				text[0] = '\xff';
			audit_event_begin(&event, AUDIT_SESSION_START);
			for (int field = 1; field <= 3; field++)
				audit_event_bytes(&event, (enum audit_field)field, text,
						  sizeof(text));
			audit_event_bytes(&event, AUDIT_FIELD_DETAIL, text, 7800);
			for (int field = 13; field <= 31; field++)
				audit_event_bytes(&event, (enum audit_field)field, text, 1);
			ck_assert_int_eq(record_parse((const char *)output, encode() - 1, &record),
					 0);
		}
	}
}
END_TEST

static void refuse(const char *line)
{
	ck_assert_msg(record_parse(line, strlen(line), &record) == -EBADMSG, "taken: %s", line);
}

#define FRONT                                                                                      \
	"{\"seq\":1,\"mono_ns\":2,\"time\":\"2026-11-20T19:10:18.717028138Z\",\"kind\":\"exec\""
#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"
#define BACK ",\"prev\":\"" ZEROS "\"}"

START_TEST(one_form_only)
{
	ck_assert_int_eq(record_parse(FRONT BACK, strlen(FRONT BACK), &record), 0);
	ck_assert_int_eq(
		record_parse(FRONT ",\"pid\":4" BACK, strlen(FRONT ",\"pid\":4" BACK), &record), 0);
	refuse("");
	refuse("{}");
	refuse(FRONT);
	refuse(" " FRONT BACK);
	refuse(FRONT BACK " ");
	refuse(FRONT BACK "\r");
	refuse(FRONT ", \"pid\":4" BACK);
	refuse(FRONT ",\"pid\":04" BACK);
	refuse(FRONT ",\"pid\":-4" BACK);
	refuse(FRONT ",\"pid\":" BACK);
	refuse(FRONT ",\"pid\":18446744073709551616" BACK);
	refuse(FRONT ",\"pid\":4,\"pid\":4" BACK);
	refuse(FRONT ",\"unknown\":4" BACK);
	refuse(FRONT ",\"path\":\"\033[2J\"" BACK);
	refuse(FRONT ",\"path\":\"\xc2\x9b\"" BACK);
	refuse(FRONT ",\"path\":\"\xe2\x80\xae\"" BACK);
	refuse(FRONT ",\"path\":\"\xff\"" BACK);
	refuse(FRONT ",\"path\":\"<\"" BACK);
	refuse(FRONT ",\"path\":\"\\u0041\"" BACK);
	refuse(FRONT ",\"path\":\"\\u0000\"" BACK);
	refuse(FRONT ",\"path\":\"\\r\"" BACK);
	refuse(FRONT ",\"path\":\"a\",\"escaped\":[]" BACK);
	refuse(FRONT ",\"path\":\"a\",\"escaped\":[\"path2\"]" BACK);
	refuse(FRONT ",\"pid\":4,\"escaped\":[\"pid\"]" BACK);
	refuse(FRONT ",\"path\":\"a\",\"escaped\":[\"path\",\"path\"]" BACK);
	refuse(FRONT ",\"prev\":\"" ZEROS "0\"}");
	refuse(FRONT ",\"prev\":\"G" ZEROS "\"}");
	refuse("{\"seq\":1,\"mono_ns\":2,\"time\":\"2026-11-20 19:10:18.717028138Z\",\"kind\":"
	       "\"exec\"" BACK);
	refuse("{\"seq\":1,\"mono_ns\":2,\"time\":\"2026-11-20T19:10:18.717028138Z\",\"kind\":"
	       "\"nothing\"" BACK);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("audit_record");
	TCase *tests = tcase_create("audit_record");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_line_looks_as_documented);
	tcase_add_test(tests, times_are_utc_dates);
	tcase_add_test(tests, any_bytes_come_back);
	tcase_add_test(tests, the_worst_event_fits_a_line);
	tcase_add_test(tests, one_form_only);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
