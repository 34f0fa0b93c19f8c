/*
 * proxy/exchange.h over real sockets: what the guest and the server get of one another, whoever is
 * slow, early, malformed or gone. Both ends are played byte by byte.
 */
#include "proxy/exchange.h"

#include <check.h>

#include "proxy/http1_codec.h"
#include "tests/unit/proxy_world.h"

#define SECRET_VALUE "sk-ant-api03-AbC012def345Ghi"

static const struct fixture_secret secret = { .name = "KEY", .value = SECRET_VALUE };

static struct proxy_world world;
static struct exchange_origin origin;
static struct stream stream;
static struct http1_codec codec;
static struct exchange *exchange;
static enum exchange_outcome outcomes[16];
static size_t outcome_count;
static bool wants_turn;
static struct peer guest;
static struct peer server;

/* ---- the guest's connection, as its owner handles it ----------------------------------------- */

static void on_done(void *context, enum exchange_outcome outcome)
{
	(void)context;
	ck_assert_uint_lt(outcome_count, ARRAY_LENGTH(outcomes));
	outcomes[outcome_count++] = outcome;
	exchange_free(exchange);
	exchange = NULL;
	(void)codec.leg.ops->flush(&codec.leg);
	if (outcome == EXCHANGE_CUT) {
		stream_reset(&stream);
	} else if (http1_codec_is_reusable(&codec)) {
		http1_codec_next(&codec);
		wants_turn = true;
		stream_poke(&stream);
	} else {
		stream_end_write(&stream);
	}
}

static void on_changed(struct http_leg *leg)
{
	if (!exchange && leg->receiving != HTTP_RECEIVING_BODY &&
	    leg->receiving != HTTP_RECEIVING_ENDED)
		return;
	if (!exchange && stream.write_ended)
		return;
	if (!exchange) {
		exchange = exchange_new(&world.services, &origin, leg, on_done, NULL);
		ck_assert_ptr_nonnull(exchange);
	}
	exchange_turn(exchange);
}

static void on_ready(struct stream *ready)
{
	do {
		wants_turn = false;
		if (stream_fd(ready) >= 0)
			http1_codec_turn(&codec);
	} while (wants_turn);
}

static void set_up_with(const struct fixture_secret *known, const struct egress_rule *rules,
			size_t rule_count)
{
	int pair[2];

	world_start(&world, known, rules, rule_count);
	origin = (struct exchange_origin){ .name = world.name, .port = world.port };
	outcome_count = 0;
	exchange = NULL;
	server = (struct peer){ .fd = -1 };
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	peer_take(&guest, pair[0]);
	ck_assert_int_eq(stream_init(&stream, &world.loop, pair[1], on_ready), 0);
	ck_assert_int_eq(http1_codec_init(&codec, &stream, HTTP1_SERVER), 0);
	codec.leg.changed = on_changed;
}

static void set_up(void)
{
	set_up_with(NULL, NULL, 0);
}

static void set_up_secret(void)
{
	set_up_with(&secret, NULL, 0);
}

static void tear_down(void)
{
	exchange_free(exchange);
	exchange = NULL;
	stream_release(&stream);
	http1_codec_release(&codec);
	peer_close(&guest);
	peer_close(&server);
	world_stop(&world);
}

/* ---- what tests are made of ------------------------------------------------------------------ */

#define GET "GET /a HTTP/1.1\r\nHost: " WORLD_HOST "\r\n"
#define POST "POST /a HTTP/1.1\r\nHost: " WORLD_HOST "\r\n"
#define OK "HTTP/1.1 200 OK\r\n"

static bool is_over(enum exchange_outcome outcome)
{
	return outcome_count > 0 && outcomes[outcome_count - 1] == outcome;
}

/* The guest's request, until the server has all of its head. */
static void ask(const char *request)
{
	peer_say(&guest, request);
	if (server.fd < 0)
		world_accept(&world, &server);
	WORLD_UNTIL(&world, peer_has(&server, "\r\n\r\n"));
}

/* The broker's own answer, complete; and the exchange went well, as such. */
static void expect_answer(const char *status, const char *field, const char *hint)
{
	WORLD_UNTIL(&world, peer_has(&guest, "\n}\n"));
	ck_assert_msg(strncmp(guest.text, status, strlen(status)) == 0, "%s", guest.text);
	ck_assert_msg(strstr(guest.text, field) != NULL, "%s", guest.text);
	ck_assert_msg(strstr(guest.text, hint) != NULL, "%s", guest.text);
	ck_assert(is_over(EXCHANGE_DONE));
	ck_assert_uint_eq(outcome_count, 1);
}

/* The response was begun, is not whole, and its end shows that. */
static void expect_cut(const char *last)
{
	WORLD_UNTIL(&world, peer_is_over(&guest));
	ck_assert(is_over(EXCHANGE_CUT));
	ck_assert_msg(peer_has(&guest, last), "%s", guest.text);
	ck_assert(!peer_has(&guest, "\r\n0\r\n"));
	ck_assert(!peer_has(&guest, "Matchlock-Error"));
}

/* ---- the usual course ------------------------------------------------------------------------ */

START_TEST(a_request_and_its_answer_go_through)
{
	ask(GET "Connection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n");
	ck_assert_msg(strncmp(server.text, "GET /a HTTP/1.1\r\n", 17) == 0, "%s", server.text);
	ck_assert(peer_has(&server, "X-End: 2\r\n"));
	ck_assert(!peer_has(&server, "X-Hop"));
	peer_say(&server, OK "Content-Length: 5\r\nAlt-Svc: h3=\":443\"\r\n\r\nhello");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\nhello"));
	ck_assert(!peer_has(&guest, "Alt-Svc"));
	ck_assert(is_over(EXCHANGE_DONE));
	ck_assert(world_was_told(&world, "/a"));
}
END_TEST

START_TEST(a_connection_carries_one_after_another)
{
	for (unsigned i = 1; i <= 3; i++) {
		ask(GET "\r\n");
		peer_say(&server, OK "Content-Length: 2\r\n\r\nok");
		WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\nok"));
		WORLD_UNTIL(&world, outcome_count == i);
		peer_forget(&guest);
		peer_forget(&server);
	}
	ck_assert(!world_has_connection(&world));
}
END_TEST

START_TEST(requests_that_wait_are_answered_in_their_order)
{
	peer_say(&guest, GET "\r\nGET /b HTTP/1.1\r\nHost: " WORLD_HOST "\r\n\r\n");
	world_accept(&world, &server);
	WORLD_UNTIL(&world, peer_has(&server, "/a"));
	world_settle(&world);
	ck_assert(!peer_has(&server, "/b"));
	peer_say(&server, OK "Content-Length: 1\r\n\r\n1");
	WORLD_UNTIL(&world, peer_has(&server, "/b"));
	peer_say(&server, OK "Content-Length: 1\r\n\r\n2");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\n2"));
	ck_assert(strstr(guest.text, "\r\n\r\n1") < strstr(guest.text, "\r\n\r\n2"));
}
END_TEST

START_TEST(an_answer_to_head_has_no_body)
{
	ask("HEAD /a HTTP/1.1\r\nHost: " WORLD_HOST "\r\n\r\n");
	peer_say(&server, OK "Content-Length: 1000000\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "Content-Length: 1000000\r\n"));
	WORLD_UNTIL(&world, is_over(EXCHANGE_DONE));
	peer_forget(&guest);
	peer_forget(&server);
	/* The connection has not lost its place. */
	ask(GET "\r\n");
	peer_say(&server, "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n");
	WORLD_UNTIL(&world, outcome_count == 2);
	peer_forget(&server);
	ask(GET "\r\n");
	peer_say(&server, OK "Content-Length: 2\r\n\r\nok");
	WORLD_UNTIL(&world, peer_has(&guest, "ok"));
}
END_TEST

START_TEST(a_refusal_of_head_has_no_body)
{
	origin.denied = "address_literal";
	peer_say(&guest, "HEAD /a HTTP/1.1\r\nHost: " WORLD_HOST "\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\n"));
	ck_assert(peer_has(&guest, "HTTP/1.1 403"));
	ck_assert_str_eq(strstr(guest.text, "\r\n\r\n"), "\r\n\r\n");
	ck_assert(is_over(EXCHANGE_DONE));
	/* The next request's answer follows. */
	peer_forget(&guest);
	peer_say(&guest, GET "\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "\n}\n"));
	ck_assert_int_eq(strncmp(guest.text, "HTTP/1.1 403", 12), 0);
}
END_TEST

START_TEST(bodies_and_trailers_go_both_ways)
{
	ask(POST "TE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	WORLD_UNTIL(&world, peer_has(&server, "abc"));
	ck_assert(peer_has(&server, "TE: trailers\r\n"));
	peer_say(&guest, "3\r\ndef\r\n0\r\nX-Sum: 6\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&server, "def"));
	WORLD_UNTIL(&world, peer_has(&server, "0\r\nX-Sum: 6\r\n\r\n"));
	peer_say(&server, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
	/* What has come is not kept back for more. */
	WORLD_UNTIL(&world, peer_has(&guest, "hi"));
	peer_say(&server, "0\r\nX-Check: 9\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "0\r\nX-Check: 9\r\n\r\n"));
	ck_assert(is_over(EXCHANGE_DONE));
}
END_TEST

START_TEST(a_guest_that_ends_its_side_gets_its_answer)
{
	ask(POST "Content-Length: 3\r\n\r\nabc");
	ck_assert_int_eq(shutdown(guest.fd, SHUT_WR), 0);
	world_settle(&world);
	ck_assert(!peer_is_over(&server));
	peer_say(&server, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "ok\r\n0\r\n\r\n"));
	ck_assert(is_over(EXCHANGE_DONE));
}
END_TEST

START_TEST(an_end_ends_a_body_without_a_length)
{
	ask(GET "\r\n");
	peer_say(&server, OK "\r\nall of it");
	WORLD_UNTIL(&world, peer_has(&guest, "all of it"));
	ck_assert(peer_has(&guest, "Transfer-Encoding: chunked"));
	ck_assert(outcome_count == 0);
	peer_close(&server);
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n0\r\n\r\n"));
	ck_assert(is_over(EXCHANGE_DONE));
}
END_TEST

/* ---- interim responses ----------------------------------------------------------------------- */

START_TEST(the_server_decides_whether_a_body_is_sent)
{
	ask(POST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
	ck_assert(peer_has(&server, "Expect: 100-continue"));
	world_settle(&world);
	peer_read(&guest);
	ck_assert_uint_eq(guest.length, 0);
	peer_say(&server, "HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n"
			  "HTTP/1.1 100 Continue\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "HTTP/1.1 100 Continue\r\n\r\n"));
	ck_assert(peer_has(&guest, "103 Early Hints\r\nLink: </s>"));
	peer_say(&guest, "abc");
	WORLD_UNTIL(&world, peer_has(&server, "\r\n\r\nabc"));
	peer_say(&server, OK "Content-Length: 2\r\n\r\nok");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\nok"));
	ck_assert(!peer_has(&guest, "Connection: close"));
}
END_TEST

START_TEST(a_server_may_not_want_the_body)
{
	ask(POST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
	peer_say(&server, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\nno"));
	ck_assert(peer_has(&guest, "Connection: close"));
	/* A request without its body is followed by nothing. */
	WORLD_UNTIL(&world, peer_is_over(&server));
}
END_TEST

START_TEST(an_old_guest_gets_no_interim_response_and_no_chunks)
{
	ask("GET /a HTTP/1.0\r\nHost: " WORLD_HOST "\r\n\r\n");
	peer_say(&server, "HTTP/1.1 103 Early Hints\r\n\r\n" OK
			  "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
	WORLD_UNTIL(&world, peer_is_over(&guest));
	ck_assert(!peer_has(&guest, "103"));
	ck_assert(!peer_has(&guest, "chunked"));
	ck_assert(peer_has(&guest, "\r\n\r\nok"));
	ck_assert_str_eq(strstr(guest.text, "\r\n\r\n"), "\r\n\r\nok");
}
END_TEST

START_TEST(another_expectation_is_refused)
{
	peer_say(&guest, POST "Expect: tea\r\nContent-Length: 3\r\n\r\n");
	expect_answer("HTTP/1.1 417", "Matchlock-Error: expectation_unknown", "100-continue");
	/* What the guest has yet to send is not read. */
	ck_assert(peer_has(&guest, "Connection: close\r\n"));
}
END_TEST

START_TEST(interim_responses_do_not_go_on_for_ever)
{
	ask(GET "\r\n");
	for (unsigned i = 0; i < 64; i++)
		peer_say(&server, "HTTP/1.1 102 Processing\r\n\r\n");
	world_settle(&world);
	ck_assert_uint_eq(outcome_count, 0);
	peer_forget(&guest);
	peer_say(&server, "HTTP/1.1 102 Processing\r\n\r\n");
	expect_answer("HTTP/1.1 502", "Matchlock-Error: upstream_broken", "too many interim");
	/* The final one is not to answer somebody else. */
	WORLD_UNTIL(&world, peer_is_over(&server));
}
END_TEST

/* ---- early answers --------------------------------------------------------------------------- */

START_TEST(an_early_refusal_ends_the_connection)
{
	ask(POST "Content-Length: 1000000\r\n\r\nabc");
	WORLD_UNTIL(&world, peer_has(&server, "abc"));
	peer_say(&server, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\nno"));
	ck_assert(peer_has(&guest, "HTTP/1.1 413"));
	ck_assert(peer_has(&guest, "Connection: close"));
	ck_assert(is_over(EXCHANGE_DONE));
	WORLD_UNTIL(&world, peer_is_over(&server));
	WORLD_UNTIL(&world, peer_is_over(&guest));
}
END_TEST

/* A server that talks while it is talked to: neither waits for the other's end. */
START_TEST(an_early_answer_and_the_body_go_on_together)
{
	ask(POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	peer_say(&server, OK "Transfer-Encoding: chunked\r\n\r\n3\r\nABC\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "ABC"));
	peer_say(&guest, "3\r\ndef\r\n");
	WORLD_UNTIL(&world, peer_has(&server, "def"));
	peer_say(&server, "3\r\nDEF\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "DEF"));
	peer_say(&guest, "0\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&server, "0\r\n\r\n"));
	peer_say(&server, "0\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "0\r\n\r\n"));
	ck_assert(is_over(EXCHANGE_DONE));
	ck_assert(!peer_is_over(&guest));
	ck_assert(!peer_is_over(&server));
}
END_TEST

/* It is all there when the connection fails under the body that nobody reads. */
START_TEST(an_answer_survives_that_the_server_stopped_reading)
{
	ask(POST "Content-Length: 100000000\r\n\r\nabc");
	WORLD_UNTIL(&world, peer_has(&server, "abc"));
	peer_say(&server, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
	peer_reset(&server);
	peer_say(&guest, "defghi");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\nno"));
	ck_assert(peer_has(&guest, "HTTP/1.1 403"));
	ck_assert(is_over(EXCHANGE_DONE));
}
END_TEST

/* ---- what no answer is ----------------------------------------------------------------------- */

static const struct {
	const char *bytes;
	const char *code;
	const char *hint;
} malformed[] = {
	{ "", "upstream_broken", "the connection ended" },
	{ "HTTP/1.1 200 OK\r\nConte", "upstream_broken", "in the middle of a head" },
	{ "SSH-2.0-OpenSSH_9.2\r\n", "upstream_broken", "" },
	{ "<html>hello</html>\r\n\r\n", "upstream_broken", "" },
	{ "HTTP/2.0 200 OK\r\n\r\n", "upstream_broken", "" },
	{ "HTTP/1.1 2000 OK\r\n\r\n", "upstream_broken", "" },
	{ OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "upstream_broken", "" },
	{ OK "Content-Length: -1\r\n\r\n", "upstream_broken", "" },
	{ OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "upstream_broken", "" },
	{ OK "Transfer-Encoding: gzip\r\n\r\n", "upstream_broken", "" },
	{ OK "X-Name : value\r\n\r\n", "upstream_broken", "" },
	{ OK "X-Name: a\r\n b\r\n\r\n", "upstream_broken", "" },
	{ OK "X-Name: a\rb\r\n\r\n", "upstream_broken", "" },
	{ OK "no field\r\n\r\n", "upstream_broken", "" },
	{ "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "upgrade_refused",
	  "was not asked to" },
	{ "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 abc\r\n\r\n", "upstream_broken", "" },
};

START_TEST(what_is_no_answer_becomes_one)
{
	char field[64];

	ask(GET "\r\n");
	peer_say(&server, malformed[_i].bytes);
	ck_assert_int_eq(shutdown(server.fd, SHUT_WR), 0);
	WORLD_UNTIL(&world, peer_has(&guest, "\n}\n"));
	/* An interim response that was right has gone on. */
	if (peer_has(&guest, "103 Early Hints")) {
		const char *final = strstr(guest.text, "HTTP/1.1 502");

		ck_assert_ptr_nonnull(final);
		memmove(guest.text, final, strlen(final) + 1);
		guest.length = strlen(guest.text);
	}
	snprintf(field, sizeof(field), "Matchlock-Error: %s\r\n", malformed[_i].code);
	expect_answer("HTTP/1.1 502 ", field, malformed[_i].hint);
	ck_assert(world_was_told(&world, malformed[_i].code));
	/* It is spoken to no more. */
	WORLD_UNTIL(&world, peer_is_over(&server));
}
END_TEST

START_TEST(an_endless_head_becomes_an_answer)
{
	char field[1024];

	memset(field, 'a', sizeof(field));
	memcpy(field, "X: ", 3);
	memcpy(field + sizeof(field) - 2, "\r\n", 2);
	ask(GET "\r\n");
	peer_say(&server, OK);
	for (unsigned i = 0; i < 65; i++)
		peer_say_bytes(&server, field, sizeof(field));
	expect_answer("HTTP/1.1 502", "Matchlock-Error: upstream_broken", "\"hint\"");
}
END_TEST

/* What began cannot be taken back: it is cut so that it does not pass for the whole. */
static const struct {
	const char *rest;
	const char *last;
	bool is_reset;
} cuts[] = {
	{ OK "Content-Length: 10\r\n\r\nhello", "hello", false },
	{ OK "Content-Length: 10\r\n\r\nhello", "hello", true },
	{ OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello", false },
	{ OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "hello", false },
	{ OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", "hello", false },
	{ OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX", "hello", false },
	{ OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nBad Name: 1\r\n\r\n", "hello",
	  false },
	{ OK "\r\nhello", "hello", true },
};

START_TEST(an_answer_that_breaks_off_is_cut)
{
	ask(GET "\r\n");
	peer_say(&server, cuts[_i].rest);
	WORLD_UNTIL(&world, peer_has(&guest, cuts[_i].last) || outcome_count > 0);
	if (cuts[_i].is_reset)
		peer_reset(&server);
	else
		ck_assert_int_eq(shutdown(server.fd, SHUT_WR), 0);
	expect_cut(cuts[_i].last);
	ck_assert(world_was_told(&world, "upstream_broken"));
}
END_TEST

START_TEST(a_body_that_breaks_off_does_not_end)
{
	ask(POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	WORLD_UNTIL(&world, peer_has(&server, "abc"));
	peer_say(&guest, "nonsense\r\n");
	expect_answer("HTTP/1.1 400", "Matchlock-Error: request_broken", "");
	WORLD_UNTIL(&world, peer_is_over(&server));
	ck_assert(!peer_has(&server, "\r\n0\r\n"));
}
END_TEST

START_TEST(a_guest_that_goes_away_takes_its_server_along)
{
	ask(POST "Content-Length: 10\r\n\r\nabc");
	WORLD_UNTIL(&world, peer_has(&server, "abc"));
	peer_close(&guest);
	WORLD_UNTIL(&world, peer_is_over(&server));
	ck_assert(world_was_told(&world, "request_broken"));
	peer_take(&guest, dup(server.fd));
}
END_TEST

START_TEST(freeing_tells_the_log_and_drops_the_server)
{
	ask(GET "\r\n");
	exchange_free(exchange);
	exchange = NULL;
	WORLD_UNTIL(&world, peer_is_over(&server));
	ck_assert(world_was_told(&world, "guest_gone"));
	ck_assert_uint_eq(outcome_count, 0);
}
END_TEST

START_TEST(nobody_there_is_an_answer)
{
	close(world.listener);
	world.listener = -1;
	peer_say(&guest, GET "\r\n");
	expect_answer("HTTP/1.1 502", "Matchlock-Error: connect_failed", WORLD_HOST);
}
END_TEST

/* ---- connections that were used before ------------------------------------------------------- */

static void use_once(void)
{
	ask(GET "\r\n");
	peer_say(&server, OK "Content-Length: 2\r\n\r\nok");
	WORLD_UNTIL(&world, outcome_count == 1);
	outcome_count = 0;
	peer_forget(&guest);
	peer_forget(&server);
}

START_TEST(a_stale_connection_is_tried_once_more)
{
	use_once();
	ask(GET "\r\n");
	peer_close(&server);
	world_accept(&world, &server);
	WORLD_UNTIL(&world, peer_has(&server, "GET /a HTTP/1.1\r\n"));
	peer_say(&server, OK "Content-Length: 3\r\n\r\nnew");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\nnew"));
	ck_assert_uint_eq(outcome_count, 1);
}
END_TEST

START_TEST(one_that_ends_with_its_answer_is_not_kept)
{
	ask(GET "\r\n");
	/* In one event with the answer, or in one behind it. */
	if (_i == 0)
		peer_say(&server, OK "Content-Length: 2\r\n\r\nok");
	else
		peer_say(&server, OK "Content-Length: 2\r\n\r\no");
	if (_i == 1)
		WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\no"));
	if (_i == 1)
		peer_say(&server, "k");
	ck_assert_int_eq(shutdown(server.fd, SHUT_WR), 0);
	WORLD_UNTIL(&world, outcome_count == 1);
	WORLD_UNTIL(&world, peer_is_over(&server));
}
END_TEST

START_TEST(it_is_tried_no_more_than_that)
{
	use_once();
	ask(GET "\r\n");
	peer_close(&server);
	world_accept(&world, &server);
	WORLD_UNTIL(&world, peer_has(&server, "\r\n\r\n"));
	peer_close(&server);
	expect_answer("HTTP/1.1 502", "Matchlock-Error: upstream_broken", "the connection ended");
	ck_assert(!world_has_connection(&world));
}
END_TEST

START_TEST(a_body_is_never_sent_twice)
{
	use_once();
	ask(POST "Content-Length: 3\r\n\r\nabc");
	peer_close(&server);
	expect_answer("HTTP/1.1 502", "Matchlock-Error: upstream_broken", "the connection ended");
	ck_assert(!world_has_connection(&world));
}
END_TEST

static const char *const methods[] = { "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "BUY" };
#define REPEATABLE_METHODS 4

START_TEST(methods_that_may_do_more_are_never_sent_twice)
{
	char line[64];

	use_once();
	snprintf(line, sizeof(line), "%s /b HTTP/1.1\r\nHost: " WORLD_HOST "\r\n\r\n", methods[_i]);
	ask(line);
	peer_close(&server);
	if (_i >= REPEATABLE_METHODS) {
		expect_answer("HTTP/1.1 502", "Matchlock-Error: upstream_broken",
			      "the connection ended");
		ck_assert(!world_has_connection(&world));
		return;
	}
	world_accept(&world, &server);
	WORLD_UNTIL(&world, peer_has(&server, "/b HTTP/1.1\r\n"));
}
END_TEST

START_TEST(an_answer_that_began_is_never_asked_for_twice)
{
	use_once();
	ask(GET "\r\n");
	peer_say(&server, "HTTP/1.1 2");
	world_settle(&world);
	peer_close(&server);
	expect_answer("HTTP/1.1 502", "Matchlock-Error: upstream_broken", "in the middle");
	ck_assert(!world_has_connection(&world));
}
END_TEST

START_TEST(a_first_connection_is_not_tried_again)
{
	ask(GET "\r\n");
	peer_close(&server);
	expect_answer("HTTP/1.1 502", "Matchlock-Error: upstream_broken", "the connection ended");
	ck_assert(!world_has_connection(&world));
}
END_TEST

/* ---- who does not read ----------------------------------------------------------------------- */

/* Of the sockets' own buffers there are two in a row; the broker's are bounded besides. */
#define PILE_MAX (16u << 20)
#define ENDLESS (256u << 20)

START_TEST(a_guest_that_does_not_read_stops_the_server)
{
	char head[64];
	size_t sent, more;

	ask(GET "\r\n");
	snprintf(head, sizeof(head), OK "Content-Length: %u\r\n\r\n", ENDLESS);
	peer_say(&server, head);
	sent = peer_fill(&world, &server, ENDLESS);
	ck_assert_uint_lt(sent, PILE_MAX);
	ck_assert_uint_lt(byte_buffer_length(&codec.output), 262144);
	/* It goes on as soon as the guest does; reading once need not reopen TCP's window. */
	WORLD_UNTIL(&world,
		    (peer_forget(&guest), (more = peer_fill(&world, &server, ENDLESS - sent)) > 0));
	ck_assert_uint_lt(more, PILE_MAX);
	ck_assert_uint_eq(outcome_count, 0);
}
END_TEST

START_TEST(a_server_that_does_not_read_stops_the_guest)
{
	char head[128];
	size_t sent, more;

	snprintf(head, sizeof(head), POST "Content-Length: %u\r\n\r\n", ENDLESS);
	ask(head);
	sent = peer_fill(&world, &guest, ENDLESS);
	ck_assert_uint_lt(sent, PILE_MAX);
	peer_forget(&server);
	more = peer_fill(&world, &guest, ENDLESS - sent);
	ck_assert_uint_gt(more, 0);
	ck_assert_uint_lt(more, PILE_MAX);
	/* An answer passes by a body that is stuck. */
	peer_say(&server, "HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull");
	WORLD_UNTIL(&world, peer_has(&guest, "\r\n\r\nfull"));
	ck_assert(is_over(EXCHANGE_DONE));
}
END_TEST

/* ---- secrets --------------------------------------------------------------------------------- */

/* Of an answer in chunks, however they are cut, it is "before TEXT after". */
static void expect_body(const char *text)
{
	const char *at = strstr(guest.text, "\r\n\r\n") + 4;
	char body[256] = "";
	char wanted[128];
	size_t length;

	while ((length = strtoul(at, NULL, 16)) > 0) {
		at = strstr(at, "\r\n") + 2;
		strncat(body, at, length);
		at += length + 2;
	}
	snprintf(wanted, sizeof(wanted), "before %s after", text);
	ck_assert_str_eq(body, wanted);
}

/* Though the request carried none: a host that has been given a secret may show it at any time. */
static void say_chunk(const char *text, size_t length)
{
	char line[16];

	snprintf(line, sizeof(line), "%zx\r\n", length);
	peer_say(&server, line);
	peer_say_bytes(&server, text, length);
	peer_say(&server, "\r\n");
}

START_TEST(a_value_in_two_chunks_reaches_the_guest_as_its_placeholder)
{
	const struct secret *known = secret_store_get(world.services.secrets, 0);
	const size_t cut = (size_t)_i;
	char shown[sizeof(SECRET_VALUE)];

	ask(GET "\r\n");
	peer_say(&server, OK "Transfer-Encoding: chunked\r\n\r\n");
	say_chunk("before ", 7);
	say_chunk(SECRET_VALUE, cut);
	WORLD_UNTIL(&world, peer_has(&guest, "before "));
	world_settle(&world);
	/* Nothing has gone on but what value and placeholder share. */
	snprintf(shown, sizeof(shown), "%.*s", (int)known->kept + 1, SECRET_VALUE);
	ck_assert(!peer_has(&guest, shown));
	say_chunk(&SECRET_VALUE[cut], sizeof(SECRET_VALUE) - 1 - cut);
	say_chunk(" after", 6);
	peer_say(&server, "0\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "0\r\n\r\n"));
	ck_assert(!peer_has(&guest, shown));
	ck_assert(peer_has(&guest, " after"));
	expect_body(known->placeholder);
}
END_TEST

START_TEST(heads_and_trailers_do_not_show_it_either)
{
	ask(GET "TE: trailers\r\n\r\n");
	peer_say(&server, "HTTP/1.1 103 Early Hints\r\nX-Hint: " SECRET_VALUE "\r\n\r\n" OK
			  "X-Echo: " SECRET_VALUE "\r\nTransfer-Encoding: chunked\r\n\r\n"
			  "2\r\nok\r\n0\r\nX-Last: " SECRET_VALUE "\r\n\r\n");
	WORLD_UNTIL(&world, is_over(EXCHANGE_DONE));
	WORLD_UNTIL(&world, peer_has(&guest, "X-Last: "));
	ck_assert(!peer_has(&guest, SECRET_VALUE));
	ck_assert(peer_has(&guest, "X-Hint: "));
	ck_assert(peer_has(&guest, "X-Echo: "));
}
END_TEST

static void set_up_foreign_secret(void)
{
	world_secret_host = "other.test";
	set_up_secret();
}

START_TEST(a_placeholder_in_two_chunks_does_not_reach_another_host)
{
	const char *text;
	const size_t cut = (size_t)_i;
	char chunk[64];

	text = secret_store_get(world.services.secrets, 0)->placeholder;
	ask(POST "Transfer-Encoding: chunked\r\n\r\n");
	snprintf(chunk, sizeof(chunk), "%zx\r\n%.*s\r\n", cut, (int)cut, text);
	peer_say(&guest, chunk);
	world_settle(&world);
	snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n0\r\n\r\n", strlen(text + cut), text + cut);
	peer_say(&guest, chunk);
	expect_answer("HTTP/1.1 403", "Matchlock-Denied: secret_wrong_host", "KEY");
	WORLD_UNTIL(&world, peer_is_over(&server));
	/* Not its end, and no end of the message. */
	ck_assert(!peer_has(&server, text + sizeof(SECRET_VALUE) - 5));
	ck_assert(!peer_has(&server, "0\r\n\r\n"));
	ck_assert(world_was_told(&world, "secret_wrong_host"));
}
END_TEST

/* ---- limits of rules ------------------------------------------------------------------------- */

static struct egress_rule limited;

static void set_up_limits(void)
{
	limited = (struct egress_rule){ .where = "policy:1",
					.head_bytes_max = EGRESS_NO_LIMIT,
					.body_bytes_max = 10,
					.response_bytes_max = 10,
					.requests_max = EGRESS_NO_LIMIT,
					.bytes_max = EGRESS_NO_LIMIT };
	ck_assert_int_eq(host_pattern_parse(WORLD_HOST, strlen(WORLD_HOST), &limited.host), 0);
	set_up_with(NULL, &limited, 1);
	/* Nothing of a policy is read before the first request. */
	limited.ports[0] = world.port;
}

START_TEST(a_body_over_its_limit_is_refused_before_the_server_has_it)
{
	ask(POST "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n");
	WORLD_UNTIL(&world, peer_has(&server, "0123456789"));
	peer_say(&guest, "1\r\nX\r\n");
	expect_answer("HTTP/1.1 403", "Matchlock-Denied: body_too_large", "policy:1");
	WORLD_UNTIL(&world, peer_is_over(&server));
	ck_assert(!peer_has(&server, "X\r\n"));
	ck_assert(!peer_has(&server, "\r\n0\r\n"));
	ck_assert(world_was_told(&world, "body_too_large"));
}
END_TEST

START_TEST(an_answer_over_its_limit_is_cut)
{
	ask(GET "\r\n");
	peer_say(&server, OK "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "0123456789"));
	peer_say(&server, "1\r\nX\r\n0\r\n\r\n");
	expect_cut("0123456789");
	ck_assert(!peer_has(&guest, "X\r\n"));
	ck_assert(world_was_told(&world, "response_too_large"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("exchange");
	TCase *plain = tcase_create("plain");
	TCase *secrets = tcase_create("secrets");
	TCase *foreign = tcase_create("foreign");
	TCase *limits = tcase_create("limits");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(plain, set_up, tear_down);
	tcase_add_test(plain, a_request_and_its_answer_go_through);
	tcase_add_test(plain, a_connection_carries_one_after_another);
	tcase_add_test(plain, requests_that_wait_are_answered_in_their_order);
	tcase_add_test(plain, an_answer_to_head_has_no_body);
	tcase_add_test(plain, a_refusal_of_head_has_no_body);
	tcase_add_test(plain, bodies_and_trailers_go_both_ways);
	tcase_add_test(plain, a_guest_that_ends_its_side_gets_its_answer);
	tcase_add_test(plain, an_end_ends_a_body_without_a_length);
	tcase_add_test(plain, the_server_decides_whether_a_body_is_sent);
	tcase_add_test(plain, a_server_may_not_want_the_body);
	tcase_add_test(plain, an_old_guest_gets_no_interim_response_and_no_chunks);
	tcase_add_test(plain, another_expectation_is_refused);
	tcase_add_test(plain, interim_responses_do_not_go_on_for_ever);
	tcase_add_test(plain, an_early_refusal_ends_the_connection);
	tcase_add_test(plain, an_early_answer_and_the_body_go_on_together);
	tcase_add_test(plain, an_answer_survives_that_the_server_stopped_reading);
	tcase_add_loop_test(plain, what_is_no_answer_becomes_one, 0, ARRAY_LENGTH(malformed));
	tcase_add_test(plain, an_endless_head_becomes_an_answer);
	tcase_add_loop_test(plain, an_answer_that_breaks_off_is_cut, 0, ARRAY_LENGTH(cuts));
	tcase_add_test(plain, a_body_that_breaks_off_does_not_end);
	tcase_add_test(plain, a_guest_that_goes_away_takes_its_server_along);
	tcase_add_test(plain, freeing_tells_the_log_and_drops_the_server);
	tcase_add_test(plain, nobody_there_is_an_answer);
	tcase_add_test(plain, a_stale_connection_is_tried_once_more);
	tcase_add_loop_test(plain, one_that_ends_with_its_answer_is_not_kept, 0, 2);
	tcase_add_test(plain, it_is_tried_no_more_than_that);
	tcase_add_test(plain, a_body_is_never_sent_twice);
	tcase_add_test(plain, an_answer_that_began_is_never_asked_for_twice);
	tcase_add_test(plain, a_first_connection_is_not_tried_again);
	tcase_add_loop_test(plain, methods_that_may_do_more_are_never_sent_twice, 0,
			    (int)ARRAY_LENGTH(methods));
	tcase_add_test(plain, a_guest_that_does_not_read_stops_the_server);
	tcase_add_test(plain, a_server_that_does_not_read_stops_the_guest);
	suite_add_tcase(suite, plain);
	tcase_add_checked_fixture(secrets, set_up_secret, tear_down);
	tcase_add_loop_test(secrets, a_value_in_two_chunks_reaches_the_guest_as_its_placeholder, 1,
			    sizeof(SECRET_VALUE) - 1);
	tcase_add_test(secrets, heads_and_trailers_do_not_show_it_either);
	suite_add_tcase(suite, secrets);
	tcase_add_checked_fixture(foreign, set_up_foreign_secret, tear_down);
	tcase_add_loop_test(foreign, a_placeholder_in_two_chunks_does_not_reach_another_host, 1,
			    sizeof(SECRET_VALUE) - 1);
	suite_add_tcase(suite, foreign);
	tcase_add_checked_fixture(limits, set_up_limits, tear_down);
	tcase_add_test(limits, a_body_over_its_limit_is_refused_before_the_server_has_it);
	tcase_add_test(limits, an_answer_over_its_limit_is_cut);
	suite_add_tcase(suite, limits);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
