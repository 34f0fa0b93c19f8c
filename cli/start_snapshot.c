#include "cli/start_snapshot.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY_SECONDS (24 * 60 * 60)
/* Nobody's boot takes so long: it was left over by a session that was killed. */
#define FRESH_SECONDS (10 * 60)

static int open_directory(const struct paths *paths)
{
	cleanup_free char *path = text_printf("%s/snapshots", paths->cache);
	struct problem problem = { 0 };
	int directory = open_private_directory(path, &problem);

	if (directory < 0)
		log_debug("no snapshots: %s", problem.text);
	return directory;
}

/* What others could have written is no snapshot. Using it is told by its time. */
static int open_stored(int directory, const char *name)
{
	cleanup_fd int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
	    status.st_uid != geteuid() || (status.st_mode & 022) != 0)
		return -1;
	(void)futimens(fd, NULL);
	return steal_fd(&fd);
}

/* -1 also while another session has its guest stored under that name. */
static int make_fresh(int directory, const char *name)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(directory, name, flags, 0600);
	struct stat status;

	if (fd >= 0 || errno != EEXIST ||
	    fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
	    status.st_ctime > time(NULL) - FRESH_SECONDS || unlinkat(directory, name, 0) < 0)
		return fd;
	return openat(directory, name, flags, 0600);
}

void start_snapshot_open(const struct paths *paths, const char *engine, bool trimmed_kernel,
			 unsigned cpus, unsigned memory_mib, struct start_snapshot *ret_snapshot)
{
	struct start_snapshot snapshot = START_SNAPSHOT_INIT;

	snapshot.directory = open_directory(paths);
	if (snapshot.directory >= 0) {
		/* Who asks for software where there is KVM does not take its snapshot away. */
		snapshot.name =
			text_printf("%s%s-%u-%um", strcmp(engine, "qemu") == 0 ? "software-" : "",
				    trimmed_kernel ? "trimmed" : "debian", cpus, memory_mib);
		snapshot.stored = open_stored(snapshot.directory, snapshot.name);
		snapshot.fresh_name = text_printf("%s.new", snapshot.name);
		snapshot.fresh = make_fresh(snapshot.directory, snapshot.fresh_name);
	}
	*ret_snapshot = snapshot;
}

static void remove_unused(int directory)
{
	const time_t oldest = time(NULL) - (time_t)START_SNAPSHOT_DAYS * DAY_SECONDS;
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *files = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat status;

	if (!files) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(files)) != NULL) {
		if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(status.st_mode) && status.st_mtime < oldest)
			(void)unlinkat(directory, entry->d_name, 0);
	}
	closedir(files);
}

void start_snapshot_keep(struct start_snapshot *snapshot)
{
	if (snapshot->fresh < 0)
		return;
	if (renameat(snapshot->directory, snapshot->fresh_name, snapshot->directory,
		     snapshot->name) < 0) {
		log_info("the stored guest could not be kept: %s", strerror(errno));
		return;
	}
	close(steal_fd(&snapshot->fresh));
	remove_unused(snapshot->directory);
}

void start_snapshot_turn(struct start_snapshot *snapshot)
{
	start_snapshot_keep(snapshot);
	if (snapshot->stored >= 0)
		close(snapshot->stored);
	snapshot->stored = open_stored(snapshot->directory, snapshot->name);
}

void start_snapshot_drop(struct start_snapshot *snapshot)
{
	if (snapshot->stored >= 0)
		(void)unlinkat(snapshot->directory, snapshot->name, 0);
}

void start_snapshot_close(struct start_snapshot *snapshot)
{
	const int fds[] = { snapshot->directory, snapshot->stored, snapshot->fresh };

	if (snapshot->fresh >= 0)
		(void)unlinkat(snapshot->directory, snapshot->fresh_name, 0);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	free(snapshot->name);
	free(snapshot->fresh_name);
	*snapshot = (struct start_snapshot)START_SNAPSHOT_INIT;
}
