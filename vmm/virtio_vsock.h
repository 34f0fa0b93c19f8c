/*
 * The vsock device (vsock_device.h) behind the seam of virtio_device.h, for a transport that lives
 * in this process.
 *
 * It has three queues there: receive, transmit and event. The last is accepted and never used,
 * since this device does not move between hosts (virtio 1.2, section 5.10.6.7).
 */
#ifndef VMM_VIRTIO_VSOCK_H
#define VMM_VIRTIO_VSOCK_H

#include "vmm/virtio_device.h"
#include "vmm/vsock_device.h"

struct virtio_vsock;

/* The `device` of these is a struct virtio_vsock. */
extern const struct virtio_device_operations virtio_vsock_operations;

/* Makes the vsock device of `setup`, whose interrupt and transport are not looked at. Returns 0
 * with what virtio_vsock_free() releases, or -ENOMEM. */
int virtio_vsock_new(const struct vsock_device_setup *setup, struct virtio_vsock **ret_vsock);
void virtio_vsock_free(struct virtio_vsock *vsock);

/* For the stream provider; freed with `vsock`. */
struct vsock_device *virtio_vsock_device(struct virtio_vsock *vsock);

#endif
