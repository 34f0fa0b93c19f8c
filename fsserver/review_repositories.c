#include "fsserver/review_repositories.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/undo_file.h"
#include "fsserver/undo_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const marks[] = { "HEAD", "objects", "refs" };

static int add(struct review_repositories *repositories, const char *path, size_t length)
{
	int result = undo_grow((void **)&repositories->paths, repositories->count,
			       &repositories->capacity, sizeof(*repositories->paths));
	char *copy;

	if (result < 0)
		return result;
	copy = length ? strndup(path, length) : strdup(".");
	if (!copy)
		return -ENOMEM;
	repositories->paths[repositories->count++] = copy;
	return 0;
}

static bool is_mark(const char *name)
{
	for (size_t i = 0; i < ARRAY_LENGTH(marks); i++) {
		if (strcmp(name, marks[i]) == 0)
			return true;
	}
	return false;
}

/* Whether all marks stand in the directory; what they are git judges. */
static bool has_all_marks(int root_fd, const char *path, size_t length)
{
	cleanup_free char *directory = strndup(path, length);
	cleanup_fd int fd = -1;
	struct stat stat;

	if (!directory)
		return false;
	fd = undo_open_beneath(root_fd, directory, O_PATH | O_DIRECTORY, 0);
	for (size_t i = 0; fd >= 0 && i < ARRAY_LENGTH(marks); i++) {
		if (fstatat(fd, marks[i], &stat, AT_SYMLINK_NOFOLLOW) < 0)
			return false;
	}
	return fd >= 0;
}

int review_repositories_note(struct review_repositories *repositories, int root_fd,
			     const struct undo_change *change)
{
	const char *slash = strrchr(change->path, '/');
	const char *name = slash ? slash + 1 : change->path;
	size_t length = slash ? (size_t)(slash - change->path) : 0;

	if (change->kind != UNDO_CREATED && change->kind != UNDO_RENAMED)
		return 0;
	if (strcmp(name, ".git") == 0)
		return add(repositories, change->path, strlen(change->path));
	if (is_mark(name) && has_all_marks(root_fd, change->path, length))
		return add(repositories, change->path, length);
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void review_repositories_finish(struct review_repositories *repositories)
{
	uint32_t kept = 0;

	if (repositories->count < 2)
		return;
	qsort(repositories->paths, repositories->count, sizeof(*repositories->paths), compare);
	for (uint32_t i = 0; i < repositories->count; i++) {
		if (kept && strcmp(repositories->paths[kept - 1], repositories->paths[i]) == 0)
			free(repositories->paths[i]);
		else
			repositories->paths[kept++] = repositories->paths[i];
	}
	repositories->count = kept;
}

void review_repositories_free(struct review_repositories *repositories)
{
	for (uint32_t i = 0; i < repositories->count; i++)
		free(repositories->paths[i]);
	free(repositories->paths);
	*repositories = (struct review_repositories){ 0 };
}
