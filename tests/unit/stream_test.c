/*
 * A stream that speaks TLS over a socket with little room, against OpenSSL at the other end, which
 * checks the order of all records by what it can decrypt.
 */
#include "base/checked.h"
#include "base/event_loop.h"
#include "proxy/stream.h"
#include "proxy/stream_bio.h"

#include <check.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define TOTAL (1u << 20)
#define RECORD 16384u
#define TURNS_MAX 100000u

static struct event_loop loop;
static struct stream stream;
static BIO_METHOD *method;
static SSL *peer;
static int peer_fd;
static uint8_t sent[TOTAL];
static uint8_t got[TOTAL];
static size_t got_length;

static void on_ready(struct stream *ready)
{
	(void)ready;
}

/* A certificate that says nothing but its key. */
static void use_certificate(SSL *ssl)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();

	ck_assert(key && certificate);
	X509_set_pubkey(certificate, key);
	X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
	ck_assert_int_eq(SSL_use_certificate(ssl, certificate), 1);
	ck_assert_int_eq(SSL_use_PrivateKey(ssl, key), 1);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

static SSL *new_ssl(const SSL_METHOD *side)
{
	SSL_CTX *context = SSL_CTX_new(side);
	SSL *ssl;

	ck_assert_ptr_nonnull(context);
	SSL_CTX_set_mode(context,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	ssl = SSL_new(context);
	SSL_CTX_free(context);
	ck_assert_ptr_nonnull(ssl);
	return ssl;
}

static void shake_hands(void)
{
	int result = -1;

	for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
		int state = stream_handshake(&stream);

		if (result != 1)
			result = SSL_do_handshake(peer);
		if (state == 0 && result == 1)
			return;
		ck_assert_int_ge(event_loop_run_once(&loop, 0), 0);
	}
	ck_abort_msg("the handshake did not come to an end");
}

/* `room` is what the socket takes, in bytes; 0: what it takes by itself. */
static void connect_with(int room)
{
	int pair[2];
	SSL *ssl = new_ssl(TLS_server_method());
	BIO *transport;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
			 0);
	if (room > 0)
		ck_assert_int_eq(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)),
				 0);
	peer_fd = pair[1];
	peer = new_ssl(TLS_client_method());
	SSL_set_fd(peer, peer_fd);
	SSL_set_connect_state(peer);
	ck_assert_int_eq(stream_init(&stream, &loop, pair[0], on_ready), 0);
	use_certificate(ssl);
	transport = stream_bio_new(method, &stream);
	ck_assert_ptr_nonnull(transport);
	SSL_set_bio(ssl, transport, transport);
	SSL_set_accept_state(ssl);
	stream_set_tls(&stream, ssl);
	shake_hands();
}

static void set_up(void)
{
	ck_assert_int_eq(event_loop_init(&loop), 0);
	method = stream_bio_method_new();
	ck_assert_ptr_nonnull(method);
	for (size_t i = 0; i < TOTAL; i++)
		sent[i] = (uint8_t)(i * 7 + i / 251);
	got_length = 0;
}

static void tear_down(void)
{
	stream_release(&stream);
	SSL_free(peer);
	close(peer_fd);
	BIO_meth_free(method);
	event_loop_release(&loop);
}

/* At most `most` bytes, in one go. */
static void peer_reads(size_t most)
{
	size_t count = 0;
	int result = SSL_read_ex(peer, got + got_length, MIN_OF(most, TOTAL - got_length), &count);

	if (result != 1)
		ck_assert_int_eq(SSL_get_error(peer, result), SSL_ERROR_WANT_READ);
	got_length += count;
}

/* Writes up to `until`, in shares of up to `share`; the peer reads only when there is no room. */
static void write_until(size_t *at, size_t until, size_t share)
{
	unsigned turns = 0;

	while (*at < until) {
		ssize_t count = stream_write(&stream, sent + *at, MIN_OF(share, until - *at));

		ck_assert_int_lt(turns++, TURNS_MAX);
		if (count == -EAGAIN) {
			peer_reads(1000);
			ck_assert_int_ge(event_loop_run_once(&loop, 0), 0);
		} else {
			ck_assert_int_gt(count, 0);
			*at += (size_t)count;
		}
	}
}

static void expect(size_t length)
{
	for (unsigned turn = 0; got_length < length && turn < TURNS_MAX; turn++)
		peer_reads(TOTAL);
	ck_assert_uint_eq(got_length, length);
	ck_assert(memcmp(sent, got, length) == 0);
}

START_TEST(several_records_are_written_at_once)
{
	int waiting = 0;

	connect_with(1 << 20);
	ck_assert_int_eq(stream_write(&stream, sent, 4 * RECORD), 4 * RECORD);
	ck_assert_ptr_null(stream.batch);
	ck_assert_int_eq(ioctl(peer_fd, FIONREAD, &waiting), 0);
	ck_assert_int_gt(waiting, 4 * RECORD);
	ck_assert_int_eq(stream_write(&stream, sent + 4 * RECORD, RECORD + 1), RECORD + 1);
	ck_assert_int_eq(stream_write(&stream, sent + 5 * RECORD + 1, 8 * RECORD), 4 * RECORD);
	expect(9 * RECORD + 1);
}
END_TEST

START_TEST(what_has_no_room_is_not_reported_until_it_is_gone)
{
	size_t at = 0;

	connect_with(4096);
	ck_assert_int_eq(stream_write(&stream, sent, 4 * RECORD), -EAGAIN);
	ck_assert_ptr_nonnull(stream.batch);
	ck_assert(stream.awaits_write);
	ck_assert_int_eq(stream_write(&stream, sent, 8 * RECORD), -EAGAIN);
	/* More than at first, fewer than that, and single records between them. */
	write_until(&at, 4 * RECORD, 4 * RECORD);
	write_until(&at, 5 * RECORD, 100);
	write_until(&at, 40 * RECORD, 3 * RECORD + 17);
	write_until(&at, 41 * RECORD, RECORD);
	write_until(&at, TOTAL, TOTAL);
	expect(TOTAL);
	ck_assert_ptr_null(stream.batch);
	ck_assert(!stream.awaits_write);
}
END_TEST

/* The answer to a KeyUpdate (RFC 8446, 4.6.3) is a record too, as soon as there is room for one. */
START_TEST(keys_change_while_something_waits)
{
	uint8_t byte = 0;
	size_t at = 0;

	connect_with(4096);
	ck_assert_int_eq(SSL_version(peer), TLS1_3_VERSION);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(stream_write(&stream, sent + at, 4 * RECORD), -EAGAIN);
		peer_reads(1);
		ck_assert_int_eq(SSL_key_update(peer, SSL_KEY_UPDATE_REQUESTED), 1);
		ck_assert_int_eq(SSL_write(peer, "x", 1), 1);
		ck_assert_int_ge(event_loop_run_once(&loop, 0), 0);
		(void)stream_read(&stream, &byte, 1);
		write_until(&at, at + 5 * RECORD, 5 * RECORD);
	}
	ck_assert_int_eq(byte, 'x');
	expect(20 * RECORD);
}
END_TEST

START_TEST(the_end_does_not_overtake_what_waits)
{
	connect_with(24000);
	ck_assert_int_eq(stream_write(&stream, sent, 4 * RECORD), -EAGAIN);
	peer_reads(RECORD);
	peer_reads(RECORD);
	ck_assert_uint_eq(got_length, 2 * RECORD);
	stream_end_write(&stream);
	expect(4 * RECORD);
	ck_assert_int_eq(SSL_read(peer, got, 1), 0);
	ck_assert_int_eq(SSL_get_error(peer, 0), SSL_ERROR_ZERO_RETURN);
}
END_TEST

static int depth(void)
{
	socklen_t length = sizeof(int);
	int size = 0;

	ck_assert_int_eq(getsockopt(stream_fd(&stream), SOL_SOCKET, SO_SNDBUF, &size, &length), 0);
	return size;
}

START_TEST(a_socket_that_much_goes_through_is_made_deeper)
{
	size_t at = 0;
	unsigned left = (unsigned)_i;
	int before;

	connect_with(4096);
	stream_may_deepen(&stream, &left);
	before = depth();
	write_until(&at, TOTAL / 2, TOTAL);
	ck_assert_int_eq(depth(), before);
	write_until(&at, TOTAL, TOTAL);
	if (_i > 0)
		ck_assert_int_gt(depth(), before);
	else
		ck_assert_int_eq(depth(), before);
	ck_assert_uint_eq(left, 0);
	expect(TOTAL);
	stream_release(&stream);
	ck_assert_uint_eq(left, (unsigned)_i);
}
END_TEST

START_TEST(a_peer_that_goes_away_ends_it)
{
	connect_with(4096);
	ck_assert_int_eq(stream_write(&stream, sent, 4 * RECORD), -EAGAIN);
	close(peer_fd);
	ck_assert_int_lt(stream_write(&stream, sent, 4 * RECORD), 0);
	ck_assert(stream.failed);
	ck_assert_int_eq(stream_write(&stream, sent, 4 * RECORD), -EPIPE);
	peer_fd = dup(STDERR_FILENO);
}
END_TEST

START_TEST(what_waits_may_be_given_up)
{
	connect_with(4096);
	ck_assert_int_eq(stream_write(&stream, sent, 4 * RECORD), -EAGAIN);
	stream_release(&stream);
	ck_assert_ptr_null(stream.batch);
	ck_assert_int_eq(stream_write(&stream, sent, 4 * RECORD), -EPIPE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stream");
	TCase *tests = tcase_create("records");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, several_records_are_written_at_once);
	tcase_add_test(tests, what_has_no_room_is_not_reported_until_it_is_gone);
	tcase_add_test(tests, keys_change_while_something_waits);
	tcase_add_test(tests, the_end_does_not_overtake_what_waits);
	tcase_add_loop_test(tests, a_socket_that_much_goes_through_is_made_deeper, 0, 2);
	tcase_add_test(tests, a_peer_that_goes_away_ends_it);
	tcase_add_test(tests, what_waits_may_be_given_up);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
