#include "proxy/secret_forms.h"

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
