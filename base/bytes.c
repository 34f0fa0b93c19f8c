#include "base/bytes.h"

#include <endian.h>
#include <string.h>

void byte_reader_init(struct byte_reader *reader, const void *data, size_t length)
{
	*reader = (struct byte_reader){ .data = data, .length = length };
}

const uint8_t *byte_reader_bytes(struct byte_reader *reader, size_t length)
{
	const uint8_t *bytes;

	if (reader->failed || length > reader->length - reader->position) {
		reader->failed = true;
		return NULL;
	}
	bytes = reader->data + reader->position;
	reader->position += length;
	return bytes;
}

void byte_reader_copy(struct byte_reader *reader, void *target, size_t length)
{
	const uint8_t *bytes = byte_reader_bytes(reader, length);

	if (length == 0)
		return;
	if (bytes)
		memcpy(target, bytes, length);
	else
		memset(target, 0, length);
}

uint8_t byte_reader_u8(struct byte_reader *reader)
{
	const uint8_t *bytes = byte_reader_bytes(reader, 1);

	return bytes ? *bytes : 0;
}

uint16_t byte_reader_u16(struct byte_reader *reader)
{
	uint16_t value;

	byte_reader_copy(reader, &value, sizeof(value));
	return le16toh(value);
}

uint32_t byte_reader_u32(struct byte_reader *reader)
{
	uint32_t value;

	byte_reader_copy(reader, &value, sizeof(value));
	return le32toh(value);
}

uint64_t byte_reader_u64(struct byte_reader *reader)
{
	uint64_t value;

	byte_reader_copy(reader, &value, sizeof(value));
	return le64toh(value);
}

int32_t byte_reader_s32(struct byte_reader *reader)
{
	return (int32_t)byte_reader_u32(reader);
}

int64_t byte_reader_s64(struct byte_reader *reader)
{
	return (int64_t)byte_reader_u64(reader);
}

struct byte_reader byte_reader_slice(struct byte_reader *reader, size_t length)
{
	const uint8_t *bytes = byte_reader_bytes(reader, length);
	struct byte_reader slice = { .data = bytes,
				     .length = bytes ? length : 0,
				     .failed = !bytes };

	return slice;
}

void byte_reader_fail(struct byte_reader *reader)
{
	reader->failed = true;
}

size_t byte_reader_remaining(const struct byte_reader *reader)
{
	return reader->failed ? 0 : reader->length - reader->position;
}

bool byte_reader_ok(const struct byte_reader *reader)
{
	return !reader->failed;
}

bool byte_reader_done(const struct byte_reader *reader)
{
	return !reader->failed && reader->position == reader->length;
}

void byte_writer_init(struct byte_writer *writer, void *data, size_t capacity)
{
	*writer = (struct byte_writer){ .data = data, .capacity = capacity };
}

uint8_t *byte_writer_reserve(struct byte_writer *writer, size_t length)
{
	uint8_t *target;

	if (writer->failed || length > writer->capacity - writer->length) {
		writer->failed = true;
		return NULL;
	}
	target = writer->data + writer->length;
	writer->length += length;
	return target;
}

void byte_writer_bytes(struct byte_writer *writer, const void *data, size_t length)
{
	uint8_t *target = byte_writer_reserve(writer, length);

	if (target && length > 0)
		memcpy(target, data, length);
}

void byte_writer_u8(struct byte_writer *writer, uint8_t value)
{
	byte_writer_bytes(writer, &value, sizeof(value));
}

void byte_writer_u16(struct byte_writer *writer, uint16_t value)
{
	value = htole16(value);
	byte_writer_bytes(writer, &value, sizeof(value));
}

void byte_writer_u32(struct byte_writer *writer, uint32_t value)
{
	value = htole32(value);
	byte_writer_bytes(writer, &value, sizeof(value));
}

void byte_writer_u64(struct byte_writer *writer, uint64_t value)
{
	value = htole64(value);
	byte_writer_bytes(writer, &value, sizeof(value));
}

void byte_writer_s32(struct byte_writer *writer, int32_t value)
{
	byte_writer_u32(writer, (uint32_t)value);
}

void byte_writer_s64(struct byte_writer *writer, int64_t value)
{
	byte_writer_u64(writer, (uint64_t)value);
}

void byte_writer_patch_u32(struct byte_writer *writer, size_t offset, uint32_t value)
{
	if (writer->failed || offset > writer->length || writer->length - offset < sizeof(value)) {
		writer->failed = true;
		return;
	}
	value = htole32(value);
	memcpy(writer->data + offset, &value, sizeof(value));
}

bool byte_writer_ok(const struct byte_writer *writer)
{
	return !writer->failed;
}
