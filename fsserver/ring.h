/*
 * The server's io_uring. It is made disabled, restricted to what the server needs (socket
 * transfers, reads, writes and fsync on descriptors, polling), and only then enabled: nothing that
 * takes a path, and no registration, is possible through it.
 *
 * Source: io_uring_register(2), IORING_REGISTER_RESTRICTIONS.
 */
#ifndef FSSERVER_RING_H
#define FSSERVER_RING_H

#include <liburing.h>

#define RING_ENTRIES 256u

/* 0 or a negative errno; -ENOSYS or -EPERM where the host has io_uring switched off. Call in the
 * thread that will submit. */
int ring_open(struct io_uring *ring);
/* Never NULL: submits what is queued when the queue is full. Aborts if that fails for good. */
struct io_uring_sqe *ring_entry(struct io_uring *ring);

#endif
