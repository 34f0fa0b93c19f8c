#include "cli/exec_stdio.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Opening this device again would make another pty. Number: devices.txt of the kernel. */
#define PTMX_MAJOR 5
#define PTMX_MINOR 2

static bool can_reopen(int fd, const struct stat *status)
{
	if (S_ISFIFO(status->st_mode))
		return true;
	if (!S_ISCHR(status->st_mode) || !isatty(fd))
		return false;
	return status->st_rdev != makedev(PTMX_MAJOR, PTMX_MINOR);
}

struct exec_stdio exec_stdio_open(int fd, bool for_writing)
{
	struct exec_stdio stdio = { .fd = fd, .owned = false, .end = RELAY_BLOCKING };
	struct stat status;
	char path[64];

	if (fstat(fd, &status) < 0)
		return stdio;
	if (S_ISSOCK(status.st_mode)) {
		stdio.end = RELAY_SOCKET;
	} else if (can_reopen(fd, &status)) {
		int flags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
		int reopened;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		reopened = open(path, flags | (for_writing ? O_WRONLY : O_RDONLY));
		if (reopened >= 0) {
			stdio.fd = reopened;
			stdio.owned = true;
			stdio.end = RELAY_NONBLOCKING;
		}
	} else if (!isatty(fd)) {
		/* Regular files, disks, /dev/null: they do not make anybody wait. */
		stdio.end = RELAY_FILE;
	}
	return stdio;
}

void exec_stdio_close(struct exec_stdio *stdio)
{
	if (stdio->owned && stdio->fd >= 0)
		close(stdio->fd);
	stdio->fd = -1;
	stdio->owned = false;
}
