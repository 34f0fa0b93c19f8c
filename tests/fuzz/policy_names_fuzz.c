/*
 * Any pattern against any path. The input is a flags byte, a pattern, a NUL, a path. Folding must
 * stay within its bound, and a path that is refused must name its rule.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fsserver/policy.h"
#include "fsserver/policy_glob.h"
#include "fsserver/policy_names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *copy_text(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (text == NULL)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

static void fold_both_ways(const char *text)
{
	size_t length = strlen(text);
	char *once = malloc(length * POLICY_FOLD_GROWTH + 1);
	char *twice;
	size_t folded;

	if (once == NULL)
		abort();
	folded = policy_fold(text, length, once);
	assert(folded <= length * POLICY_FOLD_GROWTH);
	twice = malloc(folded * POLICY_FOLD_GROWTH + 1);
	if (twice == NULL)
		abort();
	(void)policy_fold(once, folded, twice);
	free(twice);
	free(once);
}

static void match(const char *pattern, const char *text, unsigned flags)
{
	struct policy_glob *glob = NULL;
	struct policy_path path;
	const char *problem = NULL;

	if (policy_glob_compile(pattern, flags, &glob, &problem) < 0) {
		assert(problem != NULL);
		return;
	}
	if (policy_path_init(&path, text) == 0)
		(void)policy_glob_match(glob, &path);
	policy_path_release(&path);
	policy_glob_free(glob);
}

static void judge(const char *text, uint8_t flags)
{
	static struct policy *policy;
	struct policy_options options = { .profile = POLICY_PROFILE_WORKSPACE, .policy_fd = -1 };
	struct policy_verdict verdict;
	char error[128];

	if (policy == NULL && policy_load(&options, &policy, error, sizeof(error)) < 0)
		abort();
	policy_judge(policy, (enum policy_access)(flags % 12), text, (mode_t)(flags & 0xf0) << 8,
		     &verdict);
	assert(verdict.allowed || (verdict.rule != NULL && verdict.reason != NULL));
	(void)policy_pins(policy, text, &verdict);
	(void)policy_is_flagged(text, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *separator;
	char *pattern;
	char *path;

	if (size < 2)
		return 0;
	separator = memchr(data + 1, '\0', size - 1);
	if (separator == NULL)
		separator = data + size;
	pattern = copy_text(data + 1, (size_t)(separator - data - 1));
	path = separator < data + size
		       ? copy_text(separator + 1, (size_t)(data + size - separator - 1))
		       : copy_text(data, 0);
	if (strlen(pattern) <= POLICY_PATTERN_MAX) {
		fold_both_ways(path);
		match(pattern, path, data[0] & 3u);
	}
	judge(path, data[0]);
	free(pattern);
	free(path);
	return 0;
}
