#include "vmm/line_relay.h"

#include "base/io.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct event_loop loop;
static struct line_relay relay;
static int writer, file;
static char lines[8][LINE_RELAY_LINE_MAX + 1];
static size_t line_count;

static void on_line(void *observer, const char *line)
{
	ck_assert_ptr_eq(observer, &loop);
	if (line_count < 8)
		(void)snprintf(lines[line_count], sizeof(lines[0]), "%s", line);
	line_count++;
}

static void set_up(void)
{
	int pipe_fds[2];

	line_count = 0;
	ck_assert_int_eq(event_loop_init(&loop), 0);
	ck_assert_int_eq(pipe(pipe_fds), 0);
	file = memfd_create("kept", MFD_CLOEXEC);
	writer = pipe_fds[1];
	relay = (struct line_relay){
		.file = file, .limit = 10000, .line = on_line, .observer = &loop
	};
	ck_assert_int_eq(line_relay_start(&relay, &loop, pipe_fds[0]), 0);
}

static void tear_down(void)
{
	line_relay_finish(&relay);
	event_loop_release(&loop);
	close(writer);
	close(file);
}

static off_t kept(void)
{
	struct stat status;

	ck_assert_int_eq(fstat(file, &status), 0);
	return status.st_size;
}

START_TEST(lines_in_pieces)
{
	ck_assert_int_eq(write_full(writer, "one\r\ntw", 7), 0);
	ck_assert_int_eq(event_loop_run_once(&loop, 0), 1);
	ck_assert_uint_eq(line_count, 1);
	ck_assert_str_eq(lines[0], "one");
	ck_assert_int_eq(write_full(writer, "o\n\nthree", 8), 0);
	ck_assert_int_eq(event_loop_run_once(&loop, 0), 1);
	line_relay_finish(&relay);
	ck_assert_uint_eq(line_count, 3);
	ck_assert_str_eq(lines[1], "two");
	ck_assert_str_eq(lines[2], "three");
	ck_assert_int_eq(kept(), 15);
	ck_assert_int_eq(event_loop_run_once(&loop, 0), 0);
}
END_TEST

/* A guest that writes for ever: neither the file nor a line grows beyond its limit. */
START_TEST(flood)
{
	static char block[4096];

	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(write_full(writer, block, sizeof(block)), 0);
		ck_assert_int_eq(event_loop_run_once(&loop, 0), 1);
	}
	ck_assert_int_eq(write_full(writer, "\n", 1), 0);
	ck_assert_int_eq(event_loop_run_once(&loop, 0), 1);
	ck_assert_uint_eq(line_count, 1);
	ck_assert_uint_eq(strlen(lines[0]), LINE_RELAY_LINE_MAX);
	ck_assert_int_lt(kept(), 10100);
	ck_assert_int_ge(kept(), 10000);
}
END_TEST

START_TEST(end_of_the_writer)
{
	ck_assert_int_eq(write_full(writer, "last", 4), 0);
	close(writer);
	ck_assert_int_eq(event_loop_run_once(&loop, 0), 1);
	ck_assert_int_eq(event_loop_run_once(&loop, 0), 1);
	ck_assert_int_eq(relay.source.fd, -1);
	ck_assert_int_eq(event_loop_run_once(&loop, 0), 0);
	line_relay_finish(&relay);
	ck_assert_uint_eq(line_count, 1);
	writer = dup(file);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("line_relay");
	TCase *tests = tcase_create("line_relay");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, lines_in_pieces);
	tcase_add_test(tests, flood);
	tcase_add_test(tests, end_of_the_writer);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
