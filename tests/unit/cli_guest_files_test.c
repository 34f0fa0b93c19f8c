/* cli/guest_files.h: what a session writes into the guest's home, and where it writes nothing. */
#include "cli/guest_files.h"

#include "cli/canary_files.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static char home[] = "/home/me";
static char image[] = "/";
static char work[] = "/home/me/work";
static char credentials[] = "/home/me/.pki";
static struct plan plan;
static struct guest_files files;

static void set_up(void)
{
	plan = (struct plan){
		.user = { .home = home },
		.exports = { { .guest = image, .profile = PLAN_PROFILE_IMAGE },
			     { .guest = work, .profile = PLAN_PROFILE_WORKSPACE } },
		.export_count = 2,
		.home_is_empty = true,
		.plants_canaries = true,
	};
	files = (struct guest_files){ 0 };
}

static void tear_down(void)
{
	guest_files_free(&files);
	ck_assert_uint_eq(files.count, 0);
}

static void add(const char *name, const char *text)
{
	guest_files_add(&files, &plan, name, text_copy(text), strlen(text));
}

START_TEST(a_file_is_listed_for_the_guest)
{
	struct agent_config config = { 0 };

	add(".env", "A=b\n");
	add(".aws/credentials", "[x]");
	guest_files_list(&files, &config);
	ck_assert_uint_eq(config.file_count, 2);
	ck_assert_str_eq(config.files[0].path, "/home/me/.env");
	ck_assert_uint_eq(config.files[0].mode, 0600);
	ck_assert_uint_eq(config.files[0].size, 4);
	ck_assert_mem_eq(config.files[0].data, "A=b\n", 4);
	ck_assert_str_eq(config.files[1].path, "/home/me/.aws/credentials");
}
END_TEST

START_TEST(nothing_is_written_into_what_is_the_hosts)
{
	add("work/.env", "A=b\n");
	add("work", "A=b\n");
	ck_assert_uint_eq(files.count, 0);
	add("works", "A=b\n");
	ck_assert_uint_eq(files.count, 1);
	plan.exports[1].guest = credentials;
	add(".pki/nssdb/cert9.db", "");
	ck_assert_uint_eq(files.count, 1);
}
END_TEST

START_TEST(nothing_is_written_into_a_home_of_the_hosts)
{
	struct problem problem = { 0 };
	struct text_list placeholders = { 0 };

	plan.home_is_empty = false;
	text_list_add(&placeholders, "PROD_GITHUB_TOKEN=x");
	add(".env", "A=b\n");
	canary_files_add(&files, &plan, &placeholders);
	ck_assert_int_eq(guest_files_add_trust(&files, &plan, "", &problem), 0);
	ck_assert_uint_eq(files.count, 0);
	text_list_free(&placeholders);
}
END_TEST

START_TEST(decoys_are_written_when_they_are_asked_for)
{
	struct text_list placeholders = { 0 };

	text_list_add(&placeholders, "PROD_GITHUB_TOKEN=x");
	plan.plants_canaries = false;
	canary_files_add(&files, &plan, &placeholders);
	ck_assert_uint_eq(files.count, 0);
	plan.plants_canaries = true;
	canary_files_add(&files, &plan, &placeholders);
	ck_assert_uint_eq(files.count, 1);
	ck_assert_str_eq(files.items[0].path, "/home/me/.env");
	ck_assert_uint_eq(files.items[0].size, strlen("# production\nPROD_GITHUB_TOKEN=x\n"));
	text_list_free(&placeholders);
}
END_TEST

START_TEST(a_malformed_certificate_is_told)
{
	struct problem problem = { 0 };

	ck_assert_int_lt(guest_files_add_trust(&files, &plan, "nonsense", &problem), 0);
	ck_assert_ptr_nonnull(strstr(problem.text, "certificate is malformed"));
	ck_assert_uint_eq(files.count, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guest_files");
	TCase *tests = tcase_create("guest_files");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, a_file_is_listed_for_the_guest);
	tcase_add_test(tests, nothing_is_written_into_what_is_the_hosts);
	tcase_add_test(tests, nothing_is_written_into_a_home_of_the_hosts);
	tcase_add_test(tests, decoys_are_written_when_they_are_asked_for);
	tcase_add_test(tests, a_malformed_certificate_is_told);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
