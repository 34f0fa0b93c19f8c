/* The flags of the network: what is taken, and with which words the rest is refused. */
#include "base/checked.h"
#include "cli/network_options.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct network_options network;
static struct problem problem;

static void set_up(void)
{
	memset(&network, 0, sizeof(network));
	memset(&problem, 0, sizeof(problem));
}

static void tear_down(void)
{
	network_options_free(&network);
}

START_TEST(hosts_are_listed)
{
	ck_assert(!network_is_asked(&network));
	ck_assert_int_eq(network_allow(&network, "a.test,*.b.test:8443", &problem), 0);
	ck_assert_int_eq(network_allow(&network, "tcp://db.test:5432", &problem), 0);
	ck_assert_int_eq(network_allow(&network, "C.Test.:*", &problem), 0);
	ck_assert_uint_eq(network.allow.count, 4);
	ck_assert_str_eq(network.allow.items[1], "*.b.test:8443");
	ck_assert(network_is_asked(&network));
	network.is_refused = true;
	ck_assert(!network_is_asked(&network));
	ck_assert_int_lt(network_judge(&network, &problem), 0);
}
END_TEST

static void refuse(const char *pattern, const char *because)
{
	ck_assert_msg(network_allow(&network, pattern, &problem) < 0, "%s was taken", pattern);
	ck_assert_int_eq(problem.status, STATUS_USAGE);
	ck_assert_msg(strstr(problem.text, because) != NULL, "%s: %s", pattern, problem.text);
}

START_TEST(what_is_no_host_is_refused)
{
	static const char *const addresses[] = { "10.0.0.1",   "127.1",		 "0x7f000001",
						 "2130706433", "fe80::1",	 "[::1]:80",
						 "1.2.3.4:80", "tcp://1.2.3.4:5" };
	static const char *const names[] = { "a b.test", "a..test", ".a.test", "a/b", "a*.test",
					     "*a.test",	 "a\nb",    "*.",      "",    "*.*.test" };

	for (size_t i = 0; i < ARRAY_LENGTH(addresses); i++)
		refuse(addresses[i], "--add-host");
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		refuse(names[i], "host");
	refuse("https://a.test/", "without a scheme");
	refuse("a.test:0", "port");
	refuse("a.test:65536", "port");
	refuse("a.test:https", "port");
	refuse("tcp://a.test", "port");
	refuse("tcp://a.test:*", "port");
	refuse("*", "--allow-all-hosts");
	refuse("b\xc3\xbc"
	       "cher.test",
	       "xn--");
	refuse("a.test,,b.test", "missing");
	/* Nothing of it reaches a terminal raw. */
	ck_assert_ptr_null(strchr(problem.text, '\n'));
}
END_TEST

START_TEST(added_hosts_have_addresses)
{
	ck_assert_int_eq(network_add_host(&network, "a.test:10.0.0.5", &problem), 0);
	ck_assert_int_eq(network_add_host(&network, "b.test:fd00::5", &problem), 0);
	ck_assert_int_eq(network_add_host(&network, "c.test:[fd00::6]", &problem), 0);
	ck_assert_uint_eq(network.added_hosts.count, 6);
	ck_assert_str_eq(network.added_hosts.items[3], "fd00::5");
	ck_assert_str_eq(network.added_hosts.items[5], "fd00::6");
	ck_assert_int_lt(network_add_host(&network, "a.test", &problem), 0);
	ck_assert_int_lt(network_add_host(&network, "a.test:b.test", &problem), 0);
	ck_assert_int_lt(network_add_host(&network, "a.test:127.1", &problem), 0);
	ck_assert_int_lt(network_add_host(&network, "*.test:10.0.0.1", &problem), 0);
	/* They allow nothing by themselves. */
	ck_assert(!network_is_asked(&network));
	ck_assert_int_lt(network_judge(&network, &problem), 0);
	ck_assert_ptr_nonnull(strstr(problem.text, "--allow-host"));
}
END_TEST

static void expect_forward(const char *text, const char *address, unsigned host, unsigned guest)
{
	struct port_forward forward;

	ck_assert_msg(port_forward_parse(text, &forward, &problem) == 0, "%s: %s", text,
		      problem.text);
	ck_assert_str_eq(forward.address, address);
	ck_assert_uint_eq(forward.host_port, host);
	ck_assert_uint_eq(forward.guest_port, guest);
	free(forward.address);
}

START_TEST(ports_are_forwarded_from_loopback_unless_asked)
{
	static const char *const refused[] = {
		"8080",		"8080:",       ":80",	   "0:80",    "80:0",  "80:65536",
		"a.test:80:80", "1.2.3:80:80", "8080:80:", "::80:80", "-1:80", ""
	};
	struct port_forward forward;

	expect_forward("8080:80", "127.0.0.1", 8080, 80);
	expect_forward("localhost:8080:80", "127.0.0.1", 8080, 80);
	expect_forward("0.0.0.0:8080:80", "0.0.0.0", 8080, 80);
	expect_forward("[::1]:8080:80", "::1", 8080, 80);
	for (size_t i = 0; i < ARRAY_LENGTH(refused); i++)
		ck_assert_msg(port_forward_parse(refused[i], &forward, &problem) < 0,
			      "%s was taken", refused[i]);
	for (int i = 0; i < NETWORK_FORWARDS_MAX; i++)
		ck_assert_int_eq(network_forward(&network, "8080:80", &problem), 0);
	ck_assert_int_lt(network_forward(&network, "8080:80", &problem), 0);
	ck_assert(network_is_asked(&network));
}
END_TEST

START_TEST(an_upstream_proxy_is_not_quoted)
{
	ck_assert_int_lt(network_set_upstream_proxy(&network, "https://u:word@p:1", &problem), 0);
	ck_assert_ptr_null(strstr(problem.text, "word"));
	ck_assert_int_eq(network_set_upstream_proxy(&network, "http://u:word@p:1", &problem), 0);
	ck_assert_int_lt(network_set_upstream_proxy(&network, "http://p:1", &problem), 0);
}
END_TEST

START_TEST(secrets_are_given_once)
{
	ck_assert_int_eq(network_add_secret(&network, "KEY@a.test", &problem), 0);
	ck_assert_int_lt(network_add_secret(&network, "KEY@b.test", &problem), 0);
	ck_assert_int_eq(network_add_secret(&network, "OTHER@b.test", &problem), 0);
	ck_assert_uint_eq(network.secret_count, 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("network_options");
	TCase *tests = tcase_create("network_options");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, hosts_are_listed);
	tcase_add_test(tests, what_is_no_host_is_refused);
	tcase_add_test(tests, added_hosts_have_addresses);
	tcase_add_test(tests, ports_are_forwarded_from_loopback_unless_asked);
	tcase_add_test(tests, an_upstream_proxy_is_not_quoted);
	tcase_add_test(tests, secrets_are_given_once);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
