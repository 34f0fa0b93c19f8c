/*
 * The records of an undo store: their form on disk, a writer that appends, and a reader that
 * trusts nothing it reads. docs/undo-log.md describes each record for people.
 *
 * A file of records is a 32-byte header and then frames, all little-endian:
 *     u32 length    bytes from `sequence` on
 *     u32 crc       CRC-32 (zlib) of those bytes
 *     u64 sequence  1, 2, 3 ..
 *     u8  type      enum undo_record_type
 *     ...           by type
 * A frame that is cut, has a wrong CRC or a wrong sequence ends the file: it is the write that a
 * crash interrupted, and what it announced had not been done.
 */
#ifndef FSSERVER_UNDO_LOG_H
#define FSSERVER_UNDO_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define UNDO_NAME_MAX 255u
#define UNDO_DATA_MAX 65536u /* bytes of an xattr's value or an inline pre-image */
#define UNDO_RECORD_MAX (UNDO_DATA_MAX + 1024u) /* bytes of one frame */
#define UNDO_HEADER_BYTES 32u
#define UNDO_ROOT 1u			    /* the object number of the export's root */
#define UNDO_BLOCK_BYTES 65536u		    /* granularity of a block pre-image */
#define UNDO_BLOCKS_MAX (UINT64_C(1) << 29) /* blocks of one file: 32 TiB, a 64 MiB bitmap */

enum undo_record_type {
	UNDO_RECORD_OBJECT = 1, /* an object seen first: object, identity, type, directory, name */
	UNDO_RECORD_TOUCH,	/* before a first change: object, flags, attributes */
	UNDO_RECORD_XATTR,	/* one extended attribute before: object, name, data */
	UNDO_RECORD_PRE,	/* a pre-image is complete: object, flags (kind), value, data */
	UNDO_RECORD_BLOCKS,	/* blocks were added to it: object, value (first), count */
	UNDO_RECORD_CLAIM,	/* directory and name held object before (0: nothing) */
	UNDO_RECORD_INTENT,	/* a name is about to be made: directory, name, attributes.mode */
	UNDO_RECORD_ABORT,	/* it was not made */
	UNDO_RECORD_BORN,	/* a new object of this session: object, identity, attributes */
	UNDO_RECORD_DIRTY,	/* changes go on; the last stamp no longer holds: object */
	UNDO_RECORD_STAMP,	/* as this session left it: object, attributes */
	UNDO_RECORD_HOST_EDIT,	/* the stamp did not hold at the next change: object */
	UNDO_RECORD_CLOSED,	/* the session ended in order */
	/* In `progress`, written by a roll-back. */
	UNDO_RECORD_PLAN_KEEP,	   /* what of object is the host's, or unclear: object, flags */
	UNDO_RECORD_PLAN_REDIRECT, /* object, due at directory/name, goes to directory/data */
	UNDO_RECORD_PLAN_BESIDE,   /* a copy of object as it was goes to directory/name */
	UNDO_RECORD_PLAN_END,
	UNDO_RECORD_DONE,
};

enum undo_touch {
	UNDO_TOUCH_CONTENT = 1,	   /* a file's bytes */
	UNDO_TOUCH_ATTRIBUTES = 2, /* mode, owner, times, xattrs */
	UNDO_TOUCH_ENTRIES = 4,	   /* a directory's names, hence its times */
	UNDO_TOUCH_XATTRS = 8,	   /* all xattrs stand in the records before */
	UNDO_TOUCH_HOST_TIMES = 16 /* the host changed it since an earlier touch: times are newer */
};

enum undo_pre_kind {
	UNDO_PRE_INLINE = 1, /* the record's data is the content */
	UNDO_PRE_WHOLE = 2,  /* pre/<value> is a copy or a reflink */
	UNDO_PRE_BLOCKS = 3, /* pre/<value> holds the blocks that the log lists */
};

/* Birth time belongs to the identity: an inode number is given anew once it is free. */
struct undo_identity {
	uint64_t ino;
	int64_t birth_seconds; /* 0 with birth_nanoseconds 0: the file system does not tell */
	uint32_t birth_nanoseconds;
};

struct undo_attributes {
	uint32_t mode; /* with the type */
	uint32_t uid;
	uint32_t gid;
	uint64_t size;
	struct timespec access;
	struct timespec modification;
	struct timespec change;
};

struct undo_record {
	enum undo_record_type type;
	uint32_t object;
	uint32_t directory;
	uint32_t flags;
	uint64_t value;
	uint64_t count;
	struct undo_identity identity;
	struct undo_attributes attributes;
	struct timespec time; /* INTENT */
	const char *name;     /* not NUL-terminated */
	size_t name_length;
	const uint8_t *data;
	size_t data_length;
	uint64_t data_offset; /* set by the reader: where `data` stands in the file */
};

struct statx;
void undo_identity_from_statx(const struct statx *stat, struct undo_identity *ret_identity);
void undo_attributes_from_statx(const struct statx *stat, struct undo_attributes *ret_attributes);
void undo_attributes_from_stat(const struct stat *stat, struct undo_attributes *ret_attributes);
/* Same inode number, and birth times that do not contradict each other. */
bool undo_identity_equal(const struct undo_identity *a, const struct undo_identity *b);
bool timespec_equal(const struct timespec *a, const struct timespec *b);
bool timespec_before(const struct timespec *a, const struct timespec *b);
/* A single path component: 1..255 bytes, no '/', no NUL, neither "." nor "..". */
bool undo_name_valid(const char *name, size_t length);

/* ---- writing --------------------------------------------------------------------------------- */

struct undo_log {
	int fd; /* owned */
	uint64_t end;
	uint64_t allocated; /* up to here the file system promised room */
	uint64_t sequence;
	uint8_t *buffer; /* UNDO_RECORD_MAX bytes */
};

/* Starts a fresh file in `fd`, which passes to the log whatever the result. What the file held must
 * not be taken for records: it is empty, or zeros. */
int undo_log_create(struct undo_log *log, int fd);
/* Gives an empty file `bytes` of zeros that are promised by the file system. -ENOSPC, -EDQUOT. */
int undo_log_set_aside(int fd, uint64_t bytes);
/* Zeros a file from `end` on, without giving up the room that it has. */
int undo_log_wipe(int fd, uint64_t end);
/* Goes on behind the last valid record; what follows is wiped. */
int undo_log_continue(struct undo_log *log, int fd, uint64_t end, uint64_t next_sequence);
/* Appends by one write. A failure leaves the log as it was: -ENOSPC, -EDQUOT, -EIO. */
int undo_log_append(struct undo_log *log, const struct undo_record *record);
/* Makes sure that a few small records more will find room. */
int undo_log_reserve(struct undo_log *log);
void undo_log_finish(struct undo_log *log);

/* ---- reading --------------------------------------------------------------------------------- */

struct undo_log_reader {
	int fd; /* the caller's */
	uint64_t offset;
	uint64_t sequence;
	uint8_t *buffer;
	uint64_t buffer_offset;
	size_t buffer_length;
};

/* -EBADMSG when the header is no header of ours. */
int undo_log_reader_init(struct undo_log_reader *reader, int fd);
/* 1 with a record that is valid in form (names checked, numbers not), 0 at the end, or a negative
 * errno. Pointers in the record hold until the next call. */
int undo_log_reader_next(struct undo_log_reader *reader, struct undo_record *ret_record);
void undo_log_reader_finish(struct undo_log_reader *reader);

#endif
