/* A project's file of any bytes is parsed or refused with a message; what is parsed can be shown,
 * and can only take away. */
#define _GNU_SOURCE 1
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/project_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct project_file file = { 0 };
	struct problem problem = { 0 };
	/* Of the exact size, so that a read past the end is seen. */
	char *text = malloc(size > 0 ? size : 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	if (project_file_parse(text, size, "f", &file, &problem) == 0) {
		char *shown = project_file_text(&file);

		assert(file.cpus <= RUN_CPUS_MAX);
		assert(file.memory_mib == 0 || file.memory_mib >= RUN_MEMORY_MIN_MIB);
		for (size_t i = 0; i < file.rule_count; i++) {
			assert(file.rules[i].list < PROJECT_LISTS);
			assert(file.rules[i].pattern[0] != '\0' && file.rules[i].line > 0);
		}
		for (const char *at = shown; *at; at++)
			assert((unsigned char)*at >= 0x20 || *at == '\n');
		free(shown);
		project_file_free(&file);
	} else {
		assert(strncmp(problem.text, "f:", 2) == 0);
		for (const char *at = problem.text; *at; at++)
			assert((unsigned char)*at >= 0x20);
	}
	free(text);
	return 0;
}
