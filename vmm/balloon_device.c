/*
 * Theory of operation
 *
 * Inflate buffers hold page numbers (le32), which are copied once; runs of neighbours go back to
 * the host with one call. Deflating needs nothing of us: a page comes back, as zeros, when the
 * guest touches it. A reporting buffer is itself the free memory: its writable parts are given back
 * before it is returned as used, and until then the guest does not use them.
 *
 * Whatever the guest names, guest_memory_discard() drops the part that is not its ordinary RAM. A
 * guest which names pages it still uses loses its own data.
 *
 * The two fields of the configuration space are read and written by vCPUs and therefore atomic.
 */
#include "vmm/balloon_device.h"

#include "base/checked.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE 128
#define FEATURE_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define FEATURE_REPORTING (UINT64_C(1) << 5)
#define CONFIG_ACTUAL 4 /* offset */

enum balloon_queue {
	QUEUE_INFLATE = 0,
	QUEUE_DEFLATE = 1,
	QUEUE_REPORTING = 2,
	QUEUE_COUNT = 3,
};

/* The configuration space, as it can be stored beside the queues' states. */
struct balloon_state {
	uint32_t target; /* atomic; pages */
	uint32_t actual; /* atomic; pages */
};
_Static_assert(sizeof(struct balloon_state) == 8, "stored layout");

struct balloon_device {
	const struct virtio_transport_operations *transport_operations;
	void *transport;
	const struct guest_memory *memory;
	struct virtqueue queues[QUEUE_COUNT];
	bool running[QUEUE_COUNT];
	bool kicked[QUEUE_COUNT];
	struct virtqueue_chain chain;
	uint32_t numbers[BALLOON_PAGES_MAX];
	struct balloon_state state;
	uint64_t discarded; /* atomic; bytes */
};

static void attach(void *context, const struct virtio_transport_operations *operations,
		   void *transport)
{
	struct balloon_device *device = context;

	device->transport_operations = operations;
	device->transport = transport;
}

static uint64_t features(const void *context)
{
	(void)context;
	return VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_EVENT_INDEX |
	       VIRTIO_FEATURE_INDIRECT_DESC | FEATURE_DEFLATE_ON_OOM | FEATURE_REPORTING;
}

static void negotiated(void *context, uint64_t agreed)
{
	/* A driver without reporting leaves that queue alone. */
	(void)context;
	(void)agreed;
}

static void read_config(const void *context, size_t offset, uint8_t *output, size_t length)
{
	const struct balloon_device *device = context;
	const uint32_t config[] = {
		htole32(__atomic_load_n(&device->state.target, __ATOMIC_ACQUIRE)),
		htole32(__atomic_load_n(&device->state.actual, __ATOMIC_ACQUIRE)),
	};

	memset(output, 0, length);
	if (offset < sizeof(config))
		memcpy(output, (const uint8_t *)config + offset,
		       MIN_OF(length, sizeof(config) - offset));
}

static void write_config(void *context, size_t offset, const uint8_t *input, size_t length)
{
	struct balloon_device *device = context;
	uint32_t actual;

	if (offset != CONFIG_ACTUAL || length != sizeof(actual))
		return;
	memcpy(&actual, input, sizeof(actual));
	__atomic_store_n(&device->state.actual, le32toh(actual), __ATOMIC_RELEASE);
}

static int start(void *context, unsigned queue, const struct guest_memory *memory,
		 const struct virtqueue_layout *layout)
{
	struct balloon_device *device = context;
	int r = virtqueue_start(&device->queues[queue], memory, layout);

	device->memory = memory;
	device->running[queue] = r == 0;
	return r;
}

static void stop(void *context, unsigned queue)
{
	struct balloon_device *device = context;

	device->running[queue] = false;
}

static void kick(void *context, unsigned queue)
{
	struct balloon_device *device = context;

	device->kicked[queue] = true;
}

static void discard(struct balloon_device *device, uint64_t address, uint64_t length)
{
	uint64_t discarded = guest_memory_discard(device->memory, address, length);

	__atomic_fetch_add(&device->discarded, discarded, __ATOMIC_RELAXED);
}

/* Returns NULL, or what is wrong with the buffer. */
static const char *inflate(struct balloon_device *device)
{
	const struct virtqueue_chain *chain = &device->chain;
	size_t count = chain->readable_length / sizeof(device->numbers[0]);
	size_t first = 0;

	if (chain->writable_count > 0 || chain->readable_length % sizeof(device->numbers[0]) != 0)
		return "inflate buffer that is no list of page numbers";
	if (count > BALLOON_PAGES_MAX)
		return "inflate buffer with too many page numbers";
	(void)iovec_read(chain->parts, chain->readable_count, 0, device->numbers,
			 count * sizeof(device->numbers[0]));
	for (size_t i = 1; i <= count; i++) {
		if (i < count &&
		    le32toh(device->numbers[i]) == (uint64_t)le32toh(device->numbers[i - 1]) + 1)
			continue;
		discard(device, (uint64_t)le32toh(device->numbers[first]) * BALLOON_PAGE_SIZE,
			(uint64_t)(i - first) * BALLOON_PAGE_SIZE);
		first = i;
	}
	return NULL;
}

static const char *report(struct balloon_device *device)
{
	const struct virtqueue_chain *chain = &device->chain;

	if (chain->readable_count > 0)
		return "page report with a readable part";
	for (size_t i = 0; i < chain->writable_count; i++) {
		uint64_t address;

		if (guest_address_of(device->memory, chain->parts[i].iov_base, &address) == 0)
			discard(device, address, chain->parts[i].iov_len);
	}
	return NULL;
}

static const char *handle(struct balloon_device *device, enum balloon_queue index)
{
	switch (index) {
	case QUEUE_INFLATE:
		return inflate(device);
	case QUEUE_REPORTING:
		return report(device);
	case QUEUE_DEFLATE:
	case QUEUE_COUNT:
		break;
	}
	return NULL;
}

/* Returns 1 when some buffers are left, 0, or -EPROTO. */
static int run_queue(struct balloon_device *device, enum balloon_queue index)
{
	struct virtqueue *queue = &device->queues[index];
	int more = 1;

	for (int budget = BALLOON_BUDGET; budget > 0 && more; budget--) {
		int r = virtqueue_pop(queue, &device->chain);
		const char *what = r < 0 ? queue->error : NULL;

		if (r > 0)
			what = handle(device, index);
		if (what) {
			device->transport_operations->needs_reset(device->transport, what);
			return -EPROTO;
		}
		if (r > 0)
			virtqueue_push(queue, device->chain.head, 0);
		else
			more = virtqueue_request_kick(queue);
	}
	device->kicked[index] = more;
	if (virtqueue_publish(queue))
		device->transport_operations->interrupt(device->transport, index);
	return more;
}

static int run(void *context)
{
	struct balloon_device *device = context;
	int more = 0;

	for (enum balloon_queue i = QUEUE_INFLATE; i < QUEUE_COUNT; i++) {
		int r = 0;

		if (device->running[i] && device->kicked[i])
			r = run_queue(device, i);
		if (r < 0)
			return r;
		more |= r;
	}
	return more;
}

/* A balloon with pages in it is not stored. */
static int position(const void *context, unsigned queue, uint16_t *ret_index)
{
	const struct balloon_device *device = context;

	if (balloon_device_actual(device) > 0)
		return -EBUSY;
	return virtqueue_position(&device->queues[queue], ret_index);
}

const struct virtio_device_operations balloon_device_operations = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.queue_count = QUEUE_COUNT,
	.queue_size_max = QUEUE_SIZE,
	.attach = attach,
	.features = features,
	.negotiated = negotiated,
	.read_config = read_config,
	.write_config = write_config,
	.start = start,
	.stop = stop,
	.kick = kick,
	.run = run,
	.position = position,
};

int balloon_device_new(struct balloon_device **ret_device)
{
	struct balloon_device *device = calloc(1, sizeof(*device));

	if (!device)
		return -ENOMEM;
	*ret_device = device;
	return 0;
}

void balloon_device_free(struct balloon_device *device)
{
	free(device);
}

void balloon_device_set_target(struct balloon_device *device, uint32_t pages)
{
	__atomic_store_n(&device->state.target, pages, __ATOMIC_RELEASE);
	device->transport_operations->config_changed(device->transport);
}

uint32_t balloon_device_actual(const struct balloon_device *device)
{
	return __atomic_load_n(&device->state.actual, __ATOMIC_ACQUIRE);
}

uint64_t balloon_device_discarded(const struct balloon_device *device)
{
	return __atomic_load_n(&device->discarded, __ATOMIC_RELAXED);
}

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_madvise),
};
const struct jail_syscall_set balloon_device_calls = JAIL_SET(calls);
