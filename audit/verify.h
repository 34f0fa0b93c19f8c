/*
 * Whether a log is what its writer wrote: each line parses, the sequence numbers run from 1
 * without a gap, each record holds the hash of the one before, and the head agrees about the
 * end. The first record that fails is named.
 *
 * What this cannot tell is on the page docs/audit-log.md, "What the chain proves".
 */
#ifndef AUDIT_VERIFY_H
#define AUDIT_VERIFY_H

#include "audit/digest.h"

#include <stdbool.h>
#include <stdint.h>

enum verdict_reason {
	VERDICT_INTACT = 0,
	VERDICT_PARSE,	   /* the line is no record */
	VERDICT_SEQUENCE,  /* a record is missing, repeated or out of order */
	VERDICT_LINK,	   /* the next record, or the head, holds another hash */
	VERDICT_TRUNCATED, /* the line ends early although the head counts it */
	VERDICT_MISSING,   /* the head counts records that are not there */
	VERDICT_HEAD,	   /* no head, or a malformed one */
	VERDICT_EXPECTED,  /* the last hash is not the one the caller noted */
	VERDICT_AFTER_END, /* the log is closed, yet more follows its last record */
};

struct verdict {
	enum verdict_reason reason;
	uint64_t records;   /* that are intact, from the first on */
	uint64_t first_bad; /* sequence number; 0 when intact */
	uint64_t found;	    /* VERDICT_SEQUENCE: the number found; VERDICT_MISSING: the head's */
	bool closed;
	/* Not closed: bytes of a record that was being written when the writer ended. */
	uint64_t incomplete_bytes;
	uint64_t complete_bytes;   /* of the file up to there */
	uint8_t hash[DIGEST_SIZE]; /* of the last intact record */
};

/* Reads the log from the descriptor's position, which must be the start of the file; `head_fd` is
 * -1 when there is none. `expected` is NULL or a hash that the last record must have. Returns 0
 * with the verdict, or a negative errno when the log could not be read at all. */
int verify_log(int log_fd, int head_fd, const uint8_t *expected, struct verdict *ret_verdict);

/* "link", for JSON. */
const char *verdict_reason_name(enum verdict_reason reason);
/* One line for a person, without newline. */
void verdict_text(const struct verdict *verdict, char *text, size_t size);

#endif
