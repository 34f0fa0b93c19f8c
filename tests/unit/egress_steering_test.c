/*
 * guest-init's routes and steering, in a network of this test's own: which connections come to the
 * listeners, with which destination, and what happens to all else. Needs root, whose BPF programs
 * the kernel takes; without, the test is skipped.
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "guest-init/egress_routes.h"
#include "guest-init/egress_steering.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int listeners[2];
static int steering;

static struct sockaddr_storage address_of(const char *text, uint16_t port, socklen_t *ret_length)
{
	struct sockaddr_storage storage = { 0 };
	struct sockaddr_in *v4 = (struct sockaddr_in *)&storage;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&storage;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		*ret_length = sizeof(*v4);
	} else {
		ck_assert_int_eq(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*ret_length = sizeof(*v6);
	}
	return storage;
}

static int listen_at(const char *text, uint16_t port)
{
	socklen_t length;
	struct sockaddr_storage address = address_of(text, port, &length);
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
	ck_assert_int_eq(listen(fd, 16), 0);
	return fd;
}

/* A connected socket, or a negative errno. */
static int dial(const char *text, uint16_t port, int type)
{
	socklen_t length;
	struct sockaddr_storage address = address_of(text, port, &length);
	int fd = socket(address.ss_family, type, 0);
	int error;

	ck_assert_int_ge(fd, 0);
	if (connect(fd, (struct sockaddr *)&address, length) == 0)
		return fd;
	error = -errno;
	close(fd);
	return error;
}

static void name_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *), char *ret_text,
		    size_t capacity)
{
	struct sockaddr_storage address = { 0 };
	socklen_t length = sizeof(address);
	char text[INET6_ADDRSTRLEN];
	const void *bytes = &((struct sockaddr_in *)&address)->sin_addr;
	unsigned port = ntohs(((struct sockaddr_in *)&address)->sin_port);

	ck_assert_int_eq(get(fd, (struct sockaddr *)&address, &length), 0);
	port = ntohs(((struct sockaddr_in *)&address)->sin_port);
	if (address.ss_family == AF_INET6)
		bytes = &((struct sockaddr_in6 *)&address)->sin6_addr;
	ck_assert_ptr_nonnull(inet_ntop(address.ss_family, bytes, text, sizeof(text)));
	snprintf(ret_text, capacity, "%s %u", text, port);
}

static void bring_up_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM, 0);

	ck_assert_int_eq(ioctl(fd, SIOCSIFFLAGS, &request), 0);
}

static void set_up(void)
{
	struct failure failure = { 0 };

	ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
	bring_up_loopback();
	listeners[0] = listen_at("127.0.0.1", 0);
	listeners[1] = listen_at("::1", 0);
	ck_assert_msg(egress_routes_set(&failure) == 0, "%s: %d", failure.text, failure.error);
	steering = egress_steering_start(listeners[0], listeners[1], &failure);
	ck_assert_msg(steering >= 0, "%s: %d", failure.text, failure.error);
}

static void expect_steered(const char *text, uint16_t port, int listener)
{
	cleanup_fd int client = dial(text, port, SOCK_STREAM);
	cleanup_fd int server = -1;
	char wanted[64];
	char found[64];
	char byte = 0;

	ck_assert_msg(client >= 0, "%s %u: %s", text, port, strerror(-client));
	server = accept(listener, NULL, NULL);
	ck_assert_msg(server >= 0, "%s %u was not accepted", text, port);
	snprintf(wanted, sizeof(wanted), "%s %u", text, port);
	name_of(server, getsockname, found, sizeof(found));
	ck_assert_str_eq(found, wanted);
	name_of(client, getpeername, found, sizeof(found));
	ck_assert_str_eq(found, wanted);
	ck_assert_int_eq(send(client, "?", 1, 0), 1);
	ck_assert_int_eq(recv(server, &byte, 1, 0), 1);
	ck_assert_int_eq(send(server, "!", 1, 0), 1);
	ck_assert_int_eq(recv(client, &byte, 1, 0), 1);
	ck_assert_int_eq(byte, '!');
}

START_TEST(connections_to_anywhere_come_to_the_listeners)
{
	expect_steered("198.18.0.1", 443, listeners[0]);
	expect_steered("8.8.8.8", 53, listeners[0]);
	expect_steered("10.1.2.3", 22, listeners[0]);
	expect_steered("169.254.169.254", 80, listeners[0]);
	expect_steered("255.255.255.254", 65535, listeners[0]);
	expect_steered("fd00::c612:1", 443, listeners[1]);
	expect_steered("2001:db8::1", 1, listeners[1]);
	expect_steered("fe00::1", 1, listeners[1]);
	expect_steered("2001:db8::2", 1, listeners[1]);
}
END_TEST

/* A socket of IPv6 that is given an IPv4 address speaks IPv4. */
START_TEST(mapped_addresses_are_of_ipv4)
{
	cleanup_fd int client = dial("::ffff:198.18.0.9", 443, SOCK_STREAM);
	cleanup_fd int server = accept(listeners[0], NULL, NULL);
	char found[64];

	ck_assert_int_ge(client, 0);
	ck_assert_int_ge(server, 0);
	name_of(server, getsockname, found, sizeof(found));
	ck_assert_str_eq(found, "198.18.0.9 443");
}
END_TEST

START_TEST(the_guests_own_addresses_are_left_alone)
{
	static const char *const own[] = { "127.0.0.1", "127.8.9.10", "::1", "192.0.0.2",
					   "fd6d:6c00::2" };

	for (size_t i = 0; i < ARRAY_LENGTH(own); i++) {
		cleanup_fd int service = -1;
		cleanup_fd int client = -1;
		cleanup_fd int server = -1;

		ck_assert_int_eq(dial(own[i], 4321, SOCK_STREAM), -ECONNREFUSED);
		service = listen_at(own[i], 4321);
		client = dial(own[i], 4321, SOCK_STREAM);
		ck_assert_msg(client >= 0, "%s: %s", own[i], strerror(-client));
		server = accept(service, NULL, NULL);
		ck_assert_int_ge(server, 0);
	}
	ck_assert_int_lt(accept(listeners[0], NULL, NULL), 0);
	ck_assert_int_lt(accept(listeners[1], NULL, NULL), 0);
}
END_TEST

/* A service that listens at every address does not get what is meant for others. */
START_TEST(a_wildcard_service_takes_nothing_away)
{
	cleanup_fd int service = listen_at("::", 443);

	expect_steered("198.18.0.1", 443, listeners[0]);
	expect_steered("fd00::c612:1", 443, listeners[1]);
	ck_assert_int_lt(accept(service, NULL, NULL), 0);
}
END_TEST

START_TEST(all_else_is_unreachable_at_once)
{
	ck_assert_int_eq(dial("198.18.0.1", 443, SOCK_DGRAM), -ENETUNREACH);
	ck_assert_int_eq(dial("8.8.8.8", 53, SOCK_DGRAM), -ENETUNREACH);
	ck_assert_int_eq(dial("fd00::c612:1", 443, SOCK_DGRAM), -ENETUNREACH);
	ck_assert_int_eq(dial("2001:db8::1", 443, SOCK_DGRAM), -ENETUNREACH);
}
END_TEST

/* Ping's sockets, and packets that a program writes itself. */
START_TEST(raw_packets_are_unreachable_at_once)
{
	static const int protocols[] = { IPPROTO_ICMP, IPPROTO_UDP, IPPROTO_RAW };
	socklen_t length;
	struct sockaddr_storage v4 = address_of("8.8.8.8", 0, &length);
	struct sockaddr_storage v6;
	uint8_t packet[64] = { 0x45, [9] = IPPROTO_ICMP, [16] = 8, 8, 8, 8 };
	cleanup_fd int raw_v6 = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);

	for (size_t i = 0; i < ARRAY_LENGTH(protocols); i++) {
		cleanup_fd int raw = socket(AF_INET, SOCK_RAW, protocols[i]);

		ck_assert_int_ge(raw, 0);
		ck_assert_int_lt(
			sendto(raw, packet, sizeof(packet), 0, (struct sockaddr *)&v4, length), 0);
		ck_assert_int_eq(errno, ENETUNREACH);
	}
	v6 = address_of("2001:db8::1", 0, &length);
	ck_assert_int_lt(sendto(raw_v6, packet, sizeof(packet), 0, (struct sockaddr *)&v6, length),
			 0);
	ck_assert_int_eq(errno, ENETUNREACH);
}
END_TEST

START_TEST(cleared_routes_lead_nowhere)
{
	close(steering);
	close(listeners[0]);
	close(listeners[1]);
	egress_routes_clear();
	ck_assert_int_eq(dial("198.18.0.1", 443, SOCK_STREAM), -ENETUNREACH);
	ck_assert_int_eq(dial("2001:db8::1", 443, SOCK_STREAM), -ENETUNREACH);
}
END_TEST

/* Whether the kernel lets this process do any of it; outside of a test there are no assertions. */
static bool is_permitted(void)
{
	cleanup_fd int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct failure failure = { 0 };
	int fd;

	if (geteuid() != 0 || listen(listener, 1) < 0)
		return false;
	fd = egress_steering_start(listener, -1, &failure);
	if (fd >= 0)
		close(fd);
	return fd != -EPERM && fd != -ENOSYS;
}

int main(void)
{
	Suite *suite = suite_create("egress_steering");
	TCase *tests = tcase_create("egress_steering");
	SRunner *runner;
	int failed;

	if (!is_permitted()) {
		puts("1..0 # SKIP only root may load BPF programs");
		return EXIT_SUCCESS;
	}
	tcase_add_checked_fixture(tests, set_up, NULL);
	tcase_add_test(tests, connections_to_anywhere_come_to_the_listeners);
	tcase_add_test(tests, mapped_addresses_are_of_ipv4);
	tcase_add_test(tests, the_guests_own_addresses_are_left_alone);
	tcase_add_test(tests, a_wildcard_service_takes_nothing_away);
	tcase_add_test(tests, all_else_is_unreachable_at_once);
	tcase_add_test(tests, raw_packets_are_unreachable_at_once);
	tcase_add_test(tests, cleared_routes_lead_nowhere);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
