/* A policy file of any bytes: its egress rules are refused with a message, or are JSON that the
 * broker takes or refuses with one. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/egress_rules.h"
#include "proxy/proxy_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_message(const char *text)
{
	assert(*text);
	for (; *text; text++)
		assert((unsigned char)*text >= 0x20);
}

static void configure(json_t *rules)
{
	json_t *root = json_pack("{s:s, s:o}", "session", "s", "rules", rules);
	char *text = json_dumps(root, 0);
	char error[PROXY_CONFIG_ERROR_MAX] = "";
	struct proxy_config *config;

	assert(text);
	if (proxy_config_parse(text, strlen(text), &config, error) == 0)
		proxy_config_free(config);
	else
		check_message(error);
	free(text);
	json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct problem problem = { 0 };
	struct egress_section section = { 0 };
	/* Of the exact size, so that a read past the end is seen. */
	char *text = malloc(size > 0 ? size : 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	if (egress_rules_parse(text, size, "p", &section, &problem) == 0) {
		size_t index;
		json_t *rule;

		json_array_foreach(section.rules, index, rule)
		{
			assert(strncmp(json_string_value(json_object_get(rule, "where")),
				       "p:", 2) == 0);
		}
		configure(section.rules);
	} else {
		assert(strncmp(problem.text, "p:", 2) == 0);
		check_message(problem.text);
	}
	free(text);
	return 0;
}
