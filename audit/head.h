/*
 * The head of a log, a file beside it: how many records there are and the hash of the last one.
 * Without it the end of a hash chain could be cut off unnoticed.
 *
 *	{"seq":N,"hash":"64 hexadecimal digits","closed":false}
 *
 * padded with spaces to HEAD_SIZE bytes, the last a newline. It is rewritten in place by one
 * pwrite() after each batch of records, so that it never runs ahead of the log; a writer that is
 * killed leaves it at most one batch behind. "closed" turns true with the last record of a
 * session. For audit.jsonl the head is audit.head.
 */
#ifndef AUDIT_HEAD_H
#define AUDIT_HEAD_H

#include "audit/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_SIZE 128
#define LOG_NAME "audit.jsonl"
#define HEAD_NAME "audit.head"

struct head {
	uint64_t sequence; /* of the last record; 0 when there is none */
	bool closed;
	uint8_t hash[DIGEST_SIZE]; /* of the last record's line; zeros when there is none */
};

void head_format(const struct head *head, char text[HEAD_SIZE]);
/* 0, or -EBADMSG for anything that head_format() does not write. */
int head_parse(const char *text, size_t length, struct head *ret_head);

/* 0 or a negative errno; -EBADMSG when the file holds no head. */
int head_read(int fd, struct head *ret_head);
int head_write(int fd, const struct head *head);

#endif
