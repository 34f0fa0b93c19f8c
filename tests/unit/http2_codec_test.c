/*
 * proxy/http2_codec.h and proxy/http2_head.h: what a peer's frames become, and what frames a leg
 * becomes.
 */
#include "proxy/http2_codec.h"

#include <check.h>
#include <errno.h>

#include "base/checked.h"
#include "tests/unit/http2_peer.h"

#define STREAM_WINDOW 262144u
#define CONNECTION_WINDOW (1u << 20)

static struct http_leg *legs[HTTP2_STREAMS_MAX + 1]; /* that came */
static size_t leg_count;
static unsigned changes;

/* ---- the codec's user ------------------------------------------------------------------------ */

static void on_changed(struct http_leg *leg)
{
	(void)leg;
	changes++;
}

static void on_request(void *user, struct http_leg *leg)
{
	(void)user;
	ck_assert_uint_lt(leg_count, ARRAY_LENGTH(legs));
	legs[leg_count++] = leg;
	leg->changed = on_changed;
}

static void set_up(enum http2_role role)
{
	peer_start(role);
	codec.accept = on_request;
	leg_count = 0;
	changes = 0;
}

static void set_up_server(void)
{
	set_up(HTTP2_SERVER);
}

static void set_up_client(void)
{
	set_up(HTTP2_CLIENT);
}

/* ---- the user's side of a leg ---------------------------------------------------------------- */

static const struct http_framing none = { .kind = HTTP_FRAMING_NONE };
static const struct http_framing open_ended = { .kind = HTTP_FRAMING_CHUNKED };

static struct http_head *new_head(void)
{
	struct http_head *head = http_head_new();

	ck_assert_ptr_nonnull(head);
	return head;
}

static void respond(struct http_leg *leg, unsigned status, const struct http_framing *framing)
{
	struct http_head *head = new_head();

	http_head_set_status(head, status);
	ck_assert_int_eq(leg->ops->send_head(leg, head, framing), 0);
	(void)leg->ops->flush(leg);
	http_head_free(head);
}

static struct http_leg *request(const struct http_framing *framing)
{
	struct http_head *head = new_head();
	struct http_leg *leg = http2_codec_open(&codec);

	ck_assert_ptr_nonnull(leg);
	leg->changed = on_changed;
	ck_assert_int_eq(http_head_set_method(head, "POST", 4), 0);
	ck_assert_int_eq(http_head_set_path(head, "/a", 2), 0);
	ck_assert_int_eq(http_head_set_authority(head, "api.test", 8), 0);
	ck_assert_int_eq(leg->ops->send_head(leg, head, framing), 0);
	(void)leg->ops->flush(leg);
	http_head_free(head);
	return leg;
}

/* Takes all that is there; returns how much that was. */
static size_t take(struct http_leg *leg)
{
	struct byte_buffer out;
	size_t length;

	byte_buffer_init(&out, 2 * STREAM_WINDOW);
	leg->ops->receive(leg, &out);
	length = byte_buffer_length(&out);
	byte_buffer_release(&out);
	return length;
}

static void expect_field(const struct http_head *head, const char *name, const char *value)
{
	ssize_t index = http_head_find(head, name, 0);

	ck_assert_msg(index >= 0, "%s", name);
	ck_assert(http_text_is_exactly(http_head_field(head, (size_t)index).value, value));
}

/* ---- messages -------------------------------------------------------------------------------- */

START_TEST(a_request_comes_apart)
{
	const struct field fields[] = {
		{ ":method", "POST" }, { ":scheme", "https" }, { ":authority", "api.test" },
		{ ":path", "/a?b" },   { "te", "trailers" },   { "cookie", "a=1" },
		{ "x-field", "v" },    { "cookie", "b=2" },    { "cookie", "c=3" },
	};
	const struct field trailers[] = { { "x-sum", "6" } };

	put_head(1, 0, fields, ARRAY_LENGTH(fields));
	settle();
	ck_assert_uint_eq(leg_count, 1);
	ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_BODY);
	ck_assert_int_eq(legs[0]->framing.kind, HTTP_FRAMING_CHUNKED);
	ck_assert(legs[0]->accepts_trailers);
	ck_assert(http_text_is_exactly(http_head_path(legs[0]->head), "/a?b"));
	ck_assert(http_text_is_exactly(http_head_authority(legs[0]->head), "api.test"));
	expect_field(legs[0]->head, "x-field", "v");
	expect_field(legs[0]->head, "cookie", "a=1; b=2; c=3");
	put_frame(NGHTTP2_DATA, 0, 1, "abc", 3);
	settle();
	ck_assert_uint_eq(take(legs[0]), 3);
	ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_BODY);
	put_frame(NGHTTP2_DATA, 0, 1, "def", 3);
	put_head(1, ENDS, trailers, 1);
	settle();
	ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_BODY);
	ck_assert_uint_eq(take(legs[0]), 3);
	ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_ENDED);
	expect_field(legs[0]->trailers, "x-sum", "6");
	http2_leg_release(legs[0], true);
}
END_TEST

START_TEST(a_head_may_be_all)
{
	put_request(1, ENDS);
	settle();
	ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_ENDED);
	ck_assert_int_eq(legs[0]->framing.kind, HTTP_FRAMING_NONE);
	respond(legs[0], 204, &none);
	http2_leg_release(legs[0], false);
	settle();
	ck_assert_int_eq(reset_of(1), -1);
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

START_TEST(a_response_with_body_and_trailers_is_written)
{
	struct http_head *trailers = new_head();
	struct frame frame;
	bool never_indexed, ended;

	put_request(1, ENDS);
	settle();
	respond(legs[0], 200, &open_ended);
	ck_assert_int_eq(legs[0]->ops->send_body(legs[0], (const uint8_t *)"hello", 5), 0);
	settle();
	ck_assert(find_frame(NGHTTP2_HEADERS, 1, 0, &frame));
	ck_assert(has_field(&frame, ":status", "200", &never_indexed));
	/* Nothing is kept back for more. */
	(void)legs[0]->ops->flush(legs[0]);
	peer_read(&peer);
	ck_assert_uint_eq(data_of(1, &ended), 5);
	ck_assert(!ended);
	ck_assert_int_eq(http_head_add(trailers, "X-Check", 7, "9", 1), 0);
	ck_assert_int_eq(legs[0]->ops->send_end(legs[0], trailers), 0);
	(void)legs[0]->ops->flush(legs[0]);
	http_head_free(trailers);
	settle();
	ck_assert(find_frame(NGHTTP2_HEADERS, 1, 1, &frame));
	ck_assert(has_field(&frame, "x-check", "9", &never_indexed));
	ck_assert_uint_eq(frame.flags & ENDS, ENDS);
	http2_leg_release(legs[0], false);
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

START_TEST(what_is_sensitive_is_never_indexed)
{
	struct http_head *head = new_head();
	struct frame frame;
	bool never_indexed;

	put_request(1, ENDS);
	settle();
	http_head_set_status(head, 200);
	ck_assert_int_eq(http_head_add(head, "X-Key", 5, "?", 1), 0);
	ck_assert_int_eq(http_head_replace(head, 0, "secret", 6, _i == 0), 0);
	ck_assert_int_eq(legs[0]->ops->send_head(legs[0], head, &none), 0);
	(void)legs[0]->ops->flush(legs[0]);
	http_head_free(head);
	settle();
	ck_assert(find_frame(NGHTTP2_HEADERS, 1, 0, &frame));
	ck_assert(has_field(&frame, "x-key", "secret", &never_indexed));
	ck_assert(never_indexed == (_i == 0));
	http2_leg_release(legs[0], false);
}
END_TEST

START_TEST(a_length_is_said_as_it_was)
{
	const struct http_framing framing = { HTTP_FRAMING_LENGTH, true, 5 };
	const struct field fields[] = { { ":status", "200" }, { "content-length", "7" } };
	struct http_leg *leg = request(&framing);
	struct frame frame;
	bool never_indexed;

	ck_assert_int_eq(leg->ops->send_body(leg, (const uint8_t *)"hello", 5), 0);
	ck_assert_int_eq(leg->ops->send_end(leg, NULL), 0);
	put_head(1, 0, fields, 2);
	settle();
	ck_assert(find_frame(NGHTTP2_HEADERS, 1, 0, &frame));
	ck_assert(has_field(&frame, "content-length", "5", &never_indexed));
	ck_assert_int_eq(leg->framing.kind, HTTP_FRAMING_LENGTH);
	ck_assert(leg->framing.has_length);
	ck_assert_uint_eq(leg->framing.length, 7);
	http2_leg_release(leg, false);
}
END_TEST

/* ---- interim responses ----------------------------------------------------------------------- */

START_TEST(interim_responses_wait_to_be_skipped)
{
	struct http_leg *leg = request(&none);

	put_response(1, 0, "103");
	put_response(1, 0, "100");
	put_response(1, ENDS, "200");
	settle();
	ck_assert(http2_leg_has_answered(leg));
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
		ck_assert_uint_eq(http_head_status(leg->head), i == 0 ? 103 : 100);
		leg->ops->skip_head(leg);
	}
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	ck_assert_uint_eq(http_head_status(leg->head), 200);
	http2_leg_release(leg, false);
}
END_TEST

START_TEST(of_many_interim_responses_some_are_left_out)
{
	struct http_leg *leg = request(&none);
	unsigned count = 0;

	for (unsigned i = 0; i < 50; i++)
		put_response(1, 0, "102");
	put_response(1, 0, "200");
	settle();
	for (; http_head_status(leg->head) < 200; count++)
		leg->ops->skip_head(leg);
	/* The one that is shown, and those that wait. */
	ck_assert_uint_eq(count, HTTP2_INTERIM_MAX + 1);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_BODY);
	http2_leg_release(leg, false);
}
END_TEST

START_TEST(after_the_last_interim_response_more_is_waited_for)
{
	struct http_leg *leg = request(&none);

	put_response(1, 0, "103");
	settle();
	leg->ops->skip_head(leg);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_HEAD);
	ck_assert_ptr_null(leg->head);
	put_response(1, ENDS, "204");
	settle();
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	ck_assert_uint_eq(http_head_status(leg->head), 204);
	http2_leg_release(leg, false);
}
END_TEST

/* ---- what ends a stream, and no more than that ----------------------------------------------- */

#define BEGIN                                                                                      \
	{ ":method", "GET" }, { ":scheme", "https" }, { ":authority", "api.test" },                \
	{                                                                                          \
		":path", "/"                                                                       \
	}

static const struct {
	struct field fields[8];
	size_t count;
} bad_requests[] = {
	{ { BEGIN, { "X-Upper", "1" } }, 5 },
	{ { BEGIN, { "connection", "close" } }, 5 },
	{ { BEGIN, { "transfer-encoding", "chunked" } }, 5 },
	{ { BEGIN, { "upgrade", "websocket" } }, 5 },
	{ { BEGIN, { "te", "gzip" } }, 5 },
	{ { BEGIN, { "x", "a\rb" } }, 5 },
	{ { BEGIN, { "x", "a\nb" } }, 5 },
	{ { BEGIN, { "x", " a" } }, 5 },
	{ { BEGIN, { "x y", "a" } }, 5 },
	{ { BEGIN, { "x:", "a" } }, 5 },
	{ { BEGIN, { ":status", "200" } }, 5 },
	{ { BEGIN, { ":other", "a" } }, 5 },
	{ { BEGIN, { ":path", "/" } }, 5 },
	{ { BEGIN, { "content-length", "1" }, { "content-length", "2" } }, 6 },
	{ { BEGIN, { "content-length", "-1" } }, 5 },
	{ { BEGIN, { "content-length", "3" } }, 5 }, /* and no DATA */
	{ { { ":method", "GE T" },
	    { ":scheme", "https" },
	    { ":authority", "a" },
	    { ":path", "/" } },
	  4 },
	{ { { ":method", "GET" },
	    { ":scheme", "https" },
	    { ":authority", "a" },
	    { ":path", "/ a" } },
	  4 },
	{ { { ":method", "GET" }, { ":scheme", "https" }, { ":authority", "a" }, { ":path", "" } },
	  4 },
	{ { { ":method", "GET" },
	    { ":scheme", "https" },
	    { ":authority", "a" },
	    { ":path", "/#a" } },
	  4 },
	{ { { ":method", "GET" },
	    { ":scheme", "https" },
	    { ":path", "/" },
	    { "x", "1" },
	    { ":authority", "a" } },
	  5 },
	{ { { ":method", "GET" }, { ":authority", "a" }, { ":path", "/" } }, 3 },
};

START_TEST(a_bad_request_is_reset_and_nobody_sees_it)
{
	put_head(1, ENDS, bad_requests[_i].fields, bad_requests[_i].count);
	settle();
	ck_assert_int_ge(reset_of(1), 0);
	ck_assert_uint_eq(leg_count, 0);
	ck_assert_uint_eq(codec.leg_count, 0);
	/* Others do not suffer for it. */
	put_request(3, ENDS);
	settle();
	ck_assert_uint_eq(leg_count, 1);
	ck_assert(!codec.is_over);
	http2_leg_release(legs[0], true);
}
END_TEST

static const struct {
	struct field fields[4];
	size_t count;
} bad_responses[] = {
	{ { { ":status", "101" } }, 1 },
	{ { { ":status", "20" } }, 1 },
	{ { { ":status", "2000" } }, 1 },
	{ { { ":status", "2x0" } }, 1 },
	{ { { "x", "1" } }, 1 },
	{ { { ":status", "200" }, { "x", "a\nb" } }, 2 },
	{ { { ":status", "200" }, { "connection", "close" } }, 2 },
	{ { { ":status", "200" }, { "content-length", "5" }, { "content-length", "6" } }, 3 },
	{ { { ":status", "200" }, { ":path", "/" } }, 2 },
};

START_TEST(a_bad_response_fails)
{
	struct http_leg *leg = request(&none);

	settle();
	put_head(1, 0, bad_responses[_i].fields, bad_responses[_i].count);
	settle();
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_FAILED);
	ck_assert_ptr_nonnull(leg->problem);
	ck_assert(leg->send_failed);
	ck_assert_uint_gt(changes, 0);
	ck_assert(!codec.is_over);
	http2_leg_release(leg, false);
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

START_TEST(trailers_have_no_pseudo_fields)
{
	const struct field trailers[] = { { ":path", "/other" } };

	put_request(1, 0);
	settle();
	put_head(1, ENDS, trailers, 1);
	settle();
	ck_assert_int_ge(reset_of(1), 0);
	ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_FAILED);
	ck_assert(http_text_is_exactly(http_head_path(legs[0]->head), "/a?b"));
	http2_leg_release(legs[0], true);
}
END_TEST

START_TEST(more_data_than_was_said_fails)
{
	const struct field fields[] = { BEGIN, { "content-length", "3" } };

	put_head(1, 0, fields, 5);
	put_frame(NGHTTP2_DATA, 0, 1, "abcd", 4);
	settle();
	ck_assert_int_ge(reset_of(1), 0);
	if (leg_count > 0) {
		ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_FAILED);
		http2_leg_release(legs[0], true);
	}
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

START_TEST(an_endless_head_ends_its_stream)
{
	static char value[1024];
	struct field fields[4 + 80] = { BEGIN };

	memset(value, '~', sizeof(value) - 1);
	for (size_t i = 4; i < ARRAY_LENGTH(fields); i++)
		fields[i] = (struct field){ "x", value };
	put_head(1, ENDS, fields, ARRAY_LENGTH(fields));
	settle();
	ck_assert(codec.is_over || reset_of(1) >= 0);
	ck_assert_uint_eq(leg_count, 0);
}
END_TEST

/* ---- many streams ---------------------------------------------------------------------------- */

START_TEST(there_are_so_many_streams_and_no_more)
{
	struct frame frame;
	bool is_said = false;

	settle();
	ck_assert(find_frame(NGHTTP2_SETTINGS, 0, 0, &frame));
	for (size_t at = 0; at + 6 <= frame.length; at += 6)
		is_said = is_said ||
			  (frame.payload[at + 1] == NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS &&
			   number_at(frame.payload + at + 2) == HTTP2_STREAMS_MAX);
	ck_assert(is_said);
	for (uint32_t i = 0; i < HTTP2_STREAMS_MAX; i++)
		put_request(2 * i + 1, ENDS);
	settle();
	ck_assert_uint_eq(leg_count, HTTP2_STREAMS_MAX);
	put_request(2 * HTTP2_STREAMS_MAX + 1, ENDS);
	settle();
	ck_assert_uint_eq(leg_count, HTTP2_STREAMS_MAX);
	ck_assert(codec.is_over || reset_of(2 * HTTP2_STREAMS_MAX + 1) >= 0);
	for (size_t i = 0; i < leg_count; i++)
		http2_leg_release(legs[i], true);
}
END_TEST

/* Streams that are reset as soon as they are opened, while their users are not done with them. */
START_TEST(rapid_resets_do_not_pile_up)
{
	size_t most = 0;

	for (uint32_t i = 0; i < 5000 && !codec.is_over; i++) {
		leg_count = 0; /* they are not released */
		put_request(2 * i + 1, ENDS);
		(void)event_loop_run_once(&loop, 0);
		put_number(NGHTTP2_RST_STREAM, 2 * i + 1, NGHTTP2_CANCEL);
		(void)event_loop_run_once(&loop, 0);
		peer_forget(&peer);
		most = MAX_OF(most, codec.leg_count);
	}
	ck_assert_uint_gt(most, 0);
	ck_assert_uint_le(most, 2 * HTTP2_STREAMS_MAX);
}
END_TEST

START_TEST(a_server_may_take_fewer_streams)
{
	const uint8_t two[6] = { 0, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0, 0, 0, 2 };
	struct http_leg *first, *second;

	put_frame(NGHTTP2_SETTINGS, 0, 0, two, sizeof(two));
	settle();
	first = request(&none);
	ck_assert(http2_codec_has_room(&codec));
	second = request(&none);
	settle();
	put_response(1, ENDS, "200");
	put_response(3, ENDS, "200");
	settle();
	ck_assert_uint_eq(http_head_status(first->head), 200);
	ck_assert_uint_eq(http_head_status(second->head), 200);
	http2_leg_release(first, false);
	http2_leg_release(second, false);
}
END_TEST

START_TEST(after_a_goodbye_no_stream_is_opened)
{
	const uint8_t goodbye[8] = { 0, 0, 0, 1 };
	struct http_leg *first = request(&none);
	struct http_leg *second = request(&none);

	settle();
	put_frame(NGHTTP2_GOAWAY, 0, 0, goodbye, sizeof(goodbye));
	settle();
	ck_assert(!http2_codec_has_room(&codec));
	/* What it has seen it still answers; what it has not may be asked for elsewhere. */
	ck_assert_int_eq(second->receiving, HTTP_RECEIVING_FAILED);
	ck_assert(!http2_leg_has_answered(second));
	ck_assert_int_eq(first->receiving, HTTP_RECEIVING_HEAD);
	put_response(1, ENDS, "200");
	settle();
	ck_assert_int_eq(first->receiving, HTTP_RECEIVING_ENDED);
	http2_leg_release(first, false);
	http2_leg_release(second, false);
}
END_TEST

/* ---- windows --------------------------------------------------------------------------------- */

static size_t put_data(uint32_t id, size_t length)
{
	static const uint8_t block[16384];
	size_t put = 0;

	for (; put < length; put += MIN_OF(sizeof(block), length - put)) {
		put_frame(NGHTTP2_DATA, 0, id, block, MIN_OF(sizeof(block), length - put));
		settle();
	}
	return put;
}

START_TEST(who_does_not_take_a_body_gets_no_more_of_it)
{
	size_t before;

	put_request(1, 0);
	settle();
	before = window_of(0);
	put_data(1, STREAM_WINDOW);
	ck_assert_uint_eq(window_of(1), 0);
	ck_assert_uint_eq(window_of(0), before);
	ck_assert_uint_eq(take(legs[0]), STREAM_WINDOW);
	legs[0]->ops->flush(legs[0]);
	settle();
	ck_assert_uint_eq(window_of(1), STREAM_WINDOW);
	http2_leg_release(legs[0], true);
}
END_TEST

START_TEST(a_peer_that_oversteps_its_window_is_stopped)
{
	put_request(1, 0);
	settle();
	put_data(1, STREAM_WINDOW);
	put_frame(NGHTTP2_DATA, 0, 1, "x", 1);
	settle();
	ck_assert(codec.is_over || reset_of(1) == NGHTTP2_FLOW_CONTROL_ERROR);
	http2_leg_release(legs[0], true);
}
END_TEST

/* A peer's window is 65535 bytes as long as it says nothing (RFC 9113 section 6.9.2). */
START_TEST(who_is_not_read_from_is_told_to_wait)
{
	static const uint8_t block[16384];
	size_t queued = 0;
	unsigned before;
	bool ended;

	put_request(1, ENDS);
	settle();
	respond(legs[0], 200, &open_ended);
	for (size_t room; (room = legs[0]->ops->room(legs[0])) > 0;) {
		size_t part = MIN_OF(room, sizeof(block));

		ck_assert_int_eq(legs[0]->ops->send_body(legs[0], block, part), 0);
		queued += part;
		ck_assert_uint_lt(queued, 262144);
		(void)legs[0]->ops->flush(legs[0]);
	}
	settle();
	ck_assert_uint_eq(data_of(1, &ended), 65535);
	ck_assert_uint_gt(queued, 65535);
	ck_assert_uint_eq(legs[0]->ops->room(legs[0]), 0);
	/* Room brings a call. */
	before = changes;
	put_number(NGHTTP2_WINDOW_UPDATE, 0, 32768);
	put_number(NGHTTP2_WINDOW_UPDATE, 1, 32768);
	settle();
	ck_assert_uint_gt(changes, before);
	ck_assert_uint_gt(legs[0]->ops->room(legs[0]), 0);
	ck_assert_uint_eq(data_of(1, &ended), 65535 + 32768);
	http2_leg_release(legs[0], true);
}
END_TEST

START_TEST(what_was_sent_still_goes_out_after_the_release)
{
	static const uint8_t block[60000];
	bool ended;

	put_request(1, ENDS);
	settle();
	respond(legs[0], 200, &open_ended);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(legs[0]->ops->send_body(legs[0], block, sizeof(block)), 0);
		(void)legs[0]->ops->flush(legs[0]);
	}
	ck_assert_int_eq(legs[0]->ops->send_end(legs[0], NULL), 0);
	http2_leg_release(legs[0], false);
	settle();
	ck_assert_uint_eq(data_of(1, &ended), 65535);
	ck_assert_uint_eq(codec.leg_count, 1);
	put_number(NGHTTP2_WINDOW_UPDATE, 0, 1u << 20);
	put_number(NGHTTP2_WINDOW_UPDATE, 1, 1u << 20);
	settle();
	ck_assert_uint_eq(data_of(1, &ended), 2 * sizeof(block));
	ck_assert(ended);
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

/* An answer may be complete before the request is: what then comes of that comes to its end, though
 * nobody takes it, and the stream with it. */
START_TEST(a_body_that_nobody_wants_comes_to_its_end)
{
	const size_t early = (size_t)_i;
	size_t room;

	put_request(1, 0);
	settle();
	put_data(1, early);
	respond(legs[0], 403, &none);
	http2_leg_release(legs[0], false);
	settle();
	ck_assert_int_eq(reset_of(1), -1);
	room = STREAM_WINDOW + window_of(1) - early;
	ck_assert_uint_gt(room, 0);
	put_data(1, room);
	ck_assert_uint_gt(STREAM_WINDOW + window_of(1), early + room);
	ck_assert_uint_gt(CONNECTION_WINDOW + window_of(0), early + room);
	put_frame(NGHTTP2_DATA, ENDS, 1, "x", 1);
	settle();
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

/* ---- ends ------------------------------------------------------------------------------------ */

START_TEST(a_reset_fails_the_leg)
{
	unsigned before;

	put_request(1, 0);
	put_frame(NGHTTP2_DATA, 0, 1, "abc", 3);
	settle();
	before = changes;
	put_number(NGHTTP2_RST_STREAM, 1, NGHTTP2_CANCEL);
	settle();
	ck_assert_uint_gt(changes, before);
	ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_FAILED);
	ck_assert(legs[0]->send_failed);
	ck_assert_uint_eq(legs[0]->ops->room(legs[0]), 0);
	/* The codec has not forgotten it before its user does. */
	ck_assert_uint_eq(codec.leg_count, 1);
	http2_leg_release(legs[0], true);
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

START_TEST(the_end_of_the_connection_is_everybodys)
{
	put_request(1, 0);
	put_request(3, ENDS);
	settle();
	ck_assert_int_eq(shutdown(peer.fd, SHUT_WR), 0);
	settle();
	ck_assert(codec.is_over);
	ck_assert_int_eq(legs[0]->receiving, HTTP_RECEIVING_FAILED);
	/* This one had come whole. */
	ck_assert_int_eq(legs[1]->receiving, HTTP_RECEIVING_ENDED);
	ck_assert(legs[0]->send_failed && legs[1]->send_failed);
	http2_leg_release(legs[0], true);
	http2_leg_release(legs[1], true);
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

START_TEST(nonsense_ends_the_connection)
{
	struct http_leg *leg = request(&none);
	struct frame frame;

	settle();
	put_frame(NGHTTP2_DATA, 0, 0, "x", 1);
	settle();
	ck_assert(find_frame(NGHTTP2_GOAWAY, 0, 0, &frame));
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_FAILED);
	ck_assert(!http2_leg_has_answered(leg));
	http2_leg_release(leg, false);
}
END_TEST

START_TEST(a_push_is_not_taken)
{
	struct http_leg *leg = request(&none);
	struct frame frame;

	settle();
	put_frame(NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, "\0\0\0\2\x82", 5);
	settle();
	ck_assert(find_frame(NGHTTP2_GOAWAY, 0, 0, &frame));
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_FAILED);
	http2_leg_release(leg, false);
}
END_TEST

START_TEST(who_gives_up_says_so)
{
	struct http_leg *leg = request(&open_ended);

	settle();
	http2_leg_release(leg, false);
	settle();
	ck_assert_int_eq(reset_of(1), NGHTTP2_CANCEL);
	ck_assert_uint_eq(codec.leg_count, 0);
}
END_TEST

START_TEST(what_is_cut_does_not_look_whole)
{
	bool ended;

	put_request(1, ENDS);
	settle();
	respond(legs[0], 200, &open_ended);
	ck_assert_int_eq(legs[0]->ops->send_body(legs[0], (const uint8_t *)"half", 4), 0);
	(void)legs[0]->ops->flush(legs[0]);
	http2_leg_release(legs[0], true);
	settle();
	ck_assert_int_eq(reset_of(1), NGHTTP2_INTERNAL_ERROR);
	(void)data_of(1, &ended);
	ck_assert(!ended);
}
END_TEST

static void add_server_tests(TCase *tests)
{
	tcase_add_checked_fixture(tests, set_up_server, peer_stop);
	tcase_add_test(tests, a_request_comes_apart);
	tcase_add_test(tests, a_head_may_be_all);
	tcase_add_test(tests, a_response_with_body_and_trailers_is_written);
	tcase_add_loop_test(tests, what_is_sensitive_is_never_indexed, 0, 2);
	tcase_add_loop_test(tests, a_bad_request_is_reset_and_nobody_sees_it, 0,
			    ARRAY_LENGTH(bad_requests));
	tcase_add_test(tests, trailers_have_no_pseudo_fields);
	tcase_add_test(tests, more_data_than_was_said_fails);
	tcase_add_test(tests, an_endless_head_ends_its_stream);
	tcase_add_test(tests, there_are_so_many_streams_and_no_more);
	tcase_add_test(tests, rapid_resets_do_not_pile_up);
	tcase_add_test(tests, who_does_not_take_a_body_gets_no_more_of_it);
	tcase_add_test(tests, a_peer_that_oversteps_its_window_is_stopped);
	tcase_add_test(tests, who_is_not_read_from_is_told_to_wait);
	tcase_add_test(tests, what_was_sent_still_goes_out_after_the_release);
	tcase_add_loop_test(tests, a_body_that_nobody_wants_comes_to_its_end, 0, 1);
	tcase_add_loop_test(tests, a_body_that_nobody_wants_comes_to_its_end, STREAM_WINDOW,
			    STREAM_WINDOW + 1);
	tcase_add_test(tests, a_reset_fails_the_leg);
	tcase_add_test(tests, the_end_of_the_connection_is_everybodys);
	tcase_add_test(tests, what_is_cut_does_not_look_whole);
}

static void add_client_tests(TCase *tests)
{
	tcase_add_checked_fixture(tests, set_up_client, peer_stop);
	tcase_add_test(tests, a_length_is_said_as_it_was);
	tcase_add_test(tests, interim_responses_wait_to_be_skipped);
	tcase_add_test(tests, of_many_interim_responses_some_are_left_out);
	tcase_add_test(tests, after_the_last_interim_response_more_is_waited_for);
	tcase_add_loop_test(tests, a_bad_response_fails, 0, ARRAY_LENGTH(bad_responses));
	tcase_add_test(tests, a_server_may_take_fewer_streams);
	tcase_add_test(tests, after_a_goodbye_no_stream_is_opened);
	tcase_add_test(tests, nonsense_ends_the_connection);
	tcase_add_test(tests, a_push_is_not_taken);
	tcase_add_test(tests, who_gives_up_says_so);
}

int main(void)
{
	Suite *suite = suite_create("http2_codec");
	TCase *as_server = tcase_create("server");
	TCase *as_client = tcase_create("client");
	SRunner *runner;
	int failed;

	add_server_tests(as_server);
	suite_add_tcase(suite, as_server);
	add_client_tests(as_client);
	suite_add_tcase(suite, as_client);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
