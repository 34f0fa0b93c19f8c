/*
 * The driver's side of virtqueues for tests: guest memory in a memfd and rings that a test fills,
 * honestly by the functions below or otherwise through the raw pointers.
 */
#ifndef TESTS_UNIT_VIRTIO_DRIVER_H
#define TESTS_UNIT_VIRTIO_DRIVER_H

#include "vmm/guest_memory.h"
#include "vmm/virtqueue.h"
#include "vmm/vsock_packet.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DRIVER_GUEST_BASE UINT64_C(0x100000)
#define DRIVER_USER_BASE UINT64_C(0x7f0000000000)
#define DRIVER_MEMORY (4 * 1024 * 1024)
#define DRIVER_GUARD 65536
#define DRIVER_QUEUE_SIZE 64
#define DRIVER_QUEUE_SPACE 0x4000
#define DRIVER_BUFFERS 0x10000 /* where the buffers start */
#define DRIVER_BUFFER_LENGTH 0x4000

#define DRIVER_NEXT 1
#define DRIVER_WRITE 2
#define DRIVER_INDIRECT 4

struct driver_descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags;
	uint16_t next;
};

struct driver_used {
	uint32_t id;
	uint32_t length;
};

struct driver_queue {
	uint64_t base; /* offset of the descriptor table in memory */
	struct driver_descriptor *descriptors;
	uint16_t *available; /* flags, index, ring, used_event */
	uint16_t *used;	     /* flags, index, ... */
	struct driver_used *used_ring;
	uint16_t seen; /* used entries taken */
	uint16_t next_descriptor;
};

struct driver {
	int fd;
	uint8_t *bytes;
	struct guest_memory memory;
	struct driver_queue queues[2];
};

static inline int driver_memory_file(size_t length)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)length) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		abort();
	return fd;
}

static inline void driver_init(struct driver *driver)
{
	memset(driver, 0, sizeof(*driver));
	driver->fd = driver_memory_file(DRIVER_MEMORY);
	/* The kernel maps downwards: the space without access in front of this mapping ends up
	 * behind the device's, so that an access past guest memory faults. */
	driver->bytes = mmap(NULL, DRIVER_MEMORY + DRIVER_GUARD, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (driver->bytes == MAP_FAILED)
		abort();
	driver->bytes = mmap(driver->bytes + DRIVER_GUARD, DRIVER_MEMORY, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED, driver->fd, 0);
	if (driver->bytes == MAP_FAILED ||
	    guest_memory_map(&driver->memory, driver->fd, 0, DRIVER_GUEST_BASE, DRIVER_USER_BASE,
			     DRIVER_MEMORY) < 0)
		abort();
	for (size_t i = 0; i < 2; i++) {
		struct driver_queue *queue = &driver->queues[i];

		queue->base = i * DRIVER_QUEUE_SPACE;
		queue->descriptors = (void *)(driver->bytes + queue->base);
		queue->available = (void *)(driver->bytes + queue->base + 0x1000);
		queue->used = (void *)(driver->bytes + queue->base + 0x2000);
		queue->used_ring = (void *)(driver->bytes + queue->base + 0x2004);
	}
}

static inline void driver_release(struct driver *driver)
{
	guest_memory_release(&driver->memory);
	munmap(driver->bytes - DRIVER_GUARD, DRIVER_MEMORY + DRIVER_GUARD);
	close(driver->fd);
}

static inline struct virtqueue_layout driver_layout(const struct driver *driver, size_t index)
{
	uint64_t base = DRIVER_GUEST_BASE + driver->queues[index].base;

	return (struct virtqueue_layout){
		.descriptors = base,
		.available = base + 0x1000,
		.used = base + 0x2000,
		.size = DRIVER_QUEUE_SIZE,
		.event_index = true,
	};
}

/* Guest address of the buffer that belongs to descriptor `index` of a queue. */
static inline uint64_t driver_buffer(size_t queue, uint16_t index)
{
	return DRIVER_GUEST_BASE + DRIVER_BUFFERS +
	       (queue * DRIVER_QUEUE_SIZE + index) * DRIVER_BUFFER_LENGTH;
}

static inline uint8_t *driver_bytes(struct driver *driver, uint64_t guest_address)
{
	return driver->bytes + (guest_address - DRIVER_GUEST_BASE);
}

static inline void driver_set(struct driver *driver, size_t queue, uint16_t index, uint64_t address,
			      uint32_t length, uint16_t flags, uint16_t next)
{
	driver->queues[queue].descriptors[index] =
		(struct driver_descriptor){ address, length, flags, next };
}

/* Makes the chain starting at `head` available. */
static inline void driver_offer(struct driver *driver, size_t queue, uint16_t head)
{
	uint16_t *available = driver->queues[queue].available;

	available[2 + available[1] % DRIVER_QUEUE_SIZE] = head;
	__atomic_store_n(&available[1], (uint16_t)(available[1] + 1), __ATOMIC_RELEASE);
}

/* Offers a receive buffer of `length` bytes. */
static inline void driver_offer_buffer(struct driver *driver, uint32_t length)
{
	uint16_t index = driver->queues[0].next_descriptor++ % DRIVER_QUEUE_SIZE;

	driver_set(driver, 0, index, driver_buffer(0, index), length, DRIVER_WRITE, 0);
	driver_offer(driver, 0, index);
}

/* Sends a packet as one descriptor. */
static inline void driver_send(struct driver *driver, const struct vsock_header *header,
			       const void *payload, size_t length)
{
	uint16_t index = driver->queues[1].next_descriptor++ % DRIVER_QUEUE_SIZE;
	uint64_t address = driver_buffer(1, index);
	uint8_t bytes[VSOCK_HEADER_LENGTH];

	vsock_header_encode(header, bytes);
	memcpy(driver_bytes(driver, address), bytes, sizeof(bytes));
	if (length > 0)
		memcpy(driver_bytes(driver, address) + sizeof(bytes), payload, length);
	driver_set(driver, 1, index, address, (uint32_t)(sizeof(bytes) + length), 0, 0);
	driver_offer(driver, 1, index);
}

/* The same as a chain of `count` descriptors in as many buffers: one ends at each of the offsets in
 * `cuts`, which count from the packet's start and rise, and the last at the packet's end. */
static inline void driver_send_cut(struct driver *driver, const struct vsock_header *header,
				   const void *payload, size_t length, const size_t *cuts,
				   size_t count)
{
	struct driver_queue *queue = &driver->queues[1];
	uint16_t head = queue->next_descriptor % DRIVER_QUEUE_SIZE;
	uint8_t bytes[DRIVER_BUFFER_LENGTH];
	size_t start = 0;

	if (length > sizeof(bytes) - VSOCK_HEADER_LENGTH)
		abort();
	vsock_header_encode(header, bytes);
	memcpy(bytes + VSOCK_HEADER_LENGTH, payload, length);
	for (size_t i = 0; i < count; i++) {
		uint16_t index = queue->next_descriptor++ % DRIVER_QUEUE_SIZE;
		bool last = i + 1 == count;
		size_t end = last ? VSOCK_HEADER_LENGTH + length : cuts[i];
		uint64_t address = driver_buffer(1, index);

		memcpy(driver_bytes(driver, address), bytes + start, end - start);
		driver_set(driver, 1, index, address, (uint32_t)(end - start),
			   last ? 0 : DRIVER_NEXT, queue->next_descriptor % DRIVER_QUEUE_SIZE);
		start = end;
	}
	driver_offer(driver, 1, head);
}

/* Takes the next packet that the device sent. False when there is none. */
static inline bool driver_receive(struct driver *driver, struct vsock_header *ret_header,
				  const uint8_t **ret_payload)
{
	struct driver_queue *queue = &driver->queues[0];
	struct driver_used *used = &queue->used_ring[queue->seen % DRIVER_QUEUE_SIZE];
	const uint8_t *bytes;

	if (__atomic_load_n(&queue->used[1], __ATOMIC_ACQUIRE) == queue->seen)
		return false;
	bytes = driver_bytes(driver, queue->descriptors[used->id % DRIVER_QUEUE_SIZE].address);
	vsock_header_decode(bytes, ret_header);
	if (ret_header->length + VSOCK_HEADER_LENGTH != used->length)
		abort();
	*ret_payload = bytes + VSOCK_HEADER_LENGTH;
	queue->seen++;
	return true;
}

#endif
