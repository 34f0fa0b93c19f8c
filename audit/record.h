/*
 * One record of the log: a line of JSON in exactly one possible form.
 *
 *	{"seq":N,"mono_ns":N,"time":"2026-11-20T18:55:00.123456789Z","kind":"mutation",
 *	 FIELDS,"escaped":["path"],"prev":"64 hexadecimal digits"}
 *
 * without any white space. FIELDS come in the order in which the producer sent them; numbers are
 * decimal without leading zeros; "escaped" is there only when a field has that form
 * (audit/text.h). "prev" is the SHA-256 of the line before, without its newline, and 64 zeros in
 * the first. Because the form is unique the parser takes nothing else, and what it took
 * can be printed: it holds no control character. docs/audit-log.md is the page about it.
 */
#ifndef AUDIT_RECORD_H
#define AUDIT_RECORD_H

#include "audit/digest.h"
#include "base/bytes.h"
#include "wire/audit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Longest line with its newline: every byte of an event at its worst growth, and the frame. */
#define RECORD_LINE_MAX (AUDIT_EVENT_MAX * 6 + 1024)
#define RECORD_TIME_LENGTH 30

struct record_encoder;

/* Returns NULL when memory is out. */
struct record_encoder *record_encoder_new(void);
void record_encoder_free(struct record_encoder *encoder);

struct record_stamp {
	uint64_t sequence;
	uint64_t monotonic_ns;
	uint64_t realtime_ns; /* since 1970 */
	const uint8_t *previous;
};

/* Appends one line with its newline to `writer`; check byte_writer_ok() there, which holds when
 * RECORD_LINE_MAX bytes were free. */
void record_encode(struct record_encoder *encoder, const struct audit_event_view *event,
		   const struct record_stamp *stamp, struct byte_writer *writer);

struct record_field {
	enum audit_field field;
	enum audit_type type;
	bool escaped;
	uint64_t number;
	const char *body; /* of the JSON string, inside the line */
	size_t body_length;
};

struct record {
	uint64_t sequence;
	uint64_t monotonic_ns;
	const char *time; /* RECORD_TIME_LENGTH characters inside the line */
	enum audit_kind kind;
	uint16_t field_count;
	struct record_field fields[AUDIT_FIELDS_MAX];
	uint8_t previous[DIGEST_SIZE];
};

/* Parses a line without its newline. 0, or -EBADMSG for anything not of the form above. The
 * record borrows from `line`. */
int record_parse(const char *line, size_t length, struct record *ret_record);

/* NULL when the record has no such field. */
const struct record_field *record_find(const struct record *record, enum audit_field field);

/* Room for the bytes of any field. */
#define RECORD_TEXT_MAX RECORD_LINE_MAX

/* The bytes of a text field as the guest chose them, into `output` with RECORD_TEXT_MAX bytes.
 * Returns their count or -EBADMSG. */
ssize_t record_text(const struct record_field *field, char *output);

/* "2026-11-20T18:55:00.123456789Z", RECORD_TIME_LENGTH characters and a NUL. Years beyond 9999
 * are written as 9999. */
void record_format_time(uint64_t realtime_ns, char text[RECORD_TIME_LENGTH + 1]);

#endif
