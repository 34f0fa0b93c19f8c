#include "audit/text.h"

#include "base/escape.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* Characters that stand for themselves in a string of the log. */
static bool is_simple(unsigned char byte)
{
	return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\' && byte != '<' &&
	       byte != '>' && byte != '&';
}

static size_t simple_run(const char *text, size_t length)
{
	size_t i = 0;

	while (i < length && is_simple((unsigned char)text[i]))
		i++;
	return i;
}

bool text_is_plain(const char *text, size_t length)
{
	size_t i = simple_run(text, length);

	while (i < length) {
		uint32_t code_point;
		size_t count = utf8_decode(text + i, length - i, &code_point);

		if (count == 0 || code_point == 0)
			return false;
		i += count;
		i += simple_run(text + i, length - i);
	}
	return true;
}

static void put_unicode(struct byte_writer *writer, uint32_t code_point)
{
	static const char digits[] = "0123456789abcdef";
	char escape[6] = { '\\', 'u' };

	for (int i = 0; i < 4; i++)
		escape[2 + i] = digits[code_point >> (12 - 4 * i) & 15];
	byte_writer_bytes(writer, escape, sizeof(escape));
}

/* One character that is not simple. Returns the bytes consumed. */
static size_t put_special(struct byte_writer *writer, const char *text, size_t length)
{
	uint32_t code_point = 0;
	size_t count = utf8_decode(text, length, &code_point);

	switch (code_point) {
	case '"':
		byte_writer_bytes(writer, "\\\"", 2);
		break;
	case '\\':
		byte_writer_bytes(writer, "\\\\", 2);
		break;
	case '\n':
		byte_writer_bytes(writer, "\\n", 2);
		break;
	case '\t':
		byte_writer_bytes(writer, "\\t", 2);
		break;
	case '<':
	case '>':
	case '&':
		put_unicode(writer, code_point);
		break;
	default:
		/* Every unsafe code point is below 0x10000. */
		if (escape_is_unsafe(code_point))
			put_unicode(writer, code_point);
		else
			byte_writer_bytes(writer, text, count);
	}
	return count > 0 ? count : 1;
}

void text_put_json(struct byte_writer *writer, const char *text, size_t length)
{
	size_t i = 0;

	byte_writer_bytes(writer, "\"", 1);
	while (i < length) {
		size_t run = simple_run(text + i, length - i);

		if (run > 0)
			byte_writer_bytes(writer, text + i, run);
		i += run;
		if (i < length)
			i += put_special(writer, text + i, length - i);
	}
	byte_writer_bytes(writer, "\"", 1);
}

/* The code point of four lower-case hexadecimal digits; -1 for anything else. */
static int32_t four_digits(const char *text)
{
	int32_t value = 0;

	for (int i = 0; i < 4; i++) {
		if (text[i] >= '0' && text[i] <= '9')
			value = value * 16 + (text[i] - '0');
		else if (text[i] >= 'a' && text[i] <= 'f')
			value = value * 16 + (text[i] - 'a' + 10);
		else
			return -1;
	}
	return value;
}

/* Length of the escape at text[0] == '\\' and its code point; 0 when text_put_json() would not
 * have written it. */
static size_t scan_escape(const char *text, size_t length, uint32_t *ret_code_point)
{
	int32_t value;

	if (length < 2)
		return 0;
	switch (text[1]) {
	case '"':
	case '\\':
		*ret_code_point = (uint32_t)(unsigned char)text[1];
		return 2;
	case 'n':
		*ret_code_point = '\n';
		return 2;
	case 't':
		*ret_code_point = '\t';
		return 2;
	case 'u':
		value = length >= 6 ? four_digits(text + 2) : -1;
		if (value <= 0 || (value != '<' && value != '>' && value != '&' &&
				   !escape_is_unsafe((uint32_t)value)))
			return 0;
		*ret_code_point = (uint32_t)value;
		return 6;
	default:
		return 0;
	}
}

ssize_t text_scan_json(const char *text, size_t length)
{
	size_t i = 0;

	for (;;) {
		uint32_t code_point;
		size_t count;

		i += simple_run(text + i, length - i);
		if (i >= length)
			return -EBADMSG;
		if (text[i] == '"')
			return (ssize_t)i;
		if (text[i] == '\\') {
			count = scan_escape(text + i, length - i, &code_point);
		} else {
			count = utf8_decode(text + i, length - i, &code_point);
			if (count > 0 && (code_point < 0x80 || escape_is_unsafe(code_point)))
				count = 0;
		}
		if (count == 0)
			return -EBADMSG;
		i += count;
	}
}

ssize_t text_get_json(const char *body, size_t length, char *output)
{
	size_t used = 0;
	size_t i = 0;

	while (i < length) {
		uint32_t code_point;
		size_t count;

		if (body[i] != '\\') {
			output[used++] = body[i++];
			continue;
		}
		count = scan_escape(body + i, length - i, &code_point);
		if (count == 0)
			return -EBADMSG;
		i += count;
		if (code_point < 0x80) {
			output[used++] = (char)code_point;
		} else if (code_point < 0x800) {
			output[used++] = (char)(0xc0 | code_point >> 6);
			output[used++] = (char)(0x80 | (code_point & 0x3f));
		} else {
			output[used++] = (char)(0xe0 | code_point >> 12);
			output[used++] = (char)(0x80 | (code_point >> 6 & 0x3f));
			output[used++] = (char)(0x80 | (code_point & 0x3f));
		}
	}
	return (ssize_t)used;
}
