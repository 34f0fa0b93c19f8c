/*
 * A driver which makes block requests of the input, honest and otherwise; each that is accepted is
 * carried out on a disk in the heap, so that an access beyond disk or guest memory is noticed.
 *
 * Input: u8 flags (bit 0: read-only), u16 sectors of the disk, then requests: u8 number of parts,
 * u32 type, u64 sector, and for each part u8 kind, u32 address, u16 length; see make_request().
 */
#include "base/bytes.h"
#include "tests/unit/virtio_driver.h"
#include "vmm/block_request.h"

#include <stdlib.h>
#include <string.h>

#define REQUESTS_MAX 32
#define SECTORS_MAX 2048
#define PART_READABLE_HEADER 1 /* kinds of parts, by bits */
#define PART_LONG 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct driver driver;
static struct virtqueue queue;
static struct virtqueue_chain chain;
static struct block_request request;

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void require_guest_memory(const void *base, size_t length)
{
	const struct guest_region *region = &driver.memory.regions[0];
	uint64_t offset = (uintptr_t)base - (uintptr_t)region->host;

	require((uintptr_t)base >= (uintptr_t)region->host && offset < region->length &&
		length > 0 && length <= region->length - offset);
}

static void transfer(uint8_t *disk)
{
	uint8_t *bytes = disk + request.segments[0].offset;
	uint64_t total = 0;

	require(request.segment_count == 1 && request.segments[0].length == request.length);
	for (size_t i = 0; i < request.part_count; i++) {
		const struct iovec *part = &request.parts[i];

		require_guest_memory(part->iov_base, part->iov_len);
		if (request.type == BLOCK_READ)
			memcpy(part->iov_base, bytes + total, part->iov_len);
		else
			memcpy(bytes + total, part->iov_base, part->iov_len);
		total += part->iov_len;
	}
	require(total == request.length);
}

static void carry_out(const struct block_limits *limits, uint8_t *disk)
{
	bool changes = true;

	switch (request.type) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		changes = request.type == BLOCK_WRITE;
		transfer(disk);
		break;
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		require(request.segment_count > 0);
		for (size_t i = 0; i < request.segment_count; i++)
			memset(disk + request.segments[i].offset, 0, request.segments[i].length);
		break;
	case BLOCK_FLUSH:
	case BLOCK_GET_ID:
		changes = false;
		require(request.length <= BLOCK_SERIAL_LENGTH && request.segment_count == 0);
		(void)iovec_write(request.parts, request.part_count, 0, "12345678901234567890",
				  request.length);
		break;
	}
	require(!changes || !limits->read_only);
	*request.status = BLOCK_OK;
}

/* One chain: the header's bytes stand where the first part is, if that says so. */
static void make_request(struct byte_reader *input, uint16_t *first)
{
	uint8_t count = byte_reader_u8(input) % 36;
	uint32_t type = byte_reader_u32(input);
	uint64_t sector = byte_reader_u64(input);
	uint16_t head = *first % DRIVER_QUEUE_SIZE;

	for (uint8_t i = 0; i < count; i++) {
		uint16_t index = (*first)++ % DRIVER_QUEUE_SIZE;
		uint8_t kind = byte_reader_u8(input);
		uint64_t address =
			DRIVER_GUEST_BASE + byte_reader_u32(input) % (DRIVER_MEMORY + 0x1000);
		uint32_t length = byte_reader_u16(input);
		uint16_t flags = (uint16_t)((kind & 2) | (i + 1 < count ? DRIVER_NEXT : 0));

		if (kind & PART_LONG)
			length <<= 9;
		if ((kind & PART_READABLE_HEADER) &&
		    address + 16 <= DRIVER_GUEST_BASE + DRIVER_MEMORY &&
		    address >= DRIVER_GUEST_BASE + DRIVER_BUFFERS) {
			memcpy(driver_bytes(&driver, address), &type, sizeof(type));
			memcpy(driver_bytes(&driver, address) + 8, &sector, sizeof(sector));
		}
		driver_set(&driver, 0, index, address, length, flags, *first % DRIVER_QUEUE_SIZE);
	}
	/* What follows is the payload of discards, for a part that lies there. */
	if (count & 1) {
		const uint8_t *bytes = byte_reader_bytes(input, 32);

		if (bytes)
			memcpy(driver_bytes(&driver, DRIVER_GUEST_BASE + 0x20010), bytes, 32);
	}
	driver_offer(&driver, 0, head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtqueue_layout layout;
	struct block_limits limits;
	struct byte_reader input;
	const char *what = NULL;
	uint16_t first = 0;
	uint8_t *disk;

	if (!driver.bytes)
		driver_init(&driver);
	memset(driver.bytes, 0, DRIVER_QUEUE_SPACE);
	byte_reader_init(&input, data, size);
	limits.read_only = byte_reader_u8(&input) & 1;
	limits.capacity = (uint64_t)byte_reader_u16(&input) % SECTORS_MAX * BLOCK_SECTOR;
	layout = driver_layout(&driver, 0);
	if (virtqueue_start(&queue, &driver.memory, &layout) < 0)
		abort();
	disk = calloc(1, limits.capacity ? limits.capacity : 1);
	for (int i = 0; disk && i < REQUESTS_MAX && byte_reader_remaining(&input) > 0; i++) {
		int r;

		make_request(&input, &first);
		r = virtqueue_pop(&queue, &chain);
		if (r <= 0)
			break;
		r = block_request_parse(&limits, &chain, &request, &what);
		if (r < 0) {
			require(what != NULL);
			break;
		}
		require_guest_memory(request.status, 1);
		if (r == BLOCK_OK)
			carry_out(&limits, disk);
		virtqueue_push(&queue, request.head, 1);
	}
	free(disk);
	return 0;
}
