/*
 * Makes text that a guest had a hand in safe to print: control characters (C0, DEL, C1), bytes
 * that are not well-formed UTF-8, and the Unicode bidirectional and line-separator controls come
 * out as \n, \t, \xHH or \u{HHHH}. Backslash itself is doubled, so the form is reversible.
 */
#ifndef BASE_ESCAPE_H
#define BASE_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Writes the escaped form of text[0..length) with a closing NUL; cut (never inside an escape) to
 * fit `capacity` >= 1 bytes. Returns the length written without the NUL. A worst-case input byte
 * takes four output bytes. */
size_t escape_text(const char *text, size_t length, char *output, size_t capacity);

/* Whether the code point is one that escape_text() never lets through raw, backslash apart. */
bool escape_is_unsafe(uint32_t code_point);

/* The bytes that escape_text() was given, from its form: reads text[0..length) into `output`,
 * which has room for `length` bytes. Returns their count, or -EBADMSG for text that
 * escape_text() does not write. */
ssize_t unescape_text(const char *text, size_t length, char *output);

/* Length in bytes (1..4) of the well-formed UTF-8 sequence at text[0..length), its code point
 * in *ret_code_point; 0 when there is none. Source: Unicode 15, table 3-7. */
size_t utf8_decode(const char *text, size_t length, uint32_t *ret_code_point);

#endif
