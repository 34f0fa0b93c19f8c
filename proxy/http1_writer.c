#include "proxy/http1_writer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Lines that the writer adds itself: framing, connection and the status. */
#define OWN_LINES_MAX 512u

/* A cursor over room that was reserved for everything, so that nothing can fail on the way. */
struct cursor {
	char *at;
	size_t length;
};

static void put(struct cursor *cursor, const char *data, size_t length)
{
	if (length > 0)
		memcpy(cursor->at + cursor->length, data, length);
	cursor->length += length;
}

static void put_text(struct cursor *cursor, const char *text)
{
	put(cursor, text, strlen(text));
}

static void put_number(struct cursor *cursor, uint64_t number)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	put(cursor, digits + at, sizeof(digits) - at);
}

static void put_field(struct cursor *cursor, struct http_text name, struct http_text value)
{
	put(cursor, name.data, name.length);
	put_text(cursor, ": ");
	put(cursor, value.data, value.length);
	put_text(cursor, "\r\n");
}

static void put_fields(struct cursor *cursor, const struct http_head *head)
{
	size_t count = http_head_field_count(head);

	for (size_t i = 0; i < count; i++) {
		struct http_field field = http_head_field(head, i);

		put_field(cursor, field.name, field.value);
	}
}

static void put_connection(struct cursor *cursor, const struct http1_options *options)
{
	if (options->framing.kind == HTTP_FRAMING_CHUNKED) {
		put_text(cursor, "Transfer-Encoding: chunked\r\n");
	} else if (options->framing.has_length) {
		put_text(cursor, "Content-Length: ");
		put_number(cursor, options->framing.length);
		put_text(cursor, "\r\n");
	}
	if (options->upgrade) {
		put_text(cursor, "Connection: Upgrade\r\nUpgrade: ");
		put_text(cursor, options->upgrade);
		put_text(cursor, "\r\n");
	} else if (options->accepts_trailers) {
		put_text(cursor, "TE: trailers\r\nConnection: TE");
		put_text(cursor, options->closes ? ", close\r\n" : "\r\n");
	} else if (options->closes) {
		put_text(cursor, "Connection: close\r\n");
	} else if (options->is_old) {
		put_text(cursor, "Connection: keep-alive\r\n");
	}
}

/* Room for a head however it is written. */
static int begin(struct byte_buffer *out, const struct http_head *head, struct cursor *ret_cursor)
{
	uint8_t *space;
	int error = byte_buffer_reserve(
		out, http_head_size(head) + 4 * http_head_field_count(head) + OWN_LINES_MAX,
		&space);

	if (!error)
		*ret_cursor = (struct cursor){ .at = (char *)space };
	return error;
}

int http1_write_request(struct byte_buffer *out, const struct http_head *head,
			const struct http1_options *options)
{
	struct http_text method = http_head_method(head);
	struct http_text path = http_head_path(head);
	struct cursor cursor;
	int error = begin(out, head, &cursor);

	if (error)
		return error;
	put(&cursor, method.data, method.length);
	put_text(&cursor, " ");
	put(&cursor, path.data, path.length);
	put_text(&cursor, " HTTP/1.1\r\n");
	put_field(&cursor, (struct http_text){ "Host", 4 }, http_head_authority(head));
	put_fields(&cursor, head);
	put_connection(&cursor, options);
	put_text(&cursor, "\r\n");
	byte_buffer_commit(out, cursor.length);
	return 0;
}

int http1_write_response(struct byte_buffer *out, const struct http_head *head,
			 const struct http1_options *options)
{
	unsigned status = http_head_status(head);
	const char digits[] = { (char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10),
				(char)('0' + status % 10) };
	struct cursor cursor;
	int error = begin(out, head, &cursor);

	if (error)
		return error;
	put_text(&cursor, "HTTP/1.1 ");
	put(&cursor, digits, sizeof(digits));
	put_text(&cursor, " ");
	put_text(&cursor, http_reason(status));
	put_text(&cursor, "\r\n");
	put_fields(&cursor, head);
	put_connection(&cursor, options);
	put_text(&cursor, "\r\n");
	byte_buffer_commit(out, cursor.length);
	return 0;
}

int http1_write_chunk(struct byte_buffer *out, const uint8_t *data, size_t length)
{
	uint8_t *space;
	int error = byte_buffer_reserve(out, length + HTTP1_CHUNK_OVERHEAD, &space);
	struct cursor cursor;
	char line[HTTP1_CHUNK_OVERHEAD];

	if (error)
		return error;
	cursor = (struct cursor){ .at = (char *)space };
	snprintf(line, sizeof(line), "%zx\r\n", length);
	put_text(&cursor, line);
	put(&cursor, (const char *)data, length);
	put_text(&cursor, "\r\n");
	byte_buffer_commit(out, cursor.length);
	return 0;
}

int http1_write_last_chunk(struct byte_buffer *out, const struct http_head *trailers)
{
	struct cursor cursor;
	uint8_t *space;
	int error;

	if (!trailers)
		return byte_buffer_append(out, "0\r\n\r\n", 5);
	error = byte_buffer_reserve(
		out, http_head_size(trailers) + 4 * http_head_field_count(trailers) + 5, &space);
	if (error)
		return error;
	cursor = (struct cursor){ .at = (char *)space };
	put_text(&cursor, "0\r\n");
	put_fields(&cursor, trailers);
	put_text(&cursor, "\r\n");
	byte_buffer_commit(out, cursor.length);
	return 0;
}
