#include "fsserver/tree_walk.h"

#include "base/cleanup.h"
#include "fsserver/host_paths.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTING_SIZE 32768

struct walk {
	tree_walk_function *callback;
	void *context;
	uint64_t entries_left;
	unsigned depth;
	char path[PATH_MAX];
};

static int walk_directory(struct walk *walk, int fd, size_t path_length);

static int visit(struct walk *walk, int fd, size_t path_length, const struct dirent64 *listed)
{
	struct tree_entry entry = {
		.path = walk->path, .parent_fd = fd, .name = listed->d_name, .type = listed->d_type
	};
	size_t name_length = strlen(listed->d_name);
	size_t length = path_length + (path_length ? 1 : 0) + name_length;
	cleanup_fd int child = -1;
	int result;

	if (walk->entries_left-- == 0 || length >= sizeof(walk->path))
		return -E2BIG;
	if (path_length)
		walk->path[path_length] = '/';
	memcpy(walk->path + length - name_length, listed->d_name, name_length + 1);
	if (entry.type == DT_UNKNOWN) {
		struct stat stat;

		if (fstatat(fd, listed->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0)
			return errno == ENOENT ? 0 : -errno;
		entry.type = IFTODT(stat.st_mode);
	}
	result = walk->callback(&entry, walk->context);
	if (result || entry.type != DT_DIR)
		return result;
	if (walk->depth >= TREE_WALK_DEPTH_MAX)
		return -E2BIG;
	result = host_open_directory(fd, listed->d_name, &child);
	/* A mount point is not part of the tree; what vanished needs no visit. */
	if (result == -EXDEV || result == -ENOENT)
		return 0;
	if (result)
		return result;
	walk->depth++;
	result = walk_directory(walk, child, length);
	walk->depth--;
	return result;
}

static int walk_directory(struct walk *walk, int fd, size_t path_length)
{
	cleanup_free char *listing = malloc(LISTING_SIZE);

	if (!listing)
		return -ENOMEM;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		ssize_t length = getdents64(fd, listing, LISTING_SIZE);

		if (length < 0)
			return -errno;
		if (length == 0)
			return 0;
		for (ssize_t at = 0; at < length;) {
			const struct dirent64 *entry =
				(const struct dirent64 *)(const void *)(listing + at);
			int result = 0;

			at += entry->d_reclen;
			if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
				result = visit(walk, fd, path_length, entry);
			if (result)
				return result;
		}
	}
}

int tree_walk(int fd, uint64_t entries_max, tree_walk_function *callback, void *context)
{
	struct walk *walk = malloc(sizeof(*walk));
	int result;

	if (!walk)
		return -ENOMEM;
	*walk = (struct walk){ .callback = callback,
			       .context = context,
			       .entries_left = entries_max };
	result = walk_directory(walk, fd, 0);
	free(walk);
	return result;
}
