/*
 * proxy/http1_parser.h, http1_body.h, http1_writer.h: what is taken, what is refused and with which
 * words, every message also byte by byte, and what is written anew.
 */
#include "proxy/http1_body.h"
#include "proxy/http1_parser.h"
#include "proxy/http1_writer.h"

#include "base/checked.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parses the head all at once (step 0) or `step` bytes at a time. */
static ssize_t parse(enum http1_kind kind, const char *text, size_t length, size_t step,
		     struct http_head *head, struct http1_message *message, const char **problem)
{
	struct http1_parser parser;
	size_t given = step ? step : length;
	ssize_t result;

	http1_parser_init(&parser, kind);
	while ((result = http1_parse(&parser, (const uint8_t *)text, given, head, problem)) == 0 &&
	       given < length)
		given = MIN_OF(given + step, length);
	*message = parser.message;
	return result;
}

#define BASE "GET / HTTP/1.1\r\nHost: a\r\n"

static const struct {
	const char *text;
	const char *problem; /* NULL: taken */
} requests[] = {
	{ BASE "\r\n", NULL },
	{ "GET / HTTP/1.0\r\n\r\n", NULL },
	{ "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", NULL },
	{ "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", NULL },
	{ "FROB-nicate /a?b=%20 HTTP/1.1\r\nhOsT:a\r\nX:\t y z \t\r\nY:\r\n\r\n", NULL },
	{ BASE "Content-Length: 5\r\ncontent-length: 5\r\n\r\n", NULL },
	{ BASE "X: \xc3\xa4\r\n\r\n", NULL },

	{ "\r\n" BASE "\r\n", "a first line that is no request" },
	{ "GET /\r\nHost: a\r\n\r\n", "a first line that is no request" },
	{ "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "a request target with characters" },
	{ "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "a request target with characters" },
	{ "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "a first line that is no request" },
	{ " GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a method that is no token" },
	{ "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", "a method that is no token" },
	{ "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "not HTTP/1.0 or HTTP/1.1" },
	{ "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "not HTTP/1.0 or HTTP/1.1" },
	{ "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "not HTTP/1.0 or HTTP/1.1" },
	{ "GET / http/1.1\r\nHost: a\r\n\r\n", "not HTTP/1.0 or HTTP/1.1" },
	{ "GET / HTTP/1.10\r\nHost: a\r\n\r\n", "not HTTP/1.0 or HTTP/1.1" },
	{ "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not HTTP/1.0 or HTTP/1.1" },
	{ "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "a request target with characters" },
	{ "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", "a request target with characters" },
	{ "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", "a request target of no known form" },
	{ "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "a request target of no known form" },
	{ "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "a request target of no known form" },
	{ "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", "a target without a host" },
	{ "GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", "a target whose path is missing" },

	{ "GET / HTTP/1.1\r\n\r\n", "no Host" },
	{ BASE "Host: a\r\n\r\n", "more than one Host" },
	{ BASE "host: b\r\n\r\n", "more than one Host" },
	{ "GET / HTTP/1.1\nHost: a\n\n", "a LF without CR" },
	{ BASE "X: a\nY: b\r\n\r\n", "a LF without CR" },
	{ BASE "X: a\rY: b\r\n\r\n", "a CR without LF" },
	{ BASE "X: a\r\r\n\r\n", "a CR without LF" },
	{ BASE "X: a\x01\r\n\r\n", "a control character" },
	{ BASE "X: a\x7f\r\n\r\n", "a control character" },
	{ BASE "X: a\x0b\r\n\r\n", "a control character" },
	{ BASE "X: a\r\n folded\r\n\r\n", "a folded field" },
	{ BASE "X: a\r\n\tfolded\r\n\r\n", "a folded field" },
	{ "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "a folded field" },
	{ BASE "X : a\r\n\r\n", "a field name that is no token" },
	{ BASE "X\t: a\r\n\r\n", "a field name that is no token" },
	{ BASE ": a\r\n\r\n", "a field name that is no token" },
	{ BASE "X(y): a\r\n\r\n", "a field name that is no token" },
	{ BASE "\xc3\xa4: a\r\n\r\n", "a field name that is no token" },
	{ BASE "no colon\r\n\r\n", "a field without a colon" },

	{ BASE "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "a Content-Length that is no" },
	{ BASE "Content-Length: 5, 5\r\n\r\n", "a Content-Length that is no number" },
	{ BASE "Content-Length: +5\r\n\r\n", "a Content-Length that is no number" },
	{ BASE "Content-Length: -5\r\n\r\n", "a Content-Length that is no number" },
	{ BASE "Content-Length: 0x5\r\n\r\n", "a Content-Length that is no number" },
	{ BASE "Content-Length: 5 \t5\r\n\r\n", "a Content-Length that is no number" },
	{ BASE "Content-Length:\r\n\r\n", "a Content-Length that is no number" },
	{ BASE "Content-Length: 9223372036854775808\r\n\r\n",
	  "a Content-Length that is no number" },
	{ BASE "Content-Length: 18446744073709551621\r\n\r\n", "a Content-Length that is no" },
	{ BASE "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "Content-Length and" },
	{ BASE "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", "Content-Length and" },
	{ BASE "Transfer-Encoding: gzip, chunked\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding: chunked, chunked\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding: chunked, identity\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding: identity\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding: xchunked\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding: \"chunked\"\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding: chunked;a=b\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding: ,chunked\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding:\r\n\r\n", "a Transfer-Encoding other" },
	{ BASE "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
	  "a Transfer-Encoding other" },
	{ "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
	  "Transfer-Encoding in HTTP/1.0" },
};

START_TEST(requests_are_taken_or_refused)
{
	size_t length = strlen(requests[_i].text);

	for (size_t step = 0; step < 4; step++) {
		struct http_head *head = http_head_new();
		struct http1_message message;
		const char *problem = "";
		ssize_t result = parse(HTTP1_REQUEST, requests[_i].text, length, step, head,
				       &message, &problem);

		if (!requests[_i].problem) {
			ck_assert_msg(result == (ssize_t)length, "%s: %s", requests[_i].text,
				      problem);
		} else {
			ck_assert_msg(result == -EBADMSG, "%s: taken", requests[_i].text);
			ck_assert_msg(strstr(problem, requests[_i].problem) == problem, "%s: %s",
				      requests[_i].text, problem);
		}
		http_head_free(head);
	}
}
END_TEST

START_TEST(a_nul_is_refused)
{
	static const char text[] = BASE "X: a\0b\r\n\r\n";
	struct http_head *head = http_head_new();
	struct http1_message message;
	const char *problem = "";

	ck_assert_int_eq(parse(HTTP1_REQUEST, text, sizeof(text) - 1, 0, head, &message, &problem),
			 -EBADMSG);
	ck_assert_str_eq(problem, "a control character");
	http_head_free(head);
}
END_TEST

/* Wherever it is in a line, and however long that is. */
START_TEST(a_control_character_is_found_at_every_place)
{
	static const char base[] = BASE;
	const size_t fixed = strlen(BASE "X: ");
	char text[256];

	for (size_t length = 1; length < 40; length++) {
		for (size_t at = 0; at < length; at++) {
			struct http_head *head = http_head_new();
			struct http1_message message;
			const char *problem = "";
			/* What is none, for comparison: 0x80 to 0xff, and the tab. */
			bool is_control = _i < 0x20 ? _i != '\t' : _i == 0x7f;
			ssize_t result;

			memcpy(text, base, sizeof(base) - 1);
			memcpy(text + sizeof(base) - 1, "X: ", 3);
			memset(text + fixed, 'a', length);
			text[fixed + at] = (char)_i;
			memcpy(text + fixed + length, "\r\n\r\n", 4);
			result = parse(HTTP1_REQUEST, text, fixed + length + 4, 0, head, &message,
				       &problem);
			if (is_control)
				ck_assert_int_eq(result, -EBADMSG);
			else
				ck_assert_int_eq(result, (ssize_t)(fixed + length + 4));
			http_head_free(head);
		}
	}
}
END_TEST

START_TEST(a_head_comes_apart)
{
	static const char text[] = "POST HTTPS://B.test:8/x?y HTTP/1.1\r\nHost: a\r\n"
				   "Content-Length: 12\r\nConnection: x, Close\r\n\r\nnext";
	struct http_head *head = http_head_new();
	struct http1_message message;
	const char *problem = "";

	ck_assert_int_eq(parse(HTTP1_REQUEST, text, strlen(text), 0, head, &message, &problem),
			 (ssize_t)strlen(text) - 4);
	ck_assert(http_text_is_exactly(http_head_method(head), "POST"));
	ck_assert(http_text_is_exactly(http_head_scheme(head), "https"));
	ck_assert(http_text_is_exactly(http_head_authority(head), "B.test:8"));
	ck_assert(http_text_is_exactly(http_head_path(head), "/x?y"));
	ck_assert(message.is_absolute);
	ck_assert(!message.keeps_alive);
	ck_assert_uint_eq(message.framing.kind, HTTP_FRAMING_LENGTH);
	ck_assert_uint_eq(message.framing.length, 12);
	http_head_free(head);
}
END_TEST

START_TEST(endless_heads_end)
{
	size_t size = HTTP1_HEAD_MAX + 100;
	char *text = malloc(size);
	struct http_head *head = http_head_new();
	struct http1_message message;
	const char *problem = "";

	memset(text, 'a', size);
	ck_assert_int_eq(
		parse(HTTP1_REQUEST, text, HTTP1_HEAD_MAX - 1, 4096, head, &message, &problem), 0);
	ck_assert_int_eq(parse(HTTP1_REQUEST, text, size, 4096, head, &message, &problem), -E2BIG);
	http_head_clear(head);
	memcpy(text, BASE, strlen(BASE));
	for (size_t at = strlen(BASE); at + 4 < size; at += 4)
		memcpy(text + at, "a:\r\n", 4);
	ck_assert_int_eq(parse(HTTP1_REQUEST, text, size, 0, head, &message, &problem), -E2BIG);
	http_head_free(head);
	free(text);
}
END_TEST

static const struct {
	const char *text;
	unsigned status; /* 0: refused */
	enum http_framing_kind framing;
	enum http_framing_kind to_head;
} responses[] = {
	{ "HTTP/1.1 200 OK\r\n\r\n", 200, HTTP_FRAMING_UNTIL_CLOSE, HTTP_FRAMING_NONE },
	{ "HTTP/1.0 200\r\n\r\n", 200, HTTP_FRAMING_UNTIL_CLOSE, HTTP_FRAMING_NONE },
	{ "HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n", 200, HTTP_FRAMING_LENGTH,
	  HTTP_FRAMING_NONE },
	{ "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", 204, HTTP_FRAMING_NONE,
	  HTTP_FRAMING_NONE },
	{ "HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n", 304, HTTP_FRAMING_NONE,
	  HTTP_FRAMING_NONE },
	{ "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", 101, HTTP_FRAMING_NONE,
	  HTTP_FRAMING_NONE },
	{ "HTTP/1.1 500 x\r\nTransfer-Encoding: Chunked\r\n\r\n", 500, HTTP_FRAMING_CHUNKED,
	  HTTP_FRAMING_NONE },
	{ "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", 0, 0, 0 },
	{ "HTTP/1.1 101 x\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, 0 },
	{ "HTTP/1.1 20 OK\r\n\r\n", 0, 0, 0 },
	{ "HTTP/1.1 2000 OK\r\n\r\n", 0, 0, 0 },
	{ "HTTP/1.1 099 OK\r\n\r\n", 0, 0, 0 },
	{ "HTTP/1.1 600 OK\r\n\r\n", 0, 0, 0 },
	{ "HTTP/1.1  200 OK\r\n\r\n", 0, 0, 0 },
	{ "HTTP/2 200 OK\r\n\r\n", 0, 0, 0 },
	{ "ICY 200 OK and so on\r\n\r\n", 0, 0, 0 },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, 0 },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 0, 0, 0 },
};

START_TEST(responses_are_framed)
{
	struct http_head *head = http_head_new();
	struct http1_message message;
	const char *problem = "";
	ssize_t result = parse(HTTP1_RESPONSE, responses[_i].text, strlen(responses[_i].text), 0,
			       head, &message, &problem);

	if (responses[_i].status == 0) {
		ck_assert_msg(result == -EBADMSG, "%s: taken", responses[_i].text);
	} else {
		unsigned status = http_head_status(head);

		ck_assert_msg(result > 0, "%s: %s", responses[_i].text, problem);
		ck_assert_uint_eq(status, responses[_i].status);
		ck_assert_uint_eq(http1_response_framing(&message, status, false).kind,
				  responses[_i].framing);
		ck_assert_uint_eq(http1_response_framing(&message, status, true).kind,
				  responses[_i].to_head);
	}
	http_head_free(head);
}
END_TEST

/* ---- bodies --------------------------------------------------------------------------------- */

static const struct {
	const char *wire;
	const char *body; /* NULL: refused */
	const char *rest; /* what is left behind it */
} chunked[] = {
	{ "0\r\n\r\nGET", "", "GET" },
	{ "5\r\nhello\r\n0\r\n\r\n", "hello", "" },
	{ "5;a=b;c=\"d\"\r\nhello\r\n00;x\r\n\r\n", "hello", "" },
	{ "1\r\na\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nz", "a0123456789", "z" },
	{ "5\r\nhello0\r\n\r\n", NULL, NULL },
	{ "5\r\nhello\n0\r\n\r\n", NULL, NULL },
	{ "5\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "5\rhello\r\n0\r\n\r\n", NULL, NULL },
	{ " 5\r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "5 \r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "+5\r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "0x5\r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "\r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "g\r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "8000000000000000\r\nhello", NULL, NULL },
	{ "10000000000000005\r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "5;a\x01\r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "5;a\nb\r\nhello\r\n0\r\n\r\n", NULL, NULL },
	{ "0\r\nContent-Length: 5\r\n\r\n", NULL, NULL },
	{ "0\r\nAuthorization: x\r\n\r\n", NULL, NULL },
	{ "0\r\nX: a\r\n b\r\n\r\n", NULL, NULL },
	{ "0\r\nX: a\n\r\n", NULL, NULL },
};

/* Decodes with `step` bytes more each time and an output of `room` bytes that is emptied each time;
 * returns what is left, or -1. */
static ssize_t decode(struct http1_body *body, const char *wire, size_t length, size_t step,
		      size_t room, struct byte_buffer *all)
{
	struct byte_buffer out;
	const char *problem = NULL;
	size_t done = 0;
	size_t given = 0;
	ssize_t result = 1;

	byte_buffer_init(&out, room);
	while (result >= 0 && body->state != HTTP1_BODY_ENDED && (given < length || result > 0)) {
		given = MIN_OF(length, given + step);
		result = http1_body_decode(body, (const uint8_t *)wire + done, given - done, &out,
					   &problem);
		if (result < 0)
			ck_assert_ptr_nonnull(problem);
		else
			done += (size_t)result;
		ck_assert_int_eq(
			byte_buffer_append(all, byte_buffer_front(&out), byte_buffer_length(&out)),
			0);
		byte_buffer_release(&out);
	}
	if (result < 0)
		return -1;
	return body->state == HTTP1_BODY_ENDED ? (ssize_t)(length - done) : -1;
}

START_TEST(chunks_are_decoded)
{
	struct http_framing framing = { .kind = HTTP_FRAMING_CHUNKED };
	size_t length = strlen(chunked[_i].wire);

	for (size_t step = 1; step < 30; step++) {
		struct http1_body body;
		struct byte_buffer all;
		ssize_t left;

		byte_buffer_init(&all, 1000);
		http1_body_begin(&body, &framing);
		left = decode(&body, chunked[_i].wire, length, step, 1 + step % 7, &all);
		if (chunked[_i].body) {
			ck_assert_msg(left == (ssize_t)strlen(chunked[_i].rest), "%s by %zu",
				      chunked[_i].wire, step);
			ck_assert_uint_eq(byte_buffer_length(&all), strlen(chunked[_i].body));
			if (*chunked[_i].body)
				ck_assert_mem_eq(byte_buffer_front(&all), chunked[_i].body,
						 strlen(chunked[_i].body));
		} else {
			ck_assert_msg(left < 0, "%s by %zu: taken", chunked[_i].wire, step);
		}
		http1_body_release(&body);
		byte_buffer_release(&all);
	}
}
END_TEST

START_TEST(floods_of_extensions_end)
{
	struct http_framing framing = { .kind = HTTP_FRAMING_CHUNKED };
	static const char chunk[] = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n";
	struct http1_body body;
	struct byte_buffer out;
	const char *problem = NULL;
	ssize_t result = 0;
	int chunks = 0;

	byte_buffer_init(&out, 10000);
	http1_body_begin(&body, &framing);
	while (chunks < 1000 && (result = http1_body_decode(&body, (const uint8_t *)chunk,
							    strlen(chunk), &out, &problem)) > 0)
		chunks++;
	ck_assert_int_eq(result, -EBADMSG);
	ck_assert_str_eq(problem, "too many chunk extensions");
	ck_assert_int_le(chunks, (int)HTTP1_EXTENSIONS_MAX / 50);
	http1_body_release(&body);
	byte_buffer_release(&out);
}
END_TEST

START_TEST(lengths_and_closes_end_bodies)
{
	struct http_framing framing = { .kind = HTTP_FRAMING_LENGTH, .length = 5 };
	struct http1_body body;
	struct byte_buffer all;

	byte_buffer_init(&all, 100);
	http1_body_begin(&body, &framing);
	ck_assert_int_eq(decode(&body, "hello, you", 10, 3, 2, &all), 5);
	ck_assert_mem_eq(byte_buffer_front(&all), "hello", 5);
	http1_body_begin(&body, &framing);
	ck_assert_int_eq(decode(&body, "hell", 4, 4, 100, &all), -1);
	ck_assert(!http1_body_close(&body));
	framing.kind = HTTP_FRAMING_UNTIL_CLOSE;
	http1_body_begin(&body, &framing);
	ck_assert_int_eq(decode(&body, "hell", 4, 4, 100, &all), -1);
	ck_assert(http1_body_close(&body));
	framing.kind = HTTP_FRAMING_NONE;
	http1_body_begin(&body, &framing);
	ck_assert_int_eq(decode(&body, "GET", 3, 3, 100, &all), 3);
	byte_buffer_release(&all);
}
END_TEST

/* ---- writing -------------------------------------------------------------------------------- */

static void must_have_written(struct byte_buffer *out, const char *wanted)
{
	ck_assert_uint_eq(byte_buffer_length(out), strlen(wanted));
	ck_assert_mem_eq(byte_buffer_front(out), wanted, strlen(wanted));
	byte_buffer_release(out);
}

static const struct {
	const char *connection; /* fields */
	const char *left;
} dropped[] = {
	{ "", "A: 1\r\nB: 2\r\n" },
	{ "Connection: keep-alive\r\n", "A: 1\r\nB: 2\r\n" },
	{ "Connection: close, upgrade\r\n", "A: 1\r\nB: 2\r\n" },
	{ "Connection: a\r\n", "B: 2\r\n" },
	{ "Connection: ,, keep-alive , b\r\n", "A: 1\r\n" },
	{ "Connection: keep-alive\r\nConnection: A,B\r\n", "" },
	{ "Connection:\r\nConnection: b\r\n", "A: 1\r\n" },
	{ "Connection: connection\r\nConnection: a\r\n", "B: 2\r\n" },
};

START_TEST(what_connection_lists_is_dropped)
{
	struct http1_options connection = { .closes = false };
	struct http1_message message;
	const char *problem = "";

	/* Before the fields, and behind them. */
	for (int behind = 0; behind < 2; behind++) {
		struct http_head *head = http_head_new();
		struct byte_buffer out;
		char text[256];
		char wanted[256];

		byte_buffer_init(&out, 4096);
		snprintf(text, sizeof(text), BASE "%sA: 1\r\nUpgrade: x\r\nB: 2\r\n%s\r\n",
			 behind ? "" : dropped[_i].connection,
			 behind ? dropped[_i].connection : "");
		ck_assert_int_gt(
			parse(HTTP1_REQUEST, text, strlen(text), 0, head, &message, &problem), 0);
		http_head_drop_connection_fields(head);
		connection.framing = message.framing;
		ck_assert_int_eq(http1_write_request(&out, head, &connection), 0);
		snprintf(wanted, sizeof(wanted), BASE "%s\r\n", dropped[_i].left);
		must_have_written(&out, wanted);
		http_head_free(head);
	}
}
END_TEST

START_TEST(messages_are_written_anew)
{
	static const char text[] = "PUT https://a.test/x HTTP/1.1\r\nhost:  a.test\r\n"
				   "Connection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nX-Hop: 1\r\n"
				   "X-Stays:  a b \r\nContent-Length: 3\r\nContent-Length: 3\r\n"
				   "Expect: 100-continue\r\nTE: trailers\r\n\r\n";
	struct http_head *head = http_head_new();
	struct http1_message message;
	struct http1_options connection = { .closes = false };
	struct byte_buffer out;
	const char *problem = "";

	byte_buffer_init(&out, 4096);
	ck_assert_int_gt(parse(HTTP1_REQUEST, text, strlen(text), 0, head, &message, &problem), 0);
	http_head_drop_connection_fields(head);
	connection.framing = message.framing;
	ck_assert_int_eq(http1_write_request(&out, head, &connection), 0);
	must_have_written(&out, "PUT /x HTTP/1.1\r\nHost: a.test\r\nX-Stays: a b\r\n"
				"Content-Length: 3\r\n\r\n");
	connection.framing.kind = HTTP_FRAMING_CHUNKED;
	connection.accepts_trailers = true;
	connection.closes = true;
	ck_assert_int_eq(http1_write_request(&out, head, &connection), 0);
	must_have_written(&out, "PUT /x HTTP/1.1\r\nHost: a.test\r\nX-Stays: a b\r\n"
				"Transfer-Encoding: chunked\r\nTE: trailers\r\n"
				"Connection: TE, close\r\n\r\n");
	http_head_clear(head);
	http_head_set_status(head, 404);
	ck_assert_int_eq(http_head_add(head, "A", 1, "b", 1), 0);
	connection = (struct http1_options){ .framing = { .has_length = true }, .is_old = true };
	ck_assert_int_eq(http1_write_response(&out, head, &connection), 0);
	must_have_written(&out, "HTTP/1.1 404 Not Found\r\nA: b\r\nContent-Length: 0\r\n"
				"Connection: keep-alive\r\n\r\n");
	ck_assert_int_eq(http1_write_chunk(&out, (const uint8_t *)"0123456789abcdefX", 17), 0);
	must_have_written(&out, "11\r\n0123456789abcdefX\r\n");
	ck_assert_int_eq(http1_write_last_chunk(&out, head), 0);
	must_have_written(&out, "0\r\nA: b\r\n\r\n");
	ck_assert_int_eq(http1_write_last_chunk(&out, NULL), 0);
	must_have_written(&out, "0\r\n\r\n");
	http_head_free(head);
}
END_TEST

START_TEST(a_full_buffer_gets_nothing)
{
	struct http_head *head = http_head_new();
	struct http1_options connection = { 0 };
	struct byte_buffer out;

	byte_buffer_init(&out, 64);
	http_head_set_status(head, 200);
	ck_assert_int_eq(http1_write_response(&out, head, &connection), -ENOBUFS);
	ck_assert_int_eq(http1_write_chunk(&out,
					   (const uint8_t *)"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
							    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
					   60),
			 -ENOBUFS);
	ck_assert_uint_eq(byte_buffer_length(&out), 0);
	http_head_free(head);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http1");
	TCase *tcase = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, requests_are_taken_or_refused, 0, ARRAY_LENGTH(requests));
	tcase_add_test(tcase, a_nul_is_refused);
	tcase_add_loop_test(tcase, a_control_character_is_found_at_every_place, 0, 256);
	tcase_add_test(tcase, a_head_comes_apart);
	tcase_add_test(tcase, endless_heads_end);
	tcase_add_loop_test(tcase, responses_are_framed, 0, ARRAY_LENGTH(responses));
	tcase_add_loop_test(tcase, chunks_are_decoded, 0, ARRAY_LENGTH(chunked));
	tcase_add_test(tcase, floods_of_extensions_end);
	tcase_add_test(tcase, lengths_and_closes_end_bodies);
	tcase_add_loop_test(tcase, what_connection_lists_is_dropped, 0, ARRAY_LENGTH(dropped));
	tcase_add_test(tcase, messages_are_written_anew);
	tcase_add_test(tcase, a_full_buffer_gets_nothing);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
