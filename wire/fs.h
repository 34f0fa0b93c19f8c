/*
 * The file protocol between guest-fused (never trusted) and fsserver. docs/protocol-fs.md is the
 * prose; this header is the layout.
 *
 * A stream carries frames both ways. A frame is a struct fs_frame followed by `op_count`
 * operations; a request operation is a struct fs_op, a reply operation a struct fs_op_reply,
 * each followed by `length` bytes of body: the fixed struct named below for its opcode, then the
 * variable parts in the order the comment gives. Nothing is padded or aligned. All integers are
 * little-endian, and so are the hosts this is built for.
 *
 * The encoders and decoders here judge form alone (lengths, counts, names being one component);
 * whether an id, a handle or an access is good is the server's to decide.
 */
#ifndef WIRE_FS_H
#define WIRE_FS_H

#include "base/bytes.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire structs are copied as they are");

#define FS_MAGIC 0x53464c4du /* "MLFS" */
#define FS_VERSION 1

/* Limits; HELLO may negotiate lower ones, never higher. */
#define FS_DATA_MAX (1024u * 1024u) /* bytes of file data in one READ or WRITE */
#define FS_FRAME_OVERHEAD 8192u	    /* headers, fixed structs and names beside the data */
#define FS_FRAME_MAX (FS_DATA_MAX + FS_FRAME_OVERHEAD)
#define FS_OPS_MAX 64u	    /* operations in one frame */
#define FS_NAME_MAX 255u    /* bytes in one path component */
#define FS_TARGET_MAX 4095u /* bytes in a symlink's target */
#define FS_XATTR_NAME_MAX 255u
#define FS_XATTR_VALUE_MAX 65536u
#define FS_INFLIGHT_MAX 64u  /* frames sent and not yet answered, per stream */
#define FS_STREAMS_MAX 64u   /* streams of one session */
#define FS_FORGETS_MAX 4096u /* entries in one FORGET */

#define FS_NODE_ROOT UINT64_C(1) /* the root of the stream's export */
/* In a frame of several operations: the node, the handle, that the latest successful operation
 * before this one in the same frame returned. */
#define FS_NODE_PREVIOUS UINT64_MAX
#define FS_HANDLE_PREVIOUS UINT64_MAX
#define FS_HANDLE_NONE UINT64_C(0)

enum fs_opcode {
	FS_HELLO = 1,
	FS_LOOKUP = 2,
	FS_FORGET = 3,
	FS_GETATTR = 4,
	FS_SETATTR = 5,
	FS_READLINK = 6,
	FS_SYMLINK = 7,
	FS_MKNOD = 8,
	FS_MKDIR = 9,
	FS_UNLINK = 10,
	FS_RMDIR = 11,
	FS_RENAME = 12,
	FS_LINK = 13,
	FS_OPEN = 14,
	FS_CREATE = 15,
	FS_TMPFILE = 16,
	FS_READ = 17,
	FS_WRITE = 18,
	FS_RELEASE = 19,
	FS_FSYNC = 20,
	FS_OPENDIR = 21,
	FS_READDIR = 22,
	FS_STATFS = 23,
	FS_GETXATTR = 24,
	FS_SETXATTR = 25,
	FS_LISTXATTR = 26,
	FS_REMOVEXATTR = 27,
	FS_FALLOCATE = 28,
	FS_LSEEK = 29,
	FS_COPY_RANGE = 30,
	FS_SYNCFS = 31,
	/* From the server alone: */
	FS_NOTIFY = 64,
	FS_GOODBYE = 65,
	FS_OPCODE_END = 66,
};

/* ---- frames --------------------------------------------------------------------------------- */

struct fs_frame {
	uint32_t length;   /* of the whole frame, this header included */
	uint16_t op_count; /* 1..FS_OPS_MAX */
	uint16_t flags;	   /* FS_FRAME_* */
	uint64_t tag;	   /* chosen by the guest, returned in the reply; 0 in NOTIFY, GOODBYE */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_frame) == 16, "wire");

#define FS_FRAME_NO_REPLY 1u /* FORGET and RELEASE only */

struct fs_op {
	uint16_t opcode;
	uint16_t reserved; /* 0 */
	uint32_t length;   /* of the body */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_op) == 8, "wire");

/* Operations of a frame run in order; the first that fails ends the frame, and its reply is the
 * last one. */
struct fs_op_reply {
	uint16_t opcode;
	uint16_t error; /* 0, or a positive Linux errno; then length is 0 */
	uint32_t length;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_op_reply) == 8, "wire");

/* ---- shared parts --------------------------------------------------------------------------- */

struct fs_attr {
	uint64_t ino;
	uint64_t size;
	uint64_t blocks; /* of 512 bytes */
	int64_t atime_sec;
	int64_t mtime_sec;
	int64_t ctime_sec;
	uint32_t atime_nsec;
	uint32_t mtime_nsec;
	uint32_t ctime_nsec;
	uint32_t mode; /* type and permissions as in stat(2) */
	uint32_t nlink;
	uint32_t uid;
	uint32_t gid;
	uint32_t rdev;
	uint32_t blksize;
	uint32_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_attr) == 88, "wire");

/* A looked-up or made object. Each reply that carries one with a nodeid other than 0 adds one to
 * the guest's lookup count for it, which FORGET gives back. nodeid 0: the name does not exist,
 * and may be remembered as missing for entry_valid_ms. */
struct fs_entry {
	uint64_t nodeid;
	struct fs_attr attr;
	uint32_t entry_valid_ms; /* UINT32_MAX: until a NOTIFY */
	uint32_t attr_valid_ms;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_entry) == 104, "wire");

struct fs_open_reply {
	uint64_t handle; /* never 0 */
	uint32_t flags;	 /* FS_OPEN_* */
	uint32_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_open_reply) == 16, "wire");

#define FS_OPEN_KEEP_CACHE 1u /* the file did not change since this guest last had it */

/* ---- requests and replies ------------------------------------------------------------------- */

/* HELLO: the first frame of every stream, alone in its frame. Reply: fs_hello_reply. */
struct fs_hello {
	uint32_t magic;
	uint16_t version_min;
	uint16_t version_max;
	uint32_t export_id;
	uint32_t stream_kind; /* enum fs_stream_kind */
	uint32_t data_max;    /* the guest's wish, <= FS_DATA_MAX */
	uint32_t channel;     /* 0: none; else the frames after HELLO go over this one, from 1 on */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_hello) == 24, "wire");

enum fs_stream_kind {
	FS_STREAM_REQUESTS = 0,
	FS_STREAM_NOTIFICATIONS = 1, /* carries NOTIFY from the server; at most one per export */
};

struct fs_hello_reply {
	uint16_t version;
	uint16_t reserved;
	uint32_t flags;	   /* FS_EXPORT_* */
	uint32_t data_max; /* in force */
	uint32_t ops_max;
	uint32_t inflight_max;
	uint32_t reserved2;
	struct fs_attr root;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_hello_reply) == 112, "wire");

#define FS_EXPORT_READ_ONLY 1u
#define FS_EXPORT_IMMUTABLE 2u /* the host promises no changes while the session runs */

/* LOOKUP: fs_parent, name. Reply: fs_entry. */
struct fs_parent {
	uint64_t parent;
	uint16_t name_length;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_parent) == 10, "wire");

/* FORGET: fs_forget, then `count` fs_forget_one. No reply body. */
struct fs_forget {
	uint32_t count;
} __attribute__((packed));
struct fs_forget_one {
	uint64_t nodeid;
	uint64_t lookups;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_forget_one) == 16, "wire");

/* A node, and a handle on it or FS_HANDLE_NONE.
 * GETATTR: fs_node. Reply: fs_attr_reply. READLINK: fs_node. Reply: the target's bytes.
 * STATFS: fs_node. Reply: fs_statfs. SYNCFS: fs_node. LISTXATTR: fs_node. Reply: names, each
 * closed by NUL. OPENDIR: fs_node. Reply: fs_open_reply. RELEASE: fs_node (files and
 * directories alike). */
struct fs_node {
	uint64_t nodeid;
	uint64_t handle;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_node) == 16, "wire");

struct fs_attr_reply {
	struct fs_attr attr;
	uint32_t attr_valid_ms;
	uint32_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_attr_reply) == 96, "wire");

/* SETATTR: fs_setattr. Reply: fs_attr_reply. */
struct fs_setattr {
	uint64_t nodeid;
	uint64_t handle;
	uint64_t size;
	int64_t atime_sec;
	int64_t mtime_sec;
	uint32_t atime_nsec;
	uint32_t mtime_nsec;
	uint32_t valid; /* FS_SET_* */
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_setattr) == 64, "wire");

#define FS_SET_MODE 1u
#define FS_SET_UID 2u
#define FS_SET_GID 4u
#define FS_SET_SIZE 8u
#define FS_SET_ATIME 16u
#define FS_SET_MTIME 32u
#define FS_SET_ATIME_NOW 64u
#define FS_SET_MTIME_NOW 128u
#define FS_SET_ALL 255u

/* MKDIR, MKNOD, SYMLINK: fs_make, name, and for SYMLINK the target. Reply: fs_entry.
 * CREATE: fs_make, name. Reply: fs_entry, fs_open_reply.
 * TMPFILE: fs_make with an empty name. Reply: fs_entry, fs_open_reply. */
struct fs_make {
	uint64_t parent;
	uint32_t mode;	/* type (MKNOD) and permissions, the guest's umask already applied */
	uint32_t rdev;	/* MKNOD: must be 0; devices are refused */
	uint32_t flags; /* CREATE, TMPFILE: FS_O_* */
	uint16_t name_length;
	uint16_t target_length; /* SYMLINK alone; else 0 */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_make) == 24, "wire");

/* Open flags, numbered by this protocol and not by an architecture. WRITE without READ opens for
 * writing alone; neither of them, for reading. */
#define FS_O_READ 1u
#define FS_O_WRITE 2u
#define FS_O_APPEND 4u
#define FS_O_TRUNCATE 8u
#define FS_O_EXCLUSIVE 16u
#define FS_O_SYNC 32u
#define FS_O_DSYNC 64u
#define FS_O_ALL 127u

/* UNLINK, RMDIR: fs_parent, name. No reply body. */

/* RENAME: fs_rename, old name, new name. No reply body. */
struct fs_rename {
	uint64_t parent;
	uint64_t new_parent;
	uint32_t flags; /* FS_RENAME_* */
	uint16_t name_length;
	uint16_t new_name_length;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_rename) == 24, "wire");

#define FS_RENAME_NOREPLACE 1u
#define FS_RENAME_EXCHANGE 2u

/* LINK: fs_link, new name. Reply: fs_entry. */
struct fs_link {
	uint64_t nodeid;
	uint64_t new_parent;
	uint16_t name_length;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_link) == 18, "wire");

/* OPEN: fs_open. Reply: fs_open_reply. */
struct fs_open {
	uint64_t nodeid;
	uint32_t flags; /* FS_O_* without EXCLUSIVE */
	uint32_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_open) == 16, "wire");

/* READ: fs_io. Reply: the bytes; fewer than asked only at end of file. A handle of
 * FS_HANDLE_NONE reads the node itself; another must be open for reading.
 * WRITE: fs_io, then `size` bytes. Reply: fs_count. The handle must be open for writing. */
struct fs_io {
	uint64_t nodeid;
	uint64_t handle;
	uint64_t offset;
	uint32_t size;	/* <= the data_max in force */
	uint32_t flags; /* WRITE: FS_IO_* */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_io) == 32, "wire");

#define FS_IO_APPEND 1u /* offset is ignored; the reply to a later GETATTR tells the end */

struct fs_count {
	uint64_t count;
} __attribute__((packed));

/* FSYNC (files and directories): fs_fsync. No reply body. FS_HANDLE_NONE is good. */
struct fs_fsync {
	uint64_t nodeid;
	uint64_t handle;
	uint32_t data_only;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_fsync) == 20, "wire");

/* READDIR: fs_readdir. Reply: as many fs_dirent, each followed by its name, as fit in `size`
 * bytes; none at the end. Offset 0 starts; later ones are the `next` of an entry. `.` and `..`
 * are never listed. With FS_READDIR_PLUS each entry is a lookup (see fs_entry). FS_HANDLE_NONE
 * lists the node itself, OPENDIR or not: offsets are good across both. */
struct fs_readdir {
	uint64_t nodeid;
	uint64_t handle;
	uint64_t offset;
	uint32_t size;	/* <= FS_DATA_MAX */
	uint32_t flags; /* FS_READDIR_* */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_readdir) == 32, "wire");

#define FS_READDIR_PLUS 1u

struct fs_dirent {
	uint64_t next; /* offset of the entry after this one */
	uint64_t ino;
	uint32_t type; /* d_type */
	uint16_t name_length;
	uint16_t has_entry; /* 1: an fs_entry follows this struct, before the name */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_dirent) == 24, "wire");

struct fs_statfs {
	uint64_t blocks;
	uint64_t blocks_free;
	uint64_t blocks_available;
	uint64_t files;
	uint64_t files_free;
	uint32_t block_size;
	uint32_t name_max;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_statfs) == 48, "wire");

/* GETXATTR, SETXATTR, REMOVEXATTR: fs_xattr, name, and for SETXATTR `value_length` bytes.
 * GETXATTR replies with the value's bytes. Only user.* names get past the server. */
struct fs_xattr {
	uint64_t nodeid;
	uint32_t flags; /* SETXATTR: FS_XATTR_* */
	uint32_t value_length;
	uint16_t name_length;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_xattr) == 18, "wire");

#define FS_XATTR_CREATE 1u
#define FS_XATTR_REPLACE 2u

/* FALLOCATE: fs_fallocate. No reply body. */
struct fs_fallocate {
	uint64_t nodeid;
	uint64_t handle;
	uint64_t offset;
	uint64_t length;
	uint32_t mode; /* FS_FALLOCATE_* */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_fallocate) == 36, "wire");

#define FS_FALLOCATE_KEEP_SIZE 1u
#define FS_FALLOCATE_PUNCH_HOLE 2u /* with KEEP_SIZE */
#define FS_FALLOCATE_ZERO_RANGE 4u

/* LSEEK (regular files): fs_lseek. Reply: fs_count (the offset). FS_HANDLE_NONE is good. */
struct fs_lseek {
	uint64_t nodeid;
	uint64_t handle;
	uint64_t offset;
	uint32_t whence; /* FS_SEEK_* */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_lseek) == 28, "wire");

#define FS_SEEK_DATA 0u
#define FS_SEEK_HOLE 1u

/* COPY_RANGE: fs_copy_range. Reply: fs_count. The source takes FS_HANDLE_NONE; the target needs a
 * handle open for writing. */
struct fs_copy_range {
	uint64_t source_nodeid;
	uint64_t source_handle;
	uint64_t source_offset;
	uint64_t target_nodeid;
	uint64_t target_handle;
	uint64_t target_offset;
	uint64_t length;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_copy_range) == 56, "wire");

/* NOTIFY, server to guest, tag 0, one operation or more in a frame: fs_notify, name. What the
 * guest has cached of it is stale. */
struct fs_notify {
	uint32_t what; /* enum fs_notify_what */
	uint16_t name_length;
	uint16_t reserved;
	uint64_t nodeid; /* INODE: the node; ENTRY: the parent */
} __attribute__((packed));
_Static_assert(sizeof(struct fs_notify) == 16, "wire");

enum fs_notify_what {
	FS_NOTIFY_INODE = 1,	  /* attributes and data */
	FS_NOTIFY_ENTRY = 2,	  /* the name in the parent, positive or negative */
	FS_NOTIFY_EVERYTHING = 3, /* the server lost track */
};

/* GOODBYE, server to guest, tag 0, last frame of a stream: fs_goodbye, text. */
struct fs_goodbye {
	uint32_t reason; /* enum fs_goodbye_reason */
	uint16_t text_length;
} __attribute__((packed));
_Static_assert(sizeof(struct fs_goodbye) == 6, "wire");

enum fs_goodbye_reason {
	FS_GOODBYE_SHUTDOWN = 1,
	FS_GOODBYE_PROTOCOL = 2, /* the guest broke the protocol; the session is over */
	FS_GOODBYE_QUOTA = 3,
	FS_GOODBYE_VERSION = 4,
};

/* ---- decoding ------------------------------------------------------------------------------- */

/* Every request operation in one form: fixed struct plus borrowed variable parts. */
struct fs_request {
	enum fs_opcode opcode;
	union {
		struct fs_hello hello;
		struct fs_parent parent; /* LOOKUP UNLINK RMDIR */
		struct fs_node node; /* GETATTR READLINK STATFS SYNCFS LISTXATTR OPENDIR RELEASE */
		struct fs_setattr setattr;
		struct fs_make make; /* MKDIR MKNOD SYMLINK CREATE TMPFILE */
		struct fs_rename rename;
		struct fs_link link;
		struct fs_open open;
		struct fs_io io; /* READ WRITE */
		struct fs_fsync fsync;
		struct fs_readdir readdir;
		struct fs_xattr xattr;
		struct fs_fallocate fallocate;
		struct fs_lseek lseek;
		struct fs_copy_range copy_range;
		struct fs_forget forget;
	};
	/* Copies, NUL-terminated; a name holds no '/', no NUL, and is not "", "." or "..". */
	char name[FS_NAME_MAX + 1];
	char new_name[FS_NAME_MAX + 1];
	char target[FS_TARGET_MAX + 1]; /* SYMLINK */
	const uint8_t *data;		/* WRITE, SETXATTR value, FORGET's entries: borrowed */
	size_t data_length;
};

/* Checks a frame header by itself: length within [sizeof header + one op, FS_FRAME_MAX], count
 * within 1..FS_OPS_MAX, known flags. Returns 0 or -EBADMSG. */
int fs_frame_check(const struct fs_frame *frame);

/* Decodes the next operation of a frame's body. Returns 0; -EBADMSG when the bytes are not an
 * operation at all (the session must end); or another negative errno that is this operation's
 * own answer: -EINVAL (bad name, unknown flag), -ENAMETOOLONG, -ENOSYS (unknown opcode, body
 * skipped), -E2BIG (xattr). *ret is filled as far as known; opcode always. */
int fs_request_decode(struct byte_reader *body, struct fs_request *ret);

/* 0, -EINVAL or -ENAMETOOLONG: is this one path component? */
int fs_name_check(const void *name, size_t length);

const char *fs_opcode_name(enum fs_opcode opcode);

#endif
