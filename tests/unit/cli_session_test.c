/* Session records, paths, the removal of trees, and what is read out of an audit log. */
#include "base/checked.h"
#include "cli/denials.h"
#include "cli/paths.h"
#include "cli/remove_tree.h"
#include "cli/session_record.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char scratch[64];
static struct paths paths;

static void set_up(void)
{
	struct problem problem;

	snprintf(scratch, sizeof(scratch), "/tmp/cli-session-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	setenv("HOME", scratch, 1);
	setenv("XDG_STATE_HOME", scratch, 1);
	ck_assert_int_eq(paths_find(&paths, &problem), 0);
}

static void tear_down(void)
{
	paths_free(&paths);
	ck_assert_int_eq(remove_tree(scratch), 0);
}

static void make_session(const char *id, const char *name, int64_t started,
			 struct session_record *record)
{
	char *directory = session_record_directory(&paths, id);
	struct problem problem;

	*record = (struct session_record){ .exit_status = -1, .started = started };
	snprintf(record->id, sizeof(record->id), "%s", id);
	record->name = name ? strdup(name) : NULL;
	text_list_add(&record->command, "echo");
	text_list_add(&record->command, "a b\nc");
	record->workspace = strdup("/ws");
	text_list_add(&record->stores, scratch);
	session_record_add_process(record, "cli", getpid());
	ck_assert_int_eq(make_directories(directory), 0);
	ck_assert_int_eq(session_record_save(&paths, record, &problem), 0);
	free(directory);
}

START_TEST(round_trip)
{
	struct session_record written;
	struct session_record read = { 0 };
	struct problem problem;

	make_session("0123456789ab", "name", 1000, &written);
	written.phase = SESSION_FINISHED;
	written.changes = SESSION_CHANGES_KEPT;
	written.exit_status = 3;
	written.reason = strdup("bad \xff byte");
	ck_assert_int_eq(session_record_save(&paths, &written, &problem), 0);
	ck_assert_int_eq(session_record_load(&paths, "0123456789ab", &read, &problem), 0);
	ck_assert_str_eq(read.id, "0123456789ab");
	ck_assert_str_eq(read.name, "name");
	ck_assert_uint_eq(read.command.count, 2);
	ck_assert_str_eq(read.command.items[1], "a b\nc");
	ck_assert_str_eq(read.reason, "bad \\xff byte");
	ck_assert_int_eq(read.exit_status, 3);
	ck_assert_int_eq((int)read.started, 1000);
	ck_assert_int_eq(session_status(&read), SESSION_STATUS_KEPT);
	ck_assert(session_has_undo(&read));
	session_record_free(&written);
	session_record_free(&read);
}
END_TEST

START_TEST(status_follows_the_process)
{
	struct session_record record;
	pid_t pid;

	make_session("0123456789ab", NULL, 1, &record);
	ck_assert_int_eq(session_status(&record), SESSION_STATUS_RUNNING);
	/* The pid lives on, but belongs to another process. */
	record.processes[0].start++;
	ck_assert_int_eq(session_status(&record), SESSION_STATUS_CRASHED);
	pid = fork();
	if (pid == 0)
		_exit(0);
	record.process_count = 0;
	session_record_add_process(&record, "cli", pid);
	waitpid(pid, NULL, 0);
	ck_assert_int_eq(session_status(&record), SESSION_STATUS_CRASHED);
	record.changes = SESSION_CHANGES_ROLLED_BACK;
	ck_assert_int_eq(session_status(&record), SESSION_STATUS_ROLLED_BACK);
	ck_assert(!session_has_undo(&record));
	record.changes = SESSION_CHANGES_OPEN;
	record.process_count = 0;
	session_record_add_process(&record, "cli", getpid());
	free(record.boot_id);
	record.boot_id = strdup("another boot");
	ck_assert_int_eq(session_status(&record), SESSION_STATUS_CRASHED);
	session_record_free(&record);
}
END_TEST

static void check_found(const char *text, const char *id)
{
	struct session_record found = { 0 };
	struct problem problem;

	ck_assert_int_eq(session_record_find(&paths, text, &found, &problem), 0);
	ck_assert_str_eq(found.id, id);
	session_record_free(&found);
}

START_TEST(finding)
{
	struct session_record record;
	struct session_record found;
	struct problem problem;

	make_session("aa0000000001", "first", 10, &record);
	session_record_free(&record);
	make_session("aa0000000002", "same", 20, &record);
	session_record_free(&record);
	make_session("bb0000000003", "same", 30, &record);
	session_record_free(&record);
	check_found("first", "aa0000000001");
	check_found("aa0000000002", "aa0000000002");
	check_found("b", "bb0000000003");
	check_found("same", "bb0000000003");
	check_found("last", "bb0000000003");
	ck_assert_int_eq(session_record_find(&paths, "aa", &found, &problem), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "2 session ids"));
	ck_assert_int_eq(session_record_find(&paths, "", &found, &problem), -1);
	ck_assert_int_eq(session_record_find(&paths, "zz", &found, &problem), -1);
	ck_assert_int_eq(session_record_find(&paths, "../x", &found, &problem), -1);
}
END_TEST

static const char *const damaged_records[] = {
	"",
	"{",
	"[]",
	"{\"version\": 2}",
	"{\"version\":1,\"id\":\"ffffffffffff\",\"phase\":\"running\",\"changes\":\"open\"}",
	"{\"version\":1,\"id\":\"0123456789ab\",\"phase\":\"what\",\"changes\":\"open\"}",
	"{\"version\":1,\"id\":\"0123456789ab\",\"phase\":\"running\",\"changes\":\"open\","
	"\"command\":[1],\"stores\":[],\"processes\":[]}",
	"{\"version\":1,\"id\":\"0123456789ab\",\"phase\":\"running\",\"changes\":\"open\","
	"\"command\":[],\"stores\":[],\"processes\":[{},{},{},{},{},{},{},{},{}]}",
};

START_TEST(damaged)
{
	struct session_record *records;
	struct session_record record;
	struct problem problem;
	size_t damaged_count;
	char *path;
	FILE *file;

	make_session("0123456789ab", NULL, 1, &record);
	session_record_free(&record);
	path = text_printf("%s/matchlock/sessions/0123456789ab/session.json", scratch);
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fputs(damaged_records[_i], file);
	fclose(file);
	ck_assert_int_eq(session_record_load(&paths, "0123456789ab", &record, &problem), -1);
	ck_assert_uint_eq(session_list(&paths, &records, &damaged_count), 0);
	ck_assert_uint_eq(damaged_count, 1);
	session_list_free(records, 0);
	free(path);
}
END_TEST

START_TEST(locking)
{
	struct session_record record;
	struct problem problem;
	int lock;

	make_session("0123456789ab", NULL, 1, &record);
	lock = session_lock(&paths, &record, &problem);
	ck_assert_int_ge(lock, 0);
	ck_assert_int_eq(session_lock(&paths, &record, &problem), -1);
	close(lock);
	lock = session_lock(&paths, &record, &problem);
	ck_assert_int_ge(lock, 0);
	close(lock);
	session_record_free(&record);
}
END_TEST

START_TEST(names)
{
	char id[SESSION_ID_LENGTH + 1];

	session_id_generate(id);
	ck_assert_uint_eq(strlen(id), SESSION_ID_LENGTH);
	ck_assert(!session_name_valid(id));
	ck_assert(session_name_valid("agent-1.x_y"));
	ck_assert(!session_name_valid(""));
	ck_assert(!session_name_valid("-x"));
	ck_assert(!session_name_valid("a b"));
	ck_assert(!session_name_valid("last"));
}
END_TEST

START_TEST(path_judgements)
{
	ck_assert(path_is_within("/a/b", "/a"));
	ck_assert(path_is_within("/a", "/a"));
	ck_assert(path_is_within("/a", "/"));
	ck_assert(!path_is_within("/ab", "/a"));
	ck_assert_str_eq(path_below("/a/b/c", "/a"), "b/c");
	ck_assert_str_eq(path_below("/a", "/a"), "");
	ck_assert_str_eq(path_below("/a", "/"), "a");
	ck_assert_uint_eq(path_depth("/"), 0);
	ck_assert_uint_eq(path_depth("/a/b"), 2);
	ck_assert(path_is_plain_absolute("/"));
	ck_assert(path_is_plain_absolute("/a/.b/c..d"));
	ck_assert(!path_is_plain_absolute("a"));
	ck_assert(!path_is_plain_absolute("/a/"));
	ck_assert(!path_is_plain_absolute("/a//b"));
	ck_assert(!path_is_plain_absolute("/a/./b"));
	ck_assert(!path_is_plain_absolute("/.."));
	ck_assert(same_mount(scratch, "/tmp/does/not/exist/yet"));
	ck_assert(!same_mount(scratch, "/proc"));
}
END_TEST

START_TEST(private_directory)
{
	char *path = text_printf("%s/runtime", scratch);
	char *link = text_printf("%s/link", scratch);
	struct problem problem;
	struct stat status;
	int fd = open_private_directory(path, &problem);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(chmod(path, 0755), 0);
	fd = open_private_directory(path, &problem);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &status), 0);
	ck_assert_uint_eq(status.st_mode & 0777, 0700);
	close(fd);
	ck_assert_int_eq(symlink(path, link), 0);
	ck_assert_int_eq(open_private_directory(link, &problem), -1);
	free(path);
	free(link);
}
END_TEST

/* Deeper than PATH_MAX, with a directory without permissions, and a symlink out of the tree. */
START_TEST(hostile_tree)
{
	char *tree = text_printf("%s/tree", scratch);
	char *outside = text_printf("%s/outside", scratch);
	int fd;

	ck_assert_int_eq(make_directories(tree), 0);
	ck_assert_int_eq(make_directories(outside), 0);
	fd = open(tree, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(symlinkat(outside, fd, "escape"), 0);
	for (int i = 0; i < 600; i++) {
		int next;

		ck_assert_int_eq(mkdirat(fd, "a-long-name", 0700), 0);
		ck_assert_int_eq(symlinkat(outside, fd, ".removing-0"), 0);
		next = openat(fd, "a-long-name", O_RDONLY | O_DIRECTORY);
		ck_assert_int_ge(next, 0);
		if (i % 7 == 3)
			ck_assert_int_eq(fchmod(next, i % 2 ? 0500 : 0700), 0);
		if (i % 14 == 3)
			ck_assert_int_eq(fchmod(next, 0700), 0);
		if (i == 0)
			unlinkat(fd, ".removing-0", 0);
		close(fd);
		fd = next;
	}
	ck_assert_int_eq(fchmod(fd, 0), 0);
	close(fd);
	ck_assert_int_eq(remove_tree(tree), 0);
	ck_assert_int_eq(access(tree, F_OK), -1);
	ck_assert_int_eq(access(outside, F_OK), 0);
	ck_assert_int_eq(remove_tree(tree), 0);
	free(tree);
	free(outside);
}
END_TEST

START_TEST(denials_of_a_log)
{
	static const char log[] =
		"{\"seq\":1,\"kind\":\"mutation\",\"path\":\"x\"}\n"
		"{\"seq\":2,\"kind\":\"denial\",\"operation\":\"create\",\"path\":\"a\\u001b[1m\","
		"\"rule\":\"git\",\"reason\":\"because\",\"hint\":\"--allow-write "
		"a\",\"count\":1}\n"
		"{\"seq\":3,\"kind\":\"denial\",\"operation\":\"create\",\"path\":\"a\\u001b[1m\","
		"\"rule\":\"git\",\"count\":4}\n"
		"{\"seq\":4,\"kind\":\"denial\",\"operation\":\"unlink\",\"path\":\"\\\\xff\","
		"\"rule\":\"git\",\"escaped\":[\"path\"]}\n"
		"{\"seq\":5,\"kind\":\"mutation\",\"path\":\"\\\"kind\\\":\\\"denial\\\"\"}\n"
		"{\"seq\":6,\"kind\":\"denial\",\"operation\":\"request\",\"host\":\"a.test\","
		"\"port\":443,\"method\":\"GET\",\"path\":\"/x\",\"rule\":\"r\"}\n"
		"{\"seq\":7,\"kind\":\"denial\",\"operation\":\"connect\",\"host\":\"b.test\","
		"\"port\":22,\"rule\":\"r\"}\n"
		"{\"seq\":8,\"kind\":\"canary\",\"operation\":\"request\",\"host\":\"c.test\","
		"\"port\":443,\"path\":\"/\\u001bx\",\"hint\":\"the decoy X; frozen\"}\n"
		"{\"seq\":9,\"kind\":\"denial\",\"operation\":\"cut off";
	char *path = text_printf("%s/audit.jsonl", scratch);
	FILE *file = fopen(path, "w");
	struct denials *denials;
	char *text = NULL;
	size_t length;

	ck_assert_ptr_nonnull(file);
	fputs(log, file);
	fclose(file);
	denials = denials_read(scratch);
	ck_assert_uint_eq(denials->count, 4);
	ck_assert_uint_eq(denials->total, 8);
	ck_assert_str_eq(denials->items[0].path, "a\\x1b[1m");
	ck_assert_uint_eq(denials->items[0].count, 5);
	ck_assert_str_eq(denials->items[1].path, "\\xff");
	ck_assert_str_eq(denials->items[2].path, "a.test/x");
	ck_assert_str_eq(denials->items[3].path, "b.test:22");
	file = open_memstream(&text, &length);
	denials_print(denials, file);
	fclose(file);
	ck_assert_ptr_nonnull(strstr(text, "--allow-write a"));
	ck_assert_ptr_null(strchr(text, '\033'));
	free(text);
	ck_assert_uint_eq(denials->canary_count, 1);
	ck_assert_str_eq(denials->canaries[0], "c.test/\\x1bx: the decoy X; frozen");
	file = open_memstream(&text, &length);
	denials_print_canaries(denials, "! ", file);
	fclose(file);
	ck_assert_str_eq(text, "! c.test/\\x1bx: the decoy X; frozen\n");
	free(text);
	denials_free(denials);
	free(path);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cli_session");
	TCase *tests = tcase_create("all");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, round_trip);
	tcase_add_test(tests, status_follows_the_process);
	tcase_add_test(tests, finding);
	tcase_add_loop_test(tests, damaged, 0, ARRAY_LENGTH(damaged_records));
	tcase_add_test(tests, locking);
	tcase_add_test(tests, names);
	tcase_add_test(tests, path_judgements);
	tcase_add_test(tests, private_directory);
	tcase_add_test(tests, hostile_tree);
	tcase_add_test(tests, denials_of_a_log);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
