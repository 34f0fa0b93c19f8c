#include "cli/memory_window.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "wire/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
/* Fifteen channels: all workers of three mounts. */
#define WINDOW_MOST (16 * MIB)
/* Of a small guest's memory, no more than one part in so many. */
#define WINDOW_SHARE 16
#define WINDOW_ALIGNMENT (2 * MIB)
/* The engines have memory without a gap up to here. */
#define LOW_MEMORY_END (2048 * MIB)

/* The kernel lies at the bottom of memory, the initramfs at the top of its low part: three quarters
 * up is free. */
static void place(uint64_t memory, struct memory_window *window)
{
	uint64_t low = MIN_OF(memory, LOW_MEMORY_END);
	uint64_t size =
		MIN_OF(memory / WINDOW_SHARE, WINDOW_MOST) / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT;

	if (channel_count(size) == 0)
		return;
	window->size = size;
	window->address = low / 4 * 3 / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT;
}

int memory_window_make(unsigned memory_mib, struct memory_window *ret_window,
		       struct problem *problem)
{
	struct memory_window window = { .fd = -1, .doorbell_engine = -1, .doorbell_server = -1 };
	int pair[2];
	uint64_t memory = memory_mib * MIB;
	cleanup_fd int fd = memfd_create("matchlock-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)memory) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return problem_set(problem, STATUS_SANDBOX,
				   "cannot make %u MiB of memory for the guest: %s", memory_mib,
				   strerror(errno));
	place(memory, &window);
	if (window.size > 0) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return problem_set(problem, STATUS_SANDBOX, "cannot make a socket pair: %s",
					   strerror(errno));
		window.doorbell_engine = pair[0];
		window.doorbell_server = pair[1];
	}
	window.fd = steal_fd(&fd);
	*ret_window = window;
	return 0;
}

void memory_window_close(struct memory_window *window)
{
	int *const fds[] = { &window->fd, &window->doorbell_engine, &window->doorbell_server };

	for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}
