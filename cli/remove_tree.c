#include "cli/remove_tree.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Theory of operation. A recursion as deep as the tree would need a descriptor or a path per
 * level, and the guest chose the depth. Instead each subdirectory that is not empty is moved up
 * to the top, under a fresh name, and waits its turn there: one level at a time, two descriptors,
 * until nothing is left.
 */
struct removal {
	int top_fd;
	dev_t device;
	uint64_t moved; /* for fresh names */
};

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static DIR *open_listing(int parent_fd, const char *name)
{
	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *listing;

	if (fd < 0)
		return NULL;
	listing = fdopendir(fd);
	if (!listing)
		close(fd);
	return listing;
}

/* Removes or moves up one entry of `directory_fd`. */
static int remove_entry(struct removal *removal, int directory_fd, const char *name)
{
	char fresh[40];
	struct stat status;

	if (unlinkat(directory_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (unlinkat(directory_fd, name, AT_REMOVEDIR) == 0)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return -errno;
	if (fstatat(directory_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (status.st_dev != removal->device)
		return -EXDEV;
	/* To move a directory elsewhere its ".." must be writable. */
	if (S_ISDIR(status.st_mode) && (status.st_mode & 0700) != 0700 &&
	    fchmodat(directory_fd, name, 0700, 0) < 0)
		return -errno;
	do {
		snprintf(fresh, sizeof(fresh), ".removing-%ju", (uintmax_t)removal->moved++);
	} while (renameat2(directory_fd, name, removal->top_fd, fresh, RENAME_NOREPLACE) < 0 &&
		 errno == EEXIST);
	if (fstatat(removal->top_fd, fresh, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

/* Empties and removes one directory of the top level. */
static int remove_directory(struct removal *removal, const char *name)
{
	const struct dirent *entry;
	struct stat status;
	DIR *listing;
	int error = 0;

	if (fstatat(removal->top_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (status.st_dev != removal->device)
		return -EXDEV;
	if ((status.st_mode & 0700) != 0700 && fchmodat(removal->top_fd, name, 0700, 0) < 0)
		return -errno;
	listing = open_listing(removal->top_fd, name);
	if (!listing)
		return -errno;
	while ((entry = readdir(listing))) {
		int entry_error;

		if (is_dot(entry->d_name))
			continue;
		entry_error = remove_entry(removal, dirfd(listing), entry->d_name);
		if (entry_error < 0 && error == 0)
			error = entry_error;
	}
	closedir(listing);
	if (unlinkat(removal->top_fd, name, AT_REMOVEDIR) < 0 && error == 0)
		error = -errno;
	return error;
}

/* One pass over the top level. *ret_removed counts what went; the caller repeats while any did. */
static int remove_pass(struct removal *removal, size_t *ret_removed, size_t *ret_left)
{
	DIR *listing = open_listing(removal->top_fd, ".");
	const struct dirent *entry;
	size_t removed = 0;
	size_t left = 0;
	int error = 0;

	if (!listing)
		return -errno;
	while ((entry = readdir(listing))) {
		int entry_error = 0;

		if (is_dot(entry->d_name))
			continue;
		if (unlinkat(removal->top_fd, entry->d_name, 0) < 0 && errno != ENOENT) {
			if (errno == EISDIR || errno == EPERM)
				entry_error = remove_directory(removal, entry->d_name);
			else
				entry_error = -errno;
		}
		if (entry_error < 0)
			left++;
		else
			removed++;
		if (entry_error < 0 && error == 0)
			error = entry_error;
	}
	closedir(listing);
	*ret_removed = removed;
	*ret_left = left;
	return error;
}

int remove_tree(const char *path)
{
	cleanup_fd int top_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct removal removal = { .top_fd = top_fd };
	struct stat status;
	size_t removed = 0;
	size_t left = 0;
	int error;

	if (top_fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(top_fd, &status) < 0)
		return -errno;
	removal.device = status.st_dev;
	do {
		error = remove_pass(&removal, &removed, &left);
		if (error < 0 && removed == 0)
			return error;
	} while (removed > 0 || left > 0);
	return rmdir(path) < 0 ? -errno : 0;
}
