/* Reading a log: lines of any make, what --since takes, what is shown. */
#include "audit/line_reader.h"
#include "audit/log_writer.h"
#include "audit/record.h"
#include "audit/show.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int file_with(const char *text, size_t length)
{
	int fd = memfd_create("log", MFD_CLOEXEC);

	ck_assert_int_eq(write_full(fd, text, length), 0);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static void expect_line(struct line_reader *reader, enum line_state state, size_t length,
			uint64_t offset)
{
	struct line line;

	ck_assert_int_eq(line_reader_next(reader, &line), 0);
	ck_assert_int_eq(line.state, state);
	ck_assert_uint_eq(line.length, length);
	ck_assert_uint_eq(line.offset, offset);
}

START_TEST(lines_come_whole_partial_and_grown)
{
	cleanup_fd int fd = file_with("one\n\nthree\nfo", 13);
	struct line_reader *reader = line_reader_new(fd);

	expect_line(reader, LINE_WHOLE, 3, 0);
	expect_line(reader, LINE_WHOLE, 0, 4);
	expect_line(reader, LINE_WHOLE, 5, 5);
	expect_line(reader, LINE_PARTIAL, 2, 11);
	expect_line(reader, LINE_PARTIAL, 2, 11);
	ck_assert_int_eq(pwrite(fd, "ur\n", 3, 13), 3);
	expect_line(reader, LINE_WHOLE, 4, 11);
	expect_line(reader, LINE_NONE, 0, 16);
	line_reader_free(reader);
}
END_TEST

START_TEST(lines_that_are_too_long_are_named_once)
{
	size_t length = 5u << 20;
	cleanup_free char *text = malloc(length);
	cleanup_fd int fd = -1;
	struct line_reader *reader;
	struct line line;

	memset(text, 'x', length);
	text[9] = '\n';
	text[length - 6] = '\n';
	text[length - 1] = '\n';
	fd = file_with(text, length);
	reader = line_reader_new(fd);
	expect_line(reader, LINE_WHOLE, 9, 0);
	ck_assert_int_eq(line_reader_next(reader, &line), 0);
	ck_assert_int_eq(line.state, LINE_TOO_LONG);
	expect_line(reader, LINE_WHOLE, 4, length - 5);
	expect_line(reader, LINE_NONE, 0, length);
	line_reader_free(reader);
}
END_TEST

START_TEST(a_line_of_just_the_limit)
{
	for (size_t length = RECORD_LINE_MAX - 2; length < RECORD_LINE_MAX + 3; length++) {
		cleanup_free char *text = malloc(length + 3);
		cleanup_fd int fd = -1;
		struct line_reader *reader;
		struct line line;

		memset(text, 'x', length);
		memcpy(text + length, "\ny\n", 3);
		fd = file_with(text, length + 3);
		reader = line_reader_new(fd);
		ck_assert_int_eq(line_reader_next(reader, &line), 0);
		ck_assert_int_eq(line.state, length < RECORD_LINE_MAX ? LINE_WHOLE : LINE_TOO_LONG);
		expect_line(reader, LINE_WHOLE, 1, length + 1);
		line_reader_free(reader);
	}
}
END_TEST

START_TEST(since_takes_times_and_durations)
{
	const uint64_t now = UINT64_C(1795201818717028138); /* 2026-11-20T19:10:18Z */
	static const char *const bad[] = { "",
					   "5",
					   "5w",
					   "-5m",
					   "m",
					   "5m ",
					   "5 m",
					   "now",
					   "2026",
					   "2026-11-20Q",
					   "2026-13-01",
					   "1e3s",
					   "99999999999999999999s" };
	char since[RECORD_TIME_LENGTH + 1];

	setenv("TZ", "UTC-2", 1);
	tzset();
	ck_assert(show_parse_since("90s", now, since));
	ck_assert_str_eq(since, "2026-11-20T19:08:48.717028138Z");
	ck_assert(show_parse_since("2h", now, since));
	ck_assert_str_eq(since, "2026-11-20T17:10:18.717028138Z");
	ck_assert(show_parse_since("3d", now, since));
	ck_assert_str_eq(since, "2026-11-17T19:10:18.717028138Z");
	ck_assert(show_parse_since("99999d", now, since));
	ck_assert_str_eq(since, "1970-01-01T00:00:00.000000000Z");
	ck_assert(show_parse_since("2026-11-20T18:55:01Z", now, since));
	ck_assert_str_eq(since, "2026-11-20T18:55:01.000000000Z");
	ck_assert(show_parse_since("2026-11-20T18:55", now, since));
	ck_assert_str_eq(since, "2026-11-20T16:55:00.000000000Z");
	ck_assert(show_parse_since("2026-11-20", now, since));
	ck_assert_str_eq(since, "2026-11-19T22:00:00.000000000Z");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!show_parse_since(bad[i], now, since), "%s was taken", bad[i]);
	unsetenv("TZ");
	tzset();
}
END_TEST

/* Two records and, between them, a line that is none. */
#define FRONT(seq, time)                                                                           \
	"{\"seq\":" seq ",\"mono_ns\":2,\"time\":\"2026-11-20T19:" time ".000000000Z\""
#define BACK ",\"prev\":\"0000000000000000000000000000000000000000000000000000000000000000\"}\n"
#define FIRST                                                                                      \
	FRONT("1", "10:18")                                                                        \
	",\"kind\":\"denial\",\"operation\":\"open\",\"path\":\"a/.env\",\"count\":2" BACK
#define SECOND                                                                                     \
	FRONT("2", "20:18")                                                                        \
	",\"kind\":\"mutation\",\"operation\":\"rename\",\"path\":\"b\",\"path2\":\"c\\\\xff\","   \
	"\"escaped\":[\"path2\"]" BACK
static const char sample[] = FIRST "\033[2J raw\n" SECOND "{\"seq\":3";

#define REQUEST                                                                                    \
	"{\"seq\":4,\"mono_ns\":2,\"time\":\"2026-11-20T19:30:18.000000000Z\",\"kind\":"           \
	"\"request\""                                                                              \
	",\"host\":\"example.test\",\"port\":443,\"method\":\"GET\",\"path\":\"/"                  \
	"a\",\"status\":200" BACK
static const char request[] = REQUEST;

static const char *shown_of(const char *log, size_t length, const struct show_options *options)
{
	static char output[4096];
	cleanup_fd int fd = file_with(log, length);
	FILE *file = fmemopen(output, sizeof(output), "w");

	log_configure("test", LOG_LEVEL_ERROR);
	memset(output, 0, sizeof(output));
	ck_assert_int_eq(show_log(fd, -1, options, file), 0);
	fclose(file);
	return output;
}

static const char *shown(const struct show_options *options)
{
	return shown_of(sample, sizeof(sample) - 1, options);
}

START_TEST(rows_and_lines_are_as_documented)
{
	ck_assert_str_eq(
		shown(&(struct show_options){ 0 }),
		"     SEQ  TIME (UTC)               KIND           OPERATION     WHAT\n"
		"       1  2026-11-20 19:10:18.000  denial         open          a/.env  count=2\n"
		"       2  2026-11-20 19:20:18.000  mutation       rename        b -> c\\xff\n");
	ck_assert_str_eq(shown(&(struct show_options){ .json = true }), FIRST SECOND);
	ck_assert_ptr_nonnull(strstr(shown(&(struct show_options){ .colour = true }), "\033[33m"));
}
END_TEST

START_TEST(filters_filter)
{
	ck_assert_str_eq(shown(&(struct show_options){ .json = true, .kinds = 1u << AUDIT_DENIAL }),
			 FIRST);
	ck_assert_str_eq(shown(&(struct show_options){ .json = true, .path = "*.env" }), FIRST);
	ck_assert_str_eq(shown(&(struct show_options){ .json = true, .path = "c\xff" }), SECOND);
	ck_assert_str_eq(shown(&(struct show_options){ .json = true, .path = "z" }), "");
	ck_assert_str_eq(shown(&(struct show_options){ .json = true,
						       .since = "2026-11-20T19:20:18.000000000Z" }),
			 SECOND);
}
END_TEST

START_TEST(requests_are_shown_and_filtered_by_host)
{
	const size_t length = sizeof(request) - 1;

	ck_assert_ptr_nonnull(strstr(shown_of(request, length, &(struct show_options){ 0 }),
				     "  request                      example.test  /a  port=443  "
				     "method=GET  status=200\n"));
	ck_assert_str_eq(
		shown_of(request, length, &(struct show_options){ .json = true, .host = "*.test" }),
		REQUEST);
	ck_assert_str_eq(
		shown_of(request, length, &(struct show_options){ .json = true, .host = "*.com" }),
		"");
	ck_assert_str_eq(shown(&(struct show_options){ .json = true, .host = "*" }), "");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("audit_show");
	TCase *tests = tcase_create("audit_show");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, requests_are_shown_and_filtered_by_host);
	tcase_add_test(tests, lines_come_whole_partial_and_grown);
	tcase_add_test(tests, lines_that_are_too_long_are_named_once);
	tcase_add_test(tests, a_line_of_just_the_limit);
	tcase_add_test(tests, since_takes_times_and_durations);
	tcase_add_test(tests, rows_and_lines_are_as_documented);
	tcase_add_test(tests, filters_filter);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
