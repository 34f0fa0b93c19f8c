#include "proxy/http_syntax.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* tchar (RFC 9110 section 5.6.2), a bit for each of ASCII. */
static bool is_tchar(unsigned char byte)
{
	static const uint32_t allowed[4] = {
		0, 0x03ff6cfau, /* !#$%&'*+-. and digits */
		0xc7fffffeu,	/* letters, ^ and _ */
		0x57ffffffu,	/* ` and letters, | and ~ */
	};

	return byte < 128 && (allowed[byte / 32] >> byte % 32 & 1);
}

bool http_is_token(const char *data, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (!is_tchar((unsigned char)data[i]))
			return false;
	}
	return length > 0;
}

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t';
}

bool http_is_field_value(const char *data, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)data[i];

		if ((byte < 0x20 && byte != '\t') || byte == 0x7f)
			return false;
	}
	return length == 0 || (!is_blank(data[0]) && !is_blank(data[length - 1]));
}

bool http_is_target(const char *data, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (data[i] <= 0x20 || data[i] >= 0x7f || data[i] == '#')
			return false;
	}
	return length > 0;
}

bool http_parse_length(struct http_text text, uint64_t *ret_length)
{
	uint64_t length = 0;

	if (text.length == 0 || text.length > 19)
		return false;
	for (size_t i = 0; i < text.length; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		length = length * 10 + (uint64_t)(text.data[i] - '0');
	}
	if (length > INT64_MAX)
		return false;
	*ret_length = length;
	return true;
}

int http_head_length(const struct http_head *head, bool *ret_has_length, uint64_t *ret_length)
{
	ssize_t index = http_head_find(head, "content-length", 0);
	uint64_t length;
	uint64_t other;

	if (index < 0) {
		*ret_has_length = false;
		*ret_length = 0;
		return 0;
	}
	if (!http_parse_length(http_head_field(head, (size_t)index).value, &length))
		return -EBADMSG;
	while ((index = http_head_find(head, "content-length", (size_t)index + 1)) >= 0) {
		if (!http_parse_length(http_head_field(head, (size_t)index).value, &other) ||
		    other != length)
			return -EBADMSG;
	}
	*ret_has_length = true;
	*ret_length = length;
	return 0;
}

bool http_head_lists(const struct http_head *head, const char *name, const char *element)
{
	ssize_t index = -1;

	while ((index = http_head_find(head, name, (size_t)(index + 1))) >= 0) {
		struct http_text list = http_head_field(head, (size_t)index).value;
		struct http_text item;

		while (http_text_next_element(&list, &item)) {
			if (http_text_is(item, element))
				return true;
		}
	}
	return false;
}

static bool is_of_connection(struct http_text name)
{
	return http_text_is(name, "connection") || http_text_is(name, "keep-alive") ||
	       http_text_is(name, "proxy-connection") || http_text_is(name, "transfer-encoding") ||
	       http_text_is(name, "te") || http_text_is(name, "trailer") ||
	       http_text_is(name, "upgrade") || http_text_is(name, "http2-settings") ||
	       http_text_is(name, "expect") || http_text_is(name, "host") ||
	       http_text_is(name, "content-length") || http_text_is(name, "proxy-authorization");
}

/* The options that Connection lists (RFC 9110 section 7.6.1), one after the other. */
struct connection_options {
	const struct http_head *head;
	size_t next; /* field */
	struct http_text list;
};

static bool next_option(struct connection_options *options, struct http_text *ret_option)
{
	while (!http_text_next_element(&options->list, ret_option)) {
		ssize_t index = http_head_find(options->head, "connection", options->next);

		if (index < 0)
			return false;
		options->list = http_head_field(options->head, (size_t)index).value;
		options->next = (size_t)index + 1;
	}
	return true;
}

static bool lists_others(const struct http_head *head)
{
	struct connection_options options = { .head = head };
	struct http_text option;

	while (next_option(&options, &option)) {
		if (!is_of_connection(option))
			return true;
	}
	return false;
}

static bool is_listed(const struct http_head *head, struct http_text name)
{
	struct connection_options options = { .head = head };
	struct http_text option;

	while (next_option(&options, &option)) {
		if (option.length == name.length &&
		    strncasecmp(option.data, name.data, name.length) == 0)
			return true;
	}
	return false;
}

void http_head_drop_connection_fields(struct http_head *head)
{
	bool has_others = lists_others(head);
	size_t index = http_head_field_count(head);

	/* Connection itself goes last: the others are judged by it. */
	while (index-- > 0) {
		struct http_text name = http_head_field(head, index).name;

		if (!http_text_is(name, "connection") &&
		    (is_of_connection(name) || (has_others && is_listed(head, name))))
			http_head_remove(head, index);
	}
	http_head_remove_all(head, "connection");
}

const char *http_reason(unsigned status)
{
	static const struct {
		unsigned status;
		const char *reason;
	} reasons[] = {
		{ 100, "Continue" },
		{ 101, "Switching Protocols" },
		{ 103, "Early Hints" },
		{ 200, "OK" },
		{ 201, "Created" },
		{ 202, "Accepted" },
		{ 204, "No Content" },
		{ 206, "Partial Content" },
		{ 301, "Moved Permanently" },
		{ 302, "Found" },
		{ 303, "See Other" },
		{ 304, "Not Modified" },
		{ 307, "Temporary Redirect" },
		{ 308, "Permanent Redirect" },
		{ 400, "Bad Request" },
		{ 401, "Unauthorized" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 409, "Conflict" },
		{ 413, "Content Too Large" },
		{ 416, "Range Not Satisfiable" },
		{ 417, "Expectation Failed" },
		{ 421, "Misdirected Request" },
		{ 422, "Unprocessable Content" },
		{ 426, "Upgrade Required" },
		{ 429, "Too Many Requests" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 502, "Bad Gateway" },
		{ 503, "Service Unavailable" },
		{ 504, "Gateway Timeout" },
	};

	for (size_t i = 0; i < ARRAY_LENGTH(reasons); i++) {
		if (reasons[i].status == status)
			return reasons[i].reason;
	}
	return "";
}
