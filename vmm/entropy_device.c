/*
 * Theory of operation
 *
 * One queue of buffers that the device fills. getrandom() writes straight into guest memory: the
 * guest may change it meanwhile, which is its own loss. It cannot make us wait, since the host's
 * generator was seeded long before a guest runs.
 */
#include "vmm/entropy_device.h"

#include "base/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define QUEUE_SIZE 64

struct entropy_device {
	const struct virtio_transport_operations *transport_operations;
	void *transport;
	struct virtqueue queue;
	struct virtqueue_chain chain;
	bool running;
	bool kicked;
};

static void attach(void *context, const struct virtio_transport_operations *operations,
		   void *transport)
{
	struct entropy_device *device = context;

	device->transport_operations = operations;
	device->transport = transport;
}

static uint64_t features(const void *context)
{
	(void)context;
	return VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_EVENT_INDEX | VIRTIO_FEATURE_INDIRECT_DESC;
}

static void negotiated(void *context, uint64_t agreed)
{
	/* What was agreed comes with the queue's layout. */
	(void)context;
	(void)agreed;
}

static void read_config(const void *context, size_t offset, uint8_t *output, size_t length)
{
	(void)context;
	(void)offset;
	memset(output, 0, length);
}

static int start(void *context, unsigned queue, const struct guest_memory *memory,
		 const struct virtqueue_layout *layout)
{
	struct entropy_device *device = context;
	int r = virtqueue_start(&device->queue, memory, layout);

	(void)queue;
	device->running = r == 0;
	return r;
}

static void stop(void *context, unsigned queue)
{
	struct entropy_device *device = context;

	(void)queue;
	device->running = false;
}

static void kick(void *context, unsigned queue)
{
	struct entropy_device *device = context;

	(void)queue;
	device->kicked = true;
}

/* Returns the number of bytes filled, or a negative errno. */
static ssize_t fill(const struct virtqueue_chain *chain)
{
	size_t left = ENTROPY_REQUEST_MAX, filled = 0;

	for (size_t i = 0; i < chain->writable_count && left > 0; i++) {
		uint8_t *base = chain->parts[i].iov_base;
		size_t length = MIN_OF(chain->parts[i].iov_len, left);

		for (size_t done = 0; done < length;) {
			ssize_t count = getrandom(base + done, length - done, 0);

			if (count < 0 && errno == EINTR)
				continue;
			if (count < 0)
				return -errno;
			done += (size_t)count;
		}
		left -= length;
		filled += length;
	}
	return (ssize_t)filled;
}

static int fail(struct entropy_device *device, const char *what)
{
	device->transport_operations->needs_reset(device->transport, what);
	return -EPROTO;
}

/* Returns 1 when some buffers are left, 0, or -EPROTO. */
static int fill_buffers(struct entropy_device *device)
{
	for (int budget = ENTROPY_BUDGET; budget > 0; budget--) {
		ssize_t filled;
		int r = virtqueue_pop(&device->queue, &device->chain);

		if (r < 0)
			return fail(device, device->queue.error);
		if (r == 0) {
			device->kicked = virtqueue_request_kick(&device->queue);
			return device->kicked;
		}
		if (device->chain.readable_count > 0)
			return fail(device, "entropy buffer with a readable part");
		filled = fill(&device->chain);
		if (filled < 0)
			return fail(device, "the host gave no random bytes");
		virtqueue_push(&device->queue, device->chain.head, (uint32_t)filled);
	}
	return 1;
}

static int run(void *context)
{
	struct entropy_device *device = context;
	int r;

	if (!device->running || !device->kicked)
		return 0;
	r = fill_buffers(device);
	if (r >= 0 && virtqueue_publish(&device->queue))
		device->transport_operations->interrupt(device->transport, 0);
	return r;
}

static int position(const void *context, unsigned queue, uint16_t *ret_index)
{
	const struct entropy_device *device = context;

	(void)queue;
	return virtqueue_position(&device->queue, ret_index);
}

const struct virtio_device_operations entropy_device_operations = {
	.name = "entropy",
	.id = VIRTIO_ID_ENTROPY,
	.queue_count = 1,
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

int entropy_device_new(struct entropy_device **ret_device)
{
	struct entropy_device *device = calloc(1, sizeof(*device));

	if (!device)
		return -ENOMEM;
	*ret_device = device;
	return 0;
}

void entropy_device_free(struct entropy_device *device)
{
	free(device);
}

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_getrandom),
};
const struct jail_syscall_set entropy_device_calls = JAIL_SET(calls);
