#include "base/escape.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

size_t utf8_decode(const char *text, size_t length, uint32_t *ret_code_point)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *bytes = (const unsigned char *)text;
	uint32_t code_point;
	size_t count;

	if (length == 0)
		return 0;
	if (bytes[0] < 0x80) {
		*ret_code_point = bytes[0];
		return 1;
	}
	if ((bytes[0] & 0xe0) == 0xc0)
		count = 2;
	else if ((bytes[0] & 0xf0) == 0xe0)
		count = 3;
	else if ((bytes[0] & 0xf8) == 0xf0)
		count = 4;
	else
		return 0;
	if (count > length)
		return 0;
	code_point = bytes[0] & (0xffu >> (count + 1));
	for (size_t i = 1; i < count; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
		code_point = code_point << 6 | (bytes[i] & 0x3fu);
	}
	if (code_point < smallest[count] || code_point > 0x10ffff ||
	    (code_point >= 0xd800 && code_point <= 0xdfff))
		return 0;
	*ret_code_point = code_point;
	return count;
}

/* Characters that move the cursor, reorder the line or end it. */
bool escape_is_unsafe(uint32_t code_point)
{
	return code_point < 0x20 || (code_point >= 0x7f && code_point <= 0x9f) ||
	       code_point == 0x061c || (code_point >= 0x200b && code_point <= 0x200f) ||
	       (code_point >= 0x2028 && code_point <= 0x202e) ||
	       (code_point >= 0x2060 && code_point <= 0x2069) || code_point == 0xfeff;
}

static bool is_plain(char byte)
{
	return byte >= 0x20 && byte < 0x7f && byte != '\\';
}

size_t escape_text(const char *text, size_t length, char *output, size_t capacity)
{
	size_t used = 0;
	size_t i = 0;

	while (i < length) {
		uint32_t code_point = 0;
		size_t count;
		char piece[16];
		size_t piece_length;

		if (is_plain(text[i])) {
			if (capacity - used <= 1)
				break;
			output[used++] = text[i++];
			continue;
		}
		count = utf8_decode(text + i, length - i, &code_point);
		if (count == 0) {
			snprintf(piece, sizeof(piece), "\\x%02x", (unsigned char)text[i]);
			count = 1;
		} else if (code_point == '\n') {
			snprintf(piece, sizeof(piece), "\\n");
		} else if (code_point == '\t') {
			snprintf(piece, sizeof(piece), "\\t");
		} else if (code_point == '\\') {
			snprintf(piece, sizeof(piece), "\\\\");
		} else if (escape_is_unsafe(code_point) && code_point < 0x80) {
			snprintf(piece, sizeof(piece), "\\x%02x", (unsigned)code_point);
		} else if (escape_is_unsafe(code_point)) {
			snprintf(piece, sizeof(piece), "\\u{%04x}", (unsigned)code_point);
		} else {
			memcpy(piece, text + i, count);
			piece[count] = '\0';
		}
		piece_length = strlen(piece);
		if (piece_length >= capacity - used)
			break;
		memcpy(output + used, piece, piece_length);
		used += piece_length;
		i += count;
	}
	output[used] = '\0';
	return used;
}

/* The value of 1..6 hexadecimal digits as escape_text() writes them; -1 for anything else. */
static int32_t hexadecimal(const char *text, size_t length)
{
	int32_t value = 0;

	if (length == 0 || length > 6)
		return -1;
	for (size_t i = 0; i < length; i++) {
		char digit = text[i];

		if (digit >= '0' && digit <= '9')
			value = value * 16 + (digit - '0');
		else if (digit >= 'a' && digit <= 'f')
			value = value * 16 + (digit - 'a' + 10);
		else
			return -1;
	}
	return value;
}

/* UTF-8 of a code point below 0x10000, which all that need \u{} are. */
static size_t put_utf8(uint32_t code_point, char *output)
{
	if (code_point < 0x800) {
		output[0] = (char)(0xc0 | code_point >> 6);
		output[1] = (char)(0x80 | (code_point & 0x3f));
		return 2;
	}
	output[0] = (char)(0xe0 | code_point >> 12);
	output[1] = (char)(0x80 | (code_point >> 6 & 0x3f));
	output[2] = (char)(0x80 | (code_point & 0x3f));
	return 3;
}

/* One escape at text[0] == '\\'. Returns its length, 0 when it is none; adds to output. */
static size_t unescape_one(const char *text, size_t length, char *output, size_t *used)
{
	const char *end;
	int32_t value;

	if (length < 2)
		return 0;
	if (text[1] == 'n' || text[1] == 't' || text[1] == '\\') {
		output[(*used)++] = text[1] == 'n' ? '\n' : text[1] == 't' ? '\t' : '\\';
		return 2;
	}
	if (text[1] == 'x' && length >= 4) {
		value = hexadecimal(text + 2, 2);
		if (value < 0)
			return 0;
		output[(*used)++] = (char)value;
		return 4;
	}
	if (text[1] != 'u' || length < 4 || text[2] != '{')
		return 0;
	end = memchr(text + 3, '}', length - 3);
	value = end ? hexadecimal(text + 3, (size_t)(end - (text + 3))) : -1;
	if (value < 0x80 || value > 0xffff || !escape_is_unsafe((uint32_t)value))
		return 0;
	*used += put_utf8((uint32_t)value, output + *used);
	return (size_t)(end - text) + 1;
}

ssize_t unescape_text(const char *text, size_t length, char *output)
{
	size_t used = 0;
	size_t i = 0;

	while (i < length) {
		size_t count;

		if (text[i] != '\\') {
			output[used++] = text[i++];
			continue;
		}
		count = unescape_one(text + i, length - i, output, &used);
		if (count == 0)
			return -EBADMSG;
		i += count;
	}
	return (ssize_t)used;
}
