#include "fsserver/ring.h"

#include "base/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const uint8_t permitted[] = {
	IORING_OP_ACCEPT, IORING_OP_RECV,  IORING_OP_SENDMSG,  IORING_OP_READ,
	IORING_OP_WRITE,  IORING_OP_FSYNC, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL,
};

/* Debian 12's shared liburing leaves its wrappers of these two out. */
static int register_with(struct io_uring *ring, unsigned operation, void *argument, unsigned count)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, operation, argument, count) < 0
		       ? -errno
		       : 0;
}

int ring_open(struct io_uring *ring)
{
	/* One thread submits; completions need not interrupt it. Older kernels know neither. */
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN |
			 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_CLAMP,
	};
	struct io_uring_restriction restrictions[ARRAY_LENGTH(permitted)];
	int result = io_uring_queue_init_params(RING_ENTRIES, ring, &params);

	if (result == -EINVAL) {
		memset(&params, 0, sizeof(params));
		params.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP;
		result = io_uring_queue_init_params(RING_ENTRIES, ring, &params);
	}
	if (result)
		return result;
	memset(restrictions, 0, sizeof(restrictions));
	for (size_t i = 0; i < ARRAY_LENGTH(permitted); i++) {
		restrictions[i].opcode = IORING_RESTRICTION_SQE_OP;
		restrictions[i].sqe_op = permitted[i];
	}
	result = register_with(ring, IORING_REGISTER_RESTRICTIONS, restrictions,
			       ARRAY_LENGTH(restrictions));
	if (!result)
		result = register_with(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (result)
		io_uring_queue_exit(ring);
	return result;
}

struct io_uring_sqe *ring_entry(struct io_uring *ring)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(ring);

	while (!entry) {
		int result = io_uring_submit(ring);

		if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
			abort();
		entry = io_uring_get_sqe(ring);
	}
	return entry;
}
