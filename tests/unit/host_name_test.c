/*
 * Host names, authorities and patterns: what is canonical, what is an address in disguise, and what
 * matches what.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "proxy/host_name.h"
#include "proxy/host_pattern.h"

#define LABEL_63 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0"
#define NAME_253                                                                                   \
	LABEL_63 "." LABEL_63 "." LABEL_63 "."                                                     \
		 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxy"

static const struct {
	const char *text;
	const char *name; /* NULL: refused with `error` */
	int error;
} names[] = {
	{ "example.com", "example.com", 0 },
	{ "ExAmPlE.COM.", "example.com", 0 },
	{ "_dmarc.x-y.example", "_dmarc.x-y.example", 0 },
	{ "xn--mnchen-3ya.de", "xn--mnchen-3ya.de", 0 },
	{ "localhost", "localhost", 0 },
	{ "1e100.net", "1e100.net", 0 },
	{ "127.0.0.1.nip.io", "127.0.0.1.nip.io", 0 },
	{ "0xcafe.0xg", "0xcafe.0xg", 0 },
	{ NAME_253, NAME_253, 0 },
	{ NAME_253 ".", NAME_253, 0 },
	{ NAME_253 "x", NULL, -EINVAL },
	{ LABEL_63 "x.com", NULL, -EINVAL },
	{ "", NULL, -EINVAL },
	{ ".", NULL, -EINVAL },
	{ "..", NULL, -EINVAL },
	{ ".example.com", NULL, -EINVAL },
	{ "example..com", NULL, -EINVAL },
	{ "example.com..", NULL, -EINVAL },
	{ "-a.com", NULL, -EINVAL },
	{ "a-.com", NULL, -EINVAL },
	{ "a b.com", NULL, -EINVAL },
	{ " a.com", NULL, -EINVAL },
	{ "a.com ", NULL, -EINVAL },
	{ "a.com\n", NULL, -EINVAL },
	{ "a.com\r\nHost: b.com", NULL, -EINVAL },
	{ "a/b.com", NULL, -EINVAL },
	{ "a@b.com", NULL, -EINVAL },
	{ "*.b.com", NULL, -EINVAL },
	{ "a%2eb.com", NULL, -EINVAL },
	{ "m\xc3\xbcnchen.de", NULL, -EINVAL },
	/* Full stops of other scripts, which IDNA maps to '.'. */
	{ "a\xe3\x80\x82"
	  "b.com",
	  NULL, -EINVAL },
	{ "a\xef\xbc\x8e"
	  "com",
	  NULL, -EINVAL },
	/* Fullwidth digits, which URL parsers turn into an address. */
	{ "\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1", NULL, -EINVAL },
	{ "\xe2\x91\xa0"
	  "27.0.0.1",
	  NULL, -EINVAL },
	{ "127.0.0.1", NULL, -ENOTSUP },
	{ "127.0.0.1.", NULL, -ENOTSUP },
	{ "127.1", NULL, -ENOTSUP },
	{ "0x7f.1", NULL, -ENOTSUP },
	{ "0X7F.0X0.0x0.0X1", NULL, -ENOTSUP },
	{ "0x7f000001", NULL, -ENOTSUP },
	{ "2130706433", NULL, -ENOTSUP },
	{ "017700000001", NULL, -ENOTSUP },
	{ "0177.0.0.01", NULL, -ENOTSUP },
	{ "169.254.169.254", NULL, -ENOTSUP },
	{ "a.0x", NULL, -ENOTSUP },
	{ "999.999.999.999", NULL, -ENOTSUP },
	{ "::1", NULL, -ENOTSUP },
	{ "[::1]", NULL, -ENOTSUP },
	{ "[", NULL, -ENOTSUP },
	{ "::ffff:10.0.0.1", NULL, -ENOTSUP },
	{ "64:ff9b::a00:1", NULL, -ENOTSUP },
	{ "fe80::1%eth0", NULL, -ENOTSUP },
};

START_TEST(name_forms)
{
	struct host_name name = { .text = "untouched", .length = 9 };
	int result = host_name_parse(names[_i].text, strlen(names[_i].text), &name);

	if (!names[_i].name) {
		ck_assert_msg(result == names[_i].error, "%s: %d", names[_i].text, result);
		ck_assert_str_eq(name.text, "untouched");
		return;
	}
	ck_assert_msg(result == 0, "%s: %d", names[_i].text, result);
	ck_assert_str_eq(name.text, names[_i].name);
	ck_assert_uint_eq(name.length, strlen(names[_i].name));
}
END_TEST

START_TEST(nul_and_all_bytes)
{
	struct host_name name;

	ck_assert_int_eq(host_name_parse("good.com\0.evil.com", 18, &name), -EINVAL);
	ck_assert_int_eq(host_name_parse("good.com\0", 9, &name), -EINVAL);
	ck_assert_int_eq(host_name_parse("\0", 1, &name), -EINVAL);
	for (int byte = 0; byte < 256; byte++) {
		char text[] = { 'a', (char)byte, 'b', '.', 'c', 0 };
		bool good = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
			    (byte >= 'A' && byte <= 'Z') || byte == '-' || byte == '_' ||
			    byte == '.';

		ck_assert_int_eq(host_name_parse(text, 5, &name) == 0, good);
	}
}
END_TEST

static const struct {
	const char *text;
	const char *name;
	uint16_t port;
	int error;
} authorities[] = {
	{ "Example.com", "example.com", 443, 0 },
	{ "example.com.:8443", "example.com", 8443, 0 },
	{ "example.com:1", "example.com", 1, 0 },
	{ "example.com:65535", "example.com", 65535, 0 },
	{ "example.com:65536", NULL, 0, -EINVAL },
	{ "example.com:0", NULL, 0, -EINVAL },
	{ "example.com:080", NULL, 0, -EINVAL },
	{ "example.com:", NULL, 0, -EINVAL },
	{ "example.com:+80", NULL, 0, -EINVAL },
	{ "example.com: 80", NULL, 0, -EINVAL },
	{ "example.com:80 ", NULL, 0, -EINVAL },
	{ "example.com:0x50", NULL, 0, -EINVAL },
	{ "example.com:4294967376", NULL, 0, -EINVAL },
	{ "user@example.com", NULL, 0, -EINVAL },
	{ "user:pw@example.com", NULL, 0, -EINVAL },
	{ "user:pw@example.com:80", NULL, 0, -EINVAL },
	{ "example.com:80@evil.com", NULL, 0, -EINVAL },
	{ "example.com#@evil.com", NULL, 0, -EINVAL },
	{ "example.com\\@evil.com", NULL, 0, -EINVAL },
	{ "a.com, b.com", NULL, 0, -EINVAL },
	{ "", NULL, 0, -EINVAL },
	{ ":80", NULL, 0, -EINVAL },
	{ "[::1]:80", NULL, 0, -ENOTSUP },
	{ "[::ffff:127.0.0.1]", NULL, 0, -ENOTSUP },
	{ "127.0.0.1:80", NULL, 0, -ENOTSUP },
	{ "0x7f.1:80", NULL, 0, -ENOTSUP },
	{ "::1", NULL, 0, -ENOTSUP },
};

START_TEST(authority_forms)
{
	struct host_name name;
	uint16_t port = 7;
	int result = authority_parse(authorities[_i].text, strlen(authorities[_i].text), 443, &name,
				     &port);

	ck_assert_msg(result == authorities[_i].error, "%s: %d", authorities[_i].text, result);
	ck_assert_uint_eq(port, result ? 7 : authorities[_i].port);
	if (!result)
		ck_assert_str_eq(name.text, authorities[_i].name);
}
END_TEST

static const uint16_t web_ports[] = { 443, 80, 0 };

static const struct {
	const char *pattern;
	const char *name;
	uint16_t port;
	bool matches;
} matches[] = {
	{ "example.com", "example.com", 443, true },
	{ "example.com", "example.com", 80, true },
	{ "example.com", "example.com", 8443, false },
	{ "Example.COM.", "example.com", 443, true },
	{ "example.com", "www.example.com", 443, false },
	{ "example.com", "badexample.com", 443, false },
	{ "example.com", "example.com.evil.org", 443, false },
	{ "*.example.com", "example.com", 443, false },
	{ "*.example.com", "a.example.com", 443, true },
	{ "*.example.com", "a.b.example.com", 443, true },
	{ "*.example.com", "badexample.com", 443, false },
	{ "*.example.com", "xexample.com", 443, false },
	{ "*.example.com", "a.example.com.evil.org", 443, false },
	{ "example.com:8443", "example.com", 8443, true },
	{ "example.com:8443", "example.com", 443, false },
	{ "*.example.com:*", "a.example.com", 1, true },
	{ "tcp://db.internal:5432", "db.internal", 5432, true },
	{ "tcp://db.internal:5432", "db.internal", 443, false },
};

START_TEST(pattern_matches)
{
	struct host_pattern pattern, again;
	struct host_name name;
	char text[HOST_PATTERN_MAX];

	ck_assert_int_eq(
		host_pattern_parse(matches[_i].pattern, strlen(matches[_i].pattern), &pattern), 0);
	ck_assert_int_eq(host_name_parse(matches[_i].name, strlen(matches[_i].name), &name), 0);
	ck_assert_msg(host_pattern_matches(&pattern, &name, matches[_i].port, web_ports) ==
			      matches[_i].matches,
		      "%s %s", matches[_i].pattern, matches[_i].name);
	host_pattern_text(&pattern, text);
	ck_assert_int_eq(host_pattern_parse(text, strlen(text), &again), 0);
	ck_assert(host_name_equal(&again.name, &pattern.name));
	ck_assert(again.is_tcp == pattern.is_tcp && again.is_wildcard == pattern.is_wildcard);
	ck_assert(again.ports == pattern.ports && again.port == pattern.port);
}
END_TEST

static const char *const bad_patterns[] = {
	"",
	"*",
	"*.",
	"*.*.com",
	"a.*.com",
	"*example.com",
	"exa*mple.com",
	".example.com",
	"https://example.com",
	"example.com/path",
	"example.com:",
	"example.com:https",
	"example.com:**",
	"tcp://example.com",
	"tcp://example.com:*",
	"TCP://example.com:1",
	"tcp://tcp://example.com:1",
	"10.0.0.1",
	"*.0.0.1",
	"[::1]:80",
	"tcp://10.0.0.1:5432",
	"user@example.com",
	"example.com,example.org",
	"m\xc3\xbcnchen.de",
};

START_TEST(pattern_refusals)
{
	struct host_pattern pattern;

	ck_assert_int_lt(host_pattern_parse(bad_patterns[_i], strlen(bad_patterns[_i]), &pattern),
			 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("host_name");
	TCase *tests = tcase_create("names");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tests, name_forms, 0, ARRAY_LENGTH(names));
	tcase_add_test(tests, nul_and_all_bytes);
	tcase_add_loop_test(tests, authority_forms, 0, ARRAY_LENGTH(authorities));
	tcase_add_loop_test(tests, pattern_matches, 0, ARRAY_LENGTH(matches));
	tcase_add_loop_test(tests, pattern_refusals, 0, ARRAY_LENGTH(bad_patterns));
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
