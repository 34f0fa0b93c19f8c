/* The plan: what is refused, what is warned about, where stores go; and the environment. */
#include "base/checked.h"
#include "cli/network_plan.h"
#include "cli/options.h"
#include "cli/plan.h"
#include "cli/remove_tree.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A scratch home: HOME/project, HOME/.ssh, HOME/data, state inside HOME/.local/state. */
static char scratch[64];
static struct paths paths;

static void make(const char *name)
{
	char *path = text_printf("%s/%s", scratch, name);

	ck_assert_int_eq(make_directories(path), 0);
	free(path);
}

static void put(const char *name, const char *text)
{
	char *path = text_printf("%s/%s", scratch, name);
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	fclose(file);
	free(path);
}

static void set_up(void)
{
	struct problem problem;

	snprintf(scratch, sizeof(scratch), "/tmp/cli-plan-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	make("project/.git/hooks");
	make(".ssh");
	make("data/inner");
	make(".local/state/matchlock");
	make(".config/matchlock");
	put("project/.git/config", "");
	put("data/file", "");
	put(".local/state/matchlock/x", "");
	put(".netrc", "");
	setenv("HOME", scratch, 1);
	unsetenv("XDG_STATE_HOME");
	unsetenv("XDG_CACHE_HOME");
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("XDG_RUNTIME_DIR");
	ck_assert_int_eq(paths_find(&paths, &problem), 0);
}

static void tear_down(void)
{
	paths_free(&paths);
	ck_assert_int_eq(remove_tree(scratch), 0);
}

/* Arguments of `run` in one string, @/ standing for the scratch directory, then "-- true". */
static int make_plan(const char *line, struct run_options *options, struct plan *plan,
		     struct problem *problem)
{
	struct text_list arguments = { 0 };
	char *copy = strdup(line);
	char *rest = copy;
	char *word;
	int result;

	text_list_add(&arguments, "run");
	while ((word = strsep(&rest, " "))) {
		char *at = strstr(word, "@/");

		if (*word == '\0')
			continue;
		if (at)
			text_list_take(&arguments, text_printf("%.*s%s%s", (int)(at - word), word,
							       scratch, at + 1));
		else
			text_list_add(&arguments, word);
	}
	text_list_add(&arguments, "--");
	text_list_add(&arguments, "true");
	result = run_options_parse((int)arguments.count, arguments.items, options, problem);
	ck_assert_msg(result == 0, "%s", problem->text);
	result = plan_make(options, &paths, plan, problem);
	if (result < 0)
		run_options_free(options);
	text_list_free(&arguments);
	free(copy);
	return result;
}

static bool holds(const struct text_list *list, const char *text)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->items[i], text) == 0)
			return true;
	}
	return false;
}

static const struct {
	const char *line;
	const char *part;
} refused[] = {
	{ "--workspace /", "no workspace" },
	{ "--workspace @/missing", "No such file" },
	{ "--workspace @/project/.git/hooks", ".git" },
	{ "--workspace @/project/.git", ".git" },
	{ "--workspace @/.local/state/matchlock", "state directory" },
	{ "--workspace @/.config/matchlock", "configuration" },
	{ "--workspace @/.local", "state directory" },
	{ "--workspace /proc/self", "kernel" },
	{ "--workspace /dev", "kernel" },
	{ "--rollback-on-exit", "--workspace" },
	{ "--keep-on-success", "--workspace" },
	{ "--allow-write x", "--workspace" },
	{ "--workspace @/project -v @/project:/y", "overlaps" },
	{ "--workspace @/project -v @/data:/y -v @/data/inner:/z", "overlaps" },
	{ "-v @/data:/y:ro -v @/project:/y:ro", "already mounted" },
	{ "-v volume:/y", "named volumes" },
	{ "-v @/data:/proc/x", "guest's kernel" },
	{ "-v /dev/null:/y", "neither a directory" },
	{ "-v @/.config/matchlock:/y", "configuration" },
	{ "-v @/data/inner/f:/y", "No such file" },
	{ "-v @/project/.git/config:/y", ".git" },
	{ "-v @/.local/state/matchlock/x:/y:ro", "state directory" },
	{ "-v @/data:/y -v @/data/file:/z", "overlaps" },
	{ "-v @/data/file:/dev/x", "guest's kernel" },
	{ "-u no-such-user-here", "no user" },
	{ "-u :x", "USER:GROUP" },
	{ "--policy @/missing.yaml", "No such file" },
	{ "--image @/missing", "No such file" },
	{ "--env-file @/missing", "--env-file" },
	{ "--secret KEY@a.test", "--allow-host" },
	{ "--canary", "--allow-host" },
	{ "--allow-host a.test --secret KEY@a.test -e KEY=1", "KEY is a secret" },
};

START_TEST(refusals)
{
	struct run_options options;
	struct problem problem = { 0 };
	struct plan plan;

	ck_assert_int_eq(make_plan(refused[_i].line, &options, &plan, &problem), -1);
	ck_assert_int_eq(problem.status, STATUS_USAGE);
	ck_assert_msg(strstr(problem.text, refused[_i].part), "%s", problem.text);
}
END_TEST

START_TEST(usual_plan)
{
	char *workspace = text_printf("%s/project", scratch);
	char *store = NULL;
	struct run_options options;
	struct problem problem;
	struct plan plan;

	ck_assert_int_eq(make_plan("--workspace @/project -w sub -v @/data:/zz:ro", &options, &plan,
				   &problem),
			 0);
	ck_assert_uint_eq(plan.export_count, 3);
	ck_assert_int_eq(plan.exports[0].profile, PLAN_PROFILE_IMAGE);
	ck_assert_uint_eq(plan.exports[0].id, PLAN_IMAGE_EXPORT);
	ck_assert_str_eq(plan.exports[1].guest, "/zz");
	ck_assert(plan.exports[1].read_only && !plan.exports[1].store);
	ck_assert_str_eq(plan_workspace(&plan)->guest, workspace);
	ck_assert(holds(&plan_workspace(&plan)->hide, "/.matchlock"));
	store = text_printf("%s/.local/state/matchlock/undo/%s/2", scratch, plan.id);
	ck_assert_str_eq(plan_workspace(&plan)->store, store);
	ck_assert(plan.home_is_empty);
	ck_assert(strlen(plan.cwd) > 4 && strcmp(plan.cwd + strlen(plan.cwd) - 4, "/sub") == 0);
	ck_assert_uint_eq(plan.warnings.count, 0);
	plan_free(&plan);
	run_options_free(&options);
	free(store);
	free(workspace);
}
END_TEST

START_TEST(single_file)
{
	char *host = text_printf("%s/.netrc", scratch);
	char *guest;
	struct run_options options;
	struct problem problem;
	struct plan plan;
	json_t *json;
	json_t *mount;

	ck_assert_int_eq(make_plan("--workspace @/project -v ~/.netrc:~/.netrc:ro -v "
				   "@/data/file:/etc/tool.conf",
				   &options, &plan, &problem),
			 0);
	ck_assert_uint_eq(plan.export_count, 4);
	ck_assert_str_eq(plan.exports[1].guest, "/etc/tool.conf");
	ck_assert_ptr_nonnull(plan.exports[1].store);
	guest = text_printf("%s/.netrc", plan.user.home);
	for (size_t i = 0; i < plan.export_count; i++) {
		const struct plan_export *export = &plan.exports[i];

		if (strcmp(export->host, host) != 0)
			continue;
		ck_assert_str_eq(export->guest, guest);
		ck_assert_str_eq(export->tree, scratch);
		ck_assert(export->read_only);
		ck_assert_uint_eq(export->hide.count, 0);
	}
	/* The home stays empty but for that file. */
	ck_assert(plan.home_is_empty);
	ck_assert_uint_eq(plan.warnings.count, 1);
	json = plan_exports_json(&plan, &options, &paths, NULL);
	mount = json_array_get(json_object_get(json, "exports"), 1);
	ck_assert_str_eq(json_string_value(json_object_get(mount, "file")), "file");
	json_decref(json);
	plan_free(&plan);
	run_options_free(&options);
	free(host);
	free(guest);
}
END_TEST

START_TEST(home_as_workspace)
{
	struct run_options options;
	struct problem problem;
	struct plan plan;
	char *store;

	ck_assert_int_eq(make_plan("--workspace @/.", &options, &plan, &problem), 0);
	ck_assert_uint_eq(plan.warnings.count, 1);
	ck_assert(!plan.home_is_empty);
	/* The state directory is inside: hidden, and no place for the store. */
	ck_assert(holds(&plan_workspace(&plan)->hide, "/.local/state/matchlock"));
	store = text_printf("%s/.matchlock/undo/%s/2", scratch, plan.id);
	ck_assert_str_eq(plan_workspace(&plan)->store, store);
	ck_assert(plan_workspace(&plan)->store_inside);
	free(store);
	plan_free(&plan);
	run_options_free(&options);
}
END_TEST

START_TEST(credentials_are_warned_about)
{
	struct run_options options;
	struct problem problem;
	struct plan plan;

	ck_assert_int_eq(make_plan("-v @/.ssh:/keys:ro", &options, &plan, &problem), 0);
	ck_assert_uint_eq(plan.warnings.count, 1);
	ck_assert_ptr_nonnull(strstr(plan.warnings.items[0], "credentials"));
	plan_free(&plan);
	run_options_free(&options);
}
END_TEST

START_TEST(hidden_names_are_exact)
{
	struct run_options options;
	struct problem problem;
	struct plan plan;
	char *state = text_printf("%s/da*ta[1]/state", scratch);

	make("da*ta[1]/state");
	setenv("XDG_STATE_HOME", state, 1);
	paths_free(&paths);
	ck_assert_int_eq(paths_find(&paths, &problem), 0);
	ck_assert_int_eq(make_plan("--workspace @/.", &options, &plan, &problem), 0);
	ck_assert(holds(&plan_workspace(&plan)->hide, "/da\\*ta\\[1\\]/state/matchlock"));
	plan_free(&plan);
	run_options_free(&options);
	free(state);
}
END_TEST

START_TEST(exports_file)
{
	struct run_options options;
	struct problem problem;
	struct plan plan;
	json_t *json;
	json_t *workspace;

	ck_assert_int_eq(make_plan("--workspace @/project --allow-write Makefile", &options, &plan,
				   &problem),
			 0);
	json = plan_exports_json(&plan, &options, &paths, NULL);
	ck_assert_ptr_nonnull(json);
	ck_assert_str_eq(json_string_value(json_object_get(json, "session")), plan.id);
	ck_assert_uint_eq(json_array_size(json_object_get(json, "exports")), 2);
	workspace = json_array_get(json_object_get(json, "exports"), 1);
	ck_assert_str_eq(json_string_value(json_object_get(workspace, "profile")), "workspace");
	ck_assert(json_is_false(json_object_get(workspace, "read_only")));
	ck_assert_ptr_nonnull(json_object_get(workspace, "undo_store"));
	ck_assert_uint_eq(json_array_size(json_object_get(workspace, "allow")), 1);
	ck_assert_ptr_null(json_object_get(workspace, "policy"));
	json_decref(json);
	plan_free(&plan);
	run_options_free(&options);
}
END_TEST

START_TEST(environment_is_clean)
{
	char *file = text_printf("%s/env", scratch);
	struct run_options options;
	struct problem problem;
	struct plan plan;
	FILE *out = fopen(file, "w");

	ck_assert_ptr_nonnull(out);
	fputs("# comment\n\n  FROM_FILE=one\r\nPASSED\nBOTH=file\n", out);
	fclose(out);
	setenv("SECRET_TOKEN", "hunter2", 1);
	setenv("PASSED", "on", 1);
	setenv("PATH", "/opt/tool/bin:relative:/usr/bin::.", 1);
	setenv("LC_TIME", "C", 1);
	ck_assert_int_eq(make_plan("--env-file @/env -e BOTH=flag -e MISSING_HERE -e EMPTY=",
				   &options, &plan, &problem),
			 0);
	ck_assert(holds(&plan.environment, "FROM_FILE=one"));
	ck_assert(holds(&plan.environment, "PASSED=on"));
	ck_assert(holds(&plan.environment, "BOTH=flag"));
	ck_assert(!holds(&plan.environment, "BOTH=file"));
	ck_assert(holds(&plan.environment, "EMPTY="));
	ck_assert(holds(&plan.environment, "LC_TIME=C"));
	ck_assert(holds(&plan.environment, "MATCHLOCK=1"));
	for (size_t i = 0; i < plan.environment.count; i++) {
		const char *entry = plan.environment.items[i];

		ck_assert_ptr_null(strstr(entry, "hunter2"));
		ck_assert(strncmp(entry, "MISSING_HERE", 12) != 0);
		ck_assert(strncmp(entry, "TERM=", 5) != 0);
		if (strncmp(entry, "PATH=", 5) == 0) {
			ck_assert_ptr_eq(strstr(entry, "/opt/tool/bin:"), entry + 5);
			ck_assert_ptr_null(strstr(entry, "relative"));
			ck_assert_ptr_null(strstr(entry, "::"));
		}
	}
	plan_free(&plan);
	run_options_free(&options);
	free(file);
}
END_TEST

START_TEST(user_of_the_image)
{
	char *file = text_printf("%s/data/etc/passwd", scratch);
	struct run_options options;
	struct problem problem;
	struct plan plan;
	FILE *out;

	make("data/etc");
	out = fopen(file, "w");
	ck_assert_ptr_nonnull(out);
	fputs("builder:x:4242:4243::/build:/bin/ash\n", out);
	fclose(out);
	ck_assert_int_eq(make_plan("--image @/data -u builder:7", &options, &plan, &problem), 0);
	ck_assert_uint_eq(plan.user.uid, 4242);
	ck_assert_uint_eq(plan.user.gid, 7);
	ck_assert_str_eq(plan.user.home, "/build");
	ck_assert_str_eq(plan.user.shell, "/bin/ash");
	plan_free(&plan);
	run_options_free(&options);
	free(file);
}
END_TEST

static json_t *broker_config(const char *line)
{
	struct run_options options;
	struct problem problem = { 0 };
	struct plan plan;
	json_t *json;

	ck_assert_msg(make_plan(line, &options, &plan, &problem) == 0, "%s", problem.text);
	ck_assert(plan.has_network);
	json = network_broker_json(&plan, &options);
	ck_assert_ptr_nonnull(json);
	plan_free(&plan);
	run_options_free(&options);
	return json;
}

START_TEST(a_network_is_planned)
{
	static const char wanted[] =
		"{\"add_host\":[{\"address\":\"10.0.0.5\",\"name\":\"a.test\"}],"
		"\"allow\":[\"a.test\",\"*.b.test\"],\"allow_all\":false,"
		"\"passthrough\":[\"c.test\"],\"upstream_proxy\":\"http://u:word@p:1\"}";
	json_t *json = broker_config("--allow-host a.test,*.b.test --passthrough c.test --add-host "
				     "a.test:10.0.0.5 --upstream-proxy http://u:word@p:1");
	char *text;

	ck_assert_uint_eq(strlen(json_string_value(json_object_get(json, "session"))),
			  SESSION_ID_LENGTH);
	json_object_del(json, "session");
	text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	ck_assert_str_eq(text, wanted);
	free(text);
	json_decref(json);
}
END_TEST

START_TEST(a_policy_can_give_a_network)
{
	struct run_options options;
	struct problem problem = { 0 };
	struct plan plan;
	json_t *json;

	put("policy.yaml", "version: 1\negress:\n  - host: a.test\n");
	put("none.yaml", "version: 1\n");
	json = broker_config("--policy @/policy.yaml");
	ck_assert_uint_eq(json_array_size(json_object_get(json, "rules")), 1);
	json_decref(json);
	ck_assert_int_eq(
		make_plan("--policy @/policy.yaml --no-network", &options, &plan, &problem), 0);
	ck_assert(!plan.has_network);
	plan_free(&plan);
	run_options_free(&options);
	ck_assert_int_eq(make_plan("--policy @/none.yaml", &options, &plan, &problem), 0);
	ck_assert(!plan.has_network);
	plan_free(&plan);
	run_options_free(&options);
}
END_TEST

START_TEST(what_is_shown_of_a_network_holds_no_password)
{
	struct run_options options;
	struct problem problem = { 0 };
	struct plan plan;
	char *text;
	char *json_text;
	json_t *json;

	ck_assert_int_eq(make_plan("--allow-all-hosts --upstream-proxy http://user:word@p:1 "
				   "-p 8080:80 --secret KEY@a.test",
				   &options, &plan, &problem),
			 0);
	text = plan_text(&plan, &options);
	json = plan_json(&plan, &options);
	json_text = json_dumps(json, 0);
	ck_assert_ptr_null(strstr(text, "word"));
	ck_assert_ptr_null(strstr(json_text, "word"));
	ck_assert_ptr_nonnull(strstr(text, "http://...@p:1"));
	ck_assert_ptr_nonnull(strstr(text, "127.0.0.1 port 8080 goes to the guest's port 80"));
	ck_assert_ptr_nonnull(strstr(text, "secret KEY, only towards a.test"));
	ck_assert_uint_eq(plan.warnings.count, 1);
	ck_assert_ptr_nonnull(strstr(plan.warnings.items[0], "--allow-all-hosts"));
	ck_assert(holds(&plan.environment, "SSL_CERT_FILE=/run/matchlock/ca-bundle.pem"));
	ck_assert(holds(&plan.environment, "NODE_EXTRA_CA_CERTS=/run/matchlock/ca.pem"));
	free(json_text);
	json_decref(json);
	free(text);
	plan_free(&plan);
	run_options_free(&options);
}
END_TEST

#define CERTIFICATE "/run/matchlock/ca.pem"
#define BUNDLE "/run/matchlock/ca-bundle.pem"

/* Those that add to what a program trusts get the one certificate; those that take its place get
 * all, or the program could reach nobody who is passed through. */
static const char *const trusting[] = {
	"NODE_EXTRA_CA_CERTS=" CERTIFICATE,
	"DENO_CERT=" CERTIFICATE,
	"SSL_CERT_FILE=" BUNDLE,
	"REQUESTS_CA_BUNDLE=" BUNDLE,
	"PIP_CERT=" BUNDLE,
	"CURL_CA_BUNDLE=" BUNDLE,
	"GIT_SSL_CAINFO=" BUNDLE,
	"CARGO_HTTP_CAINFO=" BUNDLE,
	"npm_config_cafile=" BUNDLE,
	"AWS_CA_BUNDLE=" BUNDLE,
	"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE=" BUNDLE,
	"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=" BUNDLE,
	"NIX_SSL_CERT_FILE=" BUNDLE,
	"BUNDLE_SSL_CA_CERT=" BUNDLE,
	"HEX_CACERTS_PATH=" BUNDLE,
	"NODE_USE_SYSTEM_CA=1",
	"UV_NATIVE_TLS=1",
};

/* How many of a session's variables name a file of its authority's. */
static size_t count_trusting(const struct text_list *list)
{
	size_t count = 0;

	for (size_t i = 0; i < list->count; i++)
		count += strstr(list->items[i], "=/run/matchlock/ca") != NULL;
	return count;
}

START_TEST(programs_are_told_whom_to_trust)
{
	struct run_options options;
	struct problem problem = { 0 };
	struct plan plan;

	/* What the host's programs trust says nothing of the guest's. */
	for (size_t i = 0; i < ARRAY_LENGTH(trusting); i++) {
		char *name = strndup(trusting[i], strcspn(trusting[i], "="));

		setenv(name, "/etc/host.pem", 1);
		free(name);
	}
	ck_assert_int_eq(make_plan("--allow-host a.test", &options, &plan, &problem), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(trusting); i++)
		ck_assert_msg(holds(&plan.environment, trusting[i]), "%s is not set", trusting[i]);
	ck_assert_uint_eq(count_trusting(&plan.environment), ARRAY_LENGTH(trusting) - 2);
	plan_free(&plan);
	run_options_free(&options);

	ck_assert_int_eq(make_plan("--allow-host a.test -e SSL_CERT_FILE=/mine.pem", &options,
				   &plan, &problem),
			 0);
	ck_assert(holds(&plan.environment, "SSL_CERT_FILE=/mine.pem"));
	ck_assert_uint_eq(count_trusting(&plan.environment), ARRAY_LENGTH(trusting) - 3);
	plan_free(&plan);
	run_options_free(&options);

	ck_assert_int_eq(make_plan("--no-network", &options, &plan, &problem), 0);
	ck_assert_uint_eq(count_trusting(&plan.environment), 0);
	ck_assert(!holds(&plan.environment, "UV_NATIVE_TLS=1"));
	plan_free(&plan);
	run_options_free(&options);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cli_plan");
	TCase *tests = tcase_create("all");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_loop_test(tests, refusals, 0, ARRAY_LENGTH(refused));
	tcase_add_test(tests, usual_plan);
	tcase_add_test(tests, single_file);
	tcase_add_test(tests, home_as_workspace);
	tcase_add_test(tests, credentials_are_warned_about);
	tcase_add_test(tests, hidden_names_are_exact);
	tcase_add_test(tests, exports_file);
	tcase_add_test(tests, environment_is_clean);
	tcase_add_test(tests, user_of_the_image);
	tcase_add_test(tests, a_network_is_planned);
	tcase_add_test(tests, a_policy_can_give_a_network);
	tcase_add_test(tests, what_is_shown_of_a_network_holds_no_password);
	tcase_add_test(tests, programs_are_told_whom_to_trust);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
