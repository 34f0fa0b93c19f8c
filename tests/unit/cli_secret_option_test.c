/* cli/secret_option.h: what --secret takes, where values come from, and that they stay nowhere. */
#include "cli/secret_option.h"

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

static struct problem problem;
static char directory[] = "/tmp/secret-option-XXXXXX";

static void make_directory(void)
{
	ck_assert_ptr_nonnull(mkdtemp(directory));
}

static void remove_directory(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/file", directory);
	unlink(path);
	rmdir(directory);
}

static struct secret_option parse(const char *text)
{
	struct secret_option option = { 0 };

	problem.text[0] = '\0';
	ck_assert_msg(secret_option_parse(text, &option, &problem) == 0, "%s: %s", text,
		      problem.text);
	return option;
}

START_TEST(the_short_form_is_the_environment_and_port_443)
{
	struct secret_option option = parse("API_KEY@Api.Example.com");

	ck_assert_str_eq(option.name, "API_KEY");
	ck_assert_int_eq(option.source, SECRET_FROM_ENVIRONMENT);
	ck_assert_str_eq(option.from, "API_KEY");
	ck_assert_uint_eq(option.hosts.count, 1);
	ck_assert_str_eq(option.hosts.items[0], "api.example.com");
	ck_assert_uint_eq(option.ports[0], 443);
	ck_assert_uint_eq(option.flags, 0);
	secret_option_free(&option);
}
END_TEST

START_TEST(every_part_is_read)
{
	struct secret_option option =
		parse("K=cmd:pass show me@work@a.test:8443,*.b.test:*,c.test+query+body+header=X-A"
		      "+header=X-B+prefix=5+capture+unpinned");

	ck_assert_int_eq(option.source, SECRET_FROM_COMMAND);
	ck_assert_str_eq(option.from, "pass show me@work");
	ck_assert_uint_eq(option.hosts.count, 3);
	ck_assert_str_eq(option.hosts.items[1], "*.b.test");
	ck_assert_uint_eq(option.ports[0], 8443);
	ck_assert_uint_eq(option.ports[1], SECRET_PORT_ANY);
	ck_assert_uint_eq(option.ports[2], 443);
	ck_assert_uint_eq(option.flags, SECRET_FLAGS);
	ck_assert_uint_eq(option.prefix_length, 5);
	ck_assert_uint_eq(option.slots.count, 2);
	ck_assert_str_eq(option.slots.items[1], "X-B");
	secret_option_free(&option);
	option = parse("K=env:OTHER@a.test");
	ck_assert_str_eq(option.from, "OTHER");
	secret_option_free(&option);
	option = parse("K=file:/a@b/c@a.test");
	ck_assert_int_eq(option.source, SECRET_FROM_FILE);
	ck_assert_str_eq(option.from, "/a@b/c");
	secret_option_free(&option);
}
END_TEST

static const struct {
	const char *text;
	const char *says;
} mistakes[] = {
	{ "", "NAME@HOST" },
	{ "@a.test", "NAME@HOST" },
	{ "K", "for which hosts" },
	{ "K@", "for which hosts" },
	{ "K@+query", "for which hosts" },
	{ "K=file:@a.test", "nothing follows file:" },
	{ "K=hunter2hunter2@a.test", "can be read by every process" },
	{ "K=hunter2hunter2", "can be read by every process" },
	{ "K=@a.test", "can be read by every process" },
	{ "K@a.test:0", "port" },
	{ "K@a.test:65536", "port" },
	{ "K@a.test:", "port" },
	{ "K@a..test", "a host is neither" },
	{ "K@*", "a host is neither" },
	{ "K@https://a.test", "port" },
	{ "K@a.test,,b.test", "a host is neither" },
	{ "K@a.test+nothing", "after '+'" },
	{ "K@a.test+prefix=0", "after '+'" },
	{ "K@a.test+header=", "a header's name" },
	{ "K@a.test+header=a b", "a header's name" },
	{ "9K@a.test", "not one of an environment variable" },
	{ "K-1@a.test", "not one of an environment variable" },
};

START_TEST(mistakes_are_explained_and_no_value_is_quoted)
{
	struct secret_option option;

	problem.text[0] = '\0';
	ck_assert_int_eq(secret_option_parse(mistakes[_i].text, &option, &problem), -1);
	ck_assert_int_eq(problem.status, STATUS_USAGE);
	ck_assert_msg(strstr(problem.text, mistakes[_i].says) != NULL, "%s: %s", mistakes[_i].text,
		      problem.text);
	ck_assert_ptr_null(strstr(problem.text, "hunter2"));
}
END_TEST

/* The bundle of one option; 0, or -1 with a problem. */
static int bundle(const char *text, int *ret_fd)
{
	struct secret_option option = parse(text);
	int result = secret_options_bundle(&option, 1, false, NULL, ret_fd, &problem);

	secret_option_free(&option);
	return result;
}

static void expect_value(int fd, const char *name, const char *value)
{
	static uint8_t block[SECRET_BUNDLE_MAX];
	struct secret_bundle_reader reader;
	struct secret_entry entry;
	ssize_t length = pread(fd, block, sizeof(block), 0);

	ck_assert_int_gt(length, 0);
	ck_assert_int_eq(secret_bundle_open(&reader, block, (size_t)length), 0);
	ck_assert_int_eq(secret_bundle_next(&reader, &entry), 1);
	ck_assert_uint_eq(entry.name.length, strlen(name));
	ck_assert_mem_eq(entry.name.data, name, strlen(name));
	ck_assert_uint_eq(entry.value.length, strlen(value));
	ck_assert_mem_eq(entry.value.data, value, strlen(value));
	ck_assert_int_eq(secret_bundle_next(&reader, &entry), 0);
	close(fd);
}

/* Whether /proc/self/environ, which is the memory of the first environment, has the text. */
static bool shown_by_proc(const char *text)
{
	static char block[1 << 20];
	int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, block, sizeof(block));

	close(fd);
	ck_assert_int_gt(length, 0);
	return memmem(block, (size_t)length, text, strlen(text)) != NULL;
}

START_TEST(a_value_of_the_environment_leaves_it)
{
	int fd;

	ck_assert_ptr_nonnull(getenv("SECRET_OPTION_TEST"));
	ck_assert(shown_by_proc("from-the-environment"));
	ck_assert_int_eq(bundle("SECRET_OPTION_TEST@a.test", &fd), 0);
	expect_value(fd, "SECRET_OPTION_TEST", "from-the-environment");
	ck_assert_ptr_null(getenv("SECRET_OPTION_TEST"));
	ck_assert(!shown_by_proc("from-the-environment"));
	ck_assert_int_eq(bundle("SECRET_OPTION_TEST@a.test", &fd), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "has no SECRET_OPTION_TEST"));
}
END_TEST

START_TEST(two_may_share_a_variable)
{
	struct secret_option options[2] = { parse("A=env:SECRET_OPTION_TEST@a.test"),
					    parse("B=env:SECRET_OPTION_TEST@b.test") };
	int fd;

	ck_assert_int_eq(secret_options_bundle(options, 2, false, NULL, &fd, &problem), 0);
	close(fd);
	secret_option_free(&options[1]);
	options[1] = parse("A@c.test");
	setenv("SECRET_OPTION_TEST", "from-the-environment", 1);
	ck_assert_int_eq(secret_options_bundle(options, 2, false, NULL, &fd, &problem), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "twice"));
	for (int i = 0; i < 2; i++)
		secret_option_free(&options[i]);
}
END_TEST

static void write_file(const char *text, size_t length)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/file", directory);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
	close(fd);
}

START_TEST(a_file_ends_with_one_newline_at_most)
{
	static const struct {
		const char *text;
		const char *value; /* NULL: refused */
	} files[] = {
		{ "file-secret", "file-secret" },
		{ "file-secret\n", "file-secret" },
		{ "file-secret\r\n", "file-secret" },
		{ "file-secret\n\n", NULL },
		{ "", NULL },
		{ "short\n", NULL },
		{ "file\xc3\xa9secret", NULL },
	};
	char text[160];
	int fd;

	snprintf(text, sizeof(text), "K=file:%s/file@a.test", directory);
	for (size_t i = 0; i < ARRAY_LENGTH(files); i++) {
		write_file(files[i].text, strlen(files[i].text));
		if (files[i].value) {
			ck_assert_int_eq(bundle(text, &fd), 0);
			expect_value(fd, "K", files[i].value);
		} else {
			ck_assert_int_eq(bundle(text, &fd), -1);
			ck_assert_ptr_nonnull(strstr(problem.text, "the value"));
			ck_assert_ptr_null(strstr(problem.text, "secret\n"));
		}
	}
	ck_assert_int_eq(bundle("K=file:/nonexistent/file@a.test", &fd), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "/nonexistent/file"));
}
END_TEST

START_TEST(a_file_of_any_size_is_read_to_the_limit_alone)
{
	static char long_text[SECRET_VALUE_MAX + 100];
	char text[160];
	int fd;

	memset(long_text, 'x', sizeof(long_text));
	memcpy(long_text, "abcdef", 6);
	snprintf(text, sizeof(text), "K=file:%s/file@a.test", directory);
	write_file(long_text, SECRET_VALUE_MAX);
	ck_assert_int_eq(bundle(text, &fd), 0);
	close(fd);
	write_file(long_text, SECRET_VALUE_MAX + 1);
	ck_assert_int_eq(bundle(text, &fd), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "longer than 4096"));
	ck_assert_int_eq(bundle("K=file:/dev/zero@a.test", &fd), -1);
}
END_TEST

START_TEST(the_output_of_a_command_is_a_value)
{
	int fd;

	ck_assert_int_eq(bundle("K=cmd:printf 'cmd-%s\\n' secret@a.test", &fd), 0);
	expect_value(fd, "K", "cmd-secret");
	ck_assert_int_eq(bundle("K=cmd:echo cmd-secret; exit 3@a.test", &fd), -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "exit status 3"));
	ck_assert_ptr_null(strstr(problem.text, "cmd-secret"));
	ck_assert_int_eq(bundle("K=cmd:yes@a.test", &fd), -1);
}
END_TEST

START_TEST(the_bundle_is_sealed)
{
	int fd;
	int seals;

	ck_assert_int_eq(bundle("K=cmd:echo cmd-secret@a.test", &fd), 0);
	seals = fcntl(fd, F_GET_SEALS);
	ck_assert_int_eq(seals, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	ck_assert_int_eq(pwrite(fd, "x", 1, 0), -1);
	ck_assert_int_eq(ftruncate(fd, 0), -1);
	ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	expect_value(fd, "K", "cmd-secret");
}
END_TEST

START_TEST(decoys_are_added)
{
	static uint8_t block[SECRET_BUNDLE_MAX];
	struct secret_bundle_reader reader;
	struct secret_entry entry;
	size_t count = 0;
	ssize_t length;
	int fd;

	ck_assert_int_eq(secret_options_bundle(NULL, 0, true, NULL, &fd, &problem), 0);
	length = pread(fd, block, sizeof(block), 0);
	ck_assert_int_eq(secret_bundle_open(&reader, block, (size_t)length), 0);
	while (secret_bundle_next(&reader, &entry) == 1) {
		ck_assert_int_eq(entry.kind, SECRET_CANARY);
		ck_assert_ptr_nonnull(secret_option_canary(count));
		ck_assert_mem_eq(entry.name.data, secret_option_canary(count), entry.name.length);
		count++;
	}
	ck_assert_ptr_null(secret_option_canary(count));
	ck_assert_uint_ge(count, 3);
	close(fd);
}
END_TEST

START_TEST(keys_of_aws_are_known_by_their_names)
{
	static uint8_t block[SECRET_BUNDLE_MAX];
	struct secret_bundle_reader reader;
	struct secret_entry entry;
	ssize_t length;
	int fd;

	ck_assert_int_eq(bundle("X_AWS_SECRET_ACCESS_KEY=cmd:echo 0123456789abc@a.test", &fd), 0);
	length = pread(fd, block, sizeof(block), 0);
	ck_assert_int_eq(secret_bundle_open(&reader, block, (size_t)length), 0);
	ck_assert_int_eq(secret_bundle_next(&reader, &entry), 1);
	ck_assert_int_eq(entry.kind, SECRET_AWS_SECRET_ACCESS_KEY);
	close(fd);
}
END_TEST

static int run_tests(void)
{
	Suite *suite = suite_create("cli_secret_option");
	TCase *tests = tcase_create("cli_secret_option");
	SRunner *runner;
	int failed;

	tcase_add_unchecked_fixture(tests, make_directory, remove_directory);
	tcase_add_test(tests, the_short_form_is_the_environment_and_port_443);
	tcase_add_test(tests, every_part_is_read);
	tcase_add_loop_test(tests, mistakes_are_explained_and_no_value_is_quoted, 0,
			    (int)ARRAY_LENGTH(mistakes));
	tcase_add_test(tests, a_value_of_the_environment_leaves_it);
	tcase_add_test(tests, two_may_share_a_variable);
	tcase_add_test(tests, a_file_ends_with_one_newline_at_most);
	tcase_add_test(tests, a_file_of_any_size_is_read_to_the_limit_alone);
	tcase_add_test(tests, the_output_of_a_command_is_a_value);
	tcase_add_test(tests, the_bundle_is_sealed);
	tcase_add_test(tests, decoys_are_added);
	tcase_add_test(tests, keys_of_aws_are_known_by_their_names);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Runs itself once more, so that the variable is in the environment that /proc shows. */
int main(int argc, char **argv)
{
	if (argc > 0 && !getenv("SECRET_OPTION_TEST")) {
		setenv("SECRET_OPTION_TEST", "from-the-environment", 1);
		execv("/proc/self/exe", argv);
		return EXIT_FAILURE;
	}
	return run_tests();
}
