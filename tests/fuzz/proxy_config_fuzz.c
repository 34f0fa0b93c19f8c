/* The broker's configuration, and behind a NUL a host, a newline and a path: it is refused with a
 * message, or makes a policy that can judge. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/egress_policy.h"
#include "proxy/proxy_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_verdict(const struct egress_verdict *verdict)
{
	assert(verdict->allowed == !verdict->reason);
	assert(verdict->rule[0] != '\0' && memchr(verdict->rule, '\0', sizeof(verdict->rule)));
	assert(memchr(verdict->hint, '\0', sizeof(verdict->hint)));
}

static void judge_request(struct egress_policy *policy, const struct host_name *name,
			  const char *path, size_t path_length)
{
	struct http_head *head = http_head_new();
	struct egress_verdict verdict, more;

	if (!head)
		return;
	http_head_set_method(head, "GET", 3);
	http_head_set_path(head, path, path_length);
	http_head_add(head, "X-A", 3, "b", 1);
	http_head_add(head, "Content-Length", 14, "5", 1);
	egress_policy_judge_request(policy, name, 443, head, &verdict);
	check_verdict(&verdict);
	if (verdict.limits) {
		assert(verdict.allowed);
		egress_rule_judge_secret(verdict.limits, "K", head, &more);
		egress_rule_judge_push(verdict.limits, "/o/r", "refs/heads/a/b", &more);
		egress_policy_spend(policy, verdict.limits, 5);
	}
	http_head_free(head);
}

static void use(struct egress_policy *policy, const char *request, size_t length)
{
	const char *newline = length > 0 ? memchr(request, '\n', length) : NULL;
	struct egress_verdict verdict;
	struct host_name name;

	free(egress_policy_list(policy));
	if (!newline || host_name_parse(request, (size_t)(newline - request), &name) < 0)
		return;
	egress_policy_judge_connection(policy, &name, 443, &verdict);
	check_verdict(&verdict);
	judge_request(policy, &name, newline + 1, length - (size_t)(newline + 1 - request));
	egress_policy_add(policy, name.text);
	egress_policy_remove(policy, name.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of the exact size, so that a read past the end is seen. */
	char *text = malloc(size > 0 ? size : 1);
	char error[EGRESS_ERROR_MAX] = "";
	struct egress_policy *policy = NULL;
	struct proxy_config *config = NULL;
	size_t length;

	if (!text)
		return 0;
	memcpy(text, data, size);
	length = strnlen(text, size);
	if (proxy_config_parse(text, length, &config, error) < 0) {
		assert(error[0] != '\0');
	} else if (egress_policy_new(&config->policy, &policy, error) < 0) {
		assert(error[0] != '\0');
	} else {
		length = length < size ? length + 1 : size;
		use(policy, text + length, size - length);
	}
	egress_policy_free(policy);
	proxy_config_free(config);
	free(text);
	return 0;
}
