#include "guest-fused/mount.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FUSE_DEVICE "/dev/fuse"
#define OPTIONS_MAX 256

static int mount_by_helper(const char *mountpoint, const char *options, int *ret_fd)
{
	int sockets[2];
	int fds[FD_MESSAGE_MAX];
	size_t fd_count = 0;
	char number[16];
	char byte;
	ssize_t result;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
		return -errno;
	snprintf(number, sizeof(number), "%d", sockets[1]);
	pid = fork();
	if (pid == 0) {
		set_close_on_exec(sockets[1], false);
		setenv("_FUSE_COMMFD", number, 1);
		execlp("fusermount3", "fusermount3", "-o", options, "--", mountpoint, (char *)NULL);
		_exit(127);
	}
	close(sockets[1]);
	result = pid < 0 ? -errno
			 : receive_with_fds(sockets[0], &byte, 1, fds, FD_MESSAGE_MAX, &fd_count);
	close(sockets[0]);
	if (pid > 0)
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	if (result < 0)
		return (int)result;
	if (fd_count != 1) {
		for (size_t i = 0; i < fd_count; i++)
			close(fds[i]);
		return -EPERM;
	}
	*ret_fd = fds[0];
	return 0;
}

int fused_mount(const char *mountpoint, uint32_t root_mode, uint32_t read_max, bool read_only,
		int *ret_fd)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | (read_only ? MS_RDONLY : 0);
	char options[OPTIONS_MAX];
	cleanup_fd int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);
	int error;

	if (fd < 0)
		return -errno;
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=%o,user_id=%u,group_id=%u,default_permissions,allow_other,"
		 "max_read=%u",
		 fd, root_mode & S_IFMT, getuid(), getgid(), read_max);
	if (mount("matchlock", mountpoint, "fuse.matchlock", flags, options) == 0) {
		*ret_fd = steal_fd(&fd);
		return 0;
	}
	error = errno;
	if (error != EPERM || geteuid() == 0)
		return -error;
	snprintf(options, sizeof(options),
		 "%s,default_permissions,fsname=matchlock,subtype=matchlock,max_read=%u",
		 read_only ? "ro" : "rw", read_max);
	return mount_by_helper(mountpoint, options, ret_fd);
}

void fused_unmount(const char *mountpoint)
{
	pid_t pid;

	if (umount2(mountpoint, MNT_DETACH) == 0 || errno != EPERM || geteuid() == 0)
		return;
	pid = fork();
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", mountpoint,
		       (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
}

int fused_open_kernel_files(const char *type)
{
	cleanup_fd int context = fsopen(type, FSOPEN_CLOEXEC);

	if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0)
		return -errno;
	return fsmount(context, FSMOUNT_CLOEXEC, 0);
}

static int open_read_ahead(unsigned device_major, unsigned device_minor)
{
	char path[80];
	cleanup_fd int sysfs = -1;
	int fd;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", device_major,
		 device_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	sysfs = fused_open_kernel_files("sysfs");
	return sysfs < 0 ? -1 : openat(sysfs, path + strlen("/sys/"), O_WRONLY | O_CLOEXEC);
}

void fused_mount_read_ahead(const char *mountpoint, unsigned kibibytes)
{
	struct statx status;
	char text[16];
	int length = snprintf(text, sizeof(text), "%u", kibibytes);
	cleanup_fd int fd = -1;

	/* Without asking the file system. */
	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, 0, &status) != 0)
		return;
	fd = open_read_ahead(status.stx_dev_major, status.stx_dev_minor);
	if (fd >= 0)
		(void)write_full(fd, text, (size_t)length);
}

int fused_mount_clone(int fuse_fd, int *ret_fd)
{
	uint32_t source = (uint32_t)fuse_fd;
	cleanup_fd int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, FUSE_DEV_IOC_CLONE, &source) != 0)
		return -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}
