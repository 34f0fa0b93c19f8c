/* The file server's configuration: single files and rules in it, and that a project's rules take
 * away and never give. */
#include "base/checked.h"
#include "fsserver/config.h"
#include "fsserver/policy.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* One export with these members besides the needed ones. */
static int read_export(const char *members, struct config **ret_config,
		       char error[static CONFIG_ERROR_MAX])
{
	char text[1024];
	int fd = memfd_create("config", MFD_CLOEXEC);
	int length = snprintf(text, sizeof(text),
			      "{\"session\": \"s\", \"uid\": 1, \"gid\": 1, \"exports\": [{\"id\": "
			      "1, \"name\": \"n\", \"path\": \"/x\", \"profile\": \"mount\"%s}]}",
			      members);
	int result;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, (size_t)length), length);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	result = config_read(fd, ret_config, error);
	close(fd);
	return result;
}

START_TEST(file_and_rules)
{
	char error[CONFIG_ERROR_MAX] = "";
	struct config *config;

	ck_assert_msg(read_export(", \"file\": \"a b\", \"rules\": [{\"list\": \"deny\", "
				  "\"pattern\": \"*.pem\", \"where\": \"p:3\"}]",
				  &config, error) == 0,
		      "%s", error);
	ck_assert_str_eq(config->exports[0].file, "a b");
	ck_assert_uint_eq(config->exports[0].rule_count, 1);
	ck_assert_str_eq(config->exports[0].rules[0].pattern, "*.pem");
	ck_assert_str_eq(config->exports[0].rules[0].where, "p:3");
	config_free(config);
}
END_TEST

static const char *const refused[] = {
	", \"file\": \"\"",
	", \"file\": \".\"",
	", \"file\": \"..\"",
	", \"file\": \"a/b\"",
	", \"file\": \"/a\"",
	", \"file\": 1",
	", \"file\": \"a\", \"cross_mounts\": true",
	", \"file\": \"a\", \"read_only\": true, \"immutable\": true",
	", \"rules\": {}",
	", \"rules\": [1]",
	", \"rules\": [{\"list\": \"allow\", \"pattern\": \"x\", \"where\": \"p:1\"}]",
	", \"rules\": [{\"list\": \"deny\", \"pattern\": \"x\"}]",
	", \"rules\": [{\"list\": \"deny\", \"pattern\": \"\", \"where\": \"p:1\"}]",
	", \"rules\": [{\"list\": \"deny\", \"pattern\": \"x\", \"where\": \"p\", \"more\": 1}]",
};

START_TEST(refusals)
{
	char error[CONFIG_ERROR_MAX] = "";
	struct config *config;

	ck_assert_int_lt(read_export(refused[_i], &config, error), 0);
	ck_assert_ptr_nonnull(strstr(error, "exports[0]"));
}
END_TEST

static struct policy *load(const struct policy_extra_rule *rules, size_t count)
{
	static const char *const allowed[] = { "/.vscode/tasks.json", "/docs/**" };
	const struct policy_options options = {
		.profile = POLICY_PROFILE_WORKSPACE,
		.policy_fd = -1,
		.extra_allow = allowed,
		.extra_allow_count = ARRAY_LENGTH(allowed),
		.extra_rules = rules,
		.extra_rule_count = count,
		.export_path = "/w",
	};
	struct policy *policy = NULL;
	char error[256];

	ck_assert_msg(policy_load(&options, &policy, error, sizeof(error)) == 0, "%s", error);
	return policy;
}

START_TEST(rules_take_away)
{
	static const struct policy_extra_rule rules[] = {
		{ "readonly", "/docs", ".matchlock.yaml:3" },
		{ "readonly", "/.vscode", ".matchlock.yaml:4" },
		{ "hide", "private", ".matchlock.yaml:5" },
	};
	struct policy *without = load(NULL, 0);
	struct policy *with = load(rules, ARRAY_LENGTH(rules));
	struct policy_verdict verdict;

	ck_assert_str_eq(policy_name(without), "built-in");
	ck_assert_str_eq(policy_name(with), "built-in + .matchlock.yaml");
	ck_assert_str_ne(policy_hash(without), policy_hash(with));
	policy_judge(without, POLICY_WRITE, ".vscode/tasks.json", S_IFREG, &verdict);
	ck_assert(verdict.allowed);
	/* No allow opens it, and that is told. */
	policy_judge(with, POLICY_WRITE, ".vscode/tasks.json", S_IFREG, &verdict);
	ck_assert(!verdict.allowed && verdict.final);
	ck_assert_str_eq(verdict.rule, ".matchlock.yaml:4 readonly /.vscode");
	policy_judge(with, POLICY_WRITE, "docs/page", S_IFREG, &verdict);
	ck_assert(!verdict.allowed && verdict.final);
	policy_judge(with, POLICY_READ, "docs/page", S_IFREG, &verdict);
	ck_assert(verdict.allowed);
	policy_judge(with, POLICY_READ, "a/private/b", S_IFREG, &verdict);
	ck_assert(!verdict.allowed && verdict.hidden);
	/* What is built in can be opened. */
	policy_judge(with, POLICY_WRITE, ".envrc", S_IFREG, &verdict);
	ck_assert(!verdict.allowed && !verdict.final);
	policy_free(without);
	policy_free(with);
}
END_TEST

START_TEST(rules_that_give)
{
	static const struct policy_extra_rule rules[] = { { "allow", "/x", "p:1" } };
	const struct policy_options options = {
		.profile = POLICY_PROFILE_WORKSPACE,
		.policy_fd = -1,
		.extra_rules = rules,
		.extra_rule_count = 1,
		.export_path = "/w",
	};
	struct policy *policy = NULL;
	char error[256] = "";

	ck_assert_int_lt(policy_load(&options, &policy, error, sizeof(error)), 0);
	ck_assert_ptr_nonnull(strstr(error, "p:1"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fs_config");
	TCase *tests = tcase_create("config");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, file_and_rules);
	tcase_add_loop_test(tests, refusals, 0, ARRAY_LENGTH(refused));
	tcase_add_test(tests, rules_take_away);
	tcase_add_test(tests, rules_that_give);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
