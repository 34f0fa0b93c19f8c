/*
 * proxy/http1_codec.h: messages on a connection, one after another, in either role. What heads and
 * chunks are is http1_test.c's; here it is what becomes of them as bytes come and go.
 */
#include "proxy/http1_codec.h"

#include <check.h>
#include <errno.h>

#include "base/checked.h"
#include "tests/unit/proxy_world.h"

static struct event_loop loop;
static struct stream stream;
static struct http1_codec codec;
static struct http_leg *leg;
static struct peer peer;
static unsigned changes;

static void on_ready(struct stream *ready)
{
	(void)ready;
	http1_codec_turn(&codec);
}

static void on_changed(struct http_leg *changed)
{
	ck_assert_ptr_eq(changed, leg);
	changes++;
}

static void set_up(enum http1_role role)
{
	int pair[2];

	ck_assert_int_eq(event_loop_init(&loop), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	ck_assert_int_eq(stream_init(&stream, &loop, pair[0], on_ready), 0);
	ck_assert_int_eq(http1_codec_init(&codec, &stream, role), 0);
	peer_take(&peer, pair[1]);
	leg = &codec.leg;
	leg->changed = on_changed;
	changes = 0;
}

static void set_up_server(void)
{
	set_up(HTTP1_SERVER);
}

static void set_up_client(void)
{
	set_up(HTTP1_CLIENT);
}

static void tear_down(void)
{
	http1_codec_release(&codec);
	stream_release(&stream);
	peer_close(&peer);
	event_loop_release(&loop);
}

static void settle(void)
{
	for (unsigned quiet = 0; quiet < 2;)
		quiet = event_loop_run_once(&loop, 2) == 0 ? quiet + 1 : 0;
	peer_read(&peer);
}

static void hear(const char *text)
{
	peer_say(&peer, text);
	settle();
}

static const struct http_framing none = { .kind = HTTP_FRAMING_NONE };
static const struct http_framing chunked = { .kind = HTTP_FRAMING_CHUNKED };
static const struct http_framing five = { HTTP_FRAMING_LENGTH, true, 5 };
static const struct http_framing until_close = { .kind = HTTP_FRAMING_UNTIL_CLOSE };

static void send_head(const char *method, unsigned status, const struct http_framing *framing)
{
	struct http_head *head = http_head_new();

	ck_assert_ptr_nonnull(head);
	http_head_set_status(head, status);
	ck_assert_int_eq(http_head_set_method(head, method, strlen(method)), 0);
	ck_assert_int_eq(http_head_set_path(head, "/", 1), 0);
	ck_assert_int_eq(http_head_set_authority(head, "api.test", 8), 0);
	ck_assert_int_eq(leg->ops->send_head(leg, head, framing), 0);
	http_head_free(head);
}

static void respond(unsigned status, const struct http_framing *framing)
{
	send_head("", status, framing);
}

static int send_text(const char *text)
{
	return leg->ops->send_body(leg, (const uint8_t *)text, strlen(text));
}

static void expect_sent(const char *text)
{
	ck_assert(leg->ops->flush(leg));
	peer_read(&peer);
	ck_assert_str_eq(peer.text, text);
	peer_forget(&peer);
}

/* Takes what has come, up to `max` bytes of it. */
static void expect_body(const char *text, size_t max)
{
	struct byte_buffer out;

	byte_buffer_init(&out, max);
	leg->ops->receive(leg, &out);
	ck_assert_uint_eq(byte_buffer_length(&out), strlen(text));
	if (text[0])
		ck_assert_mem_eq(byte_buffer_front(&out), text, strlen(text));
	byte_buffer_release(&out);
}

#define ALL 65536u
#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define OK "HTTP/1.1 200 OK\r\n"

/* ---- receiving ------------------------------------------------------------------------------- */

START_TEST(a_head_may_come_in_pieces)
{
	const char *text = GET "X-Field: v\r\n\r\n";

	for (; text[1]; text++) {
		hear((const char[]){ *text, '\0' });
		ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_HEAD);
		ck_assert(http1_codec_has_input(&codec));
	}
	hear(text);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	ck_assert_int_ge(http_head_find(leg->head, "x-field", 0), 0);
	ck_assert_uint_gt(changes, 0);
}
END_TEST

START_TEST(a_body_is_taken_as_far_as_there_is_room)
{
	hear(GET "Content-Length: 5\r\n\r\nhello");
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_BODY);
	ck_assert_int_eq(leg->framing.kind, HTTP_FRAMING_LENGTH);
	expect_body("hel", 3);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_BODY);
	expect_body("lo", ALL);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	ck_assert_ptr_null(leg->trailers);
}
END_TEST

START_TEST(trailers_come_with_the_end)
{
	hear(GET "TE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n");
	ck_assert(leg->accepts_trailers);
	expect_body("hello", ALL);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_BODY);
	hear("X-Sum: 5\r\n\r\n");
	expect_body("", ALL);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	ck_assert_int_ge(http_head_find(leg->trailers, "x-sum", 0), 0);
}
END_TEST

static const struct {
	const char *text;
	const char *problem;
} ends[] = {
	{ "", "the connection ended" },
	{ "GET / HT", "the connection ended in the middle of a head" },
	{ GET "Content-Length: 5\r\n\r\nhell", "the connection ended in the middle of a body" },
	{ GET "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
	  "the connection ended in the middle of a body" },
};

START_TEST(an_end_too_early_fails)
{
	struct byte_buffer out;

	peer_say(&peer, ends[_i].text);
	ck_assert_int_eq(shutdown(peer.fd, SHUT_WR), 0);
	settle();
	byte_buffer_init(&out, ALL);
	leg->ops->receive(leg, &out);
	byte_buffer_release(&out);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_FAILED);
	ck_assert_str_eq(leg->problem, ends[_i].problem);
	ck_assert(http1_codec_has_input(&codec) == (ends[_i].text[0] != '\0'));
	ck_assert(!http1_codec_is_reusable(&codec));
}
END_TEST

START_TEST(what_waits_stays_in_the_socket)
{
	hear(GET "Content-Length: 1000000000\r\n\r\n");
	for (unsigned i = 0; i < 100; i++) {
		static const char block[16384];

		(void)!send(peer.fd, block, sizeof(block), MSG_NOSIGNAL);
		settle();
	}
	ck_assert_uint_lt(byte_buffer_length(&codec.input), 131072);
}
END_TEST

/* ---- sending --------------------------------------------------------------------------------- */

START_TEST(a_message_is_framed_as_its_length_is_known)
{
	hear(GET "\r\n");
	respond(200, &five);
	ck_assert_int_eq(send_text("hello"), 0);
	ck_assert_int_eq(leg->ops->send_end(leg, NULL), 0);
	expect_sent(OK "Content-Length: 5\r\n\r\nhello");
	ck_assert(http1_codec_is_reusable(&codec));
	http1_codec_next(&codec);
	hear(GET "\r\n");
	respond(200, &chunked);
	ck_assert_int_eq(send_text("hello"), 0);
	ck_assert(!http1_codec_is_reusable(&codec));
	ck_assert_int_eq(leg->ops->send_end(leg, NULL), 0);
	expect_sent(OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
	ck_assert(http1_codec_is_reusable(&codec));
}
END_TEST

START_TEST(who_knows_no_chunks_gets_none)
{
	hear("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	ck_assert(leg->is_old);
	respond(200, &chunked);
	ck_assert_int_eq(send_text("hello"), 0);
	ck_assert_int_eq(leg->ops->send_end(leg, NULL), 0);
	expect_sent(OK "Connection: close\r\n\r\nhello");
	ck_assert(!http1_codec_is_reusable(&codec));
}
END_TEST

START_TEST(a_body_until_the_end_becomes_chunks)
{
	hear(GET "\r\n");
	respond(200, &until_close);
	ck_assert_int_eq(send_text("hello"), 0);
	ck_assert_int_eq(leg->ops->send_end(leg, NULL), 0);
	expect_sent(OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
	ck_assert(http1_codec_is_reusable(&codec));
}
END_TEST

START_TEST(more_or_less_than_was_said_fails)
{
	hear(GET "\r\n");
	respond(200, &five);
	if (_i == 0) {
		ck_assert_int_eq(send_text("hello!"), -EMSGSIZE);
	} else {
		ck_assert_int_eq(send_text("hell"), 0);
		ck_assert_int_lt(leg->ops->send_end(leg, NULL), 0);
	}
	ck_assert(leg->send_failed);
	ck_assert(!http1_codec_is_reusable(&codec));
	ck_assert_uint_eq(leg->ops->room(leg), 0);
}
END_TEST

START_TEST(interim_responses_end_nothing)
{
	hear(GET "\r\n");
	leg->closes = true;
	respond(103, &none);
	expect_sent("HTTP/1.1 103 Early Hints\r\n\r\n");
	respond(200, &none);
	expect_sent(OK "Connection: close\r\n\r\n");
	ck_assert(!http1_codec_is_reusable(&codec));
}
END_TEST

START_TEST(a_message_that_is_not_whole_is_followed_by_none)
{
	hear(GET "Content-Length: 5\r\n\r\nhel");
	respond(200, &none);
	ck_assert(!http1_codec_is_reusable(&codec));
	expect_body("hel", ALL);
	ck_assert(!http1_codec_is_reusable(&codec));
	hear("lo");
	expect_body("lo", ALL);
	ck_assert(http1_codec_is_reusable(&codec));
}
END_TEST

START_TEST(what_a_peer_wants_closed_is_followed_by_none)
{
	hear(GET "Connection: close\r\n\r\n");
	respond(204, &none);
	expect_sent("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
	ck_assert(!http1_codec_is_reusable(&codec));
}
END_TEST

/* The next request has come with the first, and no event will tell of it. */
START_TEST(the_next_message_may_be_there)
{
	hear(GET "\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
	respond(204, &none);
	ck_assert(http1_codec_is_reusable(&codec));
	http1_codec_next(&codec);
	ck_assert(http1_codec_has_input(&codec));
	http1_codec_turn(&codec);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	ck_assert(http_text_is_exactly(http_head_path(leg->head), "/second"));
	respond(204, &none);
	http1_codec_next(&codec);
	ck_assert(!http1_codec_has_input(&codec));
}
END_TEST

START_TEST(room_ends_when_nobody_reads)
{
	static const char block[8192];
	size_t sent = 0;
	unsigned before;

	hear(GET "\r\n");
	respond(200, &chunked);
	for (size_t room; (room = leg->ops->room(leg)) > 0;) {
		size_t part = MIN_OF(room, sizeof(block));

		ck_assert_int_eq(leg->ops->send_body(leg, (const uint8_t *)block, part), 0);
		(void)leg->ops->flush(leg);
		sent += part;
		ck_assert_uint_lt(sent, 8u << 20);
	}
	ck_assert_uint_lt(byte_buffer_length(&codec.output), 131072);
	ck_assert(!leg->ops->flush(leg));
	/* Room brings a call. */
	before = changes;
	settle();
	settle();
	ck_assert_uint_gt(changes, before);
	ck_assert_uint_gt(leg->ops->room(leg), 0);
}
END_TEST

/* ---- as a client ----------------------------------------------------------------------------- */

START_TEST(a_request_is_written)
{
	leg->accepts_trailers = true;
	send_head("POST", 0, &five);
	ck_assert_int_eq(send_text("hello"), 0);
	ck_assert_int_eq(leg->ops->send_end(leg, NULL), 0);
	expect_sent("POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n"
		    "TE: trailers\r\nConnection: TE\r\n\r\nhello");
	http1_codec_next(&codec);
	leg->upgrade = "websocket";
	send_head("GET", 0, &none);
	peer_read(&peer);
	ck_assert(leg->ops->flush(leg));
	ck_assert(peer_has(&peer, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
	ck_assert_ptr_null(leg->upgrade);
}
END_TEST

static const struct {
	const char *method;
	const char *text;
	bool is_reusable;
} responses[] = {
	{ "GET", OK "Content-Length: 0\r\n\r\n", true },
	{ "HEAD", OK "Content-Length: 5\r\n\r\n", true },
	{ "HEAD", OK "Transfer-Encoding: chunked\r\n\r\n", true },
	{ "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", true },
	{ "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", true },
	{ "GET", OK "Connection: close\r\nContent-Length: 0\r\n\r\n", false },
	{ "GET", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false },
	{ "GET", "HTTP/1.1 103 Early Hints\r\n\r\n", false },
	{ "GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", false },
};

START_TEST(an_answer_may_have_no_body)
{
	send_head(responses[_i].method, 0, &none);
	hear(responses[_i].text);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	ck_assert_int_eq(leg->framing.kind, HTTP_FRAMING_NONE);
	ck_assert(http1_codec_is_reusable(&codec) == responses[_i].is_reusable);
}
END_TEST

START_TEST(interim_responses_are_skipped)
{
	send_head("GET", 0, &none);
	hear("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK "Content-Length: 2\r\n\r\nok");
	ck_assert_uint_eq(http_head_status(leg->head), 103);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	leg->ops->skip_head(leg);
	ck_assert_uint_eq(http_head_status(leg->head), 200);
	ck_assert_int_lt(http_head_find(leg->head, "link", 0), 0);
	expect_body("ok", ALL);
	ck_assert(http1_codec_is_reusable(&codec));
}
END_TEST

START_TEST(an_end_ends_a_body_that_nothing_else_ends)
{
	send_head("GET", 0, &none);
	hear(OK "\r\nhello");
	ck_assert_int_eq(leg->framing.kind, HTTP_FRAMING_UNTIL_CLOSE);
	expect_body("hello", ALL);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_BODY);
	ck_assert_int_eq(shutdown(peer.fd, SHUT_WR), 0);
	settle();
	expect_body("", ALL);
	ck_assert_int_eq(leg->receiving, HTTP_RECEIVING_ENDED);
	ck_assert(!http1_codec_is_reusable(&codec));
}
END_TEST

static void add_server_tests(TCase *tests)
{
	tcase_add_checked_fixture(tests, set_up_server, tear_down);
	tcase_add_test(tests, a_head_may_come_in_pieces);
	tcase_add_test(tests, a_body_is_taken_as_far_as_there_is_room);
	tcase_add_test(tests, trailers_come_with_the_end);
	tcase_add_loop_test(tests, an_end_too_early_fails, 0, ARRAY_LENGTH(ends));
	tcase_add_test(tests, what_waits_stays_in_the_socket);
	tcase_add_test(tests, a_message_is_framed_as_its_length_is_known);
	tcase_add_test(tests, who_knows_no_chunks_gets_none);
	tcase_add_test(tests, a_body_until_the_end_becomes_chunks);
	tcase_add_loop_test(tests, more_or_less_than_was_said_fails, 0, 2);
	tcase_add_test(tests, interim_responses_end_nothing);
	tcase_add_test(tests, a_message_that_is_not_whole_is_followed_by_none);
	tcase_add_test(tests, what_a_peer_wants_closed_is_followed_by_none);
	tcase_add_test(tests, the_next_message_may_be_there);
	tcase_add_test(tests, room_ends_when_nobody_reads);
}

int main(void)
{
	Suite *suite = suite_create("http1_codec");
	TCase *as_server = tcase_create("server");
	TCase *as_client = tcase_create("client");
	SRunner *runner;
	int failed;

	add_server_tests(as_server);
	suite_add_tcase(suite, as_server);
	tcase_add_checked_fixture(as_client, set_up_client, tear_down);
	tcase_add_test(as_client, a_request_is_written);
	tcase_add_loop_test(as_client, an_answer_may_have_no_body, 0, ARRAY_LENGTH(responses));
	tcase_add_test(as_client, interim_responses_are_skipped);
	tcase_add_test(as_client, an_end_ends_a_body_that_nothing_else_ends);
	suite_add_tcase(suite, as_client);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
