#include "proxy/host_name.h"

#include <errno.h>
#include <string.h>

#define LABEL_MAX 63u

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_hex_digit(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f');
}

/* The lower-case form of a character of a label, or 0. */
static char label_character(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c - 'A' + 'a');
	if ((c >= 'a' && c <= 'z') || is_digit(c) || c == '-' || c == '_')
		return c;
	return 0;
}

static bool is_number(const char *label, size_t length)
{
	bool (*is_wanted)(char) = is_digit;
	size_t i = 0;

	if (length >= 2 && label[0] == '0' && label[1] == 'x') {
		is_wanted = is_hex_digit;
		i = 2;
	}
	for (; i < length; i++) {
		if (!is_wanted(label[i]))
			return false;
	}
	return true;
}

/* Where the last label of text[0..length) begins. */
static size_t last_label(const char *text, size_t length)
{
	while (length > 0 && text[length - 1] != '.')
		length--;
	return length;
}

static bool is_label(const char *label, size_t length)
{
	return length > 0 && length <= LABEL_MAX && label[0] != '-' && label[length - 1] != '-';
}

static bool has_only_labels(const char *text, size_t length)
{
	size_t begin = 0;

	for (size_t i = 0; i <= length; i++) {
		if (i < length && text[i] != '.')
			continue;
		if (!is_label(text + begin, i - begin))
			return false;
		begin = i + 1;
	}
	return true;
}

/* Two colons or a bracket: no name and no name with a port is like that. */
static bool is_address_with_colons(const char *data, size_t length)
{
	const char *colon = memchr(data, ':', length);

	return data[0] == '[' ||
	       (colon && memchr(colon + 1, ':', length - (size_t)(colon + 1 - data)));
}

int host_name_parse(const char *data, size_t length, struct host_name *ret_name)
{
	struct host_name name = { .length = 0 };
	size_t last;

	if (length > 0 && is_address_with_colons(data, length))
		return -ENOTSUP;
	if (length > 0 && data[length - 1] == '.')
		length--;
	if (length == 0 || length > HOST_NAME_MAX_LENGTH)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		name.text[i] = data[i] == '.' ? '.' : label_character(data[i]);
		if (!name.text[i])
			return -EINVAL;
	}
	if (!has_only_labels(name.text, length))
		return -EINVAL;
	last = last_label(name.text, length);
	if (is_number(name.text + last, length - last))
		return -ENOTSUP;
	name.length = (uint8_t)length;
	*ret_name = name;
	return 0;
}

bool host_name_equal(const struct host_name *a, const struct host_name *b)
{
	return a->length == b->length && memcmp(a->text, b->text, a->length) == 0;
}

bool host_name_is_under(const struct host_name *name, const char *domain)
{
	size_t length = strlen(domain);
	size_t above = (size_t)name->length - length;

	return name->length >= length && memcmp(name->text + above, domain, length) == 0 &&
	       (above == 0 || name->text[above - 1] == '.');
}

static int parse_port(const char *data, size_t length, uint16_t *ret_port)
{
	uint32_t port = 0;

	if (length == 0 || length > 5 || data[0] == '0')
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (!is_digit(data[i]))
			return -EINVAL;
		port = port * 10 + (uint32_t)(data[i] - '0');
	}
	if (port > UINT16_MAX)
		return -EINVAL;
	*ret_port = (uint16_t)port;
	return 0;
}

int authority_parse(const char *data, size_t length, uint16_t default_port,
		    struct host_name *ret_name, uint16_t *ret_port)
{
	const char *colon;
	struct host_name name;
	uint16_t port = default_port;
	int error;

	if (length == 0)
		return -EINVAL;
	if (is_address_with_colons(data, length))
		return memchr(data, '@', length) ? -EINVAL : -ENOTSUP;
	colon = memchr(data, ':', length);
	error = host_name_parse(data, colon ? (size_t)(colon - data) : length, &name);
	if (!error && colon)
		error = parse_port(colon + 1, length - (size_t)(colon + 1 - data), &port);
	if (error)
		return error;
	*ret_name = name;
	*ret_port = port;
	return 0;
}
