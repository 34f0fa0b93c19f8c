/*
 * guest-init's streams between TCP and the host, and its name server: this test is the guest's
 * program, the host, and the loop that runs what is between them. No root, no VM.
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "guest-init/egress_dns.h"
#include "guest-init/egress_streams.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 20
#define BULK (8u << 20)

static struct event_loop loop;
static struct egress_streams *streams;
static int dial_error; /* what dial() answers, or 0 */
static int dialled;    /* the host's end of the last stream */
static unsigned dialled_port;

static const struct egress_target target = { .family = 4,
					     .port = 443,
					     .address = { 198, 18, 0, 1 } };

static int dial(void *context, unsigned port)
{
	int pair[2];

	(void)context;
	if (dial_error)
		return dial_error;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	dialled = pair[1];
	dialled_port = port;
	return pair[0];
}

static void set_up(void)
{
	ck_assert_int_eq(event_loop_init(&loop), 0);
	streams = egress_streams_new(&loop, dial, NULL);
	ck_assert_ptr_nonnull(streams);
	dial_error = 0;
	dialled = -1;
}

static void tear_down(void)
{
	egress_streams_free(streams);
	event_loop_release(&loop);
	if (dialled >= 0)
		close(dialled);
}

static void step(int timeout_ms)
{
	bool busy = egress_streams_are_busy(streams);

	ck_assert_int_ge(event_loop_run_once(&loop, busy ? 0 : timeout_ms), 0);
	egress_streams_turn(streams);
}

/* Until nothing happens any more. */
static void settle(void)
{
	for (int quiet = 0; quiet < 3;) {
		bool busy = egress_streams_are_busy(streams);
		int count = event_loop_run_once(&loop, busy ? 0 : 2);

		ck_assert_int_ge(count, 0);
		egress_streams_turn(streams);
		quiet = count == 0 && !busy ? quiet + 1 : 0;
	}
}

static bool still_patient(time_t since)
{
	return time(NULL) - since < PATIENCE_S;
}

static int listen_tcp(uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
	ck_assert_int_eq(listen(fd, 64), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static int connect_tcp(uint16_t port)
{
	const struct sockaddr_in address = { .sin_family = AF_INET,
					     .sin_port = htons(port),
					     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* A program's connection, non-blocking; the other end is what egress accepted. */
static int program(int *ret_accepted)
{
	uint16_t port;
	cleanup_fd int listener = listen_tcp(&port);
	int client = connect_tcp(port);

	*ret_accepted = accept(listener, NULL, NULL);
	ck_assert_int_ge(*ret_accepted, 0);
	ck_assert_int_eq(set_nonblocking(*ret_accepted, true), 0);
	ck_assert_int_eq(set_nonblocking(client, true), 0);
	return client;
}

/* A stream to the host whose hello has been read. */
static int carried_program(void)
{
	uint8_t hello[EGRESS_HELLO_SIZE];
	uint8_t wanted[EGRESS_HELLO_SIZE];
	int accepted;
	int client = program(&accepted);

	egress_streams_out(streams, accepted, EGRESS_STREAM_PORT, &target);
	settle();
	ck_assert_uint_eq(dialled_port, EGRESS_STREAM_PORT);
	ck_assert_int_eq(recv(dialled, hello, sizeof(hello), 0), sizeof(hello));
	egress_encode_hello(wanted, &target);
	ck_assert_mem_eq(hello, wanted, sizeof(hello));
	return client;
}

static void expect_bytes(int fd, const char *text)
{
	char buffer[64] = "";

	ck_assert_int_eq(recv(fd, buffer, sizeof(buffer), 0), (ssize_t)strlen(text));
	ck_assert_str_eq(buffer, text);
}

static void expect_nothing(int fd)
{
	char byte;

	ck_assert_int_lt(recv(fd, &byte, 1, 0), 0);
	ck_assert_int_eq(errno, EAGAIN);
}

static void expect_end(int fd)
{
	char byte;

	ck_assert_int_eq(recv(fd, &byte, 1, 0), 0);
}

START_TEST(bytes_and_ends_go_both_ways)
{
	cleanup_fd int client = carried_program();

	ck_assert_int_eq(send(client, "question", 8, 0), 8);
	settle();
	expect_bytes(dialled, "question");
	expect_nothing(dialled);
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	settle();
	expect_end(dialled);
	ck_assert_int_eq(send(dialled, "answer", 6, 0), 6);
	settle();
	expect_bytes(client, "answer");
	expect_nothing(client);
	ck_assert_int_eq(shutdown(dialled, SHUT_WR), 0);
	settle();
	expect_end(client);
}
END_TEST

START_TEST(the_host_may_end_first)
{
	cleanup_fd int client = carried_program();

	ck_assert_int_eq(send(dialled, "hello", 5, 0), 5);
	ck_assert_int_eq(shutdown(dialled, SHUT_WR), 0);
	settle();
	expect_bytes(client, "hello");
	expect_end(client);
	ck_assert_int_eq(send(client, "still", 5, 0), 5);
	settle();
	expect_bytes(dialled, "still");
}
END_TEST

static uint8_t byte_at(size_t position)
{
	return (uint8_t)(position * 131 + (position >> 11));
}

struct pump {
	int from;
	int to;
	size_t sent;
	size_t received;
};

static void pump_send(struct pump *pump)
{
	uint8_t buffer[32768];
	size_t length = MIN_OF(sizeof(buffer), BULK - pump->sent);
	ssize_t count;

	for (size_t i = 0; i < length; i++)
		buffer[i] = byte_at(pump->sent + i);
	count = send(pump->from, buffer, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (count > 0)
		pump->sent += (size_t)count;
	if (count > 0 && pump->sent == BULK)
		ck_assert_int_eq(shutdown(pump->from, SHUT_WR), 0);
}

static void pump_receive(struct pump *pump)
{
	uint8_t buffer[50000];
	ssize_t count = recv(pump->to, buffer, sizeof(buffer), MSG_DONTWAIT);
	size_t wrong = 0;

	/* An assertion for each byte would take longer than all the rest. */
	for (ssize_t i = 0; i < count; i++)
		wrong += buffer[i] != byte_at(pump->received + (size_t)i);
	ck_assert_uint_eq(wrong, 0);
	if (count > 0)
		pump->received += (size_t)count;
}

START_TEST(bulk_goes_both_ways_at_once)
{
	cleanup_fd int client = carried_program();
	struct pump up = { .from = client, .to = dialled };
	struct pump down = { .from = dialled, .to = client };
	time_t began = time(NULL);

	while ((up.received < BULK || down.received < BULK) && still_patient(began)) {
		pump_send(&up);
		pump_send(&down);
		step(1);
		pump_receive(&up);
		pump_receive(&down);
	}
	ck_assert_uint_eq(up.received, BULK);
	ck_assert_uint_eq(down.received, BULK);
	settle();
	expect_end(client);
	expect_end(dialled);
}
END_TEST

/* Sends until nothing more is taken; how much that was. */
static size_t fill(int fd)
{
	static const uint8_t zeros[65536];
	size_t sum = 0;

	for (int stuck = 0; stuck < 5;) {
		ssize_t count = send(fd, zeros, sizeof(zeros), MSG_DONTWAIT | MSG_NOSIGNAL);

		settle();
		stuck = count > 0 ? 0 : stuck + 1;
		sum += count > 0 ? (size_t)count : 0;
	}
	return sum;
}

static size_t drain(int fd, size_t wanted)
{
	static uint8_t buffer[65536];
	time_t began = time(NULL);
	size_t sum = 0;

	while (sum < wanted && still_patient(began)) {
		ssize_t count = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);

		sum += count > 0 ? (size_t)count : 0;
		step(1);
	}
	return sum;
}

START_TEST(a_side_that_reads_nothing_stops_the_other)
{
	cleanup_fd int client = carried_program();
	const int size = 65536;
	size_t sent;

	ck_assert_int_eq(setsockopt(client, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	sent = fill(client);
	ck_assert_uint_lt(sent, 64u << 20);
	/* The other direction is not stopped by it. */
	ck_assert_int_eq(send(dialled, "free", 4, 0), 4);
	settle();
	expect_bytes(client, "free");
	ck_assert_uint_eq(drain(dialled, sent), sent);
	sent = fill(dialled);
	ck_assert_uint_lt(sent, 64u << 20);
	ck_assert_uint_eq(drain(client, sent), sent);
}
END_TEST

START_TEST(no_stream_to_the_host_is_a_reset)
{
	int accepted;
	cleanup_fd int client = program(&accepted);
	char byte;

	dial_error = -ECONNRESET;
	egress_streams_out(streams, accepted, EGRESS_STREAM_PORT, &target);
	ck_assert_int_lt(recv(client, &byte, 1, 0), 0);
	ck_assert_int_eq(errno, ECONNRESET);
}
END_TEST

START_TEST(a_program_that_resets_ends_the_stream)
{
	const struct linger at_once = { .l_onoff = 1 };
	int client = carried_program();

	ck_assert_int_eq(setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
	close(client);
	settle();
	expect_end(dialled);
	ck_assert_int_lt(send(dialled, "x", 1, MSG_NOSIGNAL), 0);
	ck_assert_int_eq(errno, EPIPE);
}
END_TEST

/* The answer to a request that is still being sent, and then no more reading. */
START_TEST(last_words_are_not_overtaken_by_a_reset)
{
	static const uint8_t zeros[65536];
	cleanup_fd int client = carried_program();
	time_t began = time(NULL);
	char buffer[16] = "";

	fill(client);
	ck_assert_int_eq(send(dialled, "403", 3, 0), 3);
	close(dialled);
	dialled = -1;
	/* It goes on sending, and has time to. */
	for (int i = 0; i < 100; i++) {
		(void)!send(client, zeros, sizeof(zeros), MSG_DONTWAIT | MSG_NOSIGNAL);
		step(0);
	}
	while (recv(client, buffer, sizeof(buffer), 0) != 3 && still_patient(began))
		step(1);
	ck_assert_str_eq(buffer, "403");
	settle();
	expect_end(client);
}
END_TEST

START_TEST(the_host_closes_and_all_is_closed)
{
	cleanup_fd int client = carried_program();

	close(dialled);
	dialled = -1;
	settle();
	expect_end(client);
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	settle();
	/* Nobody is at the other end any more. */
	ck_assert_int_lt(send(client, "x", 1, MSG_NOSIGNAL), 0);
}
END_TEST

START_TEST(a_stream_without_hello_is_bare)
{
	int accepted;
	cleanup_fd int client = program(&accepted);

	egress_streams_out(streams, accepted, EGRESS_DNS_PORT, NULL);
	ck_assert_int_eq(send(client, "query", 5, 0), 5);
	settle();
	ck_assert_uint_eq(dialled_port, EGRESS_DNS_PORT);
	expect_bytes(dialled, "query");
}
END_TEST

/* ---- from the host ---------------------------------------------------------------------- */

static int host_dials(const struct egress_target *wanted, size_t piece)
{
	uint8_t hello[EGRESS_HELLO_SIZE];
	int pair[2];

	egress_encode_hello(hello, wanted);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	egress_streams_in(streams, pair[0]);
	for (size_t at = 0; at < sizeof(hello); at += piece) {
		size_t length = MIN_OF(piece, sizeof(hello) - at);

		ck_assert_int_eq(send(pair[1], hello + at, length, 0), (ssize_t)length);
		settle();
	}
	return pair[1];
}

START_TEST(the_host_reaches_a_service)
{
	static const size_t pieces[] = { EGRESS_HELLO_SIZE, 5, 1 };

	for (size_t i = 0; i < ARRAY_LENGTH(pieces); i++) {
		struct egress_target service = { .family = 4, .address = { 127, 0, 0, 1 } };
		cleanup_fd int listener = listen_tcp(&service.port);
		cleanup_fd int host = host_dials(&service, pieces[i]);
		cleanup_fd int server = accept(listener, NULL, NULL);

		ck_assert_int_ge(server, 0);
		ck_assert_int_eq(send(host, "in", 2, 0), 2);
		settle();
		expect_bytes(server, "in");
		ck_assert_int_eq(send(server, "out", 3, 0), 3);
		ck_assert_int_eq(shutdown(server, SHUT_WR), 0);
		settle();
		expect_bytes(host, "out");
		expect_end(host);
	}
}
END_TEST

START_TEST(other_wishes_of_the_host_are_refused)
{
	static const struct egress_target refused[] = {
		{ .family = 4, .port = 80, .address = { 8, 8, 8, 8 } },
		{ .family = 4, .port = 80, .address = { 198, 18, 0, 1 } },
		{ .family = 4, .port = 80, .address = { 0, 0, 0, 0 } },
		{ .family = 6, .port = 80, .address = { 0xfd, [15] = 1 } },
		{ .family = 5, .port = 80, .address = { 127, 0, 0, 1 } },
		{ .family = 4, .port = 0, .address = { 127, 0, 0, 1 } },
	};
	struct egress_target nobody = { .family = 4, .address = { 127, 0, 0, 1 } };
	cleanup_fd int listener = listen_tcp(&nobody.port);

	for (size_t i = 0; i < ARRAY_LENGTH(refused); i++) {
		cleanup_fd int host = host_dials(&refused[i], EGRESS_HELLO_SIZE);

		settle();
		expect_end(host);
	}
	close(steal_fd(&listener));
	{
		cleanup_fd int host = host_dials(&nobody, EGRESS_HELLO_SIZE);

		settle();
		expect_end(host);
	}
}
END_TEST

/* ---- many ------------------------------------------------------------------------------- */

#define MANY 300

START_TEST(many_are_carried_at_once)
{
	struct rlimit files;
	static int clients[MANY];
	static int hosts[MANY];
	char byte;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = MIN_OF(files.rlim_max, 8 * MANY);
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 5 * MANY)
		return;
	for (int i = 0; i < MANY; i++) {
		clients[i] = carried_program();
		hosts[i] = steal_fd(&dialled);
	}
	for (int i = 0; i < MANY; i++)
		ck_assert_int_eq(send(clients[i], "?", 1, 0), 1);
	settle();
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(recv(hosts[i], &byte, 1, 0), 1);
		close(hosts[i]);
	}
	settle();
	for (int i = 0; i < MANY; i++) {
		expect_end(clients[i]);
		close(clients[i]);
	}
	settle();
}
END_TEST

/* ---- the name server -------------------------------------------------------------------- */

static struct egress_dns *dns;
static uint16_t dns_port;

static int udp_socket(uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static void set_up_dns(void)
{
	int sockets[2] = { -1, -1 };

	set_up();
	sockets[0] = udp_socket(&dns_port);
	ck_assert_int_eq(egress_dns_new(&loop, dial, NULL, sockets, &dns), 0);
}

static void tear_down_dns(void)
{
	egress_dns_free(dns);
	tear_down();
}

static int resolver(void)
{
	const struct sockaddr_in address = { .sin_family = AF_INET,
					     .sin_port = htons(dns_port),
					     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint16_t port;
	int fd = udp_socket(&port);

	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* 12 bytes of header and one that says whose it is. */
static void ask(int fd, uint16_t id, char mark)
{
	const uint8_t query[13] = { (uint8_t)(id >> 8), (uint8_t)id, 1, [12] = (uint8_t)mark };

	ck_assert_int_eq(send(fd, query, sizeof(query), 0), sizeof(query));
	settle();
}

static void host_receives(uint8_t query[15], char mark)
{
	ck_assert_int_eq(recv(dialled, query, 15, 0), 15);
	ck_assert_int_eq(query[0], 0);
	ck_assert_int_eq(query[1], 13);
	ck_assert_int_eq(query[14], mark);
}

static void host_answers(uint8_t query[15])
{
	query[4] |= 0x80;
	ck_assert_int_eq(send(dialled, query, 15, 0), 15);
	settle();
}

static void expect_answer(int fd, uint16_t id, char mark)
{
	uint8_t answer[64];

	ck_assert_int_eq(recv(fd, answer, sizeof(answer), 0), 13);
	ck_assert_uint_eq(answer[0] << 8 | answer[1], id);
	ck_assert_int_eq(answer[12], mark);
}

START_TEST(answers_find_who_asked)
{
	cleanup_fd int first = resolver();
	cleanup_fd int second = resolver();
	uint8_t queries[3][15];

	ask(first, 7, 'a');
	ask(second, 7, 'b');
	ask(first, 8, 'c');
	ck_assert_uint_eq(dialled_port, EGRESS_DNS_PORT);
	host_receives(queries[0], 'a');
	host_receives(queries[1], 'b');
	host_receives(queries[2], 'c');
	host_answers(queries[1]);
	expect_answer(second, 7, 'b');
	expect_nothing(first);
	host_answers(queries[2]);
	host_answers(queries[0]);
	expect_answer(first, 8, 'c');
	expect_answer(first, 7, 'a');
	/* Once is enough. */
	host_answers(queries[0]);
	expect_nothing(first);
}
END_TEST

START_TEST(what_is_no_query_is_dropped)
{
	cleanup_fd int fd = resolver();
	const uint8_t answer[13] = { 0, 1, 0x80 };

	ck_assert_int_eq(send(fd, "short", 5, 0), 5);
	ck_assert_int_eq(send(fd, answer, sizeof(answer), 0), sizeof(answer));
	settle();
	ck_assert_int_eq(dialled, -1);
}
END_TEST

START_TEST(a_lost_stream_is_made_again)
{
	cleanup_fd int fd = resolver();
	uint8_t query[15];

	dial_error = -ECONNREFUSED;
	ask(fd, 1, 'a');
	dial_error = 0;
	ask(fd, 2, 'b');
	host_receives(query, 'b');
	close(steal_fd(&dialled));
	settle();
	ask(fd, 3, 'c');
	host_receives(query, 'c');
	host_answers(query);
	expect_answer(fd, 3, 'c');
	/* A frame that holds no message is the end of it. */
	ck_assert_int_eq(send(dialled, "\0\1x", 3, 0), 3);
	settle();
	expect_end(dialled);
	close(steal_fd(&dialled));
	ask(fd, 4, 'd');
	host_receives(query, 'd');
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("egress_streams");
	TCase *tests = tcase_create("streams");
	TCase *names = tcase_create("name server");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, bytes_and_ends_go_both_ways);
	tcase_add_test(tests, the_host_may_end_first);
	tcase_add_test(tests, bulk_goes_both_ways_at_once);
	tcase_add_test(tests, a_side_that_reads_nothing_stops_the_other);
	tcase_add_test(tests, no_stream_to_the_host_is_a_reset);
	tcase_add_test(tests, a_program_that_resets_ends_the_stream);
	tcase_add_test(tests, last_words_are_not_overtaken_by_a_reset);
	tcase_add_test(tests, the_host_closes_and_all_is_closed);
	tcase_add_test(tests, a_stream_without_hello_is_bare);
	tcase_add_test(tests, the_host_reaches_a_service);
	tcase_add_test(tests, other_wishes_of_the_host_are_refused);
	tcase_add_test(tests, many_are_carried_at_once);
	tcase_add_checked_fixture(names, set_up_dns, tear_down_dns);
	tcase_add_test(names, answers_find_who_asked);
	tcase_add_test(names, what_is_no_query_is_dropped);
	tcase_add_test(names, a_lost_stream_is_made_again);
	suite_add_tcase(suite, tests);
	suite_add_tcase(suite, names);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
