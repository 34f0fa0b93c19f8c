/*
 * Rolling back: after random sessions, after a kill at every system call of a session and of a
 * roll-back, beside edits of the host's, on a full disk, and on file systems with reflink.
 */
#include <check.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "tests/unit/undo_world.h"

#define RANDOM_SESSIONS 60
#define RANDOM_STEPS 300
#define TIMEOUT_SECONDS 240

struct told {
	int kept;
	int failed;
	char kept_path[WORLD_PATH];
	char kept_at[WORLD_PATH];
};

static void on_kept(const char *path, const char *kept_path, void *context)
{
	struct told *told = context;

	told->kept++;
	snprintf(told->kept_path, sizeof(told->kept_path), "%s", path);
	snprintf(told->kept_at, sizeof(told->kept_at), "%s", kept_path);
}

static void on_failed(const char *path, int error, void *context)
{
	struct told *told = context;

	told->failed++;
	fprintf(stderr, "failed: %s: %s\n", path, strerror(-error));
}

static struct undo_report roll_back(struct world *world, struct told *told)
{
	struct undo_callbacks callbacks = { .on_kept = on_kept,
					    .on_failed = on_failed,
					    .context = told };
	struct undo_report report = { 0 };

	memset(told, 0, sizeof(*told));
	ck_assert_int_eq(undo_roll_back(world->store_fd, world->root_fd, &callbacks, &report), 0);
	ck_assert_int_eq(told->failed, 0);
	return report;
}

static void begin(struct world *world)
{
	ck_assert_int_eq(undo_open(world->store_fd, world->root_fd, NULL, &world->undo), 0);
}

static void end(struct world *world)
{
	world_close_handles(world);
	ck_assert_int_eq(undo_close(world->undo), 0);
	world->undo = NULL;
}

static void put_file(struct world *world, const char *path, const char *text)
{
	int fd = openat(world->root_fd, path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void check_file(struct world *world, const char *path, const char *text)
{
	char buffer[256];
	int fd = openat(world->root_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	ck_assert_msg(fd >= 0, "%s is missing", path);
	length = read(fd, buffer, sizeof(buffer) - 1);
	ck_assert_int_ge(length, 0);
	buffer[length] = '\0';
	ck_assert_str_eq(buffer, text);
	close(fd);
}

static bool exists(struct world *world, const char *path)
{
	return faccessat(world->root_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void check_same(const char *before, char *after)
{
	if (strcmp(before, after) != 0)
		world_print_difference(before, after);
	ck_assert_str_eq(before, after);
	free(after);
}

static void random_session(const char *where, uint64_t seed, bool holes)
{
	struct undo_report report;
	struct world world;
	struct told told;
	char *before;

	world_make(&world, where, seed);
	world_populate(&world);
	before = world_snapshot(&world, holes);
	begin(&world);
	for (int i = 0; i < RANDOM_STEPS; i++)
		world_step(&world);
	end(&world);
	report = roll_back(&world, &told);
	ck_assert_uint_eq(report.kept, 0);
	ck_assert(!report.already_done);
	check_same(before, world_snapshot(&world, holes));
	report = roll_back(&world, &told);
	ck_assert(report.already_done);
	check_same(before, world_snapshot(&world, holes));
	free(before);
	world_remove(&world);
}

START_TEST(random_sessions)
{
	for (uint64_t seed = 1; seed <= RANDOM_SESSIONS; seed++)
		random_session("/tmp", seed, true);
}
END_TEST

/* As an ordinary user, for whom the modes that a guest sets are in the way. */
START_TEST(random_sessions_of_a_user)
{
	pid_t child = fork();
	int status;

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
			_exit(1);
		for (uint64_t seed = 1000; seed < 1000 + RANDOM_SESSIONS; seed++)
			random_session("/tmp", seed, true);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* ---- a kill at every system call
 * ----------------------------------------------------------------- */

static void prepare_fixed(struct world *world)
{
	int fd;

	mkdirat(world->root_fd, "d", 0755);
	mkdirat(world->root_fd, "d/e", 0755);
	mkdirat(world->root_fd, "empty", 0750);
	put_file(world, "small", "small content\n");
	put_file(world, "d/other", "other content\n");
	put_file(world, "d/e/deep", "deep content\n");
	put_file(world, "linked", "linked content\n");
	put_file(world, "away", "away content\n");
	(void)!linkat(world->root_fd, "linked", world->root_fd, "d/second", 0);
	(void)!symlinkat("small", world->root_fd, "symlink");
	fd = openat(world->root_fd, "large", O_CREAT | O_RDWR | O_CLOEXEC, 0644);
	(void)!pwrite(fd, "head", 4, 0);
	(void)!pwrite(fd, "tail", 4, 300000);
	fsetxattr(fd, "user.one", "1", 1, 0);
	close(fd);
}

static void run_fixed(struct world *world)
{
	int fd;

	world_make_name(world, "new", S_IFREG, NULL);
	world_write(world, "new", 0, 5000, 'n');
	world_make_name(world, "newdir", S_IFDIR, NULL);
	world_rename(world, "d/e", "newdir/e", 0);
	world_write(world, "small", 3, 4, 's');
	world_write(world, "large", 299000, 2000, 'l');
	world_truncate(world, "large", 10);
	world_attribute(world, "large", WORLD_XATTR, 7);
	world_attribute(world, "d", WORLD_MODE, 0700);
	world_rename(world, "new", "small", 0);
	world_rename(world, "d/other", "away", 0);
	world_rename(world, "linked", "newdir/e/deep", RENAME_EXCHANGE);
	world_unlink(world, "d/second");
	world_unlink(world, "empty");
	world_unlink(world, "symlink");
	world_make_name(world, "symlink", S_IFDIR, NULL);
	world_link(world, "away", "symlink/away");
	fd = world_open(world, "away");
	world_unlink(world, "away");
	world_write_fd(world, fd, 0, 100, 'u');
	world_did_change(world, fd);
	close(fd);
	world_temporary(world, "symlink/temporary");
	world_rename(world, "d", "newdir/e/d", 0);
}

static int count_stops(pid_t child, int limit)
{
	int stops = 0;
	int status;

	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
		if (stops++ == limit) {
			kill(child, SIGKILL);
			waitpid(child, &status, 0);
			return -1;
		}
		ptrace(PTRACE_SYSCALL, child, 0, 0);
	}
	return stops;
}

enum crash_place { CRASH_IN_SESSION, CRASH_IN_ROLL_BACK };

/* Carries out the session or the roll-back in a child that dies at its `limit`-th stop. */
static int crash_at(struct world *world, enum crash_place place, int limit)
{
	struct undo_report report;
	pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		if (place == CRASH_IN_SESSION) {
			if (undo_open(world->store_fd, world->root_fd, NULL, &world->undo))
				_exit(1);
			run_fixed(world);
			undo_close(world->undo);
		} else {
			undo_roll_back(world->store_fd, world->root_fd, NULL, &report);
		}
		_exit(0);
	}
	return count_stops(child, limit);
}

static void crash_everywhere(enum crash_place place)
{
	struct world world;
	struct told told;
	bool finished = false;

	/* Every second stop is the return of a call; stopping there adds the state after it, which
	 * is the state before the next. */
	for (int limit = 1; !finished; limit += 2) {
		char *before;

		world_make(&world, "/tmp", 1);
		prepare_fixed(&world);
		before = world_snapshot(&world, true);
		if (place == CRASH_IN_ROLL_BACK) {
			begin(&world);
			run_fixed(&world);
			end(&world);
		}
		finished = crash_at(&world, place, limit) >= 0;
		/* A log that was not begun yet: nothing had been changed. */
		if (openat(world.store_fd, "log", O_RDONLY | O_CLOEXEC) >= 0) {
			struct undo_callbacks callbacks = { .on_failed = on_failed,
							    .context = &told };
			struct undo_report report;
			int result =
				undo_roll_back(world.store_fd, world.root_fd, &callbacks, &report);

			ck_assert_msg(result == 0, "stop %d: %d", limit, result);
		}
		{
			char *after = world_snapshot(&world, true);

			if (strcmp(before, after) != 0)
				fprintf(stderr, "killed at stop %d\n", limit);
			check_same(before, after);
		}
		free(before);
		world_remove(&world);
	}
}

START_TEST(killed_session)
{
	crash_everywhere(CRASH_IN_SESSION);
}
END_TEST

START_TEST(killed_roll_back)
{
	crash_everywhere(CRASH_IN_ROLL_BACK);
}
END_TEST

/* ---- edits of the host's
 * ------------------------------------------------------------------------- */

START_TEST(host_edits_content)
{
	struct world world;
	struct told told;

	world_make(&world, "/tmp", 1);
	put_file(&world, "file", "before");
	begin(&world);
	world_write(&world, "file", 0, 3, 'g');
	put_file(&world, "file", "from the host");
	end(&world);
	roll_back(&world, &told);
	ck_assert_int_eq(told.kept, 1);
	ck_assert_str_eq(told.kept_path, "file");
	ck_assert_str_eq(told.kept_at, "file.matchlock-before");
	check_file(&world, "file", "from the host");
	check_file(&world, "file.matchlock-before", "before");
	world_remove(&world);
}
END_TEST

START_TEST(host_edits_between_two_writes)
{
	struct world world;
	struct told told;

	world_make(&world, "/tmp", 1);
	put_file(&world, "file", "before");
	begin(&world);
	world_write(&world, "file", 0, 3, 'g');
	put_file(&world, "file", "from the host");
	world_write(&world, "file", 0, 4, 'G');
	end(&world);
	roll_back(&world, &told);
	ck_assert_int_eq(told.kept, 1);
	check_file(&world, "file", "GGGG the host");
	check_file(&world, "file.matchlock-before", "before");
	world_remove(&world);
}
END_TEST

START_TEST(host_saves_over)
{
	struct world world;
	struct told told;

	world_make(&world, "/tmp", 1);
	put_file(&world, "file", "before");
	begin(&world);
	world_write(&world, "file", 0, 3, 'g');
	put_file(&world, "file~", "from the editor");
	ck_assert_int_eq(renameat(world.root_fd, "file~", world.root_fd, "file"), 0);
	end(&world);
	roll_back(&world, &told);
	ck_assert_int_eq(told.kept, 1);
	check_file(&world, "file", "from the editor");
	check_file(&world, "file.matchlock-before", "before");
	world_remove(&world);
}
END_TEST

START_TEST(host_takes_a_freed_name)
{
	struct world world;
	struct told told;

	world_make(&world, "/tmp", 1);
	put_file(&world, "deleted", "before");
	put_file(&world, "moved", "moved before");
	begin(&world);
	ck_assert_int_eq(world_unlink(&world, "deleted"), 0);
	ck_assert_int_eq(world_rename(&world, "moved", "elsewhere", 0), 0);
	put_file(&world, "deleted", "host's");
	put_file(&world, "moved", "host's, too");
	end(&world);
	roll_back(&world, &told);
	ck_assert_int_eq(told.kept, 2);
	check_file(&world, "deleted", "host's");
	check_file(&world, "deleted.matchlock-before", "before");
	check_file(&world, "moved", "host's, too");
	check_file(&world, "moved.matchlock-before", "moved before");
	ck_assert(!exists(&world, "elsewhere"));
	world_remove(&world);
}
END_TEST

START_TEST(guest_deletes_what_the_host_put)
{
	struct world world;
	struct told told;

	world_make(&world, "/tmp", 1);
	put_file(&world, "name", "before");
	begin(&world);
	ck_assert_int_eq(world_unlink(&world, "name"), 0);
	put_file(&world, "name", "host's");
	ck_assert_int_eq(world_unlink(&world, "name"), 0);
	end(&world);
	roll_back(&world, &told);
	ck_assert_int_eq(told.kept, 1);
	check_file(&world, "name", "host's");
	check_file(&world, "name.matchlock-before", "before");
	world_remove(&world);
}
END_TEST

START_TEST(host_edits_what_the_guest_made)
{
	struct world world;
	struct told told;

	world_make(&world, "/tmp", 1);
	begin(&world);
	world_make_name(&world, "dir", S_IFDIR, NULL);
	world_make_name(&world, "dir/edited", S_IFREG, NULL);
	world_write(&world, "dir/edited", 0, 5, 'g');
	world_make_name(&world, "dir/plain", S_IFREG, NULL);
	world_write(&world, "dir/plain", 0, 5, 'g');
	world_make_name(&world, "other", S_IFDIR, NULL);
	world_make_name(&world, "gone", S_IFDIR, NULL);
	put_file(&world, "dir/edited", "host's text");
	put_file(&world, "other/host", "in the guest's directory");
	end(&world);
	roll_back(&world, &told);
	check_file(&world, "dir/edited", "host's text");
	ck_assert(!exists(&world, "dir/plain"));
	check_file(&world, "other/host", "in the guest's directory");
	ck_assert(!exists(&world, "gone"));
	ck_assert_int_eq(told.kept, 3);
	world_remove(&world);
}
END_TEST

START_TEST(host_file_where_a_file_was_replaced_by_a_directory)
{
	struct world world;
	struct told told;

	world_make(&world, "/tmp", 1);
	put_file(&world, "thing", "before");
	begin(&world);
	ck_assert_int_eq(world_unlink(&world, "thing"), 0);
	ck_assert_int_eq(world_make_name(&world, "thing", S_IFDIR, NULL), 0);
	put_file(&world, "thing/host", "host's");
	end(&world);
	roll_back(&world, &told);
	check_file(&world, "thing", "before");
	ck_assert_int_eq(told.kept, 1);
	ck_assert(strstr(told.kept_at, "matchlock-host"));
	{
		char path[WORLD_PATH + 8];

		snprintf(path, sizeof(path), "%s/host", told.kept_at);
		check_file(&world, path, "host's");
	}
	world_remove(&world);
}
END_TEST

START_TEST(host_changes_mode_and_untouched_files)
{
	struct world world;
	struct told told;
	struct stat stat;

	world_make(&world, "/tmp", 1);
	put_file(&world, "file", "before");
	put_file(&world, "untouched", "before");
	begin(&world);
	world_attribute(&world, "file", WORLD_MODE, 0600);
	ck_assert_int_eq(fchmodat(world.root_fd, "file", 0640, 0), 0);
	put_file(&world, "untouched", "host's");
	put_file(&world, "host-new", "host's");
	end(&world);
	roll_back(&world, &told);
	ck_assert_int_eq(fstatat(world.root_fd, "file", &stat, 0), 0);
	ck_assert_uint_eq(stat.st_mode & 0777, 0640);
	check_file(&world, "untouched", "host's");
	check_file(&world, "host-new", "host's");
	world_remove(&world);
}
END_TEST

START_TEST(host_removes_a_directory)
{
	struct world world;
	struct told told;

	world_make(&world, "/tmp", 1);
	mkdirat(world.root_fd, "dir", 0755);
	put_file(&world, "dir/file", "before");
	begin(&world);
	ck_assert_int_eq(world_unlink(&world, "dir/file"), 0);
	ck_assert_int_eq(unlinkat(world.root_fd, "dir", AT_REMOVEDIR), 0);
	end(&world);
	roll_back(&world, &told);
	ck_assert_int_eq(told.kept, 1);
	ck_assert(strstr(told.kept_at, "/store/grave/"));
	ck_assert_int_eq(access(told.kept_at, R_OK), 0);
	world_remove(&world);
}
END_TEST

/* ---- disks
 * --------------------------------------------------------------------------------------- */

/* What a test mounts goes away with its process, however that ends. */
static bool own_mounts(void)
{
	return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

START_TEST(full_disk)
{
	char where[] = "/tmp/undo-full-XXXXXX";
	struct undo_report report;
	struct world world;
	char *before;

	ck_assert_ptr_nonnull(mkdtemp(where));
	if (!own_mounts() || mount("tmpfs", where, "tmpfs", 0, "size=2m,nr_inodes=300")) {
		fprintf(stderr, "full_disk: skipped: cannot mount tmpfs: %s\n", strerror(errno));
		rmdir(where);
		return;
	}
	for (uint64_t seed = 1; seed <= 20; seed++) {
		world_make(&world, where, seed);
		world_populate(&world);
		before = world_snapshot(&world, false);
		begin(&world);
		for (int i = 0; i < 2 * RANDOM_STEPS; i++)
			world_step(&world);
		world_close_handles(&world);
		(void)undo_close(world.undo);
		world.undo = NULL;
		/* What the guest filled is freed by the roll-back itself. */
		ck_assert_int_eq(undo_roll_back(world.store_fd, world.root_fd, NULL, &report), 0);
		ck_assert_uint_eq(report.failed, 0);
		check_same(before, world_snapshot(&world, false));
		free(before);
		world_remove(&world);
	}
	umount(where);
	rmdir(where);
}
END_TEST

static int run(const char *const *arguments)
{
	pid_t child = fork();
	int status = -1;

	if (child == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(null, 1);
		dup2(null, 2);
		execvp(arguments[0], (char *const *)(uintptr_t)arguments);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return status;
}

/* The random sessions on a file system of its own, on a loop device. */
static void on_file_system(const char *make, const char *option)
{
	char where[] = "/tmp/undo-fs-XXXXXX";
	char image[64];
	const char *mkfs[] = { make, option, image, NULL };
	const char *mounts[] = { "mount", "-o", "loop", image, where, NULL };
	const char *unmounts[] = { "umount", where, NULL };
	int fd;

	ck_assert_ptr_nonnull(mkdtemp(where));
	snprintf(image, sizeof(image), "%s.img", where);
	fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(fd, 400 << 20), 0);
	close(fd);
	if (!own_mounts() || run(mkfs) != 0 || run(mounts) != 0) {
		fprintf(stderr, "%s: skipped: needs root, the tool and a loop device\n", make);
	} else {
		for (uint64_t seed = 100; seed < 120; seed++)
			random_session(where, seed, false);
		run(unmounts);
	}
	unlink(image);
	rmdir(where);
}

START_TEST(on_xfs)
{
	on_file_system("mkfs.xfs", "-mreflink=1");
}
END_TEST

START_TEST(on_btrfs)
{
	on_file_system("mkfs.btrfs", "-f");
}
END_TEST

START_TEST(on_tmpfs)
{
	for (uint64_t seed = 200; seed < 220; seed++)
		random_session("/dev/shm", seed, false);
}
END_TEST

static Suite *suite(void)
{
	Suite *all = suite_create("undo_rollback");
	TCase *sessions = tcase_create("sessions");
	TCase *host = tcase_create("host");
	TCase *disks = tcase_create("disks");

	tcase_set_timeout(sessions, TIMEOUT_SECONDS);
	tcase_add_test(sessions, random_sessions);
	tcase_add_test(sessions, random_sessions_of_a_user);
	tcase_add_test(sessions, killed_session);
	tcase_add_test(sessions, killed_roll_back);
	suite_add_tcase(all, sessions);
	tcase_add_test(host, host_edits_content);
	tcase_add_test(host, host_edits_between_two_writes);
	tcase_add_test(host, host_saves_over);
	tcase_add_test(host, host_takes_a_freed_name);
	tcase_add_test(host, guest_deletes_what_the_host_put);
	tcase_add_test(host, host_edits_what_the_guest_made);
	tcase_add_test(host, host_file_where_a_file_was_replaced_by_a_directory);
	tcase_add_test(host, host_changes_mode_and_untouched_files);
	tcase_add_test(host, host_removes_a_directory);
	suite_add_tcase(all, host);
	tcase_set_timeout(disks, TIMEOUT_SECONDS);
	tcase_add_test(disks, full_disk);
	tcase_add_test(disks, on_xfs);
	tcase_add_test(disks, on_btrfs);
	tcase_add_test(disks, on_tmpfs);
	suite_add_tcase(all, disks);
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
