#include "guest-init/guest_root.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "guest-init/identity_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define NEW_ROOT "/newroot"
#define OVERLAY "/overlay"

static int mount_failed(struct failure *failure, const char *what, const char *target)
{
	return failure_set(failure, "mount", errno, "cannot mount %s on %.400s", what, target);
}

int guest_root_early(struct failure *failure)
{
	if (mkdir("/dev", 0755) < 0 && errno != EEXIST)
		return failure_set(failure, "mount", errno, "cannot create /dev");
	if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0 && errno != EBUSY)
		return mount_failed(failure, "devtmpfs", "/dev");
	return 0;
}

/* ---- mount points ----------------------------------------------------------------------- */

/* One component of a mount point's path, owned like the directory it is in. */
static int make_directory(const char *path, const char *parent)
{
	struct stat status;

	if (mkdir(path, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	if (stat(parent, &status) == 0 && (status.st_uid != 0 || status.st_gid != 0) &&
	    lchown(path, status.st_uid, status.st_gid) < 0)
		return -errno;
	return 0;
}

/* mkdir -p. `path` is absolute and plain. */
static int make_directories(const char *path, bool with_last)
{
	char buffer[AGENT_PATH_MAX + 1];
	char parent[AGENT_PATH_MAX + 1] = "/";
	size_t length = strlen(path);

	if (length >= sizeof(buffer))
		return -ENAMETOOLONG;
	memcpy(buffer, path, length + 1);
	for (size_t i = 1; i <= length; i++) {
		bool last = buffer[i] == '\0';
		int result;

		if (!last && buffer[i] != '/')
			continue;
		if (last && !with_last)
			break;
		buffer[i] = '\0';
		result = make_directory(buffer, parent);
		if (result < 0)
			return result;
		memcpy(parent, buffer, i + 1);
		if (!last)
			buffer[i] = '/';
	}
	return 0;
}

static int make_mount_point(const struct agent_mount *mount, struct failure *failure)
{
	bool file = (mount->flags & AGENT_MOUNT_FILE) != 0;
	int result = make_directories(mount->target, !file);

	if (result == 0 && file && mknod(mount->target, S_IFREG | 0644, 0) < 0 && errno != EEXIST)
		result = -errno;
	if (result < 0)
		return failure_set(failure, "mount", -result,
				   "cannot create the mount point %.400s", mount->target);
	return 0;
}

/* ---- the root --------------------------------------------------------------------------- */

/* What is mounted over anyway; the image's own need not be asked for, and may be refused, being
 * mount points of the host. */
static const char *const covered_directories[] = { "/dev", "/proc", "/run", "/sys", "/tmp" };

/* A directory of the writable layer that hides the image's of the same name. Source of the
 * attribute: the kernel's Documentation/filesystems/overlayfs.rst. */
static int make_opaque(const char *path)
{
	char upper[sizeof(OVERLAY "/upper") + AGENT_PATH_MAX];

	snprintf(upper, sizeof(upper), OVERLAY "/upper%s", path);
	if (mkdir(upper, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	return setxattr(upper, "trusted.overlay.opaque", "y", 1, 0) < 0 ? -errno : 0;
}

/* The same directory in the writable layer, with the attributes that it has in the image. */
static int copy_directory(const char *path, const struct stat *status)
{
	char upper[sizeof(OVERLAY "/upper") + AGENT_PATH_MAX];

	snprintf(upper, sizeof(upper), OVERLAY "/upper%s", path);
	if (mkdir(upper, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	if (chown(upper, status->st_uid, status->st_gid) < 0 ||
	    chmod(upper, status->st_mode & 07777) < 0)
		return -errno;
	return 0;
}

/* make_opaque() for a path whose parents exist in the image. */
static int make_opaque_below(const char *lower, char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		char image[64 + AGENT_PATH_MAX];
		struct stat status;
		int result;

		*slash = '\0';
		snprintf(image, sizeof(image), "%s%s", lower, path);
		result = lstat(image, &status) < 0 ? -errno : copy_directory(path, &status);
		*slash = '/';
		if (result < 0)
			return result;
	}
	return make_opaque(path);
}

/* A mount point's path may lead through a directory that the file server refuses to show (a home,
 * another file system of the host). Then that one is hidden by an empty one; where the image
 * shows a directory, or has none, the ordinary way will do. */
static int hide_refused(const char *lower, const char *target)
{
	char path[AGENT_PATH_MAX + 1];
	size_t length = strlen(target);

	if (length >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(path, target, length + 1);
	for (size_t i = 1; i <= length; i++) {
		char image[64 + AGENT_PATH_MAX];
		struct stat status;
		char kept = path[i];

		if (kept != '\0' && kept != '/')
			continue;
		path[i] = '\0';
		snprintf(image, sizeof(image), "%s%s", lower, path);
		if (lstat(image, &status) < 0)
			return errno == ENOENT ? 0 : make_opaque_below(lower, path);
		if (!S_ISDIR(status.st_mode))
			return 0;
		path[i] = kept;
	}
	return 0;
}

static int prepare_upper(const struct agent_config *config, const char *lower)
{
	int result = 0;

	for (size_t i = 0; result == 0 && i < ARRAY_LENGTH(covered_directories); i++)
		result = make_opaque(covered_directories[i]);
	for (size_t i = 1; result == 0 && i < config->mount_count; i++)
		result = hide_refused(lower, config->mounts[i].target);
	return result;
}

/* Whether one of the paths leads to or through the other. */
static bool overlap(const char *one, const char *other)
{
	size_t length = MIN_OF(strlen(one), strlen(other));

	return strncmp(one, other, length) == 0 && (one[length] == '\0' || one[length] == '/') &&
	       (other[length] == '\0' || other[length] == '/');
}

/* The files of identity_files.h, unless they are not the layer's alone to show. */
static int prepare_identity(const struct agent_config *config, const char *lower, bool *ret_written,
			    struct failure *failure)
{
	char etc[64];
	struct stat status;
	int result;

	*ret_written = false;
	for (size_t i = 1; i < config->mount_count; i++) {
		if (overlap(config->mounts[i].target, "/etc") ||
		    overlap(config->mounts[i].target, "/usr/share/zoneinfo"))
			return 0;
	}
	snprintf(etc, sizeof(etc), "%s/etc", lower);
	if (lstat(etc, &status) < 0 || !S_ISDIR(status.st_mode))
		return 0;
	result = copy_directory("/etc", &status);
	if (result < 0)
		return failure_set(failure, "mount", -result, "cannot prepare the writable layer");
	return identity_files_write_apart(config, lower, OVERLAY "/upper/etc", ret_written,
					  failure);
}

static int mount_overlay(const struct agent_config *config, const char *lower,
			 bool *ret_identity_written, struct failure *failure)
{
	char options[256];
	int result;

	if ((mkdir(OVERLAY, 0700) < 0 && errno != EEXIST) ||
	    (mkdir(NEW_ROOT, 0755) < 0 && errno != EEXIST))
		return failure_set(failure, "mount", errno, "cannot create the root's mount point");
	if (mount("overlay-memory", OVERLAY, "tmpfs", 0, "mode=0755") < 0)
		return mount_failed(failure, "tmpfs", OVERLAY);
	if (mkdir(OVERLAY "/upper", 0755) < 0 || mkdir(OVERLAY "/work", 0700) < 0)
		return failure_set(failure, "mount", errno, "cannot create the writable layer");
	result = prepare_upper(config, lower);
	if (result < 0)
		return failure_set(failure, "mount", -result, "cannot prepare the writable layer");
	result = prepare_identity(config, lower, ret_identity_written, failure);
	if (result < 0)
		return result;
	snprintf(options, sizeof(options),
		 "lowerdir=%s,upperdir=" OVERLAY "/upper,workdir=" OVERLAY "/work", lower);
	if (mount("overlay", NEW_ROOT, "overlay", 0, options) < 0)
		return mount_failed(failure, "the overlay of the image", NEW_ROOT);
	return 0;
}

static int switch_root(struct failure *failure)
{
	if (mkdir(NEW_ROOT "/dev", 0755) < 0 && errno != EEXIST)
		return failure_set(failure, "mount", errno, "cannot create /dev in the image");
	if (mount("/dev", NEW_ROOT "/dev", NULL, MS_MOVE, NULL) < 0)
		return mount_failed(failure, "devtmpfs", NEW_ROOT "/dev");
	/* An initramfs cannot be pivoted away from; it is covered instead. */
	if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return failure_set(failure, "mount", errno, "cannot switch to the image's root");
	return 0;
}

/* ---- the kernel's file systems ------------------------------------------------------------ */

struct system_mount {
	const char *type;
	const char *target;
	unsigned long flags;
	const char *options;
	bool optional;
};

static const struct system_mount system_mounts[] = {
	{ "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "", false },
	{ "sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, "", false },
	{ "cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "", false },
	{ "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666", false },
	{ "tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777", false },
	{ "mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, "", true },
	{ "tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755", false },
	{ "tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777", false },
};

static const char *const device_links[][2] = {
	{ "/proc/self/fd", "/dev/fd" },
	{ "/proc/self/fd/0", "/dev/stdin" },
	{ "/proc/self/fd/1", "/dev/stdout" },
	{ "/proc/self/fd/2", "/dev/stderr" },
};

static int mount_system(struct failure *failure)
{
	for (size_t i = 0; i < ARRAY_LENGTH(system_mounts); i++) {
		const struct system_mount *wanted = &system_mounts[i];
		int result = make_directories(wanted->target, true);

		if (result == 0 && mount(wanted->type, wanted->target, wanted->type, wanted->flags,
					 wanted->options) < 0)
			result = -errno;
		if (result < 0 && !wanted->optional) {
			errno = -result;
			return mount_failed(failure, wanted->type, wanted->target);
		}
	}
	for (size_t i = 0; i < ARRAY_LENGTH(device_links); i++) {
		if (symlink(device_links[i][0], device_links[i][1]) < 0 && errno != EEXIST)
			return failure_set(failure, "mount", errno, "cannot link %s",
					   device_links[i][1]);
	}
	if (mkdir("/run/lock", 01777) == 0 && chmod("/run/lock", 01777) < 0)
		return failure_set(failure, "mount", errno, "cannot set up /run/lock");
	return 0;
}

/* XDG_RUNTIME_DIR as logind makes it. */
static int make_runtime_directory(const struct agent_config *config, struct failure *failure)
{
	char path[64];

	snprintf(path, sizeof(path), "/run/user/%u", config->uid);
	if (mkdir("/run/user", 0755) < 0 || mkdir(path, 0700) < 0 ||
	    chown(path, config->uid, config->gid) < 0)
		return failure_set(failure, "mount", errno, "cannot set up %s", path);
	return 0;
}

/* ---- the mounts of CONFIG ----------------------------------------------------------------- */

static int mount_tmpfs(const struct agent_mount *mount_wanted, struct failure *failure)
{
	char options[AGENT_TEXT_MAX + 128];

	snprintf(options, sizeof(options), "mode=%o,uid=%u,gid=%u%s%s", mount_wanted->mode,
		 mount_wanted->uid, mount_wanted->gid, mount_wanted->options[0] ? "," : "",
		 mount_wanted->options);
	if (mount("tmpfs", mount_wanted->target, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
		return mount_failed(failure, "tmpfs", mount_wanted->target);
	return 0;
}

static int apply_mounts(const struct agent_config *config, const int *trees,
			struct failure *failure)
{
	for (size_t i = 0; i < config->mount_count; i++) {
		const struct agent_mount *wanted = &config->mounts[i];
		int result;

		if (wanted->kind == AGENT_MOUNT_IMAGE)
			continue;
		result = make_mount_point(wanted, failure);
		if (result < 0)
			return result;
		if (wanted->kind == AGENT_MOUNT_TMPFS) {
			result = mount_tmpfs(wanted, failure);
			if (result < 0)
				return result;
			continue;
		}
		if (move_mount(trees[i], "", AT_FDCWD, wanted->target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
			return mount_failed(failure, "an export", wanted->target);
	}
	return 0;
}

/* Holds on to the exports' staging mounts, which have no path any more after the switch. */
static int open_exports(const struct agent_config *config, struct file_daemon *daemon, int *trees,
			struct failure *failure)
{
	for (size_t i = 0; i < config->mount_count; i++) {
		char path[32];
		int result;

		if (config->mounts[i].kind != AGENT_MOUNT_EXPORT)
			continue;
		result = file_daemon_wait(daemon, config, i, failure);
		if (result < 0)
			return result;
		file_daemon_staging_path(i, path);
		trees[i] = open_tree(AT_FDCWD, path, OPEN_TREE_CLOEXEC);
		if (trees[i] < 0)
			return failure_set(failure, "mount", errno,
					   "cannot open the mount of %.400s",
					   config->mounts[i].target);
	}
	return 0;
}

static int assemble(const struct agent_config *config, struct file_daemon *daemon, int *trees,
		    struct failure *failure)
{
	bool image = config->mount_count > 0 && config->mounts[0].kind == AGENT_MOUNT_IMAGE;
	bool identity_written = false;
	int result = 0;

	if (image) {
		char lower[32];

		file_daemon_staging_path(0, lower);
		result = file_daemon_wait(daemon, config, 0, failure);
		if (result == 0)
			result = mount_overlay(config, lower, &identity_written, failure);
	}
	if (result == 0)
		result = open_exports(config, daemon, trees, failure);
	if (result == 0 && image)
		result = switch_root(failure);
	if (result == 0)
		result = mount_system(failure);
	if (result == 0)
		result = make_runtime_directory(config, failure);
	if (result == 0)
		result = apply_mounts(config, trees, failure);
	if (result == 0 && !identity_written)
		result = identity_files_write(config, failure);
	return result;
}

int guest_root_assemble(const struct agent_config *config, struct file_daemon *daemon,
			struct failure *failure)
{
	int trees[AGENT_MOUNTS_MAX];
	int result;

	for (size_t i = 0; i < AGENT_MOUNTS_MAX; i++)
		trees[i] = -1;
	result = assemble(config, daemon, trees, failure);
	for (size_t i = 0; i < AGENT_MOUNTS_MAX; i++) {
		if (trees[i] >= 0)
			close(trees[i]);
	}
	return result;
}

void guest_root_unmount_exports(const struct agent_config *config)
{
	for (size_t i = config->mount_count; i-- > 0;) {
		if (config->mounts[i].kind == AGENT_MOUNT_EXPORT)
			umount2(config->mounts[i].target, MNT_DETACH);
	}
}
