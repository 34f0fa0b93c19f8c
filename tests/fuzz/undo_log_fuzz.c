/*
 * A store is written by us but lies on a disk that others reach: whatever its log says, rolling
 * back and listing must not crash, and must not touch anything outside tree and store.
 *
 * The input is a list of frames: u16 length, then `sequence`-less bytes from the type on; lengths,
 * sequence numbers and CRCs are made right here, since a CRC would stop the fuzzer at once. Where
 * the input has eight bytes of 0xf0 + n, the inode number of the n-th scratch object is put.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "fsserver/undo.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_log.h"

#define OBJECTS 8
#define RECORDS_MAX 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct scratch {
	char base[64];
	int base_fd;
	int tree_fd;
	int store_fd;
	uint64_t inos[OBJECTS];
};

static const char *const paths[OBJECTS] = { ".",    "a",     "a/file", "b",
					    "link", "a/sub", "hard",   "../outside/secret" };

static void put(int directory, const char *path, const char *text)
{
	int fd = openat(directory, path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
}

static void build(struct scratch *scratch)
{
	snprintf(scratch->base, sizeof(scratch->base), "/dev/shm/undo-fuzz-XXXXXX");
	if (!mkdtemp(scratch->base))
		abort();
	scratch->base_fd = open(scratch->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mkdirat(scratch->base_fd, "tree", 0700) || mkdirat(scratch->base_fd, "store", 0700) ||
	    mkdirat(scratch->base_fd, "outside", 0700))
		abort();
	put(scratch->base_fd, "outside/secret", "must not change");
	scratch->tree_fd = openat(scratch->base_fd, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scratch->store_fd = openat(scratch->base_fd, "store", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mkdirat(scratch->tree_fd, "a", 0700) || mkdirat(scratch->tree_fd, "a/sub", 0700) ||
	    symlinkat("../outside", scratch->tree_fd, "link") ||
	    symlinkat("../../outside/secret", scratch->tree_fd, "a/out"))
		abort();
	put(scratch->tree_fd, "a/file", "file");
	put(scratch->tree_fd, "b", "b");
	put(scratch->tree_fd, "hard", "hard");
	if (mkdirat(scratch->store_fd, "grave", 0700) || mkdirat(scratch->store_fd, "pre", 0700))
		abort();
	put(scratch->store_fd, "grave/1", "buried");
	put(scratch->store_fd, "pre/1", "before");
	if (symlinkat("../../outside/secret", scratch->store_fd, "pre/2"))
		abort();
	for (int i = 0; i < OBJECTS; i++) {
		struct undo_identity identity;
		struct statx stat;

		if (undo_statx(scratch->tree_fd, paths[i], &stat) < 0)
			abort();
		undo_identity_from_statx(&stat, &identity);
		scratch->inos[i] = identity.ino;
	}
}

/* Inode fields that the input marks are filled in; birth times stay unknown (0). */
static void patch(const struct scratch *scratch, uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i + 8 <= length; i++) {
		unsigned which = bytes[i] - 0xf0u;
		size_t same = 1;

		while (same < 8 && bytes[i + same] == bytes[i])
			same++;
		if (which >= OBJECTS || same < 8)
			continue;
		for (size_t j = 0; j < 8; j++)
			bytes[i + j] = (uint8_t)(scratch->inos[which] >> (8 * j));
		i += 7;
	}
}

static void write_log(const struct scratch *scratch, const uint8_t *data, size_t size)
{
	static uint8_t frame[UNDO_RECORD_MAX];
	uint8_t header[UNDO_HEADER_BYTES] = "MLUNDO01";
	int fd = openat(scratch->store_fd, "log", O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t sequence = 1;

	if (fd < 0 || write(fd, header, sizeof(header)) < 0)
		abort();
	while (size >= 2 && sequence <= RECORDS_MAX) {
		size_t length = (size_t)data[0] | (size_t)data[1] << 8;
		uint32_t covered;
		uint32_t crc;

		data += 2;
		size -= 2;
		length = length < size ? length : size;
		covered = (uint32_t)length + 8;
		memcpy(frame + 16, data, length);
		patch(scratch, frame + 16, length);
		for (int i = 0; i < 8; i++)
			frame[8 + i] = (uint8_t)(sequence >> (8 * i));
		crc = (uint32_t)crc32(0, frame + 8, covered);
		for (int i = 0; i < 4; i++) {
			frame[i] = (uint8_t)(covered >> (8 * i));
			frame[4 + i] = (uint8_t)(crc >> (8 * i));
		}
		if (write(fd, frame, covered + 8) < 0)
			abort();
		data += length;
		size -= length;
		sequence++;
	}
	close(fd);
}

static int look(const struct undo_change *change, void *context)
{
	size_t *total = context;

	*total += strlen(change->path) + (change->old_path ? strlen(change->old_path) : 0);
	return 0;
}

static void check_outside(const struct scratch *scratch)
{
	char text[64];
	struct stat stat;
	int fd = openat(scratch->base_fd, "outside/secret", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text));

	if (length != 15 || memcmp(text, "must not change", 15) != 0 || fstat(fd, &stat) ||
	    (stat.st_mode & 0777) != 0600 || stat.st_nlink != 1)
		abort();
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct undo_report report;
	struct scratch scratch;
	size_t total = 0;

	if (size > 32768)
		return 0;
	build(&scratch);
	write_log(&scratch, data, size);
	(void)undo_each_change(scratch.store_fd, scratch.tree_fd, look, &total);
	(void)undo_roll_back(scratch.store_fd, scratch.tree_fd, NULL, &report);
	check_outside(&scratch);
	close(scratch.tree_fd);
	close(scratch.store_fd);
	if (undo_discard(scratch.base_fd) < 0)
		abort(); /* even what a log left behind can be removed */
	close(scratch.base_fd);
	rmdir(scratch.base);
	return 0;
}
