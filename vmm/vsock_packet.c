#include "vmm/vsock_packet.h"

#include "base/bytes.h"

void vsock_header_encode(const struct vsock_header *header, uint8_t output[VSOCK_HEADER_LENGTH])
{
	struct byte_writer writer;

	byte_writer_init(&writer, output, VSOCK_HEADER_LENGTH);
	byte_writer_u64(&writer, header->source_cid);
	byte_writer_u64(&writer, header->target_cid);
	byte_writer_u32(&writer, header->source_port);
	byte_writer_u32(&writer, header->target_port);
	byte_writer_u32(&writer, header->length);
	byte_writer_u16(&writer, header->type);
	byte_writer_u16(&writer, header->operation);
	byte_writer_u32(&writer, header->flags);
	byte_writer_u32(&writer, header->buffer_allocation);
	byte_writer_u32(&writer, header->forward_count);
}

void vsock_header_decode(const uint8_t input[VSOCK_HEADER_LENGTH], struct vsock_header *ret_header)
{
	struct byte_reader reader;

	byte_reader_init(&reader, input, VSOCK_HEADER_LENGTH);
	ret_header->source_cid = byte_reader_u64(&reader);
	ret_header->target_cid = byte_reader_u64(&reader);
	ret_header->source_port = byte_reader_u32(&reader);
	ret_header->target_port = byte_reader_u32(&reader);
	ret_header->length = byte_reader_u32(&reader);
	ret_header->type = byte_reader_u16(&reader);
	ret_header->operation = byte_reader_u16(&reader);
	ret_header->flags = byte_reader_u32(&reader);
	ret_header->buffer_allocation = byte_reader_u32(&reader);
	ret_header->forward_count = byte_reader_u32(&reader);
}
