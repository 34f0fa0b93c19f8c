/*
 * Lines of a log, one after the other, in bounded memory: a line that is longer than a record
 * can be is handed out as "too long" and skipped, never held. The file may grow meanwhile.
 */
#ifndef AUDIT_LINE_READER_H
#define AUDIT_LINE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct line_reader;

enum line_state {
	LINE_WHOLE,    /* ended by a newline */
	LINE_TOO_LONG, /* its first bytes; the rest is skipped */
	LINE_PARTIAL,  /* the file ends without a newline; another call may find it whole */
	LINE_NONE,     /* end of file */
};

struct line {
	enum line_state state;
	const char *text; /* without the newline; valid until the next call */
	size_t length;
	uint64_t offset; /* in the file */
};

/* Reads from `fd`, which stays the caller's, from its present position. NULL: out of memory. */
struct line_reader *line_reader_new(int fd);
void line_reader_free(struct line_reader *reader);

/* 0 or a negative errno of read(). */
int line_reader_next(struct line_reader *reader, struct line *ret_line);

#endif
