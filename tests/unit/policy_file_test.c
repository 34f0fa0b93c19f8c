/*
 * The policy file: what is taken, which rule answers, and the message for each way to be malformed.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/policy.h"
#include "fsserver/policy_file.h"

static int text_fd(const char *text)
{
	int fd = memfd_create("policy", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static int try_load(const char *text, struct policy_options *options, struct policy **ret_policy,
		    char *error, size_t capacity)
{
	cleanup_fd int fd = text_fd(text);

	options->policy_fd = fd;
	options->policy_name = "policy.yaml";
	return policy_load(options, ret_policy, error, capacity);
}

static struct policy *load_text(const char *text)
{
	struct policy_options options = { .profile = POLICY_PROFILE_WORKSPACE };
	struct policy *policy = NULL;
	char error[512];

	ck_assert_msg(try_load(text, &options, &policy, error, sizeof(error)) == 0, "%s", error);
	return policy;
}

static const char *rule_of(const struct policy *policy, enum policy_access access, const char *path,
			   bool allowed)
{
	static char rule[256];
	struct policy_verdict verdict;

	policy_judge(policy, access, path, S_IFREG | 0644, &verdict);
	ck_assert_msg(verdict.allowed == allowed, "%s: %s", path,
		      verdict.rule != NULL ? verdict.rule : "allowed");
	snprintf(rule, sizeof(rule), "%s", verdict.rule != NULL ? verdict.rule : "");
	return rule;
}

START_TEST(each_list_does_what_it_says)
{
	struct policy *policy = load_text("# a comment\n"
					  "version: 1\n"
					  "name: team\n"
					  "deny:\n"
					  "  - secrets/**\n"
					  "  - \"*.pem\"\n"
					  "hide: [/private, '**/node_modules/.cache']\n"
					  "readonly:\n"
					  "  - /docs/**\n"
					  "  - LICENSE\n"
					  "allow:\n"
					  "  - /.vscode/settings.json\n"
					  "  - .npmrc\n"
					  "  - /secrets/public\n");
	struct policy_verdict verdict;

	ck_assert_str_eq(policy_name(policy), "team");
	ck_assert_str_eq(rule_of(policy, POLICY_READ, "secrets/a", false),
			 "policy.yaml:5 deny secrets/**");
	ck_assert_str_eq(rule_of(policy, POLICY_WRITE, "a/b/KEY.PEM", false),
			 "policy.yaml:6 deny *.pem");
	rule_of(policy, POLICY_READ, "sub/secrets/a", true);
	rule_of(policy, POLICY_READ, "secrets", true);
	policy_judge(policy, POLICY_CREATE_SYMLINK, "secrets", S_IFLNK, &verdict);
	ck_assert(!verdict.allowed);
	/* hide: to the guest it does not exist. */
	policy_judge(policy, POLICY_READ, "private/x", 0, &verdict);
	ck_assert(!verdict.allowed && verdict.hidden);
	ck_assert_str_eq(verdict.rule, "policy.yaml:7 hide /private");
	policy_judge(policy, POLICY_CREATE_FILE, "private", S_IFREG, &verdict);
	ck_assert(!verdict.allowed && verdict.hidden);
	rule_of(policy, POLICY_READ, "a/private", true);
	policy_judge(policy, POLICY_READ, "p/q/node_modules/.cache/x", 0, &verdict);
	ck_assert(verdict.hidden);
	/* readonly: read, not changed. */
	rule_of(policy, POLICY_READ, "docs/a", true);
	ck_assert_str_eq(rule_of(policy, POLICY_WRITE, "docs/a", false),
			 "policy.yaml:9 readonly /docs/**");
	rule_of(policy, POLICY_REMOVE, "x/LICENSE", false);
	ck_assert(policy_pins(policy, "docs", &verdict));
	/* allow: opens what it names and nothing beside it; the verdict says by which rule. */
	ck_assert_str_eq(rule_of(policy, POLICY_WRITE, ".vscode/settings.json", true),
			 "policy.yaml:12 allow /.vscode/settings.json");
	rule_of(policy, POLICY_WRITE, ".vscode/tasks.json", false);
	rule_of(policy, POLICY_WRITE, "sub/.vscode/settings.json", false);
	rule_of(policy, POLICY_WRITE, ".VSCODE/settings.json", false);
	rule_of(policy, POLICY_WRITE, "a/.npmrc", true);
	/* ... but not what the user denies. */
	rule_of(policy, POLICY_WRITE, "secrets/public", false);
	ck_assert(policy_may_hide_below(policy, "src"));
	policy_free(policy);
}
END_TEST

/* The network's rules are the broker's; here they only must not be in the way. */
START_TEST(egress_is_passed_over)
{
	struct policy *policy = load_text("version: 1\n"
					  "egress:\n"
					  "  - host: api.example.com\n"
					  "    secrets: [{name: KEY, paths: [\"/**\"]}]\n"
					  "    deny: [x]\n"
					  "canary: freeze\n"
					  "deny: [\"*.pem\"]\n");

	ck_assert_str_eq(rule_of(policy, POLICY_READ, "a.pem", false), "policy.yaml:7 deny *.pem");
	rule_of(policy, POLICY_READ, "x", true);
	policy_free(policy);
}
END_TEST

START_TEST(agent_instructions_open_in_one_line)
{
	struct policy *policy = load_text("version: 1\nprotect: {agent_instructions: false}\n");

	rule_of(policy, POLICY_WRITE, "AGENTS.md", true);
	rule_of(policy, POLICY_WRITE, "a/CLAUDE.md", true);
	rule_of(policy, POLICY_WRITE, "GEMINI.md", true);
	rule_of(policy, POLICY_WRITE, ".github/copilot-instructions.md", false);
	rule_of(policy, POLICY_WRITE, ".claude/settings.json", false);
	policy_free(policy);
	policy = load_text("version: 1\nprotect: {agent_instructions: true}\n");
	rule_of(policy, POLICY_WRITE, "AGENTS.md", false);
	policy_free(policy);
}
END_TEST

START_TEST(the_command_line_adds_rules)
{
	static const char *const allow[] = { "/.husky/**", "AGENTS.md" };
	static const char *const hide[] = { "build" };
	struct policy_options options = { .profile = POLICY_PROFILE_WORKSPACE,
					  .policy_fd = -1,
					  .extra_allow = allow,
					  .extra_allow_count = 2,
					  .extra_hide = hide,
					  .extra_hide_count = 1 };
	struct policy_options plain = { .profile = POLICY_PROFILE_WORKSPACE, .policy_fd = -1 };
	struct policy *policy = NULL;
	struct policy *other = NULL;
	char error[512];

	ck_assert_int_eq(policy_load(&options, &policy, error, sizeof(error)), 0);
	ck_assert_int_eq(policy_load(&plain, &other, error, sizeof(error)), 0);
	ck_assert_str_eq(policy_name(policy), "built-in");
	ck_assert_str_eq(rule_of(policy, POLICY_CREATE_FILE, ".husky/pre-commit", true),
			 "command line allow /.husky/**");
	rule_of(policy, POLICY_CREATE_FILE, "a/.husky/pre-commit", false);
	rule_of(policy, POLICY_READ, "x/build/y", false);
	ck_assert_uint_eq(policy_rule_count(policy), policy_rule_count(other) + 3);
	ck_assert_uint_eq(strlen(policy_hash(policy)), 64);
	ck_assert_str_ne(policy_hash(policy), policy_hash(other));
	policy_free(policy);
	policy_free(other);
}
END_TEST

START_TEST(the_hash_is_of_the_bytes)
{
	struct policy *first = load_text("version: 1\n");
	struct policy *same = load_text("version: 1\n");
	struct policy *other = load_text("version: 1\n#\n");

	ck_assert_str_eq(policy_hash(first), policy_hash(same));
	ck_assert_str_ne(policy_hash(first), policy_hash(other));
	policy_free(first);
	policy_free(same);
	policy_free(other);
}
END_TEST

START_TEST(a_read_only_export_refuses_changes)
{
	struct policy_options options = { .profile = POLICY_PROFILE_WORKSPACE,
					  .policy_fd = -1,
					  .read_only = true };
	struct policy *policy = NULL;
	char error[512];

	ck_assert_int_eq(policy_load(&options, &policy, error, sizeof(error)), 0);
	ck_assert_str_eq(rule_of(policy, POLICY_WRITE, "a", false), "export: read-only");
	rule_of(policy, POLICY_READ, "a", true);
	policy_free(policy);
}
END_TEST

static const struct {
	const char *text;
	const char *message; /* the beginning */
} malformed[] = {
	{ "", "policy.yaml:1: version: the file is empty" },
	{ "# nothing\n", "policy.yaml:1: version: the file is empty" },
	{ "deny: [a]\n", "policy.yaml:1: version: is missing" },
	{ "version: 2\n", "policy.yaml:1: version: this Matchlock reads version 1 only" },
	{ "version: one\n", "policy.yaml:1: version: " },
	{ "version: [1]\n", "policy.yaml:1: version: expected the number 1" },
	{ "version: 1\n\nalow: [a]\n", "policy.yaml:3: alow: unknown key; the keys are" },
	{ "version: 1\nDeny: [a]\n", "policy.yaml:2: Deny: unknown key" },
	{ "version: 1\ndeny: a\n", "policy.yaml:2: deny: expected a list" },
	{ "version: 1\ndeny:\n", "policy.yaml:2: deny: expected a list" },
	{ "version: 1\ndeny: {a: b}\n", "policy.yaml:2: deny: expected a list" },
	{ "version: 1\ndeny:\n  - a\n  - [b]\n", "policy.yaml:4: deny: each rule is one pattern" },
	{ "version: 1\ndeny:\n  - a\n  -\n", "policy.yaml:4: deny: an empty rule" },
	{ "version: 1\ndeny: [a]\nallow: [b]\ndeny: [c]\n",
	  "policy.yaml:4: deny: is given twice (first in line 2)" },
	{ "version: 1\ndeny: [&x a, *x]\n", "policy.yaml:2: deny: anchors" },
	{ "version: 1\ndeny: [*x]\n", "policy.yaml:2: deny: " },
	{ "version: 1\ndeny: [!!str a]\n", "policy.yaml:2: deny: anchors" },
	{ "version: 1\ndeny:\n  - a\n  - '!b'\n", "policy.yaml:4: deny: the pattern '!b' begins" },
	{ "version: 1\ndeny: ['a{b,c}']\n", "policy.yaml:2: deny: the pattern 'a{b,c}' braces" },
	{ "version: 1\ndeny: ['[a']\n", "policy.yaml:2: deny: the pattern '[a' a '[' has no ']'" },
	{ "version: 1\ndeny: ['a\\']\n", "policy.yaml:2: deny: the pattern 'a\\\\' ends in" },
	{ "version: 1\ndeny: ['../x']\n", "policy.yaml:2: deny: the pattern '../x' '.' and '..'" },
	{ "version: 1\ndeny: ['a//b']\n",
	  "policy.yaml:2: deny: the pattern 'a//b' holds an empty" },
	{ "version: 1\nhide: ['~/.ssh']\n", "policy.yaml:2: hide: the pattern '~/.ssh' begins" },
	{ "version: 1\ndeny: [\"a\\x01\"]\n", "policy.yaml:2: deny: the pattern 'a\\x01' holds a" },
	{ "version: 1\ndeny: [\"a\\0b\"]\n", "policy.yaml:2: deny: holds a NUL" },
	{ "version: 1\nprotect: false\n", "policy.yaml:2: protect: expected a mapping" },
	{ "version: 1\nprotect: {git: false}\n", "policy.yaml:2: protect.git: unknown key" },
	{ "version: 1\nprotect: {agent_instructions: maybe}\n",
	  "policy.yaml:2: protect.agent_instructions: expected true or false" },
	{ "version: 1\negress: x\n", "policy.yaml:2: egress: expected a list of rules" },
	{ "version: 1\ncanary: deny\ncanary: deny\n", "policy.yaml:3: canary: is given twice" },
	{ "version: 1\ncanary: [deny]\n", "policy.yaml:2: canary: " },
	{ "version: 1\negress: []\negress: []\n", "policy.yaml:3: egress: is given twice" },
	{ "version: 1\negress: [{host: &x a}]\n", "policy.yaml:2: egress: anchors" },
	{ "version: 1\negress: [[[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]]\n",
	  "policy.yaml:2: egress: is nested too deep" },
	{ "version: 1\nname: []\n", "policy.yaml:2: name: expected a short text" },
	{ "version: 1\nname: \"a\\eb\"\n", "policy.yaml:2: name: holds a control" },
	{ "version: 1\n\"k\\e[2J\": 1\n", "policy.yaml:2: k\\x1b[2J: unknown key" },
	{ "version: 1\ndeny: [\n", "policy.yaml:" },
	{ "version: 1\n\tdeny: x\n", "policy.yaml:2: " },
	{ "- a\n", "policy.yaml:1: expected keys with values" },
	{ "version: 1\n---\nversion: 1\n", "policy.yaml:2: expected one document only" },
	{ "version: 1\n? [a]\n: b\n", "policy.yaml:2: a key must be a plain word" },
	{ "version: 1\nname: \xff\xfe\n", "policy.yaml:" },
};

START_TEST(a_malformed_file_names_file_line_and_key)
{
	struct policy_options options = { .profile = POLICY_PROFILE_WORKSPACE };
	struct policy *policy = NULL;
	char error[512] = "";
	const char *expected = malformed[_i].message;

	ck_assert_int_eq(try_load(malformed[_i].text, &options, &policy, error, sizeof(error)),
			 -EINVAL);
	ck_assert_ptr_null(policy);
	ck_assert_msg(strncmp(error, expected, strlen(expected)) == 0, "'%s': '%s'",
		      malformed[_i].text, error);
}
END_TEST

START_TEST(limits_hold)
{
	struct policy_options options = { .profile = POLICY_PROFILE_WORKSPACE };
	struct policy *policy = NULL;
	cleanup_free char *text = malloc(POLICY_FILE_MAX + 1024);
	char error[512] = "";
	size_t used;

	/* Too many rules. */
	used = (size_t)snprintf(text, 64, "version: 1\ndeny:\n");
	for (unsigned i = 0; i <= POLICY_RULES_MAX; i++)
		used += (size_t)snprintf(text + used, 32, "  - a%u\n", i);
	ck_assert_int_eq(try_load(text, &options, &policy, error, sizeof(error)), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "more than 4096 rules"));
	/* A pattern too long. */
	used = (size_t)snprintf(text, 64, "version: 1\ndeny: [");
	memset(text + used, 'a', POLICY_PATTERN_MAX + 1);
	memcpy(text + used + POLICY_PATTERN_MAX + 1, "]\n", 3);
	ck_assert_int_eq(try_load(text, &options, &policy, error, sizeof(error)), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "policy.yaml:2: deny: a pattern of more than 1024"));
	/* A file too large. */
	memset(text, '#', POLICY_FILE_MAX + 1);
	text[POLICY_FILE_MAX + 1] = '\0';
	ck_assert_int_eq(try_load(text, &options, &policy, error, sizeof(error)), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error, "larger than"));
	/* Malformed on the command line. */
	static const char *const allow[] = { "[x" };
	struct policy_options extra = { .policy_fd = -1,
					.extra_allow = allow,
					.extra_allow_count = 1 };

	ck_assert_int_eq(policy_load(&extra, &policy, error, sizeof(error)), -EINVAL);
	ck_assert_str_eq(error, "command line: allow: the pattern '[x' a '[' has no ']'");
}
END_TEST

START_TEST(a_directory_for_a_file_is_an_error)
{
	struct policy_options options = { .policy_name = "d", .policy_fd = -1 };
	struct policy *policy = NULL;
	char error[512] = "";
	char directory[] = "/tmp/matchlock-policy-XXXXXX";
	cleanup_fd int fd = -1;

	ck_assert_ptr_nonnull(mkdtemp(directory));
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	options.policy_fd = fd;
	ck_assert_int_lt(policy_load(&options, &policy, error, sizeof(error)), 0);
	ck_assert_ptr_nonnull(strstr(error, "d: cannot be read"));
	rmdir(directory);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("policy_file");
	TCase *tcase = tcase_create("file");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, each_list_does_what_it_says);
	tcase_add_test(tcase, egress_is_passed_over);
	tcase_add_test(tcase, agent_instructions_open_in_one_line);
	tcase_add_test(tcase, the_command_line_adds_rules);
	tcase_add_test(tcase, the_hash_is_of_the_bytes);
	tcase_add_test(tcase, a_read_only_export_refuses_changes);
	tcase_add_loop_test(tcase, a_malformed_file_names_file_line_and_key, 0,
			    (int)ARRAY_LENGTH(malformed));
	tcase_add_test(tcase, limits_hold);
	tcase_add_test(tcase, a_directory_for_a_file_is_an_error);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
