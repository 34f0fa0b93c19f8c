/* config.yaml, .matchlock.yaml and the trust in it: what is read, what is refused, who wins. */
#include "base/checked.h"
#include "cli/options.h"
#include "cli/plan.h"
#include "cli/project_file.h"
#include "cli/project_trust.h"
#include "cli/remove_tree.h"
#include "cli/user_config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch[64];
static char config_path[128];
static struct paths paths;
static struct run_options options;
static struct problem problem;

static char *place(const char *name)
{
	return text_printf("%s/%s", scratch, name);
}

static void put(const char *name, const char *text)
{
	char *path = place(name);
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	fclose(file);
	ck_assert_int_eq(chmod(path, 0600), 0);
	free(path);
}

static void set_up(void)
{
	static const char *const folders[] = { ".config/matchlock", "project", "data" };

	snprintf(scratch, sizeof(scratch), "/tmp/cli-config-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	snprintf(config_path, sizeof(config_path), "%s/.config/matchlock/config.yaml", scratch);
	for (size_t i = 0; i < ARRAY_LENGTH(folders); i++) {
		char *path = place(folders[i]);

		ck_assert_int_eq(make_directories(path), 0);
		free(path);
	}
	setenv("HOME", scratch, 1);
	unsetenv("XDG_STATE_HOME");
	unsetenv("XDG_CACHE_HOME");
	unsetenv("XDG_CONFIG_HOME");
	ck_assert_int_eq(paths_find(&paths, &problem), 0);
	memset(&options, 0, sizeof(options));
}

static void tear_down(void)
{
	run_options_free(&options);
	paths_free(&paths);
	ck_assert_int_eq(remove_tree(scratch), 0);
}

/* Parses flags (@ for the scratch directory), then applies both files. */
static int parse(const char *line)
{
	struct text_list words = { 0 };
	char *copy = strdup(line);
	char *rest = copy;
	char *word;
	int result;

	text_list_add(&words, "run");
	while ((word = strsep(&rest, " "))) {
		if (*word == '@')
			text_list_take(&words, text_printf("%s%s", scratch, word + 1));
		else if (*word)
			text_list_add(&words, word);
	}
	text_list_add(&words, "--");
	text_list_add(&words, "true");
	run_options_free(&options);
	result = run_options_parse((int)words.count, words.items, &options, &problem);
	ck_assert_msg(result == 0, "%s", problem.text);
	if (user_config_apply(&options, &paths, &problem) < 0 ||
	    project_apply(&options, &paths, &problem) < 0)
		result = -1;
	text_list_free(&words);
	free(copy);
	return result;
}

#define PARSES(line) ck_assert_msg(parse(line) == 0, "%s", problem.text)

/* ---- config.yaml ---------------------------------------------------------------------------- */

static const char all_keys[] = "version: 1\n"
			       "engine: qemu\n"
			       "cpus: 3\n"
			       "memory: 512m\n"
			       "timeout: 5m\n"
			       "image: ~/data\n"
			       "policy: /etc/policy.yaml\n"
			       "user: nobody\n"
			       "rollback_on_exit: true\n"
			       "keep_on_success: true\n"
			       "quiet: true\n"
			       "volumes:\n"
			       "  - ~/data:/data:ro\n"
			       "  - /usr/share:/y\n"
			       "env: [A=config, B=config, C]\n";

START_TEST(config_sets_all)
{
	put(".config/matchlock/config.yaml", all_keys);
	PARSES("");
	ck_assert_str_eq(options.engine, "qemu");
	ck_assert_uint_eq(options.cpus, 3);
	ck_assert_uint_eq(options.memory_mib, 512);
	ck_assert_uint_eq(options.timeout_ms, 300000);
	ck_assert(strncmp(options.image, scratch, strlen(scratch)) == 0);
	ck_assert_str_eq(options.policy, "/etc/policy.yaml");
	ck_assert_str_eq(options.user, "nobody");
	ck_assert(options.rollback_on_exit && options.keep_on_success);
	ck_assert_int_eq(options.verbosity, RUN_QUIET);
	ck_assert_uint_eq(options.mount_count, 2);
	ck_assert_ptr_nonnull(strstr(options.mounts[0].where, "config.yaml:13"));
	ck_assert_uint_eq(options.environment_preset.count, 3);
	for (size_t i = 0; i < SETTING_COUNT; i++)
		ck_assert_int_eq(options.source[i], SOURCE_CONFIG);
}
END_TEST

START_TEST(flags_win)
{
	put(".config/matchlock/config.yaml", all_keys);
	PARSES("--engine kvm --cpus 1 --memory 1g --no-timeout --image host --no-policy -u 0 "
	       "--no-rollback-on-exit --no-keep-on-success --verbose -v @/project:/data -e A=flag");
	ck_assert_str_eq(options.engine, "kvm");
	ck_assert_uint_eq(options.cpus, 1);
	ck_assert_uint_eq(options.memory_mib, 1024);
	ck_assert_uint_eq(options.timeout_ms, 0);
	ck_assert_str_eq(options.image, "host");
	ck_assert_ptr_null(options.policy);
	ck_assert_str_eq(options.user, "0");
	ck_assert(!options.rollback_on_exit && !options.keep_on_success);
	ck_assert_int_eq(options.verbosity, RUN_VERBOSE);
	/* /data is the flag's; /y comes from the file. */
	ck_assert_uint_eq(options.mount_count, 2);
	ck_assert_ptr_null(options.mounts[0].where);
	ck_assert(!options.mounts[0].read_only);
	ck_assert_str_eq(options.mounts[1].guest, "/y");
	PARSES("--no-quiet");
	ck_assert_int_eq(options.verbosity, RUN_NORMAL);
	PARSES("--rollback-on-exit");
	ck_assert(options.rollback_on_exit && !options.keep_on_success);
	PARSES("--no-config");
	ck_assert_ptr_null(options.engine);
	ck_assert_uint_eq(options.mount_count, 0);
}
END_TEST

START_TEST(environment_adds_up)
{
	struct plan plan;
	size_t seen = 0;

	put(".config/matchlock/config.yaml", "version: 1\nenv: [A=config, B=config]\n");
	PARSES("-e A=flag");
	ck_assert_msg(plan_make(&options, &paths, &plan, &problem) == 0, "%s", problem.text);
	for (size_t i = 0; i < plan.environment.count; i++) {
		seen += strcmp(plan.environment.items[i], "A=flag") == 0;
		seen += strcmp(plan.environment.items[i], "B=config") == 0;
		ck_assert_str_ne(plan.environment.items[i], "A=config");
	}
	ck_assert_uint_eq(seen, 2);
	plan_free(&plan);
}
END_TEST

/* A wish of the file must not stop a session that it does not fit. */
START_TEST(wish_without_workspace)
{
	struct plan plan;

	put(".config/matchlock/config.yaml", "version: 1\nrollback_on_exit: true\n");
	PARSES("");
	ck_assert_msg(plan_make(&options, &paths, &plan, &problem) == 0, "%s", problem.text);
	plan_free(&plan);
}
END_TEST

static const struct {
	const char *text;
	const char *part;
} bad_configs[] = {
	{ "", "empty" },
	{ "engine: kvm\n", "version" },
	{ "version: 2\n", ":1: version" },
	{ "version: 1\nenigne: kvm\n", ":2: enigne: unknown key; did you mean engine?" },
	{ "version: 1\nfrobnicate: kvm\n", ":2: frobnicate: unknown key; see" },
	{ "version: 1\nengine: kvm\nengine: qemu\n", ":3: engine: is given twice" },
	{ "version: 1\nengine: xen\n", ":2: engine: write auto, kvm or qemu" },
	{ "version: 1\nmemory: 17\n", ":2: memory: write a number and a unit" },
	{ "version: 1\ncpus: 99\n", ":2: cpus: write a number from 1" },
	{ "version: 1\ntimeout: soon\n", ":2: timeout: write a duration" },
	{ "version: 1\nrollback_on_exit: yes\n", ":2: rollback_on_exit: expected true or false" },
	{ "version: 1\nvolumes: /a:/b\n", ":2: volumes: expected a list" },
	{ "version: 1\nvolumes:\n  - /a:/b\n  - data:/b\n", ":4: volumes: the host's path" },
	{ "version: 1\nvolumes: [\"/a\"]\n", ":2: volumes: write -v HOST:GUEST" },
	{ "version: 1\nenv: [\"=x\"]\n", ":2: env: write NAME=VALUE" },
	{ "version: 1\nenv: {A: b}\n", ":2: env: expected a list" },
	{ "version: 1\nenv: [{A: b}]\n", ":2: env: each item" },
	{ "version: 1\npolicy: policy.yaml\n", ":2: policy: the path must be absolute" },
	{ "version: 1\nworkspace: /\n", ":2: workspace: what a command may change" },
	{ "version: 1\nengine: &a kvm\n", "anchors" },
	{ "version: 1\nengine: *a\n", "aliases" },
	{ "version: 1\nengine: !!str kvm\n", "tags" },
	{ "version: 1\nengine:\n", ":2: engine: is empty" },
	{ "version: 1\n---\nversion: 1\n", "one document" },
	{ "version: 1\nengine: \"\n", "not YAML" },
	{ "- a\n", "keys with values" },
	{ "version: 1\n? [a]\n: b\n", "plain word" },
};

START_TEST(bad_config)
{
	put(".config/matchlock/config.yaml", bad_configs[_i].text);
	ck_assert_int_eq(parse(""), -1);
	ck_assert_int_eq(problem.status, STATUS_USAGE);
	ck_assert_msg(strstr(problem.text, config_path) == problem.text, "%s", problem.text);
	ck_assert_msg(strstr(problem.text, bad_configs[_i].part), "%s", problem.text);
	/* Also when a flag would win. */
	ck_assert_int_eq(parse("--engine qemu --cpus 1 --memory 1g"), -1);
	PARSES("--no-config");
}
END_TEST

START_TEST(whose_config)
{
	put(".config/matchlock/config.yaml", "version: 1\n");
	PARSES("");
	ck_assert_int_eq(chmod(config_path, 0664), 0);
	ck_assert_int_eq(parse(""), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "chmod go-w "));
	ck_assert_int_eq(chmod(config_path, 0602), 0);
	ck_assert_int_eq(parse(""), -1);
	ck_assert_int_eq(chmod(config_path, 0644), 0);
	PARSES("");
	if (geteuid() == 0) {
		ck_assert_int_eq(chown(config_path, 65534, 0), 0);
		ck_assert_int_eq(parse(""), -1);
		ck_assert_ptr_nonnull(strstr(problem.text, "chown "));
	}
}
END_TEST

START_TEST(named_config)
{
	put("data/other.yaml", "version: 1\ncpus: 5\n");
	put(".config/matchlock/config.yaml", "version: 1\ncpus: 3\n");
	PARSES("--config @/data/other.yaml");
	ck_assert_uint_eq(options.cpus, 5);
	ck_assert_int_eq(parse("--config @/data/missing.yaml"), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "missing.yaml: No such file"));
	ck_assert_int_eq(parse("--config @/data"), -1);
	ck_assert_int_eq(parse("--config @/data/other.yaml --no-config"), -1);
	ck_assert_int_eq(unlink(config_path), 0);
	PARSES("");
}
END_TEST

START_TEST(place_of_mistake)
{
	struct plan plan;

	put(".config/matchlock/config.yaml", "version: 1\nvolumes:\n  - ~/missing:/x\n");
	PARSES("");
	ck_assert_int_eq(plan_make(&options, &paths, &plan, &problem), -1);
	ck_assert_msg(strstr(problem.text, "config.yaml:3: volumes: "), "%s", problem.text);
	/* A file that the command could change is warned about. */
	put("data/own.yaml", "version: 1\n");
	PARSES("--workspace @/data --config @/data/own.yaml");
	ck_assert_int_eq(plan_make(&options, &paths, &plan, &problem), 0);
	ck_assert_uint_eq(plan.warnings.count, 1);
	ck_assert_ptr_nonnull(strstr(plan.warnings.items[0], "own.yaml"));
	plan_free(&plan);
}
END_TEST

/* ---- .matchlock.yaml ------------------------------------------------------------------------ */

static const char project_text[] = "version: 1\n"
				   "deny:\n"
				   "  - \"*.pem\"\n"
				   "  - /secrets/**\n"
				   "hide: [/private]\n"
				   "readonly: [docs]\n"
				   "network: none\n"
				   "memory: 512m\n"
				   "cpus: 1\n"
				   "timeout: 2m\n"
				   "rollback_on_exit: true\n";

static int trust_now(void)
{
	char *directory = place("project");
	struct project_bytes bytes;
	int result = project_bytes_read(directory, &bytes, &problem);

	if (result > 0) {
		result = trust_give(&paths, &bytes, &problem);
		project_bytes_free(&bytes);
	}
	free(directory);
	return result;
}

START_TEST(project_is_parsed)
{
	struct project_file file;

	ck_assert_int_eq(
		project_file_parse(project_text, strlen(project_text), "p", &file, &problem), 0);
	ck_assert_uint_eq(file.rule_count, 4);
	ck_assert_str_eq(file.rules[1].pattern, "/secrets/**");
	ck_assert_uint_eq(file.rules[1].line, 4);
	ck_assert_int_eq(file.rules[2].list, PROJECT_HIDE);
	ck_assert_int_eq(file.rules[3].list, PROJECT_READONLY);
	ck_assert(file.no_network && file.rollback_on_exit && !file.read_only);
	ck_assert_uint_eq(file.cpus, 1);
	ck_assert_uint_eq(file.memory_mib, 512);
	ck_assert_uint_eq(file.timeout_ms, 120000);
	project_file_free(&file);
}
END_TEST

static const struct {
	const char *text;
	const char *part;
} bad_projects[] = {
	{ "version: 1\nallow: [x]\n", "p:2: allow: a project's file may only take away" },
	{ "version: 1\nprotect: {agent_instructions: false}\n", "p:2: protect: " },
	{ "version: 1\nvolumes: [/:/x]\n", "p:2: volumes: a project's file may only take away" },
	{ "version: 1\nenv: [A=b]\n", "p:2: env: " },
	{ "version: 1\nimage: /\n", "p:2: image: " },
	{ "version: 1\nkeep_on_success: true\n", "p:2: keep_on_success: " },
	{ "version: 1\nrollback_on_exit: false\n", "p:2: rollback_on_exit: a project's" },
	{ "version: 1\nnetwork: all\n", "p:2: network: a project's" },
	{ "version: 1\nworkspace: writable\n", "p:2: workspace: a project's" },
	{ "version: 1\nmemory: 1\n", "p:2: memory: " },
	{ "version: 1\ncpus: -1\n", "p:2: cpus: " },
	{ "version: 1\ntimeout: 0\n", "p:2: timeout: " },
	{ "version: 1\ndeny: x\n", "p:2: deny: expected a list" },
	{ "version: 1\ndeny:\n  - x\n  - [y]\n", "p:4: deny: each item" },
	{ "version: 1\ndeny: [\"\"]\n", "p:2: deny: is empty" },
	{ "version: 1\ndeny: [\"a\\0b\"]\n", "p:2: deny: holds a NUL" },
	{ "version: 1\n\"de\\0ny\": [x]\n", "NUL" },
	{ "version: 1\n\"\\x1b[31m\": x\n", "\\x1b" },
	{ "version: 1\ndeny: &a [x]\n", "anchors" },
	{ "deny: [x]\n", "version: is missing" },
};

START_TEST(bad_project)
{
	struct project_file file;

	ck_assert_int_eq(project_file_parse(bad_projects[_i].text, strlen(bad_projects[_i].text),
					    "p", &file, &problem),
			 -1);
	ck_assert_msg(strstr(problem.text, bad_projects[_i].part), "%s", problem.text);
}
END_TEST

START_TEST(trust_is_asked_for)
{
	char *path;

	put("project/.matchlock.yaml", project_text);
	PARSES("--workspace @/project --cpus 4");
	ck_assert_ptr_null(options.project);
	ck_assert_uint_eq(options.cpus, 4);
	ck_assert_uint_eq(options.notices.count, 1);
	ck_assert_ptr_nonnull(strstr(options.notices.items[0], "is ignored"));
	ck_assert_ptr_nonnull(strstr(options.notices.items[0], "matchlock trust /"));

	ck_assert_int_eq(trust_now(), 0);
	PARSES("--workspace @/project --cpus 4 --memory 256m --keep-on-success");
	ck_assert_ptr_nonnull(options.project);
	ck_assert_uint_eq(options.notices.count, 0);
	ck_assert_uint_eq(options.cpus, 1);
	/* The smaller one holds, whose ever it is. */
	ck_assert_uint_eq(options.memory_mib, 256);
	ck_assert_uint_eq(options.timeout_ms, 120000);
	ck_assert(options.rollback_on_exit && !options.keep_on_success);
	PARSES("--workspace @/project --no-rollback-on-exit --timeout 30s");
	ck_assert(options.rollback_on_exit);
	ck_assert_uint_eq(options.timeout_ms, 30000);

	/* One byte more, and it is ignored again, even when it is no YAML any more. */
	put("project/.matchlock.yaml", "allow: [everything]\n");
	PARSES("--workspace @/project");
	ck_assert_ptr_null(options.project);
	ck_assert_ptr_nonnull(strstr(options.notices.items[0], "CHANGED"));
	put("project/.matchlock.yaml", project_text);
	PARSES("--workspace @/project");
	ck_assert_ptr_nonnull(options.project);
	ck_assert(!options.project_changed);
	path = place("project/.matchlock.yaml");
	ck_assert_int_eq(unlink(path), 0);
	free(path);
	PARSES("--workspace @/project");
	ck_assert(options.project_changed);
	ck_assert_ptr_nonnull(strstr(options.notices.items[0], "GONE"));
}
END_TEST

START_TEST(trust_is_taken_back)
{
	char *path = place("project/.matchlock.yaml");
	char *records = place(".local/state/matchlock/trust");
	struct trust_record *list;
	struct stat status;
	size_t count;

	put("project/.matchlock.yaml", project_text);
	ck_assert_int_eq(trust_now(), 0);
	ck_assert_int_eq(trust_now(), 0);
	ck_assert_int_eq(stat(records, &status), 0);
	ck_assert_uint_eq(status.st_mode & 0777, 0700);
	ck_assert_int_eq(trust_list(&paths, &list, &count, &problem), 0);
	ck_assert_uint_eq(count, 1);
	ck_assert_str_eq(list[0].path, path);
	trust_list_free(list, count);
	ck_assert_int_eq(trust_take_back(&paths, path, &problem), 1);
	ck_assert_int_eq(trust_take_back(&paths, path, &problem), 0);
	PARSES("--workspace @/project");
	ck_assert_ptr_null(options.project);
	free(records);
	free(path);
}
END_TEST

/* Trust is in one place: neither a copy nor a link of the file has it. */
START_TEST(trust_stays_in_place)
{
	char *path = place("project/.matchlock.yaml");
	char *link_path = place("data/.matchlock.yaml");

	put("project/.matchlock.yaml", project_text);
	ck_assert_int_eq(trust_now(), 0);
	put("data/.matchlock.yaml", project_text);
	PARSES("--workspace @/data");
	ck_assert_ptr_null(options.project);
	ck_assert_int_eq(unlink(link_path), 0);
	ck_assert_int_eq(symlink(path, link_path), 0);
	PARSES("--workspace @/data");
	ck_assert_ptr_null(options.project);
	ck_assert_ptr_nonnull(strstr(options.notices.items[0], "no regular file"));
	ck_assert_int_eq(unlink(link_path), 0);
	/* A FIFO holds nobody up. */
	ck_assert_int_eq(mkfifo(link_path, 0600), 0);
	PARSES("--workspace @/data");
	ck_assert_ptr_null(options.project);
	free(link_path);
	free(path);
}
END_TEST

START_TEST(damaged_record)
{
	char *record;
	struct trust_record *list;
	size_t count;

	put("project/.matchlock.yaml", project_text);
	ck_assert_int_eq(trust_now(), 0);
	record = text_printf("%s/.local/state/matchlock/trust/%064d.json", scratch, 0);
	put(record + strlen(scratch) + 1, "{\"version\": 1}");
	ck_assert_int_eq(trust_list(&paths, &list, &count, &problem), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "is no record"));
	free(record);
}
END_TEST

START_TEST(project_in_the_plan)
{
	struct plan plan;
	const struct plan_export *workspace;
	json_t *json;
	json_t *exported;
	json_t *rules;

	put("project/.matchlock.yaml", project_text);
	ck_assert_int_eq(trust_now(), 0);
	PARSES("--workspace @/project -v @/data:/data");
	ck_assert_msg(plan_make(&options, &paths, &plan, &problem) == 0, "%s", problem.text);
	json = plan_exports_json(&plan, &options, &paths, NULL);
	for (size_t i = 0; i < plan.export_count; i++) {
		exported = json_array_get(json_object_get(json, "exports"), i);
		rules = json_object_get(exported, "rules");
		ck_assert_int_eq(plan.exports[i].profile == PLAN_PROFILE_WORKSPACE, rules != NULL);
		if (!rules)
			continue;
		/* The file's, and one that holds the file itself. */
		ck_assert_uint_eq(json_array_size(rules), 5);
		ck_assert_str_eq(
			json_string_value(json_object_get(json_array_get(rules, 1), "where")),
			".matchlock.yaml:4");
	}
	json_decref(json);
	plan_free(&plan);

	put("project/.matchlock.yaml", "version: 1\nworkspace: readonly\n");
	ck_assert_int_eq(trust_now(), 0);
	PARSES("--workspace @/project --rollback-on-exit --allow-write x");
	ck_assert_msg(plan_make(&options, &paths, &plan, &problem) == 0, "%s", problem.text);
	workspace = plan_workspace(&plan);
	ck_assert(workspace->read_only && !workspace->store);
	ck_assert(!plan_has_writable(&plan));
	plan_free(&plan);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cli_config");
	TCase *tests = tcase_create("config");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, config_sets_all);
	tcase_add_test(tests, flags_win);
	tcase_add_test(tests, environment_adds_up);
	tcase_add_test(tests, wish_without_workspace);
	tcase_add_loop_test(tests, bad_config, 0, ARRAY_LENGTH(bad_configs));
	tcase_add_test(tests, whose_config);
	tcase_add_test(tests, named_config);
	tcase_add_test(tests, place_of_mistake);
	tcase_add_test(tests, project_is_parsed);
	tcase_add_loop_test(tests, bad_project, 0, ARRAY_LENGTH(bad_projects));
	tcase_add_test(tests, trust_is_asked_for);
	tcase_add_test(tests, trust_is_taken_back);
	tcase_add_test(tests, trust_stays_in_place);
	tcase_add_test(tests, damaged_record);
	tcase_add_test(tests, project_in_the_plan);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
