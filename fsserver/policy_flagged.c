#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "fsserver/policy.h"
#include "fsserver/policy_names.h"

/* What a guest may write freely but a review lists first, because the host may run it. */

/* Folded names of files, at any depth. */
static const char *const flagged_names[] = {
	"makefile",   "gnumakefile", "package.json",   "pyproject.toml",
	"setup.py",   "build.rs",    "cmakelists.txt", "conftest.py",
	"dockerfile", "justfile",    "codeowners",     ".gitattributes",
};

static const char *const flagged_suffixes[] = {
	".config.js", ".config.ts", ".config.mjs", ".config.cjs", ".config.mts", ".config.cts",
};

/* Components in a row; NULL: all that is below the ones before. */
static const char *const flagged_paths[][4] = {
	{ ".git", "rebase-merge", "git-rebase-todo", "" },
	{ ".venv", "bin", NULL, "" },
};

static bool row_matches(const struct policy_path *path, size_t start, const char *const row[4])
{
	size_t i = 0;

	for (; row[i] != NULL && *row[i] != '\0'; i++) {
		if (start + i >= path->count)
			return false;
		if (!policy_name_is(&path->names[start + i], row[i], strlen(row[i])))
			return false;
	}
	return row[i] == NULL ? start + i < path->count : start + i == path->count;
}

static bool last_name_flagged(const struct policy_name *name)
{
	for (size_t i = 0; i < ARRAY_LENGTH(flagged_names); i++)
		if (policy_name_is(name, flagged_names[i], strlen(flagged_names[i])))
			return true;
	for (size_t i = 0; i < ARRAY_LENGTH(flagged_suffixes); i++) {
		size_t length = strlen(flagged_suffixes[i]);

		if (name->length > length &&
		    memcmp(name->text + name->length - length, flagged_suffixes[i], length) == 0)
			return true;
	}
	return false;
}

bool policy_is_flagged(const char *path, mode_t mode)
{
	policy_path_variable struct policy_path prepared;

	prepared.heap = NULL;
	if ((mode & 0111) != 0 && (S_ISREG(mode) || (mode & S_IFMT) == 0))
		return true;
	/* What cannot be judged is shown. */
	if (policy_path_init(&prepared, path) < 0)
		return true;
	if (prepared.count == 0 || S_ISDIR(mode))
		return false;
	if (last_name_flagged(&prepared.names[prepared.count - 1]))
		return true;
	for (size_t start = 0; start < prepared.count; start++)
		for (size_t row = 0; row < ARRAY_LENGTH(flagged_paths); row++)
			if (row_matches(&prepared, start, flagged_paths[row]))
				return true;
	return false;
}
