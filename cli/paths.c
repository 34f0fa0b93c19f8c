#include "cli/paths.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *xdg_directory(const char *variable, const char *home, const char *fallback)
{
	const char *value = getenv(variable);
	cleanup_free char *path = NULL;

	if (value && value[0] == '/')
		path = text_printf("%s/matchlock", value);
	else
		path = text_printf("%s/%s/matchlock", home, fallback);
	return canonical_prefix(path);
}

static char *runtime_directory(void)
{
	const char *value = getenv("XDG_RUNTIME_DIR");
	struct stat status;

	/* `su` and cron leave a variable behind that names somebody else's directory, or none. */
	if (value && value[0] == '/' && stat(value, &status) == 0 && S_ISDIR(status.st_mode) &&
	    status.st_uid == geteuid())
		return text_printf("%s/matchlock", value);
	return text_printf("/tmp/matchlock-%u", (unsigned)geteuid());
}

static char *program_directory(void)
{
	char buffer[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", buffer, sizeof(buffer) - 1);
	char *slash;

	if (length <= 0)
		return text_copy("/usr/bin");
	buffer[length] = '\0';
	slash = strrchr(buffer, '/');
	if (slash && slash != buffer)
		*slash = '\0';
	return text_copy(buffer);
}

int paths_find(struct paths *paths, struct problem *problem)
{
	const char *home = getenv("HOME");

	*paths = (struct paths){ 0 };
	if (!home || home[0] != '/') {
		const struct passwd *entry = getpwuid(geteuid());

		home = entry && entry->pw_dir[0] == '/' ? entry->pw_dir : NULL;
	}
	if (!home)
		return problem_set(problem, STATUS_SANDBOX,
				   "no home directory is known for user %u: set HOME to an "
				   "absolute path",
				   (unsigned)geteuid());
	paths->home = canonical_prefix(home);
	paths->state = xdg_directory("XDG_STATE_HOME", paths->home, ".local/state");
	paths->cache = xdg_directory("XDG_CACHE_HOME", paths->home, ".cache");
	paths->config = xdg_directory("XDG_CONFIG_HOME", paths->home, ".config");
	paths->runtime = runtime_directory();
	paths->programs = program_directory();
	return 0;
}

void paths_free(struct paths *paths)
{
	free(paths->home);
	free(paths->state);
	free(paths->cache);
	free(paths->config);
	free(paths->runtime);
	free(paths->programs);
	*paths = (struct paths){ 0 };
}

int make_directories(const char *path)
{
	cleanup_free char *copy = text_copy(path);

	for (char *at = copy + 1;; at++) {
		char end = *at;

		if (end != '/' && end != '\0')
			continue;
		*at = '\0';
		if (mkdir(copy, 0700) < 0 && errno != EEXIST)
			return -errno;
		*at = end;
		if (end == '\0')
			return 0;
	}
}

int open_private_directory(const char *path, struct problem *problem)
{
	cleanup_fd int fd = -1;
	struct stat status;
	int error = make_directories(path);

	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot make %s: %s", path,
				   strerror(-error));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot open the directory %s: %s%s",
				   path, strerror(errno),
				   errno == ELOOP || errno == ENOTDIR
					   ? "; it must not be a symbolic link"
					   : "");
	if (fstat(fd, &status) < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot look at %s: %s", path,
				   strerror(errno));
	if (status.st_uid != geteuid())
		return problem_set(problem, STATUS_SANDBOX,
				   "%s belongs to user %u, not to you: remove it, or set "
				   "XDG_RUNTIME_DIR or XDG_STATE_HOME to a directory of your own",
				   path, (unsigned)status.st_uid);
	if ((status.st_mode & 077) != 0 && fchmod(fd, 0700) < 0)
		return problem_set(problem, STATUS_SANDBOX,
				   "%s is open to others and its mode cannot be changed: %s", path,
				   strerror(errno));
	return steal_fd(&fd);
}

static char *find_in(const struct paths *paths, const char *const *directories, size_t count,
		     const char *name, int access_mode)
{
	for (size_t i = 0; i < count; i++) {
		cleanup_free char *path =
			text_printf("%s/%s%s", paths->programs, directories[i], name);

		if (access(path, access_mode) == 0) {
			char *canonical = realpath(path, NULL);

			return canonical ? canonical : steal_pointer(&path);
		}
	}
	return NULL;
}

char *find_program(const struct paths *paths, const char *name, struct problem *problem)
{
	static const char *const directories[] = { "", "../libexec/matchlock/", "../../scripts/",
						   "../scripts/" };
	char *found = find_in(paths, directories, 4, name, X_OK);

	if (!found)
		problem_set(problem, STATUS_SANDBOX,
			    "%s is not installed beside %s/matchlock or in ../libexec/matchlock: "
			    "run `make` in the source tree, or `make install` again",
			    name, paths->programs);
	return found;
}

char *find_initramfs(const struct paths *paths, struct problem *problem)
{
	static const char *const directories[] = { "", "../libexec/matchlock/" };
	char *found = find_in(paths, directories, 2, "initramfs.cpio", R_OK);

	if (!found)
		problem_set(problem, STATUS_SANDBOX,
			    "the guest's initramfs.cpio is not beside %s/matchlock or in "
			    "../libexec/matchlock: run `make`, or `make install` again",
			    paths->programs);
	return found;
}

bool path_is_within(const char *path, const char *directory)
{
	size_t length = strlen(directory);

	if (strcmp(directory, "/") == 0)
		return true;
	return strncmp(path, directory, length) == 0 &&
	       (path[length] == '\0' || path[length] == '/');
}

const char *path_below(const char *path, const char *directory)
{
	path += strlen(directory);
	while (*path == '/')
		path++;
	return path;
}

size_t path_depth(const char *path)
{
	size_t depth = 0;

	for (const char *at = path; *at; at++) {
		if (*at == '/' && at[1] != '\0' && at[1] != '/')
			depth++;
	}
	return depth;
}

char *canonical_prefix(const char *path)
{
	cleanup_free char *head = text_copy(path);
	cleanup_free char *tail = text_copy("");

	for (;;) {
		cleanup_free char *canonical = realpath(head, NULL);
		cleanup_free char *old_tail = NULL;
		char *slash;

		if (canonical)
			return text_printf("%s%s",
					   strcmp(canonical, "/") == 0 && *tail ? "" : canonical,
					   tail);
		slash = strrchr(head, '/');
		if (!slash || slash == head)
			return text_copy(path);
		old_tail = tail;
		tail = text_printf("/%s%s", slash + 1, old_tail);
		*slash = '\0';
	}
}

/* statx of `path`, or of its nearest ancestor that exists. */
static bool nearest_statx(const char *path, struct statx *result)
{
	cleanup_free char *copy = text_copy(path);

	for (;;) {
		char *slash;

		if (statx(AT_FDCWD, copy, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
			  STATX_BASIC_STATS | STATX_MNT_ID, result) == 0)
			return true;
		slash = strrchr(copy, '/');
		if (!slash)
			return false;
		if (slash == copy) {
			if (copy[1] == '\0')
				return false;
			slash++;
		}
		*slash = '\0';
	}
}

bool same_mount(const char *a, const char *b)
{
	struct statx first;
	struct statx second;

	if (!nearest_statx(a, &first) || !nearest_statx(b, &second))
		return false;
	if ((first.stx_mask & second.stx_mask & STATX_MNT_ID) == 0)
		return false;
	return first.stx_mnt_id == second.stx_mnt_id &&
	       first.stx_dev_major == second.stx_dev_major &&
	       first.stx_dev_minor == second.stx_dev_minor;
}

bool path_is_plain_absolute(const char *path)
{
	if (path[0] != '/')
		return false;
	if (path[1] == '\0')
		return true;
	while (*path) {
		size_t length;

		path++;
		length = strcspn(path, "/");
		if (length == 0 || (length == 1 && path[0] == '.') ||
		    (length == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		path += length;
	}
	return true;
}
