/* A policy file of any bytes is loaded or refused with a message; what is loaded can be judged by.
 */
#define _GNU_SOURCE 1
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsserver/policy.h"
#include "fsserver/policy_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge_some(const struct policy *policy)
{
	static const char *const paths[] = { "", ".git/config", "a/b/secrets/c.pem", "docs/x" };
	struct policy_verdict verdict;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		policy_judge(policy, POLICY_READ, paths[i], 0, &verdict);
		policy_judge(policy, POLICY_WRITE, paths[i], S_IFREG, &verdict);
		assert(verdict.allowed || (verdict.rule != NULL && verdict.reason != NULL));
		policy_pins(policy, paths[i], &verdict);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct policy_options options = { .profile = POLICY_PROFILE_WORKSPACE, .policy_fd = -1 };
	struct policy_file file = { .name = NULL };
	struct policy *policy = NULL;
	char error[256] = "";
	/* Of the exact size, so that a read past the end is seen. */
	char *text = malloc(size > 0 ? size : 1);

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	if (policy_file_parse(text, size, "f", &file, error, sizeof(error)) == 0) {
		options.policy_fd = memfd_create("policy", MFD_CLOEXEC);
		if (options.policy_fd >= 0 &&
		    write(options.policy_fd, text, size) == (ssize_t)size &&
		    lseek(options.policy_fd, 0, SEEK_SET) == 0 &&
		    policy_load(&options, &policy, error, sizeof(error)) == 0)
			judge_some(policy);
		policy_free(policy);
		if (options.policy_fd >= 0)
			close(options.policy_fd);
		policy_file_release(&file);
	} else {
		assert(error[0] != '\0');
	}
	free(text);
	return 0;
}
