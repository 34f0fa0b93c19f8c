/*
 * Addresses that the broker never connects to: each range at both ends and one beyond, and the
 * host's own.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "proxy/address_class.h"

static const char *const blocked[] = {
	"0.0.0.0",
	"0.255.255.255",
	"10.0.0.0",
	"10.255.255.255",
	"100.64.0.0",
	"100.100.100.200",
	"100.127.255.255",
	"127.0.0.1",
	"127.255.255.255",
	"168.63.129.16",
	"169.254.0.0",
	"169.254.169.254",
	"169.254.255.255",
	"172.16.0.0",
	"172.31.255.255",
	"192.0.0.0",
	"192.0.0.192",
	"192.0.2.1",
	"192.88.99.1",
	"192.168.0.0",
	"192.168.255.255",
	"198.18.0.0",
	"198.19.255.255",
	"198.51.100.1",
	"203.0.113.1",
	"224.0.0.1",
	"239.255.255.255",
	"240.0.0.0",
	"255.255.255.255",
	"::",
	"::1",
	"::2",
	"::7f00:1",
	"::ffff:127.0.0.1",
	"::ffff:8.8.8.8",
	"::ffff:0:8.8.8.8",
	"64:ff9b::a00:1",
	"64:ff9b::8.8.8.8",
	"64:ff9b:1::a00:1",
	"64:ff9b:1:ffff::1",
	"100::1",
	"1fff:ffff::1",
	"2001::1",
	"2001:0:53aa:64c:0:7f:f5ff:fffe",
	"2001:1::1",
	"2001:2::1",
	"2001:10::1",
	"2001:20::1",
	"2001:1ff:ffff::1",
	"2001:db8::1",
	"2001:db8:ffff::1",
	"2002::1",
	"2002:7f00:1::",
	"2002:a9fe:a9fe::1",
	"2620:4f:8000::1",
	"2a00:1450:4001:80b:0:5efe:10.0.0.1",
	"2a00:1450:4001:80b:200:5efe:10.0.0.1",
	"3fff::1",
	"3fff:fff:ffff::1",
	"4000::1",
	"5f00::1",
	"fc00::1",
	"fd00:ec2::254",
	"fdff:ffff::1",
	"fe80::1",
	"febf::1",
	"fec0::1",
	"ff02::1",
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
};

static const char *const open_addresses[] = {
	"1.0.0.0",
	"1.1.1.1",
	"9.255.255.255",
	"11.0.0.0",
	"100.63.255.255",
	"100.128.0.0",
	"126.255.255.255",
	"128.0.0.0",
	"168.63.129.15",
	"168.63.129.17",
	"169.253.255.255",
	"169.255.0.0",
	"172.15.255.255",
	"172.32.0.0",
	"192.0.1.0",
	"192.0.3.0",
	"192.167.255.255",
	"192.169.0.0",
	"198.17.255.255",
	"198.20.0.0",
	"223.255.255.255",
	"2001:200::1",
	"2001:4860:4860::8888",
	"2001:db7:ffff::1",
	"2001:db9::1",
	"2003::1",
	"2606:4700:4700::1111",
	"2a00:1450:4001:80b::200e",
	"2a00:1450:4001:80b:100:5efe:10.0.0.1",
	"3fff:1000::1",
};

START_TEST(blocked_addresses)
{
	struct ip_address address;

	ck_assert_int_eq(ip_address_parse(blocked[_i], &address), 0);
	ck_assert_msg(address_class(&address) != NULL, "%s", blocked[_i]);
}
END_TEST

START_TEST(addresses_that_are_open)
{
	struct ip_address address;

	ck_assert_int_eq(ip_address_parse(open_addresses[_i], &address), 0);
	ck_assert_msg(address_class(&address) == NULL, "%s: %s", open_addresses[_i],
		      address_class(&address));
}
END_TEST

START_TEST(family_must_be_known)
{
	struct ip_address address = { .family = 0, .bytes = { 8, 8, 8, 8 } };

	ck_assert_ptr_nonnull(address_class(&address));
	address.family = AF_INET;
	ck_assert_ptr_nonnull(address_class(&address));
}
END_TEST

START_TEST(texts_and_sockets)
{
	static const char *const texts[] = { "1.2.3.4", "2001:db8::1:2" };
	static const char *const refused[] = { "",	"1.2.3",  "1.2.3.4 ",	"0x1.2.3.4",
					       "[::1]", "::1%lo", "01.2.3.4.5", "a" };
	struct sockaddr_storage socket;
	struct ip_address address, again;
	char text[IP_ADDRESS_TEXT_MAX];
	socklen_t length;
	uint16_t port;

	for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
		ck_assert_int_eq(ip_address_parse(texts[i], &address), 0);
		ip_address_text(&address, text);
		ck_assert_str_eq(text, texts[i]);
		ip_address_to_socket(&address, 8080, &socket, &length);
		ck_assert_int_eq(ip_address_from_socket(&socket, &again, &port), 0);
		ck_assert(ip_address_equal(&address, &again));
		ck_assert_uint_eq(port, 8080);
	}
	for (size_t i = 0; i < ARRAY_LENGTH(refused); i++)
		ck_assert_int_eq(ip_address_parse(refused[i], &address), -EINVAL);
	socket.ss_family = AF_UNIX;
	ck_assert_int_eq(ip_address_from_socket(&socket, &again, &port), -EAFNOSUPPORT);
}
END_TEST

START_TEST(own_addresses)
{
	struct ifaddrs *list = NULL;
	struct ip_address address;
	size_t seen = 0;

	ck_assert_int_eq(getifaddrs(&list), 0);
	for (const struct ifaddrs *item = list; item; item = item->ifa_next) {
		struct sockaddr_storage socket = { 0 };
		char text[IP_ADDRESS_TEXT_MAX];

		if (!item->ifa_addr ||
		    (item->ifa_addr->sa_family != AF_INET && item->ifa_addr->sa_family != AF_INET6))
			continue;
		memcpy(&socket, item->ifa_addr,
		       item->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in)
							    : sizeof(struct sockaddr_in6));
		ck_assert_int_eq(ip_address_from_socket(&socket, &address, NULL), 0);
		/* A link-local one needs its interface to be reached, and is refused by class. */
		if (address_class(&address) && strstr(address_class(&address), "link-local"))
			continue;
		ip_address_text(&address, text);
		ck_assert_msg(address_is_own(&address) == 1, "%s", text);
		seen++;
	}
	freeifaddrs(list);
	ck_assert_uint_ge(seen, 1);
	ck_assert_int_eq(ip_address_parse("1.1.1.1", &address), 0);
	ck_assert_int_eq(address_is_own(&address), 0);
	ck_assert_int_eq(ip_address_parse("2606:4700:4700::1111", &address), 0);
	ck_assert_int_eq(address_is_own(&address), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("address_class");
	TCase *tests = tcase_create("addresses");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tests, blocked_addresses, 0, ARRAY_LENGTH(blocked));
	tcase_add_loop_test(tests, addresses_that_are_open, 0, ARRAY_LENGTH(open_addresses));
	tcase_add_test(tests, family_must_be_known);
	tcase_add_test(tests, texts_and_sockets);
	tcase_add_test(tests, own_addresses);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
