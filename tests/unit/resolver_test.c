/*
 * Resolving against a name server that belongs to the attacker: what its answers may and may not
 * make the broker connect to.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "proxy/resolver.h"
#include "tests/unit/dns_server.h"

static const struct dns_record records[] = {
	{ "good.test", "A", "93.184.216.34", 0, 0 },
	{ "both.test", "A", "93.184.216.34", 0, 0 },
	{ "both.test", "AAAA", "2606:2800:220:1:248:1893:25c8:1946", 0, 0 },
	{ "private.test", "A", "10.0.0.1", 0, 0 },
	{ "metadata.test", "A", "169.254.169.254", 0, 0 },
	{ "loopback.test", "A", "127.0.0.1", 0, 0 },
	{ "zero.test", "A", "0.0.0.0", 0, 0 },
	{ "mapped.test", "AAAA", "::ffff:10.0.0.1", 0, 0 },
	{ "nat64.test", "AAAA", "64:ff9b::a00:1", 0, 0 },
	{ "sixtofour.test", "AAAA", "2002:a00:1::1", 0, 0 },
	{ "teredo.test", "AAAA", "2001:0:53aa:64c:0:7f:f5ff:fffe", 0, 0 },
	{ "ula.test", "AAAA", "fd00:ec2::254", 0, 0 },
	/* One good address does not carry the bad one through. */
	{ "mixed.test", "A", "93.184.216.34", 0, 0 },
	{ "mixed.test", "A", "192.168.0.1", 0, 0 },
	{ "mixed6.test", "A", "93.184.216.34", 0, 0 },
	{ "mixed6.test", "AAAA", "::1", 0, 0 },
	{ "alias.test", "CNAME", "good.test", 0, 0 },
	{ "alias-private.test", "CNAME", "alias2.test", 0, 0 },
	{ "alias2.test", "CNAME", "private.test", 0, 0 },
	{ "loop.test", "CNAME", "loop2.test", 0, 0 },
	{ "loop2.test", "CNAME", "loop.test", 0, 0 },
	{ "text.test", "TXT", "\"nothing to connect to\"", 0, 0 },
	/* Rebinding: the first answer is good, the second is not. */
	{ "rebind.test", "A", "93.184.216.34", 0, 1 },
	{ "rebind.test", "A", "127.0.0.1", 0, 2 },
	{ "silent.test", "A", NULL, DNS_SILENT, 0 },
	{ "garbage.test", "A", NULL, DNS_GARBAGE, 0 },
	{ "servfail.test", "A", NULL, DNS_SERVFAIL, 0 },
	{ "truncated.test", "A", "93.184.216.34", DNS_TRUNCATED, 0 },
	{ "forged-id.test", "A", "93.184.216.34", DNS_WRONG_ID, 0 },
	{ "forged-name.test", "A", "93.184.216.34", DNS_OTHER_NAME, 0 },
	{ "forged-source.test", "A", "93.184.216.34", DNS_OTHER_SOURCE, 0 },
};

static struct event_loop loop;
static struct dns_server server;
static struct resolver *resolver;
static struct host_table *pinned;
static char hosts_path[] = "/tmp/matchlock-hosts-XXXXXX";
/* Long, so that a busy machine does not make a query be sent twice. */
static unsigned timeout_ms = 5000;

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

static void setup(void)
{
	static const char hosts[] = "# comment\n"
				    "93.184.216.35 Hosts.Test alias-of-hosts.test # 10.0.0.1 x\n"
				    "10.0.0.7\tinternal.test\r\n"
				    "not-an-address bad.test\n"
				    "  2606:2800:220:1::1   six.test  127.0.0.1 a..b\n"
				    "127.0.0.1 localhost last.test";
	struct resolver_options options = { .loop = &loop,
					    .hosts_path = hosts_path,
					    .timeout_ms = timeout_ms,
					    .servers = server.address };
	int fd = mkstemp(hosts_path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, hosts, sizeof(hosts) - 1), sizeof(hosts) - 1);
	close(fd);
	ck_assert_int_eq(event_loop_init(&loop), 0);
	dns_server_start(&server, &loop, records, ARRAY_LENGTH(records));
	pinned = host_table_new();
	pin("pinned.test", "127.0.0.1");
	pin("pinned.test", "::1");
	pin("good-but-pinned.test", "10.9.8.7");
	options.pinned = pinned;
	ck_assert_int_eq(resolver_new(&options, &resolver), 0);
	unlink(hosts_path);
}

static void setup_impatient(void)
{
	timeout_ms = 100;
	setup();
}

static void teardown(void)
{
	resolver_free(resolver);
	host_table_free(pinned);
	dns_server_stop(&server);
	event_loop_release(&loop);
}

static void on_done(void *context, const struct resolution *resolution)
{
	struct resolution *target = context;

	*target = *resolution;
}

static struct resolution resolve(const char *text, bool is_trusted)
{
	struct resolution resolution = { .error = 1 };
	struct host_name name = name_of(text);
	struct resolver_query *query;

	ck_assert_int_eq(resolver_start(resolver, &name, is_trusted, on_done, &resolution, &query),
			 0);
	/* Never from inside. */
	ck_assert_int_eq(resolution.error, 1);
	while (resolution.error == 1)
		ck_assert_int_ge(event_loop_run_once(&loop, 10000), 1);
	return resolution;
}

static void expect_addresses(const char *name, const char *first, size_t count)
{
	struct resolution resolution = resolve(name, false);
	struct ip_address address;
	bool found = false;

	ck_assert_msg(resolution.error == 0, "%s: %d", name, resolution.error);
	ck_assert_uint_eq(resolution.count, count);
	ck_assert_int_eq(ip_address_parse(first, &address), 0);
	for (size_t i = 0; i < count; i++)
		found = found || ip_address_equal(&resolution.addresses[i], &address);
	ck_assert_msg(found, "%s", name);
}

static void expect_blocked(const char *name, const char *address, const char *class)
{
	struct resolution resolution = resolve(name, false);
	char text[IP_ADDRESS_TEXT_MAX];

	ck_assert_msg(resolution.error == -EACCES, "%s: %d", name, resolution.error);
	ck_assert_uint_eq(resolution.count, 0);
	ip_address_text(&resolution.blocked, text);
	ck_assert_str_eq(text, address);
	ck_assert_msg(strstr(resolution.blocked_class, class), "%s: %s", name,
		      resolution.blocked_class);
}

START_TEST(good_names)
{
	expect_addresses("good.test", "93.184.216.34", 1);
	expect_addresses("both.test", "2606:2800:220:1:248:1893:25c8:1946", 2);
	expect_addresses("alias.test", "93.184.216.34", 1);
	expect_addresses("truncated.test", "93.184.216.34", 1);
}
END_TEST

static const struct {
	const char *name, *address, *class;
} blocked[] = {
	{ "private.test", "10.0.0.1", "private" },
	{ "metadata.test", "169.254.169.254", "metadata" },
	{ "loopback.test", "127.0.0.1", "loopback" },
	{ "zero.test", "0.0.0.0", "this network" },
	{ "mapped.test", "::ffff:10.0.0.1", "mapped" },
	{ "nat64.test", "64:ff9b::a00:1", "NAT64" },
	{ "sixtofour.test", "2002:a00:1::1", "6to4" },
	{ "teredo.test", "2001:0:53aa:64c:0:7f:f5ff:fffe", "Teredo" },
	{ "ula.test", "fd00:ec2::254", "unique local" },
	{ "mixed.test", "192.168.0.1", "private" },
	{ "mixed6.test", "::1", "loopback" },
	{ "alias-private.test", "10.0.0.1", "private" },
	{ "internal.test", "10.0.0.7", "private" },
	{ "last.test", "127.0.0.1", "loopback" },
};

START_TEST(blocked_names)
{
	expect_blocked(blocked[_i].name, blocked[_i].address, blocked[_i].class);
}
END_TEST

START_TEST(local_host_is_loopback)
{
	struct resolution resolution = resolve("localhost", false);

	ck_assert_int_eq(resolution.error, -EACCES);
	resolution = resolve("a.localhost", false);
	ck_assert_int_eq(resolution.error, -ENOENT);
	ck_assert_uint_eq(server.queries, 0);
}
END_TEST

START_TEST(rebinding)
{
	expect_addresses("rebind.test", "93.184.216.34", 1);
	expect_blocked("rebind.test", "127.0.0.1", "loopback");
}
END_TEST

START_TEST(forgeries)
{
	expect_addresses("forged-id.test", "93.184.216.34", 1);
	expect_addresses("forged-name.test", "93.184.216.34", 1);
	expect_addresses("forged-source.test", "93.184.216.34", 1);
}
END_TEST

static const struct {
	const char *name;
	int error;
} failures[] = {
	{ "unknown.test", -ENOENT },   { "text.test", -ENOENT },       { "loop.test", -ENOENT },
	{ "silent.test", -ETIMEDOUT }, { "garbage.test", -ETIMEDOUT }, { "servfail.test", -EIO },
};

START_TEST(names_without_address)
{
	struct resolution resolution = resolve(failures[_i].name, false);

	ck_assert_msg(resolution.error == failures[_i].error, "%s: %d", failures[_i].name,
		      resolution.error);
	ck_assert_uint_eq(resolution.count, 0);
}
END_TEST

START_TEST(known_names_are_not_asked_for)
{
	struct resolution resolution = resolve("pinned.test", false);
	struct host_name name = name_of("pinned.test");

	ck_assert_int_eq(resolution.error, 0);
	ck_assert(resolution.is_pinned && resolution.count == 2);
	ck_assert(resolver_is_pinned(resolver, &name));
	expect_addresses("good-but-pinned.test", "10.9.8.7", 1);
	expect_addresses("hosts.test", "93.184.216.35", 1);
	expect_addresses("alias-of-hosts.test", "93.184.216.35", 1);
	expect_addresses("six.test", "2606:2800:220:1::1", 1);
	ck_assert_uint_eq(server.queries, 0);
	name = name_of("hosts.test");
	ck_assert(!resolver_is_pinned(resolver, &name));
	ck_assert_int_eq(resolve("bad.test", false).error, -ENOENT);
	ck_assert_int_eq(resolve("x", false).error, -ENOENT);
}
END_TEST

START_TEST(trusted_names_are_not_judged)
{
	struct resolution resolution = resolve("private.test", true);

	ck_assert_int_eq(resolution.error, 0);
	ck_assert(resolution.count == 1 && !resolution.is_pinned);
}
END_TEST

START_TEST(cancelled_and_left_queries)
{
	struct resolution untouched = { .error = 1 };
	struct resolver_query *queries[RESOLVER_QUERIES_MAX];
	struct resolver_query *more;
	struct host_name name = name_of("silent.test"), known = name_of("pinned.test");

	ck_assert_int_eq(resolver_start(resolver, &known, false, on_done, &untouched, &queries[0]),
			 0);
	resolver_cancel(queries[0]);
	expect_addresses("good.test", "93.184.216.34", 1);
	for (size_t i = 0; i < RESOLVER_QUERIES_MAX; i++)
		ck_assert_int_eq(
			resolver_start(resolver, &name, false, on_done, &untouched, &queries[i]),
			0);
	ck_assert_int_eq(resolver_start(resolver, &name, false, on_done, &untouched, &more),
			 -EBUSY);
	resolver_cancel(queries[3]);
	ck_assert_int_eq(untouched.error, 1);
	/* The rest is under way when the resolver ends. */
}
END_TEST

START_TEST(the_systems_own_files)
{
	static const struct {
		const char *text;
		int result;
	} files[] = {
		{ "", 0 },
		{ "nameserver 192.0.2.1\nnameserver fe80::1%eth0\n nameserver ::1\noptions x", 0 },
		{ "search example.com\n", 0 },
	};
	struct resolver *other;

	for (size_t i = 0; i < ARRAY_LENGTH(files); i++) {
		char path[] = "/tmp/matchlock-resolv-XXXXXX";
		struct resolver_options options = { .loop = &loop, .resolv_conf_path = path };
		int fd = mkstemp(path);

		ck_assert_int_eq(write(fd, files[i].text, strlen(files[i].text)),
				 (ssize_t)strlen(files[i].text));
		close(fd);
		ck_assert_int_eq(resolver_new(&options, &other), files[i].result);
		resolver_free(other);
		unlink(path);
		ck_assert_int_eq(resolver_new(&options, &other), 0);
		resolver_free(other);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("resolver");
	TCase *tests = tcase_create("resolver");
	TCase *failing = tcase_create("failures");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, good_names);
	tcase_add_loop_test(tests, blocked_names, 0, ARRAY_LENGTH(blocked));
	tcase_add_test(tests, local_host_is_loopback);
	tcase_add_test(tests, rebinding);
	tcase_add_test(tests, forgeries);
	tcase_add_checked_fixture(failing, setup_impatient, teardown);
	tcase_add_loop_test(failing, names_without_address, 0, ARRAY_LENGTH(failures));
	tcase_add_test(tests, known_names_are_not_asked_for);
	tcase_add_test(tests, trusted_names_are_not_judged);
	tcase_add_test(tests, cancelled_and_left_queries);
	tcase_add_test(tests, the_systems_own_files);
	suite_add_tcase(suite, tests);
	suite_add_tcase(suite, failing);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
