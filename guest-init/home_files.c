#include "guest-init/home_files.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens the directory `name`, made for the caller if it is not there. */
static int enter(int directory, const char *name, const struct agent_config *config)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	cleanup_fd int fd = openat(directory, name, flags);

	if (fd >= 0)
		return steal_fd(&fd);
	if (errno != ENOENT || mkdirat(directory, name, 0700) < 0)
		return -errno;
	fd = openat(directory, name, flags);
	if (fd < 0 || fchown(fd, config->uid, config->gid) < 0)
		return -errno;
	return steal_fd(&fd);
}

static int write_in(int directory, const char *name, const struct agent_file *file,
		    const struct agent_config *config)
{
	cleanup_fd int fd =
		openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno == EEXIST ? 0 : -errno;
	if (fchown(fd, config->uid, config->gid) < 0 || fchmod(fd, file->mode) < 0)
		return -errno;
	return write_full(fd, file->data, file->size);
}

static int write_one(int home_fd, const struct agent_file *file, const struct agent_config *config)
{
	cleanup_fd int directory = fcntl(home_fd, F_DUPFD_CLOEXEC, 0);
	const char *at = file->path + strlen(config->home) + 1;
	const char *slash;

	while (directory >= 0 && (slash = strchr(at, '/')) != NULL) {
		char name[AGENT_NAME_MAX + 1];
		int inner;

		if ((size_t)(slash - at) >= sizeof(name))
			return -ENAMETOOLONG;
		memcpy(name, at, (size_t)(slash - at));
		name[slash - at] = '\0';
		inner = enter(directory, name, config);
		if (inner < 0)
			return inner;
		close(directory);
		directory = inner;
		at = slash + 1;
	}
	return directory < 0 ? -errno : write_in(directory, at, file, config);
}

int home_files_write_at(int root_fd, const struct agent_config *config)
{
	/* What leads to the home may hold the image's symbolic links. */
	cleanup_fd int home = openat(root_fd, config->home + 1, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (home < 0)
		return -errno;
	for (uint32_t i = 0; i < config->file_count; i++) {
		int error = write_one(home, &config->files[i], config);

		if (error < 0)
			return error;
	}
	return 0;
}

int home_files_write(const struct agent_config *config, struct failure *failure)
{
	cleanup_fd int root = -1;
	int error;

	if (config->file_count == 0)
		return 0;
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	error = root < 0 ? -errno : home_files_write_at(root, config);
	if (error < 0)
		return failure_set(failure, "files", -error, "cannot write files into %s",
				   config->home);
	return 0;
}
