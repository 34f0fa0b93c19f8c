#include "fsserver/host_paths.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* Not in Debian 12's linux/magic.h. */
#define MAGIC_CONFIGFS 0x62656570
#define MAGIC_FUSECTL 0x65735543
#define MAGIC_MQUEUE 0x19800202

#define RESOLVE_WITHIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)

/* File systems whose files are levers of the kernel or of the machine, not data. */
static const uint64_t pseudo_file_systems[] = {
	PROC_SUPER_MAGIC,   SYSFS_MAGIC,	 DEBUGFS_MAGIC,	      TRACEFS_MAGIC,
	CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, BPF_FS_MAGIC,	      SECURITYFS_MAGIC,
	SELINUX_MAGIC,	    SMACK_MAGIC,	 EFIVARFS_MAGIC,      PSTOREFS_MAGIC,
	BINFMTFS_MAGIC,	    HUGETLBFS_MAGIC,	 DEVPTS_SUPER_MAGIC,  NSFS_MAGIC,
	SOCKFS_MAGIC,	    PIPEFS_MAGIC,	 ANON_INODE_FS_MAGIC, AUTOFS_SUPER_MAGIC,
	MAGIC_CONFIGFS,	    MAGIC_FUSECTL,	 MAGIC_MQUEUE,
};

int host_scope_init(struct host_scope *scope, bool cross_mounts)
{
	struct stat devices;
	int fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*scope = (struct host_scope){ .proc_fd = fd, .cross_mounts = cross_mounts };
	if (stat("/dev", &devices) == 0)
		scope->device_tree = devices.st_dev;
	return 0;
}

void host_scope_close(struct host_scope *scope)
{
	if (scope->proc_fd >= 0)
		close(scope->proc_fd);
	scope->proc_fd = -1;
}

static int open_how(int parent_fd, const char *name, uint64_t flags, uint64_t mode,
		    uint64_t resolve, int *ret_fd)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve };
	long fd;

	do {
		fd = syscall(SYS_openat2, parent_fd, name, &how, sizeof(how));
	} while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	*ret_fd = (int)fd;
	return 0;
}

static int refuse_pseudo(const struct host_scope *scope, int fd)
{
	struct statfs info;
	struct stat stat;

	if (fstatfs(fd, &info) < 0 || fstat(fd, &stat) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_LENGTH(pseudo_file_systems); i++) {
		if ((uint64_t)info.f_type == pseudo_file_systems[i])
			return -EXDEV;
	}
	return stat.st_dev == scope->device_tree ? -EXDEV : 0;
}

static int open_path(const struct host_scope *scope, int parent_fd, const char *name, int *ret_fd)
{
	cleanup_fd int fd = -1;
	int error = open_how(parent_fd, name, O_PATH | O_NOFOLLOW, 0,
			     RESOLVE_WITHIN | RESOLVE_NO_XDEV, &fd);

	if (error == -EXDEV && scope->cross_mounts) {
		error = open_how(parent_fd, name, O_PATH | O_NOFOLLOW, 0, RESOLVE_WITHIN, &fd);
		if (!error)
			error = refuse_pseudo(scope, fd);
	}
	if (error)
		return error;
	*ret_fd = steal_fd(&fd);
	return 0;
}

int host_open_child(const struct host_scope *scope, int parent_fd, const char *name, int *ret_fd)
{
	/* Callers have checked; a second look costs nothing beside the system call. */
	if (name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return -EINVAL;
	return open_path(scope, parent_fd, name, ret_fd);
}

int host_open_below(const struct host_scope *scope, int root_fd, const char *path, int *ret_fd)
{
	return open_path(scope, root_fd, path[0] ? path : ".", ret_fd);
}

int host_open_directory(int parent_fd, const char *name, int *ret_fd)
{
	return open_how(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
			RESOLVE_WITHIN | RESOLVE_NO_XDEV, ret_fd);
}

int host_create_file(int parent_fd, const char *name, mode_t mode, int *ret_fd)
{
	return open_how(parent_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode & 0777,
			RESOLVE_WITHIN | RESOLVE_NO_XDEV, ret_fd);
}

int host_create_unnamed(const struct host_scope *scope, int parent_fd, mode_t mode, int *ret_fd)
{
	(void)scope;
	return open_how(parent_fd, ".", O_RDWR | O_TMPFILE, mode & 0777,
			RESOLVE_WITHIN | RESOLVE_NO_XDEV, ret_fd);
}

const char *host_fd_name(int fd, char name[static HOST_FD_NAME_MAX])
{
	char *digit = name + HOST_FD_NAME_MAX - 1;
	unsigned number = (unsigned)fd;

	*digit = '\0';
	do {
		*--digit = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	return digit;
}

int host_reopen(const struct host_scope *scope, int fd, int flags, int *ret_fd)
{
	char name[HOST_FD_NAME_MAX];
	struct stat stat;
	int opened;

	if (flags & ~(O_ACCMODE | O_PATH | O_SYNC | O_DSYNC))
		return -EINVAL;
	if (!(flags & O_PATH)) {
		if (fstat(fd, &stat) < 0)
			return -errno;
		if (S_ISLNK(stat.st_mode))
			return -ELOOP;
		if (!S_ISREG(stat.st_mode) && !S_ISDIR(stat.st_mode))
			return -ENXIO;
	}
	/* O_NONBLOCK has no meaning for regular files and directories, except that it does not
	 * wait for a lease to be broken. */
	do {
		opened = openat(scope->proc_fd, host_fd_name(fd, name),
				flags | O_CLOEXEC | O_NOCTTY | (flags & O_PATH ? 0 : O_NONBLOCK));
	} while (opened < 0 && errno == EINTR);
	if (opened < 0)
		return -errno;
	*ret_fd = opened;
	return 0;
}

int host_stat(int fd, struct statx *ret_stat)
{
	if (statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_STATX_SYNC_AS_STAT,
		  STATX_BASIC_STATS | STATX_MNT_ID | STATX_BTIME, ret_stat) < 0)
		return -errno;
	return 0;
}

uint64_t host_stat_device(const struct statx *stat)
{
	return makedev(stat->stx_dev_major, stat->stx_dev_minor);
}

void host_stat_convert(const struct statx *from, struct stat *to)
{
	*to = (struct stat){
		.st_dev = host_stat_device(from),
		.st_ino = from->stx_ino,
		.st_mode = from->stx_mode,
		.st_nlink = from->stx_nlink,
		.st_uid = from->stx_uid,
		.st_gid = from->stx_gid,
		.st_rdev = makedev(from->stx_rdev_major, from->stx_rdev_minor),
		.st_size = (off_t)from->stx_size,
		.st_blksize = from->stx_blksize,
		.st_blocks = (blkcnt_t)from->stx_blocks,
		.st_atim = { .tv_sec = from->stx_atime.tv_sec, .tv_nsec = from->stx_atime.tv_nsec },
		.st_mtim = { .tv_sec = from->stx_mtime.tv_sec, .tv_nsec = from->stx_mtime.tv_nsec },
		.st_ctim = { .tv_sec = from->stx_ctime.tv_sec, .tv_nsec = from->stx_ctime.tv_nsec },
	};
}

ssize_t host_path_of(const struct host_scope *scope, int fd, char *path, size_t capacity)
{
	char name[HOST_FD_NAME_MAX];
	ssize_t length = readlinkat(scope->proc_fd, host_fd_name(fd, name), path, capacity);

	if (length < 0)
		return -errno;
	if ((size_t)length >= capacity)
		return -ENAMETOOLONG;
	path[length] = '\0';
	return length;
}
