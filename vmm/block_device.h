/*
 * The virtio block device (virtio 1.2, section 5.2): one disk, which is a regular file.
 *
 * Read-only disks refuse every write and need no more than a descriptor that is open for reading.
 * Writes reach the host's page cache; a driver which did not agree to VIRTIO_BLK_F_FLUSH gets each
 * of them synchronised instead, and so what it discards or zeroes. Requests are carried out side by
 * side through io_uring.
 *
 * Limits: BLOCK_REQUESTS_MAX requests in flight; those of block_request.h for each. The disk has as
 * many whole sectors as the file when it was opened; should the file shrink, reads beyond its
 * end fail.
 */
#ifndef VMM_BLOCK_DEVICE_H
#define VMM_BLOCK_DEVICE_H

#include "base/event_loop.h"
#include "jail/jail.h"
#include "vmm/virtio_device.h"

#define BLOCK_REQUESTS_MAX 64

struct block_device;

struct block_device_setup {
	int fd; /* borrowed for the call alone; O_RDWR, or O_RDONLY as well if read_only */
	bool read_only;
	const char *serial;	 /* what the guest finds as the disk's serial; cut to 20 bytes */
	struct event_loop *loop; /* borrowed; of the device thread */
};

/* The `device` of these is a struct block_device. */
extern const struct virtio_device_operations block_device_operations;
/* What it calls, beside jail_calls_process. */
extern const struct jail_syscall_set block_device_calls;

/* Returns 0 with what block_device_free() releases; -EINVAL for what is no regular file or is open
 * for appending or direct access, -EACCES for a descriptor with too few rights, or another
 * negative errno: -ENOSYS or -EPERM where the host has io_uring switched off. */
int block_device_new(const struct block_device_setup *setup, struct block_device **ret_device);
/* After its transport was stopped. */
void block_device_free(struct block_device *device);

/* Requests in flight. On the device thread. */
unsigned block_device_in_flight(const struct block_device *device);

#endif
