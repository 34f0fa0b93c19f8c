/*
 * proxy/upstream.h over real sockets and real TLS: which connection is made, which is used again,
 * and which never is.
 */
#include "proxy/upstream.h"

#include <check.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "proxy/http2_codec.h"
#include "tests/unit/proxy_world.h"

static struct proxy_world world;
static struct upstream_pool *pool;
static struct upstream_target target;
static struct upstream *reached;
static struct upstream_failure failure;
static unsigned done_count;
static bool is_asking;
static struct peer server;

static void on_done(void *context, struct upstream *upstream, const struct upstream_failure *why)
{
	ck_assert_ptr_eq(context, &world);
	ck_assert(!is_asking);
	ck_assert(!upstream == !!why);
	done_count++;
	reached = upstream;
	if (why)
		failure = *why;
}

static void set_up(void)
{
	world_start(&world, NULL, NULL, 0);
	pool = world.services.upstreams;
	target = (struct upstream_target){ .name = world.name, .port = world.port };
	reached = NULL;
	failure = (struct upstream_failure){ 0 };
	done_count = 0;
	server = (struct peer){ .fd = -1 };
}

static void tear_down(void)
{
	peer_close(&server);
	world_stop(&world);
}

static struct upstream *start(void)
{
	struct upstream *upstream;

	is_asking = true;
	ck_assert_int_eq(upstream_connect(pool, &target, on_done, &world, &upstream), 0);
	is_asking = false;
	return upstream;
}

/* A new plain connection, with its server in `peer`. */
static struct upstream *reach(struct peer *peer)
{
	unsigned before = done_count;

	start();
	world_accept(&world, peer);
	WORLD_UNTIL(&world, done_count == before + 1);
	ck_assert_msg(reached != NULL, "%s", failure.detail);
	return reached;
}

static void on_changed(struct http_leg *leg)
{
	(void)leg;
}

static struct http_leg *ask(struct upstream *upstream)
{
	const struct http_framing none = { .kind = HTTP_FRAMING_NONE };
	struct http_leg *leg = upstream_begin(upstream);
	struct http_head *head = http_head_new();

	leg->changed = on_changed;
	ck_assert_int_eq(http_head_set_method(head, "GET", 3), 0);
	ck_assert_int_eq(http_head_set_path(head, "/", 1), 0);
	ck_assert_int_eq(http_head_set_authority(head, WORLD_HOST, strlen(WORLD_HOST)), 0);
	ck_assert_int_eq(leg->ops->send_head(leg, head, &none), 0);
	(void)leg->ops->flush(leg);
	http_head_free(head);
	return leg;
}

static void use(struct upstream *upstream, struct peer *peer)
{
	struct http_leg *leg = ask(upstream);

	WORLD_UNTIL(&world, peer_has(peer, "\r\n\r\n"));
	ck_assert(!upstream_has_answered(upstream));
	peer_say(peer, "HTTP/1.1 204 No Content\r\n\r\n");
	WORLD_UNTIL(&world, leg->receiving == HTTP_RECEIVING_ENDED);
	ck_assert(upstream_has_answered(upstream));
	peer_forget(peer);
}

/* ---- plain ----------------------------------------------------------------------------------- */

START_TEST(a_connection_is_made_and_kept)
{
	struct upstream *upstream = reach(&server);
	char text[IP_ADDRESS_TEXT_MAX];

	ip_address_text(upstream_address(upstream), text);
	ck_assert_str_eq(text, "127.0.0.1");
	ck_assert_uint_eq(upstream_protocol(upstream), TLS_PROTOCOL_HTTP1);
	use(upstream, &server);
	ck_assert(!upstream_was_used(upstream));
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
	upstream_release(upstream);
	ck_assert_ptr_eq(upstream_take_idle(pool, &target), upstream);
	use(upstream, &server);
	ck_assert(upstream_was_used(upstream));
	upstream_release(upstream);
	ck_assert(!peer_is_over(&server));
}
END_TEST

START_TEST(one_that_has_ended_is_not_live)
{
	struct upstream *upstream = reach(&server);
	struct peer other;

	use(upstream, &server);
	upstream_release(upstream);
	ck_assert_ptr_eq(upstream_take_live(pool, &target), upstream);
	use(upstream, &server);
	upstream_release(upstream);
	/* Before the loop can tell of it. */
	peer_close(&server);
	ck_assert_ptr_eq(upstream_take_idle(pool, &target), upstream);
	upstream_release(upstream);
	ck_assert_ptr_null(upstream_take_live(pool, &target));
	/* Nor is one whose server speaks unasked. */
	upstream = reach(&other);
	use(upstream, &other);
	upstream_release(upstream);
	peer_say(&other, "HTTP/1.1 408 ");
	ck_assert_ptr_null(upstream_take_live(pool, &target));
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
	peer_close(&other);
}
END_TEST

/* One that was made ahead for a request that never came. */
START_TEST(one_that_was_not_used_is_kept_too)
{
	upstream_release(reach(&server));
	world_settle(&world);
	reached = upstream_take_idle(pool, &target);
	ck_assert_ptr_nonnull(reached);
	use(reached, &server);
	ck_assert(!upstream_was_used(reached));
	upstream_release(reached);
}
END_TEST

START_TEST(it_is_for_its_target_alone)
{
	struct upstream_target other = target;

	upstream_release(reach(&server));
	other.port++;
	ck_assert_ptr_null(upstream_take_idle(pool, &other));
	other = target;
	other.is_tls = true;
	ck_assert_ptr_null(upstream_take_idle(pool, &other));
	other = target;
	ck_assert_int_eq(host_name_parse("b.test", 6, &other.name), 0);
	ck_assert_ptr_null(upstream_take_idle(pool, &other));
	/* It was not asked for HTTP/2, which the server may have. */
	other = target;
	other.protocols = TLS_PROTOCOL_HTTP1 | TLS_PROTOCOL_HTTP2;
	ck_assert_ptr_null(upstream_take_idle(pool, &other));
	upstream_release(upstream_take_idle(pool, &target));
}
END_TEST

START_TEST(the_latest_is_taken_first)
{
	struct peer second;
	struct upstream *first = reach(&server);
	struct upstream *latest = reach(&second);

	upstream_release(first);
	upstream_release(latest);
	ck_assert_ptr_eq(upstream_take_idle(pool, &target), latest);
	ck_assert_ptr_eq(upstream_take_idle(pool, &target), first);
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
	upstream_release(first);
	upstream_release(latest);
	peer_close(&second);
}
END_TEST

START_TEST(so_many_are_kept_and_no_more)
{
	static struct peer peers[UPSTREAM_IDLE_MAX + 1];
	static struct upstream *upstreams[UPSTREAM_IDLE_MAX + 1];
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(peers); i++)
		upstreams[i] = reach(&peers[i]);
	for (size_t i = 0; i < ARRAY_LENGTH(peers); i++)
		upstream_release(upstreams[i]);
	WORLD_UNTIL(&world, peer_is_over(&peers[0]));
	ck_assert(!peer_is_over(&peers[1]));
	for (; (upstreams[count] = upstream_take_idle(pool, &target)) != NULL; count++)
		ck_assert_uint_lt(count, UPSTREAM_IDLE_MAX);
	ck_assert_uint_eq(count, UPSTREAM_IDLE_MAX);
	while (count > 0)
		upstream_release(upstreams[--count]);
	for (size_t i = 0; i < ARRAY_LENGTH(peers); i++)
		peer_close(&peers[i]);
}
END_TEST

START_TEST(who_is_asked_nothing_is_to_be_silent)
{
	struct upstream *upstream = reach(&server);

	use(upstream, &server);
	upstream_release(upstream);
	if (_i == 0)
		peer_say(&server, "HTTP/1.1 408 Request Timeout\r\n\r\n");
	else
		ck_assert_int_eq(shutdown(server.fd, SHUT_WR), 0);
	WORLD_UNTIL(&world, peer_is_over(&server));
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
}
END_TEST

/* Each is what a server may say to one request; what is not whole or too much is not followed. */
static const char *const unfit[] = {
	"",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
	"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
	"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	"HTTP/1.1 103 Early Hints\r\n\r\n",
	"nonsense\r\n\r\n",
};

START_TEST(one_that_is_out_of_step_is_closed)
{
	struct upstream *upstream = reach(&server);

	ask(upstream);
	peer_say(&server, unfit[_i]);
	world_settle(&world);
	upstream_release(upstream);
	WORLD_UNTIL(&world, peer_is_over(&server));
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
}
END_TEST

START_TEST(idle_ones_are_swept)
{
	uint64_t now;

	upstream_release(reach(&server));
	now = clock_now_ms();
	upstream_pool_sweep(pool, now);
	world_settle(&world);
	ck_assert(!peer_is_over(&server));
	upstream_pool_sweep(pool, now + UPSTREAM_IDLE_MS + 1000);
	WORLD_UNTIL(&world, peer_is_over(&server));
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
}
END_TEST

START_TEST(what_is_cancelled_is_never_told)
{
	struct upstream *upstream = start();

	target.is_tls = true;
	if (_i == 1) {
		upstream_cancel(upstream);
		upstream = start();
		world_accept(&world, &server);
		world_settle(&world);
		peer_close(&server);
	}
	upstream_cancel(upstream);
	world_settle(&world);
	ck_assert_uint_eq(done_count, 0);
}
END_TEST

START_TEST(nobody_there_is_a_reason)
{
	close(world.listener);
	world.listener = -1;
	start();
	WORLD_UNTIL(&world, done_count == 1);
	ck_assert_str_eq(failure.reason, "connect_failed");
	ck_assert_ptr_nonnull(strstr(failure.detail, "127.0.0.1"));
}
END_TEST

static unsigned readies;

static void on_tunnel_ready(void *context)
{
	ck_assert_ptr_eq(context, &world);
	readies++;
}

START_TEST(a_tunnel_is_not_for_anybody_else)
{
	struct upstream *upstream = reach(&server);
	struct byte_buffer *input;
	struct stream *stream = upstream_open_tunnel(upstream, on_tunnel_ready, &world, &input);
	char text[8];

	ck_assert_uint_eq(byte_buffer_length(input), 0);
	peer_say(&server, "hello");
	WORLD_UNTIL(&world, readies > 0);
	ck_assert_int_eq(stream_read(stream, text, sizeof(text)), 5);
	upstream_release(upstream);
	WORLD_UNTIL(&world, peer_is_over(&server));
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
}
END_TEST

/* ---- TLS ------------------------------------------------------------------------------------- */

static struct tls_peer tls_server;
static struct http2_codec server_codec;
static bool has_server_codec;
static struct http_leg *server_legs[HTTP2_STREAMS_MAX];
static size_t server_leg_count;

static void on_server_leg(struct http_leg *leg)
{
	(void)leg;
}

static void on_request(void *user, struct http_leg *leg)
{
	(void)user;
	leg->changed = on_server_leg;
	server_legs[server_leg_count++] = leg;
}

static void on_server_ready(struct tls_peer *peer)
{
	if (peer->protocol != TLS_PROTOCOL_HTTP2)
		return;
	if (!has_server_codec)
		ck_assert_int_eq(http2_codec_init(&server_codec, &peer->stream, HTTP2_SERVER), 0);
	has_server_codec = true;
	server_codec.accept = on_request;
	http2_codec_turn(&server_codec);
}

/* A new connection over TLS that speaks that protocol. */
static struct upstream *reach_tls(unsigned protocol)
{
	unsigned before = done_count;

	has_server_codec = false;
	server_leg_count = 0;
	target.is_tls = true;
	target.protocols = TLS_PROTOCOL_HTTP1 | TLS_PROTOCOL_HTTP2;
	start();
	tls_peer_accept(&tls_server, &world, protocol, on_server_ready);
	WORLD_UNTIL(&world, done_count == before + 1);
	ck_assert_msg(reached != NULL, "%s", failure.detail);
	return reached;
}

static void end_server(void)
{
	if (has_server_codec)
		http2_codec_release(&server_codec);
	has_server_codec = false;
	stream_release(&tls_server.stream);
}

static bool server_has_ended(void)
{
	char text[256];

	while (stream_can_read(&tls_server.stream)) {
		if (stream_read(&tls_server.stream, text, sizeof(text)) < 0)
			break;
	}
	return tls_server.stream.read_ended || tls_server.stream.failed;
}

START_TEST(what_tls_says_by_itself_ends_nothing)
{
	struct upstream *upstream = reach_tls(TLS_PROTOCOL_HTTP1);

	ck_assert_uint_eq(upstream_protocol(upstream), TLS_PROTOCOL_HTTP1);
	ck_assert(tls_server.hello.has_name);
	ck_assert(host_name_equal(&tls_server.hello.name, &world.name));
	/* The tickets come behind the handshake. */
	upstream_release(upstream);
	world_settle(&world);
	ck_assert_ptr_eq(upstream_take_idle(pool, &target), upstream);
	upstream_release(upstream);
	ck_assert(!server_has_ended());
	end_server();
	world_settle(&world);
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
}
END_TEST

/* A new connection over TLS, of which the server has read nothing yet. */
static SSL *accept_before_handshake(void)
{
	struct peer plain;
	SSL *ssl;

	target.is_tls = true;
	start();
	world_accept(&world, &plain);
	free(plain.text);
	tls_server = (struct tls_peer){ .world = &world, .protocol = TLS_PROTOCOL_HTTP1 };
	ck_assert_int_eq(stream_init(&tls_server.stream, &world.loop, plain.fd, tls_peer_ready), 0);
	ssl = tls_guest_new(world.services.tls, &tls_server.stream, &tls_server.hello);
	stream_set_tls(&tls_server.stream, ssl);
	return ssl;
}

/* The server goes by what the broker would rather have, and may have less to offer. */
START_TEST(the_smaller_key_is_preferred)
{
	static const char *const suites[] = { NULL, "TLS_AES_256_GCM_SHA384",
					      "TLS_CHACHA20_POLY1305_SHA256" };
	const char *expected = suites[_i] ? suites[_i] : "TLS_AES_128_GCM_SHA256";
	SSL *ssl = accept_before_handshake();

	if (suites[_i])
		ck_assert_int_eq(SSL_set_ciphersuites(ssl, suites[_i]), 1);
	tls_peer_ready(&tls_server.stream);
	WORLD_UNTIL(&world, done_count == 1);
	ck_assert_msg(reached != NULL, "%s", failure.detail);
	ck_assert_str_eq(SSL_get_cipher_name(ssl), expected);
	upstream_release(reached);
	stream_release(&tls_server.stream);
}
END_TEST

START_TEST(another_name_s_certificate_is_a_reason)
{
	SSL *ssl;
	struct host_name other;

	ck_assert_int_eq(host_name_parse("other.test", 10, &other), 0);
	ssl = accept_before_handshake();
	WORLD_UNTIL(&world, stream_handshake(&tls_server.stream) == -EINPROGRESS);
	ck_assert_int_eq(tls_guest_answer(world.services.tls, ssl, &tls_server.hello, &other, 0),
			 0);
	(void)stream_handshake(&tls_server.stream);
	WORLD_UNTIL(&world, done_count == 1);
	ck_assert_ptr_null(reached);
	ck_assert_str_eq(failure.reason, "upstream_certificate");
	ck_assert_ptr_nonnull(strstr(failure.detail, WORLD_HOST));
	stream_release(&tls_server.stream);
}
END_TEST

START_TEST(what_is_no_tls_is_a_reason)
{
	target.is_tls = true;
	start();
	world_accept(&world, &server);
	if (_i == 0)
		peer_say(&server, "HTTP/1.1 400 Bad Request\r\n\r\n");
	else
		ck_assert_int_eq(shutdown(server.fd, SHUT_WR), 0);
	WORLD_UNTIL(&world, done_count == 1);
	ck_assert_ptr_null(reached);
	ck_assert_str_eq(failure.reason, "upstream_tls");
}
END_TEST

START_TEST(a_handshake_takes_so_long_and_no_longer)
{
	target.is_tls = true;
	start();
	world_accept(&world, &server);
	world_settle(&world);
	upstream_pool_sweep(pool, clock_now_ms());
	ck_assert_uint_eq(done_count, 0);
	upstream_pool_sweep(pool, clock_now_ms() + UPSTREAM_HANDSHAKE_MS + 1000);
	ck_assert_uint_eq(done_count, 1);
	ck_assert_str_eq(failure.reason, "connect_timeout");
	WORLD_UNTIL(&world, peer_is_over(&server));
}
END_TEST

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

static void respond(size_t index)
{
	const struct http_framing none = { .kind = HTTP_FRAMING_NONE };
	struct http_head *head = http_head_new();
	struct http_leg *leg = server_legs[index];

	http_head_set_status(head, 204);
	ck_assert_int_eq(leg->ops->send_head(leg, head, &none), 0);
	http_head_free(head);
	http2_leg_release(leg, false);
}

START_TEST(many_share_a_connection)
{
	struct upstream *first = reach_tls(TLS_PROTOCOL_HTTP2);
	struct upstream *second = upstream_take_idle(pool, &target);
	struct http_leg *legs[2];
	struct upstream_target old = target;

	ck_assert_ptr_nonnull(second);
	ck_assert(first != second);
	ck_assert_uint_eq(upstream_protocol(second), TLS_PROTOCOL_HTTP2);
	old.protocols = TLS_PROTOCOL_HTTP1;
	ck_assert_ptr_null(upstream_take_idle(pool, &old));
	legs[0] = ask(first);
	legs[1] = ask(second);
	ck_assert_ptr_eq(upstream_leg(first), legs[0]);
	ck_assert(!upstream_was_used(first) && upstream_was_used(second));
	WORLD_UNTIL(&world, server_leg_count == 2);
	/* Each for itself. */
	respond(1);
	WORLD_UNTIL(&world, legs[1]->receiving == HTTP_RECEIVING_ENDED);
	ck_assert(upstream_has_answered(second) && !upstream_has_answered(first));
	upstream_release(second);
	respond(0);
	WORLD_UNTIL(&world, legs[0]->receiving == HTTP_RECEIVING_ENDED);
	upstream_release(first);
	ck_assert(!world_has_connection(&world));
	end_server();
	world_settle(&world);
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
}
END_TEST

START_TEST(they_share_it_so_far_as_it_goes)
{
	static struct upstream *all[HTTP2_STREAMS_MAX];
	size_t count = 1;

	all[0] = reach_tls(TLS_PROTOCOL_HTTP2);
	while (count < ARRAY_LENGTH(all))
		ck_assert_ptr_nonnull(all[count++] = upstream_take_idle(pool, &target));
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
	upstream_release(all[--count]);
	ck_assert_ptr_nonnull(all[count++] = upstream_take_idle(pool, &target));
	while (count > 0)
		upstream_release(all[--count]);
	end_server();
}
END_TEST

START_TEST(who_gives_up_spares_the_others)
{
	struct upstream *first = reach_tls(TLS_PROTOCOL_HTTP2);
	struct upstream *second = upstream_take_idle(pool, &target);
	struct http_leg *leg;

	ask(first);
	leg = ask(second);
	WORLD_UNTIL(&world, server_leg_count == 2);
	upstream_release(first);
	WORLD_UNTIL(&world, server_legs[0]->send_failed);
	http2_leg_release(server_legs[0], true);
	respond(1);
	WORLD_UNTIL(&world, leg->receiving == HTTP_RECEIVING_ENDED);
	upstream_release(second);
	end_server();
}
END_TEST

START_TEST(the_end_of_it_fails_all)
{
	struct upstream *first = reach_tls(TLS_PROTOCOL_HTTP2);
	struct upstream *second = upstream_take_idle(pool, &target);
	struct http_leg *legs[] = { ask(first), ask(second) };

	WORLD_UNTIL(&world, server_leg_count == 2);
	end_server();
	for (size_t i = 0; i < 2; i++)
		WORLD_UNTIL(&world, legs[i]->receiving == HTTP_RECEIVING_FAILED);
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
	upstream_release(first);
	upstream_release(second);
	upstream_pool_sweep(pool, clock_now_ms());
}
END_TEST

START_TEST(one_that_nobody_shares_is_swept)
{
	struct upstream *first = reach_tls(TLS_PROTOCOL_HTTP2);
	uint64_t later = clock_now_ms() + UPSTREAM_IDLE_MS + 1000;

	upstream_pool_sweep(pool, later);
	world_settle(&world);
	ck_assert(!server_codec.is_over);
	upstream_release(first);
	upstream_pool_sweep(pool, clock_now_ms());
	world_settle(&world);
	ck_assert(!server_codec.is_over);
	upstream_pool_sweep(pool, later);
	WORLD_UNTIL(&world, server_codec.is_over);
	ck_assert_ptr_null(upstream_take_idle(pool, &target));
	end_server();
}
END_TEST

static void add_plain_tests(TCase *tests)
{
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, a_connection_is_made_and_kept);
	tcase_add_test(tests, one_that_has_ended_is_not_live);
	tcase_add_test(tests, one_that_was_not_used_is_kept_too);
	tcase_add_test(tests, it_is_for_its_target_alone);
	tcase_add_test(tests, the_latest_is_taken_first);
	tcase_add_test(tests, so_many_are_kept_and_no_more);
	tcase_add_loop_test(tests, who_is_asked_nothing_is_to_be_silent, 0, 2);
	tcase_add_loop_test(tests, one_that_is_out_of_step_is_closed, 0, ARRAY_LENGTH(unfit));
	tcase_add_test(tests, idle_ones_are_swept);
	tcase_add_loop_test(tests, what_is_cancelled_is_never_told, 0, 2);
	tcase_add_test(tests, nobody_there_is_a_reason);
	tcase_add_test(tests, a_tunnel_is_not_for_anybody_else);
}

static void add_tls_tests(TCase *tests)
{
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, what_tls_says_by_itself_ends_nothing);
	tcase_add_loop_test(tests, the_smaller_key_is_preferred, 0, 3);
	tcase_add_test(tests, another_name_s_certificate_is_a_reason);
	tcase_add_loop_test(tests, what_is_no_tls_is_a_reason, 0, 2);
	tcase_add_test(tests, a_handshake_takes_so_long_and_no_longer);
	tcase_add_test(tests, many_share_a_connection);
	tcase_add_test(tests, they_share_it_so_far_as_it_goes);
	tcase_add_test(tests, who_gives_up_spares_the_others);
	tcase_add_test(tests, the_end_of_it_fails_all);
	tcase_add_test(tests, one_that_nobody_shares_is_swept);
}

int main(void)
{
	Suite *suite = suite_create("upstream");
	TCase *plain = tcase_create("plain");
	TCase *tls = tcase_create("tls");
	SRunner *runner;
	int failed;

	add_plain_tests(plain);
	suite_add_tcase(suite, plain);
	add_tls_tests(tls);
	suite_add_tcase(suite, tls);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
