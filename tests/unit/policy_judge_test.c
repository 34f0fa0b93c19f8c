/*
 * The table of attacks on protected paths, and of names that look like them and must stay free.
 * Each row is judged by a fresh workspace policy without a file.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/checked.h"
#include "fsserver/policy.h"

enum expectation { DENIED, ALLOWED };

struct row {
	enum policy_access access;
	mode_t mode;
	const char *path;
	enum expectation expected;
};

#define WRITE POLICY_WRITE, 0
#define CREATE POLICY_CREATE_FILE, S_IFREG | 0644
#define MKDIR POLICY_CREATE_DIRECTORY, S_IFDIR | 0755
#define SYMLINK POLICY_CREATE_SYMLINK, S_IFLNK | 0777
#define FIFO POLICY_CREATE_SPECIAL, S_IFIFO | 0644
#define CHMOD POLICY_CHMOD, S_IFREG | 0755
#define UNLINK POLICY_REMOVE, S_IFREG | 0644
#define UNLINK_LINK POLICY_REMOVE, S_IFLNK | 0777
#define RMDIR POLICY_REMOVE, S_IFDIR | 0755
#define REMOVE_UNKNOWN POLICY_REMOVE, 0
#define LINK_FROM POLICY_LINK_SOURCE, S_IFREG | 0644
#define LINK_TO POLICY_LINK_TARGET, S_IFREG | 0644
#define LINK_SYMLINK_TO POLICY_LINK_TARGET, S_IFLNK | 0777
#define MOVE_TO POLICY_RENAME_TARGET, S_IFREG | 0644
#define MOVE_SYMLINK_TO POLICY_RENAME_TARGET, S_IFLNK | 0777
#define MOVE_UNKNOWN_TO POLICY_RENAME_TARGET, 0
#define MOVE_DIRECTORY_TO POLICY_RENAME_TARGET_DIRECTORY, S_IFDIR | 0755
#define READ POLICY_READ, 0

/* clang-format off: one attack a line */
static const struct row rows[] = {
	/* git: every access to every row */
	{ CREATE, ".git/hooks/pre-commit", DENIED },
	{ WRITE, ".git/hooks/pre-commit", DENIED },
	{ CHMOD, ".git/hooks/pre-commit", DENIED },
	{ UNLINK, ".git/hooks/pre-commit", DENIED },
	{ SYMLINK, ".git/hooks/pre-commit", DENIED },
	{ FIFO, ".git/hooks/pre-commit", DENIED },
	{ LINK_FROM, ".git/hooks/pre-commit", DENIED },
	{ LINK_TO, ".git/hooks/pre-commit", DENIED },
	{ MOVE_TO, ".git/hooks/pre-commit", DENIED },
	{ MKDIR, ".git/hooks/sub", DENIED },
	{ CREATE, ".git/hooks/pre-commit.sample", DENIED },
	{ CHMOD, ".git/hooks/pre-commit.sample", DENIED },
	{ MOVE_DIRECTORY_TO, ".git/hooks/sub", DENIED },
	{ WRITE, ".git/config", DENIED },
	{ CREATE, ".git/config", DENIED },
	{ MOVE_TO, ".git/config", DENIED },
	{ UNLINK, ".git/config", DENIED },
	{ LINK_FROM, ".git/config", DENIED },
	{ MKDIR, ".git/config", DENIED },
	{ CREATE, ".git/config.worktree", DENIED },
	{ CREATE, ".git/worktrees/wt/config.worktree", DENIED },
	{ WRITE, ".git/worktrees/wt/gitdir", DENIED },
	{ MOVE_TO, ".git/worktrees/wt/commondir", DENIED },
	{ WRITE, ".git/modules/sub/config", DENIED },
	{ WRITE, ".git/modules/a/b/c/config", DENIED },
	{ CREATE, ".git/modules/sub/hooks/post-checkout", DENIED },
	{ CREATE, ".git/modules/a/b/hooks/post-checkout", DENIED },
	{ CREATE, ".git/modules/a/modules/b/hooks/update", DENIED },
	{ CREATE, ".git/commondir", DENIED },
	{ CREATE, ".git/info/attributes", DENIED },
	{ CREATE, ".git/objects/info/alternates", DENIED },
	{ CREATE, ".gitmodules", DENIED },
	{ MOVE_TO, "sub/.gitmodules", DENIED },
	{ WRITE, ".gitconfig", DENIED },
	{ WRITE, "deep/er/repo/.git/config", DENIED },
	{ CREATE, "deep/er/repo/.git/hooks/post-merge", DENIED },
	/* .git keeps its type */
	{ SYMLINK, ".git", DENIED },
	{ SYMLINK, "new/.git", DENIED },
	{ FIFO, "new/.git", DENIED },
	{ RMDIR, ".git", DENIED },
	{ UNLINK, "submodule/.git", DENIED },
	{ REMOVE_UNKNOWN, ".git", DENIED },
	{ WRITE, "submodule/.git", DENIED },
	{ MOVE_TO, "submodule/.git", DENIED },
	{ LINK_TO, "submodule/.git", DENIED },
	{ LINK_FROM, "submodule/.git", DENIED },
	{ MOVE_SYMLINK_TO, "submodule/.git", DENIED },
	{ CHMOD, ".git", DENIED },
	/* shells and debuggers */
	{ CREATE, ".bashrc", DENIED },
	{ CREATE, ".bash_profile", DENIED },
	{ CREATE, ".bash_login", DENIED },
	{ CREATE, "a/.profile", DENIED },
	{ CREATE, ".zshrc", DENIED },
	{ CREATE, ".zprofile", DENIED },
	{ CREATE, ".zshenv", DENIED },
	{ CREATE, ".zlogin", DENIED },
	{ CREATE, ".ripgreprc", DENIED },
	{ WRITE, "sub/.envrc", DENIED },
	{ CREATE, ".vimrc", DENIED },
	{ CREATE, ".exrc", DENIED },
	{ CREATE, ".nvim.lua", DENIED },
	{ CREATE, "x/y/.gdbinit", DENIED },
	{ CREATE, ".lldbinit", DENIED },
	{ CREATE, ".tmux.conf", DENIED },
	/* editors */
	{ CREATE, ".vscode/tasks.json", DENIED },
	{ CREATE, "packages/app/.vscode/settings.json", DENIED },
	{ MKDIR, ".vscode/sub", DENIED },
	{ CREATE, "project.code-workspace", DENIED },
	{ CREATE, "a/b.code-workspace", DENIED },
	{ CREATE, ".idea/workspace.xml", DENIED },
	{ CREATE, ".zed/tasks.json", DENIED },
	{ CREATE, ".fleet/run.json", DENIED },
	{ CREATE, ".devcontainer/devcontainer.json", DENIED },
	{ CREATE, ".devcontainer.json", DENIED },
	{ CREATE, ".dir-locals.el", DENIED },
	/* agents */
	{ CREATE, ".claude/settings.json", DENIED },
	{ CREATE, ".claude/commands/x/y.md", DENIED },
	{ CREATE, ".mcp.json", DENIED },
	{ CREATE, ".claude.json", DENIED },
	{ CREATE, ".cursor/rules/a.mdc", DENIED },
	{ CREATE, ".cursorrules", DENIED },
	{ CREATE, ".cursorignore", DENIED },
	{ CREATE, ".codex/config.toml", DENIED },
	{ CREATE, ".agents/a", DENIED },
	{ CREATE, ".gemini/settings.json", DENIED },
	{ CREATE, ".windsurf/rules", DENIED },
	{ CREATE, ".kiro/steering/x", DENIED },
	{ CREATE, ".roo/mcp.json", DENIED },
	{ CREATE, ".clinerules", DENIED },
	{ CREATE, ".continue/config.json", DENIED },
	{ CREATE, ".opencode/x", DENIED },
	{ CREATE, "opencode.json", DENIED },
	{ CREATE, ".aider.conf.yml", DENIED },
	{ CREATE, ".github/copilot-instructions.md", DENIED },
	{ WRITE, "AGENTS.md", DENIED },
	{ WRITE, "docs/CLAUDE.md", DENIED },
	{ MOVE_TO, "GEMINI.md", DENIED },
	/* hooks and CI */
	{ CREATE, ".husky/pre-commit", DENIED },
	{ CREATE, ".pre-commit-config.yaml", DENIED },
	{ CREATE, "lefthook.yml", DENIED },
	{ CREATE, "lefthook.yaml", DENIED },
	{ CREATE, ".lintstagedrc", DENIED },
	{ CREATE, ".lintstagedrc.json", DENIED },
	{ CREATE, ".github/workflows/ci.yml", DENIED },
	{ CREATE, ".github/actions/x/action.yml", DENIED },
	{ CREATE, ".gitlab-ci.yml", DENIED },
	{ CREATE, ".circleci/config.yml", DENIED },
	{ CREATE, ".buildkite/pipeline.yml", DENIED },
	{ CREATE, "azure-pipelines.yml", DENIED },
	{ CREATE, "Jenkinsfile", DENIED },
	{ CREATE, ".travis.yml", DENIED },
	{ CREATE, ".drone.yml", DENIED },
	/* toolchains */
	{ CREATE, ".npmrc", DENIED },
	{ CREATE, ".yarnrc", DENIED },
	{ CREATE, ".yarnrc.yml", DENIED },
	{ CREATE, ".yarn/releases/yarn.cjs", DENIED },
	{ CREATE, ".yarn/plugins/@x/p.cjs", DENIED },
	{ CREATE, ".pnpmfile.cjs", DENIED },
	{ CREATE, "bunfig.toml", DENIED },
	{ CREATE, ".cargo/config", DENIED },
	{ CREATE, ".cargo/config.toml", DENIED },
	{ CREATE, "rust-toolchain", DENIED },
	{ CREATE, "crates/x/rust-toolchain.toml", DENIED },
	{ CREATE, ".mvn/extensions.xml", DENIED },
	{ CREATE, "gradle/wrapper/gradle-wrapper.jar", DENIED },
	{ CREATE, ".bazelrc", DENIED },
	{ CREATE, "pip.conf", DENIED },
	{ CREATE, ".pypirc", DENIED },
	{ CREATE, "mise.toml", DENIED },
	{ CREATE, ".mise.toml", DENIED },
	{ CREATE, ".tool-versions", DENIED },
	/* ours */
	{ CREATE, ".matchlock.yaml", DENIED },
	{ CREATE, ".matchlock/sessions", DENIED },
	{ UNLINK, "sub/.matchlock.yaml", DENIED },
	/* case */
	{ CREATE, ".GIT/hooks/pre-commit", DENIED },
	{ MKDIR, ".GIT", DENIED },
	{ CREATE, ".Git/Config", DENIED },
	{ CREATE, ".VSCode/tasks.json", DENIED },
	{ CREATE, "agents.md", DENIED },
	{ CREATE, "JENKINSFILE", DENIED },
	{ CREATE, "Gradle/Wrapper/x.jar", DENIED },
	/* Unicode: fullwidth, long s, Kelvin, dotless and dotted i, combining, ignorable,
	   look-alike */
	{ CREATE, ".\xef\xbd\x87\xef\xbd\x89\xef\xbd\x94/config", DENIED },
	{ CREATE, "\xef\xbc\x8egit/config", DENIED },
	{ CREATE, ".git/hook\xc5\xbf/pre-commit", DENIED },
	{ CREATE,
	  ".v\xc5\xbf"
	  "code/tasks.json",
	  DENIED },
	{ CREATE, ".hus\xe2\x84\xaay/pre-commit", DENIED },
	{ CREATE, ".g\xc4\xb1t/config", DENIED },
	{ CREATE, ".g\xc4\xb0T/config", DENIED },
	{ CREATE, ".gi\xcc\x81t/config", DENIED },
	{ CREATE, ".g\xc3\xadt/config", DENIED },
	{ CREATE, ".g\xe2\x80\x8cit/config", DENIED },
	{ CREATE, ".gi\xe2\x80\x8dt/hooks/x", DENIED },
	{ CREATE, "\xef\xbb\xbf.git/config", DENIED },
	{ CREATE, ".git\xc2\xad/config", DENIED },
	{ CREATE,
	  ".git/co\xe2\x81\xae"
	  "nfig",
	  DENIED },
	{ CREATE, ".git/\xd1\x81onfig", DENIED },
	{ CREATE, ".b\xd0\xb0shrc", DENIED },
	{ CREATE, ".\xd1\x81laude/settings.json", DENIED },
	{ CREATE, "\xce\x91GENTS.md", DENIED },
	{ CREATE, ".g\xd1\x96t/config", DENIED },
	{ MKDIR, ".g\xe2\x80\x8cit", DENIED },
	/* what NTFS and FAT drop, and their short names */
	{ CREATE, ".git./config", DENIED },
	{ CREATE, ".git /hooks/x", DENIED },
	{ CREATE, ".git. . /config", DENIED },
	{ CREATE, ".git/config.", DENIED },
	{ CREATE, ".git::$INDEX_ALLOCATION/config", DENIED },
	{ CREATE, ".git/config::$DATA", DENIED },
	{ CREATE, ".bashrc:stream", DENIED },
	{ CREATE, ".bashrc .", DENIED },
	{ CREATE, "git~1/config", DENIED },
	{ CREATE, "GIT~1/hooks/pre-commit", DENIED },
	{ MKDIR, "git~1", DENIED },
	{ CREATE, "git~2/config", DENIED },
	{ CREATE, "GITMOD~1", DENIED },
	{ CREATE, "gi7eba~1", DENIED },
	{ CREATE, "VSCODE~1/tasks.json", DENIED },
	{ CREATE, "BASHRC~1", DENIED },
	{ CREATE, "git~1::$INDEX_ALLOCATION/config", DENIED },
	{ CREATE, "AZURE-~1.YML", DENIED },
	/* ancestors: no link, no stand-in, not taken away */
	{ SYMLINK, ".github", DENIED },
	{ SYMLINK, ".github/workflows", DENIED },
	{ SYMLINK, ".vscode", DENIED },
	{ SYMLINK, ".cargo", DENIED },
	{ SYMLINK, ".yarn", DENIED },
	{ SYMLINK, "gradle", DENIED },
	{ SYMLINK, "gradle/wrapper", DENIED },
	{ SYMLINK, "app/gradle", DENIED },
	{ SYMLINK, ".git/hooks", DENIED },
	{ SYMLINK, ".git/info", DENIED },
	{ SYMLINK, ".git/objects", DENIED },
	{ SYMLINK, ".git/modules", DENIED },
	{ SYMLINK, ".git/modules/sub", DENIED },
	{ SYMLINK, ".git/worktrees/wt", DENIED },
	{ SYMLINK, ".CLAUDE", DENIED },
	{ FIFO, ".github", DENIED },
	{ LINK_SYMLINK_TO, ".github", DENIED },
	{ MOVE_SYMLINK_TO, ".github", DENIED },
	{ MOVE_UNKNOWN_TO, ".github", DENIED },
	{ MOVE_SYMLINK_TO, ".git/modules/sub", DENIED },
	{ UNLINK_LINK, ".vscode", DENIED },
	{ REMOVE_UNKNOWN, ".vscode", DENIED },

	/* ---- what must stay free ---- */
	{ READ, ".git/config", ALLOWED },
	{ READ, ".git/hooks/pre-commit", ALLOWED },
	{ READ, ".bashrc", ALLOWED },
	{ WRITE, "src/gitconfig.c", ALLOWED },
	{ CREATE, ".gitignore", ALLOWED },
	{ CREATE, ".gitattributes", ALLOWED },
	{ CREATE, ".gitkeep", ALLOWED },
	{ CREATE, "hooks/useX.ts", ALLOWED },
	{ CREATE, "src/hooks/pre-commit", ALLOWED },
	{ CREATE, "config", ALLOWED },
	{ CREATE, "config/config", ALLOWED },
	{ CREATE, "docs/gradle/wrapper.md", ALLOWED },
	{ CREATE, "gradle.properties", ALLOWED },
	{ CREATE, "gradle/libs.versions.toml", ALLOWED },
	{ CREATE, "build.gradle", ALLOWED },
	{ CREATE, "gradlew", ALLOWED },
	{ CREATE, ".github/ISSUE_TEMPLATE.md", ALLOWED },
	{ CREATE, ".github/dependabot.yml", ALLOWED },
	{ CREATE, ".envrc.example", ALLOWED },
	{ CREATE, ".env", ALLOWED },
	{ CREATE, "profile", ALLOWED },
	{ CREATE, ".profiles", ALLOWED },
	{ CREATE, "npmrc", ALLOWED },
	{ CREATE, "vscode/tasks.json", ALLOWED },
	{ CREATE, ".vscode-test/x", ALLOWED },
	{ CREATE, "idea.md", ALLOWED },
	{ CREATE, "AGENTS.mdx", ALLOWED },
	{ CREATE, "MY_AGENTS.md", ALLOWED },
	{ CREATE, "claude/notes", ALLOWED },
	{ CREATE, ".cargo/registry/index", ALLOWED },
	{ CREATE, ".yarn/cache/x.zip", ALLOWED },
	{ CREATE, ".yarn/install-state.gz", ALLOWED },
	{ CREATE, "rust-tool", ALLOWED },
	{ CREATE, "pip.config", ALLOWED },
	{ CREATE, "src/mise.tom", ALLOWED },
	{ CREATE, "modules/config", ALLOWED },
	{ CREATE, "info/attributes", ALLOWED },
	{ CREATE, "a~1", ALLOWED },
	{ CREATE, "backup~", ALLOWED },
	{ CREATE, "gitter~1", ALLOWED },
	{ CREATE, "std::vector", ALLOWED },
	{ CREATE, "trailing.", ALLOWED },
	{ CREATE, "\xd0\xb4\xd0\xbe\xd0\xba\xd1\x83\xd0\xbc\xd0\xb5\xd0\xbd\xd1\x82.txt", ALLOWED },
	{ CREATE, "\xff\xfe\x80", ALLOWED },
	{ CREATE, "\xea\xb0\x80\xea\xb0\x81", ALLOWED },
	/* a repository at work */
	{ CREATE, ".git/index.lock", ALLOWED },
	{ MOVE_TO, ".git/index", ALLOWED },
	{ UNLINK, ".git/index.lock", ALLOWED },
	{ CREATE, ".git/config.lock", ALLOWED },
	{ UNLINK, ".git/config.lock", ALLOWED },
	{ CREATE, ".git/objects/ab/cdef", ALLOWED },
	{ LINK_TO, ".git/objects/ab/cdef", ALLOWED },
	{ RMDIR, ".git/objects/ab", ALLOWED },
	{ CREATE, ".git/objects/info/packs", ALLOWED },
	{ CREATE, ".git/objects/info/commit-graphs/x", ALLOWED },
	{ CREATE, ".git/COMMIT_EDITMSG", ALLOWED },
	{ MOVE_TO, ".git/refs/heads/config", ALLOWED },
	{ CREATE, ".git/refs/heads/hooks/x", ALLOWED },
	{ MKDIR, ".git/rebase-merge", ALLOWED },
	{ CREATE, ".git/rebase-merge/git-rebase-todo", ALLOWED },
	{ CREATE, ".git/info/exclude", ALLOWED },
	{ MKDIR, ".git/worktrees/new", ALLOWED },
	{ MOVE_TO, ".git/modules/sub/index", ALLOWED },
	{ CREATE, ".git/modules/sub/objects/ab/cd", ALLOWED },
	{ UNLINK, ".git/modules/sub/index.lock", ALLOWED },
	/* ancestors as directories, or as harmless files */
	{ MKDIR, ".git", ALLOWED },
	{ MKDIR, "new/.git", ALLOWED },
	{ CREATE, "worktree/.git", ALLOWED },
	{ MKDIR, ".github", ALLOWED },
	{ MKDIR, ".github/workflows", ALLOWED },
	{ MKDIR, ".vscode", ALLOWED },
	{ RMDIR, ".vscode", ALLOWED },
	{ MKDIR, "gradle", ALLOWED },
	{ CREATE, "gradle", ALLOWED },
	{ UNLINK, "gradle", ALLOWED },
	{ MOVE_DIRECTORY_TO, ".github", ALLOWED },
	{ MOVE_DIRECTORY_TO, "src2", ALLOWED },
	{ SYMLINK, "src/link", ALLOWED },
	{ SYMLINK, ".github/link.md", ALLOWED },
	{ SYMLINK, "node_modules/.bin/tsc", ALLOWED },
	{ FIFO, "tmp/fifo", ALLOWED },
	{ WRITE, "", ALLOWED },
};
/* clang-format on */

static struct policy *load_builtin(enum policy_profile profile, const char *export_path)
{
	struct policy_options options = { .profile = profile,
					  .policy_fd = -1,
					  .export_path = export_path };
	struct policy *policy = NULL;
	char error[256];

	ck_assert_msg(policy_load(&options, &policy, error, sizeof(error)) == 0, "%s", error);
	return policy;
}

START_TEST(every_row_is_judged_as_written)
{
	struct policy *policy = load_builtin(POLICY_PROFILE_WORKSPACE, "/w");
	const struct row *row = &rows[_i];
	struct policy_verdict verdict;

	policy_judge(policy, row->access, row->path, row->mode, &verdict);
	ck_assert_msg(verdict.allowed == (row->expected == ALLOWED), "row %d: '%s' (%d): %s", _i,
		      row->path, (int)row->access, verdict.rule != NULL ? verdict.rule : "allowed");
	ck_assert(!verdict.hidden);
	if (!verdict.allowed) {
		ck_assert_ptr_nonnull(verdict.rule);
		ck_assert_ptr_nonnull(verdict.reason);
	}
	policy_free(policy);
}
END_TEST

START_TEST(directories_that_hold_protected_names_are_pinned)
{
	static const char *const pinned[] = {
		".git",
		".git/hooks",
		".git/objects",
		".git/modules/sub",
		".git/worktrees/wt",
		".github",
		".github/workflows",
		"gradle",
		"gradle/wrapper",
		"a/b/gradle",
		".yarn",
		".cargo",
		".vscode",
		".claude",
		".matchlock",
		".GitHub",
		"git~1",
		".husky/x",
	};
	static const char *const free[] = {
		"src", "a/b", "docs/gradle2", ".github2", ".git/rebase-merge", ".git/objects/ab", ""
	};
	struct policy *policy = load_builtin(POLICY_PROFILE_WORKSPACE, "/w");
	struct policy_verdict verdict;

	for (size_t i = 0; i < ARRAY_LENGTH(pinned); i++) {
		ck_assert_msg(policy_pins(policy, pinned[i], &verdict), "%s", pinned[i]);
		ck_assert(!verdict.allowed);
		ck_assert_ptr_nonnull(verdict.rule);
	}
	for (size_t i = 0; i < ARRAY_LENGTH(free); i++)
		ck_assert_msg(!policy_pins(policy, free[i], &verdict), "%s", free[i]);
	policy_free(policy);
}
END_TEST

START_TEST(long_and_deep_paths_are_judged_whole)
{
	struct policy *policy = load_builtin(POLICY_PROFILE_WORKSPACE, "/w");
	struct policy_verdict verdict;
	char *path = malloc(70000);
	size_t used = 0;

	for (int i = 0; i < 1000; i++, used += 5)
		memcpy(path + used, "deep/", 5);
	memcpy(path + used, ".git/config", sizeof(".git/config"));
	policy_judge(policy, POLICY_WRITE, path, 0, &verdict);
	ck_assert(!verdict.allowed);
	ck_assert_str_eq(verdict.rule, "git: .git/config");
	memset(path, 'a', 66000);
	path[66000] = '\0';
	policy_judge(policy, POLICY_WRITE, path, 0, &verdict);
	ck_assert(!verdict.allowed);
	free(path);
	policy_free(policy);
}
END_TEST

START_TEST(flagged_names_come_first_in_a_review)
{
	static const char *const flagged[] = {
		"Makefile",
		"a/Makefile",
		"makefile",
		"package.json",
		"pyproject.toml",
		"setup.py",
		"build.rs",
		"CMakeLists.txt",
		"tests/conftest.py",
		"vite.config.ts",
		"a/jest.config.js",
		"Dockerfile",
		"justfile",
		".gitattributes",
		"CODEOWNERS",
		".github/CODEOWNERS",
		".git/rebase-merge/git-rebase-todo",
		".venv/bin/python",
		"x/.venv/bin/y/z",
	};
	static const char *const plain[] = { "src/main.c",
					     "Makefile.txt",
					     "package.json.bak",
					     ".venv/lib/x.py",
					     "config.ts",
					     "bin/tool.txt",
					     "" };

	for (size_t i = 0; i < ARRAY_LENGTH(flagged); i++)
		ck_assert_msg(policy_is_flagged(flagged[i], S_IFREG | 0644), "%s", flagged[i]);
	for (size_t i = 0; i < ARRAY_LENGTH(plain); i++)
		ck_assert_msg(!policy_is_flagged(plain[i], S_IFREG | 0644), "%s", plain[i]);
	ck_assert(policy_is_flagged("bin/tool", S_IFREG | 0755));
	ck_assert(!policy_is_flagged("src", S_IFDIR | 0755));
}
END_TEST

START_TEST(the_narrowest_allow_matches_its_path_alone)
{
	char pattern[64];

	ck_assert(policy_narrowest_allow("a[1]/*.x", pattern, sizeof(pattern)));
	ck_assert_str_eq(pattern, "/a\\[1\\]/\\*.x");
	ck_assert(!policy_narrowest_allow("abc", pattern, 4));
}
END_TEST

/* MATCHLOCK_POLICY_BENCH=1: prints what one judgement costs; nothing is asserted. */
START_TEST(print_what_a_judgement_costs)
{
	static const char *const paths[] = {
		"src/main.c",
		"node_modules/@types/node/fs/promises.d.ts",
		"usr/lib/x86_64-linux-gnu/libc.so.6",
		".git/objects/ab/cdef0123456789",
		".git/config",
		"d\xc3\xa9j\xc3\xa0 vu/\xd1\x84.txt",
	};
	struct policy *workspace = load_builtin(POLICY_PROFILE_WORKSPACE, "/w");
	struct policy *image = load_builtin(POLICY_PROFILE_IMAGE, "/");
	const int rounds = getenv("MATCHLOCK_POLICY_BENCH") != NULL ? 200000 : 1;

	for (size_t i = 0; i < ARRAY_LENGTH(paths); i++) {
		for (int which = 0; which < 2; which++) {
			struct policy_verdict verdict;
			struct timespec start;
			struct timespec end;

			clock_gettime(CLOCK_MONOTONIC, &start);
			for (int round = 0; round < rounds; round++)
				policy_judge(which == 0 ? workspace : image,
					     which == 0 ? POLICY_CREATE_FILE : POLICY_READ,
					     paths[i], S_IFREG | 0644, &verdict);
			clock_gettime(CLOCK_MONOTONIC, &end);
			if (rounds > 1)
				printf("# %s %s: %.0f ns\n", which == 0 ? "workspace" : "image",
				       paths[i],
				       ((double)(end.tv_sec - start.tv_sec) * 1e9 +
					(double)(end.tv_nsec - start.tv_nsec)) /
					       rounds);
		}
	}
	policy_free(workspace);
	policy_free(image);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("policy_judge");
	TCase *tcase = tcase_create("judge");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, every_row_is_judged_as_written, 0, (int)ARRAY_LENGTH(rows));
	tcase_add_test(tcase, directories_that_hold_protected_names_are_pinned);
	tcase_add_test(tcase, long_and_deep_paths_are_judged_whole);
	tcase_add_test(tcase, flagged_names_come_first_in_a_review);
	tcase_add_test(tcase, the_narrowest_allow_matches_its_path_alone);
	tcase_add_test(tcase, print_what_a_judgement_costs);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
