#include "proxy/egress_report.h"
#include "wire/audit.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct egress_report *report;
static int ends[2];

static void set_up(void)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	report = egress_report_new(ends[1]);
	ck_assert_ptr_nonnull(report);
}

static void tear_down(void)
{
	egress_report_free(report);
	close(ends[0]);
	close(ends[1]);
}

static void request(const char *path)
{
	const struct egress_entry entry = {
		.operation = "request", .host = "a.test", .method = "GET", .path = path
	};

	egress_report_request(report, &entry);
}

static void denial(const char *path)
{
	const struct egress_entry entry = {
		.operation = "request", .host = "a.test", .path = path, .reason = "host_not_allowed"
	};

	egress_report_denial(report, &entry);
}

/* The path of the next event, or NULL when none has come. */
static const char *next_path(void)
{
	static uint8_t data[AUDIT_EVENT_MAX];
	static char path[AUDIT_TEXT_MAX + 1];
	struct audit_event_view view;
	ssize_t length = recv(ends[0], data, sizeof(data), MSG_DONTWAIT);

	if (length < 0)
		return NULL;
	ck_assert_int_eq(audit_event_decode(data, (size_t)length, &view), 0);
	for (unsigned i = 0; i < view.field_count; i++) {
		if (view.fields[i].field != AUDIT_FIELD_PATH)
			continue;
		memcpy(path, view.fields[i].text, view.fields[i].text_length);
		path[view.fields[i].text_length] = '\0';
		return path;
	}
	ck_abort_msg("an event without a path");
	return NULL;
}

START_TEST(requests_wait_until_they_are_flushed)
{
	request("/1");
	request("/2");
	ck_assert_ptr_null(next_path());
	egress_report_flush(report);
	ck_assert_str_eq(next_path(), "/1");
	ck_assert_str_eq(next_path(), "/2");
	ck_assert_ptr_null(next_path());
	egress_report_flush(report);
	ck_assert_ptr_null(next_path());
}
END_TEST

START_TEST(a_denial_goes_at_once_and_keeps_its_place)
{
	request("/1");
	denial("/2");
	request("/3");
	ck_assert_str_eq(next_path(), "/1");
	ck_assert_str_eq(next_path(), "/2");
	ck_assert_ptr_null(next_path());
	egress_report_flush(report);
	ck_assert_str_eq(next_path(), "/3");
}
END_TEST

/* By their number, or by their length. */
START_TEST(more_than_can_wait_go_early_and_in_order)
{
	char path[AUDIT_TEXT_MAX];
	unsigned number = 0;

	memset(path, 'a', sizeof(path) - 1);
	path[_i ? sizeof(path) - 1 : 8] = '\0';
	for (unsigned i = 0; i < 100; i++) {
		const char *got;
		char digits[9];

		snprintf(digits, sizeof(digits), "/%07u", i);
		memcpy(path, digits, 8);
		request(path);
		while ((got = next_path()) != NULL) {
			snprintf(digits, sizeof(digits), "/%07u", number++);
			ck_assert_mem_eq(got, digits, 8);
			ck_assert_uint_eq(strlen(got), strlen(path));
		}
		ck_assert_uint_le(i + 1 - number, 8);
	}
	ck_assert_uint_gt(number, 0);
	ck_assert_uint_lt(number, 100);
	egress_report_flush(report);
	while (next_path())
		number++;
	ck_assert_uint_eq(number, 100);
	ck_assert(!egress_report_has_failed(report));
}
END_TEST

START_TEST(what_waits_at_the_end_is_sent)
{
	request("/last");
	egress_report_free(report);
	report = NULL;
	ck_assert_str_eq(next_path(), "/last");
}
END_TEST

START_TEST(a_log_that_is_gone_is_noticed)
{
	close(ends[0]);
	ends[0] = -1;
	request("/1");
	ck_assert(!egress_report_has_failed(report));
	egress_report_flush(report);
	ck_assert(egress_report_has_failed(report));
	for (int i = 0; i < 100; i++)
		request("/2");
	denial("/3");
	ck_assert(egress_report_has_failed(report));
}
END_TEST

START_TEST(without_a_log_nothing_is_told)
{
	struct egress_report *silent = egress_report_new(-1);

	ck_assert_ptr_nonnull(silent);
	for (int i = 0; i < 100; i++)
		request("/1");
	for (int i = 0; i < 100; i++) {
		const struct egress_entry entry = { .host = "a.test", .path = "/" };

		egress_report_request(silent, &entry);
		egress_report_denial(silent, &entry);
	}
	egress_report_flush(silent);
	ck_assert(!egress_report_has_failed(silent));
	egress_report_free(silent);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("egress_report");
	TCase *tests = tcase_create("egress_report");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, requests_wait_until_they_are_flushed);
	tcase_add_test(tests, a_denial_goes_at_once_and_keeps_its_place);
	tcase_add_loop_test(tests, more_than_can_wait_go_early_and_in_order, 0, 2);
	tcase_add_test(tests, what_waits_at_the_end_is_sent);
	tcase_add_test(tests, a_log_that_is_gone_is_noticed);
	tcase_add_test(tests, without_a_log_nothing_is_told);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
