/*
 * The io_uring of one disk: disabled at first, restricted to reads, writes, syncs and allocation on
 * the one registered file (reads alone if it is read-only), then enabled. Nothing that takes a path
 * or a descriptor is possible through it.
 *
 * Source: io_uring_register(2), IORING_REGISTER_RESTRICTIONS.
 */
#ifndef VMM_BLOCK_RING_H
#define VMM_BLOCK_RING_H

#include <liburing.h>
#include <stdbool.h>

/* Room for `entries` operations in flight and one that cancels them, on the file `fd`, which is
 * borrowed for this call: the ring keeps the file open by itself. Each completion signals
 * `completion_fd`. Returns 0 or a negative errno; -ENOSYS or -EPERM where the host has io_uring
 * switched off. */
int block_ring_open(struct io_uring *ring, unsigned entries, int fd, bool read_only,
		    int completion_fd);
/* A cleared entry for the registered file; never NULL while no more than agreed are in flight. */
struct io_uring_sqe *block_ring_entry(struct io_uring *ring);
void block_ring_close(struct io_uring *ring);

#endif
