#include "fsserver/undo_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "fsserver/undo_log.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

#define COPY_BYTES (64u << 10)

struct undo_number_name undo_number_name(uint64_t number)
{
	struct undo_number_name name;

	snprintf(name.text, sizeof(name.text), "%llu", (unsigned long long)number);
	return name;
}

bool undo_parse_number(const char *name, uint64_t *ret_number)
{
	uint64_t number = 0;
	size_t length = strlen(name);

	if (length == 0 || length > 18 || (name[0] == '0' && length > 1))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (name[i] < '0' || name[i] > '9')
			return false;
		number = number * 10 + (uint64_t)(name[i] - '0');
	}
	*ret_number = number;
	return true;
}

int undo_open_beneath(int directory_fd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
			   RESOLVE_NO_XDEV,
	};
	long fd;

	do {
		fd = syscall(SYS_openat2, directory_fd, path[0] ? path : ".", &how, sizeof(how));
	} while (fd < 0 && (errno == EINTR || errno == EAGAIN));
	return fd < 0 ? -errno : (int)fd;
}

int undo_reopen(int proc_fd, int fd, int flags)
{
	struct undo_number_name name = undo_number_name((uint64_t)fd);
	int opened;

	do {
		opened = openat(proc_fd, name.text, flags | O_CLOEXEC);
	} while (opened < 0 && errno == EINTR);
	return opened < 0 ? -errno : opened;
}

int undo_statx(int directory_fd, const char *name, struct statx *ret_stat)
{
	unsigned mask = STATX_BASIC_STATS | STATX_BTIME;
	int flags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT;

	return statx(directory_fd, name, flags, mask, ret_stat) ? -errno : 0;
}

/* What copy_file_range cannot do between these two files, plain reads and writes can. */
static int copy_plain(int source, int target, uint64_t offset, uint64_t length)
{
	cleanup_free char *buffer = malloc(COPY_BYTES);

	if (!buffer)
		return -ENOMEM;
	while (length > 0) {
		size_t want = (size_t)MIN_OF(length, (uint64_t)COPY_BYTES);
		ssize_t count = pread(source, buffer, want, (off_t)offset);
		ssize_t done = 0;

		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return count < 0 ? -errno : 0;
		while (done < count) {
			ssize_t written = pwrite(target, buffer + done, (size_t)(count - done),
						 (off_t)offset + done);

			if (written < 0 && errno == EINTR)
				continue;
			if (written <= 0)
				return written < 0 ? -errno : -ENOSPC;
			done += written;
		}
		offset += (uint64_t)count;
		length -= (uint64_t)count;
	}
	return 0;
}

static int copy_data(int source, int target, uint64_t offset, uint64_t length)
{
	while (length > 0) {
		off_t from = (off_t)offset;
		off_t to = (off_t)offset;
		size_t want = (size_t)MIN_OF(length, (uint64_t)1 << 30);
		ssize_t count = copy_file_range(source, &from, target, &to, want, 0);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO))
			return -errno;
		/* Zero is the end of the source, or a file system that reports no size. */
		if (count <= 0)
			return copy_plain(source, target, offset, length);
		offset += (uint64_t)count;
		length -= (uint64_t)count;
	}
	return 0;
}

/* The next run of data at or after `offset`, below `end`; false when there is none. */
static bool next_data(int fd, uint64_t offset, uint64_t end, uint64_t *ret_start, uint64_t *ret_end)
{
	off_t start = lseek(fd, (off_t)offset, SEEK_DATA);
	off_t stop;

	if (start < 0 && errno == ENXIO)
		return false;
	if (start < 0) {
		*ret_start = offset;
		*ret_end = end;
		return true;
	}
	if ((uint64_t)start >= end)
		return false;
	stop = lseek(fd, start, SEEK_HOLE);
	*ret_start = (uint64_t)start;
	*ret_end = stop < 0 ? end : MIN_OF((uint64_t)stop, end);
	return *ret_end > *ret_start;
}

/* Tmpfs looks for a hole page by page to the end of the file, for each block that is copied, and
 * counts nothing but pages in its blocks: with as many as the size needs there is none. */
static bool is_dense_in_memory(int fd)
{
	struct statfs file_system;
	struct stat file;

	return fstatfs(fd, &file_system) == 0 && file_system.f_type == TMPFS_MAGIC &&
	       fstat(fd, &file) == 0 && (uint64_t)file.st_blocks * 512 >= (uint64_t)file.st_size;
}

int undo_copy_sparse(int source, int target, uint64_t offset, uint64_t length, uint64_t *ret_copied)
{
	uint64_t end = offset + length;
	uint64_t copied = 0;
	uint64_t start;
	uint64_t stop;

	if (is_dense_in_memory(source)) {
		*ret_copied = length;
		return copy_data(source, target, offset, length);
	}
	while (offset < end && next_data(source, offset, end, &start, &stop)) {
		int result = copy_data(source, target, start, stop - start);

		if (result < 0)
			return result;
		copied += stop - start;
		offset = stop;
	}
	*ret_copied = copied;
	return 0;
}

static int make_hole(int fd, uint64_t offset, uint64_t length)
{
	char zeros[4096] = { 0 };

	if (length == 0)
		return 0;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		      (off_t)length) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	while (length > 0) {
		size_t piece = (size_t)MIN_OF(length, (uint64_t)sizeof(zeros));

		if (pwrite(fd, zeros, piece, (off_t)offset) != (ssize_t)piece)
			return -EIO;
		offset += piece;
		length -= piece;
	}
	return 0;
}

int undo_restore_range(int source, int target, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length;
	uint64_t start;
	uint64_t stop;
	int result;

	while (offset < end && next_data(source, offset, end, &start, &stop)) {
		result = make_hole(target, offset, start - offset);
		if (result < 0)
			return result;
		result = copy_data(source, target, start, stop - start);
		if (result < 0)
			return result;
		offset = stop;
	}
	return make_hole(target, offset, end - offset);
}

int undo_directory_empty(int directory_fd)
{
	int fd = undo_open_beneath(directory_fd, "", O_RDONLY | O_DIRECTORY | O_NOATIME, 0);
	struct dirent *entry;
	DIR *stream;
	int result = 0;

	if (fd == -EPERM) /* somebody else's: its access time moves */
		fd = undo_open_beneath(directory_fd, "", O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fd;
	stream = fdopendir(fd);
	if (!stream) {
		close(fd);
		return -ENOMEM;
	}
	errno = 0;
	while (result == 0 && (entry = readdir(stream))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			result = -ENOTEMPTY;
	}
	if (result == 0 && errno)
		result = -errno;
	closedir(stream);
	return result;
}

int undo_chmod(int proc_fd, int fd, mode_t mode)
{
	char path[40];

	if (fchmod(fd, mode) == 0)
		return 0;
	if (errno != EBADF)
		return -errno;
	if (proc_fd >= 0)
		return fchmodat(proc_fd, undo_number_name((uint64_t)fd).text, mode, 0) ? -errno : 0;
	if (syscall(SYS_fchmodat2, fd, "", mode, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno != ENOSYS && errno != EINVAL && errno != EPERM)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return chmod(path, mode) ? -errno : 0;
}

int undo_set_times(int fd, const struct undo_attributes *attributes)
{
	struct timespec times[2] = { attributes->access, attributes->modification };
	char path[40];

	if (utimensat(fd, "", times, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOENT)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return utimensat(AT_FDCWD, path, times, 0) ? -errno : 0;
}
