/*
 * The one bounded accessor for bytes that a peer wrote, and its writing twin.
 *
 * A byte_reader walks a block that the caller owns and that nobody changes meanwhile (bytes
 * from shared memory are copied once, then read). The first read past the end sets `failed`;
 * from then on every read yields zero and consumes nothing, so a decoder reads a whole message
 * and checks byte_reader_ok() once. All integers are little-endian.
 *
 * A byte_writer fills a block of fixed capacity. The first write that does not fit sets `failed`
 * and nothing more is written; byte_writer_ok() tells.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct byte_reader {
	const uint8_t *data;
	size_t length;
	size_t position;
	bool failed;
};

struct byte_writer {
	uint8_t *data;
	size_t capacity;
	size_t length;
	bool failed;
};

void byte_reader_init(struct byte_reader *reader, const void *data, size_t length);
uint8_t byte_reader_u8(struct byte_reader *reader);
uint16_t byte_reader_u16(struct byte_reader *reader);
uint32_t byte_reader_u32(struct byte_reader *reader);
uint64_t byte_reader_u64(struct byte_reader *reader);
int32_t byte_reader_s32(struct byte_reader *reader);
int64_t byte_reader_s64(struct byte_reader *reader);
/* Borrows `length` bytes of the block; NULL (and failed) when fewer remain. */
const uint8_t *byte_reader_bytes(struct byte_reader *reader, size_t length);
/* Copies `length` bytes into `target`; on failure `target` is zeroed. */
void byte_reader_copy(struct byte_reader *reader, void *target, size_t length);
/* A child reader over the next `length` bytes; empty and failed when fewer remain. */
struct byte_reader byte_reader_slice(struct byte_reader *reader, size_t length);
void byte_reader_fail(struct byte_reader *reader);
size_t byte_reader_remaining(const struct byte_reader *reader);
bool byte_reader_ok(const struct byte_reader *reader);
/* ok, and nothing left over. */
bool byte_reader_done(const struct byte_reader *reader);

void byte_writer_init(struct byte_writer *writer, void *data, size_t capacity);
void byte_writer_u8(struct byte_writer *writer, uint8_t value);
void byte_writer_u16(struct byte_writer *writer, uint16_t value);
void byte_writer_u32(struct byte_writer *writer, uint32_t value);
void byte_writer_u64(struct byte_writer *writer, uint64_t value);
void byte_writer_s32(struct byte_writer *writer, int32_t value);
void byte_writer_s64(struct byte_writer *writer, int64_t value);
void byte_writer_bytes(struct byte_writer *writer, const void *data, size_t length);
/* Reserves `length` bytes to be filled by the caller; NULL (and failed) when they do not fit. */
uint8_t *byte_writer_reserve(struct byte_writer *writer, size_t length);
/* Overwrites a u32 that was written before, at `offset` from the start of the block. */
void byte_writer_patch_u32(struct byte_writer *writer, size_t offset, uint32_t value);
bool byte_writer_ok(const struct byte_writer *writer);

#endif
