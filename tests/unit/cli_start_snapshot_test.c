/* The directory of stored guests: who gets a file, who replaces which, and what goes. */
#include "cli/remove_tree.h"
#include "cli/start_snapshot.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char scratch[] = "/tmp/matchlock-snapshots-XXXXXX";
static struct paths paths;
static char directory[64];

static void set_up(void)
{
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	paths.cache = scratch;
	(void)snprintf(directory, sizeof(directory), "%s/snapshots", scratch);
}

static void tear_down(void)
{
	ck_assert_int_eq(remove_tree(scratch), 0);
	memcpy(scratch + strlen(scratch) - 6, "XXXXXX", 6);
}

static struct start_snapshot open_it(void)
{
	struct start_snapshot snapshot;

	start_snapshot_open(&paths, "auto", true, 2, 512, &snapshot);
	return snapshot;
}

static bool exists(const char *name)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	return access(path, F_OK) == 0;
}

static void make(const char *name, mode_t mode, int days)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_NOW },
					   { .tv_sec = time(NULL) - days * 24 * 60 * 60 } };
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	ck_assert_int_eq(futimens(fd, times), 0);
	close(fd);
}

static void keep(struct start_snapshot *snapshot)
{
	ck_assert_int_eq(write(snapshot->fresh, "good", 4), 4);
	start_snapshot_keep(snapshot);
	start_snapshot_close(snapshot);
}

START_TEST(first_and_next)
{
	struct start_snapshot snapshot = open_it();
	struct stat status;
	char text[8] = "";

	ck_assert_int_eq(snapshot.stored, -1);
	ck_assert_int_eq(stat(directory, &status), 0);
	ck_assert_uint_eq(status.st_mode & 0777, 0700);
	ck_assert_int_eq(fstat(snapshot.fresh, &status), 0);
	ck_assert_uint_eq(status.st_mode & 0777, 0600);
	keep(&snapshot);
	snapshot = open_it();
	ck_assert_int_eq(read(snapshot.stored, text, sizeof(text)), 4);
	ck_assert_str_eq(text, "good");
	ck_assert_int_lt(write(snapshot.stored, "bad", 3), 0);
	start_snapshot_drop(&snapshot);
	start_snapshot_close(&snapshot);
	ck_assert_int_eq(rmdir(directory), 0); /* nothing is left */
}
END_TEST

/* A guest that has to sleep to be stored is woken from its own file. */
START_TEST(turned_to)
{
	struct start_snapshot snapshot = open_it();
	char text[8] = "";

	ck_assert_int_eq(write(snapshot.fresh, "good", 4), 4);
	start_snapshot_turn(&snapshot);
	ck_assert_int_eq(snapshot.fresh, -1);
	ck_assert_int_eq(read(snapshot.stored, text, sizeof(text)), 4);
	ck_assert_str_eq(text, "good");
	ck_assert_int_lt(write(snapshot.stored, "bad", 3), 0);
	start_snapshot_close(&snapshot);
	ck_assert(exists("trimmed-2-512m"));
}
END_TEST

START_TEST(of_an_engine)
{
	struct start_snapshot snapshot;

	start_snapshot_open(&paths, "kvm", false, 1, 512, &snapshot);
	keep(&snapshot);
	ck_assert(exists("debian-1-512m"));
	start_snapshot_open(&paths, "qemu", false, 1, 512, &snapshot);
	ck_assert_int_eq(snapshot.stored, -1);
	keep(&snapshot);
	ck_assert(exists("software-debian-1-512m"));
}
END_TEST

START_TEST(not_kept)
{
	struct start_snapshot snapshot = open_it();

	ck_assert_int_eq(write(snapshot.fresh, "half", 4), 4);
	start_snapshot_close(&snapshot);
	ck_assert_int_eq(snapshot.directory, -1);
	ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* Of two at once one stores; the other neither disturbs it nor takes its file away. */
START_TEST(two_at_once)
{
	struct start_snapshot one = open_it(), two = open_it();

	ck_assert_int_ge(one.fresh, 0);
	ck_assert_int_eq(two.fresh, -1);
	start_snapshot_keep(&two);
	start_snapshot_close(&two);
	ck_assert(exists("trimmed-2-512m.new"));
	keep(&one);
	ck_assert(exists("trimmed-2-512m"));
	ck_assert(!exists("trimmed-2-512m.new"));
}
END_TEST

START_TEST(unused_ones_go)
{
	struct start_snapshot snapshot = open_it();

	make("debian-1-512m", 0600, START_SNAPSHOT_DAYS + 1);
	make("debian-2-512m", 0600, START_SNAPSHOT_DAYS - 1);
	keep(&snapshot);
	ck_assert(!exists("debian-1-512m"));
	ck_assert(exists("debian-2-512m"));
	ck_assert(exists("trimmed-2-512m"));
}
END_TEST

/* Using one is what keeps it. */
START_TEST(used_ones_stay)
{
	struct start_snapshot snapshot = open_it(), other;

	start_snapshot_close(&snapshot);
	make("trimmed-2-512m", 0600, START_SNAPSHOT_DAYS + 1);
	snapshot = open_it();
	ck_assert_int_ge(snapshot.stored, 0);
	start_snapshot_open(&paths, "auto", true, 1, 512, &other);
	keep(&other);
	ck_assert(exists("trimmed-2-512m"));
	start_snapshot_close(&snapshot);
}
END_TEST

START_TEST(not_ours_alone)
{
	struct start_snapshot snapshot = open_it();
	char path[128];

	start_snapshot_close(&snapshot);
	make("trimmed-2-512m", 0620, 0);
	snapshot = open_it();
	ck_assert_int_eq(snapshot.stored, -1);
	start_snapshot_close(&snapshot);
	(void)snprintf(path, sizeof(path), "%s/trimmed-2-512m", directory);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(symlink("/etc/hostname", path), 0);
	snapshot = open_it();
	ck_assert_int_eq(snapshot.stored, -1);
	start_snapshot_close(&snapshot);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	snapshot = open_it();
	ck_assert_int_eq(snapshot.stored, -1);
	start_snapshot_close(&snapshot);
}
END_TEST

/* Where there can be no directory there are no snapshots, and nobody is the worse for it. */
START_TEST(no_directory)
{
	struct start_snapshot snapshot;
	int fd = open(directory, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	close(fd);
	snapshot = open_it();
	ck_assert_int_eq(snapshot.directory, -1);
	ck_assert_int_eq(snapshot.fresh, -1);
	start_snapshot_keep(&snapshot);
	start_snapshot_drop(&snapshot);
	start_snapshot_close(&snapshot);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cli_start_snapshot");
	TCase *tests = tcase_create("cli_start_snapshot");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, first_and_next);
	tcase_add_test(tests, turned_to);
	tcase_add_test(tests, of_an_engine);
	tcase_add_test(tests, not_kept);
	tcase_add_test(tests, two_at_once);
	tcase_add_test(tests, unused_ones_go);
	tcase_add_test(tests, used_ones_stay);
	tcase_add_test(tests, not_ours_alone);
	tcase_add_test(tests, no_directory);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
