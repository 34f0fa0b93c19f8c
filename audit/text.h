/*
 * Text of unknown make in JSON strings, both ways.
 *
 * The log may hold no raw control character, no terminal escape, no markup and no bidirectional
 * control, whatever a guest put into a name; and the bytes must come back exactly.
 *
 *   well-formed UTF-8 without NUL   a JSON string. Besides what JSON demands, DEL, C1, the
 *                                   characters of escape_is_unsafe() and < > & are \uXXXX.
 *   anything else                   the form of base/escape.h (\xff for a byte) as a JSON
 *                                   string; the record lists the field under "escaped".
 *
 * Sources: RFC 8259 section 7; base/escape.h.
 */
#ifndef AUDIT_TEXT_H
#define AUDIT_TEXT_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Most output bytes for one input byte, quotes not counted: \u003c. */
#define TEXT_GROWTH_MAX 6

/* Well-formed UTF-8 without NUL, so that a JSON string can hold it as it is. */
bool text_is_plain(const char *text, size_t length);

/* Writes the string with its quotes. `text` must be plain. */
void text_put_json(struct byte_writer *writer, const char *text, size_t length);

/* Length of the JSON string body at text[0..length), up to and without the closing quote, or
 * -EBADMSG when it does not end or holds what text_put_json() never writes. */
ssize_t text_scan_json(const char *text, size_t length);

/* The value of a scanned body, into `output` with room for `length` bytes. Returns its length
 * or -EBADMSG. */
ssize_t text_get_json(const char *body, size_t length, char *output);

#endif
