/*
 * Synthetic addresses, and the answers to the guest's DNS queries: what an attacker asks learns
 * nothing, reaches nobody and is answered by the form.
 */
#include <check.h>
#include <errno.h>
#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "proxy/dns_answer.h"

#define TYPE_SVCB ((ldns_rr_type)64)
#define TYPE_HTTPS ((ldns_rr_type)65)

static struct synthetic_addresses *addresses;
static uint8_t answer[DNS_ANSWER_MAX];
static size_t answer_length;

static void setup(void)
{
	addresses = synthetic_addresses_new();
	ck_assert_ptr_nonnull(addresses);
}

static void teardown(void)
{
	synthetic_addresses_free(addresses);
}

static struct host_name name_of(const char *text)
{
	struct host_name name;

	ck_assert_int_eq(host_name_parse(text, strlen(text), &name), 0);
	return name;
}

/* The answer to one question; the caller frees. */
static ldns_pkt *ask(const char *name, ldns_rr_type type, ldns_rr_class class, bool edns)
{
	ldns_pkt *query = ldns_pkt_query_new(ldns_dname_new_frm_str(name), type, class, LDNS_RD);
	ldns_pkt *reply = NULL;
	uint8_t *wire;
	size_t length;

	ldns_pkt_set_id(query, 0x1234);
	if (edns)
		ldns_pkt_set_edns_udp_size(query, 4096);
	ck_assert_int_eq(ldns_pkt2wire(&wire, query, &length), LDNS_STATUS_OK);
	ck_assert_int_eq(dns_answer(addresses, wire, length, answer, &answer_length), 0);
	free(wire);
	ldns_pkt_free(query);
	ck_assert_int_eq(ldns_wire2pkt(&reply, answer, answer_length), LDNS_STATUS_OK);
	ck_assert_uint_eq(ldns_pkt_id(reply), 0x1234);
	ck_assert(ldns_pkt_qr(reply) && ldns_pkt_ra(reply) && ldns_pkt_rd(reply));
	ck_assert(!ldns_pkt_tc(reply) && !ldns_pkt_ad(reply) && !ldns_pkt_aa(reply));
	return reply;
}

/* The one address of a reply, as text. */
static const char *only_address(const ldns_pkt *reply)
{
	static char text[IP_ADDRESS_TEXT_MAX];
	const ldns_rr_list *list = ldns_pkt_answer(reply);
	struct ip_address address = { 0 };
	const ldns_rdf *data;

	ck_assert_int_eq(ldns_pkt_get_rcode(reply), LDNS_RCODE_NOERROR);
	ck_assert_uint_eq(ldns_rr_list_rr_count(list), 1);
	data = ldns_rr_rdf(ldns_rr_list_rr(list, 0), 0);
	address.family = ldns_rdf_size(data) == 4 ? 4 : 6;
	memcpy(address.bytes, ldns_rdf_data(data), ldns_rdf_size(data));
	ip_address_text(&address, text);
	return text;
}

static void expect_address(const char *name, ldns_rr_type type, const char *address)
{
	ldns_pkt *reply = ask(name, type, LDNS_RR_CLASS_IN, true);

	ck_assert_str_eq(only_address(reply), address);
	ldns_pkt_free(reply);
}

static void expect_nothing(const char *name, ldns_rr_type type, ldns_rr_class class,
			   ldns_pkt_rcode rcode)
{
	ldns_pkt *reply = ask(name, type, class, true);

	ck_assert_msg(ldns_pkt_get_rcode(reply) == rcode, "%s: %d", name,
		      (int)ldns_pkt_get_rcode(reply));
	ck_assert_uint_eq(ldns_pkt_ancount(reply) + ldns_pkt_nscount(reply), 0);
	ldns_pkt_free(reply);
}

START_TEST(addresses_are_stable_and_lead_back)
{
	struct ip_address v4, v6, again;
	struct host_name name = name_of("example.com"), back;
	char text[32];

	ck_assert_int_eq(synthetic_addresses_of(addresses, &name, &v4, &v6), 0);
	for (unsigned i = 0; i < SYNTHETIC_NAMES_MAX - 1; i++) {
		struct host_name other;

		snprintf(text, sizeof(text), "h%u.example.org", i);
		other = name_of(text);
		ck_assert_int_eq(synthetic_addresses_of(addresses, &other, &again, NULL), 0);
		ck_assert(again.bytes[0] == 198 && (again.bytes[1] & ~1) == 18);
		ck_assert(again.bytes[3] != 0 && again.bytes[3] != 255);
		ck_assert(!ip_address_equal(&again, &v4));
		ck_assert_ptr_nonnull(address_class(&again));
		ck_assert_int_eq(synthetic_addresses_name(addresses, &again, &back), 0);
		ck_assert(host_name_equal(&back, &other));
	}
	/* Full: what is known stays, nothing is added. */
	name = name_of("one.too.many");
	ck_assert_int_eq(synthetic_addresses_of(addresses, &name, &again, NULL), -ENOSPC);
	expect_nothing("one.too.many", LDNS_RR_TYPE_A, LDNS_RR_CLASS_IN, LDNS_RCODE_SERVFAIL);
	name = name_of("example.com");
	ck_assert_int_eq(synthetic_addresses_of(addresses, &name, &again, NULL), 0);
	ck_assert(ip_address_equal(&again, &v4));
	ck_assert_int_eq(synthetic_addresses_name(addresses, &v6, &back), 0);
	ck_assert(host_name_equal(&back, &name));
	ck_assert_ptr_nonnull(address_class(&v6));
}
END_TEST

START_TEST(other_addresses_stand_for_nothing)
{
	static const char *const texts[] = { "198.18.0.0",     "198.18.0.2", "198.18.0.255",
					     "198.17.255.255", "198.20.0.1", "198.19.255.255",
					     "10.0.0.1",       "0.0.0.0",    "255.255.255.255",
					     "::198.18.0.1",   "fd00::1",    "::ffff:198.18.0.1" };
	struct host_name name = name_of("example.com"), back;
	struct ip_address address;

	ck_assert_int_eq(synthetic_addresses_of(addresses, &name, NULL, NULL), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
		ck_assert_int_eq(ip_address_parse(texts[i], &address), 0);
		ck_assert_int_eq(synthetic_addresses_name(addresses, &address, &back), -ENOENT);
	}
}
END_TEST

START_TEST(names_are_answered)
{
	ldns_pkt *reply;

	expect_address("example.com.", LDNS_RR_TYPE_A, "198.18.0.1");
	expect_address("EXAMPLE.com.", LDNS_RR_TYPE_A, "198.18.0.1");
	expect_address("example.com.", LDNS_RR_TYPE_AAAA, "fd6d:6c67:6573::c612:1");
	expect_address("denied.example.", LDNS_RR_TYPE_A, "198.18.0.2");
	expect_address("localhost.", LDNS_RR_TYPE_A, "127.0.0.1");
	expect_address("a.localhost.", LDNS_RR_TYPE_AAAA, "::1");
	/* The question comes back as it was spelt, without EDNS if there was none. */
	reply = ask("eXaMpLe.com.", LDNS_RR_TYPE_A, LDNS_RR_CLASS_IN, false);
	ck_assert(!ldns_pkt_edns(reply));
	ck_assert(memcmp(answer + 13, "eXaMpLe", 7) == 0);
	ldns_pkt_free(reply);
}
END_TEST

START_TEST(other_types_have_no_data)
{
	static const ldns_rr_type types[] = {
		TYPE_HTTPS,	     TYPE_SVCB,		 LDNS_RR_TYPE_TXT, LDNS_RR_TYPE_NULL,
		LDNS_RR_TYPE_MX,     LDNS_RR_TYPE_CNAME, LDNS_RR_TYPE_SRV, LDNS_RR_TYPE_PTR,
		LDNS_RR_TYPE_ANY,    LDNS_RR_TYPE_AXFR,	 LDNS_RR_TYPE_NS,  LDNS_RR_TYPE_DNSKEY,
		(ldns_rr_type)65399,
	};

	for (size_t i = 0; i < ARRAY_LENGTH(types); i++)
		expect_nothing("example.com.", types[i], LDNS_RR_CLASS_IN, LDNS_RCODE_NOERROR);
	expect_nothing("version.bind.", LDNS_RR_TYPE_TXT, LDNS_RR_CLASS_CH, LDNS_RCODE_REFUSED);
	expect_nothing("example.com.", LDNS_RR_TYPE_A, LDNS_RR_CLASS_ANY, LDNS_RCODE_REFUSED);
}
END_TEST

START_TEST(no_host_names)
{
	static const char *const names[] = {
		".",
		"127.0.0.1.",
		"0x7f.1.",
		"2130706433.",
		"a\\032b.example.",
		"a\\.b.example.",
		"nul\\000.example.",
		"\\200.example.",
		"x.invalid.",
		"abc.onion.",
		"ipv4only.arpa.",
		"use-application-dns.net.",
		"-x.example.",
	};

	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		expect_nothing(names[i], LDNS_RR_TYPE_A, LDNS_RR_CLASS_IN, LDNS_RCODE_NXDOMAIN);
	/* A name that only looks like it is under one of these. */
	expect_address("notinvalid.", LDNS_RR_TYPE_A, "198.18.0.1");
}
END_TEST

START_TEST(longest_name_fits)
{
	char name[256] = "";
	size_t length = 0;
	ldns_pkt *reply;

	while (length < 250) {
		size_t label = MIN_OF(63u, 252u - length);

		memset(name + length, 'a', label);
		length += label;
		name[length++] = '.';
	}
	reply = ask(name, LDNS_RR_TYPE_AAAA, LDNS_RR_CLASS_IN, true);
	ck_assert_uint_eq(ldns_pkt_ancount(reply), 1);
	ldns_pkt_free(reply);
}
END_TEST

/* Hand-made messages: header, and the question a. IN A where there is one. */
#define HEADER(flags, qd, an, ns, ar) 0xab, 0xcd, flags, 0, 0, qd, 0, an, 0, ns, 0, ar
#define QUESTION 1, 'a', 0, 0, 1, 0, 1
static const struct {
	const char *what;
	uint8_t bytes[64];
	size_t length;
	int rcode; /* -1: no answer */
} messages[] = {
	{ "nothing", { 0 }, 0, -1 },
	{ "eleven bytes", { HEADER(1, 1, 0, 0, 0) }, 11, -1 },
	{ "an answer", { HEADER(0x81, 1, 0, 0, 0), QUESTION }, 19, -1 },
	{ "inverse query", { HEADER(0x09, 1, 0, 0, 0), QUESTION }, 19, LDNS_RCODE_NOTIMPL },
	{ "notify", { HEADER(0x20, 1, 0, 0, 0), QUESTION }, 19, LDNS_RCODE_NOTIMPL },
	{ "update", { HEADER(0x28, 1, 0, 0, 0), QUESTION }, 19, LDNS_RCODE_NOTIMPL },
	{ "no question", { HEADER(1, 0, 0, 0, 0) }, 12, LDNS_RCODE_FORMERR },
	{ "two questions", { HEADER(1, 2, 0, 0, 0), QUESTION, QUESTION }, 26, LDNS_RCODE_FORMERR },
	{ "cut question", { HEADER(1, 1, 0, 0, 0), QUESTION }, 18, LDNS_RCODE_FORMERR },
	{ "label over the end", { HEADER(1, 1, 0, 0, 0), 63, 'a' }, 14, LDNS_RCODE_FORMERR },
	{ "pointer to itself",
	  { HEADER(1, 1, 0, 0, 0), 0xc0, 12, 0, 1, 0, 1 },
	  18,
	  LDNS_RCODE_FORMERR },
	{ "pointer beyond",
	  { HEADER(1, 1, 0, 0, 0), 0xff, 0xff, 0, 1, 0, 1 },
	  18,
	  LDNS_RCODE_FORMERR },
	{ "reserved label type",
	  { HEADER(1, 1, 0, 0, 0), 0x80, 'a', 0, 0, 1, 0, 1 },
	  19,
	  LDNS_RCODE_FORMERR },
	{ "an answer record",
	  { HEADER(1, 1, 1, 0, 0), QUESTION, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4 },
	  35,
	  LDNS_RCODE_FORMERR },
	{ "OPT twice",
	  { HEADER(1, 1, 0, 0, 2),
	    QUESTION,
	    0,
	    0,
	    41,
	    4,
	    0,
	    0,
	    0,
	    0,
	    0,
	    0,
	    0,
	    0,
	    0,
	    41,
	    4,
	    0,
	    0,
	    0,
	    0,
	    0,
	    0,
	    0 },
	  41,
	  LDNS_RCODE_FORMERR },
	{ "OPT cut", { HEADER(1, 1, 0, 0, 1), QUESTION, 0, 0, 41, 4, 0 }, 24, LDNS_RCODE_FORMERR },
	{ "plain", { HEADER(1, 1, 0, 0, 0), QUESTION }, 19, LDNS_RCODE_NOERROR },
};

START_TEST(malformed_queries)
{
	int result = dns_answer(addresses, messages[_i].bytes, messages[_i].length, answer,
				&answer_length);

	if (messages[_i].rcode < 0) {
		ck_assert_msg(result == -EBADMSG, "%s: %d", messages[_i].what, result);
		return;
	}
	ck_assert_int_eq(result, 0);
	ck_assert_uint_ge(answer_length, 12);
	ck_assert(answer[0] == 0xab && answer[1] == 0xcd && answer[2] & 0x80);
	ck_assert_msg((answer[3] & 15) == messages[_i].rcode, "%s: rcode %d", messages[_i].what,
		      answer[3] & 15);
}
END_TEST

START_TEST(a_query_of_another_edns_version)
{
	static const uint8_t query[] = {
		HEADER(1, 1, 0, 0, 1), QUESTION, 0, 0, 41, 4, 0, 0, 1, 0, 0, 0, 0
	};
	ldns_pkt *reply = NULL;

	ck_assert_int_eq(dns_answer(addresses, query, sizeof(query), answer, &answer_length), 0);
	ck_assert_int_eq(ldns_wire2pkt(&reply, answer, answer_length), LDNS_STATUS_OK);
	ck_assert_uint_eq(ldns_pkt_edns_extended_rcode(reply), 1);
	ck_assert_uint_eq(ldns_pkt_ancount(reply), 0);
	ldns_pkt_free(reply);
}
END_TEST

START_TEST(a_huge_query)
{
	uint8_t query[DNS_QUERY_MAX + 1] = { HEADER(1, 1, 0, 0, 0), QUESTION };

	ck_assert_int_eq(dns_answer(addresses, query, sizeof(query), answer, &answer_length), 0);
	ck_assert_int_eq(answer[3] & 15, LDNS_RCODE_FORMERR);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dns_answer");
	TCase *tests = tcase_create("answers");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, addresses_are_stable_and_lead_back);
	tcase_add_test(tests, other_addresses_stand_for_nothing);
	tcase_add_test(tests, names_are_answered);
	tcase_add_test(tests, other_types_have_no_data);
	tcase_add_test(tests, no_host_names);
	tcase_add_test(tests, longest_name_fits);
	tcase_add_loop_test(tests, malformed_queries, 0, ARRAY_LENGTH(messages));
	tcase_add_test(tests, a_query_of_another_edns_version);
	tcase_add_test(tests, a_huge_query);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
