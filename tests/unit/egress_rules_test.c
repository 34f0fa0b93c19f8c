/*
 * The egress rules of a policy file: what YAML they are read from, what the broker makes of them,
 * and the message for each way to be malformed.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "cli/egress_rules.h"
#include "proxy/proxy_config.h"

static const char whole[] = "version: 1\n"
			    "name: team\n"
			    "deny: [\"*.pem\"]\n"
			    "egress:\n"
			    "  - host: api.example.com\n"
			    "    ports: [443]\n"
			    "    methods: [GET, POST]\n"
			    "    paths: [/v1/**, \"/a b\"]\n"
			    "    require_headers:\n"
			    "      - {name: X-Team, value: \"17\"}\n"
			    "    deny_headers: [X-Admin]\n"
			    "    head_bytes_max: 16384\n"
			    "    body_bytes_max: 0\n"
			    "    response_bytes_max: 5000000000\n"
			    "    requests_max: 100\n"
			    "    bytes_max: 1000000\n"
			    "    secrets: [{name: KEY, methods: [GET], paths: [/v1/**]}]\n"
			    "    git_push: []\n"
			    "  - host: '*.example.org'\n"
			    "protect: {agent_instructions: false}\n";

/* As the broker gets them. */
static int configure(json_t *rules, struct proxy_config **ret_config, char *error)
{
	json_t *root = json_pack("{s:s, s:o}", "session", "s", "rules", rules);
	cleanup_free char *text = json_dumps(root, 0);

	json_decref(root);
	return proxy_config_parse(text, strlen(text), ret_config, error);
}

START_TEST(rules_reach_the_broker)
{
	char error[PROXY_CONFIG_ERROR_MAX];
	struct proxy_config *config;
	const struct egress_rule *rule;
	struct problem problem;
	struct egress_section section;

	ck_assert_int_eq(
		egress_rules_parse(whole, strlen(whole), "policy.yaml", &section, &problem), 0);
	ck_assert_uint_eq(json_array_size(section.rules), 2);
	ck_assert_int_eq(section.canary, CANARY_UNSAID);
	ck_assert_msg(configure(section.rules, &config, error) == 0, "%s", error);
	ck_assert_uint_eq(config->policy.rule_count, 2);
	rule = &config->policy.rules[0];
	ck_assert_str_eq(rule->where, "policy.yaml:5");
	ck_assert_str_eq(rule->host.name.text, "api.example.com");
	ck_assert_uint_eq(rule->ports[0], 443);
	ck_assert_uint_eq(rule->selector.methods.count, 2);
	ck_assert_uint_eq(rule->selector.path_count, 2);
	ck_assert_str_eq(rule->required[0].value, "17");
	ck_assert_uint_eq(rule->body_bytes_max, 0);
	ck_assert_uint_eq(rule->response_bytes_max, 5000000000);
	ck_assert_uint_eq(rule->requests_max, 100);
	ck_assert_str_eq(rule->bindings[0].secret, "KEY");
	ck_assert(rule->limits_pushes && rule->push_count == 0);
	ck_assert_str_eq(config->policy.rules[1].where, "policy.yaml:19");
	ck_assert(config->policy.rules[1].host.is_wildcard);
	ck_assert(!config->policy.rules[1].limits_pushes);
	proxy_config_free(config);
}
END_TEST

START_TEST(files_without_rules)
{
	static const char *const texts[] = { "version: 1\n", "version: 1\negress: []\n",
					     "version: 1\nallow:\n  - {a: [b, {c: d}]}\n" };
	struct problem problem;
	struct egress_section section;

	for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
		ck_assert_int_eq(
			egress_rules_parse(texts[i], strlen(texts[i]), "p", &section, &problem), 0);
		ck_assert_uint_eq(json_array_size(section.rules), 0);
		json_decref(section.rules);
	}
}
END_TEST

START_TEST(what_a_decoy_does)
{
	static const struct {
		const char *text;
		enum canary_action action;
	} files[] = { { "version: 1\ncanary: deny\n", CANARY_DENY },
		      { "canary: freeze\negress: []\nversion: 1\n", CANARY_FREEZE } };
	struct egress_section section;
	struct problem problem;

	for (size_t i = 0; i < ARRAY_LENGTH(files); i++) {
		ck_assert_int_eq(egress_rules_parse(files[i].text, strlen(files[i].text), "p",
						    &section, &problem),
				 0);
		ck_assert_int_eq(section.canary, files[i].action);
		json_decref(section.rules);
	}
}
END_TEST

static const struct {
	const char *text;
	const char *error;
} refused[] = {
	{ "", "p:1: expected a policy" },
	{ "a: [\n", "p:" },
	{ "- a\n", "p:1: expected keys with values" },
	{ "version: 1\negress: x\n", "p:2: expected a list of rules" },
	{ "version: 1\negress: {host: x}\n", "p:2: expected a list of rules" },
	{ "version: 1\negress:\n", "p:2: expected a list of rules" },
	{ "version: 1\negress: [x]\n", "p:2: egress: each rule is a mapping" },
	{ "version: 1\negress: [[x]]\n", "p:2: egress: each rule is a mapping" },
	{ "version: 1\negress: []\negress: []\n", "p:3: egress: is given twice" },
	{ "version: 1\negress:\n  - host: a\n    host: b\n", "p:4: host: is given twice" },
	{ "version: 1\negress:\n  - host: &x a\n", "p:3: anchors" },
	{ "version: 1\negress:\n  - host: *x\n", "p:3: " },
	{ "version: 1\negress:\n  - host: !!str a\n", "p:3: anchors" },
	{ "version: 1\negress: [{host: }]\n", "p:2: an empty value" },
	{ "version: 1\negress: [{host: null}]\n", "p:2: an empty value" },
	{ "version: 1\negress: [{host: ~}]\n", "p:2: an empty value" },
	{ "version: 1\negress: [{host: ''}]\n", "p:2: an empty value" },
	{ "version: 1\negress: [{host: \"a\\0b\"}]\n", "p:2: holds a NUL" },
	{ "version: 1\negress: [{\"a\\0b\": c}]\n", "p:2: a key must be" },
	{ "version: 1\negress: [{[a]: c}]\n", "p:2: a key must be" },
	{ "version: 1\negress: [{host: a, where: b}]\n", "p:2: where: unknown key" },
	{ "version: 1\negress: [{a: [[[[[[[[b]]]]]]]]}]\n", "p:2: is nested too deep" },
	{ "version: 1\negress: [{\"\\e\": a, \"\\e\": b}]\n", "p:2: \\x1b: is given twice" },
	{ "version: 1\n---\nversion: 1\n", "p:2: expected one document" },
	{ "version: 1\ncanary: maybe\n", "p:2: canary: must be deny or freeze" },
	{ "version: 1\ncanary: [freeze]\n", "p:2: expected canary: deny" },
	{ "canary: deny\ncanary: freeze\n", "p:2: canary: is given twice" },
};

START_TEST(malformed_files)
{
	struct problem problem;
	struct egress_section section;

	ck_assert_int_eq(egress_rules_parse(refused[_i].text, strlen(refused[_i].text), "p",
					    &section, &problem),
			 -1);
	ck_assert_msg(strncmp(problem.text, refused[_i].error, strlen(refused[_i].error)) == 0,
		      "%s", problem.text);
}
END_TEST

static const struct {
	const char *text;
	const char *error;
} bad_rules[] = {
	{ "egress: [{hots: a}]\n", "p:1: hots: unknown key" },
	{ "egress:\n  - host: a\n  - host: b\n    methods: GET\n", "p:3: methods: must be a list" },
	{ "egress: [{host: a, ports: [http]}]\n", "p:1: ports" },
	{ "egress: [{host: a, requests_max: 1k}]\n", "p:1: requests_max" },
	{ "egress: [{host: 17}]\n", "p:1: host" },
};

START_TEST(rules_that_the_broker_refuses)
{
	char error[PROXY_CONFIG_ERROR_MAX];
	struct proxy_config *config;
	struct problem problem;
	struct egress_section section;

	ck_assert_int_eq(egress_rules_parse(bad_rules[_i].text, strlen(bad_rules[_i].text), "p",
					    &section, &problem),
			 0);
	ck_assert_int_eq(configure(section.rules, &config, error), -EINVAL);
	ck_assert_msg(strstr(error, bad_rules[_i].error), "%s", error);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("egress_rules");
	TCase *tests = tcase_create("rules");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, rules_reach_the_broker);
	tcase_add_test(tests, files_without_rules);
	tcase_add_test(tests, what_a_decoy_does);
	tcase_add_loop_test(tests, malformed_files, 0, ARRAY_LENGTH(refused));
	tcase_add_loop_test(tests, rules_that_the_broker_refuses, 0, ARRAY_LENGTH(bad_rules));
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
