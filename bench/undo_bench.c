/*
 * The roll-back rows of the benchmarks, at the undo log itself: undoing 10,000 changes against
 * replacing the tree from a copy, and the first 4 KiB write into a 1 GiB file against copying it.
 * Arguments: rounds, scratch directory (on a file system without reflink for the second figure).
 */
#include "base/checked.h"
#include "fsserver/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define FILES 10000
#define ROUNDS_MAX 99
#define LARGE_BYTES (INT64_C(1) << 30)

static void fail(const char *what)
{
	fprintf(stderr, "undo_bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void must(int result, const char *what)
{
	if (result < 0) {
		if (result != -1)
			errno = -result;
		fail(what);
	}
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void run(const char *const *arguments)
{
	char *argv[8];
	pid_t child;
	int status;
	size_t count = 0;

	for (; arguments[count] && count + 1 < ARRAY_LENGTH(argv); count++)
		argv[count] = strdup(arguments[count]);
	argv[count] = NULL;
	if (posix_spawnp(&child, argv[0], NULL, NULL, argv, environ) != 0 ||
	    waitpid(child, &status, 0) < 0 || status != 0)
		fail(arguments[0]);
	for (size_t i = 0; i < count; i++)
		free(argv[i]);
}

static int open_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	must(fd, path);
	return fd;
}

static void put_file(int directory, const char *name, int i)
{
	char text[512];
	int length = snprintf(text, sizeof(text), "file %d %0*d\n", i, 100 + i % 300, i);
	int fd = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	must(fd, name);
	must((int)write(fd, text, (size_t)length), name);
	close(fd);
}

/* FILES/4 each of: to be changed, renamed, deleted; as many will be created. */
static void make_tree(const char *path)
{
	char name[64];

	must(mkdir(path, 0755), path);
	for (int d = 0; d < 100; d++) {
		char directory_path[512];
		int directory;

		snprintf(directory_path, sizeof(directory_path), "%s/d%02d", path, d);
		must(mkdir(directory_path, 0755), directory_path);
		directory = open_directory(directory_path);
		for (int i = 0; i < FILES * 3 / 4 / 100; i++) {
			snprintf(name, sizeof(name), "f%d", i);
			put_file(directory, name, i);
		}
		close(directory);
	}
}

static struct stat identify(int directory, const char *name, int *ret_fd)
{
	struct stat status;

	*ret_fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	must(*ret_fd, name);
	must(fstat(*ret_fd, &status), name);
	return status;
}

static struct undo_inode inode_of(const struct stat *status)
{
	return (struct undo_inode){ .device = status->st_dev, .ino = status->st_ino };
}

static void change_one(struct undo *undo, int directory, const char *parent, int i)
{
	char name[64];
	char new_name[64];
	char path[256];
	struct stat status;
	int fd;

	snprintf(name, sizeof(name), "f%d", i);
	snprintf(path, sizeof(path), "%s/%s", parent, name);
	status = identify(directory, name, &fd);
	if (i % 3 == 0) {
		must(undo_will_write(undo, fd, inode_of(&status), path, 0, UINT64_MAX), path);
		put_file(directory, name, i + 1);
		must(fstat(fd, &status), path);
		undo_did_change(undo, inode_of(&status), &status);
		snprintf(new_name, sizeof(new_name), "new%d", i);
		must(undo_will_create(undo, directory, parent, new_name, S_IFREG), path);
		put_file(directory, new_name, i);
		must(fstatat(directory, new_name, &status, AT_SYMLINK_NOFOLLOW), path);
		undo_did_create(undo, &status);
	} else if (i % 3 == 1) {
		struct undo_rename rename = {
			.old_parent_fd = directory,
			.old_parent_path = parent,
			.old_name = name,
			.new_parent_fd = directory,
			.new_parent_path = parent,
			.new_name = new_name,
			.source_fd = fd,
			.source = inode_of(&status),
			.target_fd = -1,
		};

		snprintf(new_name, sizeof(new_name), "moved%d", i);
		must(undo_rename(undo, &rename), path);
	} else {
		must(undo_remove(undo, directory, parent, name, fd, inode_of(&status), false),
		     path);
	}
	close(fd);
}

static void change_tree(int store, int root)
{
	struct undo_options options = { 0 };
	struct undo *undo;

	must(undo_open(store, root, &options, &undo), "undo_open");
	for (int d = 0; d < 100; d++) {
		char parent[16];
		int directory;

		snprintf(parent, sizeof(parent), "d%02d", d);
		directory = openat(root, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		must(directory, parent);
		for (int i = 0; i < FILES * 3 / 4 / 100; i++)
			change_one(undo, directory, parent, i);
		close(directory);
	}
	must(undo_close(undo), "undo_close");
}

static void ignore_kept(const char *path, const char *kept_path, void *context)
{
	(void)context;
	fprintf(stderr, "undo_bench: kept %s %s\n", path, kept_path);
}

static void ignore_failed(const char *path, int error, void *context)
{
	(void)context;
	fprintf(stderr, "undo_bench: failed %s: %s\n", path, strerror(error));
}

static int compare(const void *a, const void *b)
{
	const double *x = a;
	const double *y = b;

	return (*x > *y) - (*x < *y);
}

static void print_row(const char *name, double *ours, double *peer, int rounds, double target)
{
	double ratio;

	qsort(ours, (size_t)rounds, sizeof(*ours), compare);
	qsort(peer, (size_t)rounds, sizeof(*peer), compare);
	ratio = ours[rounds / 2] / peer[rounds / 2];
	printf("%s\t%.4g\t%.4g\t%.3f\t%g\t%s\n", name, ours[rounds / 2], peer[rounds / 2], ratio,
	       target, ratio <= target ? "ok" : "short");
}

static void bench_tree(int rounds, double *ours, double *peer)
{
	const struct undo_callbacks callbacks = { .on_kept = ignore_kept,
						  .on_failed = ignore_failed };

	for (int i = 0; i < rounds; i++) {
		struct undo_report report;
		double began;
		int store;
		int root;

		make_tree("tree");
		run((const char *[]){ "cp", "-a", "tree", "copy", NULL });
		must(mkdir("store", 0700), "store");
		store = open_directory("store");
		root = open_directory("tree");
		change_tree(store, root);
		began = now();
		must(undo_roll_back(store, root, &callbacks, &report), "undo_roll_back");
		ours[i] = now() - began;
		if (report.failed || report.kept)
			fail("roll-back was not complete");
		close(store);
		close(root);
		run((const char *[]){ "diff", "-r", "tree", "copy", NULL });
		began = now();
		run((const char *[]){ "rm", "-rf", "tree", NULL });
		run((const char *[]){ "cp", "-a", "--reflink=auto", "copy", "tree", NULL });
		peer[i] = now() - began;
		run((const char *[]){ "rm", "-rf", "tree", "copy", "store", NULL });
	}
}

static void bench_large(int rounds, double *ours, double *peer)
{
	char block[65536];
	int fd;

	must(mkdir("large", 0755), "large");
	fd = open("large/file", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	must(fd, "large/file");
	memset(block, 'x', sizeof(block));
	for (int64_t at = 0; at < LARGE_BYTES; at += (int64_t)sizeof(block))
		must((int)write(fd, block, sizeof(block)), "large/file");
	for (int i = 0; i < rounds; i++) {
		struct undo_options options = { 0 };
		struct undo *undo;
		struct stat status;
		double began;
		int store;
		int root;

		must(mkdir("store", 0700), "store");
		store = open_directory("store");
		root = open_directory("large");
		must(undo_open(store, root, &options, &undo), "undo_open");
		must(fstat(fd, &status), "large/file");
		began = now();
		must(undo_will_write(undo, fd, inode_of(&status), "file", 1 << 20, 4096), "write");
		must((int)pwrite(fd, block, 4096, 1 << 20), "write");
		ours[i] = now() - began;
		must(undo_close(undo), "undo_close");
		close(store);
		close(root);
		began = now();
		run((const char *[]){ "cp", "large/file", "large/copy", NULL });
		peer[i] = now() - began;
		run((const char *[]){ "rm", "-rf", "store", "large/copy", NULL });
	}
	close(fd);
}

int main(int argc, char **argv)
{
	double ours[ROUNDS_MAX];
	double peer[ROUNDS_MAX];
	long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 5;

	if (argc != 3 || rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: undo_bench ROUNDS SCRATCH\n");
		return 2;
	}
	must(chdir(argv[2]), argv[2]);
	umask(022);
	bench_tree((int)rounds, ours, peer);
	print_row("rollback: undo 10,000 changes", ours, peer, (int)rounds, 0.5);
	bench_large((int)rounds, ours, peer);
	print_row("rollback: first 4 KiB into 1 GiB", ours, peer, (int)rounds, 0.01);
	return 0;
}
