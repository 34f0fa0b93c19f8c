#include "vmm/block_request.h"

#include "base/bytes.h"

#include <errno.h>

#define HEADER_LENGTH 16
#define SEGMENT_LENGTH 16
#define SEGMENT_UNMAP 1u

/* Sectors as the driver gave them; false unless all of them are on the disk. */
static bool set_segment(const struct block_limits *limits, uint64_t sector, uint64_t count,
			struct block_segment *segment)
{
	uint64_t sectors = limits->capacity / BLOCK_SECTOR;

	if (count == 0 || sector >= sectors || count > sectors - sector)
		return false;
	segment->offset = sector * BLOCK_SECTOR;
	segment->length = count * BLOCK_SECTOR;
	return true;
}

/* `parts` is what the chain has beyond header and status in the right direction, `length` long. */
static enum block_status parse_transfer(const struct block_limits *limits, uint64_t sector,
					const struct iovec *parts, size_t count, size_t skip,
					size_t length, struct block_request *request)
{
	if (length == 0 || length > BLOCK_BYTES_MAX || length % BLOCK_SECTOR != 0 ||
	    !set_segment(limits, sector, length / BLOCK_SECTOR, &request->segments[0]))
		return BLOCK_IO_ERROR;
	request->segment_count = 1;
	request->length = length;
	request->part_count = iovec_slice(parts, count, skip, length, request->parts);
	return BLOCK_OK;
}

static enum block_status parse_segments(const struct block_limits *limits,
					const struct virtqueue_chain *chain, size_t length,
					struct block_request *request)
{
	uint8_t bytes[BLOCK_SEGMENTS_MAX * SEGMENT_LENGTH];
	struct byte_reader reader;

	if (length == 0 || length > sizeof(bytes) || length % SEGMENT_LENGTH != 0)
		return BLOCK_IO_ERROR;
	(void)iovec_read(chain->parts, chain->readable_count, HEADER_LENGTH, bytes, length);
	byte_reader_init(&reader, bytes, length);
	request->segment_count = length / SEGMENT_LENGTH;
	for (size_t i = 0; i < request->segment_count; i++) {
		struct block_segment *segment = &request->segments[i];
		uint64_t sector = byte_reader_u64(&reader);
		uint32_t count = byte_reader_u32(&reader);
		uint32_t flags = byte_reader_u32(&reader);

		if ((flags & ~SEGMENT_UNMAP) || (request->type == BLOCK_DISCARD && flags != 0))
			return BLOCK_UNSUPPORTED;
		if (count > BLOCK_SEGMENT_SECTORS_MAX ||
		    !set_segment(limits, sector, count, segment))
			return BLOCK_IO_ERROR;
		segment->unmap = flags & SEGMENT_UNMAP;
	}
	return BLOCK_OK;
}

static enum block_status parse_body(const struct block_limits *limits,
				    const struct virtqueue_chain *chain, uint64_t sector,
				    struct block_request *request)
{
	size_t output = chain->readable_length - HEADER_LENGTH;
	size_t input = chain->writable_length - 1;

	switch (request->type) {
	case BLOCK_READ:
		return parse_transfer(limits, sector, chain->parts + chain->readable_count,
				      chain->writable_count, 0, input, request);
	case BLOCK_WRITE:
		if (limits->read_only)
			return BLOCK_IO_ERROR;
		return parse_transfer(limits, sector, chain->parts, chain->readable_count,
				      HEADER_LENGTH, output, request);
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		if (limits->read_only)
			return BLOCK_IO_ERROR;
		return parse_segments(limits, chain, output, request);
	case BLOCK_FLUSH:
		return BLOCK_OK;
	case BLOCK_GET_ID:
		request->length = input < BLOCK_SERIAL_LENGTH ? input : BLOCK_SERIAL_LENGTH;
		request->part_count =
			iovec_slice(chain->parts + chain->readable_count, chain->writable_count, 0,
				    request->length, request->parts);
		return BLOCK_OK;
	}
	return BLOCK_UNSUPPORTED;
}

int block_request_parse(const struct block_limits *limits, const struct virtqueue_chain *chain,
			struct block_request *ret_request, const char **ret_what)
{
	size_t part_count = chain->readable_count + chain->writable_count;
	const struct iovec *last = &chain->parts[part_count - 1];
	uint8_t bytes[HEADER_LENGTH];
	struct byte_reader reader;

	if (chain->readable_length < HEADER_LENGTH) {
		*ret_what = "block request without a header";
		return -EPROTO;
	}
	if (chain->writable_length == 0) {
		*ret_what = "block request without a place for its status";
		return -EPROTO;
	}
	(void)iovec_read(chain->parts, chain->readable_count, 0, bytes, sizeof(bytes));
	byte_reader_init(&reader, bytes, sizeof(bytes));
	ret_request->type = (enum block_request_type)byte_reader_u32(&reader);
	(void)byte_reader_u32(&reader);
	ret_request->head = chain->head;
	ret_request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
	ret_request->part_count = 0;
	ret_request->segment_count = 0;
	ret_request->length = 0;
	return (int)parse_body(limits, chain, byte_reader_u64(&reader), ret_request);
}
