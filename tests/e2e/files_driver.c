/*
 * Drives a directory through every file operation. The same run on the native file system must
 * print the same lines; tests/e2e/files.sh compares.
 *
 *     files_driver ops DIR              each operation once, with its outcome
 *     files_driver large DIR COUNT      a directory of COUNT files: list, seek, remove
 *     files_driver threads DIR          many threads at once
 *     files_driver random DIR SEED N    N random reads, writes, truncations, mmap accesses, checked
 *     files_driver locks DIR            locks between processes
 *     files_driver small DIR            one file of 4 KiB: create, write, close
 *
 * Exit status 0 when what it checks by itself held.
 */
#include "base/checked.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int failures;

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("FAILED: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	failures++;
}

static long outcome(const char *what, long result)
{
	if (result < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: %ld\n", what, result);
	return result;
}

/* For calls whose positive result is a descriptor. */
static int opened(const char *what, int fd)
{
	if (fd < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: opened\n", what);
	return fd;
}

static void show(const char *path)
{
	struct stat info;

	if (lstat(path, &info) != 0) {
		printf("stat %s: %s\n", path, strerrorname_np(errno));
		return;
	}
	printf("stat %s: mode %o links %lu size %ld uid %u gid %u\n", path, info.st_mode,
	       (unsigned long)info.st_nlink, S_ISDIR(info.st_mode) ? 0 : (long)info.st_size,
	       info.st_uid, info.st_gid);
}

static void show_content(const char *path)
{
	char text[256];
	int fd = open(path, O_RDONLY);
	ssize_t count;

	if (fd < 0) {
		printf("content %s: %s\n", path, strerrorname_np(errno));
		return;
	}
	count = read(fd, text, sizeof(text));
	close(fd);
	printf("content %s:", path);
	for (ssize_t i = 0; i < count; i++)
		printf(" %02x", (unsigned char)text[i]);
	putchar('\n');
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void show_listing(const char *path)
{
	char *names[64];
	size_t count = 0;
	struct dirent *entry;
	DIR *directory = opendir(path);

	if (directory == NULL) {
		printf("list %s: %s\n", path, strerrorname_np(errno));
		return;
	}
	while ((entry = readdir(directory)) != NULL && count < ARRAY_LENGTH(names)) {
		char line[300];

		snprintf(line, sizeof(line), "%s/%u", entry->d_name, entry->d_type);
		names[count++] = strdup(line);
	}
	closedir(directory);
	qsort(names, count, sizeof(names[0]), compare_names);
	printf("list %s:", path);
	for (size_t i = 0; i < count; i++) {
		printf(" %s", names[i]);
		free(names[i]);
	}
	putchar('\n');
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	outcome("put", fd < 0 ? -1 : write(fd, text, strlen(text)));
	if (fd >= 0)
		close(fd);
}

/* ---- ops ---------------------------------------------------------------------------------- */

static void try_names(void)
{
	char long_name[300];
	char target[32];

	memset(long_name, 'n', sizeof(long_name));
	long_name[256] = '\0';
	outcome("mkdir d", mkdir("d", 0755));
	outcome("mkdir d again", mkdir("d", 0755));
	outcome("mkdir long", mkdir(long_name, 0755));
	long_name[255] = '\0';
	outcome("mkdir 255", mkdir(long_name, 0755));
	outcome("rmdir 255", rmdir(long_name));
	show("missing");
	show("d");
	show("d/missing");
	show("missing/below");
	put("d/a", "alpha");
	put("d/b", "beta");
	show("d/a");
	show("d/a/below");
	outcome("rmdir non-empty", rmdir("d"));
	outcome("unlink directory", unlink("d"));
	outcome("rmdir file", rmdir("d/a"));
	outcome("symlink", symlink("d/a", "s"));
	show("s");
	outcome("readlink", readlink("s", target, sizeof(target)));
	show_content("s");
	outcome("symlink exists", symlink("x", "s"));
	outcome("dangling", symlink("nowhere", "dangling"));
	show_content("dangling");
	outcome("readlink of file", readlink("d/a", target, sizeof(target)));
	outcome("link", link("d/a", "hard"));
	show("d/a");
	show("hard");
	outcome("link exists", link("d/a", "hard"));
	outcome("link of directory", link("d", "hard2"));
	outcome("unlink one name", unlink("d/a"));
	show("hard");
	show("d/a");
	outcome("unlink missing", unlink("d/a"));
	show_listing("d");
	show_listing(".");
}

static void try_renames(void)
{
	mkdir("r", 0755);
	mkdir("r/from", 0755);
	mkdir("r/to", 0755);
	put("r/from/x", "x");
	put("r/y", "yy");
	outcome("rename", rename("r/from/x", "r/to/x"));
	show("r/from/x");
	show_content("r/to/x");
	outcome("rename over", rename("r/y", "r/to/x"));
	show_content("r/to/x");
	show("r/y");
	outcome("rename missing", rename("r/y", "r/z"));
	outcome("rename directory", rename("r/to", "r/moved"));
	show_content("r/moved/x");
	show("r/to");
	outcome("rename directory over file", rename("r/from", "r/moved/x"));
	outcome("rename into itself", rename("r/moved", "r/moved/below"));
	put("r/one", "1");
	put("r/two", "22");
	outcome("noreplace", renameat2(AT_FDCWD, "r/one", AT_FDCWD, "r/two", RENAME_NOREPLACE));
	outcome("noreplace free",
		renameat2(AT_FDCWD, "r/one", AT_FDCWD, "r/three", RENAME_NOREPLACE));
	outcome("exchange", renameat2(AT_FDCWD, "r/three", AT_FDCWD, "r/two", RENAME_EXCHANGE));
	show_content("r/two");
	show_content("r/three");
	outcome("exchange with directory",
		renameat2(AT_FDCWD, "r/three", AT_FDCWD, "r/moved", RENAME_EXCHANGE));
	show("r/three");
	show("r/moved");
	outcome("exchange missing",
		renameat2(AT_FDCWD, "r/three", AT_FDCWD, "r/none", RENAME_EXCHANGE));
	show_listing("r");
	show_listing("r/three");
}

static void try_create(void)
{
	char text[16] = { 0 };
	int fd = opened("O_EXCL", open("c", O_RDWR | O_CREAT | O_EXCL, 0640));
	int other;

	show("c");
	opened("O_EXCL again", open("c", O_RDWR | O_CREAT | O_EXCL, 0640));
	outcome("write", write(fd, "hello", 5));
	outcome("pread", pread(fd, text, sizeof(text), 1));
	printf("text %s\n", text);
	other = opened("append", open("c", O_WRONLY | O_APPEND));
	outcome("append 1", write(other, " world", 6));
	outcome("pwrite", pwrite(fd, "J", 1, 0));
	outcome("append 2", write(other, "!", 1));
	close(other);
	show_content("c");
	other = opened("O_TRUNC", open("c", O_WRONLY | O_TRUNC));
	show("c");
	close(other);
	outcome("write at an offset", pwrite(fd, "z", 1, 10));
	show("c");
	show_content("c");
	outcome("unlink open", unlink("c"));
	show("c");
	outcome("write unlinked", pwrite(fd, "unlinked", 8, 0));
	memset(text, 0, sizeof(text));
	outcome("read unlinked", pread(fd, text, 8, 0));
	printf("text %s\n", text);
	outcome("fsync unlinked", fsync(fd));
	outcome("ftruncate unlinked", ftruncate(fd, 3));
	outcome("read unlinked", pread(fd, text, 8, 0));
	close(fd);
	fd = opened("no access", open("quiet", O_RDWR | O_CREAT | O_EXCL, 0));
	outcome("write without access", write(fd, "quiet", 5));
	outcome("read without access", pread(fd, text, 5, 0));
	show("quiet");
	close(fd);
	fd = opened("read-only file", open("sealed", O_RDWR | O_CREAT | O_EXCL, 0444));
	outcome("write read-only file", write(fd, "sealed", 6));
	usleep(500000);
	outcome("write it later", write(fd, " later", 6));
	close(fd);
	show_content("sealed");
	opened("open directory for writing", open(".", O_WRONLY));
	opened("O_DIRECTORY on a file", open("sealed", O_RDONLY | O_DIRECTORY));
	opened("O_NOFOLLOW on a symlink", open("s", O_RDONLY | O_NOFOLLOW));
	fd = opened("O_SYNC", open("synced", O_WRONLY | O_CREAT | O_SYNC, 0644));
	outcome("write O_SYNC", write(fd, "s", 1));
	outcome("fsync", fsync(fd));
	outcome("fdatasync", fdatasync(fd));
	close(fd);
	fd = open(".", O_RDONLY | O_DIRECTORY);
	outcome("fsync directory", fsync(fd));
	outcome("syncfs", syncfs(fd));
	close(fd);
}

static void try_attributes(void)
{
	static const struct timespec times[2] = { { 1000000001, 123456789 },
						  { 1100000002, 987654321 } };
	static const struct timespec early[2] = { { -5, 7 }, { 0, UTIME_OMIT } };
	struct stat info;
	struct statvfs volume;

	put("m", "0123456789");
	outcome("chmod", chmod("m", 0751));
	show("m");
	outcome("utimensat", utimensat(AT_FDCWD, "m", times, 0));
	stat("m", &info);
	printf("times %ld.%09ld %ld.%09ld\n", info.st_atim.tv_sec, info.st_atim.tv_nsec,
	       info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
	outcome("utimensat before 1970", utimensat(AT_FDCWD, "m", early, 0));
	stat("m", &info);
	printf("times %ld.%09ld %ld.%09ld\n", info.st_atim.tv_sec, info.st_atim.tv_nsec,
	       info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
	outcome("utimensat now", utimensat(AT_FDCWD, "m", NULL, 0));
	stat("m", &info);
	printf("now %d\n", info.st_mtim.tv_sec > 1500000000);
	outcome("utimensat of a symlink", utimensat(AT_FDCWD, "s", times, AT_SYMLINK_NOFOLLOW));
	lstat("s", &info);
	printf("times %ld.%09ld\n", info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
	outcome("truncate shorter", truncate("m", 4));
	show_content("m");
	outcome("truncate longer", truncate("m", 8));
	show_content("m");
	outcome("truncate missing", truncate("none", 8));
	outcome("truncate directory", truncate("d", 8));
	outcome("chown to self", chown("m", getuid(), getgid()));
	outcome("chmod missing", chmod("none", 0644));
	outcome("chmod directory", chmod("d", 0700));
	show("d");
	outcome("access", access("m", R_OK | W_OK));
	outcome("statvfs", statvfs(".", &volume));
	printf("name max %lu\n", volume.f_namemax);
}

static void try_xattrs(void)
{
	char value[64];
	char names[256];
	char long_name[256] = "user.";
	ssize_t size;

	put("x", "x");
	memset(long_name + 5, 'y', 240);
	outcome("setxattr", setxattr("x", "user.colour", "green", 5, 0));
	outcome("getxattr", size = getxattr("x", "user.colour", value, sizeof(value)));
	printf("value %.*s\n", size > 0 ? (int)size : 0, value);
	outcome("getxattr size", getxattr("x", "user.colour", NULL, 0));
	outcome("getxattr small", getxattr("x", "user.colour", value, 2));
	outcome("getxattr missing", getxattr("x", "user.none", value, sizeof(value)));
	outcome("setxattr create", setxattr("x", "user.colour", "red", 3, XATTR_CREATE));
	outcome("setxattr replace", setxattr("x", "user.colour", "red", 3, XATTR_REPLACE));
	outcome("setxattr replace missing", setxattr("x", "user.none", "", 0, XATTR_REPLACE));
	outcome("setxattr empty", setxattr("x", "user.empty", "", 0, 0));
	outcome("getxattr empty", getxattr("x", "user.empty", value, sizeof(value)));
	outcome("setxattr long name", setxattr("x", long_name, "l", 1, 0));
	outcome("getxattr long name", getxattr("x", long_name, value, sizeof(value)));
	outcome("removexattr long name", removexattr("x", long_name));
	outcome("listxattr size", listxattr("x", NULL, 0));
	outcome("listxattr", listxattr("x", names, sizeof(names)));
	outcome("listxattr small", listxattr("x", names, 3));
	outcome("removexattr", removexattr("x", "user.colour"));
	outcome("removexattr again", removexattr("x", "user.colour"));
	outcome("getxattr removed", getxattr("x", "user.colour", value, sizeof(value)));
}

static void try_special(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "socket" };
	char text[8] = { 0 };
	int fd;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	int client = socket(AF_UNIX, SOCK_STREAM, 0);

	outcome("mkfifo", mkfifo("fifo", 0644));
	show("fifo");
	fd = opened("open fifo", open("fifo", O_RDWR | O_NONBLOCK));
	outcome("write fifo", write(fd, "through", 7));
	outcome("read fifo", read(fd, text, 7));
	printf("text %s\n", text);
	close(fd);
	outcome("bind", bind(listener, (struct sockaddr *)&address, sizeof(address)));
	outcome("listen", listen(listener, 1));
	outcome("connect", connect(client, (struct sockaddr *)&address, sizeof(address)));
	close(listener);
	close(client);
	show("socket");
	outcome("unlink socket", unlink("socket"));
	outcome("unlink fifo", unlink("fifo"));
}

static void show_seek(int fd, const char *what, off_t offset, int whence)
{
	outcome(what, lseek(fd, offset, whence));
}

static void try_space(void)
{
	static char block[65536];
	char text[4] = "";
	int fd = opened("sparse", open("sparse", O_RDWR | O_CREAT | O_EXCL, 0644));
	int copy;
	loff_t from = 0;
	loff_t to = 0;

	memset(block, 'B', sizeof(block));
	outcome("write block", pwrite(fd, block, sizeof(block), 0));
	outcome("write far", pwrite(fd, block, sizeof(block), 1 << 20));
	fsync(fd);
	show_seek(fd, "seek data 0", 0, SEEK_DATA);
	show_seek(fd, "seek hole 0", 0, SEEK_HOLE);
	show_seek(fd, "seek data in hole", 70000, SEEK_DATA);
	show_seek(fd, "seek hole at end", 1 << 20, SEEK_HOLE);
	show_seek(fd, "seek data beyond", 2 << 20, SEEK_DATA);
	outcome("fallocate", fallocate(fd, 0, 2 << 20, 4096));
	show("sparse");
	outcome("fallocate keep", fallocate(fd, FALLOC_FL_KEEP_SIZE, 4 << 20, 4096));
	show("sparse");
	outcome("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
	outcome("read punched", pread(fd, text, 2, 4095));
	printf("bytes %d %d\n", text[0], text[1]);
	outcome("zero", fallocate(fd, FALLOC_FL_ZERO_RANGE, 8192, 10));
	outcome("read zeroed", pread(fd, text, 2, 8201));
	printf("bytes %d %d\n", text[0], text[1]);
	outcome("fallocate directory", fallocate(open("d", O_RDONLY), 0, 0, 10));
	copy = open("copy", O_RDWR | O_CREAT, 0644);
	outcome("copy_file_range", copy_file_range(fd, &from, copy, &to, 100000, 0));
	printf("offsets %ld %ld\n", (long)from, (long)to);
	outcome("read copy", pread(copy, text, 1, 65535));
	printf("byte %d\n", text[0]);
	show("copy");
	from = 3 << 20;
	outcome("copy at end", copy_file_range(fd, &from, copy, &to, 100, 0));
	close(copy);
	close(fd);
}

static void try_tmpfile(void)
{
	char path[64];
	char text[8] = { 0 };
	int fd = opened("O_TMPFILE", open(".", O_TMPFILE | O_RDWR, 0644));

	outcome("write O_TMPFILE", write(fd, "hidden", 6));
	show_listing("d");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	outcome("linkat", linkat(AT_FDCWD, path, AT_FDCWD, "shown", AT_SYMLINK_FOLLOW));
	show("shown");
	outcome("read O_TMPFILE", pread(fd, text, 6, 0));
	close(fd);
	show_content("shown");
	fd = opened("O_TMPFILE O_EXCL", open(".", O_TMPFILE | O_RDWR | O_EXCL, 0644));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	outcome("linkat excluded", linkat(AT_FDCWD, path, AT_FDCWD, "no", AT_SYMLINK_FOLLOW));
	close(fd);
}

static void try_mmap(void)
{
	char text[16] = { 0 };
	char *map;
	int fd = open("mapped", O_RDWR | O_CREAT, 0644);

	outcome("ftruncate", ftruncate(fd, 8192));
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		outcome("mmap", -1);
		return;
	}
	memcpy(map + 4090, "straddles", 9);
	outcome("read through file", pread(fd, text, 9, 4090));
	printf("text %s\n", text);
	outcome("msync", msync(map, 8192, MS_SYNC));
	outcome("write under map", pwrite(fd, "WRITTEN", 7, 100));
	printf("map %.7s\n", map + 100);
	memcpy(map, "last", 4);
	munmap(map, 8192);
	close(fd);
	show_content("mapped");
	fd = open("mapped", O_RDONLY);
	map = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
	printf("private %.4s\n", map);
	munmap(map, 8192);
	close(fd);
}

static void try_ops(void)
{
	umask(022);
	try_names();
	try_renames();
	try_create();
	try_attributes();
	try_xattrs();
	try_special();
	try_space();
	try_tmpfile();
	try_mmap();
	show_listing(".");
}

/* ---- large -------------------------------------------------------------------------------- */

static void try_large(long count)
{
	DIR *directory;
	struct dirent *entry;
	unsigned char *seen = calloc((size_t)count, 1);
	char name[64];
	long listed = 0;
	long place = -1;
	char place_name[256] = "";

	mkdir("large", 0755);
	if (seen == NULL || chdir("large") != 0)
		exit(1);
	for (long i = 0; i < count; i++) {
		int fd;

		snprintf(name, sizeof(name), "entry-with-a-longish-name-%ld", i);
		fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0)
			fail("create %s: %s", name, strerror(errno));
		close(fd);
	}
	directory = opendir(".");
	while ((entry = readdir(directory)) != NULL) {
		long number = -1;

		if (sscanf(entry->d_name, "entry-with-a-longish-name-%ld", &number) != 1)
			continue;
		if (number < 0 || number >= count || seen[number]++ != 0)
			fail("listed twice or unknown: %s", entry->d_name);
		if (++listed == count / 2) {
			place = telldir(directory);
			entry = readdir(directory);
			if (entry == NULL)
				break;
			snprintf(place_name, sizeof(place_name), "%s", entry->d_name);
			sscanf(entry->d_name, "entry-with-a-longish-name-%ld", &number);
			seen[number]++;
			listed++;
		}
	}
	if (listed != count)
		fail("listed %ld of %ld", listed, count);
	seekdir(directory, place);
	entry = readdir(directory);
	if (entry == NULL || strcmp(entry->d_name, place_name) != 0)
		fail("after seekdir: %s, not %s", entry ? entry->d_name : "nothing", place_name);
	rewinddir(directory);
	listed = 0;
	/* Removing while listing, as rm -r does. */
	while ((entry = readdir(directory)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		if (unlink(entry->d_name) != 0)
			fail("unlink %s: %s", entry->d_name, strerror(errno));
		listed++;
	}
	closedir(directory);
	if (chdir("..") != 0 || rmdir("large") != 0)
		fail("rmdir after removing %ld of %ld: %s", listed, count, strerror(errno));
	free(seen);
}

/* ---- threads ------------------------------------------------------------------------------ */

#define THREADS 12
#define ROUNDS 60

static void *run_thread(void *argument)
{
	long number = (long)(intptr_t)argument;
	char path[64];
	char moved[64];
	char text[4096];
	char back[4096];

	for (int i = 0; i < ROUNDS; i++) {
		int fd;

		snprintf(path, sizeof(path), "shared/%ld-%d", number, i);
		snprintf(moved, sizeof(moved), "shared/sub/%ld-%d", number, i);
		memset(text, 'a' + i % 26, sizeof(text));
		fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || write(fd, text, sizeof(text)) != (ssize_t)sizeof(text))
			fail("write %s: %s", path, strerror(errno));
		if (rename(path, moved) != 0)
			fail("rename %s: %s", path, strerror(errno));
		if (pread(fd, back, sizeof(back), 0) != (ssize_t)sizeof(back) ||
		    memcmp(text, back, sizeof(text)) != 0)
			fail("content of %s differs", path);
		close(fd);
		if (access(path, F_OK) == 0 || access(moved, F_OK) != 0)
			fail("%s is still there, or %s is not", path, moved);
		if (i % 2 == 0 && unlink(moved) != 0)
			fail("unlink %s: %s", moved, strerror(errno));
		if (i % 7 == 0) {
			DIR *directory = opendir("shared/sub");

			while (directory != NULL && readdir(directory) != NULL)
				continue;
			if (directory != NULL)
				closedir(directory);
		}
	}
	return NULL;
}

static void try_threads(void)
{
	pthread_t threads[THREADS];
	struct dirent *entry;
	DIR *directory;
	long count = 0;

	mkdir("shared", 0755);
	mkdir("shared/sub", 0755);
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, run_thread, (void *)(intptr_t)i);
	for (long i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	directory = opendir("shared/sub");
	while (directory != NULL && (entry = readdir(directory)) != NULL)
		count += entry->d_name[0] != '.';
	if (directory != NULL)
		closedir(directory);
	if (count != THREADS * ROUNDS / 2)
		fail("%ld files are left, not %d", count, THREADS * ROUNDS / 2);
}

/* ---- random ------------------------------------------------------------------------------- */

#define MODEL_MAX (1u << 20)

struct model {
	uint8_t *bytes;
	uint8_t *scratch;
	size_t size;
	uint32_t state;
	int fd;
	long step;
};

static uint32_t next_random(struct model *model)
{
	model->state = model->state * 1664525u + 1013904223u;
	return model->state >> 8;
}

static void check_range(struct model *model, size_t offset, size_t length)
{
	ssize_t count = pread(model->fd, model->scratch, length, (off_t)offset);
	size_t expected = offset >= model->size ? 0 : MIN_OF(length, model->size - offset);

	if (count != (ssize_t)expected) {
		fail("step %ld: read %zd at %zu, not %zu", model->step, count, offset, expected);
		return;
	}
	for (size_t i = 0; i < expected; i++) {
		if (model->scratch[i] != model->bytes[offset + i]) {
			fail("step %ld: byte %zu is %02x, not %02x", model->step, offset + i,
			     model->scratch[i], model->bytes[offset + i]);
			return;
		}
	}
}

static void random_write(struct model *model, size_t offset, size_t length)
{
	for (size_t i = 0; i < length; i++)
		model->bytes[offset + i] = (uint8_t)next_random(model);
	if (pwrite(model->fd, model->bytes + offset, length, (off_t)offset) != (ssize_t)length)
		fail("step %ld: write: %s", model->step, strerror(errno));
	if (offset > model->size)
		memset(model->bytes + model->size, 0, offset - model->size);
	model->size = MAX_OF(model->size, offset + length);
}

static void random_map(struct model *model, size_t offset, size_t length, bool writes)
{
	size_t start = offset & ~(size_t)4095;
	uint8_t *map;

	if (offset >= model->size)
		return;
	length = MIN_OF(length, model->size - offset);
	map = mmap(NULL, offset + length - start, PROT_READ | (writes ? PROT_WRITE : 0), MAP_SHARED,
		   model->fd, (off_t)start);
	if (map == MAP_FAILED) {
		fail("step %ld: mmap: %s", model->step, strerror(errno));
		return;
	}
	if (memcmp(map + (offset - start), model->bytes + offset, length) != 0)
		fail("step %ld: map differs at %zu+%zu", model->step, offset, length);
	for (size_t i = 0; writes && i < length; i++) {
		model->bytes[offset + i] = (uint8_t)next_random(model);
		map[offset - start + i] = model->bytes[offset + i];
	}
	munmap(map, offset + length - start);
}

static void random_step(struct model *model)
{
	size_t offset = next_random(model) % (MODEL_MAX - 70000);
	size_t length = 1 + next_random(model) % 65536;

	switch (next_random(model) % 8) {
	case 0:
	case 1:
		random_write(model, offset, length);
		break;
	case 2:
		if (ftruncate(model->fd, (off_t)offset) != 0)
			fail("step %ld: ftruncate: %s", model->step, strerror(errno));
		if (offset > model->size)
			memset(model->bytes + model->size, 0, offset - model->size);
		model->size = offset;
		break;
	case 3:
		random_map(model, offset, length, true);
		break;
	case 4:
		random_map(model, offset, length, false);
		break;
	case 5:
		if (fallocate(model->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			      (off_t)length) != 0)
			fail("step %ld: punch: %s", model->step, strerror(errno));
		if (offset < model->size)
			memset(model->bytes + offset, 0, MIN_OF(length, model->size - offset));
		break;
	case 6:
		/* A second descriptor, as another process would use. */
		close(model->fd);
		model->fd = open("random", O_RDWR);
		break;
	default:
		check_range(model, offset, length);
		break;
	}
}

static void try_random(uint32_t seed, long steps)
{
	struct model model = { .state = seed };
	struct stat info;

	model.bytes = calloc(1, MODEL_MAX);
	model.scratch = calloc(1, MODEL_MAX);
	model.fd = open("random", O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (model.bytes == NULL || model.scratch == NULL || model.fd < 0)
		exit(1);
	for (model.step = 0; model.step < steps && failures == 0; model.step++) {
		random_step(&model);
		if (fstat(model.fd, &info) != 0 || (size_t)info.st_size != model.size)
			fail("step %ld: size %ld, not %zu", model.step, (long)info.st_size,
			     model.size);
	}
	check_range(&model, 0, MODEL_MAX);
	close(model.fd);
	free(model.bytes);
	free(model.scratch);
	if (failures == 0)
		unlink("random");
}

/* ---- locks -------------------------------------------------------------------------------- */

static void try_locks(void)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int status = 0;
	int fd;
	pid_t pid;

	put("lock", "0123456789");
	fd = open("lock", O_RDWR);
	if (flock(fd, LOCK_EX) != 0 || fcntl(fd, F_SETLK, &whole) != 0)
		fail("lock: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		struct flock part = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1 };
		int other = open("lock", O_RDWR);
		int held = 0;

		held += flock(other, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK ? 1 : 0;
		held += fcntl(other, F_SETLK, &part) == -1 ? 2 : 0;
		held += fcntl(other, F_GETLK, &part) == 0 && part.l_type == F_WRLCK ? 4 : 0;
		_exit(held);
	}
	waitpid(pid, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
		fail("another process was not kept out: %x", status);
	whole.l_type = F_UNLCK;
	if (flock(fd, LOCK_UN) != 0 || fcntl(fd, F_SETLK, &whole) != 0)
		fail("unlock: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		int other = open("lock", O_RDWR);

		_exit(flock(other, LOCK_EX | LOCK_NB) == 0 ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	if (status != 0)
		fail("the lock was not given back");
	close(fd);
}

static void try_small(void)
{
	static char block[4096];
	int fd;

	/* Written to: from memory that is not there yet the kernel would take two parts. */
	memset(block, 's', sizeof(block));
	fd = open("small", O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd < 0 || write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) || close(fd) != 0)
		fail("small: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	if (argc < 3 || chdir(argv[2]) != 0) {
		fprintf(stderr, "usage: files_driver ops|large|threads|random|locks DIR ...\n");
		return 2;
	}
	if (strcmp(argv[1], "ops") == 0)
		try_ops();
	else if (strcmp(argv[1], "large") == 0)
		try_large(argc > 3 ? strtol(argv[3], NULL, 10) : 100000);
	else if (strcmp(argv[1], "threads") == 0)
		try_threads();
	else if (strcmp(argv[1], "random") == 0)
		try_random(argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1,
			   argc > 4 ? strtol(argv[4], NULL, 10) : 2000);
	else if (strcmp(argv[1], "locks") == 0)
		try_locks();
	else if (strcmp(argv[1], "small") == 0)
		try_small();
	else
		return 2;
	return failures == 0 ? 0 : 1;
}
