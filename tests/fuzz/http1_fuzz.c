/*
 * HTTP/1 messages as the broker reads and writes them, against llhttp (Debian's node-llhttp), which
 * is what node's servers read with.
 *
 * The first byte chooses request or response and how much arrives at once; the rest is a stream of
 * messages. Every message that is taken must be one that llhttp, where it takes it too, reads the
 * same: method, target, fields and body, and where the next one begins. Written anew it must be one
 * message to both. What llhttp refuses and we take is nothing to smuggle with.
 */
#include "base/checked.h"
#include "proxy/http1_body.h"
#include "proxy/http1_parser.h"
#include "proxy/http1_writer.h"

#include <llhttp/llhttp.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGES_MAX 4u

/* One message as either parser saw it: lines of text, and the body. */
struct seen {
	struct byte_buffer lines;
	struct byte_buffer body;
	size_t end; /* offset in the stream behind it */
	bool complete;
};

struct reading {
	struct seen messages[MESSAGES_MAX];
	size_t count;
	const char *start; /* llhttp's */
	bool in_trailers;
};

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void reading_init(struct reading *reading)
{
	*reading = (struct reading){ 0 };
	for (size_t i = 0; i < MESSAGES_MAX; i++) {
		byte_buffer_init(&reading->messages[i].lines, 1u << 20);
		byte_buffer_init(&reading->messages[i].body, 1u << 20);
	}
}

static void reading_release(struct reading *reading)
{
	for (size_t i = 0; i < MESSAGES_MAX; i++) {
		byte_buffer_release(&reading->messages[i].lines);
		byte_buffer_release(&reading->messages[i].body);
	}
}

static void put(struct byte_buffer *buffer, const void *data, size_t length)
{
	must(byte_buffer_append(buffer, data, length) == 0);
}

static void must_be_same(const struct byte_buffer *a, const struct byte_buffer *b)
{
	must(byte_buffer_length(a) == byte_buffer_length(b));
	must(byte_buffer_length(a) == 0 ||
	     memcmp(byte_buffer_front(a), byte_buffer_front(b), byte_buffer_length(a)) == 0);
}

/* ---- llhttp --------------------------------------------------------------------------------- */

static struct seen *current(llhttp_t *parser)
{
	struct reading *reading = parser->data;

	return &reading->messages[reading->count];
}

static int on_text(llhttp_t *parser, const char *at, size_t length)
{
	struct reading *reading = parser->data;

	if (!reading->in_trailers)
		put(&current(parser)->lines, at, length);
	return 0;
}

static int on_text_end(llhttp_t *parser)
{
	struct reading *reading = parser->data;

	if (!reading->in_trailers)
		put(&current(parser)->lines, "\n", 1);
	return 0;
}

static int on_value_end(llhttp_t *parser)
{
	struct byte_buffer *lines = &current(parser)->lines;

	/* It leaves white space at the end to its users. */
	while (byte_buffer_length(lines) > 0 &&
	       (lines->data[lines->end - 1] == ' ' || lines->data[lines->end - 1] == '\t'))
		lines->end--;
	return on_text_end(parser);
}

static int on_head(llhttp_t *parser)
{
	struct reading *reading = parser->data;

	reading->in_trailers = true;
	/* 1 says that there is no body; that of a 304 it cannot know. */
	return parser->type == HTTP_RESPONSE && parser->status_code == 304 ? 1 : 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t length)
{
	put(&current(parser)->body, at, length);
	return 0;
}

static int on_message(llhttp_t *parser)
{
	struct reading *reading = parser->data;

	current(parser)->complete = true;
	reading->count++;
	reading->in_trailers = false;
	return HPE_PAUSED;
}

static void read_with_llhttp(llhttp_type_t type, const uint8_t *data, size_t size,
			     struct reading *reading)
{
	static const llhttp_settings_t settings = {
		.on_method = on_text,
		.on_method_complete = on_text_end,
		.on_url = on_text,
		.on_url_complete = on_text_end,
		.on_header_field = on_text,
		.on_header_field_complete = on_text_end,
		.on_header_value = on_text,
		.on_header_value_complete = on_value_end,
		.on_headers_complete = on_head,
		.on_body = on_body,
		.on_message_complete = on_message,
	};
	const char *at = (const char *)data;
	const char *end = at + size;
	llhttp_t parser;

	llhttp_init(&parser, type, &settings);
	parser.data = reading;
	while (at < end && reading->count < MESSAGES_MAX) {
		if (llhttp_execute(&parser, at, (size_t)(end - at)) != HPE_PAUSED)
			break;
		at = llhttp_get_error_pos(&parser);
		reading->messages[reading->count - 1].end = (size_t)(at - (const char *)data);
		llhttp_resume(&parser);
	}
}

/* ---- ours ----------------------------------------------------------------------------------- */

static void put_line(struct byte_buffer *lines, struct http_text text)
{
	put(lines, text.data, text.length);
	put(lines, "\n", 1);
}

static void describe(const struct http_head *head, struct byte_buffer *lines)
{
	if (http_head_status(head) == 0) {
		put_line(lines, http_head_method(head));
		put_line(lines, http_head_path(head));
	}
	for (size_t i = 0; i < http_head_field_count(head); i++) {
		put_line(lines, http_head_field(head, i).name);
		put_line(lines, http_head_field(head, i).value);
	}
}

/* Length of the message at `data`, or -1. */
static ssize_t read_one(enum http1_kind kind, const uint8_t *data, size_t size, size_t step,
			struct http_head *head, struct http1_message *message, struct seen *seen)
{
	struct http1_parser parser;
	struct http1_body body;
	const char *problem = NULL;
	size_t given = MIN_OF(step, size);
	ssize_t head_length;
	ssize_t length;

	http1_parser_init(&parser, kind);
	while ((head_length = http1_parse(&parser, data, given, head, &problem)) == 0 &&
	       given < size)
		given = MIN_OF(given + step, size);
	must(head_length >= 0 || problem);
	if (head_length <= 0)
		return -1;
	*message = parser.message;
	if (kind == HTTP1_RESPONSE)
		message->framing = http1_response_framing(message, http_head_status(head), false);
	http1_body_begin(&body, &message->framing);
	length = http1_body_decode(&body, data + head_length, size - (size_t)head_length,
				   &seen->body, &problem);
	must(length >= 0 || problem);
	seen->complete = length >= 0 && body.state == HTTP1_BODY_ENDED;
	http1_body_release(&body);
	if (!seen->complete)
		return -1;
	describe(head, &seen->lines);
	return head_length + length;
}

static bool is_method(const struct http_head *head, const char *method)
{
	return http_text_is_exactly(http_head_method(head), method);
}

/* Written anew: the same to us, and one message to llhttp. */
static void write_anew(enum http1_kind kind, struct http_head *head,
		       const struct http1_message *message, const struct seen *seen)
{
	struct http1_options connection = { .framing = message->framing };
	struct http_head *again = http_head_new();
	struct http1_message message_again;
	struct seen seen_again = { 0 };
	struct reading *theirs = malloc(sizeof(*theirs));
	struct byte_buffer wire;

	must(again && theirs);
	reading_init(theirs);
	byte_buffer_init(&wire, 1u << 22);
	byte_buffer_init(&seen_again.lines, 1u << 20);
	byte_buffer_init(&seen_again.body, 1u << 20);
	http_head_drop_connection_fields(head);
	if (kind == HTTP1_REQUEST)
		must(http1_write_request(&wire, head, &connection) == 0);
	else
		must(http1_write_response(&wire, head, &connection) == 0);
	if (message->framing.kind == HTTP_FRAMING_CHUNKED) {
		if (byte_buffer_length(&seen->body) > 0)
			must(http1_write_chunk(&wire, byte_buffer_front(&seen->body),
					       byte_buffer_length(&seen->body)) == 0);
		must(http1_write_last_chunk(&wire, NULL) == 0);
	} else {
		put(&wire, byte_buffer_front(&seen->body), byte_buffer_length(&seen->body));
	}
	must(read_one(kind, byte_buffer_front(&wire), byte_buffer_length(&wire), SIZE_MAX, again,
		      &message_again, &seen_again) == (ssize_t)byte_buffer_length(&wire));
	must_be_same(&seen->body, &seen_again.body);
	read_with_llhttp(kind == HTTP1_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE,
			 byte_buffer_front(&wire), byte_buffer_length(&wire), theirs);
	/* It knows no other methods than its own, and refuses some targets. */
	if (theirs->count > 0) {
		must(theirs->count == 1);
		must(theirs->messages[0].end == byte_buffer_length(&wire));
		must_be_same(&seen_again.lines, &theirs->messages[0].lines);
		must_be_same(&seen->body, &theirs->messages[0].body);
	}
	http_head_free(again);
	reading_release(theirs);
	free(theirs);
	byte_buffer_release(&wire);
	byte_buffer_release(&seen_again.lines);
	byte_buffer_release(&seen_again.body);
}

static void read_stream(enum http1_kind kind, const uint8_t *data, size_t size, size_t step)
{
	struct reading *ours = malloc(sizeof(*ours));
	struct reading *theirs = malloc(sizeof(*theirs));
	struct http_head *head = http_head_new();
	size_t at = 0;

	must(ours && theirs && head);
	reading_init(ours);
	reading_init(theirs);
	read_with_llhttp(kind == HTTP1_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE, data, size, theirs);
	while (at < size && ours->count < MESSAGES_MAX) {
		struct seen *seen = &ours->messages[ours->count];
		struct http1_message message;
		ssize_t length = read_one(kind, data + at, size - at, step, head, &message, seen);

		if (length < 0 || is_method(head, "CONNECT"))
			break;
		at += (size_t)length;
		seen->end = at;
		if (ours->count < theirs->count) {
			must(theirs->messages[ours->count].end == seen->end);
			/* Of an absolute target the path may be missing, which is then given. */
			if (!message.is_absolute)
				must_be_same(&theirs->messages[ours->count].lines, &seen->lines);
			must_be_same(&theirs->messages[ours->count].body, &seen->body);
		}
		ours->count++;
		write_anew(kind, head, &message, seen);
		http_head_clear(head);
		if (!message.keeps_alive)
			break;
	}
	http_head_free(head);
	reading_release(ours);
	reading_release(theirs);
	free(ours);
	free(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	read_stream(data[0] & 1 ? HTTP1_RESPONSE : HTTP1_REQUEST, data + 1, size - 1,
		    (size_t)(data[0] >> 1) + 1);
	return 0;
}
