/*
 * A driver which fills descriptors, indirect tables and the available ring with what the input
 * says, against the queue alone: what is popped must lie in guest memory, the readable parts first,
 * and add up.
 *
 * Input: u8 flags (bit 0: event index, bit 1: indirect), u16 where the ring begins, then
 * operations, one byte each (modulo their number), with their operands; see step().
 */
#include "base/bytes.h"
#include "tests/unit/virtio_driver.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 500
#define TABLES                                                                                     \
	8 /* indirect ones, of DRIVER_QUEUE_SIZE descriptors each; the last ends guest memory */
#define TABLE_LENGTH (DRIVER_QUEUE_SIZE * sizeof(struct driver_descriptor))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct driver driver;
static struct virtqueue queue;
static struct virtqueue_chain chain;

static void require(bool condition)
{
	if (!condition)
		abort();
}

static uint64_t table_address(uint8_t which)
{
	return DRIVER_GUEST_BASE + DRIVER_MEMORY - (TABLES - which % TABLES) * TABLE_LENGTH;
}

/* Mostly one of a table's, or just behind it. */
static uint16_t descriptor_index(struct byte_reader *input)
{
	uint8_t index = byte_reader_u8(input);

	return index < 0xf0 ? index % (DRIVER_QUEUE_SIZE + 2) : (uint16_t)(index << 8);
}

/* A descriptor, of the queue's own table or of an indirect one, that may name one of those. */
static void set_descriptor(struct byte_reader *input)
{
	uint8_t table = byte_reader_u8(input);
	uint8_t index = byte_reader_u8(input) % DRIVER_QUEUE_SIZE;
	struct driver_descriptor *target = &driver.queues[0].descriptors[index];
	struct driver_descriptor descriptor;

	descriptor.flags = byte_reader_u8(input) & 7;
	descriptor.next = descriptor_index(input);
	descriptor.address = byte_reader_u32(input) % (2 * DRIVER_MEMORY);
	descriptor.length = byte_reader_u32(input);
	if (descriptor.flags & DRIVER_INDIRECT)
		descriptor.address += table_address(table >> 4);
	else
		descriptor.address += DRIVER_GUEST_BASE;
	if (table & 8)
		target = (void *)(driver_bytes(&driver, table_address(table)) +
				  index * sizeof(descriptor));
	*target = descriptor;
}

/* Reads and writes every part, as a device would. */
static void use_parts(void)
{
	const struct guest_region *region = &driver.memory.regions[0];
	uint64_t lengths[2] = { 0 };
	size_t count = chain.readable_count + chain.writable_count;

	require(count > 0 && count <= VIRTQUEUE_CHAIN_MAX);
	for (size_t i = 0; i < count; i++) {
		const struct iovec *part = &chain.parts[i];
		uint8_t *bytes = part->iov_base;

		require(bytes >= region->host && part->iov_len > 0 &&
			(size_t)(bytes - region->host) < region->length &&
			part->iov_len <= region->length - (size_t)(bytes - region->host));
		lengths[i >= chain.readable_count] += part->iov_len;
		if (i >= chain.readable_count)
			bytes[part->iov_len - 1] ^= bytes[0];
	}
	require(lengths[0] == chain.readable_length && lengths[1] == chain.writable_length);
}

/* Returns false once the queue is broken, as it should be by some of these. */
static bool step(struct byte_reader *input)
{
	int r;

	switch (byte_reader_u8(input) % 6) {
	case 0:
		set_descriptor(input);
		break;
	case 1:
		driver_offer(&driver, 0, descriptor_index(input));
		break;
	case 2:
		driver.queues[0].available[1] = byte_reader_u16(input);
		break;
	case 3:
		(void)virtqueue_request_kick(&queue);
		break;
	case 4:
		virtqueue_suppress_kick(&queue);
		break;
	default:
		r = virtqueue_pop(&queue, &chain);
		if (r < 0)
			return false;
		if (r > 0) {
			use_parts();
			virtqueue_push(&queue, chain.head, (uint32_t)chain.writable_length);
			(void)virtqueue_publish(&queue);
		}
		break;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtqueue_layout layout;
	struct byte_reader input;
	uint8_t flags;

	if (!driver.bytes)
		driver_init(&driver);
	memset(driver.bytes, 0, DRIVER_QUEUE_SPACE);
	memset(driver_bytes(&driver, table_address(0)), 0, TABLES * TABLE_LENGTH);
	byte_reader_init(&input, data, size);
	flags = byte_reader_u8(&input);
	layout = driver_layout(&driver, 0);
	layout.event_index = flags & 1;
	layout.indirect = flags & 2;
	layout.next_available = byte_reader_u16(&input);
	driver.queues[0].available[1] = layout.next_available;
	require(virtqueue_start(&queue, &driver.memory, &layout) == 0);
	for (int i = 0; i < STEPS_MAX && byte_reader_remaining(&input) > 0; i++) {
		if (!step(&input)) {
			require(queue.error && virtqueue_pop(&queue, &chain) < 0);
			break;
		}
	}
	return 0;
}
