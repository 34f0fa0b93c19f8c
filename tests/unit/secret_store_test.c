/* proxy/secret_store.h: secrets come out of a bundle with their hosts, and are found by both
 * automata. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proxy/secret_forms.h"
#include "tests/unit/secret_fixture.h"

#define VALUE "sk-ant-api03-AbC012def345Ghi"

static const struct fixture_secret usual[] = {
	{ .name = "KEY", .value = VALUE, .host = "api.example.com" },
	{ .name = "WILD", .value = "wildcard-0123456789", .host = "*.example.com:8443" },
	{ .name = "ANY", .value = "any-port-0123456789", .host = "any.example.org:0" },
	{ .name = "DECOY", .value = "ghp_0123456789abcdefghij", .kind = SECRET_CANARY },
};

static struct secret_store *store;
static uint8_t block[SECRET_BUNDLE_MAX];
static char problem[SECRET_PROBLEM_MAX];

static void build(void)
{
	store = fixture_store(usual, ARRAY_LENGTH(usual));
	ck_assert_ptr_nonnull(store);
}

static void tear_down(void)
{
	secret_store_free(store);
}

/* Which of the secrets a host may have, one bit each. */
static unsigned bound(const char *name, uint16_t port)
{
	struct host_name host;
	struct secret_set set;

	ck_assert_int_eq(host_name_parse(name, strlen(name), &host), 0);
	secret_store_bound(store, &host, port, &set);
	return (unsigned)set.words[0];
}

START_TEST(each_goes_to_its_hosts_and_ports)
{
	ck_assert_uint_eq(bound("api.example.com", 443), 1);
	ck_assert_uint_eq(bound("api.example.com", 80), 0);
	ck_assert_uint_eq(bound("api.example.com", 8443), 2);
	ck_assert_uint_eq(bound("a.b.example.com", 8443), 2);
	ck_assert_uint_eq(bound("example.com", 8443), 0);
	ck_assert_uint_eq(bound("notexample.com", 8443), 0);
	ck_assert_uint_eq(bound("any.example.org", 1), 4);
	ck_assert_uint_eq(bound("any.example.org", 443), 4);
	ck_assert_uint_eq(bound("evil.test", 443), 0);
}
END_TEST

/* The index whose text the automaton finds at the end of `text`, or -1. */
static int find(const struct byte_automaton *automaton, const char *text)
{
	uint32_t state = BYTE_AUTOMATON_START;
	uint32_t tag;
	size_t length;

	for (; *text; text++)
		state = byte_automaton_step(automaton, state, (uint8_t)*text);
	if (!byte_automaton_match(automaton, &state, &tag, &length))
		return -1;
	return (int)(tag / SECRET_FORM_COUNT);
}

START_TEST(values_and_placeholders_are_found)
{
	const struct secret *key = secret_store_get(store, 0);
	const struct secret *decoy = secret_store_get(store, 3);

	ck_assert_uint_eq(secret_store_count(store), 4);
	ck_assert_str_eq(key->name, "KEY");
	ck_assert_uint_eq(key->kept, strlen("sk-ant-api03-"));
	ck_assert_uint_eq(strlen(key->placeholder), strlen(VALUE));
	ck_assert_mem_eq(key->value, VALUE, strlen(VALUE));
	ck_assert_int_eq(find(secret_store_value_finder(store), VALUE), 0);
	ck_assert_int_eq(find(secret_store_value_finder(store), &usual[0].value[key->kept]), 0);
	ck_assert_int_eq(find(secret_store_value_finder(store), key->placeholder), -1);
	ck_assert_int_eq(find(secret_store_placeholder_finder(store), key->placeholder), 0);
	ck_assert_int_eq(find(secret_store_placeholder_finder(store), VALUE), -1);
	ck_assert_ptr_null(decoy->value);
	ck_assert_int_eq(find(secret_store_placeholder_finder(store), decoy->placeholder), 3);
	ck_assert_int_eq(find(secret_store_value_finder(store), usual[3].value), -1);
}
END_TEST

START_TEST(a_memfd_is_read_whole)
{
	size_t length = fixture_bundle(usual, ARRAY_LENGTH(usual), block, sizeof(block));
	int fd = memfd_create("bundle", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct secret_store *other;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, block, length), (ssize_t)length);
	ck_assert_int_eq(secret_store_read(fd, &other, problem), 0);
	ck_assert_uint_eq(secret_store_count(other), 4);
	secret_store_free(other);
	ck_assert_int_eq(ftruncate(fd, (off_t)length - 1), 0);
	ck_assert_int_eq(secret_store_read(fd, &other, problem), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(problem, "damaged"));
	ck_assert_int_eq(ftruncate(fd, SECRET_BUNDLE_MAX + 1), 0);
	ck_assert_int_eq(secret_store_read(fd, &other, problem), -EBADMSG);
	close(fd);
	ck_assert_int_eq(secret_store_read(-1, &other, problem), -EBADF);
}
END_TEST

START_TEST(a_value_without_a_safe_placeholder_is_named_and_not_quoted)
{
	static const struct fixture_secret unsafe[] = {
		{ .name = "GOOD", .value = VALUE, .host = "a.test" },
		{ .name = "DOTS", .value = "....ab.....", .host = "a.test" },
	};
	size_t length = fixture_bundle(unsafe, 2, block, sizeof(block));
	struct secret_store *other;

	ck_assert_int_eq(secret_store_new(block, length, &other, problem), -EINVAL);
	ck_assert_ptr_nonnull(strstr(problem, "DOTS"));
	ck_assert_ptr_null(strstr(problem, "....ab"));
}
END_TEST

START_TEST(a_captured_token_has_its_parents_hosts)
{
	static const char token[] = "ya29.abcdefghijklmnop";
	size_t index = 99;
	size_t again = 98;

	ck_assert_int_eq(
		secret_store_capture(store, 0, "access_token", token, strlen(token), &index), 0);
	ck_assert_uint_eq(index, 4);
	ck_assert_str_eq(secret_store_get(store, 4)->name, "KEY/access_token");
	ck_assert_uint_eq(bound("api.example.com", 443), 1 | 16);
	ck_assert_int_eq(find(secret_store_value_finder(store), token), 4);
	ck_assert_int_eq(find(secret_store_value_finder(store), VALUE), 0);
	ck_assert_int_eq(find(secret_store_placeholder_finder(store),
			      secret_store_get(store, 4)->placeholder),
			 4);
	/* The same again is the same; a child's child has the hosts of the first. */
	ck_assert_int_eq(
		secret_store_capture(store, 0, "access_token", token, strlen(token), &again), 0);
	ck_assert_uint_eq(again, 4);
	ck_assert_int_eq(
		secret_store_capture(store, 4, "refresh_token", "1//abcdefghijkl", 15, &index), 0);
	ck_assert_str_eq(secret_store_get(store, index)->name, "KEY/refresh_token");
	ck_assert_uint_eq(bound("api.example.com", 443), 1 | 16 | 32);
	ck_assert_int_eq(secret_store_capture(store, 0, "x", "short", 5, &index), -EINVAL);
	ck_assert_int_eq(secret_store_capture(store, 0, "x", "line\nbreak", 10, &index), -EINVAL);
}
END_TEST

START_TEST(the_store_has_an_end)
{
	int error = 0;
	size_t index;
	char token[32];
	unsigned count = 0;

	while (error == 0 && count < 300) {
		snprintf(token, sizeof(token), "token-abcdef-%04u", count++);
		error = secret_store_capture(store, 0, "t", token, strlen(token), &index);
	}
	ck_assert_int_eq(error, -ENOSPC);
	ck_assert_uint_eq(secret_store_count(store), SECRET_STORE_MAX);
}
END_TEST

START_TEST(keys_of_aws_belong_together_by_name)
{
	static const struct fixture_secret keys[] = {
		{ .name = "A_AWS_ACCESS_KEY_ID",
		  .value = "AKIAIOSFODNN7EXAMPLE",
		  .host = "a.test",
		  .kind = SECRET_AWS_ACCESS_KEY_ID },
		{ .name = "AWS_SECRET_ACCESS_KEY",
		  .value = "wJalrXUtnFEMI/K7MDENG+x",
		  .host = "a.test",
		  .kind = SECRET_AWS_SECRET_ACCESS_KEY },
		{ .name = "A_AWS_SECRET_ACCESS_KEY",
		  .value = "xJalrXUtnFEMI/K7MDENG+x",
		  .host = "a.test",
		  .kind = SECRET_AWS_SECRET_ACCESS_KEY },
		{ .name = "B_AWS_ACCESS_KEY_ID",
		  .value = "AKIAIOSFODNN7EXAMPLF",
		  .host = "a.test",
		  .kind = SECRET_AWS_ACCESS_KEY_ID },
	};
	struct secret_store *aws = fixture_store(keys, ARRAY_LENGTH(keys));
	size_t key = 99;

	ck_assert_ptr_nonnull(aws);
	ck_assert(secret_store_aws_pair(aws, 0, &key));
	ck_assert_uint_eq(key, 2);
	ck_assert(!secret_store_aws_pair(aws, 3, &key));
	secret_store_free(aws);
}
END_TEST

START_TEST(an_empty_store_finds_nothing)
{
	struct secret_store *empty = fixture_store(NULL, 0);

	ck_assert_ptr_nonnull(empty);
	ck_assert_int_eq(find(secret_store_value_finder(empty), VALUE), -1);
	secret_store_free(empty);
	secret_store_free(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("secret_store");
	TCase *tests = tcase_create("secret_store");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, build, tear_down);
	tcase_add_test(tests, each_goes_to_its_hosts_and_ports);
	tcase_add_test(tests, values_and_placeholders_are_found);
	tcase_add_test(tests, a_memfd_is_read_whole);
	tcase_add_test(tests, a_value_without_a_safe_placeholder_is_named_and_not_quoted);
	tcase_add_test(tests, a_captured_token_has_its_parents_hosts);
	tcase_add_test(tests, the_store_has_an_end);
	tcase_add_test(tests, keys_of_aws_belong_together_by_name);
	tcase_add_test(tests, an_empty_store_finds_nothing);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
