/*
 * Theory of operation
 *
 * A request takes a slot from the moment when its chain is popped until its status is written. The
 * kernel reads and writes guest memory directly, by the list of parts in the slot. A slot has at
 * most one operation in the ring: one read, write or sync; or of a discard one segment after the
 * other, and for a driver that does not flush a sync behind them. A short read or write goes on
 * where it ended.
 *
 * A turn reaps completions, pops chains while there are free slots, submits all new operations by
 * one call, reaps what was answered from the page cache at once, and publishes. Without a free slot
 * the queue waits; a completion wakes the loop through the ring's eventfd (edge-triggered, never
 * read).
 *
 * Besides its queue's there is no state to be stored: requests end before, and the configuration
 * space does not change.
 *
 * stop() asks the kernel to cancel what has not begun and waits for the rest, since a write that
 * runs cannot be called back. Afterwards the kernel has no address in guest memory any more.
 */
#include "vmm/block_device.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "vmm/block_request.h"
#include "vmm/block_ring.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUEUE_SIZE 128
#define RETRIES_MAX 16 /* of an operation that the kernel answers with "again" */

#define FEATURE_SIZE_MAX (UINT64_C(1) << 1)
#define FEATURE_SEG_MAX (UINT64_C(1) << 2)
#define FEATURE_RO (UINT64_C(1) << 5)
#define FEATURE_BLK_SIZE (UINT64_C(1) << 6)
#define FEATURE_FLUSH (UINT64_C(1) << 9)
#define FEATURE_DISCARD (UINT64_C(1) << 13)
#define FEATURE_WRITE_ZEROES (UINT64_C(1) << 14)

/* Virtio 1.2, section 5.2.4. */
struct block_config {
	uint64_t capacity; /* sectors */
	uint32_t size_max;
	uint32_t seg_max;
	uint8_t geometry[4];
	uint32_t blk_size;
	uint8_t topology[8];
	uint8_t writeback;
	uint8_t unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
};
_Static_assert(sizeof(struct block_config) == 64, "virtio 1.2, 5.2.4: 60 bytes and padding");

struct slot {
	struct block_request request;
	struct iovec rest[VIRTQUEUE_CHAIN_MAX]; /* of the parts, after a short transfer */
	uint64_t done;				/* bytes */
	size_t segment;
	unsigned retries;
	bool punch; /* the file cannot zero a range otherwise */
	struct slot *next_free;
};

struct block_device {
	struct event_source completion; /* first */
	const struct virtio_transport_operations *transport_operations;
	void *transport;
	struct event_loop *loop;
	struct io_uring ring;
	struct virtqueue queue;
	struct virtqueue_chain chain;
	bool running;
	bool kicked;
	bool synchronous; /* the driver does not flush */
	struct block_limits limits;
	char serial[BLOCK_SERIAL_LENGTH];
	unsigned in_flight;
	struct slot *free_slots;
	struct slot slots[BLOCK_REQUESTS_MAX];
};

/* ---- slots -------------------------------------------------------------------------------------
 */

static void release_slot(struct block_device *device, struct slot *slot)
{
	slot->next_free = device->free_slots;
	device->free_slots = slot;
}

static void answer(struct block_device *device, const struct slot *slot, enum block_status status,
		   uint64_t written)
{
	*slot->request.status = (uint8_t)status;
	virtqueue_push(&device->queue, slot->request.head, (uint32_t)written + 1);
}

static bool is_past_segments(const struct slot *slot)
{
	return slot->segment >= slot->request.segment_count;
}

static int zeroing_mode(const struct slot *slot)
{
	const struct block_segment *segment = &slot->request.segments[slot->segment];

	if (slot->request.type == BLOCK_DISCARD || segment->unmap || slot->punch)
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

/* Puts the slot's next operation into the ring. */
static void submit(struct block_device *device, struct slot *slot)
{
	const struct block_request *request = &slot->request;
	const struct block_segment *segment = &request->segments[slot->segment];
	struct io_uring_sqe *entry = block_ring_entry(&device->ring);
	unsigned count;

	switch (request->type) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		count = (unsigned)iovec_slice(request->parts, request->part_count, slot->done,
					      request->length - slot->done, slot->rest);
		if (request->type == BLOCK_READ)
			io_uring_prep_readv(entry, 0, slot->rest, count,
					    segment->offset + slot->done);
		else
			io_uring_prep_writev(entry, 0, slot->rest, count,
					     segment->offset + slot->done);
		if (request->type == BLOCK_WRITE && device->synchronous)
			entry->rw_flags = RWF_DSYNC;
		break;
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		if (is_past_segments(slot))
			io_uring_prep_fsync(entry, 0, IORING_FSYNC_DATASYNC);
		else
			io_uring_prep_fallocate(entry, 0, zeroing_mode(slot),
						(off_t)segment->offset, (off_t)segment->length);
		break;
	case BLOCK_FLUSH:
	case BLOCK_GET_ID: /* has no operation */
		io_uring_prep_fsync(entry, 0, IORING_FSYNC_DATASYNC);
		break;
	}
	entry->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(entry, slot);
	device->in_flight++;
}

/* Judges an operation that did not fail. Returns whether the request is done. */
static bool advance(const struct block_device *device, struct slot *slot, int result,
		    enum block_status *ret_status)
{
	*ret_status = BLOCK_OK;
	switch (slot->request.type) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		slot->done += (uint64_t)result;
		if (result == 0) /* the file has shrunk, or its file system is full */
			*ret_status = BLOCK_IO_ERROR;
		return result == 0 || slot->done >= slot->request.length;
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		if (is_past_segments(slot))
			return true;
		slot->segment++;
		return is_past_segments(slot) && !device->synchronous;
	case BLOCK_FLUSH:
	case BLOCK_GET_ID:
		break;
	}
	return true;
}

/* The same for one that failed. */
static bool forgive(struct slot *slot, int result, enum block_status *ret_status)
{
	*ret_status = result == -EOPNOTSUPP ? BLOCK_UNSUPPORTED : BLOCK_IO_ERROR;
	if ((result == -EAGAIN || result == -EINTR) && slot->retries++ < RETRIES_MAX)
		return false;
	if (result == -EOPNOTSUPP && slot->request.type == BLOCK_WRITE_ZEROES && !slot->punch &&
	    !is_past_segments(slot) && !slot->request.segments[slot->segment].unmap) {
		/* tmpfs knows holes alone; they read as zeros as well. */
		slot->punch = true;
		return false;
	}
	return true;
}

static void complete(struct block_device *device, struct slot *slot, int result)
{
	enum block_status status;
	bool done = result < 0 ? forgive(slot, result, &status)
			       : advance(device, slot, result, &status);

	device->in_flight--;
	if (!device->running) {
		release_slot(device, slot);
	} else if (!done) {
		submit(device, slot);
	} else {
		answer(device, slot, status, slot->request.type == BLOCK_READ ? slot->done : 0);
		release_slot(device, slot);
	}
}

static void reap(struct block_device *device)
{
	struct io_uring_cqe *completion;

	while (io_uring_peek_cqe(&device->ring, &completion) == 0) {
		struct slot *slot = io_uring_cqe_get_data(completion);
		int result = completion->res;

		io_uring_cqe_seen(&device->ring, completion);
		if (slot)
			complete(device, slot, result);
	}
}

/* Hands what is queued to the kernel. What it does not take now, it takes at the next turn. */
static void flush_ring(struct block_device *device)
{
	if (io_uring_sq_ready(&device->ring) > 0)
		(void)io_uring_submit(&device->ring);
}

/* ---- the queue ---------------------------------------------------------------------------------
 */

static int fail(struct block_device *device, const char *what)
{
	device->transport_operations->needs_reset(device->transport, what);
	return -EPROTO;
}

static void begin(struct block_device *device, struct slot *slot)
{
	const struct block_request *request = &slot->request;

	slot->done = 0;
	slot->segment = 0;
	slot->retries = 0;
	slot->punch = false;
	if (request->type == BLOCK_GET_ID) {
		(void)iovec_write(request->parts, request->part_count, 0, device->serial,
				  request->length);
		answer(device, slot, BLOCK_OK, request->length);
		release_slot(device, slot);
		return;
	}
	submit(device, slot);
}

/* Takes chains while there are slots. Returns 1 when chains may be left that could be taken at
 * once, 0, or -EPROTO. */
static int take_requests(struct block_device *device)
{
	for (int budget = BLOCK_REQUESTS_MAX; budget > 0 && device->free_slots; budget--) {
		struct slot *slot = device->free_slots;
		const char *what = NULL;
		int r = virtqueue_pop(&device->queue, &device->chain);

		if (r < 0)
			return fail(device, device->queue.error);
		if (r == 0) {
			device->kicked = virtqueue_request_kick(&device->queue);
			return device->kicked;
		}
		device->free_slots = slot->next_free;
		r = block_request_parse(&device->limits, &device->chain, &slot->request, &what);
		if (r == BLOCK_OK) {
			begin(device, slot);
			continue;
		}
		if (r > 0)
			answer(device, slot, (enum block_status)r, 0);
		release_slot(device, slot);
		if (r < 0)
			return fail(device, what);
	}
	return device->free_slots != NULL;
}

static int run(void *context)
{
	struct block_device *device = context;
	int r = 0;

	if (!device->running)
		return 0;
	reap(device);
	if (device->kicked)
		r = take_requests(device);
	flush_ring(device);
	reap(device);
	flush_ring(device);
	if (r < 0)
		return r;
	if (virtqueue_publish(&device->queue))
		device->transport_operations->interrupt(device->transport, 0);
	/* What was answered at once made room again; what the kernel would not take must be offered
	 * again, although nothing will wake us for it. */
	return r || (device->kicked && device->free_slots) || io_uring_sq_ready(&device->ring) > 0;
}

/* ---- what the transport asks -------------------------------------------------------------------
 */

static void attach(void *context, const struct virtio_transport_operations *operations,
		   void *transport)
{
	struct block_device *device = context;

	device->transport_operations = operations;
	device->transport = transport;
}

static uint64_t features(const void *context)
{
	const struct block_device *device = context;
	uint64_t bits = VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_EVENT_INDEX |
			VIRTIO_FEATURE_INDIRECT_DESC | FEATURE_SIZE_MAX | FEATURE_SEG_MAX |
			FEATURE_BLK_SIZE | FEATURE_FLUSH;

	return bits |
	       (device->limits.read_only ? FEATURE_RO : FEATURE_DISCARD | FEATURE_WRITE_ZEROES);
}

static void negotiated(void *context, uint64_t agreed)
{
	struct block_device *device = context;

	device->synchronous = !(agreed & FEATURE_FLUSH);
}

static void read_config(const void *context, size_t offset, uint8_t *output, size_t length)
{
	const struct block_device *device = context;
	struct block_config config = {
		.capacity = htole64(device->limits.capacity / BLOCK_SECTOR),
		.size_max = htole32(BLOCK_PART_MAX),
		.seg_max = htole32(BLOCK_PARTS_MAX),
		.blk_size = htole32(BLOCK_SECTOR),
		.num_queues = htole16(1),
	};

	if (!device->limits.read_only) {
		config.max_discard_sectors = htole32(BLOCK_SEGMENT_SECTORS_MAX);
		config.max_discard_seg = htole32(BLOCK_SEGMENTS_MAX);
		config.discard_sector_alignment = htole32(4096 / BLOCK_SECTOR);
		config.max_write_zeroes_sectors = htole32(BLOCK_SEGMENT_SECTORS_MAX);
		config.max_write_zeroes_seg = htole32(BLOCK_SEGMENTS_MAX);
		config.write_zeroes_may_unmap = 1;
	}
	memset(output, 0, length);
	if (offset < sizeof(config))
		memcpy(output, (const uint8_t *)&config + offset,
		       MIN_OF(length, sizeof(config) - offset));
}

static int start(void *context, unsigned queue, const struct guest_memory *memory,
		 const struct virtqueue_layout *layout)
{
	struct block_device *device = context;
	int r = virtqueue_start(&device->queue, memory, layout);

	(void)queue;
	device->running = r == 0;
	return r;
}

/* Drops completions until nothing is in flight. */
static void drain(struct block_device *device)
{
	struct io_uring_cqe *completion;
	struct io_uring_sqe *entry = block_ring_entry(&device->ring);

	/* Kernels before 5.19 refuse this, and then all of it is waited for. */
	io_uring_prep_cancel64(entry, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
	entry->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(entry, NULL);
	while (device->in_flight > 0) {
		int r = io_uring_submit_and_wait(&device->ring, 1);

		/* To go on would leave the kernel writing to the guest's memory behind its back. */
		if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
			abort();
		while (io_uring_peek_cqe(&device->ring, &completion) == 0) {
			struct slot *slot = io_uring_cqe_get_data(completion);

			io_uring_cqe_seen(&device->ring, completion);
			if (slot)
				complete(device, slot, 0);
		}
	}
}

static void stop(void *context, unsigned queue)
{
	struct block_device *device = context;

	(void)queue;
	device->running = false;
	device->kicked = false;
	if (device->in_flight > 0)
		drain(device);
}

static void kick(void *context, unsigned queue)
{
	struct block_device *device = context;

	(void)queue;
	device->kicked = true;
}

const struct virtio_device_operations block_device_operations = {
	.name = "block",
	.id = VIRTIO_ID_BLOCK,
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
};

/* ---- life --------------------------------------------------------------------------------------
 */

/* The loop runs the device after every event; there is nothing more to do here. */
static void completed(struct event_source *source, uint32_t events)
{
	(void)source;
	(void)events;
}

static int check_file(const struct block_device_setup *setup, uint64_t *ret_capacity)
{
	int flags = fcntl(setup->fd, F_GETFL);
	struct stat file;

	if (flags < 0 || fstat(setup->fd, &file) < 0)
		return -errno;
	/* Direct access would ask for alignment of the guest; appending ignores offsets. */
	if (!S_ISREG(file.st_mode) || (flags & (O_APPEND | O_DIRECT | O_PATH)))
		return -EINVAL;
	if ((flags & O_ACCMODE) != O_RDWR && (!setup->read_only || (flags & O_ACCMODE) != O_RDONLY))
		return -EACCES;
	*ret_capacity = (uint64_t)file.st_size / BLOCK_SECTOR * BLOCK_SECTOR;
	return 0;
}

int block_device_new(const struct block_device_setup *setup, struct block_device **ret_device)
{
	cleanup_free struct block_device *device = calloc(1, sizeof(*device));
	cleanup_fd int completion_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r;

	if (!device)
		return -ENOMEM;
	if (completion_fd < 0)
		return -errno;
	r = check_file(setup, &device->limits.capacity);
	if (r < 0)
		return r;
	device->limits.read_only = setup->read_only;
	/* Not a string: the standard ends it with a zero only if it is shorter. */
	memcpy(device->serial, setup->serial, strnlen(setup->serial, sizeof(device->serial)));
	for (size_t i = 0; i < BLOCK_REQUESTS_MAX; i++)
		release_slot(device, &device->slots[i]);
	r = block_ring_open(&device->ring, BLOCK_REQUESTS_MAX, setup->fd, setup->read_only,
			    completion_fd);
	if (r < 0)
		return r;
	device->loop = setup->loop;
	device->completion.fd = completion_fd;
	device->completion.ready = completed;
	r = event_loop_add(setup->loop, &device->completion, EPOLLIN | EPOLLET);
	if (r < 0) {
		block_ring_close(&device->ring);
		return r;
	}
	(void)steal_fd(&completion_fd);
	*ret_device = steal_pointer(&device);
	return 0;
}

void block_device_free(struct block_device *device)
{
	if (!device)
		return;
	event_loop_remove(device->loop, &device->completion);
	block_ring_close(&device->ring);
	close(device->completion.fd);
	free(device);
}

unsigned block_device_in_flight(const struct block_device *device)
{
	return device->in_flight;
}

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_io_uring_enter),
	JAIL_CALL(SYS_epoll_ctl),
};
const struct jail_syscall_set block_device_calls = JAIL_SET(calls);
