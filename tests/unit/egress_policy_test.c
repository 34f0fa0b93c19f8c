/*
 * What a session may reach: patterns, rules, budgets, and the configuration that they come from.
 */
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "proxy/body_limit.h"
#include "proxy/egress_policy.h"
#include "proxy/proxy_config.h"

static struct proxy_config *config;
static struct egress_policy *policy;
static struct http_head *head;
static struct egress_verdict verdict;

static void load(const char *text)
{
	char error[EGRESS_ERROR_MAX];

	ck_assert_msg(proxy_config_parse(text, strlen(text), &config, error) == 0, "%s", error);
	ck_assert_msg(egress_policy_new(&config->policy, &policy, error) == 0, "%s", error);
	head = http_head_new();
}

static void teardown(void)
{
	egress_policy_free(policy);
	proxy_config_free(config);
	http_head_free(head);
	policy = NULL;
	config = NULL;
	head = NULL;
}

static struct host_name name_of(const char *text)
{
	struct host_name name;

	ck_assert_int_eq(host_name_parse(text, strlen(text), &name), 0);
	return name;
}

/* The reason of a connection, "" when it is allowed. */
static const char *connection(const char *text, uint16_t port)
{
	struct host_name name = name_of(text);

	egress_policy_judge_connection(policy, &name, port, &verdict);
	ck_assert(verdict.allowed == !verdict.reason);
	ck_assert_str_ne(verdict.rule, "");
	return verdict.allowed ? "" : verdict.reason;
}

static void add_fields(const char *fields)
{
	while (*fields) {
		const char *colon = strchr(fields, ':');
		size_t length = strcspn(colon + 2, "\n");

		ck_assert_int_eq(
			http_head_add(head, fields, (size_t)(colon - fields), colon + 2, length),
			0);
		fields = colon + 2 + length;
		fields += *fields == '\n';
	}
}

static const char *request_at(const char *text, uint16_t port, const char *method, const char *path,
			      const char *fields)
{
	struct host_name name = name_of(text);

	http_head_clear(head);
	http_head_set_method(head, method, strlen(method));
	http_head_set_path(head, path, strlen(path));
	add_fields(fields);
	egress_policy_judge_request(policy, &name, port, head, &verdict);
	ck_assert(verdict.allowed == !verdict.reason);
	return verdict.allowed ? "" : verdict.reason;
}

static const char *request(const char *method, const char *path, const char *fields)
{
	return request_at("api.example.com", 443, method, path, fields);
}

START_TEST(nothing_is_allowed_by_default)
{
	load("{\"session\": \"s\"}");
	ck_assert_str_eq(connection("example.com", 443), "host_not_allowed");
	ck_assert_str_eq(verdict.hint, "matchlock allow add s example.com");
	ck_assert_str_eq(connection("example.com", 5432), "host_not_allowed");
	ck_assert_ptr_nonnull(strstr(verdict.hint, "tcp://example.com:5432"));
	ck_assert_str_eq(request_at("example.com", 443, "GET", "/", ""), "host_not_allowed");
}
END_TEST

START_TEST(patterns_open_hosts)
{
	load("{\"session\": \"s\", \"allow\": [\"a.example\", \"*.b.example\", \"c.example:8443\","
	     "\"tcp://db.example:5432\", \"d.example:*\"], \"passthrough\": [\"pinned.example\"]}");
	ck_assert_str_eq(connection("a.example", 443), "");
	ck_assert_str_eq(verdict.rule, "--allow-host a.example");
	ck_assert_int_eq(verdict.transport, EGRESS_INTERCEPTED);
	ck_assert_str_eq(connection("a.example", 80), "");
	ck_assert_str_eq(connection("a.example", 22), "port_not_allowed");
	ck_assert_str_eq(connection("b.example", 443), "host_not_allowed");
	ck_assert_str_eq(connection("x.y.b.example", 443), "");
	ck_assert_str_eq(connection("xb.example", 443), "host_not_allowed");
	ck_assert_str_eq(connection("c.example", 443), "port_not_allowed");
	ck_assert_str_eq(connection("c.example", 8443), "");
	ck_assert_str_eq(connection("d.example", 1), "");
	ck_assert_str_eq(connection("db.example", 5432), "");
	ck_assert_int_eq(verdict.transport, EGRESS_OPAQUE);
	ck_assert_str_eq(connection("db.example", 443), "port_not_allowed");
	ck_assert_int_eq(verdict.transport, EGRESS_INTERCEPTED);
	ck_assert_str_eq(connection("pinned.example", 443), "");
	ck_assert_int_eq(verdict.transport, EGRESS_PASSTHROUGH);
	ck_assert_str_eq(connection("pinned.example", 80), "port_not_allowed");
	ck_assert_str_eq(request_at("a.example", 443, "DELETE", "/x/../y", ""), "");
	ck_assert_ptr_null(verdict.limits);
	ck_assert_str_eq(request_at("a.example", 8080, "GET", "/", ""), "port_not_allowed");
}
END_TEST

#define RULE(more)                                                                                 \
	"{\"session\": \"s\", \"allow\": [\"api.example.com\", \"*.example.com\"], "               \
	"\"allow_all\": true, "                                                                    \
	"\"rules\": [{\"where\": \"p:7\", \"host\": \"api.example.com\"" more "}]}"

START_TEST(a_rule_closes_its_host)
{
	load(RULE(", \"ports\": [443, 8443], \"methods\": [\"GET\", \"HEAD\"], "
		  "\"paths\": [\"/repos/*/issues/**\", \"/user\"]"));
	ck_assert_str_eq(connection("api.example.com", 443), "");
	ck_assert_str_eq(verdict.rule, "p:7 host api.example.com");
	ck_assert_str_eq(connection("api.example.com", 8443), "");
	ck_assert_str_eq(connection("api.example.com", 80), "port_not_allowed");
	ck_assert_str_eq(request_at("api.example.com", 80, "GET", "/user", ""), "port_not_allowed");
	ck_assert_str_eq(request("GET", "/user", ""), "");
	ck_assert_ptr_nonnull(verdict.limits);
	ck_assert_str_eq(request("GET", "/user?q=/../x", ""), "");
	ck_assert_str_eq(request("GET", "/%75ser", ""), "");
	ck_assert_str_eq(request("POST", "/user", ""), "method_not_allowed");
	ck_assert_str_eq(request("get", "/user", ""), "method_not_allowed");
	ck_assert_str_eq(request("GET", "/users", ""), "path_not_allowed");
	ck_assert_str_eq(request("GET", "/User", ""), "path_not_allowed");
	ck_assert_str_eq(request("GET", "/repos/x/issues/1/comments", ""), "");
	ck_assert_str_eq(request("GET", "/repos/x/issues", ""), "");
	ck_assert_str_eq(request("GET", "/repos/x/y/issues", ""), "path_not_allowed");
	ck_assert_str_eq(verdict.rule, "p:7 host api.example.com");
	ck_assert_str_eq(verdict.hint, "add the path to the rule at p:7");
	/* Other hosts are still everybody's. */
	ck_assert_str_eq(request_at("other.example.com", 443, "POST", "/x", ""), "");
	ck_assert_str_eq(request_at("else.org", 9999, "POST", "/x", ""), "");
	ck_assert_str_eq(verdict.rule, "--allow-all-hosts");
}
END_TEST

static const char *const ambiguous[] = {
	"/repos/x/issues/../../../admin",
	"/repos/x/issues/..",
	"/repos/x/issues/./y",
	"/repos/x/issues/%2e%2e/y",
	"/repos/x/issues/%2E./y",
	"/repos/x/issues/..;/y",
	"/repos/x/issues/.;a=b/y",
	"/repos/x/issues//y",
	"//evil.example/x",
	"/repos/x/issues/..%2fy",
	"/repos/x/issues/..%5cy",
	"/repos/x/issues/..\\y",
	"/repos/x/issues/%252e%252e/y",
	"/repos/x/issues/%00",
	"/repos/x/issues/%0a",
	"/repos/x/issues/%",
	"/repos/x/issues/%4",
	"/repos/x/issues/%zz",
	"*",
	"",
	"repos/x/issues",
	"http://api.example.com/repos/x/issues/1",
};

START_TEST(ambiguous_paths)
{
	load(RULE(", \"paths\": [\"/repos/*/issues/**\"]"));
	ck_assert_msg(strcmp(request("GET", ambiguous[_i], ""), "path_ambiguous") == 0, "%s",
		      ambiguous[_i]);
	/* Where no rule looks at paths there is nothing to get round. */
	teardown();
	load(RULE(", \"methods\": [\"GET\"]"));
	ck_assert_str_eq(request("GET", ambiguous[_i], ""), "");
}
END_TEST

static const struct {
	const char *pattern;
	const char *path;
	bool matches;
} paths[] = {
	{ "/", "/", true },
	{ "/", "/a", false },
	{ "/**", "/", true },
	{ "/**", "/a/b/c/", true },
	{ "/a", "/a/", false },
	{ "/a/", "/a/", true },
	{ "/a/*", "/a/", true },
	{ "/a/*", "/a/b", true },
	{ "/a/*", "/a/b/c", false },
	{ "/a/**/z", "/a/z", true },
	{ "/a/**/z", "/a/b/c/z", true },
	{ "/a/**/z", "/a/b/z/c", false },
	{ "/a/**/z", "/a/z/z/z", true },
	{ "/**/b/**/d", "/a/b/c/d", true },
	{ "/**/b/**/d", "/a/d/c/b", false },
	{ "/a*c", "/abc", true },
	{ "/a*c", "/ab/c", false },
	{ "/*a*b*", "/xaxbx", true },
	{ "/*a*b*", "/xbxax", false },
	{ "/v1.0/x", "/v1x0/x", false },
	{ "/a b", "/a%20b", true },
	{ "/a+b", "/a%20b", false },
	{ "/a;b", "/a;b", true },
	{ "/a", "/a;b", false },
};

START_TEST(path_patterns)
{
	struct request_path_pattern pattern;
	struct request_path path;
	struct http_text target = { paths[_i].path, strlen(paths[_i].path) };

	ck_assert_int_eq(request_path_pattern_parse(paths[_i].pattern, &pattern), 0);
	ck_assert_int_eq(request_path_parse(target, &path), 0);
	ck_assert_msg(request_path_matches(&pattern, &path) == paths[_i].matches, "%s %s",
		      paths[_i].pattern, paths[_i].path);
}
END_TEST

START_TEST(a_pattern_that_takes_long)
{
	struct request_path_pattern pattern;
	struct request_path path;
	char target[4001], text[400] = "";
	size_t used = 0;

	/* Stars everywhere, and a path that fits nearly. */
	for (unsigned i = 0; i < 40; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "/**/a*a");
	snprintf(text + used, sizeof(text) - used, "/z");
	for (unsigned i = 0; i < 128; i++)
		memcpy(target + i * 31, "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 31);
	ck_assert_int_eq(request_path_pattern_parse(text, &pattern), 0);
	ck_assert_int_eq(request_path_parse((struct http_text){ target, 31 * 128 }, &path), 0);
	for (unsigned i = 0; i < 1000; i++)
		ck_assert(!request_path_matches(&pattern, &path));
	target[0] = '/';
	memset(target + 1, 'a', sizeof(target) - 1);
	ck_assert_int_eq(
		request_path_parse((struct http_text){ target, sizeof(target) - 1 }, &path), 0);
	for (unsigned i = 0; i < 4000; i++)
		target[i] = i % 2 ? 'a' : '/';
	ck_assert_int_eq(
		request_path_parse((struct http_text){ target, sizeof(target) - 1 }, &path),
		-E2BIG);
}
END_TEST

START_TEST(headers_and_sizes)
{
	load(RULE(", \"require_headers\": [{\"name\": \"X-Team\", \"value\": \"agents\"}, "
		  "{\"name\": \"X-Any\"}], \"deny_headers\": [\"X-Admin\"], "
		  "\"head_bytes_max\": 100, \"body_bytes_max\": 10, \"response_bytes_max\": 20"));
#define GOOD "x-team: agents\nX-ANY: 1\n"
	ck_assert_str_eq(request("POST", "/", GOOD), "");
	ck_assert_uint_eq(verdict.limits->response_bytes_max, 20);
	ck_assert_str_eq(request("POST", "/", ""), "header_missing");
	ck_assert_str_eq(request("POST", "/", "X-Team: other\nX-Any: 1"), "header_missing");
	ck_assert_str_eq(request("POST", "/", GOOD "X-Team: other"), "header_missing");
	ck_assert_str_eq(request("POST", "/", GOOD "x-ADMIN: 1"), "header_not_allowed");
	ck_assert_str_eq(request("POST", "/", GOOD "Content-Length: 10"), "");
	ck_assert_str_eq(request("POST", "/", GOOD "Content-Length: 11"), "body_too_large");
	ck_assert_str_eq(request("POST", "/", GOOD "Content-Length: x"), "body_too_large");
	ck_assert_str_eq(request("POST", "/", GOOD "Content-Length: 1\nContent-Length: 2"),
			 "body_too_large");
	ck_assert_str_eq(request("POST", "/",
				 GOOD "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
				      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
				      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
			 "head_too_large");
}
END_TEST

START_TEST(budgets_of_opaque_connections)
{
	load("{\"session\": \"s\", \"allow\": [\"tcp://*.b.test:5432\"], \"rules\": ["
	     "{\"where\": \"p:1\", \"host\": \"tcp://db.b.test:5432\", \"requests_max\": 2,"
	     " \"body_bytes_max\": 5, \"bytes_max\": 10},"
	     "{\"where\": \"p:2\", \"host\": \"db.b.test\"}]}");
	for (int i = 0; i < 2; i++) {
		ck_assert_str_eq(connection("db.b.test", 5432), "");
		ck_assert_int_eq(verdict.transport, EGRESS_OPAQUE);
		ck_assert_str_eq(verdict.rule, "p:1 host tcp://db.b.test:5432");
		ck_assert_uint_eq(verdict.limits->body_bytes_max, 5);
		egress_policy_spend_connection(policy, verdict.limits);
	}
	/* The pattern does not open what the rule has closed. */
	ck_assert_str_eq(connection("db.b.test", 5432), "requests_exhausted");
	/* The rule for requests is another. */
	ck_assert_str_eq(connection("db.b.test", 443), "");
	ck_assert_int_eq(verdict.transport, EGRESS_INTERCEPTED);
	ck_assert_ptr_null(verdict.limits);
	ck_assert_str_eq(connection("db.b.test", 5433), "port_not_allowed");
	ck_assert_str_eq(connection("x.b.test", 5432), "");
	ck_assert_ptr_null(verdict.limits);
}
END_TEST

START_TEST(budgets)
{
	struct egress_verdict none;

	load(RULE(", \"requests_max\": 2, \"bytes_max\": 100"));
	ck_assert_str_eq(request("GET", "/", ""), "");
	ck_assert_int_eq(egress_policy_spend(policy, verdict.limits, 60), 0);
	ck_assert_str_eq(request("GET", "/", ""), "");
	ck_assert_str_eq(request("GET", "/", ""), "requests_exhausted");
	teardown();
	load(RULE(", \"bytes_max\": 100"));
	ck_assert_str_eq(request("GET", "/", ""), "");
	ck_assert_int_eq(egress_policy_spend(policy, verdict.limits, 99), 0);
	ck_assert_str_eq(request("GET", "/", ""), "");
	ck_assert_int_eq(egress_policy_spend(policy, verdict.limits, 2), -EDQUOT);
	ck_assert_int_eq(egress_policy_spend(policy, verdict.limits, 1), -EDQUOT);
	ck_assert_int_eq(egress_policy_spend(policy, verdict.limits, UINT64_MAX), -EDQUOT);
	none = verdict;
	ck_assert_str_eq(request("GET", "/", ""), "bytes_exhausted");
	ck_assert_int_eq(egress_policy_spend(policy, none.limits, 0), 0);
	ck_assert_int_eq(egress_policy_spend(policy, NULL, UINT64_MAX), 0);
	/* A refused request costs nothing. */
	teardown();
	load(RULE(", \"methods\": [\"GET\"], \"requests_max\": 1"));
	ck_assert_str_eq(request("PUT", "/", ""), "method_not_allowed");
	ck_assert_str_eq(request("GET", "/", ""), "");
	ck_assert_str_eq(request("GET", "/", ""), "requests_exhausted");
}
END_TEST

static int feed(struct body_filter *filter, size_t length, struct byte_buffer *out)
{
	static const uint8_t bytes[64] = { 1 };

	return filter->feed(filter, bytes, length, false, out);
}

START_TEST(bodies_are_limited)
{
	struct body_filter *body, *response;
	struct byte_buffer out;

	load(RULE(", \"body_bytes_max\": 20, \"response_bytes_max\": 30, \"bytes_max\": 40"));
	ck_assert_str_eq(request("POST", "/", ""), "");
	ck_assert(body_limit_is_needed(verdict.limits, false));
	ck_assert(!body_limit_is_needed(NULL, true));
	body = body_limit_new(policy, verdict.limits, false);
	response = body_limit_new(policy, verdict.limits, true);
	byte_buffer_init(&out, 32);
	ck_assert_int_eq(feed(body, 20, &out), 0);
	/* What does not fit costs nothing. */
	ck_assert_int_eq(feed(response, 15, &out), -ENOBUFS);
	byte_buffer_consume(&out, 20);
	ck_assert_int_eq(feed(body, 1, &out), -EACCES);
	ck_assert_str_eq(body_limit_verdict(body)->reason, "body_too_large");
	ck_assert_str_eq(body_limit_verdict(body)->hint, "p:7 allows 20 bytes");
	ck_assert_str_eq(body_limit_verdict(body)->rule, "p:7 host api.example.com");
	ck_assert_int_eq(feed(body, 0, &out), -EACCES);
	ck_assert_int_eq(feed(response, 15, &out), 0);
	ck_assert_int_eq(feed(response, 6, &out), -EACCES);
	ck_assert_str_eq(body_limit_verdict(response)->reason, "bytes_exhausted");
	ck_assert_uint_eq(byte_buffer_length(&out), 15);
	response->free(response);
	response = body_limit_new(policy, verdict.limits, true);
	ck_assert_int_eq(feed(response, 31, &out), -ENOBUFS);
	byte_buffer_release(&out);
	ck_assert_int_eq(feed(response, 31, &out), -EACCES);
	ck_assert_str_eq(body_limit_verdict(response)->reason, "response_too_large");
	response->free(response);
	body->free(body);
	byte_buffer_release(&out);
}
END_TEST

START_TEST(several_rules)
{
	load("{\"session\": \"s\", \"rules\": ["
	     "{\"where\": \"p:1\", \"host\": \"*.example.com\"},"
	     "{\"where\": \"p:2\", \"host\": \"api.example.com\", \"methods\": [\"GET\"], "
	     "\"paths\": [\"/a/**\"]},"
	     "{\"where\": \"p:3\", \"host\": \"api.example.com\", \"methods\": [\"POST\"], "
	     "\"paths\": [\"/b/**\"], \"ports\": [443]},"
	     "{\"where\": \"p:4\", \"host\": \"*.api.example.com\", \"methods\": [\"GET\"]}]}");
	ck_assert_str_eq(request("GET", "/a/x", ""), "");
	ck_assert_str_eq(verdict.rule, "p:2 host api.example.com");
	ck_assert_str_eq(request("POST", "/b/x", ""), "");
	ck_assert_str_eq(verdict.rule, "p:3 host api.example.com");
	/* One rule must let it through entirely; the one that came nearest is told. */
	ck_assert_str_eq(request("GET", "/b/x", ""), "path_not_allowed");
	ck_assert_str_eq(verdict.rule, "p:2 host api.example.com");
	ck_assert_str_eq(request("POST", "/a/x", ""), "path_not_allowed");
	ck_assert_str_eq(verdict.rule, "p:3 host api.example.com");
	/* The wider rule does not open what the narrower one closes. */
	ck_assert_str_eq(request("DELETE", "/x", ""), "method_not_allowed");
	ck_assert_str_eq(request_at("x.api.example.com", 443, "PUT", "/", ""),
			 "method_not_allowed");
	ck_assert_str_eq(request_at("www.example.com", 443, "PUT", "/", ""), "");
	ck_assert_str_eq(request_at("example.com", 443, "PUT", "/", ""), "host_not_allowed");
}
END_TEST

START_TEST(secrets_are_bound)
{
	load(RULE(", \"secrets\": [{\"name\": \"KEY\", \"methods\": [\"GET\"], "
		  "\"paths\": [\"/v1/**\"]}, {\"name\": \"KEY\", \"paths\": [\"/token\"]}]"));
	ck_assert_str_eq(request("GET", "/v1/x", ""), "");
	egress_rule_judge_secret(verdict.limits, "KEY", head, &verdict);
	ck_assert(verdict.allowed);
	request("POST", "/token", "");
	egress_rule_judge_secret(verdict.limits, "KEY", head, &verdict);
	ck_assert(verdict.allowed);
	request("POST", "/v1/x", "");
	egress_rule_judge_secret(verdict.limits, "KEY", head, &verdict);
	ck_assert(!verdict.allowed);
	ck_assert_str_eq(verdict.reason, "secret_not_bound");
	request("POST", "/v1/x", "");
	egress_rule_judge_secret(verdict.limits, "OTHER", head, &verdict);
	ck_assert(verdict.allowed);
	egress_rule_judge_secret(NULL, "KEY", head, &verdict);
	ck_assert(verdict.allowed);
}
END_TEST

static bool may_push(const char *repository, const char *ref)
{
	struct egress_verdict push;

	request("POST", "/x", "");
	egress_rule_judge_push(verdict.limits, repository, ref, &push);
	return push.allowed;
}

START_TEST(pushes_are_limited)
{
	load(RULE(", \"git_push\": [{\"repository\": \"/org/repo\", "
		  "\"refs\": [\"refs/heads/agent/*\", \"refs/tags/**-rc*\"]}]"));
	ck_assert(may_push("/org/repo", NULL));
	ck_assert(!may_push("/org/other", NULL));
	ck_assert(!may_push("/org/repo2", "refs/heads/agent/x"));
	ck_assert(may_push("/org/repo", "refs/heads/agent/x"));
	ck_assert(!may_push("/org/repo", "refs/heads/agent/x/y"));
	ck_assert(!may_push("/org/repo", "refs/heads/agent"));
	ck_assert(!may_push("/org/repo", "refs/heads/main"));
	ck_assert(!may_push("/org/repo", "refs/heads/xagent/y"));
	ck_assert(may_push("/org/repo", "refs/tags/a/b-rc1"));
	ck_assert(!may_push("/org/repo", "refs/tags/a/b-rc/1"));
	ck_assert(!may_push("/org/repo", ""));
	teardown();
	load(RULE(", \"git_push\": []"));
	ck_assert(!may_push("/org/repo", NULL));
	teardown();
	load(RULE(""));
	ck_assert(may_push("/org/repo", "refs/heads/main"));
}
END_TEST

static const char *certificate(const char *text, uint16_t port)
{
	struct host_name name = name_of(text);
	const char *found = egress_policy_client_certificate(policy, &name, port);

	return found ? found : "";
}

START_TEST(certificates_are_of_the_narrowest_rules)
{
	load("{\"session\": \"s\", \"allow\": [\"free.test\"], \"rules\": ["
	     "{\"where\": \"p:1\", \"host\": \"a.b\", \"methods\": [\"GET\"], "
	     "\"client_certificate\": \"A\"},"
	     "{\"where\": \"p:2\", \"host\": \"a.b\", \"methods\": [\"PUT\"], \"ports\": [443], "
	     "\"client_certificate\": \"A\"},"
	     "{\"where\": \"p:3\", \"host\": \"a.b\", \"ports\": [8443]},"
	     "{\"where\": \"p:4\", \"host\": \"*.b\", \"client_certificate\": \"B\"},"
	     "{\"where\": \"p:5\", \"host\": \"c.b\"}]}");
	ck_assert_str_eq(certificate("a.b", 443), "A");
	ck_assert_str_eq(certificate("a.b", 80), "A");
	ck_assert_str_eq(certificate("a.b", 8443), "");
	ck_assert_str_eq(certificate("a.b", 9), "");
	ck_assert_str_eq(certificate("x.a.b", 443), "B");
	ck_assert_str_eq(certificate("b", 443), "");
	ck_assert_str_eq(certificate("c.b", 443), "");
	ck_assert_str_eq(certificate("free.test", 443), "");
}
END_TEST

START_TEST(lists_change_while_it_runs)
{
	char *list;

	load("{\"session\": \"s\", \"allow\": [\"a.example\"], \"rules\": ["
	     "{\"where\": \"p:1\", \"host\": \"r.example\", \"methods\": [\"GET\"]}]}");
	ck_assert_int_eq(egress_policy_add(policy, "b.example"), 0);
	ck_assert_int_eq(egress_policy_add(policy, "B.example."), -EEXIST);
	ck_assert_int_eq(egress_policy_add(policy, "b.example:80"), 0);
	ck_assert_int_eq(egress_policy_add(policy, "*"), -EINVAL);
	ck_assert_int_eq(egress_policy_add(policy, "10.0.0.1"), -EINVAL);
	ck_assert_str_eq(connection("b.example", 443), "");
	ck_assert_str_eq(verdict.rule, "matchlock allow add b.example");
	/* Nobody would look at the requests that the rule is about. */
	ck_assert_int_eq(egress_policy_add(policy, "tcp://r.example:443"), -EINVAL);
	ck_assert_int_eq(egress_policy_add(policy, "tcp://*.example:80"), -EINVAL);
	ck_assert_int_eq(egress_policy_add(policy, "tcp://r.example:22"), 0);
	ck_assert_int_eq(egress_policy_add(policy, "r.example"), 0);
	ck_assert_str_eq(request_at("r.example", 443, "POST", "/", ""), "method_not_allowed");
	list = egress_policy_list(policy);
	ck_assert_str_eq(list, "a.example\t--allow-host\n"
			       "b.example\tmatchlock allow add\n"
			       "b.example:80\tmatchlock allow add\n"
			       "tcp://r.example:22\tmatchlock allow add\n"
			       "r.example\tmatchlock allow add\n"
			       "r.example\tp:1\n");
	free(list);
	ck_assert_int_eq(egress_policy_remove(policy, "b.example"), 0);
	ck_assert_int_eq(egress_policy_remove(policy, "b.example"), -ENOENT);
	ck_assert_int_eq(egress_policy_remove(policy, "b..example"), -EINVAL);
	ck_assert_str_eq(connection("b.example", 443), "port_not_allowed");
	ck_assert_int_eq(egress_policy_remove(policy, "a.example"), 0);
	ck_assert_str_eq(connection("a.example", 443), "host_not_allowed");
	for (unsigned i = 0; i < EGRESS_PATTERNS_MAX - 3; i++) {
		char pattern[32];

		snprintf(pattern, sizeof(pattern), "h%u.example", i);
		ck_assert_int_eq(egress_policy_add(policy, pattern), 0);
	}
	ck_assert_int_eq(egress_policy_add(policy, "more.example"), -ENOSPC);
}
END_TEST

START_TEST(hints_are_printable)
{
	struct host_name name = name_of("example.com");

	load("{\"session\": \"s\\u001b[2J\"}");
	egress_policy_judge_connection(policy, &name, 443, &verdict);
	ck_assert_ptr_null(strchr(verdict.hint, '\x1b'));
}
END_TEST

/* ---- the configuration ----------------------------------------------------------------------- */

START_TEST(a_whole_configuration)
{
	static const char text[] =
		"{\"session\": \"s\", \"allow\": [], \"passthrough\": [], \"allow_all\": false, "
		"\"add_host\": [{\"name\": \"db\", \"address\": \"10.0.0.5\"}, "
		"{\"name\": \"DB.\", \"address\": \"fd00::5\"}], "
		"\"upstream_proxy\": \"http://u:p@proxy:3128\", \"rules\": []}";
	char error[PROXY_CONFIG_ERROR_MAX];
	struct host_name name = name_of("db");
	int fd = memfd_create("config", MFD_CLOEXEC);

	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	ck_assert_msg(proxy_config_read(fd, &config, error) == 0, "%s", error);
	close(fd);
	ck_assert_uint_eq(host_table_find(config->pinned, &name)->count, 2);
	ck_assert(config->has_upstream && config->upstream.port == 3128);
}
END_TEST

static const struct {
	const char *text;
	const char *error;
} refused[] = {
	{ "", "JSON" },
	{ "[]", "must be an object" },
	{ "{}", "session" },
	{ "{\"session\": \"\"}", "session" },
	{ "{\"session\": \"s\", \"session\": \"s\"}", "JSON" },
	{ "{\"session\": \"a\\u0000b\"}", "JSON" },
	{ "{\"session\": \"s\", \"other\": 1}", "other: unknown key" },
	{ "{\"session\": \"s\", \"allow\": \"x\"}", "allow: must be a list" },
	{ "{\"session\": \"s\", \"allow\": [1]}", "allow" },
	{ "{\"session\": \"s\", \"allow\": [\"\"]}", "allow" },
	{ "{\"session\": \"s\", \"allow_all\": 1}", "allow_all" },
	{ "{\"session\": \"s\", \"add_host\": [{\"name\": \"a\"}]}", "address" },
	{ "{\"session\": \"s\", \"add_host\": [{\"name\": \"a\", \"address\": \"b\"}]}", "b" },
	{ "{\"session\": \"s\", \"add_host\": [{\"name\": \"1.2.3.4\", \"address\": \"::1\"}]}",
	  "1.2.3.4" },
	{ "{\"session\": \"s\", \"upstream_proxy\": \"https://u:p@x\"}", "only http://" },
	{ "{\"session\": \"s\", \"upstream_proxy\": \"x\"}", "upstream_proxy" },
	{ "{\"session\": \"s\", \"rules\": [1]}", "rules" },
	{ "{\"session\": \"s\", \"rules\": [{\"host\": \"a\"}]}", "where" },
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p:1\"}]}", "p:1: host" },
	{ RULE(", \"more\": 1"), "p:7: more: unknown key" },
	{ RULE(", \"ports\": []"), "p:7: ports" },
	{ RULE(", \"ports\": [0]"), "p:7: ports" },
	{ RULE(", \"ports\": [65536]"), "p:7: ports" },
	{ RULE(", \"ports\": [\"443\"]"), "p:7: ports" },
	{ RULE(", \"methods\": []"), "p:7: methods" },
	{ RULE(", \"methods\": [\"GET \"]"), "p:7: methods" },
	{ RULE(", \"paths\": []"), "p:7: paths" },
	{ RULE(", \"paths\": [\"a\"]"), "p:7: paths" },
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p:7\", \"host\": \"tcp://a\"}]}",
	  "p:7: host" },
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p:7\", \"host\": \"tcp://a:1\", "
	  "\"paths\": [\"/\"]}]}",
	  "p:7: paths" },
	{ RULE(", \"paths\": [\"/a?b\"]"), "p:7: paths" },
	{ RULE(", \"paths\": [\"/a/../b\"]"), "p:7: paths" },
	{ RULE(", \"paths\": [\"/a**\"]"), "p:7: paths" },
	{ RULE(", \"paths\": [\"/a%20b\"]"), "p:7: paths" },
	{ RULE(", \"require_headers\": [{\"value\": \"x\"}]"), "p:7: name" },
	{ RULE(", \"require_headers\": [{\"name\": \"a:\"}]"), "p:7: require_headers" },
	{ RULE(", \"require_headers\": [{\"name\": \"a\", \"value\": \"b\\r\\n\"}]"),
	  "p:7: require_headers" },
	{ RULE(", \"deny_headers\": [\"a b\"]"), "p:7: deny_headers" },
	{ RULE(", \"body_bytes_max\": -1"), "p:7: body_bytes_max" },
	{ RULE(", \"body_bytes_max\": 1.5"), "p:7: body_bytes_max" },
	{ RULE(", \"requests_max\": \"9\""), "p:7: requests_max" },
	{ RULE(", \"secrets\": [{\"methods\": [\"GET\"]}]"), "p:7: name" },
	{ RULE(", \"secrets\": [{\"name\": \"A\", \"paths\": []}]"), "p:7: paths" },
	{ RULE(", \"git_push\": [{\"repository\": \"/a\"}]"), "p:7: refs" },
	{ RULE(", \"git_push\": [{\"repository\": \"/a.git\", \"refs\": [\"**\"]}]"),
	  "p:7: repository" },
	{ RULE(", \"git_push\": [{\"repository\": \"a\", \"refs\": [\"**\"]}]"),
	  "p:7: repository" },
	{ RULE(", \"git_push\": [{\"repository\": \"/a\", \"refs\": [\"main\"]}]"), "p:7: refs" },
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p:1\", \"host\": \"a:80\"}]}",
	  "p:1: host" },
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p:1\", \"host\": \"10.0.0.1\"}]}",
	  "--add-host" },
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p\\u001b:1\", \"host\": \"a\", "
	  "\"x\": 1}]}",
	  "p\\x1b:1" },
};

START_TEST(refusals)
{
	char error[PROXY_CONFIG_ERROR_MAX] = "";
	int result = proxy_config_parse(refused[_i].text, strlen(refused[_i].text), &config, error);

	ck_assert_msg(result == -EINVAL, "%s: %d", refused[_i].text, result);
	ck_assert_msg(strstr(error, refused[_i].error), "%s: %s", refused[_i].text, error);
}
END_TEST

static const struct {
	const char *text;
	const char *error;
} contradictions[] = {
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p:7\", \"host\": \"tcp://*.b:443\"}, "
	  "{\"where\": \"p:8\", \"host\": \"a.b\"}]}",
	  "p:7: host: goes past the rule at p:8" },
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p:7\", \"host\": \"a.b\", "
	  "\"client_certificate\": \"A\"}, {\"where\": \"p:8\", \"host\": \"a.b\", "
	  "\"ports\": [80, 443], \"client_certificate\": \"B\"}]}",
	  "p:8: client_certificate: is not that of the rule at p:7" },
	{ "{\"session\": \"s\", \"rules\": [{\"where\": \"p:7\", \"host\": \"*.b\"}, "
	  "{\"where\": \"p:8\", \"host\": \"*.b\", \"client_certificate\": \"B\"}]}",
	  "p:8: client_certificate: is not that of the rule at p:7" },
	{ "{\"session\": \"s\", \"allow\": [\"exa mple\"]}", "--allow-host exa mple" },
	{ "{\"session\": \"s\", \"allow\": [\"*\"]}", "--allow-host *" },
	{ "{\"session\": \"s\", \"passthrough\": [\"tcp://a:1\"]}", "--passthrough tcp://a:1" },
	{ "{\"session\": \"s\", \"passthrough\": [\"a.b\"], \"rules\": [{\"where\": \"p:1\", "
	  "\"host\": \"*.b\"}]}",
	  "--passthrough a.b" },
	{ "{\"session\": \"s\", \"passthrough\": [\"*.a.b\"], \"rules\": [{\"where\": \"p:1\", "
	  "\"host\": \"*.b\"}]}",
	  "goes past a rule" },
};

START_TEST(contradicting_lists)
{
	char error[EGRESS_ERROR_MAX];

	ck_assert_int_eq(proxy_config_parse(contradictions[_i].text,
					    strlen(contradictions[_i].text), &config, error),
			 0);
	ck_assert_int_eq(egress_policy_new(&config->policy, &policy, error), -EINVAL);
	ck_assert_msg(strstr(error, contradictions[_i].error), "%s", error);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("egress_policy");
	TCase *tests = tcase_create("policy");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_add_test(tests, nothing_is_allowed_by_default);
	tcase_add_test(tests, patterns_open_hosts);
	tcase_add_test(tests, a_rule_closes_its_host);
	tcase_add_loop_test(tests, ambiguous_paths, 0, ARRAY_LENGTH(ambiguous));
	tcase_add_loop_test(tests, path_patterns, 0, ARRAY_LENGTH(paths));
	tcase_add_test(tests, a_pattern_that_takes_long);
	tcase_add_test(tests, headers_and_sizes);
	tcase_add_test(tests, budgets);
	tcase_add_test(tests, budgets_of_opaque_connections);
	tcase_add_test(tests, bodies_are_limited);
	tcase_add_test(tests, several_rules);
	tcase_add_test(tests, secrets_are_bound);
	tcase_add_test(tests, pushes_are_limited);
	tcase_add_test(tests, certificates_are_of_the_narrowest_rules);
	tcase_add_test(tests, lists_change_while_it_runs);
	tcase_add_test(tests, hints_are_printable);
	tcase_add_test(tests, a_whole_configuration);
	tcase_add_loop_test(tests, refusals, 0, ARRAY_LENGTH(refused));
	tcase_add_loop_test(tests, contradicting_lists, 0, ARRAY_LENGTH(contradictions));
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
