/*
 * Pushes: which requests are one, whatever they look like, and which lists of refs get through,
 * however they are cut.
 */
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "proxy/git_push.h"
#include "proxy/proxy_config.h"

#define OLD "0000000000000000000000000000000000000000"
#define NEW "0123456789abcdef0123456789abcdef01234567"
#define NEW256 NEW "0123456789abcdef01234567"

static struct proxy_config *config;
static struct egress_policy *policy;
static struct http_head *head;
static struct body_filter *filter;
static struct egress_verdict verdict;
static struct byte_buffer out;

static void load(const char *pushes)
{
	char text[1024], error[EGRESS_ERROR_MAX];

	snprintf(text, sizeof(text),
		 "{\"session\": \"s\", \"rules\": [{\"where\": \"p:7\", \"host\": "
		 "\"git.example\"%s}]}",
		 pushes);
	ck_assert_msg(proxy_config_parse(text, strlen(text), &config, error) == 0, "%s", error);
	ck_assert_msg(egress_policy_new(&config->policy, &policy, error) == 0, "%s", error);
}

static void setup(void)
{
	head = http_head_new();
	byte_buffer_init(&out, 1 << 20);
	load(", \"git_push\": [{\"repository\": \"/org/repo\", "
	     "\"refs\": [\"refs/heads/agent/*\"]}]");
}

static void drop_filter(void)
{
	if (filter)
		filter->free(filter);
	filter = NULL;
}

static void teardown(void)
{
	drop_filter();
	byte_buffer_release(&out);
	http_head_free(head);
	egress_policy_free(policy);
	proxy_config_free(config);
}

static int prepare(const char *method, const char *path, const char *type, const char *coding)
{
	struct host_name name = { .text = "git.example", .length = 11 };
	struct egress_verdict request;

	drop_filter();
	http_head_clear(head);
	http_head_set_method(head, method, strlen(method));
	http_head_set_path(head, path, strlen(path));
	if (type)
		http_head_add(head, "Content-Type", 12, type, strlen(type));
	if (coding)
		http_head_add(head, "Content-Encoding", 16, coding, strlen(coding));
	egress_policy_judge_request(policy, &name, 443, head, &request);
	ck_assert(request.allowed);
	return git_push_prepare(request.limits, head, &filter, &verdict);
}

#define TYPE "application/x-git-receive-pack-request"

static const struct {
	const char *method, *path, *type, *coding;
	int result;
	bool is_push;
} requests[] = {
	{ "GET", "/org/repo.git/info/refs?service=git-receive-pack", NULL, NULL, 0, false },
	{ "GET", "/org/repo/info/refs?service=git-receive-pack", NULL, NULL, 0, false },
	{ "GET", "/org/other.git/info/refs?service=git-receive-pack", NULL, NULL, -EACCES, false },
	{ "GET", "/org/other.git/info/refs?service=git-%72eceive-pack", NULL, NULL, -EACCES,
	  false },
	{ "GET", "/org/other.git/info/refs?service=git-upload-pack", NULL, NULL, 0, false },
	{ "POST", "/org/other.git/git-upload-pack", NULL, NULL, 0, false },
	{ "POST", "/org/repo.git/git-receive-pack", TYPE, NULL, 0, true },
	{ "POST", "/org/repo/git-receive-pack", TYPE, NULL, 0, true },
	{ "POST", "/org/r%65po/git-receive%2dpack?x=y", NULL, NULL, 0, true },
	{ "POST", "/org/repo.git/git-receive-pack", TYPE, "gzip", -EACCES, false },
	{ "POST", "/org/other.git/git-receive-pack", TYPE, NULL, -EACCES, false },
	{ "POST", "/org/Repo.git/git-receive-pack", TYPE, NULL, -EACCES, false },
	{ "POST", "/org/repo.git.git/git-receive-pack", TYPE, NULL, -EACCES, false },
	{ "POST", "/git-receive-pack", TYPE, NULL, -EACCES, false },
	{ "POST", "/.git/git-receive-pack", TYPE, NULL, -EACCES, false },
	{ "POST", "/org/other.git/git-receive-pack/", NULL, NULL, -EACCES, false },
	{ "POST", "/org/other.git/git-receive-pack;x=y", NULL, NULL, -EACCES, false },
	{ "POST", "/org/other.git/GIT-receive-pack", NULL, NULL, -EACCES, false },
	{ "POST", "/org/repo.git/../other.git/git-receive-pack", NULL, NULL, -EACCES, false },
	{ "POST", "/org//other.git/git-receive-pack", NULL, NULL, -EACCES, false },
	{ "POST", "/org%2Fother.git/git-receive-pack", NULL, NULL, -EACCES, false },
	{ "POST", "/org/other.git%2fgit-receive-pack", NULL, NULL, -EACCES, false },
	{ "POST", "/org/other.git%252fgit-%2572eceive-pack", NULL, NULL, -EACCES, false },
	{ "POST", "/org/other.git/alias", TYPE, NULL, -EACCES, false },
	{ "POST", "/org/other.git/alias", "text/plain, APPLICATION/X-Git-Receive-Pack-Request",
	  NULL, -EACCES, false },
	{ "PROPFIND", "/org/other.git/", NULL, NULL, -EACCES, false },
	{ "LOCK", "/org/other/refs/heads/main", NULL, NULL, -EACCES, false },
	{ "PUT", "/org/other.git/refs/heads/main", NULL, NULL, -EACCES, false },
	{ "PUT", "/api/v4/projects/org%2Frepo/issues", NULL, NULL, 0, false },
	{ "GET", "/api/v4/projects/org%2Frepo", NULL, NULL, 0, false },
	{ "GET", "/search?q=git-receive-pack", NULL, NULL, 0, false },
};

START_TEST(which_requests)
{
	int result = prepare(requests[_i].method, requests[_i].path, requests[_i].type,
			     requests[_i].coding);

	ck_assert_msg(result == requests[_i].result, "%s %s: %d", requests[_i].method,
		      requests[_i].path, result);
	ck_assert_msg((filter != NULL) == requests[_i].is_push, "%s", requests[_i].path);
	if (result == 0)
		return;
	ck_assert_str_eq(verdict.reason, "push_not_allowed");
	ck_assert_str_eq(verdict.rule, "p:7 host git.example");
	ck_assert_str_ne(verdict.hint, "");
}
END_TEST

START_TEST(hosts_that_do_not_limit_pushes)
{
	teardown();
	filter = NULL;
	head = http_head_new();
	load("");
	for (size_t i = 0; i < ARRAY_LENGTH(requests); i++) {
		ck_assert_int_eq(prepare(requests[i].method, requests[i].path, requests[i].type,
					 requests[i].coding),
				 0);
		ck_assert_ptr_null(filter);
	}
	ck_assert_int_eq(git_push_prepare(NULL, head, &filter, &verdict), 0);
}
END_TEST

/* ---- lists ----------------------------------------------------------------------------------- */

static char body[GIT_PUSH_LIST_MAX * 2];
static size_t body_length;

static void add(const char *data, size_t length)
{
	memcpy(body + body_length, data, length);
	body_length += length;
}

static void add_packet(const char *text, size_t length)
{
	char header[8];

	snprintf(header, sizeof(header), "%04zx", length + 4);
	add(header, 4);
	add(text, length);
}

/* Feeds the body in pieces of `step` bytes; the result of the last feed. */
static int push_in(size_t step)
{
	int result = 0;

	ck_assert_int_eq(prepare("POST", "/org/repo.git/git-receive-pack", TYPE, NULL), 0);
	byte_buffer_release(&out);
	for (size_t i = 0; i < body_length && result == 0; i += step) {
		size_t length = MIN_OF(step, body_length - i);

		result = filter->feed(filter, (const uint8_t *)body + i, length,
				      i + length == body_length, &out);
	}
	if (result == 0) {
		ck_assert_uint_eq(byte_buffer_length(&out), body_length);
		ck_assert(memcmp(byte_buffer_front(&out), body, body_length) == 0);
	} else {
		/* Nothing of a push that is refused leaves. */
		ck_assert_uint_eq(byte_buffer_length(&out), 0);
		ck_assert_str_eq(git_push_verdict(filter)->reason, "push_not_allowed");
		ck_assert_str_ne(git_push_verdict(filter)->hint, "");
	}
	return result;
}

static int push(void)
{
	int result = push_in(SIZE_MAX);

	for (size_t step = 1; step < 12; step++)
		ck_assert_int_eq(push_in(step), result);
	body_length = 0;
	return result;
}

#define COMMAND(ref) OLD " " NEW " " ref
#define ADD(text) add_packet(text, sizeof(text) - 1)

START_TEST(allowed_lists)
{
	ADD(COMMAND("refs/heads/agent/x") "\0 report-status side-band-64k agent=git/2.39");
	add("0000PACK....0000 anything\0\xff", 26);
	ck_assert_int_eq(push(), 0);
	ADD(COMMAND("refs/heads/agent/x") "\0 report-status\n");
	ADD(NEW " " OLD " refs/heads/agent/y\n");
	add("0000", 4);
	ck_assert_int_eq(push(), 0);
	ADD("shallow " NEW "\n");
	ADD(NEW256 " " NEW256 " refs/heads/agent/x\0 object-format=sha256");
	add("0000", 4);
	ck_assert_int_eq(push(), 0);
	/* By which git finds out whether it must authenticate. */
	add("0000", 4);
	ck_assert_int_eq(push(), 0);
}
END_TEST

static const struct {
	const char *text;
	size_t length;
} refused[] = {
#define REFUSED(text)                                                                              \
	{                                                                                          \
		text, sizeof(text) - 1                                                             \
	}
	REFUSED(COMMAND("refs/heads/main")),
	REFUSED(COMMAND("refs/heads/main") "\0refs/heads/agent/x"),
	REFUSED(COMMAND("refs/heads/agent/x/y")),
	REFUSED(COMMAND("refs/heads/agent/")),
	REFUSED(COMMAND("refs/heads/agent/..")),
	REFUSED(COMMAND("refs/heads/agent/x y")),
	REFUSED(COMMAND("refs/heads/agent/x\n\n")),
	REFUSED(COMMAND("refs/heads/agent/x\nrefs/heads/main")),
	REFUSED(COMMAND("refs/heads/agent/*")),
	REFUSED(COMMAND("HEAD")),
	REFUSED(COMMAND("")),
	REFUSED(OLD "  " NEW " refs/heads/agent/x"),
	REFUSED(OLD " " NEW256 " refs/heads/agent/x"),
	REFUSED("0 1 refs/heads/agent/x"),
	REFUSED("push-cert\0 report-status"),
	REFUSED("version 1"),
	REFUSED("\n"),
	REFUSED("\0"),
};

START_TEST(refused_lists)
{
	/* Alone, behind an allowed one, and before one. */
	add_packet(refused[_i].text, refused[_i].length);
	add("0000PACK", 8);
	ck_assert_int_eq(push(), -EACCES);
	ADD(COMMAND("refs/heads/agent/x") "\0 report-status");
	add_packet(refused[_i].text, refused[_i].length);
	add("0000PACK", 8);
	ck_assert_int_eq(push(), -EACCES);
	add_packet(refused[_i].text, refused[_i].length);
	ADD(COMMAND("refs/heads/agent/x"));
	add("0000PACK", 8);
	ck_assert_int_eq(push(), -EACCES);
}
END_TEST

START_TEST(malformed_packets)
{
	static const char *const texts[] = {
		"0001", "0002", "0003", "0004", "zzzz",	   "-001",
		"0x01", "000",	"PACK", "ffff", "0009abc",
	};

	for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
		add(texts[i], strlen(texts[i]));
		ck_assert_int_eq(push(), -EACCES);
	}
	/* The end comes before the list's. */
	ADD(COMMAND("refs/heads/agent/x"));
	ck_assert_int_eq(push(), -EACCES);
}
END_TEST

START_TEST(too_long_a_list)
{
	while (body_length <= GIT_PUSH_LIST_MAX)
		ADD(COMMAND("refs/heads/agent/x"));
	add("0000", 4);
	ck_assert_int_eq(push(), -EACCES);
	ck_assert_ptr_nonnull(strstr(git_push_verdict(filter)->hint, "too many refs"));
}
END_TEST

START_TEST(a_full_outlet)
{
	ADD(COMMAND("refs/heads/agent/x"));
	add("0000PACK", 8);
	ck_assert_int_eq(prepare("POST", "/org/repo.git/git-receive-pack", TYPE, NULL), 0);
	byte_buffer_release(&out);
	byte_buffer_init(&out, body_length - 1);
	ck_assert_int_eq(filter->feed(filter, (uint8_t *)body, body_length, true, &out), -ENOBUFS);
	byte_buffer_init(&out, body_length);
	ck_assert_int_eq(filter->feed(filter, (uint8_t *)body, body_length, true, &out), 0);
	ck_assert_uint_eq(byte_buffer_length(&out), body_length);
	ck_assert_int_eq(filter->feed(filter, (uint8_t *)body, 1, true, &out), -ENOBUFS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("git_push");
	TCase *tests = tcase_create("push");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_loop_test(tests, which_requests, 0, ARRAY_LENGTH(requests));
	tcase_add_test(tests, hosts_that_do_not_limit_pushes);
	tcase_add_test(tests, allowed_lists);
	tcase_add_loop_test(tests, refused_lists, 0, ARRAY_LENGTH(refused));
	tcase_add_test(tests, malformed_packets);
	tcase_add_test(tests, too_long_a_list);
	tcase_add_test(tests, a_full_outlet);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
