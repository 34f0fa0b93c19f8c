/* proxy/client_hello.h and proxy/websocket.h: what is read of the two opening handshakes. */
#include "proxy/client_hello.h"
#include "proxy/tls.h"
#include "proxy/websocket.h"

#include "base/checked.h"

#include <check.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

START_TEST(server_names_are_read)
{
	struct host_name name;

	ck_assert_int_eq(client_hello_server_name(BYTES("\0\7\0\0\4A.io"), &name), 0);
	ck_assert_str_eq(name.text, "a.io");
	ck_assert_int_eq(client_hello_server_name(BYTES(""), &name), -EBADMSG);
	ck_assert_int_eq(client_hello_server_name(BYTES("\0\7\0\0\4a.i"), &name), -EBADMSG);
	ck_assert_int_eq(client_hello_server_name(BYTES("\0\7\0\0\4a.iox"), &name), -EBADMSG);
	ck_assert_int_eq(client_hello_server_name(BYTES("\0\7\1\0\4a.io"), &name), -EBADMSG);
	/* Two names: the server might take the other. */
	ck_assert_int_eq(client_hello_server_name(BYTES("\0\16\0\0\4a.io\0\0\4b.io"), &name),
			 -EBADMSG);
	ck_assert_int_eq(client_hello_server_name(BYTES("\0\7\0\0\4a\0io"), &name), -EINVAL);
	ck_assert_int_eq(client_hello_server_name(BYTES("\0\12\0\0\0071.2.3.4"), &name), -ENOTSUP);
}
END_TEST

START_TEST(protocols_are_read)
{
	ck_assert_uint_eq(client_hello_protocols(BYTES("\0\14\2h2\10http/1.1")),
			  TLS_PROTOCOL_HTTP1 | TLS_PROTOCOL_HTTP2);
	ck_assert_uint_eq(client_hello_protocols(BYTES("\0\5\4imap")), 0);
	ck_assert_uint_eq(client_hello_protocols(BYTES("\0\4\2h2\0")), 0);
	ck_assert_uint_eq(client_hello_protocols(BYTES("\0\3\3h2")), 0);
	ck_assert_uint_eq(client_hello_protocols(BYTES("\0\3\2h2x")), 0);
	ck_assert_uint_eq(client_hello_protocols(BYTES("")), 0);
}
END_TEST

/* The first record of a real client. */
static size_t real_record(char *name, uint8_t *record, size_t size)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(context);
	BIO *in = BIO_new(BIO_s_mem());
	BIO *out = BIO_new(BIO_s_mem());
	int length;

	SSL_set_bio(ssl, in, out);
	if (name)
		ck_assert_int_eq(SSL_set_tlsext_host_name(ssl, name), 1);
	SSL_set_connect_state(ssl);
	ck_assert_int_lt(SSL_do_handshake(ssl), 1);
	length = BIO_read(out, record, (int)size);
	ck_assert_int_gt(length, 0);
	SSL_free(ssl);
	SSL_CTX_free(context);
	return (size_t)length;
}

START_TEST(a_whole_record_is_read)
{
	char example[] = "example.test";
	uint8_t record[CLIENT_HELLO_RECORD_MAX];
	size_t length = real_record(example, record, sizeof(record));
	struct host_name name;

	ck_assert_int_eq(client_hello_record(record, length, &name), 0);
	ck_assert_str_eq(name.text, "example.test");
	for (size_t cut = 0; cut < length; cut++)
		ck_assert_int_eq(client_hello_record(record, cut, &name), -EAGAIN);
	record[5] = 2; /* a ServerHello */
	ck_assert_int_eq(client_hello_record(record, length, &name), -EBADMSG);
	record[0] = 'G';
	ck_assert_int_eq(client_hello_record(record, 1, &name), -EBADMSG);
	length = real_record(NULL, record, sizeof(record));
	ck_assert_int_eq(client_hello_record(record, length, &name), -ENOENT);
}
END_TEST

/* ---- websocket ------------------------------------------------------------------------------ */

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* RFC 6455 section 1.3 */

static struct http_head *head_of(const char *method, const char *const *fields, size_t count)
{
	struct http_head *head = http_head_new();

	ck_assert_int_eq(http_head_set_method(head, method, strlen(method)), 0);
	for (size_t i = 0; i < count; i += 2)
		ck_assert_int_eq(http_head_add(head, fields[i], strlen(fields[i]), fields[i + 1],
					       strlen(fields[i + 1])),
				 0);
	return head;
}

START_TEST(the_example_of_the_rfc)
{
	static const char *const asked[] = { "Upgrade",
					     "WebSocket",
					     "Connection",
					     "keep-alive, Upgrade",
					     "Sec-WebSocket-Version",
					     "13",
					     "Sec-WebSocket-Key",
					     KEY };
	static const char *const answered[] = { "Upgrade",
						"websocket",
						"Connection",
						"Upgrade",
						"Sec-WebSocket-Accept",
						"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" };
	struct http_head *request = head_of("GET", asked, ARRAY_LENGTH(asked));
	struct http_head *response = head_of("", answered, ARRAY_LENGTH(answered));
	char accept[WEBSOCKET_ACCEPT_SIZE];

	ck_assert(websocket_is_request(request, accept));
	ck_assert_str_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
	http_head_set_status(response, 101);
	ck_assert(websocket_is_accepted(response, accept));
	ck_assert_int_eq(http_head_add(response, "sec-websocket-Extensions", 24, "x", 1), 0);
	ck_assert(!websocket_is_accepted(response, accept));
	http_head_remove_all(response, "Sec-WebSocket-Extensions");
	ck_assert(websocket_is_accepted(response, accept));
	ck_assert_int_eq(http_head_add(request, "Sec-WebSocket-Extensions", 24, "x", 1), 0);
	ck_assert_int_eq(http_head_add(request, "sec-websocket-extensions", 24, "", 0), 0);
	websocket_drop_extensions(request);
	ck_assert_int_lt(http_head_find(request, "sec-websocket-extensions", 0), 0);
	ck_assert(!websocket_is_accepted(response, "t3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
	http_head_set_status(response, 200);
	ck_assert(!websocket_is_accepted(response, accept));
	ck_assert_int_eq(http_head_set_method(request, "POST", 4), 0);
	ck_assert(!websocket_is_request(request, accept));
	http_head_free(request);
	http_head_free(response);
}
END_TEST

static const char *const wrong[][8] = {
	{ "Upgrade", "h2c", "Connection", "Upgrade", "Sec-WebSocket-Version", "13",
	  "Sec-WebSocket-Key", KEY },
	{ "Upgrade", "websocket", "Connection", "close", "Sec-WebSocket-Version", "13",
	  "Sec-WebSocket-Key", KEY },
	{ "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "8",
	  "Sec-WebSocket-Key", KEY },
	{ "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "13",
	  "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ" },
	{ "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "13",
	  "Sec-WebSocket-Key", "!GhlIHNhbXBsZSBub25jZQ==" },
	{ "Upgrade", "websocket, h2c", "Connection", "Upgrade", "Sec-WebSocket-Version", "13",
	  "Sec-WebSocket-Key", KEY },
};

START_TEST(what_is_no_websocket)
{
	struct http_head *request = head_of("GET", wrong[_i], 8);
	char accept[WEBSOCKET_ACCEPT_SIZE];

	ck_assert(!websocket_is_request(request, accept));
	http_head_free(request);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("handshake");
	TCase *tcase = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, server_names_are_read);
	tcase_add_test(tcase, protocols_are_read);
	tcase_add_test(tcase, a_whole_record_is_read);
	tcase_add_test(tcase, the_example_of_the_rfc);
	tcase_add_loop_test(tcase, what_is_no_websocket, 0, ARRAY_LENGTH(wrong));
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
