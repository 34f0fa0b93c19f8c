/*
 * proxy/guest.h: a connection of a guest's program from its hello on, as it is spoken to, and for
 * how long it may keep the broker waiting.
 */
#include "proxy/guest.h"

#include <check.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "proxy/synthetic_addresses.h"
#include "tests/unit/proxy_world.h"
#include "wire/egress.h"

static struct proxy_world world;
static struct guests *guests;
static struct ip_address address; /* stands for WORLD_HOST */
static struct peer guest;
static struct peer server;
static struct tls_peer tls_server;
static SSL_CTX *context;
static SSL *ssl;
static char usual_name[] = WORLD_HOST;
static char other_name[] = "other.test";

static void set_up(void)
{
	world_start(&world, NULL, NULL, 0);
	world.services.addresses = synthetic_addresses_new();
	ck_assert_int_eq(
		synthetic_addresses_of(world.services.addresses, &world.name, &address, NULL), 0);
	guests = guests_new(&world.services);
	ck_assert_ptr_nonnull(guests);
	guest = (struct peer){ .fd = -1 };
	server = (struct peer){ .fd = -1 };
	context = SSL_CTX_new(TLS_client_method());
	ssl = NULL;
}

static void tear_down(void)
{
	SSL_free(ssl);
	SSL_CTX_free(context);
	guests_free(guests);
	peer_close(&guest);
	peer_close(&server);
	synthetic_addresses_free(world.services.addresses);
	world_stop(&world);
}

static void dial(void)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	peer_take(&guest, pair[0]);
	guests_add(guests, pair[1]);
}

static void say_hello(const struct ip_address *wanted)
{
	struct egress_target target = { .family = wanted->family, .port = world.port };
	uint8_t hello[EGRESS_HELLO_SIZE];

	memcpy(target.address, wanted->bytes, sizeof(target.address));
	egress_encode_hello(hello, &target);
	peer_say_bytes(&guest, hello, sizeof(hello));
	world_settle(&world);
}

static void start(void)
{
	dial();
	say_hello(&address);
}

/* Time goes by. */
static void wait_for(unsigned seconds)
{
	guests_sweep(guests, clock_now_ms() + 1000 * (uint64_t)seconds);
	world_settle(&world);
}

static void expect_end_within(unsigned seconds)
{
	wait_for(seconds - 2);
	ck_assert(!peer_is_over(&guest));
	wait_for(seconds + 1);
	ck_assert(peer_is_over(&guest));
}

/* ---- the beginning --------------------------------------------------------------------------- */

START_TEST(a_hello_may_come_in_pieces)
{
	struct egress_target target = { .family = 4, .port = world.port };
	uint8_t hello[EGRESS_HELLO_SIZE];

	memcpy(target.address, address.bytes, 4);
	egress_encode_hello(hello, &target);
	dial();
	for (size_t i = 0; i < sizeof(hello); i++) {
		peer_say_bytes(&guest, hello + i, 1);
		world_settle(&world);
	}
	peer_say(&guest, "GET / HTTP/1.1\r\nHost: " WORLD_HOST "\r\n\r\n");
	world_accept(&world, &server);
	WORLD_UNTIL(&world, peer_has(&server, "GET / HTTP/1.1\r\n"));
	peer_say(&server, "HTTP/1.1 204 No Content\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "HTTP/1.1 204"));
}
END_TEST

START_TEST(no_hello_is_an_end)
{
	dial();
	peer_say(&guest, "GET / HTTP/1.1\r\nHost: " WORLD_HOST "\r\n\r\n");
	WORLD_UNTIL(&world, peer_is_over(&guest));
	ck_assert_uint_eq(guest.length, 0);
}
END_TEST

START_TEST(an_address_that_stands_for_nothing_is_refused)
{
	struct ip_address other;

	ck_assert_int_eq(ip_address_parse("127.0.0.1", &other), 0);
	dial();
	say_hello(&other);
	peer_say(&guest, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "Matchlock-Denied: address_literal"));
	ck_assert(!world_has_connection(&world));
}
END_TEST

START_TEST(what_is_neither_tls_nor_http_is_refused)
{
	start();
	peer_say(&guest, "\x01\x02\x03");
	WORLD_UNTIL(&world, peer_is_over(&guest));
	ck_assert(world_was_told(&world, "protocol_not_allowed"));
}
END_TEST

START_TEST(what_is_no_request_is_answered)
{
	start();
	peer_say(&guest, "GET / HTTP/1.1\r\nHost : a\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "Matchlock-Error: request_malformed"));
	ck_assert(peer_has(&guest, "HTTP/1.1 400"));
	ck_assert(peer_has(&guest, "Connection: close"));
	WORLD_UNTIL(&world, peer_is_over(&guest));
}
END_TEST

/* ---- time limits ----------------------------------------------------------------------------- */

START_TEST(a_hello_has_its_time)
{
	dial();
	expect_end_within(30);
}
END_TEST

START_TEST(a_first_byte_has_its_time)
{
	start();
	expect_end_within(300);
}
END_TEST

START_TEST(a_head_has_its_time)
{
	start();
	peer_say(&guest, "GET / HT");
	world_settle(&world);
	expect_end_within(60);
}
END_TEST

START_TEST(a_server_may_take_long)
{
	start();
	peer_say(&guest, "GET / HTTP/1.1\r\nHost: " WORLD_HOST "\r\n\r\n");
	world_accept(&world, &server);
	world_settle(&world);
	wait_for(100000);
	peer_say(&server, "HTTP/1.1 204 No Content\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "HTTP/1.1 204"));
	expect_end_within(300);
}
END_TEST

START_TEST(a_last_answer_has_its_time)
{
	start();
	peer_say(&guest, "GET / HTTP/1.1\r\nHost : a\r\n\r\n");
	WORLD_UNTIL(&world, peer_has(&guest, "request_malformed"));
	/* The broker waits for the program to end its side. */
	ck_assert_int_eq(send(guest.fd, "x", 1, MSG_NOSIGNAL), 1);
	wait_for(11);
	ck_assert_int_lt(send(guest.fd, "x", 1, MSG_NOSIGNAL), 0);
}
END_TEST

/* ---- TLS ------------------------------------------------------------------------------------- */

static void start_tls(char *name)
{
	start();
	ssl = SSL_new(context);
	ck_assert_int_eq(SSL_set_fd(ssl, guest.fd), 1);
	ck_assert_int_eq(SSL_set_tlsext_host_name(ssl, name), 1);
	ck_assert_int_eq(SSL_connect(ssl), -1);
	world_settle(&world);
}

static bool is_connected(void)
{
	return SSL_connect(ssl) == 1;
}

START_TEST(tls_goes_as_far_as_the_server_does)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: " WORLD_HOST "\r\n\r\n";
	static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
	char text[256];

	start_tls(usual_name);
	ck_assert_int_eq(SSL_connect(ssl), -1);
	ck_assert_int_eq(SSL_get_error(ssl, -1), SSL_ERROR_WANT_READ);
	tls_peer_accept(&tls_server, &world, TLS_PROTOCOL_HTTP1, NULL);
	WORLD_UNTIL(&world, is_connected());
	ck_assert_int_gt(SSL_write(ssl, request, sizeof(request) - 1), 0);
	WORLD_UNTIL(&world, stream_read(&tls_server.stream, text, sizeof(text)) > 0);
	ck_assert_int_eq(strncmp(text, "GET / HTTP/1.1\r\n", 16), 0);
	ck_assert_int_gt(stream_write(&tls_server.stream, answer, sizeof(answer) - 1), 0);
	WORLD_UNTIL(&world, SSL_read(ssl, text, sizeof(text)) > 0);
	ck_assert_int_eq(strncmp(text, "HTTP/1.1 204", 12), 0);
	stream_release(&tls_server.stream);
}
END_TEST

START_TEST(another_name_is_refused)
{
	start_tls(other_name);
	WORLD_UNTIL(&world, !is_connected() && SSL_get_error(ssl, -1) == SSL_ERROR_SSL);
	ck_assert(world_was_told(&world, "host_mismatch"));
	ck_assert(!world_has_connection(&world));
}
END_TEST

START_TEST(a_client_hello_has_its_time)
{
	start();
	peer_say(&guest, "\x16\x03\x01");
	world_settle(&world);
	expect_end_within(30);
}
END_TEST

/* While a server is connected the time is the server's; then it is the program's again. */
START_TEST(the_rest_of_a_handshake_has_its_time)
{
	start_tls(usual_name);
	wait_for(100);
	ck_assert(!peer_is_over(&guest));
	tls_peer_accept(&tls_server, &world, TLS_PROTOCOL_HTTP1, NULL);
	WORLD_UNTIL(&world, (peer_read(&guest), guest.length > 0));
	expect_end_within(30);
	stream_release(&tls_server.stream);
}
END_TEST

START_TEST(a_program_that_goes_away_takes_the_connecting_along)
{
	start_tls(usual_name);
	world_accept(&world, &server);
	peer_close(&guest);
	WORLD_UNTIL(&world, peer_is_over(&server));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guest");
	TCase *tests = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, a_hello_may_come_in_pieces);
	tcase_add_test(tests, no_hello_is_an_end);
	tcase_add_test(tests, an_address_that_stands_for_nothing_is_refused);
	tcase_add_test(tests, what_is_neither_tls_nor_http_is_refused);
	tcase_add_test(tests, what_is_no_request_is_answered);
	tcase_add_test(tests, a_hello_has_its_time);
	tcase_add_test(tests, a_first_byte_has_its_time);
	tcase_add_test(tests, a_head_has_its_time);
	tcase_add_test(tests, a_server_may_take_long);
	tcase_add_test(tests, a_last_answer_has_its_time);
	tcase_add_test(tests, tls_goes_as_far_as_the_server_does);
	tcase_add_test(tests, another_name_is_refused);
	tcase_add_test(tests, a_client_hello_has_its_time);
	tcase_add_test(tests, the_rest_of_a_handshake_has_its_time);
	tcase_add_test(tests, a_program_that_goes_away_takes_the_connecting_along);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
