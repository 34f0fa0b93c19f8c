/*
 * Runs a byte_automaton over a stream as it is, and at the same time over what the stream says when
 * percent-escapes, JSON's escapes, or both are undone, whole or in part.
 *
 * The caller keeps a window: the bytes from where the scanner last said up to what has arrived. It
 * says as well where each match lies in the stream, escapes included.
 */
#ifndef PROXY_FORM_SCANNER_H
#define PROXY_FORM_SCANNER_H

#include "proxy/byte_automaton.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FORM_ESCAPE_PERCENT 0x1u /* %41 (RFC 3986 section 2.1) */
#define FORM_ESCAPE_JSON 0x2u	 /* \/ and \u0041 (RFC 8259 section 7) */
#define FORM_VIEWS 4		 /* every set of the two, by its number; 0 is the stream itself */

/* Longest escape, in bytes: no match takes more than that many times its pattern's length. */
#define FORM_ESCAPE_MAX 6

/* What an automaton for this must stop at. */
extern const struct byte_stop form_escape_stops[];

struct form_match {
	uint32_t tag;
	unsigned escapes; /* FORM_ESCAPE_*: which were undone to find it */
	uint64_t start;	  /* in the stream */
	uint64_t end;	  /* one past its last byte */
};

struct form_cursor {
	uint64_t position; /* of the next byte to read */
	uint64_t start;	   /* of what may become a match; `position` when nothing does */
	uint32_t state;
};

struct form_scanner {
	const struct byte_automaton *automaton; /* borrowed */
	struct form_cursor cursors[FORM_VIEWS];
	unsigned apart; /* views that do not stand where the first does, a bit each */
};

struct form_window {
	const uint8_t *data;
	size_t length;
	uint64_t offset; /* of data[0] in the stream */
};

typedef void (*form_match_function)(void *context, const struct form_match *match);

/* False for a whole text in which a scanner would find nothing. */
bool form_scanner_is_needed(const struct byte_automaton *automaton, const void *text,
			    size_t length);
void form_scanner_init(struct form_scanner *scanner, const struct byte_automaton *automaton);
/* Reads on to the end of the window and tells each match to `function` in the order of their ends
 * (the same place may be told more than once). Returns the offset from which the next window has to
 * begin: what lies before it can be part of no further match. With `is_last` that is the end. */
uint64_t form_scanner_run(struct form_scanner *scanner, const struct form_window *window,
			  bool is_last, form_match_function function, void *context);

/* Depth of the deepest state that any view is in. */
size_t form_scanner_depth(const struct form_scanner *scanner);
/* What would be a match in that view if the stream went on so: as much of it as has come, of one of
 * the patterns that begin so. Returns its length in tokens, or 0 for none. Behind its end there may
 * be an escape that has come in part. */
size_t form_scanner_beginning(const struct form_scanner *scanner, unsigned view,
			      struct form_match *ret_match);

/* Reads one token: a byte, or an escape of the kinds in `escapes`. Returns its length, its value in
 * *ret_byte (0xff for what is not ASCII); or 0 when `length` bytes do not tell. */
size_t form_token(const uint8_t *data, size_t length, unsigned escapes, bool is_last,
		  uint8_t *ret_byte);
/* Writes `byte` in the form and length of the token at `target`, of which form_token() told
 * `token_length`. What has no escape of that length (only \u and % have all) becomes the byte and
 * filling. */
void form_token_write(uint8_t *target, size_t token_length, uint8_t byte);

#endif
