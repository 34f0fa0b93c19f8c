/*
 * Makes changes through the file protocol, over a channel, as fast as one client that waits for
 * each reply can:
 *
 *     mutations SOCKET WINDOW COUNT
 *
 * SOCKET and WINDOW are those of tests/e2e/files_server, whose export 1 may be written. COUNT
 * changes, rounded up to whole files: each is created with 4 KiB in it, made executable, renamed
 * and deleted, of which the audit log has a record each. Prints the seconds that they took.
 */
#include "tests/e2e/lib/fs_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CHANGES_PER_FILE 4u
#define COUNT_MAX 100000000u
#define ROOT 1u

static void must(int error, const char *what)
{
	if (error == 0)
		return;
	fprintf(stderr, "mutations: %s: %s\n", what, strerror(error > 0 ? error : EPIPE));
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void change_file(struct fs_client *client, uint64_t directory, unsigned number)
{
	static const uint8_t block[4096] = { 'x' };
	struct fs_setattr set = { .valid = FS_SET_MODE, .mode = 0755 };
	char name[32];
	char renamed[32];
	uint64_t node;
	uint64_t handle;

	snprintf(name, sizeof(name), "file-%u", number);
	snprintf(renamed, sizeof(renamed), "renamed-%u", number);
	must(fs_create(client, directory, name, 0644, FS_O_WRITE, &node, &handle), "create");
	must(fs_write(client, node, handle, 0, block, sizeof(block)), "write");
	must(fs_release(client, node, handle), "release");
	set.nodeid = node;
	must(fs_setattr(client, &set), "setattr");
	must(fs_rename(client, directory, name, directory, renamed, 0), "rename");
	must(fs_remove(client, FS_UNLINK, directory, renamed), "unlink");
	must(fs_forget(client, node, 1), "forget");
}

int main(int argc, char **argv)
{
	struct fs_server server = { 0 };
	struct fs_client client;
	unsigned long count;
	uint64_t directory;
	double began;
	int fd;

	count = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
	if (count == 0 || count > COUNT_MAX) {
		fprintf(stderr, "usage: mutations SOCKET WINDOW COUNT\n");
		return 2;
	}
	snprintf(server.socket, sizeof(server.socket), "%s", argv[1]);
	fd = open(argv[2], O_RDWR | O_CLOEXEC);
	must(fd < 0 ? errno : 0, argv[2]);
	server.window = mmap(NULL, CHANNEL_STRIDE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(server.window == MAP_FAILED ? errno : 0, "mmap");
	close(fd);
	must(fs_join_channel(&client, &server, 1, 1), "HELLO");
	must(fs_make(&client, FS_MKDIR, ROOT, "bench-mutations", 0755, "", &directory), "mkdir");
	began = now();
	for (unsigned i = 0; i * CHANGES_PER_FILE < count; i++)
		change_file(&client, directory, i);
	printf("%.4f\n", now() - began);
	must(fs_remove(&client, FS_RMDIR, ROOT, "bench-mutations"), "rmdir");
	fs_leave(&client);
	return 0;
}
