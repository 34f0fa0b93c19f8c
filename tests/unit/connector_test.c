/*
 * Connecting by name over real sockets: which address is dialled, which never is, and what a proxy
 * in between may answer.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "proxy/connector.h"
#include "proxy/shortage.h"
#include "tests/unit/dns_server.h"

static const struct dns_record records[] = {
	{ "attacker.test", "A", "127.0.0.1", 0, 0 },
	{ "attacker-alias.test", "CNAME", "attacker.test", 0, 0 },
	{ "silent.test", "A", NULL, DNS_SILENT, 0 },
};

static struct event_loop loop;
static struct dns_server server;
static struct host_table *pinned;
static struct resolver *resolver;
static struct connector *connector;
static struct connect_result result;
static bool is_done;
static int listeners[8];
static size_t listener_count;

static struct host_name name_of(const char *text)
{
	struct host_name name;

	ck_assert_int_eq(host_name_parse(text, strlen(text), &name), 0);
	return name;
}

static void pin(const char *name, const char *address_text)
{
	struct host_name parsed = name_of(name);
	struct ip_address address;

	ck_assert_int_eq(ip_address_parse(address_text, &address), 0);
	ck_assert_int_eq(host_table_add(pinned, &parsed, &address), 0);
}

static void use_upstream(const struct upstream_proxy *upstream, unsigned timeout_ms)
{
	struct connector_options options = {
		.loop = &loop,
		.resolver = resolver,
		.upstream = upstream,
		.timeout_ms = timeout_ms,
		.files_max = 4321,
	};

	connector_free(connector);
	ck_assert_int_eq(connector_new(&options, &connector), 0);
}

static void setup(void)
{
	struct resolver_options options = { .loop = &loop,
					    .hosts_path = "/nonexistent",
					    .servers = server.address,
					    .timeout_ms = 100 };

	ck_assert_int_eq(event_loop_init(&loop), 0);
	dns_server_start(&server, &loop, records, ARRAY_LENGTH(records));
	pinned = host_table_new();
	pin("v4.test", "127.0.0.1");
	pin("two.test", "127.0.0.1");
	pin("two.test", "127.0.0.2");
	pin("six.test", "::1");
	pin("six.test", "127.0.0.1");
	options.pinned = pinned;
	ck_assert_int_eq(resolver_new(&options, &resolver), 0);
	use_upstream(NULL, 0);
}

static void teardown(void)
{
	while (listener_count > 0)
		close(listeners[--listener_count]);
	connector_free(connector);
	resolver_free(resolver);
	host_table_free(pinned);
	dns_server_stop(&server);
	event_loop_release(&loop);
}

/* A socket on a free port, or on *port, until the test ends; listening, but for a backlog of -1. */
static int listen_on(const char *address_text, int backlog, uint16_t *port)
{
	struct sockaddr_storage address;
	struct ip_address parsed;
	socklen_t length;
	int fd;

	ck_assert_int_eq(ip_address_parse(address_text, &parsed), 0);
	ip_address_to_socket(&parsed, *port, &address, &length);
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
	if (backlog >= 0)
		ck_assert_int_eq(listen(fd, backlog), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	ck_assert_int_eq(ip_address_from_socket(&address, &parsed, port), 0);
	ck_assert_uint_lt(listener_count, ARRAY_LENGTH(listeners));
	listeners[listener_count++] = fd;
	return fd;
}

static bool has_connection(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	return poll(&poll_fd, 1, 0) == 1;
}

static void on_done(void *context, struct connect_result *done)
{
	(void)context;
	ck_assert(!is_done);
	is_done = true;
	result = *done;
}

static struct connector_attempt *start(const char *text, uint16_t port)
{
	struct host_name name = name_of(text);
	struct connector_attempt *attempt;

	is_done = false;
	ck_assert_int_eq(connector_start(connector, &name, port, on_done, NULL, &attempt), 0);
	ck_assert(!is_done);
	return attempt;
}

static void wait_for_it(void)
{
	while (!is_done)
		ck_assert_int_ge(event_loop_run_once(&loop, 20000), 1);
}

static void connect_to(const char *text, uint16_t port)
{
	start(text, port);
	wait_for_it();
}

static void expect_failure(const char *reason, const char *detail)
{
	ck_assert_int_eq(result.fd, -1);
	ck_assert_ptr_nonnull(result.reason);
	ck_assert_msg(strcmp(result.reason, reason) == 0, "%s: %s", result.reason, result.detail);
	ck_assert_msg(strstr(result.detail, detail), "%s", result.detail);
}

START_TEST(a_pinned_name_is_dialled)
{
	uint16_t port = 0;
	int listener = listen_on("127.0.0.1", 8, &port);
	cleanup_fd int peer = -1;
	char text[IP_ADDRESS_TEXT_MAX], byte;

	connect_to("v4.test", port);
	ck_assert_msg(result.fd >= 0 && !result.reason, "%s", result.detail);
	ip_address_text(&result.address, text);
	ck_assert_str_eq(text, "127.0.0.1");
	ck_assert(fcntl(result.fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(result.fd, F_GETFD) & FD_CLOEXEC);
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_eq(write(result.fd, "x", 1), 1);
	ck_assert_int_eq(read(peer, &byte, 1), 1);
	close(result.fd);
}
END_TEST

/* The service that the attack is after listens, and the same connector reaches it by a pinned
 * name: what holds it off is the judgement alone. */
START_TEST(the_attackers_name_for_a_local_service)
{
	uint16_t port = 0;
	int listener = listen_on("127.0.0.1", 8, &port);

	connect_to("attacker.test", port);
	expect_failure("address_blocked", "127.0.0.1 (loopback)");
	connect_to("attacker-alias.test", port);
	expect_failure("address_blocked", "127.0.0.1 (loopback)");
	ck_assert(!has_connection(listener));
	connect_to("v4.test", port);
	ck_assert_int_ge(result.fd, 0);
	ck_assert(has_connection(listener));
	close(result.fd);
}
END_TEST

START_TEST(the_next_address_when_one_refuses)
{
	uint16_t port = 0;
	char text[IP_ADDRESS_TEXT_MAX];

	listen_on("127.0.0.1", -1, &port);
	listen_on("127.0.0.2", 8, &port);
	connect_to("two.test", port);
	ck_assert_msg(result.fd >= 0, "%s", result.detail);
	ip_address_text(&result.address, text);
	ck_assert_str_eq(text, "127.0.0.2");
	close(result.fd);
}
END_TEST

/* ::1 has no such listener, or the host has no IPv6: either way the other family is next. */
START_TEST(the_other_family)
{
	uint16_t port = 0;

	listen_on("127.0.0.1", 8, &port);
	connect_to("six.test", port);
	ck_assert_msg(result.fd >= 0 && result.address.family == 4, "%s", result.detail);
	close(result.fd);
}
END_TEST

START_TEST(nobody_listens)
{
	uint16_t port = 0;

	listen_on("127.0.0.1", -1, &port);
	connect_to("v4.test", port);
	expect_failure("connect_failed", "127.0.0.1 port");
	expect_failure("connect_failed", "Connection refused");
}
END_TEST

/* A queue of connections that is full answers no more. */
static void fill(const char *address_text, uint16_t port, int *fds, size_t count)
{
	struct sockaddr_storage address;
	struct ip_address parsed;
	socklen_t length;

	ck_assert_int_eq(ip_address_parse(address_text, &parsed), 0);
	ip_address_to_socket(&parsed, port, &address, &length);
	for (size_t i = 0; i < count; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(fds[i], (struct sockaddr *)&address, length);
	}
}

START_TEST(one_that_does_not_answer)
{
	uint16_t port = 0;
	int fds[4];

	listen_on("127.0.0.1", 0, &port);
	fill("127.0.0.1", port, fds, ARRAY_LENGTH(fds));
	use_upstream(NULL, 400);
	connect_to("v4.test", port);
	expect_failure("connect_timeout", "v4.test port");
	use_upstream(NULL, 0);
	listen_on("127.0.0.2", 8, &port);
	connect_to("two.test", port);
	ck_assert_msg(result.fd >= 0 && result.address.bytes[3] == 2, "%s", result.detail);
	close(result.fd);
	for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
		close(fds[i]);
}
END_TEST

START_TEST(names_that_lead_nowhere)
{
	connect_to("unknown.test", 80);
	expect_failure("name_not_found", "unknown.test");
	connect_to("silent.test", 80);
	expect_failure("resolve_failed", "silent.test");
	use_upstream(NULL, 50);
	connect_to("silent.test", 80);
	expect_failure("resolve_failed", "silent.test");
}
END_TEST

START_TEST(cancelled_attempts)
{
	uint16_t port = 0;
	int listener = listen_on("127.0.0.1", 8, &port);
	struct upstream_proxy proxy = { .port = port };
	struct connector_attempt *attempt = start("silent.test", 80);

	connector_cancel(attempt);
	connector_cancel(start("v4.test", port));
	ck_assert_int_eq(ip_address_parse("127.0.0.1", &proxy.address), 0);
	use_upstream(&proxy, 0);
	attempt = start("example.com", 443);
	while (!has_connection(listener))
		event_loop_run_once(&loop, 10);
	for (unsigned i = 0; i < 3; i++)
		event_loop_run_once(&loop, 10);
	connector_cancel(attempt);
	ck_assert(!is_done);
}
END_TEST

START_TEST(too_many_attempts)
{
	struct connector_attempt *attempts[RESOLVER_QUERIES_MAX];
	struct host_name name = name_of("silent.test");

	for (size_t i = 0; i < ARRAY_LENGTH(attempts); i++)
		attempts[i] = start("silent.test", 80);
	ck_assert_int_eq(connector_start(connector, &name, 80, on_done, NULL, &attempts[0]),
			 -EBUSY);
	for (size_t i = 1; i < ARRAY_LENGTH(attempts); i++)
		connector_cancel(attempts[i]);
	/* The first was overwritten by the one that failed; it ends by itself. */
	wait_for_it();
}
END_TEST

/* Leaves room for that many more files; returns the limit before. */
static rlim_t limit_files(rlim_t room)
{
	struct rlimit limit;
	int next = fcntl(0, F_DUPFD_CLOEXEC, 0);
	rlim_t before;

	ck_assert_int_ge(next, 0);
	close(next);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	before = limit.rlim_cur;
	limit.rlim_cur = (rlim_t)next + room;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return before;
}

static void restore_files(rlim_t before)
{
	struct rlimit limit;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = before;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* An attempt wants a file for its timer, then one for each socket. */
START_TEST(no_file_left)
{
	struct connector_attempt *attempt;
	struct host_name name = name_of("two.test");
	uint16_t port = 0;
	rlim_t before;
	int error;

	listen_on("127.0.0.1", 8, &port);
	before = limit_files(0);
	error = connector_start(connector, &name, port, on_done, NULL, &attempt);
	restore_files(before);
	ck_assert_int_eq(error, -EMFILE);

	before = limit_files(1);
	connect_to("two.test", port);
	restore_files(before);
	expect_failure("too_many_connections", "127.0.0.2 port");
	expect_failure("too_many_connections", "all 4321 files open");
	connect_to("two.test", port);
	ck_assert_msg(result.fd >= 0, "%s", result.detail);
	close(result.fd);
}
END_TEST

START_TEST(shortages)
{
	char text[SHORTAGE_TEXT_MAX];

	shortage_text(-EMFILE, 20000, text);
	ck_assert_msg(strstr(text, "all 20000 files") && strstr(text, "ulimit -Hn"), "%s", text);
	shortage_text(-EMFILE, UINT64_MAX, text);
	ck_assert_msg(strstr(text, "where matchlock is started"), "cut off: %s", text);
	shortage_text(-ENFILE, 20000, text);
	ck_assert_msg(strstr(text, "fs.file-max"), "%s", text);
	shortage_text(-EBUSY, 20000, text);
	ck_assert_msg(strstr(text, "at once"), "%s", text);
	shortage_text(-ENOMEM, 20000, text);
	ck_assert_msg(strstr(text, "no memory"), "%s", text);
	shortage_text(-ENOBUFS, 20000, text);
	ck_assert_msg(strstr(text, strerror(ENOBUFS)), "%s", text);
	ck_assert(shortage_is_of_files(-EMFILE) && shortage_is_of_files(-ENFILE));
	ck_assert(!shortage_is_of_files(-ENOMEM));
}
END_TEST

/* ---- upstream proxies ------------------------------------------------------------------------ */

struct fake_proxy {
	struct event_source listener;
	struct event_source stream;
	const char *answer; /* NULL: none */
	bool in_pieces;
	char request[4096];
	size_t length;
};

static void on_request(struct event_source *source, uint32_t events)
{
	struct fake_proxy *proxy =
		(struct fake_proxy *)((char *)source - offsetof(struct fake_proxy, stream));
	ssize_t length = read(source->fd, proxy->request + proxy->length,
			      sizeof(proxy->request) - 1 - proxy->length);

	(void)events;
	if (length <= 0) {
		event_loop_remove(&loop, source);
		return;
	}
	proxy->length += (size_t)length;
	if (!strstr(proxy->request, "\r\n\r\n") || !proxy->answer)
		return;
	length = (ssize_t)strlen(proxy->answer);
	for (ssize_t i = 0; i < length; i += proxy->in_pieces ? 1 : length) {
		ck_assert_int_ge(
			write(source->fd, proxy->answer + i, proxy->in_pieces ? 1 : (size_t)length),
			1);
		/* The other side reads what there is, in its turn. */
		if (proxy->in_pieces)
			event_loop_run_once(&loop, 0);
	}
	event_loop_remove(&loop, source);
	shutdown(source->fd, SHUT_WR);
}

static void on_client(struct event_source *source, uint32_t events)
{
	struct fake_proxy *proxy =
		(struct fake_proxy *)((char *)source - offsetof(struct fake_proxy, listener));

	(void)events;
	proxy->stream =
		(struct event_source){ on_request, accept4(source->fd, NULL, NULL, SOCK_CLOEXEC) };
	ck_assert_int_eq(event_loop_add(&loop, &proxy->stream, EPOLLIN), 0);
}

static void connect_through(struct fake_proxy *proxy, const char *url_format, const char *name)
{
	struct upstream_proxy upstream;
	uint16_t port = 0;
	char url[256];

	proxy->stream.fd = -1;
	proxy->listener = (struct event_source){ on_client, listen_on("127.0.0.1", 8, &port) };
	ck_assert_int_eq(event_loop_add(&loop, &proxy->listener, EPOLLIN), 0);
	snprintf(url, sizeof(url), "http://%s:%u", url_format, port);
	ck_assert_int_eq(upstream_proxy_parse(url, &upstream), 0);
	use_upstream(&upstream, proxy->answer ? 0 : 300);
	connect_to(name, 8443);
	event_loop_remove(&loop, &proxy->listener);
	if (proxy->stream.fd >= 0)
		close(proxy->stream.fd);
}

START_TEST(a_tunnel)
{
	struct fake_proxy proxy = { .answer = "HTTP/1.1 200 Yes\r\nX: y\r\n\r\nSSH-2.0-first",
				    .in_pieces = _i == 1 };
	char rest[32] = "";

	connect_through(&proxy, "us%65r:p%3Aw@127.0.0.1", "example.com");
	ck_assert_msg(result.fd >= 0, "%s", result.detail);
	ck_assert_str_eq(proxy.request, "CONNECT example.com:8443 HTTP/1.1\r\n"
					"Host: example.com:8443\r\n"
					"Proxy-Authorization: Basic dXNlcjpwOnc=\r\n\r\n");
	/* What came behind the head is the tunnel's. */
	ck_assert_int_eq(read(result.fd, rest, sizeof(rest)), 13);
	ck_assert_str_eq(rest, "SSH-2.0-first");
	close(result.fd);
}
END_TEST

START_TEST(a_tunnel_through_a_named_proxy)
{
	struct fake_proxy proxy = { .answer = "HTTP/1.0 204\r\n\r\n" };

	/* Its address is the person's choice: an attacker's name for loopback is none. */
	connect_through(&proxy, "attacker.test", "example.com");
	ck_assert_msg(result.fd >= 0, "%s", result.detail);
	ck_assert_ptr_null(strstr(proxy.request, "Authorization"));
	close(result.fd);
}
END_TEST

static const struct {
	const char *answer;
	const char *detail;
} refused[] = {
	{ "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407" },
	{ "HTTP/1.1 403 \x1b[31mno\r\n\r\n", "403 \\x1b[31mno" },
	{ "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "100" },
	{ "HTTP/2.0 200 OK\r\n\r\n", "HTTP/2.0" },
	{ "HTTP/1.1 2000 OK\r\n\r\n", "2000" },
	{ "HTTP/1.1 20 OK\r\n\r\n", "20 OK" },
	{ "SSH-2.0-OpenSSH\r\n\r\n", "SSH" },
	{ "HTTP/1.1 200 OK\r\n", "closed" },
	{ "HTTP/1.1 200 OK\n\n", "closed" },
	{ "", "closed" },
	{ NULL, "in time" },
};

START_TEST(no_tunnel)
{
	struct fake_proxy proxy = { .answer = refused[_i].answer };

	connect_through(&proxy, "127.0.0.1", "example.com");
	expect_failure("upstream_proxy_failed", refused[_i].detail);
}
END_TEST

START_TEST(an_endless_answer)
{
	struct fake_proxy proxy = { .in_pieces = false };
	char answer[UPSTREAM_PROXY_RESPONSE_MAX + 100];

	memset(answer, 'a', sizeof(answer) - 1);
	answer[sizeof(answer) - 1] = '\0';
	memcpy(answer, "HTTP/1.1 200 OK\r\nX: ", 20);
	proxy.answer = answer;
	connect_through(&proxy, "127.0.0.1", "example.com");
	expect_failure("upstream_proxy_failed", "too long");
}
END_TEST

START_TEST(pinned_names_go_past_the_proxy)
{
	struct upstream_proxy upstream = { .port = 9 };
	uint16_t port = 0;

	listen_on("127.0.0.1", 8, &port);
	ck_assert_int_eq(ip_address_parse("127.0.0.3", &upstream.address), 0);
	use_upstream(&upstream, 0);
	connect_to("v4.test", port);
	ck_assert_int_ge(result.fd, 0);
	close(result.fd);
	connect_to("attacker.test", port);
	expect_failure("upstream_proxy_failed", "127.0.0.3 port 9");
}
END_TEST

static const struct {
	const char *url;
	int error;
} urls[] = {
	{ "http://proxy", 0 },
	{ "http://proxy.example.com:3128/", 0 },
	{ "http://10.0.0.1:3128", 0 },
	{ "http://[fd00::1]:3128", 0 },
	{ "http://u:p@[fd00::1]", 0 },
	{ "http://u%40corp:p@proxy:1", 0 },
	{ "http://u@p@proxy:1", 0 },
	{ "https://proxy", -EPROTONOSUPPORT },
	{ "socks5://proxy", -EPROTONOSUPPORT },
	{ "proxy:3128", -EINVAL },
	{ "http://", -EINVAL },
	{ "http:///", -EINVAL },
	{ "http://@", -EINVAL },
	{ "http://proxy:", -EINVAL },
	{ "http://proxy:0", -EINVAL },
	{ "http://proxy:65536", -EINVAL },
	{ "http://proxy:31280000", -EINVAL },
	{ "http://proxy/path", -EINVAL },
	{ "http://proxy?x", -EINVAL },
	{ "http://a b", -EINVAL },
	{ "http://fd00::1", -EINVAL },
	{ "http://[10.0.0.1]", -EINVAL },
	{ "http://[fd00::1", -EINVAL },
	{ "http://[fd00::1]x:1", -EINVAL },
	{ "http://0x7f.1:80", -EINVAL },
	{ "http://u%zz@proxy", -EINVAL },
	{ "http://u%4@proxy", -EINVAL },
	{ "http://u%0d%0aX: y@proxy", -EINVAL },
};

START_TEST(proxy_urls)
{
	struct upstream_proxy proxy;

	ck_assert_msg(upstream_proxy_parse(urls[_i].url, &proxy) == urls[_i].error, "%s",
		      urls[_i].url);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("connector");
	TCase *tests = tcase_create("connector");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, a_pinned_name_is_dialled);
	tcase_add_test(tests, the_attackers_name_for_a_local_service);
	tcase_add_test(tests, the_next_address_when_one_refuses);
	tcase_add_test(tests, the_other_family);
	tcase_add_test(tests, nobody_listens);
	tcase_add_test(tests, one_that_does_not_answer);
	tcase_add_test(tests, names_that_lead_nowhere);
	tcase_add_test(tests, cancelled_attempts);
	tcase_add_test(tests, too_many_attempts);
	tcase_add_test(tests, no_file_left);
	tcase_add_test(tests, shortages);
	tcase_add_loop_test(tests, a_tunnel, 0, 2);
	tcase_add_test(tests, a_tunnel_through_a_named_proxy);
	tcase_add_loop_test(tests, no_tunnel, 0, ARRAY_LENGTH(refused));
	tcase_add_test(tests, an_endless_answer);
	tcase_add_test(tests, pinned_names_go_past_the_proxy);
	tcase_add_loop_test(tests, proxy_urls, 0, ARRAY_LENGTH(urls));
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
