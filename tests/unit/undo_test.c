/* The undo log of a live session: records, refusals, quotas, identities; and what it lists. */
#include <check.h>

#include "fsserver/review.h"
#include "fsserver/undo_log.h"
#include "tests/unit/undo_world.h"

static struct world world;

static void setup(void)
{
	world_make(&world, "/tmp", 1);
}

static void teardown(void)
{
	if (world.undo)
		undo_close(world.undo);
	world_remove(&world);
}

static void begin(const struct undo_options *options)
{
	ck_assert_int_eq(undo_open(world.store_fd, world.root_fd, options, &world.undo), 0);
}

static void put_file(const char *path, const char *text)
{
	int fd = openat(world.root_fd, path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static uint64_t stored(void)
{
	uint64_t bytes;
	uint64_t entries;

	undo_usage(world.undo, &bytes, &entries);
	return entries;
}

static void roll_back(void)
{
	struct undo_report report;

	world_close_handles(&world);
	ck_assert_int_eq(undo_close(world.undo), 0);
	world.undo = NULL;
	ck_assert_int_eq(undo_roll_back(world.store_fd, world.root_fd, NULL, &report), 0);
	ck_assert_uint_eq(report.failed, 0);
}

/* ---- records
 * ------------------------------------------------------------------------------------- */

static int open_scratch(void)
{
	int fd = openat(world.base_fd, "scratch", O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static int count_records(int fd)
{
	struct undo_log_reader reader;
	struct undo_record record;
	int count = 0;

	ck_assert_int_eq(undo_log_reader_init(&reader, fd), 0);
	while (undo_log_reader_next(&reader, &record) == 1)
		count++;
	undo_log_reader_finish(&reader);
	return count;
}

START_TEST(records_round_trip)
{
	struct undo_record object = {
		.type = UNDO_RECORD_OBJECT,
		.object = 1,
		.directory = 7,
		.identity = { 99, -5, 999999999 },
		.attributes = { .mode = 0100644,
				.uid = 1,
				.gid = 2,
				.size = 3,
				.access = { 4, 5 },
				.modification = { -6, 7 },
				.change = { 8, 9 } },
		.name = "name",
		.name_length = 4,
	};
	struct undo_record pre = {
		.type = UNDO_RECORD_PRE,
		.object = 2,
		.flags = UNDO_PRE_INLINE,
		.value = 11,
		.count = 4,
		.data = (const uint8_t *)"data",
		.data_length = 4,
	};
	struct undo_log_reader reader;
	struct undo_record read;
	struct undo_log log;
	char data[4];
	int fd = open_scratch();

	ck_assert_int_eq(undo_log_create(&log, dup(fd)), 0);
	ck_assert_int_eq(undo_log_append(&log, &object), 0);
	ck_assert_int_eq(undo_log_append(&log, &pre), 0);
	undo_log_finish(&log);
	ck_assert_int_eq(undo_log_reader_init(&reader, fd), 0);
	ck_assert_int_eq(undo_log_reader_next(&reader, &read), 1);
	ck_assert_uint_eq(read.directory, 7);
	ck_assert(undo_identity_equal(&read.identity, &object.identity));
	ck_assert(timespec_equal(&read.attributes.modification, &object.attributes.modification));
	ck_assert_uint_eq(read.attributes.size, 3);
	ck_assert_mem_eq(read.name, "name", 4);
	ck_assert_int_eq(undo_log_reader_next(&reader, &read), 1);
	ck_assert_uint_eq(read.value, 11);
	ck_assert_mem_eq(read.data, "data", 4);
	ck_assert_int_eq(pread(fd, data, 4, (off_t)read.data_offset), 4);
	ck_assert_mem_eq(data, "data", 4);
	ck_assert_int_eq(undo_log_reader_next(&reader, &read), 0);
	undo_log_reader_finish(&reader);
	close(fd);
}
END_TEST

START_TEST(a_torn_or_bent_record_ends_the_log)
{
	struct undo_record record = { .type = UNDO_RECORD_CLAIM,
				      .object = 0,
				      .directory = 1,
				      .name = "x",
				      .name_length = 1 };
	struct undo_log log;
	int fd = open_scratch();
	uint64_t second;
	uint8_t byte;

	ck_assert_int_eq(undo_log_create(&log, dup(fd)), 0);
	ck_assert_int_eq(undo_log_append(&log, &record), 0);
	second = log.end;
	ck_assert_int_eq(undo_log_append(&log, &record), 0);
	for (uint64_t cut = log.end - 1; cut >= second; cut--) {
		ck_assert_int_eq(ftruncate(fd, (off_t)cut), 0);
		ck_assert_int_eq(count_records(fd), 1);
	}
	log.end = second;
	log.sequence = 2;
	ck_assert_int_eq(undo_log_append(&log, &record), 0);
	ck_assert_int_eq(count_records(fd), 2);
	for (uint64_t at = second; at < log.end; at++) {
		ck_assert_int_eq(pread(fd, &byte, 1, (off_t)at), 1);
		byte ^= 0x10;
		ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
		ck_assert_int_eq(count_records(fd), 1);
		byte ^= 0x10;
		ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
	}
	undo_log_finish(&log);
	close(fd);
}
END_TEST

START_TEST(names_in_records_are_components)
{
	static const char *const bad[] = { "", ".", "..", "a/b", "/" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert(!undo_name_valid(bad[i], strlen(bad[i])));
	ck_assert(!undo_name_valid("a\0b", 3));
	ck_assert(undo_name_valid("...", 3));
	ck_assert(undo_name_valid(".a", 2));
}
END_TEST

/* ---- sessions
 * ------------------------------------------------------------------------------------ */

START_TEST(one_session_per_store)
{
	struct undo *other;
	struct undo_report report;

	begin(NULL);
	ck_assert_int_eq(undo_open(world.store_fd, world.root_fd, NULL, &other), -EBUSY);
	ck_assert_int_eq(undo_roll_back(world.store_fd, world.root_fd, NULL, &report), -EBUSY);
	ck_assert_int_eq(undo_close(world.undo), 0);
	world.undo = NULL;
	ck_assert_int_eq(undo_open(world.store_fd, world.root_fd, NULL, &other), -EEXIST);
}
END_TEST

START_TEST(store_on_another_mount)
{
	struct undo *other;
	int fd = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(undo_open(world.store_fd, fd, NULL, &other), -EXDEV);
	close(fd);
}
END_TEST

START_TEST(another_tree_is_not_touched)
{
	struct undo_report report;
	int fd;

	begin(NULL);
	world_make_name(&world, "file", S_IFREG, NULL);
	ck_assert_int_eq(undo_close(world.undo), 0);
	world.undo = NULL;
	ck_assert_int_eq(mkdirat(world.base_fd, "other", 0755), 0);
	fd = openat(world.base_fd, "other", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(undo_roll_back(world.store_fd, fd, NULL, &report), -ESTALE);
	close(fd);
}
END_TEST

START_TEST(refusals)
{
	struct world_place place;

	ck_assert_int_eq(mkdirat(world.root_fd, "full", 0755), 0);
	put_file("full/file", "text");
	put_file("file", "text");
	begin(NULL);
	ck_assert_int_eq(world_unlink(&world, "full"), -ENOTEMPTY);
	ck_assert_int_eq(world_rename(&world, "file", "full", 0), -EISDIR);
	ck_assert_int_eq(world_rename(&world, "full", "file", 0), -ENOTDIR);
	ck_assert_int_eq(world_rename(&world, "file", "full/file", RENAME_NOREPLACE), -EEXIST);
	ck_assert_int_eq(world_rename(&world, "file", "none", RENAME_EXCHANGE), -ENOENT);
	ck_assert_int_eq(world_make_name(&world, "file", S_IFREG, NULL), -EEXIST);
	ck_assert(world_find(&world, "file", &place));
	ck_assert_int_eq(undo_will_create(world.undo, place.parent_fd, "", "..", S_IFREG), -EINVAL);
	ck_assert_int_eq(undo_will_create(world.undo, place.parent_fd, "", "a/b", S_IFREG),
			 -EINVAL);
	/* The host puts another file there after the caller judged the first. */
	put_file("file~", "host");
	ck_assert_int_eq(renameat(world.root_fd, "file~", world.root_fd, "file"), 0);
	ck_assert_int_eq(undo_remove(world.undo, place.parent_fd, "", "file", place.fd,
				     world_inode(&place.stat), false),
			 -ESTALE);
	ck_assert_int_eq(
		undo_will_write(world.undo, place.fd,
				(struct undo_inode){ place.stat.st_dev + 1, place.stat.st_ino },
				"file", 0, 1),
		-EXDEV);
	world_leave(&place);
}
END_TEST

START_TEST(what_the_session_made_needs_nothing)
{
	begin(NULL);
	ck_assert_int_eq(world_make_name(&world, "file", S_IFREG, NULL), 0);
	ck_assert_int_eq(world_write(&world, "file", 0, 200000, 'x'), 0);
	ck_assert_int_eq(world_truncate(&world, "file", 5), 0);
	ck_assert_int_eq(world_temporary(&world, "other"), 0);
	ck_assert_int_eq(world_rename(&world, "file", "other", 0), 0);
	ck_assert_int_eq(world_unlink(&world, "other"), 0);
	ck_assert_uint_eq(stored(), 0);
}
END_TEST

START_TEST(blocks_of_a_large_file)
{
	const uint64_t size = UINT64_C(1) << 36;
	uint64_t before;
	uint64_t after;
	uint64_t entries;
	int fd = openat(world.root_fd, "large", O_CREAT | O_RDWR | O_CLOEXEC, 0644);

	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	ck_assert_int_eq(pwrite(fd, "data", 4, 1 << 20), 4);
	begin(NULL);
	undo_usage(world.undo, &before, &entries);
	ck_assert_int_eq(world_write(&world, "large", 1 << 20, 4096, 'x'), 0);
	ck_assert_int_eq(world_truncate(&world, "large", 100), 0);
	undo_usage(world.undo, &after, &entries);
	ck_assert_uint_lt(after - before, 1 << 20);
	roll_back();
	{
		struct stat stat;
		char text[4];

		ck_assert_int_eq(fstat(fd, &stat), 0);
		ck_assert_uint_eq((uint64_t)stat.st_size, size);
		ck_assert_int_lt(stat.st_blocks, 64);
		ck_assert_int_eq(pread(fd, text, 4, 1 << 20), 4);
		ck_assert_mem_eq(text, "data", 4);
	}
	close(fd);
}
END_TEST

START_TEST(quotas_refuse_before_anything_changes)
{
	struct undo_options files = { .files_max = 1 };
	struct undo_options bytes = { .store_bytes_max = 4096 };
	char *before;

	put_file("one", "1");
	put_file("two", "2");
	begin(&files);
	ck_assert_int_eq(world_unlink(&world, "one"), 0);
	ck_assert_int_eq(world_unlink(&world, "two"), -EDQUOT);
	roll_back();
	ck_assert_int_eq(undo_discard(world.store_fd), 0);
	before = world_snapshot(&world, true);
	begin(&bytes);
	for (int i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%d", i);
		if (world_make_name(&world, name, S_IFREG, NULL) == -EDQUOT)
			break;
		ck_assert_int_lt(i, 199);
	}
	roll_back();
	{
		char *after = world_snapshot(&world, true);

		ck_assert_str_eq(before, after);
		free(after);
		free(before);
	}
}
END_TEST

/* The host removes a file of the session's and makes another, which may get its inode number. */
START_TEST(a_reused_inode_number_is_no_file_of_ours)
{
	begin(NULL);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(world_make_name(&world, "ours", S_IFREG, NULL), 0);
		ck_assert_int_eq(world_write(&world, "ours", 0, 10, 'o'), 0);
		ck_assert_int_eq(unlinkat(world.root_fd, "ours", 0), 0);
		usleep(10000);
		put_file("host", "host's text");
		ck_assert_int_eq(world_write(&world, "host", 0, 4, 'g'), 0);
	}
	roll_back();
	{
		char text[16] = "";
		int fd = openat(world.root_fd, "host", O_RDONLY | O_CLOEXEC);

		ck_assert_int_ge(fd, 0);
		ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
		close(fd);
	}
	ck_assert_int_ne(faccessat(world.root_fd, "ours", F_OK, 0), 0);
}
END_TEST

/* ---- what is listed
 * ------------------------------------------------------------------------------ */

static char *listing(const struct review_options *options)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	ck_assert_int_eq(review_print(world.store_fd, world.root_fd, options, out), 0);
	fclose(out);
	return text;
}

START_TEST(net_changes)
{
	struct review_options names = { .name_only = true };
	const char *paths[] = { "./moved/" };
	struct review_options some = { .paths = paths, .path_count = 1 };
	char *text;

	ck_assert_int_eq(mkdirat(world.root_fd, "dir", 0755), 0);
	put_file("dir/file", "one\ntwo\nthree\n");
	put_file("deleted", "gone\n");
	put_file("same", "same\n");
	put_file("renamed", "renamed\n");
	put_file("replaced", "old\n");
	put_file("Makefile", "all:\n");
	begin(NULL);
	world_write(&world, "dir/file", 4, 3, '2');
	world_rename(&world, "dir", "moved", 0);
	world_unlink(&world, "deleted");
	world_write(&world, "same", 0, 1, 's');
	world_rename(&world, "renamed", "r2", 0);
	world_rename(&world, "r2", "r3", 0);
	world_make_name(&world, "tmp", S_IFREG, NULL);
	world_write(&world, "tmp", 0, 4, 't');
	world_rename(&world, "tmp", "replaced", 0);
	world_make_name(&world, "passing", S_IFREG, NULL);
	world_unlink(&world, "passing");
	world_make_name(&world, "esc\033[2J", S_IFREG, NULL);
	world_attribute(&world, "Makefile", WORLD_MODE, 0755);
	text = listing(&names);
	ck_assert_str_eq(text,
			 "! mode    Makefile  (mode 0644 -> 0755)\n"
			 "  deleted deleted\n"
			 "  created esc\\x1b[2J\n"
			 "  renamed dir -> moved/\n"
			 "  changed moved/file\n"
			 "  renamed renamed -> r3\n"
			 "  changed replaced\n"
			 "7 changed, 1 of them marked ! because the host may run or trust them\n");
	free(text);
	text = listing(&some);
	ck_assert_ptr_nonnull(strstr(text, "@@ -1,3 +1,3 @@\n one\n-two\n+222\n three\n"));
	ck_assert_ptr_null(strstr(text, "Makefile"));
	free(text);
	roll_back();
	text = listing(&names);
	ck_assert_str_eq(text, "No changes.\n");
	free(text);
}
END_TEST

static void world_repository(const char *path)
{
	static const char *const marks[] = { "HEAD", "objects", "refs" };
	char name[64];

	world_make_name(&world, path, S_IFDIR, NULL);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s/%s", path, marks[i]);
		world_make_name(&world, name, i == 0 ? S_IFREG : S_IFDIR, NULL);
	}
}

START_TEST(new_repositories)
{
	const char *paths[] = { "bare" };
	struct review_options names = { .name_only = true };
	struct review_options some = { .name_only = true, .paths = paths, .path_count = 1 };
	struct review_options json = { .name_only = true, .json = true };
	char *text;

	ck_assert_int_eq(mkdirat(world.root_fd, "old", 0755), 0);
	ck_assert_int_eq(mkdirat(world.root_fd, "old/objects", 0755), 0);
	ck_assert_int_eq(mkdirat(world.root_fd, "old/refs", 0755), 0);
	ck_assert_int_eq(mkdirat(world.root_fd, "there", 0755), 0);
	ck_assert_int_eq(mkdirat(world.root_fd, "there/.git", 0755), 0);
	put_file("there/.git/HEAD", "ref: refs/heads/main\n");
	begin(NULL);
	world_make_name(&world, "clone", S_IFDIR, NULL);
	world_repository("clone/.git");
	world_repository("bare");
	world_repository("gone");
	world_rename(&world, "gone", "came", 0);
	world_make_name(&world, "old/HEAD", S_IFREG, NULL);
	world_write(&world, "there/.git/HEAD", 0, 1, 'R');
	world_make_name(&world, "half", S_IFDIR, NULL);
	world_make_name(&world, "half/HEAD", S_IFREG, NULL);
	text = listing(&names);
	ck_assert_int_eq(strncmp(text,
				 "! new repository bare\n"
				 "! new repository came\n"
				 "! new repository clone/.git\n"
				 "! new repository old\n",
				 91),
			 0);
	ck_assert_ptr_null(strstr(text, "new repository half"));
	ck_assert_ptr_null(strstr(text, "new repository there"));
	free(text);
	text = listing(&some);
	ck_assert_int_eq(strncmp(text, "! new repository bare\n  created", 31), 0);
	free(text);
	text = listing(&json);
	ck_assert_ptr_nonnull(
		strstr(text, "\"new_repositories\":[\"bare\",\"came\",\"clone/.git\",\"old\"]"));
	free(text);
}
END_TEST

static Suite *suite(void)
{
	Suite *all = suite_create("undo");
	TCase *tests = tcase_create("undo");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, records_round_trip);
	tcase_add_test(tests, a_torn_or_bent_record_ends_the_log);
	tcase_add_test(tests, names_in_records_are_components);
	tcase_add_test(tests, one_session_per_store);
	tcase_add_test(tests, store_on_another_mount);
	tcase_add_test(tests, another_tree_is_not_touched);
	tcase_add_test(tests, refusals);
	tcase_add_test(tests, what_the_session_made_needs_nothing);
	tcase_add_test(tests, blocks_of_a_large_file);
	tcase_add_test(tests, quotas_refuse_before_anything_changes);
	tcase_add_test(tests, a_reused_inode_number_is_no_file_of_ours);
	tcase_add_test(tests, net_changes);
	tcase_add_test(tests, new_repositories);
	suite_add_tcase(all, tests);
	return all;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
