/*
 * proxy/websocket_frames.h: frames that are none are refused, messages come out whole, through
 * their filters and however the bytes are cut, and nothing is kept that a filter does not keep.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/secret_filter.h"
#include "proxy/websocket_frames.h"
#include "tests/unit/secret_fixture.h"

#define VALUE "sk-ant-api03-Ab/C012+def345Ghi"
#define OUT_MAX (1u << 20)

enum { KEY, OTHER, BODY };

static const struct fixture_secret secrets[] = {
	[KEY] = { .name = "KEY", .value = VALUE, .host = "api.test" },
	[OTHER] = { .name = "OTHER", .value = "another-secret-0123", .host = "other.test" },
	[BODY] = { .name = "BODY",
		   .value = "body-Secret-456",
		   .host = "api.test",
		   .flags = SECRET_FLAG_BODY },
};

enum side {
	CLIENT,		 /* no filter */
	SERVER,		 /* no filter */
	CLIENT_SEARCHED, /* by the filter of requests */
	SERVER_SEARCHED,
};

static struct secret_store *store;
static struct secret_set bound;
static struct body_filter *filters[2]; /* of the frames that there are */

static void build(void)
{
	struct host_name host;

	store = fixture_store(secrets, ARRAY_LENGTH(secrets));
	ck_assert_ptr_nonnull(store);
	ck_assert_int_eq(host_name_parse("api.test", 8, &host), 0);
	secret_store_bound(store, &host, 443, &bound);
}

static void tear_down(void)
{
	ck_assert_ptr_null(filters[0]);
	secret_store_free(store);
}

static bool is_client(enum side side)
{
	return side == CLIENT || side == CLIENT_SEARCHED;
}

static struct body_filter *make_filter(enum side side)
{
	struct body_filter *filter = NULL;

	if (side == CLIENT_SEARCHED)
		filter = secret_request_filter_new(store, &bound, true);
	else if (side == SERVER_SEARCHED)
		filter = secret_response_filter_new(store);
	if (filter)
		secret_filter_take_messages(filter);
	return filter;
}

static struct websocket_frames *make(enum side side)
{
	struct websocket_frames_options options = { .from_client = is_client(side) };
	struct websocket_frames *frames;

	ck_assert_ptr_null(filters[0]);
	for (size_t i = 0; i < ARRAY_LENGTH(filters); i++)
		filters[i] = make_filter(side);
	options.messages = filters[0];
	options.controls = filters[1];
	frames = websocket_frames_new(&options);
	ck_assert_ptr_nonnull(frames);
	return frames;
}

static void drop(struct websocket_frames *frames)
{
	websocket_frames_free(frames);
	for (size_t i = 0; i < ARRAY_LENGTH(filters); i++) {
		if (filters[i])
			filters[i]->free(filters[i]);
		filters[i] = NULL;
	}
}

/* ---- frames of the test's own --------------------------------------------------------------- */

struct bytes {
	uint8_t data[65536 * 3];
	size_t length;
};

static void put(struct bytes *bytes, const void *data, size_t length)
{
	ck_assert_uint_le(bytes->length + length, sizeof(bytes->data));
	memcpy(bytes->data + bytes->length, data, length);
	bytes->length += length;
}

static void put_frame(struct bytes *bytes, enum side side, unsigned first, const char *text,
		      size_t length)
{
	static const uint8_t key[4] = { 0x11, 0x82, 0xf3, 0x44 };
	uint8_t header[10] = { (uint8_t)first };
	size_t size = 2;

	if (length < 126) {
		header[1] = (uint8_t)length;
	} else if (length < 65536) {
		header[1] = 126;
		size = 4;
	} else {
		header[1] = 127;
		size = 10;
	}
	for (size_t i = 2; i < size; i++)
		header[i] = (uint8_t)(length >> 8 * (size - 1 - i));
	header[1] |= is_client(side) ? 0x80 : 0;
	put(bytes, header, size);
	if (is_client(side))
		put(bytes, key, 4);
	put(bytes, text, length);
	for (size_t i = 0; is_client(side) && i < length; i++)
		bytes->data[bytes->length - length + i] ^= key[i % 4];
}

/* Messages in readable form: "T(text)" or "B(...)" for a message, "9(...)" for a control frame, in
 * the order in which they end. A message that has not ended is there with its text so far: "T(te".
 */
struct reading {
	char text[65536 * 3];
	char message[65536 * 3];
	size_t message_length;
	unsigned frames;
};

static void read_frames(const struct byte_buffer *out, enum side side, struct reading *reading)
{
	const uint8_t *at = byte_buffer_front(out);
	size_t left = byte_buffer_length(out);
	size_t used = 0;
	char type = 0;

	reading->frames = 0;
	reading->message_length = 0;
	while (left > 0) {
		size_t length = at[1] & 0x7f;
		size_t size = 2;
		static char plain[65536 * 2];
		unsigned opcode = at[0] & 0x0f;

		ck_assert_int_eq(at[0] & 0x70, 0);
		ck_assert_int_eq(at[1] >> 7, is_client(side));
		if (length >= 126) {
			size += length == 126 ? 2 : 8;
			length = 0;
			for (size_t i = 2; i < size; i++)
				length = length << 8 | at[i];
			ck_assert_uint_ge(length, size == 4 ? 126 : 65536);
		}
		size += is_client(side) ? 4 : 0;
		ck_assert_uint_ge(left, size + length);
		for (size_t i = 0; i < length; i++)
			plain[i] =
				(char)(at[size + i] ^ (is_client(side) ? at[size - 4 + i % 4] : 0));
		at += size + length;
		left -= size + length;
		reading->frames++;
		if (opcode >= 8) {
			used += (size_t)snprintf(reading->text + used, sizeof(reading->text) - used,
						 "%x(%.*s)", opcode, (int)length, plain);
			continue;
		}
		ck_assert((opcode == 0) == (type != 0));
		type = opcode == 1 ? 'T' : opcode == 2 ? 'B' : type;
		memcpy(reading->message + reading->message_length, plain, length);
		reading->message_length += length;
		if (!(at[-(ptrdiff_t)(size + length)] & 0x80))
			continue;
		used += (size_t)snprintf(reading->text + used, sizeof(reading->text) - used,
					 "%c(%.*s)", type, (int)reading->message_length,
					 reading->message);
		reading->message_length = 0;
		type = 0;
	}
	if (type)
		used += (size_t)snprintf(reading->text + used, sizeof(reading->text) - used,
					 "%c(%.*s", type, (int)reading->message_length,
					 reading->message);
	reading->text[used] = '\0';
}

/* Feeds two pieces of which the first ends at `cut`, or with 0 every byte for itself; in blocks of
 * the exact sizes, so that a read past the end is seen. */
static int feed(struct websocket_frames *frames, const uint8_t *data, size_t length, size_t cut,
		struct byte_buffer *out)
{
	size_t at = 0;
	int result = 0;

	while (result == 0 && at < length) {
		size_t step = cut == 0 ? 1 : at < cut ? cut : length - at;
		uint8_t *copy = malloc(step);

		ck_assert_ptr_nonnull(copy);
		memcpy(copy, data + at, step);
		result = websocket_frames_feed(frames, copy, step, out);
		free(copy);
		at += step;
	}
	return result;
}

/* Whatever the cut, the bytes give these messages, and the result. */
static void expect(enum side side, const struct bytes *bytes, int result, const char *messages)
{
	static struct reading reading;

	for (size_t cut = 0; cut <= bytes->length; cut++) {
		struct websocket_frames *frames = make(side);
		struct byte_buffer out;

		byte_buffer_init(&out, OUT_MAX);
		ck_assert_int_eq(feed(frames, bytes->data, bytes->length, cut, &out), result);
		if (messages) {
			read_frames(&out, side, &reading);
			ck_assert_str_eq(reading.text, messages);
		}
		ck_assert(result == 0 || websocket_frames_problem(frames));
		drop(frames);
		byte_buffer_release(&out);
	}
}

static void put_text(struct bytes *bytes, enum side side, unsigned first, const char *text)
{
	put_frame(bytes, side, first, text, strlen(text));
}

/* ---- what passes ---------------------------------------------------------------------------- */

START_TEST(messages_of_every_kind_pass)
{
	enum side side = (enum side)_i;
	static struct bytes bytes;
	char large[300];

	bytes.length = 0;
	memset(large, 'x', sizeof(large));
	put_text(&bytes, side, 0x81, "hello");
	put_text(&bytes, side, 0x82, "");
	put_text(&bytes, side, 0x01, "he");
	put_text(&bytes, side, 0x00, "");
	put_text(&bytes, side, 0x89, "ping");
	put_text(&bytes, side, 0x00, "l");
	put_text(&bytes, side, 0x8a, "");
	put_text(&bytes, side, 0x80, "lo");
	put_text(&bytes, side, 0x02, "");
	put_text(&bytes, side, 0x80, "");
	put_frame(&bytes, side, 0x82, large, 125);
	put_frame(&bytes, side, 0x89, large, 125);
	put_frame(&bytes, side, 0x82, large, 126);
	put_frame(&bytes, side, 0x88,
		  "\x03\xe8"
		  "bye",
		  5);
	{
		char wanted[1024];

		snprintf(wanted, sizeof(wanted),
			 "T(hello)B()9(ping)a()T(hello)B()B(%.125s)9(%.125s)B(%.126s)8(\x03\xe8"
			 "bye)",
			 large, large, large);
		expect(side, &bytes, 0, wanted);
	}
}
END_TEST

START_TEST(a_frame_that_comes_whole_stays_one)
{
	static char text[70000];
	static struct bytes bytes;
	static struct reading reading;
	static const size_t lengths[] = { 0, 1, 125, 126, 1000, 16384 };

	memset(text, 'y', sizeof(text));
	for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++) {
		enum side side = SERVER_SEARCHED;
		struct websocket_frames *frames = make(side);
		struct byte_buffer out;

		bytes.length = 0;
		put_frame(&bytes, side, 0x82, text, lengths[i]);
		byte_buffer_init(&out, OUT_MAX);
		ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length, &out), 0);
		ck_assert_uint_eq(byte_buffer_length(&out), bytes.length);
		ck_assert_mem_eq(byte_buffer_front(&out), bytes.data, bytes.length);
		byte_buffer_release(&out);
		drop(frames);
	}
	for (int i = 0; i < 2; i++) {
		enum side side = i ? CLIENT : SERVER;
		struct websocket_frames *frames = make(side);
		struct byte_buffer out;

		bytes.length = 0;
		put_frame(&bytes, side, 0x82, text, sizeof(text));
		byte_buffer_init(&out, OUT_MAX);
		ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length, &out), 0);
		read_frames(&out, side, &reading);
		ck_assert_uint_eq(strlen(reading.text), sizeof(text) + 3);
		ck_assert_uint_le(reading.frames, 5);
		byte_buffer_release(&out);
		drop(frames);
	}
}
END_TEST

/* Of 2^62 bytes that never all come. */
START_TEST(what_has_come_of_a_frame_goes_on)
{
	static const uint8_t header[] = { 0x81, 127, 0x40, 0, 0, 0, 0, 0, 0, 0 };
	static struct reading reading;
	enum side side = SERVER_SEARCHED;
	struct websocket_frames *frames = make(side);
	struct byte_buffer out;

	byte_buffer_init(&out, OUT_MAX);
	ck_assert_int_eq(websocket_frames_feed(frames, header, sizeof(header), &out), 0);
	ck_assert_uint_eq(byte_buffer_length(&out), 0);
	ck_assert_int_eq(websocket_frames_feed(frames, (const uint8_t *)"data: 1\n\n", 9, &out), 0);
	read_frames(&out, side, &reading);
	ck_assert_str_eq(reading.text, "T(data: 1\n\n");
	ck_assert_int_eq(websocket_frames_feed(frames, (const uint8_t *)VALUE, 16, &out), 0);
	read_frames(&out, side, &reading);
	/* The prefix that the placeholder shares is no part of what is looked for. */
	ck_assert_uint_ge(strlen(reading.text), strlen("T(data: 1\n\nsk-ant-"));
	drop(frames);
	byte_buffer_release(&out);
}
END_TEST

START_TEST(a_control_frame_does_not_wait_for_what_is_kept)
{
	static struct bytes bytes;
	static struct reading reading;
	enum side side = SERVER_SEARCHED;
	struct websocket_frames *frames = make(side);
	struct byte_buffer out;

	bytes.length = 0;
	put_frame(&bytes, side, 0x01, VALUE, strlen(VALUE) - 1);
	put_text(&bytes, side, 0x89, "now");
	byte_buffer_init(&out, OUT_MAX);
	ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length, &out), 0);
	read_frames(&out, side, &reading);
	ck_assert_ptr_nonnull(strstr(reading.text, "9(now)"));
	ck_assert_ptr_null(strstr(reading.text, "Ghi"));
	bytes.length = 0;
	put_frame(&bytes, side, 0x80, &VALUE[strlen(VALUE) - 1], 1);
	ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length, &out), 0);
	read_frames(&out, side, &reading);
	ck_assert_ptr_nonnull(strstr(reading.text, secret_store_get(store, KEY)->placeholder));
	drop(frames);
	byte_buffer_release(&out);
}
END_TEST

/* ---- secrets -------------------------------------------------------------------------------- */

static const char *placeholder(size_t index)
{
	return secret_store_get(store, index)->placeholder;
}

/* The text as a message: one frame, a frame for each byte with pings between, or in the middle. */
static void put_message(struct bytes *bytes, enum side side, const char *text, int shape)
{
	size_t length = strlen(text);

	bytes->length = 0;
	if (shape == 0) {
		put_text(bytes, side, 0x81, text);
		return;
	}
	put_frame(bytes, side, 0x01, text, 1);
	for (size_t i = 1; i < length; i += shape == 1 ? 1 : length) {
		if (shape == 1 && i == length / 2)
			put_text(bytes, side, 0x89, "p");
		put_frame(bytes, side, 0x00, text + i, shape == 1 ? 1 : length - 1);
	}
	put_text(bytes, side, 0x80, "");
}

static void without_pings(char *text)
{
	char *ping = strstr(text, "9(p)");

	if (ping)
		memmove(ping, ping + 4, strlen(ping + 4) + 1);
}

static void expect_message(enum side side, const char *text, int result, const char *wanted)
{
	static struct bytes bytes;
	static struct reading reading;

	for (int shape = 0; shape < 3; shape++) {
		put_message(&bytes, side, text, shape);
		for (size_t cut = 0; cut <= bytes.length; cut++) {
			struct websocket_frames *frames = make(side);
			struct byte_buffer out;

			byte_buffer_init(&out, OUT_MAX);
			ck_assert_int_eq(feed(frames, bytes.data, bytes.length, cut, &out), result);
			read_frames(&out, side, &reading);
			without_pings(reading.text);
			if (wanted)
				ck_assert_str_eq(reading.text, wanted);
			drop(frames);
			byte_buffer_release(&out);
		}
	}
}

START_TEST(a_value_from_the_server_becomes_its_placeholder)
{
	char wanted[256];

	snprintf(wanted, sizeof(wanted), "T(you are %s.)", placeholder(KEY));
	expect_message(SERVER_SEARCHED, "you are " VALUE ".", 0, wanted);
	snprintf(wanted, sizeof(wanted), "T(%s)", placeholder(KEY));
	expect_message(SERVER_SEARCHED, VALUE, 0, wanted);
	/* Such a filter finds nothing where there is none. */
	expect_message(SERVER, VALUE, 0, "T(" VALUE ")");
}
END_TEST

START_TEST(a_placeholder_for_another_host_ends_it)
{
	char text[256];

	snprintf(text, sizeof(text), "{\"key\":\"%s\"}", placeholder(OTHER));
	expect_message(CLIENT_SEARCHED, text, -EACCES, NULL);
	expect_message(CLIENT_SEARCHED, placeholder(OTHER), -EACCES, NULL);
}
END_TEST

START_TEST(a_secret_that_may_be_in_bodies_is_put_in)
{
	char text[256];
	char wanted[256];

	snprintf(text, sizeof(text), "{\"key\":\"%s\"}", placeholder(BODY));
	snprintf(wanted, sizeof(wanted), "T({\"key\":\"%s\"})", secrets[BODY].value);
	expect_message(CLIENT_SEARCHED, text, 0, wanted);
	/* And one that may not stays what it is. */
	snprintf(wanted, sizeof(wanted), "T(%s)", placeholder(KEY));
	expect_message(CLIENT_SEARCHED, placeholder(KEY), 0, wanted);
}
END_TEST

START_TEST(control_frames_are_searched)
{
	static struct bytes bytes;
	char wanted[256];
	char reason[128] = "\x03\xe8";

	bytes.length = 0;
	put_text(&bytes, CLIENT_SEARCHED, 0x89, placeholder(OTHER));
	expect(CLIENT_SEARCHED, &bytes, -EACCES, "");
	bytes.length = 0;
	put_text(&bytes, SERVER_SEARCHED, 0x8a, VALUE);
	snprintf(wanted, sizeof(wanted), "a(%s)", placeholder(KEY));
	expect(SERVER_SEARCHED, &bytes, 0, wanted);
	bytes.length = 0;
	snprintf(reason + 2, sizeof(reason) - 2, "%s", VALUE);
	put_text(&bytes, SERVER_SEARCHED, 0x88, reason);
	snprintf(wanted, sizeof(wanted), "8(\x03\xe8%s)", placeholder(KEY));
	expect(SERVER_SEARCHED, &bytes, 0, wanted);
}
END_TEST

/* Two messages, and what is searched behind each other: two control frames, too. */
static void put_halves(struct bytes *bytes, enum side side, unsigned first, const char *text,
		       size_t cut)
{
	bytes->length = 0;
	put_frame(bytes, side, first, text, cut);
	/* What is of the other kind is no part of it. */
	put_text(bytes, side, first & 8 ? 0x81 : 0x89, "between");
	put_frame(bytes, side, first, text + cut, strlen(text) - cut);
}

START_TEST(a_value_in_two_messages_becomes_its_placeholder)
{
	size_t told = secret_store_get(store, KEY)->kept + SECRET_PROBE_DEPTH;
	static struct bytes bytes;
	char wanted[256];

	for (int control = 0; control < 2; control++) {
		for (size_t cut = 0; cut <= strlen(VALUE); cut++) {
			put_halves(&bytes, SERVER_SEARCHED, control ? 0x8a : 0x81, VALUE, cut);
			snprintf(wanted, sizeof(wanted),
				 control ? "a(%.*s)T(between)a(%s)" : "T(%.*s)9(between)T(%s)",
				 (int)cut, cut < told ? VALUE : placeholder(KEY),
				 placeholder(KEY) + cut);
			expect(SERVER_SEARCHED, &bytes, 0, wanted);
		}
	}
}
END_TEST

START_TEST(a_placeholder_in_two_messages_ends_it)
{
	static const unsigned first[] = { 0x81, 0x82, 0x89, 0x8a };
	static struct bytes bytes;

	for (size_t i = 0; i < ARRAY_LENGTH(first); i++) {
		for (size_t cut = 1; cut < strlen(placeholder(OTHER)); cut++) {
			put_halves(&bytes, CLIENT_SEARCHED, first[i], placeholder(OTHER), cut);
			expect(CLIENT_SEARCHED, &bytes, -EACCES, NULL);
		}
	}
}
END_TEST

/* ---- what is refused ------------------------------------------------------------------------ */

static const struct {
	const char *what;
	uint8_t bytes[16];
	size_t length;
	bool is_client;
} wrong[] = {
	{ "reserved bit 1", { 0xc1, 0x00 }, 2, false },
	{ "reserved bit 2", { 0xa1, 0x00 }, 2, false },
	{ "reserved bit 3", { 0x91, 0x00 }, 2, false },
	{ "reserved bit of a control frame", { 0xc9, 0x00 }, 2, false },
	{ "opcode 3", { 0x83, 0x00 }, 2, false },
	{ "opcode 7", { 0x87, 0x00 }, 2, false },
	{ "opcode 11", { 0x8b, 0x00 }, 2, false },
	{ "opcode 15", { 0x8f, 0x00 }, 2, false },
	{ "masked by a server", { 0x81, 0x80 }, 2, false },
	{ "not masked by a client", { 0x81, 0x00 }, 2, true },
	{ "a ping not masked by a client", { 0x89, 0x00 }, 2, true },
	{ "126 for 125", { 0x81, 126, 0, 125 }, 4, false },
	{ "126 for 0 by a client", { 0x81, 254, 0, 0, 1, 2, 3, 4 }, 8, true },
	{ "127 for 65535", { 0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff }, 10, false },
	{ "a length of 2^63", { 0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0 }, 10, false },
	{ "a long ping", { 0x89, 126, 0, 126 }, 4, false },
	{ "a ping of 64 bits", { 0x89, 127 }, 2, false },
	{ "a fragmented ping", { 0x09, 0x00 }, 2, false },
	{ "a fragmented close", { 0x08, 0x00 }, 2, false },
	{ "a continuation of nothing", { 0x80, 0x00 }, 2, false },
	{ "a fragment of nothing", { 0x00, 0x00 }, 2, false },
	{ "text in a message", { 0x01, 0x00, 0x81, 0x00 }, 4, false },
	{ "binary in a message", { 0x01, 0x01, 'x', 0x02, 0x00 }, 5, false },
	{ "a continuation after the end", { 0x01, 0x00, 0x80, 0x00, 0x80, 0x00 }, 6, false },
	{ "half a code", { 0x88, 0x01, 3 }, 3, false },
	{ "code 0", { 0x88, 0x02, 0, 0 }, 4, false },
	{ "code 1004", { 0x88, 0x02, 0x03, 0xec }, 4, false },
	{ "code 1005", { 0x88, 0x02, 0x03, 0xed }, 4, false },
	{ "code 1006", { 0x88, 0x02, 0x03, 0xee }, 4, false },
	{ "code 1015", { 0x88, 0x02, 0x03, 0xf7 }, 4, false },
	{ "code 5000", { 0x88, 0x02, 0x13, 0x88 }, 4, false },
	{ "a ping after a close", { 0x88, 0x00, 0x89, 0x00 }, 4, false },
	{ "a byte after a close", { 0x88, 0x00, 0x00 }, 3, false },
	{ "HTTP", "GET / HTTP/1.1", 14, true },
};

START_TEST(what_is_no_websocket_is_refused)
{
	static struct bytes bytes;

	bytes.length = 0;
	put(&bytes, wrong[_i].bytes, wrong[_i].length);
	expect(wrong[_i].is_client ? CLIENT : SERVER, &bytes, -EPROTO, NULL);
	expect(wrong[_i].is_client ? CLIENT_SEARCHED : SERVER_SEARCHED, &bytes, -EPROTO, NULL);
}
END_TEST

START_TEST(after_a_failure_nothing_passes)
{
	enum side side = CLIENT_SEARCHED;
	struct websocket_frames *frames = make(side);
	static struct bytes bytes;
	struct byte_buffer out;

	bytes.length = 0;
	put_text(&bytes, side, 0x81, placeholder(OTHER));
	byte_buffer_init(&out, OUT_MAX);
	ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length, &out), -EACCES);
	bytes.length = 0;
	put_text(&bytes, side, 0x81, "hello");
	ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length, &out), -EPROTO);
	ck_assert_uint_eq(byte_buffer_length(&out), 0);
	drop(frames);
	byte_buffer_release(&out);
}
END_TEST

START_TEST(output_without_room_is_an_error)
{
	enum side side = SERVER;
	struct websocket_frames *frames = make(side);
	static struct bytes bytes;
	struct byte_buffer out;

	bytes.length = 0;
	put_text(&bytes, side, 0x81, "hello");
	byte_buffer_init(&out, 6);
	ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length, &out), -ENOBUFS);
	ck_assert_uint_eq(byte_buffer_length(&out), 0);
	drop(frames);
	byte_buffer_release(&out);
}
END_TEST

/* ---- our own Close -------------------------------------------------------------------------- */

START_TEST(a_close_of_our_own_fits_into_a_message)
{
	enum side side = _i ? CLIENT : SERVER;
	struct websocket_frames *frames = make(side);
	static struct bytes bytes;
	static struct reading reading;
	struct byte_buffer out;
	char reason[200];
	char wanted[256];

	bytes.length = 0;
	put_frame(&bytes, side, 0x01, "half", 4);
	byte_buffer_init(&out, OUT_MAX);
	/* Up to the middle of the payload. */
	ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length - 2, &out), 0);
	memset(reason, 'r', sizeof(reason));
	reason[sizeof(reason) - 1] = '\0';
	websocket_frames_close(frames, WEBSOCKET_CLOSE_POLICY, reason, &out);
	websocket_frames_close(frames, WEBSOCKET_CLOSE_POLICY, "once", &out);
	read_frames(&out, side, &reading);
	snprintf(wanted, sizeof(wanted), "8(\x03\xf0%.*s)T(ha", (int)WEBSOCKET_REASON_MAX, reason);
	ck_assert_str_eq(reading.text, wanted);
	drop(frames);
	byte_buffer_release(&out);
}
END_TEST

START_TEST(a_mask_is_never_used_twice)
{
	enum side side = CLIENT;
	struct websocket_frames *frames = make(side);
	static struct bytes bytes;
	struct byte_buffer out;
	int same = 0;

	bytes.length = 0;
	for (int i = 0; i < 8; i++)
		put_text(&bytes, side, 0x81, "");
	byte_buffer_init(&out, OUT_MAX);
	ck_assert_int_eq(websocket_frames_feed(frames, bytes.data, bytes.length, &out), 0);
	ck_assert_uint_eq(byte_buffer_length(&out), 8 * 6);
	for (size_t i = 0; i < 8; i++)
		same += memcmp(byte_buffer_front(&out) + 6 * i + 2, bytes.data + 2, 4) == 0;
	ck_assert_int_lt(same, 2);
	drop(frames);
	byte_buffer_release(&out);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("websocket_frames");
	TCase *tcase = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, build, tear_down);
	tcase_add_loop_test(tcase, messages_of_every_kind_pass, 0, 4);
	tcase_add_test(tcase, a_frame_that_comes_whole_stays_one);
	tcase_add_test(tcase, what_has_come_of_a_frame_goes_on);
	tcase_add_test(tcase, a_control_frame_does_not_wait_for_what_is_kept);
	tcase_add_test(tcase, a_value_from_the_server_becomes_its_placeholder);
	tcase_add_test(tcase, a_placeholder_for_another_host_ends_it);
	tcase_add_test(tcase, a_secret_that_may_be_in_bodies_is_put_in);
	tcase_add_test(tcase, control_frames_are_searched);
	tcase_add_test(tcase, a_value_in_two_messages_becomes_its_placeholder);
	tcase_add_test(tcase, a_placeholder_in_two_messages_ends_it);
	tcase_add_loop_test(tcase, what_is_no_websocket_is_refused, 0, ARRAY_LENGTH(wrong));
	tcase_add_test(tcase, after_a_failure_nothing_passes);
	tcase_add_test(tcase, output_without_room_is_an_error);
	tcase_add_loop_test(tcase, a_close_of_our_own_fits_into_a_message, 0, 2);
	tcase_add_test(tcase, a_mask_is_never_used_twice);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
