/*
 * Theory of operation
 *
 * The vsock device knows no transport: vhost-user drives it for QEMU (vhost_user.c), and these
 * functions for virtio-mmio. They only pass on what either side says; the event queue, the third,
 * is never used, since the guest's CID does not change.
 */
#include "vmm/virtio_vsock.h"

#include <errno.h>
#include <stdlib.h>

#define QUEUES 3
/* A driver fills the whole receive queue with buffers of a page. */
#define QUEUE_SIZE 256

struct virtio_vsock {
	struct vsock_device *device;
	const struct virtio_transport_operations *transport_operations;
	void *transport;
};

static void interrupt(void *context, enum vsock_queue queue)
{
	struct virtio_vsock *vsock = context;

	vsock->transport_operations->interrupt(vsock->transport, queue);
}

static void attach(void *device, const struct virtio_transport_operations *operations,
		   void *transport)
{
	struct virtio_vsock *vsock = device;

	vsock->transport_operations = operations;
	vsock->transport = transport;
}

static uint64_t features(const void *device)
{
	(void)device;
	return VSOCK_DEVICE_FEATURES;
}

static void negotiated(void *device, uint64_t agreed)
{
	/* What was agreed comes with each queue's layout. */
	(void)device;
	(void)agreed;
}

static void read_config(const void *device, size_t offset, uint8_t *output, size_t length)
{
	const struct virtio_vsock *vsock = device;

	vsock_device_read_config(vsock->device, offset, output, length);
}

static int start(void *device, unsigned queue, const struct guest_memory *memory,
		 const struct virtqueue_layout *layout)
{
	struct virtio_vsock *vsock = device;

	if (queue >= VSOCK_QUEUE_COUNT)
		return 0;
	return vsock_device_start_queue(vsock->device, (enum vsock_queue)queue, memory, layout);
}

static void stop(void *device, unsigned queue)
{
	struct virtio_vsock *vsock = device;

	if (queue < VSOCK_QUEUE_COUNT)
		(void)vsock_device_stop_queue(vsock->device, (enum vsock_queue)queue);
}

static void kick(void *device, unsigned queue)
{
	struct virtio_vsock *vsock = device;

	if (queue < VSOCK_QUEUE_COUNT)
		vsock_device_kick(vsock->device, (enum vsock_queue)queue);
}

static int run(void *device)
{
	struct virtio_vsock *vsock = device;
	int r = vsock_device_run(vsock->device);

	if (r < 0)
		vsock->transport_operations->needs_reset(vsock->transport,
							 vsock_device_error(vsock->device));
	return r;
}

/* The event queue's buffers wait where they are. */
static int position(const void *device, unsigned queue, uint16_t *ret_index)
{
	const struct virtio_vsock *vsock = device;

	*ret_index = 0;
	if (queue >= VSOCK_QUEUE_COUNT)
		return 0;
	return vsock_device_position(vsock->device, (enum vsock_queue)queue, ret_index);
}

const struct virtio_device_operations virtio_vsock_operations = {
	.name = "vsock",
	.id = VIRTIO_ID_VSOCK,
	.queue_count = QUEUES,
	.queue_size_max = QUEUE_SIZE,
	.attach = attach,
	.features = features,
	.negotiated = negotiated,
	.read_config = read_config,
	.start = start,
	.stop = stop,
	.kick = kick,
	.run = run,
	.position = position,
};

int virtio_vsock_new(const struct vsock_device_setup *setup, struct virtio_vsock **ret_vsock)
{
	struct vsock_device_setup own = *setup;
	struct virtio_vsock *vsock = calloc(1, sizeof(*vsock));
	int r;

	if (!vsock)
		return -ENOMEM;
	own.interrupt = interrupt;
	own.transport = vsock;
	r = vsock_device_new(&own, &vsock->device);
	if (r < 0) {
		free(vsock);
		return r;
	}
	*ret_vsock = vsock;
	return 0;
}

void virtio_vsock_free(struct virtio_vsock *vsock)
{
	if (!vsock)
		return;
	vsock_device_free(vsock->device);
	free(vsock);
}

struct vsock_device *virtio_vsock_device(struct virtio_vsock *vsock)
{
	return vsock->device;
}
