/*
 * The forms in which a text can lie in other text, as byte patterns: itself, base64, hexadecimal.
 * Escapes (percent, JSON) are undone by form_scanner, which then looks for these.
 *
 * In base64 (RFC 4648 section 4) a text looks different for each of the three places at which it
 * may begin in a group of three bytes. A form holds the characters that the text alone determines:
 * where it does not begin or end with a group, the first or last character also has bits of what is
 * beside it, and is left out. Either alphabet is found, by byte_automaton's equal bytes; padding is
 * outside.
 */
#ifndef PROXY_SECRET_FORMS_H
#define PROXY_SECRET_FORMS_H

#include "proxy/form_scanner.h"

#include <stddef.h>
#include <stdint.h>

enum secret_form {
	SECRET_FORM_RAW,
	SECRET_FORM_BASE64_0, /* at the beginning of a group */
	SECRET_FORM_BASE64_1, /* one byte later */
	SECRET_FORM_BASE64_2,
	SECRET_FORM_HEX_LOWER,
	SECRET_FORM_HEX_UPPER,
	SECRET_FORM_COUNT,
};

/* Characters in the form of a text of `length` bytes. */
size_t secret_form_length(enum secret_form form, size_t length);
/* The character at `index` < secret_form_length(); base64 in its first alphabet. */
uint8_t secret_form_character(enum secret_form form, const char *text, size_t length, size_t index);

/* Writes `text`, which differs from what was matched in letters and digits alone, over a match, in
 * the match's form and escapes, so that the length stays. The match has the tag N *
 * SECRET_FORM_COUNT + form; it lies as it was received at `source`, and as it is to be at `target`,
 * which may hold other replacements. */
void secret_form_replace(const struct form_match *match, const uint8_t *source, uint8_t *target,
			 const char *text, size_t length);
/* Behind the beginning of a match, of `index` characters: writes what has come of the escape of its
 * next character, `cut` bytes at `target`. */
void secret_form_replace_cut(const struct form_match *match, size_t index, uint8_t *target,
			     size_t cut, const char *text, size_t length);

#endif
