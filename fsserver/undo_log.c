#include "fsserver/undo_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/io.h"

#define FRAME_HEAD 8u	       /* length, crc */
#define FRAME_LEAST 9u	       /* sequence, type */
#define LOG_CHUNK (256u << 10) /* room asked for ahead */
#define LOG_CHUNK_SMALL 4096u
#define LOG_SPARE 1024u /* what undo_log_reserve promises */
#define READER_BYTES (128u << 10)

static const uint8_t log_magic[8] = { 'M', 'L', 'U', 'N', 'D', 'O', '0', '1' };

void undo_identity_from_statx(const struct statx *stat, struct undo_identity *ret_identity)
{
	ret_identity->ino = stat->stx_ino;
	ret_identity->birth_seconds = 0;
	ret_identity->birth_nanoseconds = 0;
	if (stat->stx_mask & STATX_BTIME) {
		ret_identity->birth_seconds = stat->stx_btime.tv_sec;
		ret_identity->birth_nanoseconds = stat->stx_btime.tv_nsec;
	}
}

static struct timespec timespec_from_statx(const struct statx_timestamp *stamp)
{
	return (struct timespec){ .tv_sec = stamp->tv_sec, .tv_nsec = (long)stamp->tv_nsec };
}

void undo_attributes_from_statx(const struct statx *stat, struct undo_attributes *ret_attributes)
{
	*ret_attributes = (struct undo_attributes){
		.mode = stat->stx_mode,
		.uid = stat->stx_uid,
		.gid = stat->stx_gid,
		.size = stat->stx_size,
		.access = timespec_from_statx(&stat->stx_atime),
		.modification = timespec_from_statx(&stat->stx_mtime),
		.change = timespec_from_statx(&stat->stx_ctime),
	};
}

void undo_attributes_from_stat(const struct stat *stat, struct undo_attributes *ret_attributes)
{
	*ret_attributes = (struct undo_attributes){
		.mode = stat->st_mode,
		.uid = stat->st_uid,
		.gid = stat->st_gid,
		.size = (uint64_t)stat->st_size,
		.access = stat->st_atim,
		.modification = stat->st_mtim,
		.change = stat->st_ctim,
	};
}

bool undo_identity_equal(const struct undo_identity *a, const struct undo_identity *b)
{
	if (a->ino != b->ino)
		return false;
	if ((a->birth_seconds == 0 && a->birth_nanoseconds == 0) ||
	    (b->birth_seconds == 0 && b->birth_nanoseconds == 0))
		return true;
	return a->birth_seconds == b->birth_seconds && a->birth_nanoseconds == b->birth_nanoseconds;
}

bool timespec_equal(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool timespec_before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

bool undo_name_valid(const char *name, size_t length)
{
	if (length == 0 || length > UNDO_NAME_MAX)
		return false;
	if (memchr(name, '/', length) || memchr(name, '\0', length))
		return false;
	return !(name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')));
}

/* ---- which parts a record of each type has ----------------------------------------------------
 */

enum record_part {
	PART_OBJECT = 1,
	PART_DIRECTORY = 2,
	PART_NAME = 4,
	PART_FLAGS = 8,
	PART_VALUE = 16,
	PART_COUNT = 32,
	PART_IDENTITY = 64,
	PART_ATTRIBUTES = 128,
	PART_TIME = 256,
	PART_DATA = 512,
	PART_FREE_NAME = 1024, /* an xattr's name: any bytes but NUL */
};

static const uint16_t record_parts[] = {
	[UNDO_RECORD_OBJECT] =
		PART_OBJECT | PART_DIRECTORY | PART_NAME | PART_IDENTITY | PART_ATTRIBUTES,
	[UNDO_RECORD_TOUCH] = PART_OBJECT | PART_FLAGS | PART_ATTRIBUTES,
	[UNDO_RECORD_XATTR] = PART_OBJECT | PART_FREE_NAME | PART_DATA,
	[UNDO_RECORD_PRE] = PART_OBJECT | PART_FLAGS | PART_VALUE | PART_COUNT | PART_DATA,
	[UNDO_RECORD_BLOCKS] = PART_OBJECT | PART_VALUE | PART_COUNT,
	[UNDO_RECORD_CLAIM] = PART_OBJECT | PART_DIRECTORY | PART_NAME,
	[UNDO_RECORD_INTENT] = PART_DIRECTORY | PART_NAME | PART_FLAGS | PART_TIME,
	[UNDO_RECORD_ABORT] = 0,
	[UNDO_RECORD_BORN] = PART_OBJECT | PART_IDENTITY | PART_ATTRIBUTES,
	[UNDO_RECORD_DIRTY] = PART_OBJECT,
	[UNDO_RECORD_STAMP] = PART_OBJECT | PART_ATTRIBUTES,
	[UNDO_RECORD_HOST_EDIT] = PART_OBJECT,
	[UNDO_RECORD_CLOSED] = 0,
	[UNDO_RECORD_PLAN_KEEP] = PART_OBJECT | PART_FLAGS,
	[UNDO_RECORD_PLAN_REDIRECT] = PART_OBJECT | PART_DIRECTORY | PART_NAME | PART_DATA,
	[UNDO_RECORD_PLAN_BESIDE] = PART_OBJECT | PART_DIRECTORY | PART_NAME,
	[UNDO_RECORD_PLAN_END] = 0,
	[UNDO_RECORD_DONE] = 0,
};

static void write_time(struct byte_writer *writer, const struct timespec *time)
{
	byte_writer_s64(writer, time->tv_sec);
	byte_writer_u32(writer, (uint32_t)time->tv_nsec);
}

static struct timespec read_time(struct byte_reader *reader)
{
	struct timespec time;

	time.tv_sec = byte_reader_s64(reader);
	time.tv_nsec = (long)byte_reader_u32(reader);
	if (time.tv_nsec >= 1000000000L)
		byte_reader_fail(reader);
	return time;
}

static void write_attributes(struct byte_writer *writer, const struct undo_attributes *attributes)
{
	byte_writer_u32(writer, attributes->mode);
	byte_writer_u32(writer, attributes->uid);
	byte_writer_u32(writer, attributes->gid);
	byte_writer_u64(writer, attributes->size);
	write_time(writer, &attributes->access);
	write_time(writer, &attributes->modification);
	write_time(writer, &attributes->change);
}

static void read_attributes(struct byte_reader *reader, struct undo_attributes *attributes)
{
	attributes->mode = byte_reader_u32(reader);
	attributes->uid = byte_reader_u32(reader);
	attributes->gid = byte_reader_u32(reader);
	attributes->size = byte_reader_u64(reader);
	attributes->access = read_time(reader);
	attributes->modification = read_time(reader);
	attributes->change = read_time(reader);
	if (attributes->size > INT64_MAX)
		byte_reader_fail(reader);
}

static void encode_parts(struct byte_writer *writer, const struct undo_record *record)
{
	unsigned parts = record_parts[record->type];

	if (parts & PART_OBJECT)
		byte_writer_u32(writer, record->object);
	if (parts & PART_DIRECTORY)
		byte_writer_u32(writer, record->directory);
	if (parts & PART_FLAGS)
		byte_writer_u32(writer, record->flags);
	if (parts & PART_VALUE)
		byte_writer_u64(writer, record->value);
	if (parts & PART_COUNT)
		byte_writer_u64(writer, record->count);
	if (parts & PART_IDENTITY) {
		byte_writer_u64(writer, record->identity.ino);
		byte_writer_s64(writer, record->identity.birth_seconds);
		byte_writer_u32(writer, record->identity.birth_nanoseconds);
	}
	if (parts & PART_ATTRIBUTES)
		write_attributes(writer, &record->attributes);
	if (parts & PART_TIME)
		write_time(writer, &record->time);
	if (parts & (PART_NAME | PART_FREE_NAME)) {
		byte_writer_u16(writer, (uint16_t)record->name_length);
		byte_writer_bytes(writer, record->name, record->name_length);
	}
	if (parts & PART_DATA) {
		byte_writer_u32(writer, (uint32_t)record->data_length);
		byte_writer_bytes(writer, record->data, record->data_length);
	}
}

static bool name_fits(const struct undo_record *record, unsigned parts)
{
	/* A hint may be missing: an object that was met without a name. */
	if ((parts & PART_NAME) && record->name_length > 0)
		return undo_name_valid(record->name, record->name_length);
	if (parts & PART_FREE_NAME)
		return record->name_length > 0 && record->name_length <= UNDO_NAME_MAX &&
		       !memchr(record->name, '\0', record->name_length);
	return record->type == UNDO_RECORD_OBJECT || !(parts & PART_NAME);
}

/* `frame` is what the CRC covered; false when the bytes do not make up a record of their type. */
static bool decode_parts(struct byte_reader *reader, struct undo_record *record)
{
	unsigned parts = record_parts[record->type];

	if (parts & PART_OBJECT)
		record->object = byte_reader_u32(reader);
	if (parts & PART_DIRECTORY)
		record->directory = byte_reader_u32(reader);
	if (parts & PART_FLAGS)
		record->flags = byte_reader_u32(reader);
	if (parts & PART_VALUE)
		record->value = byte_reader_u64(reader);
	if (parts & PART_COUNT)
		record->count = byte_reader_u64(reader);
	if (parts & PART_IDENTITY) {
		record->identity.ino = byte_reader_u64(reader);
		record->identity.birth_seconds = byte_reader_s64(reader);
		record->identity.birth_nanoseconds = byte_reader_u32(reader);
	}
	if (parts & PART_ATTRIBUTES)
		read_attributes(reader, &record->attributes);
	if (parts & PART_TIME)
		record->time = read_time(reader);
	if (parts & (PART_NAME | PART_FREE_NAME)) {
		record->name_length = byte_reader_u16(reader);
		record->name = (const char *)byte_reader_bytes(reader, record->name_length);
	}
	if (parts & PART_DATA) {
		record->data_length = byte_reader_u32(reader);
		record->data_offset = reader->position;
		record->data = byte_reader_bytes(reader, record->data_length);
	}
	return byte_reader_done(reader) && record->data_length <= UNDO_DATA_MAX &&
	       name_fits(record, parts);
}

/* ---- writing --------------------------------------------------------------------------------- */

int undo_log_create(struct undo_log *log, int fd)
{
	uint8_t header[UNDO_HEADER_BYTES] = { 0 };

	*log = (struct undo_log){ .fd = fd, .end = UNDO_HEADER_BYTES, .sequence = 1 };
	log->buffer = malloc(UNDO_RECORD_MAX);
	if (!log->buffer)
		return -ENOMEM;
	memcpy(header, log_magic, sizeof(log_magic));
	if (pwrite(fd, header, sizeof(header), 0) != (ssize_t)sizeof(header))
		return errno ? -errno : -EIO;
	return 0;
}

static int write_zeros(int fd, uint64_t from, uint64_t to)
{
	static const uint8_t zeros[4096];

	while (from < to) {
		size_t length = MIN_OF(sizeof(zeros), to - from);
		ssize_t written = pwrite(fd, zeros, length, (off_t)from);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? -errno : -ENOSPC;
		from += (uint64_t)written;
	}
	return 0;
}

int undo_log_set_aside(int fd, uint64_t bytes)
{
	if (fallocate(fd, 0, 0, (off_t)bytes) == 0)
		return 0;
	/* Without promises zeros are written: most of these file systems overwrite in place. */
	return errno == EOPNOTSUPP || errno == ENOSYS ? write_zeros(fd, 0, bytes) : -errno;
}

/* Zeros are left alone: where the file system copies on write, writing them takes room. */
int undo_log_wipe(int fd, uint64_t end)
{
	uint8_t bytes[4096];

	for (uint64_t from = end;;) {
		uint64_t next = (from / sizeof(bytes) + 1) * sizeof(bytes);
		ssize_t count = pread(fd, bytes, next - from, (off_t)from);
		ssize_t i = 0;
		int result;

		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return count < 0 ? -errno : 0;
		while (i < count && bytes[i] == 0)
			i++;
		result = i < count ? write_zeros(fd, from, from + (uint64_t)count) : 0;
		if (result < 0)
			return result;
		from += (uint64_t)count;
	}
}

int undo_log_continue(struct undo_log *log, int fd, uint64_t end, uint64_t next_sequence)
{
	*log = (struct undo_log){ .fd = fd, .end = end, .sequence = next_sequence };
	log->buffer = malloc(UNDO_RECORD_MAX);
	if (!log->buffer)
		return -ENOMEM;
	return undo_log_wipe(fd, end);
}

static bool out_of_room(int error)
{
	return error == ENOSPC || error == EDQUOT;
}

int undo_log_reserve(struct undo_log *log)
{
	if (log->allocated - log->end >= LOG_SPARE && log->allocated > log->end)
		return 0;
	for (uint32_t chunk = LOG_CHUNK;; chunk = LOG_CHUNK_SMALL) {
		uint64_t from = MAX_OF(log->allocated, log->end);

		if (fallocate(log->fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)chunk) == 0) {
			log->allocated = from + chunk;
			return 0;
		}
		/* A file system without promises: each write then tells by itself. */
		if (!out_of_room(errno))
			return errno == EIO ? -EIO : 0;
		if (chunk == LOG_CHUNK_SMALL)
			return -errno;
	}
}

int undo_log_append(struct undo_log *log, const struct undo_record *record)
{
	struct byte_writer writer;
	uint32_t length;
	ssize_t written;

	byte_writer_init(&writer, log->buffer, UNDO_RECORD_MAX);
	byte_writer_u32(&writer, 0);
	byte_writer_u32(&writer, 0);
	byte_writer_u64(&writer, log->sequence);
	byte_writer_u8(&writer, (uint8_t)record->type);
	encode_parts(&writer, record);
	if (!byte_writer_ok(&writer))
		return -E2BIG;
	length = (uint32_t)(writer.length - FRAME_HEAD);
	byte_writer_patch_u32(&writer, 0, length);
	byte_writer_patch_u32(&writer, 4,
			      (uint32_t)crc32(0, log->buffer + FRAME_HEAD, (uInt)length));
	do {
		written = pwrite(log->fd, log->buffer, writer.length, (off_t)log->end);
	} while (written < 0 && errno == EINTR);
	if (written < 0)
		return -errno;
	/* A short write means that the disk is full; the cut frame is overwritten by the next. */
	if ((size_t)written != writer.length)
		return -ENOSPC;
	log->end += writer.length;
	log->sequence++;
	return 0;
}

void undo_log_finish(struct undo_log *log)
{
	if (log->buffer && log->fd >= 0 && log->allocated > log->end)
		(void)!ftruncate(log->fd, (off_t)log->end);
	free(log->buffer);
	log->buffer = NULL;
	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
}

/* ---- reading --------------------------------------------------------------------------------- */

int undo_log_reader_init(struct undo_log_reader *reader, int fd)
{
	uint8_t header[UNDO_HEADER_BYTES];
	ssize_t count = pread(fd, header, sizeof(header), 0);

	*reader = (struct undo_log_reader){ .fd = fd, .offset = UNDO_HEADER_BYTES, .sequence = 1 };
	if (count < 0)
		return -errno;
	if (count != (ssize_t)sizeof(header) || memcmp(header, log_magic, sizeof(log_magic)) != 0)
		return -EBADMSG;
	reader->buffer = malloc(READER_BYTES);
	return reader->buffer ? 0 : -ENOMEM;
}

void undo_log_reader_finish(struct undo_log_reader *reader)
{
	free(reader->buffer);
	reader->buffer = NULL;
}

/* Bytes at reader->offset, at least `need` of them unless the file ends. */
static int reader_fill(struct undo_log_reader *reader, size_t need, const uint8_t **ret_bytes,
		       size_t *ret_length)
{
	uint64_t skip = reader->offset - reader->buffer_offset;
	ssize_t count;

	if (reader->buffer_length < skip + need) {
		do {
			count = pread(reader->fd, reader->buffer, READER_BYTES,
				      (off_t)reader->offset);
		} while (count < 0 && errno == EINTR);
		if (count < 0)
			return -errno;
		reader->buffer_offset = reader->offset;
		reader->buffer_length = (size_t)count;
		skip = 0;
	}
	*ret_bytes = reader->buffer + skip;
	*ret_length = reader->buffer_length - (size_t)skip;
	return 0;
}

int undo_log_reader_next(struct undo_log_reader *reader, struct undo_record *ret_record)
{
	struct undo_record record = { 0 };
	struct byte_reader bytes;
	const uint8_t *frame = NULL;
	size_t available = 0;
	uint32_t length;
	uint32_t crc;
	uint8_t type;
	int result;

	result = reader_fill(reader, FRAME_HEAD, &frame, &available);
	if (result < 0)
		return result;
	byte_reader_init(&bytes, frame, available);
	length = byte_reader_u32(&bytes);
	crc = byte_reader_u32(&bytes);
	if (!byte_reader_ok(&bytes) || length < FRAME_LEAST ||
	    length > UNDO_RECORD_MAX - FRAME_HEAD)
		return 0;
	result = reader_fill(reader, FRAME_HEAD + length, &frame, &available);
	if (result < 0)
		return result;
	if (available < FRAME_HEAD + length || crc32(0, frame + FRAME_HEAD, (uInt)length) != crc)
		return 0;
	byte_reader_init(&bytes, frame + FRAME_HEAD, length);
	if (byte_reader_u64(&bytes) != reader->sequence)
		return 0;
	type = byte_reader_u8(&bytes);
	if (type < UNDO_RECORD_OBJECT || type >= ARRAY_LENGTH(record_parts))
		return 0;
	record.type = type;
	if (!decode_parts(&bytes, &record))
		return 0;
	record.data_offset += reader->offset + FRAME_HEAD;
	reader->offset += FRAME_HEAD + length;
	reader->sequence++;
	*ret_record = record;
	return 1;
}
