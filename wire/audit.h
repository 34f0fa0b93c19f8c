/*
 * Audit events: what the host daemons tell the audit process, which alone writes the log.
 *
 * One event is one datagram on a SOCK_SEQPACKET Unix socket, at most AUDIT_EVENT_MAX bytes:
 *
 *     u16 version (AUDIT_VERSION)   u16 kind (enum audit_kind)   u16 field count   u16 zero
 *     then each field:  u16 id (enum audit_field)   u16 type (enum audit_type)   u32 length
 *                       length bytes
 *
 * A field id appears at most once. Text is whatever bytes a guest chose: the audit process
 * escapes it. The audit process adds sequence number, times and the hash chain. Producers hold
 * the sending end, never the log. docs/audit-log.md gives the JSON that each kind becomes.
 */
#ifndef WIRE_AUDIT_H
#define WIRE_AUDIT_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUDIT_VERSION 1
#define AUDIT_EVENT_MAX 32768
#define AUDIT_TEXT_MAX 8192
#define AUDIT_FIELDS_MAX 32

enum audit_kind {
	AUDIT_SESSION_START = 1, /* session, command, workspace, engine, image, user */
	AUDIT_POLICY = 2,	 /* path (or "built-in"), sha256, rules */
	AUDIT_JAIL = 3,		 /* component, detail: what is in force */
	AUDIT_EXEC = 4,		 /* command, cwd, user, pid */
	AUDIT_EXIT = 5,		 /* pid, status | signal, duration_ns */
	AUDIT_MUTATION = 6,  /* operation, path, path2?, bytes?, before?, after?, export, mode? */
	AUDIT_DENIAL = 7,    /* files: operation, path, path2?, rule, reason, hint, export, count;
			      * network: operation, host, port, method?, path?, protocol?, rule,
			      * reason, hint, sent, secrets? */
	AUDIT_VIOLATION = 8, /* component, detail: what the peer did on the wire */
	AUDIT_ROLLBACK = 9,  /* restored, removed, kept, failed, detail */
	AUDIT_SESSION_END = 10, /* reason, status, detail */
	AUDIT_NOTICE = 11,	/* component, detail */
	AUDIT_REQUEST = 12,	/* host, port, address?, protocol, method, path, status?, reason?,
				 * sent, received, duration_ns, rule, secrets? */
	AUDIT_CONNECTION = 13,	/* operation, host, port, address?, protocol, reason?, sent,
				 * received, duration_ns, rule, secrets? */
	AUDIT_GRANT = 14,	/* operation, rule: a port, or a host while the session runs */
	AUDIT_CANARY = 15,	/* as a denial of the network: a decoy of --canary was sent */
};

/* The JSON key of each field is its name in lower case. */
enum audit_field {
	AUDIT_FIELD_SESSION = 1,
	AUDIT_FIELD_COMMAND = 2,
	AUDIT_FIELD_WORKSPACE = 3,
	AUDIT_FIELD_ENGINE = 4,
	AUDIT_FIELD_IMAGE = 5,
	AUDIT_FIELD_USER = 6,
	AUDIT_FIELD_PATH = 7,
	AUDIT_FIELD_PATH2 = 8,
	AUDIT_FIELD_SHA256 = 9,
	AUDIT_FIELD_RULES = 10,
	AUDIT_FIELD_COMPONENT = 11,
	AUDIT_FIELD_DETAIL = 12,
	AUDIT_FIELD_CWD = 13,
	AUDIT_FIELD_PID = 14,
	AUDIT_FIELD_STATUS = 15,
	AUDIT_FIELD_SIGNAL = 16,
	AUDIT_FIELD_DURATION_NS = 17,
	AUDIT_FIELD_OPERATION = 18,
	AUDIT_FIELD_BYTES = 19,
	AUDIT_FIELD_BEFORE = 20,
	AUDIT_FIELD_AFTER = 21,
	AUDIT_FIELD_EXPORT = 22,
	AUDIT_FIELD_MODE = 23,
	AUDIT_FIELD_RULE = 24,
	AUDIT_FIELD_REASON = 25,
	AUDIT_FIELD_HINT = 26,
	AUDIT_FIELD_COUNT = 27,
	AUDIT_FIELD_RESTORED = 28,
	AUDIT_FIELD_REMOVED = 29,
	AUDIT_FIELD_KEPT = 30,
	AUDIT_FIELD_FAILED = 31,
	AUDIT_FIELD_HOST = 32,
	AUDIT_FIELD_PORT = 33,
	AUDIT_FIELD_ADDRESS = 34,
	AUDIT_FIELD_PROTOCOL = 35,
	AUDIT_FIELD_METHOD = 36,
	AUDIT_FIELD_SENT = 37, /* bytes that left, out of the guest */
	AUDIT_FIELD_RECEIVED = 38,
	AUDIT_FIELD_SECRETS = 39, /* names, with commas */
};

enum audit_type {
	AUDIT_TYPE_NUMBER = 1, /* length 8, unsigned */
	AUDIT_TYPE_TEXT = 2,   /* 0..AUDIT_TEXT_MAX bytes */
};

/* An event under construction; about 32 KiB, so keep one per daemon rather than one per call. */
struct audit_event {
	uint8_t data[AUDIT_EVENT_MAX];
	struct byte_writer writer;
	uint16_t field_count;
};

void audit_event_begin(struct audit_event *event, enum audit_kind kind);
void audit_event_number(struct audit_event *event, enum audit_field field, uint64_t value);
/* Text over AUDIT_TEXT_MAX is cut there. NULL adds nothing. */
void audit_event_text(struct audit_event *event, enum audit_field field, const char *text);
void audit_event_bytes(struct audit_event *event, enum audit_field field, const void *data,
		       size_t length);
/* The finished datagram in *ret_data (inside the event). False when it overflowed. */
bool audit_event_finish(struct audit_event *event, const void **ret_data, size_t *ret_length);
/* Finishes it and sends it over the SOCK_SEQPACKET `socket`; on a blocking one, a log that is
 * behind slows the caller, and loses nothing. 0, -EMSGSIZE when it overflowed, or another negative
 * errno. */
int audit_event_send(struct audit_event *event, int socket);
/* The same for what audit_event_finish() gave. 0 or a negative errno. */
int audit_send(int socket, const void *data, size_t length);

struct audit_field_view {
	enum audit_field field;
	enum audit_type type;
	uint64_t number;
	const char *text; /* not NUL-terminated; inside the datagram */
	size_t text_length;
};

struct audit_event_view {
	enum audit_kind kind;
	uint16_t field_count;
	struct audit_field_view fields[AUDIT_FIELDS_MAX];
};

/* Decodes one datagram. Returns 0, or -EBADMSG for anything not of the form above. The view
 * borrows from `data`. */
int audit_event_decode(const void *data, size_t length, struct audit_event_view *ret_view);

/* Lower-case names for JSON ("mutation", "path"); NULL for unknown numbers. */
const char *audit_kind_name(enum audit_kind kind);
const char *audit_field_name(enum audit_field field);

#endif
