/*
 * Repositories: what real git did (policy_git_trace.txt, recorded with strace) replayed through the
 * policy, and the ways in which a guest would stretch the exemption for its own repositories.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fsserver/policy.h"

#define TRACE "tests/unit/policy_git_trace.txt"

static struct policy *policy;
static struct policy_verdict verdict;

static void set_up(void)
{
	struct policy_options options = { .profile = POLICY_PROFILE_WORKSPACE, .policy_fd = -1 };
	char error[256];

	ck_assert_msg(policy_load(&options, &policy, error, sizeof(error)) == 0, "%s", error);
}

static void tear_down(void)
{
	policy_free(policy);
}

static bool judged(enum policy_access access, const char *path, mode_t mode)
{
	policy_judge(policy, access, path, mode, &verdict);
	return verdict.allowed;
}

static bool can_write(const char *path)
{
	return judged(POLICY_WRITE, path, S_IFREG | 0644);
}

static bool can_create(const char *path)
{
	return judged(POLICY_CREATE_FILE, path, S_IFREG | 0644);
}

static void make_directory(const char *path)
{
	ck_assert_msg(judged(POLICY_CREATE_DIRECTORY, path, S_IFDIR | 0755), "mkdir %s: %s", path,
		      verdict.rule);
	policy_directory_created(policy, path);
}

static void make_repository(const char *path)
{
	char text[256];

	snprintf(text, sizeof(text), "%s/.git", path);
	make_directory(text);
}

/* ---- the trace ---------------------------------------------------------------------------------
 */

static bool is_dot_git(const char *path)
{
	size_t length = strlen(path);

	return length >= 4 && strcmp(path + length - 4, ".git") == 0 &&
	       (length == 4 || path[length - 5] == '/');
}

static bool replay(const char *operation, const char *path, const char *second)
{
	const mode_t file = S_IFREG | 0644;

	if (strcmp(operation, "create-file") == 0) {
		if (!judged(POLICY_CREATE_FILE, path, file))
			return false;
		if (is_dot_git(path))
			policy_directory_created(policy, path);
		return true;
	}
	if (strcmp(operation, "write") == 0)
		return judged(POLICY_WRITE, path, file);
	if (strcmp(operation, "chmod") == 0)
		return judged(POLICY_CHMOD, path, S_IFREG | 0755);
	if (strcmp(operation, "symlink") == 0)
		return judged(POLICY_CREATE_SYMLINK, path, S_IFLNK | 0777);
	if (strcmp(operation, "unlink") == 0)
		return judged(POLICY_REMOVE, path, file);
	if (strcmp(operation, "mkdir") == 0) {
		if (!judged(POLICY_CREATE_DIRECTORY, path, S_IFDIR | 0755))
			return false;
		policy_directory_created(policy, path);
		return true;
	}
	if (strcmp(operation, "rmdir") == 0) {
		if (!judged(POLICY_REMOVE, path, S_IFDIR | 0755))
			return false;
		policy_directory_removed(policy, path);
		return true;
	}
	if (strcmp(operation, "link") == 0)
		return judged(POLICY_LINK_SOURCE, path, file) &&
		       judged(POLICY_LINK_TARGET, second, file);
	ck_assert_str_eq(operation, "rename");
	return judged(POLICY_REMOVE, path, file) && judged(POLICY_RENAME_TARGET, second, file);
}

static void count_born(const char *path, void *context)
{
	unsigned *count = context;

	ck_assert_ptr_nonnull(path);
	(*count)++;
}

START_TEST(real_git_works)
{
	FILE *trace = fopen(TRACE, "r");
	char line[1024];
	unsigned operations = 0;
	unsigned born = 0;

	ck_assert_msg(trace != NULL, "%s: run from the repository's root", TRACE);
	while (fgets(line, sizeof(line), trace) != NULL) {
		char *save = NULL;
		char *operation;
		char *path;
		char *second;

		if (line[0] == '#')
			continue;
		operation = strtok_r(line, "\t\n", &save);
		path = strtok_r(NULL, "\t\n", &save);
		second = strtok_r(NULL, "\t\n", &save);
		ck_assert_ptr_nonnull(path);
		ck_assert_msg(replay(operation, path, second), "%s %s: %s (%s)", operation, path,
			      verdict.rule, verdict.reason);
		operations++;
	}
	fclose(trace);
	ck_assert_uint_gt(operations, 1000);
	policy_each_born(policy, count_born, &born);
	ck_assert_uint_ge(born, 6);
}
END_TEST

/* ---- repositories that were there before -------------------------------------------------------
 */

START_TEST(an_old_repository_gains_no_exemption)
{
	ck_assert(can_create(".git/config.lock"));
	ck_assert(!judged(POLICY_RENAME_TARGET, ".git/config", S_IFREG | 0644));
	ck_assert(!can_write(".git/config"));
	/* Making directories inside opens nothing. */
	make_directory(".git/info");
	make_directory(".git/objects/info");
	make_directory(".git/hooks");
	make_directory(".git/modules/old/hooks");
	make_directory(".git/modules/old/x");
	ck_assert(!can_create(".git/info/attributes"));
	ck_assert(!can_create(".git/objects/info/alternates"));
	ck_assert(!can_create(".git/hooks/pre-commit"));
	ck_assert(!can_create(".git/modules/old/hooks/update"));
	ck_assert(!can_create(".git/modules/old/config"));
	ck_assert(!can_create(".git/modules/old/x/config"));
	/* Nor does a .git within. */
	ck_assert(!judged(POLICY_CREATE_DIRECTORY, ".git/hooks/.git", S_IFDIR | 0755));
}
END_TEST

START_TEST(moving_a_born_directory_into_an_old_repository_opens_nothing)
{
	make_repository("x");
	policy_directory_renamed(policy, "x/.git", ".git/info");
	ck_assert(!can_create(".git/info/attributes"));
	make_repository("y");
	policy_directory_renamed(policy, "y/.git", ".git/hooks");
	ck_assert(!can_create(".git/hooks/pre-commit"));
	make_repository("z");
	policy_directory_renamed(policy, "z", ".git/objects");
	ck_assert(!can_create(".git/objects/info/alternates"));
	make_repository("w");
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "w/.git", ".git/modules/m", "config",
			   S_IFREG | 0644, &verdict);
	ck_assert(!verdict.allowed);
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "w/.git/config", ".git/config", "",
			   S_IFREG | 0644, &verdict);
	ck_assert(!verdict.allowed);
}
END_TEST

START_TEST(a_worktree_of_an_old_repository_can_be_added)
{
	make_directory(".git/worktrees");
	make_directory(".git/worktrees/wt");
	ck_assert(can_create(".git/worktrees/wt/gitdir"));
	ck_assert(can_create(".git/worktrees/wt/commondir"));
	ck_assert(can_create("wt/.git"));
	policy_directory_created(policy, "wt/.git");
	ck_assert(can_write("wt/.git"));
	ck_assert(can_create("wt/.gitmodules"));
	ck_assert(judged(POLICY_REMOVE, "wt/.git", S_IFREG | 0644));
	/* The one that was there before stays shut. */
	ck_assert(!can_write(".git/worktrees/old/gitdir"));
}
END_TEST

/* ---- repositories of the session ---------------------------------------------------------------
 */

START_TEST(a_born_repository_is_open_but_for_hooks)
{
	ck_assert(!can_write("x/.git/config"));
	make_repository("x");
	ck_assert(can_create("x/.git/config"));
	ck_assert(judged(POLICY_RENAME_TARGET, "x/.git/config", S_IFREG | 0644));
	ck_assert(can_create("x/.git/info/attributes"));
	ck_assert(can_create("x/.git/objects/info/alternates"));
	ck_assert(can_create("x/.gitmodules"));
	ck_assert(!can_create("x/sub/.gitmodules"));
	make_directory("x/.git/hooks");
	ck_assert(can_create("x/.git/hooks/pre-commit.sample"));
	ck_assert(judged(POLICY_CHMOD, "x/.git/hooks/pre-commit.sample", S_IFREG | 0755));
	ck_assert(judged(POLICY_REMOVE, "x/.git/hooks/pre-commit.sample", S_IFREG | 0755));
	ck_assert(!can_create("x/.git/hooks/pre-commit"));
	ck_assert(!judged(POLICY_RENAME_TARGET, "x/.git/hooks/pre-commit", S_IFREG | 0755));
	ck_assert(!judged(POLICY_LINK_TARGET, "x/.git/hooks/pre-commit", S_IFREG | 0755));
	ck_assert(!judged(POLICY_CREATE_SYMLINK, "x/.git/hooks/pre-commit", S_IFLNK | 0777));
	ck_assert(!judged(POLICY_CREATE_SYMLINK, "x/.git/hooks", S_IFLNK | 0777));
	ck_assert(!judged(POLICY_RENAME_TARGET, "x/.git/hooks", S_IFLNK | 0777));
	ck_assert(!judged(POLICY_RENAME_TARGET, "x/.git/hooks", 0));
	ck_assert(!can_create("x/.git/HOOKS/pre-commit"));
	ck_assert(!can_create("x/.git/modules/s/hooks/post-checkout"));
	ck_assert(can_create("x/.git/modules/s/hooks/post-checkout.sample"));
	ck_assert(!can_create("x/.git/hooks/a.sample/b"));
	ck_assert(judged(POLICY_REMOVE, "x/.git", S_IFDIR | 0755));
	ck_assert(!policy_pins(policy, "x/.git", &verdict));
	/* Other groups know no exemption. */
	ck_assert(!can_create("x/.vscode/tasks.json"));
	ck_assert(!can_create("x/.git/.bashrc"));
}
END_TEST

START_TEST(another_spelling_is_not_born)
{
	make_repository("x");
	ck_assert(!can_create("x/.GIT/config"));
	ck_assert(!can_create("X/.git/config"));
	ck_assert(!can_create("x/git~1/config"));
	policy_directory_created(policy, "y/.GIT");
	ck_assert(!can_create("y/.GIT/config"));
	ck_assert(!can_create("y/.git/config"));
}
END_TEST

START_TEST(an_exemption_ends_with_its_directory)
{
	make_repository("x");
	ck_assert(can_create("x/.git/config"));
	policy_directory_removed(policy, "x/.git");
	ck_assert(!can_write("x/.git/config"));
	make_repository("y");
	policy_directory_removed(policy, "y");
	ck_assert(!can_write("y/.git/config"));
}
END_TEST

START_TEST(a_born_repository_can_be_renamed)
{
	make_repository("x");
	policy_judge_moved(policy, POLICY_RENAME_TARGET_DIRECTORY, "x", "y", "", S_IFDIR, &verdict);
	ck_assert(verdict.allowed);
	policy_judge_moved(policy, POLICY_RENAME_TARGET_DIRECTORY, "x", "y", ".git", S_IFDIR,
			   &verdict);
	ck_assert(verdict.allowed);
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "x", "y", ".git/config", S_IFREG,
			   &verdict);
	ck_assert(verdict.allowed);
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "x", "y", ".gitmodules", S_IFREG,
			   &verdict);
	ck_assert(verdict.allowed);
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "x", "y", ".git/hooks/update", S_IFREG,
			   &verdict);
	ck_assert(!verdict.allowed);
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "x/.gitmodules", ".gitmodules", "",
			   S_IFREG, &verdict);
	ck_assert(!verdict.allowed);
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "x", "y", ".vscode/tasks.json", S_IFREG,
			   &verdict);
	ck_assert(!verdict.allowed);
	policy_directory_renamed(policy, "x", "y");
	ck_assert(can_write("y/.git/config"));
	ck_assert(!can_write("x/.git/config"));
}
END_TEST

START_TEST(a_plain_directory_does_not_become_hooks)
{
	make_repository("x");
	make_directory("evil");
	ck_assert(can_create("evil/pre-commit"));
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "evil", "x/.git/hooks", "pre-commit",
			   S_IFREG | 0755, &verdict);
	ck_assert(!verdict.allowed);
	/* A populated directory does not become a .git with config either. */
	policy_judge_moved(policy, POLICY_RENAME_TARGET, "evil", "old/.git", "config", S_IFREG,
			   &verdict);
	ck_assert(!verdict.allowed);
}
END_TEST

/* ---- bare repositories -------------------------------------------------------------------------
 */

START_TEST(a_bare_repository_that_was_found_is_protected)
{
	ck_assert(can_write("srv/repo/config"));
	policy_bare_repository_found(policy, "srv/repo");
	ck_assert(!can_write("srv/repo/config"));
	ck_assert(!can_create("srv/repo/hooks/update"));
	ck_assert(!can_create("srv/repo/HOOKS/update"));
	ck_assert(!can_create("srv/repo/info/attributes"));
	ck_assert(!judged(POLICY_CREATE_SYMLINK, "srv/repo/hooks", S_IFLNK | 0777));
	ck_assert(!judged(POLICY_REMOVE, "srv/repo", S_IFLNK | 0777));
	ck_assert(can_create("srv/repo/objects/ab/cd"));
	ck_assert(can_create("srv/repo/config.lock"));
	ck_assert(can_create("srv/other/config"));
	ck_assert(policy_pins(policy, "srv/repo", &verdict));
	ck_assert(policy_pins(policy, "srv", &verdict));
	ck_assert(!policy_pins(policy, "sr", &verdict));
	/* Its refs and objects made anew by the guest are no birth. */
	policy_directory_created(policy, "srv/repo/objects");
	policy_directory_created(policy, "srv/repo/refs");
	ck_assert(!can_write("srv/repo/config"));
	/* The workspace itself may be one. */
	policy_bare_repository_found(policy, "");
	ck_assert(!can_write("config"));
	ck_assert(!can_create("hooks/update"));
	ck_assert(can_create("description"));
}
END_TEST

START_TEST(a_bare_repository_of_the_session_is_born)
{
	unsigned born = 0;

	make_directory("hub");
	make_directory("hub/hooks");
	ck_assert(can_create("hub/config"));
	make_directory("hub/objects");
	make_directory("hub/refs");
	policy_bare_repository_found(policy, "hub");
	ck_assert(can_write("hub/config"));
	ck_assert(can_create("hub/hooks/update.sample"));
	ck_assert(!can_create("hub/hooks/update"));
	ck_assert(judged(POLICY_REMOVE, "hub", S_IFDIR | 0755));
	policy_each_born(policy, count_born, &born);
	ck_assert_uint_eq(born, 1);
	policy_directory_renamed(policy, "hub", "sub/hub2");
	ck_assert(can_write("sub/hub2/config"));
	ck_assert(!can_create("sub/hub2/hooks/update"));
	ck_assert(can_create("hub/hooks/update"));
}
END_TEST

START_TEST(an_old_bare_repository_is_not_born_by_moving_its_halves_aside)
{
	policy_directory_renamed(policy, "srv/repo/objects", "srv/repo/o");
	policy_directory_renamed(policy, "srv/repo/refs", "srv/repo/r");
	policy_directory_created(policy, "srv/repo/objects");
	policy_directory_created(policy, "srv/repo/refs");
	policy_bare_repository_found(policy, "srv/repo");
	ck_assert(!can_write("srv/repo/config"));
	/* Nor by being moved over one that the session made. */
	make_directory("hub");
	make_directory("hub/objects");
	make_directory("hub/refs");
	ck_assert(can_write("hub/config"));
	policy_directory_renamed(policy, "srv/other", "hub");
	policy_bare_repository_found(policy, "hub");
	ck_assert(!can_write("hub/config"));
}
END_TEST

START_TEST(directories_made_are_forgotten_but_not_births)
{
	char path[64];

	make_directory("hub");
	make_directory("hub/objects");
	make_directory("hub/refs");
	make_repository("x");
	for (int i = 0; i < 20000; i++) {
		snprintf(path, sizeof(path), "node_modules/m%d", i);
		policy_directory_created(policy, path);
	}
	policy_bare_repository_found(policy, "hub");
	ck_assert(can_write("hub/config"));
	ck_assert(can_write("x/.git/config"));
	make_directory("late");
	make_directory("late/objects");
	make_directory("late/refs");
	policy_bare_repository_found(policy, "late");
	ck_assert(can_write("late/config"));
}
END_TEST

START_TEST(a_flood_of_repositories_is_bounded)
{
	char path[64];
	unsigned born = 0;

	for (int i = 0; i < 20000; i++) {
		snprintf(path, sizeof(path), "r%d/.git", i);
		policy_directory_created(policy, path);
	}
	policy_each_born(policy, count_born, &born);
	ck_assert_uint_le(born, 8192);
	ck_assert(can_write("r0/.git/config"));
	ck_assert(!can_write("r19999/.git/config"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("policy_git");
	TCase *tcase = tcase_create("git");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, real_git_works);
	tcase_add_test(tcase, an_old_repository_gains_no_exemption);
	tcase_add_test(tcase, moving_a_born_directory_into_an_old_repository_opens_nothing);
	tcase_add_test(tcase, a_worktree_of_an_old_repository_can_be_added);
	tcase_add_test(tcase, a_born_repository_is_open_but_for_hooks);
	tcase_add_test(tcase, another_spelling_is_not_born);
	tcase_add_test(tcase, an_exemption_ends_with_its_directory);
	tcase_add_test(tcase, a_born_repository_can_be_renamed);
	tcase_add_test(tcase, a_plain_directory_does_not_become_hooks);
	tcase_add_test(tcase, a_bare_repository_that_was_found_is_protected);
	tcase_add_test(tcase, a_bare_repository_of_the_session_is_born);
	tcase_add_test(tcase, an_old_bare_repository_is_not_born_by_moving_its_halves_aside);
	tcase_add_test(tcase, directories_made_are_forgotten_but_not_births);
	tcase_add_test(tcase, a_flood_of_repositories_is_bounded);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
