#include "jail/descriptors.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The first descriptor that is not standard input, output or error. */
#define FIRST_FD 3

static int compare_ints(const void *left, const void *right)
{
	int a = *(const int *)left;
	int b = *(const int *)right;

	return (a > b) - (a < b);
}

/* Kernels before 5.9 have no close_range(). Linear in open files times kept ones. */
static int close_one_by_one(const int *sorted, size_t count)
{
	DIR *directory = opendir("/proc/self/fd");
	const struct dirent *entry;

	if (!directory)
		return -errno;
	while ((entry = readdir(directory))) {
		char *end;
		long fd = strtol(entry->d_name, &end, 10);
		int number = (int)fd;

		if (*end != '\0' || fd < FIRST_FD || fd > INT_MAX || number == dirfd(directory))
			continue;
		if (!bsearch(&number, sorted, count, sizeof(*sorted), compare_ints))
			close(number);
	}
	closedir(directory);
	return 0;
}

static int close_span(unsigned first, unsigned last)
{
	return first <= last && syscall(SYS_close_range, first, last, 0u) < 0 ? -errno : 0;
}

static int close_gaps(const int *sorted, size_t count)
{
	unsigned next = FIRST_FD;

	for (size_t i = 0; i < count; i++) {
		int error;

		if (sorted[i] < (int)next)
			continue;
		error = close_span(next, (unsigned)sorted[i] - 1);
		if (error)
			return error;
		next = (unsigned)sorted[i] + 1;
	}
	return close_span(next, UINT_MAX);
}

int descriptors_close_others(const int *keep, size_t keep_count)
{
	cleanup_free int *sorted = NULL;
	int error;

	if (keep_count > 2 * JAIL_KEEP_FDS_MAX)
		return -EINVAL;
	sorted = calloc(keep_count + 1, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	if (keep_count > 0) {
		memcpy(sorted, keep, keep_count * sizeof(*sorted));
		qsort(sorted, keep_count, sizeof(*sorted), compare_ints);
	}
	error = close_gaps(sorted, keep_count);
	return error == -ENOSYS ? close_one_by_one(sorted, keep_count) : error;
}
