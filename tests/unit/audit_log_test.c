/* The log on a real file system: written, continued, tampered with, verified. */
#include "audit/head.h"
#include "audit/log_writer.h"
#include "audit/verify.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory_path[64];
static int directory;
static char explanation[256];

static void setup(void)
{
	snprintf(directory_path, sizeof(directory_path), "/tmp/audit-log-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory_path));
	directory = open(directory_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(directory, 0);
}

static void teardown(void)
{
	static const char *const names[] = { LOG_NAME, HEAD_NAME, "other" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlinkat(directory, names[i], 0);
	close(directory);
	rmdir(directory_path);
}

static struct log_writer *open_writer(uint64_t max_bytes)
{
	struct log_writer *writer;

	ck_assert_int_eq(log_writer_open(directory, max_bytes, &writer, explanation), 0);
	return writer;
}

static int add(struct log_writer *writer, enum audit_kind kind, const char *path)
{
	static struct audit_event event;
	static struct audit_event_view view;
	const void *data;
	size_t length;

	audit_event_begin(&event, kind);
	audit_event_text(&event, AUDIT_FIELD_PATH, path);
	ck_assert(audit_event_finish(&event, &data, &length));
	ck_assert_int_eq(audit_event_decode(data, length, &view), 0);
	return log_writer_add(writer, &view);
}

/* A closed log of `count` mutations and its end. */
static void make_log(int count)
{
	struct log_writer *writer = open_writer(LOG_MAX_BYTES_DEFAULT);

	for (int i = 0; i < count; i++) {
		char path[32];

		snprintf(path, sizeof(path), "file-%d", i);
		ck_assert_int_eq(add(writer, AUDIT_MUTATION, path), 0);
	}
	ck_assert_int_eq(log_writer_close(writer), 0);
	log_writer_free(writer);
}

static struct verdict verify(const uint8_t *expected)
{
	cleanup_fd int log = openat(directory, LOG_NAME, O_RDONLY | O_CLOEXEC);
	cleanup_fd int head = openat(directory, HEAD_NAME, O_RDONLY | O_CLOEXEC);
	struct verdict verdict;

	ck_assert_int_eq(verify_log(log, head, expected, &verdict), 0);
	return verdict;
}

static char *load(size_t *ret_length)
{
	cleanup_fd int log = openat(directory, LOG_NAME, O_RDONLY | O_CLOEXEC);
	char *text;

	ck_assert_int_eq(read_file(log, 1 << 26, &text, ret_length), 0);
	return text;
}

static void store(const char *text, size_t length)
{
	cleanup_fd int log = openat(directory, LOG_NAME, O_WRONLY | O_TRUNC | O_CLOEXEC);

	ck_assert_int_eq(write_full(log, text, length), 0);
}

static void store_head(const struct head *head)
{
	cleanup_fd int fd = openat(directory, HEAD_NAME, O_WRONLY | O_CLOEXEC);

	ck_assert_int_eq(head_write(fd, head), 0);
}

static struct head load_head(void)
{
	cleanup_fd int fd = openat(directory, HEAD_NAME, O_RDONLY | O_CLOEXEC);
	struct head head;

	ck_assert_int_eq(head_read(fd, &head), 0);
	return head;
}

static void expect(enum verdict_reason reason, uint64_t first_bad)
{
	struct verdict verdict = verify(NULL);

	ck_assert_msg(verdict.reason == reason && verdict.first_bad == first_bad,
		      "verdict %s at %llu instead of %s at %llu",
		      verdict_reason_name(verdict.reason), (unsigned long long)verdict.first_bad,
		      verdict_reason_name(reason), (unsigned long long)first_bad);
}

/* Start of line `number`, from 1. */
static char *line_at(char *text, int number)
{
	while (--number > 0)
		text = strchr(text, '\n') + 1;
	return text;
}

START_TEST(a_closed_log_is_intact)
{
	struct verdict verdict;
	struct stat status;
	char text[256];

	make_log(9);
	verdict = verify(NULL);
	ck_assert_int_eq(verdict.reason, VERDICT_INTACT);
	ck_assert_uint_eq(verdict.records, 10);
	ck_assert(verdict.closed);
	verdict_text(&verdict, text, sizeof(text));
	ck_assert_str_eq(text, "10 records, intact");
	ck_assert_int_eq(fstatat(directory, LOG_NAME, &status, 0), 0);
	ck_assert_uint_eq(status.st_mode & 07777, 0600);
	ck_assert_int_eq(fstatat(directory, HEAD_NAME, &status, 0), 0);
	ck_assert_uint_eq(status.st_mode & 07777, 0600);
	ck_assert_int_eq(status.st_size, HEAD_SIZE);
}
END_TEST

START_TEST(no_byte_can_change)
{
	cleanup_free char *text = NULL;
	struct verdict verdict;
	size_t length;

	make_log(4);
	text = load(&length);
	for (size_t i = 0; i < length; i++) {
		uint64_t line = 1;

		for (size_t k = 0; k < i; k++)
			line += text[k] == '\n';
		text[i] ^= 1;
		store(text, length);
		text[i] ^= 1;
		verdict = verify(NULL);
		ck_assert_msg(verdict.reason != VERDICT_INTACT, "byte %zu", i);
		/* A changed link may be told from either side. */
		ck_assert_msg(verdict.first_bad == line || (verdict.reason == VERDICT_LINK &&
							    verdict.first_bad == line - 1),
			      "byte %zu of line %llu: %s at %llu", i, (unsigned long long)line,
			      verdict_reason_name(verdict.reason),
			      (unsigned long long)verdict.first_bad);
		ck_assert_uint_lt(verdict.records, verdict.first_bad);
	}
}
END_TEST

START_TEST(no_end_can_be_cut_off)
{
	cleanup_free char *text = NULL;
	size_t length;

	make_log(4);
	text = load(&length);
	for (size_t cut = 0; cut < length; cut++) {
		uint64_t whole = 0;

		for (size_t i = 0; i < cut; i++)
			whole += text[i] == '\n';
		store(text, cut);
		expect(cut > 0 && text[cut - 1] != '\n' ? VERDICT_TRUNCATED : VERDICT_MISSING,
		       whole + 1);
	}
}
END_TEST

START_TEST(records_cannot_move)
{
	cleanup_free char *text = NULL;
	char changed[8192];
	size_t length;
	char *third;
	char *fourth;
	char *fifth;

	make_log(6);
	text = load(&length);
	ck_assert_uint_lt(length, sizeof(changed) / 2);
	third = line_at(text, 3);
	fourth = line_at(text, 4);
	fifth = line_at(text, 5);
	/* Delete the third. */
	store(changed, (size_t)snprintf(changed, sizeof(changed), "%.*s%s", (int)(third - text),
					text, fourth));
	expect(VERDICT_SEQUENCE, 3);
	/* Swap the third and the fourth. */
	store(changed, (size_t)snprintf(changed, sizeof(changed), "%.*s%.*s%.*s%s",
					(int)(third - text), text, (int)(fifth - fourth), fourth,
					(int)(fourth - third), third, fifth));
	expect(VERDICT_SEQUENCE, 3);
	/* Replay the third. */
	store(changed,
	      (size_t)snprintf(changed, sizeof(changed), "%.*s%.*s%s", (int)(fourth - text), text,
			       (int)(fourth - third), third, fourth));
	expect(VERDICT_SEQUENCE, 4);
	/* Replay everything. */
	store(changed, (size_t)snprintf(changed, sizeof(changed), "%s%s", text, text));
	expect(VERDICT_AFTER_END, 8);
	/* An empty line. */
	store(changed, (size_t)snprintf(changed, sizeof(changed), "%.*s\n%s", (int)(third - text),
					text, third));
	expect(VERDICT_PARSE, 3);
	store(text, length);
	expect(VERDICT_INTACT, 0);
}
END_TEST

START_TEST(the_head_must_be_there_and_agree)
{
	struct head head;
	struct head changed;

	make_log(3);
	head = load_head();
	ck_assert_uint_eq(head.sequence, 4);
	ck_assert(head.closed);
	changed = head;
	changed.hash[31] ^= 1;
	store_head(&changed);
	expect(VERDICT_LINK, 4);
	changed = head;
	changed.sequence = 5;
	store_head(&changed);
	expect(VERDICT_MISSING, 5);
	changed.sequence = 3;
	store_head(&changed);
	expect(VERDICT_LINK, 3);
	store_head(&head);
	expect(VERDICT_INTACT, 0);
	unlinkat(directory, HEAD_NAME, 0);
	expect(VERDICT_HEAD, 4);
}
END_TEST

START_TEST(heads_have_one_form)
{
	const struct head head = { .sequence = 12, .closed = true, .hash = { 1, 2 } };
	struct head back;
	char text[HEAD_SIZE];

	head_format(&head, text);
	ck_assert_int_eq(head_parse(text, sizeof(text), &back), 0);
	ck_assert(back.sequence == 12 && back.closed && back.hash[1] == 2);
	ck_assert_int_eq(head_parse(text, sizeof(text) - 1, &back), -EBADMSG);
	for (size_t i = 0; i < sizeof(text); i++) {
		text[i] ^= 0x40;
		ck_assert_int_eq(head_parse(text, sizeof(text), &back), -EBADMSG);
		text[i] ^= 0x40;
	}
}
END_TEST

START_TEST(the_expected_hash_is_compared)
{
	struct verdict verdict;
	uint8_t hash[DIGEST_SIZE];

	make_log(3);
	verdict = verify(NULL);
	memcpy(hash, verdict.hash, sizeof(hash));
	ck_assert_int_eq(verify(hash).reason, VERDICT_INTACT);
	hash[0] ^= 1;
	ck_assert_int_eq(verify(hash).reason, VERDICT_EXPECTED);
}
END_TEST

START_TEST(one_writer_at_a_time)
{
	struct log_writer *writer = open_writer(LOG_MAX_BYTES_DEFAULT);
	struct log_writer *second = NULL;

	ck_assert_int_eq(log_writer_open(directory, LOG_MAX_BYTES_DEFAULT, &second, explanation),
			 -EBUSY);
	ck_assert_ptr_null(second);
	log_writer_free(writer);
	writer = open_writer(LOG_MAX_BYTES_DEFAULT);
	log_writer_free(writer);
}
END_TEST

START_TEST(the_end_is_last_and_one)
{
	struct log_writer *writer = open_writer(LOG_MAX_BYTES_DEFAULT);
	struct verdict verdict;

	ck_assert_int_eq(add(writer, AUDIT_SESSION_END, "end"), 0);
	ck_assert_int_eq(add(writer, AUDIT_MUTATION, "late"), 0);
	ck_assert_int_eq(add(writer, AUDIT_SESSION_END, "again"), -EEXIST);
	ck_assert_int_eq(log_writer_close(writer), 0);
	log_writer_free(writer);
	verdict = verify(NULL);
	ck_assert_int_eq(verdict.reason, VERDICT_INTACT);
	ck_assert_uint_eq(verdict.records, 2);
	ck_assert(verdict.closed);
}
END_TEST

START_TEST(a_log_is_continued)
{
	struct log_writer *writer;

	make_log(3);
	writer = open_writer(LOG_MAX_BYTES_DEFAULT);
	ck_assert_uint_eq(log_writer_records(writer), 4);
	/* From here on it is not closed any more. */
	ck_assert(!verify(NULL).closed);
	ck_assert_int_eq(add(writer, AUDIT_ROLLBACK, "later"), 0);
	ck_assert_int_eq(log_writer_close(writer), 0);
	log_writer_free(writer);
	ck_assert_uint_eq(verify(NULL).records, 6);
	ck_assert(verify(NULL).closed);
}
END_TEST

START_TEST(a_killed_writer_is_told_and_mended)
{
	struct log_writer *writer = open_writer(LOG_MAX_BYTES_DEFAULT);
	cleanup_free char *text = NULL;
	struct verdict verdict;
	struct head head;
	char message[256];
	size_t length;

	for (int i = 0; i < 3; i++)
		add(writer, AUDIT_MUTATION, "written");
	ck_assert_int_eq(log_writer_flush(writer), 0);
	head = load_head();
	for (int i = 0; i < 3; i++)
		add(writer, AUDIT_MUTATION, "beyond the head");
	ck_assert_int_eq(log_writer_flush(writer), 0);
	log_writer_free(writer);
	/* As if it had been killed between the two writes, and in the midst of the first. */
	store_head(&head);
	text = load(&length);
	store(text, length - 10);
	verdict = verify(NULL);
	ck_assert_int_eq(verdict.reason, VERDICT_INTACT);
	ck_assert_uint_eq(verdict.records, 5);
	ck_assert(!verdict.closed);
	ck_assert_uint_gt(verdict.incomplete_bytes, 10);
	verdict_text(&verdict, message, sizeof(message));
	ck_assert_ptr_nonnull(strstr(message, "incomplete record"));

	writer = open_writer(LOG_MAX_BYTES_DEFAULT);
	ck_assert_int_eq(log_writer_close(writer), 0);
	log_writer_free(writer);
	/* Five, the notice about the cut, the end. */
	ck_assert_uint_eq(verify(NULL).records, 7);
	expect(VERDICT_INTACT, 0);
}
END_TEST

START_TEST(a_damaged_log_is_not_continued)
{
	cleanup_free char *text = NULL;
	struct log_writer *writer = NULL;
	size_t length;

	make_log(3);
	text = load(&length);
	line_at(text, 2)[60] ^= 1;
	store(text, length);
	ck_assert_int_eq(log_writer_open(directory, LOG_MAX_BYTES_DEFAULT, &writer, explanation),
			 -EBADMSG);
	ck_assert_ptr_null(writer);
	ck_assert_ptr_nonnull(strstr(explanation, "record 2 is bad"));
	/* Neither is a log that somebody took away while its head stayed. */
	unlinkat(directory, LOG_NAME, 0);
	ck_assert_int_eq(log_writer_open(directory, LOG_MAX_BYTES_DEFAULT, &writer, explanation),
			 -EBADMSG);
}
END_TEST

START_TEST(planted_files_are_refused)
{
	struct log_writer *writer = NULL;

	ck_assert_int_eq(symlinkat("other", directory, LOG_NAME), 0);
	ck_assert_int_eq(log_writer_open(directory, LOG_MAX_BYTES_DEFAULT, &writer, explanation),
			 -ELOOP);
	ck_assert_int_ne(faccessat(directory, "other", F_OK, 0), 0);
	unlinkat(directory, LOG_NAME, 0);
	ck_assert_int_eq(mkfifoat(directory, LOG_NAME, 0600), 0);
	ck_assert_int_eq(log_writer_open(directory, LOG_MAX_BYTES_DEFAULT, &writer, explanation),
			 -EPERM);
	unlinkat(directory, LOG_NAME, 0);
	close(openat(directory, "other", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	ck_assert_int_eq(linkat(directory, "other", directory, LOG_NAME, 0), 0);
	ck_assert_int_eq(log_writer_open(directory, LOG_MAX_BYTES_DEFAULT, &writer, explanation),
			 -EPERM);
	unlinkat(directory, LOG_NAME, 0);
	ck_assert_int_eq(symlinkat("other", directory, HEAD_NAME), 0);
	ck_assert_int_eq(log_writer_open(directory, LOG_MAX_BYTES_DEFAULT, &writer, explanation),
			 -ELOOP);
}
END_TEST

START_TEST(the_quota_counts_and_keeps_a_reserve)
{
	struct log_writer *writer = open_writer(LOG_MAX_BYTES_LEAST);
	cleanup_free char *text = NULL;
	size_t length;

	for (int i = 0; i < 10000; i++)
		ck_assert_int_eq(add(writer, AUDIT_MUTATION, "flood"), 0);
	ck_assert_int_eq(add(writer, AUDIT_DENIAL, "kept"), 0);
	for (int i = 0; i < 10000; i++)
		ck_assert_int_eq(add(writer, AUDIT_DENIAL, "flood of denials"), 0);
	ck_assert_int_eq(add(writer, AUDIT_EXIT, "kept too"), 0);
	for (int i = 0; i < 10000; i++)
		ck_assert_int_eq(add(writer, AUDIT_EXIT, "flood of exits"), 0);
	ck_assert_int_eq(add(writer, AUDIT_SESSION_END, "the end"), 0);
	ck_assert_int_eq(log_writer_close(writer), 0);
	log_writer_free(writer);
	text = load(&length);
	ck_assert_uint_lt(length, LOG_MAX_BYTES_LEAST + RESERVE_MIN + 8192);
	ck_assert_ptr_nonnull(strstr(text, "mutations are only counted from here on"));
	ck_assert_ptr_nonnull(strstr(text, "\"path\":\"kept\""));
	ck_assert_ptr_nonnull(strstr(text, "\"path\":\"kept too\""));
	ck_assert_ptr_nonnull(strstr(text, " mutations were not written"));
	ck_assert_ptr_nonnull(strstr(text, " denials, violations and notices were not written"));
	ck_assert_ptr_nonnull(strstr(text, " session records were not written"));
	ck_assert_ptr_nonnull(strstr(text, "\"path\":\"the end\""));
	expect(VERDICT_INTACT, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("audit_log");
	TCase *tests = tcase_create("audit_log");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_closed_log_is_intact);
	tcase_add_test(tests, no_byte_can_change);
	tcase_add_test(tests, no_end_can_be_cut_off);
	tcase_add_test(tests, records_cannot_move);
	tcase_add_test(tests, the_head_must_be_there_and_agree);
	tcase_add_test(tests, heads_have_one_form);
	tcase_add_test(tests, the_expected_hash_is_compared);
	tcase_add_test(tests, one_writer_at_a_time);
	tcase_add_test(tests, the_end_is_last_and_one);
	tcase_add_test(tests, a_log_is_continued);
	tcase_add_test(tests, a_killed_writer_is_told_and_mended);
	tcase_add_test(tests, a_damaged_log_is_not_continued);
	tcase_add_test(tests, planted_files_are_refused);
	tcase_add_test(tests, the_quota_counts_and_keeps_a_reserve);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
