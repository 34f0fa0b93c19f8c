/* The command line of `matchlock run`, and the small parsers of cli/text. */
#include "base/checked.h"
#include "cli/options.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define PARSE(options, problem, ...)                                                               \
	parse((char *[]){ (char[]){ "run" }, __VA_ARGS__, NULL }, options, problem)
#define W(text)                                                                                    \
	(char[])                                                                                   \
	{                                                                                          \
		text                                                                               \
	}

static int parse(char **argv, struct run_options *options, struct problem *problem)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	memset(problem, 0, sizeof(*problem));
	return run_options_parse(argc, argv, options, problem);
}

START_TEST(all_flags)
{
	struct run_options o;
	struct problem p;

	ck_assert_int_eq(PARSE(&o, &p, W("--workspace=."), W("--rollback-on-exit"),
			       W("--keep-on-success"), W("--image"), W("host"), W("-it"), W("-e"),
			       W("A=1"), W("--env=B"), W("--env-file"), W("f"), W("-w"), W("/x"),
			       W("-u"), W("1:2"), W("--cpus"), W("3"), W("--memory=512m"),
			       W("--timeout"), W("5m"), W("--engine=qemu"), W("--policy"),
			       W("p.yaml"), W("-v"), W("/a:/b:ro"), W("-v/c:/d"),
			       W("--allow-write"), W("g/**"), W("--name"), W("n1"), W("--dry-run"),
			       W("--json"), W("-q"), W("--"), W("cmd"), W("--flag"), W("-x")),
			 0);
	ck_assert_str_eq(o.workspace, ".");
	ck_assert(o.rollback_on_exit && o.keep_on_success && o.input && o.terminal);
	ck_assert_str_eq(o.environment.items[0], "A=1");
	ck_assert_str_eq(o.environment.items[1], "B");
	ck_assert_str_eq(o.environment_files.items[0], "f");
	ck_assert_str_eq(o.cwd, "/x");
	ck_assert_str_eq(o.user, "1:2");
	ck_assert_uint_eq(o.cpus, 3);
	ck_assert_uint_eq(o.memory_mib, 512);
	ck_assert_uint_eq(o.timeout_ms, 300000);
	ck_assert_str_eq(o.engine, "qemu");
	ck_assert_str_eq(o.policy, "p.yaml");
	ck_assert_uint_eq(o.mount_count, 2);
	ck_assert_str_eq(o.mounts[0].host, "/a");
	ck_assert_str_eq(o.mounts[0].guest, "/b");
	ck_assert(o.mounts[0].read_only && !o.mounts[1].read_only);
	ck_assert_str_eq(o.allow_write.items[0], "g/**");
	ck_assert_str_eq(o.name, "n1");
	ck_assert(o.dry_run && o.json);
	ck_assert_int_eq(o.verbosity, RUN_QUIET);
	ck_assert_uint_eq(o.command.count, 3);
	ck_assert_str_eq(o.command.items[1], "--flag");
	run_options_free(&o);
}
END_TEST

START_TEST(command_without_dashes)
{
	struct run_options o;
	struct problem p;

	ck_assert_int_eq(PARSE(&o, &p, W("ls"), W("-l"), W("--json")), 0);
	ck_assert_uint_eq(o.command.count, 3);
	ck_assert(!o.json);
	run_options_free(&o);
}
END_TEST

static const struct {
	const char *words[4];
	const char *part; /* of the message */
} mistakes[] = {
	{ { "--workspac"
	    "x",
	    ".", "--", "x" },
	  "--workspace" },
	{ { "--dry-runn", "--", "x" }, "did you mean --dry-run?" },
	{ { "--zzzzzzzz", "--", "x" }, "--zzzzzzzz" },
	{ { "-Z", "--", "x" }, "-Z" },
	{ { "--json=1", "--", "x" }, "takes no value" },
	{ { "--workspace" }, "wants a value" },
	{ { "-e" }, "-e wants a value" },
	{ { "--" }, "no command" },
	{ { "--memory", "512", "--", "x" }, "unit" },
	{ { "--memory", "64m", "--", "x" }, "between" },
	{ { "--memory", "99999999999g", "--", "x" }, "--memory" },
	{ { "--cpus", "0", "--", "x" }, "1 to" },
	{ { "--cpus", "2.5", "--", "x" }, "--cpus" },
	{ { "--timeout", "never", "--", "x" }, "duration" },
	{ { "--timeout", "0", "--", "x" }, "duration" },
	{ { "--engine", "xen", "--", "x" }, "auto, kvm or qemu" },
	{ { "-v", "--", "x" }, "--verbose" },
	{ { "-v", "/a:/b:rx", "--", "x" }, ":ro" },
	{ { "-v", "/a:b", "--", "x" }, "absolute" },
	{ { "-v", "/a:/b/../c", "--", "x" }, "absolute" },
	{ { "-v", "/a:/", "--", "x" }, "not /" },
	{ { "-e", "=1", "--", "x" }, "NAME=VALUE" },
	{ { "--name", "last", "--", "x" }, "--name" },
	{ { "--name", "a/b", "--", "x" }, "--name" },
	{ { "--name", "0123456789ab", "--", "x" }, "--name" },
	{ { "--workspace", "", "--", "x" }, "not empty" },
};

START_TEST(mistakes_are_usage)
{
	char *argv[6] = { (char[]){ "run" } };
	struct run_options o;
	struct problem p;
	size_t count = 0;

	for (; count < 4 && mistakes[_i].words[count]; count++)
		argv[count + 1] = strdup(mistakes[_i].words[count]);
	ck_assert_int_eq(parse(argv, &o, &p), -1);
	ck_assert_int_eq(p.status, STATUS_USAGE);
	ck_assert_msg(strstr(p.text, mistakes[_i].part), "%s", p.text);
	for (size_t i = 1; i <= count; i++)
		free(argv[i]);
}
END_TEST

START_TEST(twice_is_a_mistake)
{
	struct run_options o;
	struct problem p;

	ck_assert_int_eq(PARSE(&o, &p, W("--workspace"), W("."), W("--workspace"), W("/x"), W("c")),
			 -1);
	ck_assert_ptr_nonnull(strstr(p.text, "twice"));
}
END_TEST

START_TEST(durations_and_sizes)
{
	uint64_t value = 7;

	ck_assert(parse_duration("90", 1000, &value) && value == 90000);
	ck_assert(parse_duration("250ms", 1000, &value) && value == 250);
	ck_assert(parse_duration("7d", 1000, &value) && value == 604800000);
	ck_assert(!parse_duration("", 1000, &value));
	ck_assert(!parse_duration("5x", 1000, &value));
	ck_assert(!parse_duration("-5", 1000, &value));
	ck_assert(!parse_duration("18446744073709551616s", 1000, &value));
	ck_assert(!parse_duration("9999999d", 1000, &value));
	ck_assert_uint_eq(value, 604800000);
	ck_assert(parse_size("2GiB", &value) && value == UINT64_C(2) << 30);
	ck_assert(parse_size("3kb", &value) && value == 3072);
	ck_assert(!parse_size("3", &value));
	ck_assert(!parse_size("3x", &value));
	ck_assert(!parse_size("18014398509481984k"
			      "k",
			      &value));
	ck_assert(!parse_size("99999999999999999t", &value));
}
END_TEST

static void check_freed(char *text, const char *expected)
{
	ck_assert_str_eq(text, expected);
	free(text);
}

START_TEST(text_for_people)
{
	char *words[] = { W("a b"), W("it's"), W("x"), W(""), W("\033[1m"), NULL };
	const char *candidates[] = { "workspace", "image", "name" };

	check_freed(format_size(17), "17 B");
	check_freed(format_size(UINT64_C(5) << 29), "2.5 GiB");
	check_freed(format_age(1000, 1000), "just now");
	check_freed(format_age(1000, 2000), "just now");
	check_freed(format_age(100000, 100000 - 3600), "1 hour ago");
	check_freed(format_duration(1400), "1.4 s");
	check_freed(format_duration(123000), "2 min 3 s");
	check_freed(quote_command(words), "'a b' 'it'\\''s' x '' $'\\x1b[1m'");
	ck_assert_str_eq(suggest("worskpace", candidates, 3), "workspace");
	ck_assert_ptr_null(suggest("zebra", candidates, 3));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cli_options");
	TCase *tests = tcase_create("all");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tests, all_flags);
	tcase_add_test(tests, command_without_dashes);
	tcase_add_loop_test(tests, mistakes_are_usage, 0, ARRAY_LENGTH(mistakes));
	tcase_add_test(tests, twice_is_a_mistake);
	tcase_add_test(tests, durations_and_sizes);
	tcase_add_test(tests, text_for_people);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
