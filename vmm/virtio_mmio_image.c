#include "vmm/virtio_mmio_registers.h"

#include <string.h>

void virtio_mmio_describe(const struct virtio_device_operations *operations, const void *device,
			  struct virtio_mmio_image *image)
{
	image->features = operations->features(device);
	image->device_id = operations->id;
	image->queue_count = operations->queue_count;
	operations->read_config(device, 0, image->config, sizeof(image->config));
}

bool virtio_mmio_same_device(const struct virtio_mmio_image *one,
			     const struct virtio_mmio_image *other)
{
	return one->device_id == other->device_id && one->queue_count == other->queue_count &&
	       one->features == other->features &&
	       memcmp(one->config, other->config, sizeof(one->config)) == 0;
}

/* A driver goes up by these, and neither gives up nor has to reset. */
static bool status_possible(uint32_t status)
{
	const uint32_t features_ok = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;

	return status == 0 || status == STATUS_ACKNOWLEDGE ||
	       status == (STATUS_ACKNOWLEDGE | STATUS_DRIVER) || status == features_ok ||
	       status == (features_ok | STATUS_DRIVER_OK);
}

static bool queue_possible(const struct virtio_mmio_queue_state *queue, bool exists,
			   uint16_t size_max)
{
	if (queue->size > size_max || (queue->size & (queue->size - 1)) != 0 || queue->ready > 1)
		return false;
	return !queue->ready || (exists && queue->size > 0);
}

bool virtio_mmio_registers_possible(const struct virtio_device_operations *operations,
				    uint64_t offered, const struct virtio_mmio_state *state)
{
	if (!status_possible(state->status))
		return false;
	if ((state->status & STATUS_FEATURES_OK) &&
	    (state->driver_features_beyond != 0 || (state->driver_features & ~offered)))
		return false;
	for (unsigned i = 0; i < VIRTIO_DEVICE_QUEUES_MAX; i++) {
		if (!queue_possible(&state->queues[i], i < operations->queue_count,
				    operations->queue_size_max))
			return false;
	}
	return true;
}
