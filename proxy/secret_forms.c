#include "proxy/secret_forms.h"

#include <stdbool.h>
#include <string.h>

static const char base64_alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Bytes of the group before the text. */
static size_t base64_shift(enum secret_form form)
{
	return (size_t)(form - SECRET_FORM_BASE64_0);
}

/* The first character of the group that has bits of the text alone. */
static size_t base64_first(enum secret_form form)
{
	return (8 * base64_shift(form) + 5) / 6;
}

size_t secret_form_length(enum secret_form form, size_t length)
{
	switch (form) {
	case SECRET_FORM_BASE64_0:
	case SECRET_FORM_BASE64_1:
	case SECRET_FORM_BASE64_2:
		return 8 * (base64_shift(form) + length) / 6 - base64_first(form);
	case SECRET_FORM_HEX_LOWER:
	case SECRET_FORM_HEX_UPPER:
		return 2 * length;
	case SECRET_FORM_RAW:
	case SECRET_FORM_COUNT:
		break;
	}
	return length;
}

static uint8_t base64_character(enum secret_form form, const char *text, size_t length,
				size_t index)
{
	size_t bit = 6 * (base64_first(form) + index) - 8 * base64_shift(form);
	size_t byte = bit / 8;
	unsigned pair = (unsigned)(uint8_t)text[byte] << 8;

	if (byte + 1 < length)
		pair |= (uint8_t)text[byte + 1];
	return (uint8_t)base64_alphabet[(pair >> (10 - bit % 8)) & 63];
}

uint8_t secret_form_character(enum secret_form form, const char *text, size_t length, size_t index)
{
	unsigned nibble;

	switch (form) {
	case SECRET_FORM_BASE64_0:
	case SECRET_FORM_BASE64_1:
	case SECRET_FORM_BASE64_2:
		return base64_character(form, text, length, index);
	case SECRET_FORM_HEX_LOWER:
	case SECRET_FORM_HEX_UPPER:
		nibble = (uint8_t)text[index / 2];
		nibble = index % 2 == 0 ? nibble >> 4 : nibble & 15;
		return (uint8_t)(form == SECRET_FORM_HEX_LOWER ? "0123456789abcdef"[nibble]
							       : "0123456789ABCDEF"[nibble]);
	case SECRET_FORM_RAW:
	case SECRET_FORM_COUNT:
		break;
	}
	return (uint8_t)text[index];
}

static bool is_letter_or_digit(uint8_t byte)
{
	return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
	       (byte >= '0' && byte <= '9');
}

/* Base64 in the alphabet of URLs, where this match shows that it is. */
static bool has_url_alphabet(const uint8_t *text, size_t length)
{
	return memchr(text, '-', length) || memchr(text, '_', length);
}

static uint8_t in_url_alphabet(uint8_t byte)
{
	if (byte == '+')
		return '-';
	return byte == '/' ? '_' : byte;
}

void secret_form_replace(const struct form_match *match, const uint8_t *source, uint8_t *target,
			 const char *tail, size_t length)
{
	enum secret_form form = (enum secret_form)(match->tag % SECRET_FORM_COUNT);
	size_t count = secret_form_length(form, length);
	size_t size = (size_t)(match->end - match->start);
	bool is_raw = form == SECRET_FORM_RAW;
	bool for_url = !is_raw && has_url_alphabet(source, size);

	for (size_t i = 0, at = 0; i < count && at < size; i++) {
		uint8_t ignored;
		uint8_t byte = secret_form_character(form, tail, length, i);
		size_t step = match->escapes == 0 ? 1
						  : form_token(source + at, size - at,
							       match->escapes, true, &ignored);

		/* Other characters are the same in both, and may be written as an equal one. */
		if (!is_raw || is_letter_or_digit(byte))
			form_token_write(target + at, step, for_url ? in_url_alphabet(byte) : byte);
		at += step;
	}
}

void secret_form_replace_cut(const struct form_match *match, size_t index, uint8_t *target,
			     size_t cut, const char *tail, size_t length)
{
	enum secret_form form = (enum secret_form)(match->tag % SECRET_FORM_COUNT);
	uint8_t escape[FORM_ESCAPE_MAX] = "%00";
	size_t size = 3;

	if (cut > 1 && target[0] == '\\') {
		memcpy(escape, "\\u0000", FORM_ESCAPE_MAX);
		size = FORM_ESCAPE_MAX;
	}
	if (cut < 2 || cut >= size || index >= secret_form_length(form, length))
		return;
	form_token_write(escape, size, secret_form_character(form, tail, length, index));
	memcpy(target, escape, cut);
}
