/*
 * The only writer of a log: sequence numbers, times, hash chain, head, and the size quota.
 *
 * Records gather in memory and reach the file in few writes: log_writer_flush() or a full batch
 * (BATCH_SIZE) writes them, then the head. Nothing is lost silently: a record that the quota
 * keeps out is counted, the first of each class is announced in the log, and the counts stand
 * before the last record.
 *
 * Quota: mutations, requests and connections stop at `max_bytes`. Then a reserve of max_bytes / 16
 * (at least RESERVE_MIN) remains: denials, violations and the like may use its first half, exits,
 * rollbacks and the start of a session all of it. The writer's own notices and the last record
 * are always written; there are at most a dozen of these per open.
 */
#ifndef AUDIT_LOG_WRITER_H
#define AUDIT_LOG_WRITER_H

#include "wire/audit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_MAX_BYTES_DEFAULT (UINT64_C(256) << 20)
#define LOG_MAX_BYTES_LEAST (UINT64_C(64) << 10)
#define RESERVE_MIN (UINT64_C(1) << 20)
#define BATCH_SIZE 65536

struct log_writer;

/*
 * Creates or continues audit.jsonl and audit.head in the directory. An existing log is verified
 * first; bytes of an incomplete last record, which a killed writer leaves, are cut off and the
 * log says so. Descriptors are close-on-exec and belong to the writer.
 * Errors: -EBUSY another writer has the log; -EBADMSG the log does not verify (reason on one line
 * in `explanation`, 256 bytes); -EPERM it is not a plain file of this user's with one name;
 * others from the system.
 */
int log_writer_open(int directory_fd, uint64_t max_bytes, struct log_writer **ret_writer,
		    char *explanation);
/* Does not flush. NULL is fine. */
void log_writer_free(struct log_writer *writer);

/* The descriptors to keep in the jail. */
int log_writer_log_fd(const struct log_writer *writer);
int log_writer_head_fd(const struct log_writer *writer);

/* Adds one record stamped with the present time. A session_end is kept back until
 * log_writer_close(), so that it is the last; a second one is answered with -EEXIST and becomes
 * no record. 0 or the negative errno of a write: the log is then incomplete, and nothing but
 * ending makes sense. */
int log_writer_add(struct log_writer *writer, const struct audit_event_view *event);
/* A record of the audit process itself: component "audit" and this detail. */
int log_writer_note(struct log_writer *writer, enum audit_kind kind, const char *detail);

int log_writer_flush(struct log_writer *writer);
/* Writes the counts of what the quota kept out and the session_end (one of its own when no
 * producer sent any), marks the head closed and waits for the disk. */
int log_writer_close(struct log_writer *writer);

uint64_t log_writer_records(const struct log_writer *writer);

#endif
