#include "vmm/block_ring.h"

#include "base/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const uint8_t reading[] = { IORING_OP_READV, IORING_OP_FSYNC, IORING_OP_ASYNC_CANCEL };
static const uint8_t writing[] = { IORING_OP_WRITEV, IORING_OP_FALLOCATE };

/* Debian 12's shared liburing leaves its wrappers of these out. */
static int register_with(struct io_uring *ring, unsigned operation, const void *argument,
			 unsigned count)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, operation, argument, count) < 0
		       ? -errno
		       : 0;
}

static int restrict_ring(struct io_uring *ring, bool read_only)
{
	struct io_uring_restriction list[ARRAY_LENGTH(reading) + ARRAY_LENGTH(writing) + 2];
	unsigned count = 0;

	memset(list, 0, sizeof(list));
	for (size_t i = 0; i < ARRAY_LENGTH(reading); i++) {
		list[count].opcode = IORING_RESTRICTION_SQE_OP;
		list[count++].sqe_op = reading[i];
	}
	for (size_t i = 0; i < ARRAY_LENGTH(writing) && !read_only; i++) {
		list[count].opcode = IORING_RESTRICTION_SQE_OP;
		list[count++].sqe_op = writing[i];
	}
	list[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	list[count++].sqe_flags = IOSQE_FIXED_FILE;
	list[count].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	list[count++].sqe_flags = IOSQE_FIXED_FILE;
	return register_with(ring, IORING_REGISTER_RESTRICTIONS, list, count);
}

int block_ring_open(struct io_uring *ring, unsigned entries, int fd, bool read_only,
		    int completion_fd)
{
	/* The thread that submits also reaps, so nobody needs to be interrupted for it. Not
	 * SINGLE_ISSUER: who opens the disk need not be the thread that will serve it. */
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CLAMP,
	};
	int r = io_uring_queue_init_params(entries + 1, ring, &params);

	if (r == -EINVAL) {
		/* Kernels before 5.19. */
		memset(&params, 0, sizeof(params));
		params.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP;
		r = io_uring_queue_init_params(entries + 1, ring, &params);
	}
	if (r < 0)
		return r;
	r = register_with(ring, IORING_REGISTER_FILES, &fd, 1);
	if (r == 0)
		r = register_with(ring, IORING_REGISTER_EVENTFD, &completion_fd, 1);
	if (r == 0)
		r = restrict_ring(ring, read_only);
	if (r == 0)
		r = register_with(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (r < 0)
		io_uring_queue_exit(ring);
	return r;
}

struct io_uring_sqe *block_ring_entry(struct io_uring *ring)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(ring);

	while (!entry) {
		int r = io_uring_submit(ring);

		if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
			abort();
		entry = io_uring_get_sqe(ring);
	}
	return entry;
}

void block_ring_close(struct io_uring *ring)
{
	io_uring_queue_exit(ring);
}
