/*
 * The agent protocol: how the host configures the guest and runs commands in it.
 *
 * guest-init dials the host (CID 2). AGENT_CONTROL_PORT carries one connection of frames both
 * ways; AGENT_STREAM_PORT carries one connection for each standard stream of each command,
 * which begins with a struct agent_hello and is raw bytes from then on. docs/protocol-agent.md
 * is the description in prose, with the order of messages.
 *
 * A frame is a header (u32 payload length, u16 type, u16 zero) and its payload. All integers
 * are little-endian. A text is u32 length, the bytes, and a closing NUL that the length does not
 * count; it has no NUL inside. A list of texts is u32 count, u32 size, and `size` bytes that
 * hold exactly `count` NUL-terminated strings. Decoded texts therefore are C strings that borrow
 * from the frame, and decoding allocates nothing.
 *
 * Decoders return 0, or -EBADMSG for anything that is not exactly of the form given here; the
 * result is untouched then. Encoders write a whole frame and return its length, or 0 when it
 * does not fit `capacity` or breaks a limit.
 */
#ifndef WIRE_AGENT_H
#define WIRE_AGENT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AGENT_VERSION 4

#define AGENT_CONTROL_PORT 1024
#define AGENT_STREAM_PORT 1025
#define AGENT_FILES_PORT 1026 /* guest-fused */

/* In the kernel's command line, and so in the environment of its first process: where the window
 * that the file server shares lies in the guest's physical memory, as ADDRESS:SIZE:PORT. A byte
 * written to the I/O port wakes the server; with port 0 its streams do. */
#define AGENT_WINDOW_VARIABLE "matchlock_window"
/* Likewise: how the machine is turned off, as PORT:BYTE, where a write to an I/O port does. Without
 * it the guest's kernel knows how. */
#define AGENT_POWER_VARIABLE "matchlock_power"
/* A port: the host stores the guest when a byte is written there, and later guests go on from it.
 * Or AGENT_SNAPSHOT_SLEEP: it does so when the guest suspends to RAM. */
#define AGENT_SNAPSHOT_VARIABLE "matchlock_snapshot"
#define AGENT_SNAPSHOT_SLEEP "sleep"

#define AGENT_HEADER_SIZE 8
/* Largest payloads, in bytes. What the guest sends is small; an EXEC carries an environment. */
#define AGENT_TO_HOST_MAX 4096
#define AGENT_TO_GUEST_MAX (4U << 20)
#define AGENT_TO_HOST_FRAME_MAX (AGENT_HEADER_SIZE + AGENT_TO_HOST_MAX)
#define AGENT_TO_GUEST_FRAME_MAX (AGENT_HEADER_SIZE + AGENT_TO_GUEST_MAX)

#define AGENT_NAME_MAX 255  /* host name, user, group, time zone */
#define AGENT_PATH_MAX 4095 /* home, cwd, mount target */
#define AGENT_TEXT_MAX 1023 /* error texts, mount options */
#define AGENT_CERTIFICATE_MAX 8192
#define AGENT_MOUNTS_MAX 64
#define AGENT_FILES_MAX 8
#define AGENT_FILE_SIZE_MAX 65536
#define AGENT_GROUPS_MAX 256
#define AGENT_STRINGS_MAX 65536 /* in one list */
#define AGENT_ENTROPY_SIZE 64
/* Commands that run at the same time. */
#define AGENT_EXECS_MAX 32

enum agent_type {
	/* guest to host */
	AGENT_READY = 1,
	AGENT_CONFIGURED = 2,
	AGENT_FAILED = 3,
	AGENT_STARTED = 4,
	AGENT_EXEC_FAILED = 5,
	AGENT_EXITED = 6,
	AGENT_NOTICE = 7,
	/* host to guest */
	AGENT_CONFIG = 64,
	AGENT_EXEC = 65,
	AGENT_RESIZE = 66,
	AGENT_SIGNAL = 67,
	AGENT_KILL = 68,
	AGENT_SHUTDOWN = 69,
};

struct agent_header {
	uint32_t length; /* of the payload */
	uint16_t type;
};

/* First bytes of each connection to AGENT_STREAM_PORT, as they are on the wire. */
#define AGENT_HELLO_MAGIC 0x306b4c4dU /* "MLk0" */
struct agent_hello {
	uint32_t magic;
	uint32_t exec_id;
	uint32_t stream; /* enum agent_stream */
	uint32_t zero;
};
static_assert(sizeof(struct agent_hello) == 16, "wire format");

enum agent_stream {
	AGENT_STREAM_STDIN = 0,
	AGENT_STREAM_STDOUT = 1,
	AGENT_STREAM_STDERR = 2,
	AGENT_STREAM_PTY = 3, /* both ways; takes the place of the other three */
};
#define AGENT_STREAMS 4

/* ---- guest to host ---------------------------------------------------------------------- */

struct agent_ready {
	uint32_t version;
	uint64_t uptime_ns; /* guest's monotonic clock */
	const char *kernel; /* release */
};

struct agent_configured {
	uint64_t uptime_ns;
};

/* The guest cannot go on. May come at any time after READY; the guest powers off next. */
struct agent_failed {
	uint32_t error;	   /* errno, or 0 */
	const char *stage; /* what was being done: "mount", "modules", "guest-fused" */
	const char *text;
};

struct agent_started {
	uint32_t exec_id;
	uint32_t pid;
};

enum agent_exec_stage {
	AGENT_STAGE_LIMIT = 1,	 /* too many commands at once, or the id is in use */
	AGENT_STAGE_STREAMS = 2, /* pipes, pty, dialling */
	AGENT_STAGE_PROCESS = 3, /* fork, cgroup */
	AGENT_STAGE_USER = 4,	 /* setgroups, setgid, setuid */
	AGENT_STAGE_CWD = 5,
	AGENT_STAGE_EXEC = 6,
};

struct agent_exec_failed {
	uint32_t exec_id;
	uint32_t stage; /* enum agent_exec_stage */
	uint32_t error; /* errno */
};

enum agent_exit_kind {
	AGENT_EXIT_STATUS = 1, /* code is 0..255 */
	AGENT_EXIT_SIGNAL = 2, /* code is the signal, 1..64 */
};

struct agent_exited {
	uint32_t exec_id;
	uint32_t kind; /* enum agent_exit_kind */
	uint32_t code;
	uint64_t user_ns;
	uint64_t system_ns;
	uint64_t max_rss_bytes;
};

struct agent_notice {
	const char *text;
};

/* ---- host to guest ---------------------------------------------------------------------- */

enum agent_mount_kind {
	/* The export becomes the lower layer of the root; what the guest writes goes to memory.
	 * At most one, and first. Without it the root is the initramfs. */
	AGENT_MOUNT_IMAGE = 1,
	AGENT_MOUNT_EXPORT = 2, /* served by guest-fused */
	AGENT_MOUNT_TMPFS = 3,	/* fresh and empty, with mode, uid and gid */
};

#define AGENT_MOUNT_READ_ONLY 1U
#define AGENT_MOUNT_FILE 2U /* the export's root is a regular file, not a directory */
#define AGENT_MOUNT_FLAGS 3U

struct agent_mount {
	uint32_t kind;
	uint32_t flags;
	uint32_t export_id; /* of IMAGE and EXPORT */
	uint32_t mode;	    /* of TMPFS; permission bits */
	uint32_t uid;
	uint32_t gid;
	const char *target;  /* absolute, without . or .. ; "/" for IMAGE */
	const char *options; /* of TMPFS: mount(8) options such as "size=1g"; otherwise empty */
};

/* Nothing carries traffic out: /etc/resolv.conf is replaced so that lookups fail at once. */
#define AGENT_CONFIG_NO_NETWORK 1U
/* Connections and DNS queries are carried to the host (wire/egress.h). */
#define AGENT_CONFIG_NETWORK 2U
/* Where the guest then has the certificate, and a bundle of all that is trusted. */
#define AGENT_TRUST_CERTIFICATE "/run/matchlock/ca.pem"
#define AGENT_TRUST_BUNDLE "/run/matchlock/ca-bundle.pem"
#define AGENT_CONFIG_FLAGS 3U /* not both */

/* Written for the caller in the layer of memory, with directories on the way to it that are the
 * caller's alone; what stands there already stays. */
struct agent_file {
	uint32_t mode;	  /* permission bits */
	const char *path; /* absolute; below the caller's home */
	const void *data;
	uint32_t size;
};

struct agent_config {
	int64_t clock_seconds; /* wall clock, since 1970 */
	uint32_t clock_nanoseconds;
	uint32_t flags;
	uint32_t uid; /* the caller: gets lines in /etc/passwd and /etc/group if missing there */
	uint32_t gid;
	const char *user;
	const char *group;
	const char *home; /* absolute; what passwd says of a user that had to be added */
	const char *hostname;
	const char *time_zone; /* "Europe/Berlin": /etc/localtime is linked to it; "" leaves it */
	uint8_t entropy[AGENT_ENTROPY_SIZE];
	/* A certificate authority for the guest's programs to trust, PEM; "" without one. */
	const char *certificate;
	uint32_t certificate_hash; /* of its subject, as OpenSSL's directories are named by */
	uint32_t mount_count;
	struct agent_mount mounts[AGENT_MOUNTS_MAX];
	uint32_t file_count;
	struct agent_file files[AGENT_FILES_MAX];
};

/* `count` NUL-terminated strings one after the other. */
struct agent_strings {
	uint32_t count;
	uint32_t size;
	const char *bytes;
};

#define AGENT_EXEC_PTY 1U   /* one AGENT_STREAM_PTY instead of three streams */
#define AGENT_EXEC_STDIN 2U /* without it standard input is /dev/null; implied by PTY */
#define AGENT_EXEC_FLAGS 3U

struct agent_exec {
	uint32_t exec_id; /* chosen by the host; not in use */
	uint32_t flags;
	uint32_t uid;
	uint32_t gid;
	uint32_t umask;
	uint16_t rows; /* of the pty */
	uint16_t columns;
	const char *cwd; /* absolute */
	uint32_t group_count;
	uint32_t groups[AGENT_GROUPS_MAX]; /* supplementary */
	struct agent_strings arguments;	   /* at least one; the first is looked up in PATH */
	struct agent_strings environment;  /* whole; nothing is added */
};

struct agent_resize {
	uint32_t exec_id;
	uint16_t rows;
	uint16_t columns;
};

/* To the command's process group, as a terminal's keys do, instead of its first process. */
#define AGENT_SIGNAL_GROUP 1U

struct agent_signal {
	uint32_t exec_id;
	uint32_t signal; /* 1..64, Linux numbers */
	uint32_t flags;
};

/* ---- frames ----------------------------------------------------------------------------- */

/* Looks at the first AGENT_HEADER_SIZE bytes of a frame. -EBADMSG when the payload would be over
 * `payload_max` or the reserved field is not zero. */
int agent_decode_header(const uint8_t *data, size_t payload_max, struct agent_header *ret_header);

/* Payload decoders: `data` is the payload alone and must outlive the result. */
int agent_decode_ready(const void *data, size_t length, struct agent_ready *ret_ready);
int agent_decode_configured(const void *data, size_t length,
			    struct agent_configured *ret_configured);
int agent_decode_failed(const void *data, size_t length, struct agent_failed *ret_failed);
int agent_decode_started(const void *data, size_t length, struct agent_started *ret_started);
int agent_decode_exec_failed(const void *data, size_t length, struct agent_exec_failed *ret_failed);
int agent_decode_exited(const void *data, size_t length, struct agent_exited *ret_exited);
int agent_decode_notice(const void *data, size_t length, struct agent_notice *ret_notice);
int agent_decode_config(const void *data, size_t length, struct agent_config *ret_config);
int agent_decode_exec(const void *data, size_t length, struct agent_exec *ret_exec);
int agent_decode_resize(const void *data, size_t length, struct agent_resize *ret_resize);
int agent_decode_signal(const void *data, size_t length, struct agent_signal *ret_signal);
int agent_decode_kill(const void *data, size_t length, uint32_t *ret_exec_id);
int agent_decode_shutdown(const void *data, size_t length);
/* `data` is sizeof(struct agent_hello) bytes as received. */
int agent_decode_hello(const void *data, struct agent_hello *ret_hello);

/* Frame encoders. Texts over their limit are refused, except those of FAILED and NOTICE, which
 * are cut. */
size_t agent_encode_ready(void *buffer, size_t capacity, const struct agent_ready *ready);
size_t agent_encode_configured(void *buffer, size_t capacity,
			       const struct agent_configured *configured);
size_t agent_encode_failed(void *buffer, size_t capacity, const struct agent_failed *failed);
size_t agent_encode_started(void *buffer, size_t capacity, const struct agent_started *started);
size_t agent_encode_exec_failed(void *buffer, size_t capacity,
				const struct agent_exec_failed *failed);
size_t agent_encode_exited(void *buffer, size_t capacity, const struct agent_exited *exited);
size_t agent_encode_notice(void *buffer, size_t capacity, const struct agent_notice *notice);
size_t agent_encode_config(void *buffer, size_t capacity, const struct agent_config *config);
/* Takes the lists from the NULL-terminated `arguments` and `environment`, not from `exec`. */
size_t agent_encode_exec(void *buffer, size_t capacity, const struct agent_exec *exec,
			 const char *const *arguments, const char *const *environment);
size_t agent_encode_resize(void *buffer, size_t capacity, const struct agent_resize *resize);
size_t agent_encode_signal(void *buffer, size_t capacity, const struct agent_signal *signal);
size_t agent_encode_kill(void *buffer, size_t capacity, uint32_t exec_id);
size_t agent_encode_shutdown(void *buffer, size_t capacity);
void agent_encode_hello(void *buffer, uint32_t exec_id, enum agent_stream stream);

/* Steps through a decoded list: *position starts at 0; NULL at the end. */
const char *agent_strings_next(const struct agent_strings *strings, uint32_t *position);

#endif
