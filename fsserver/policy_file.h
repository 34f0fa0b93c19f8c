/*
 * The policy file a user names: YAML, read strictly. Anything it does not know is an error that
 * names file, line and key. The format is described in docs/policy.md.
 */
#ifndef FSSERVER_POLICY_FILE_H
#define FSSERVER_POLICY_FILE_H

#include <stdbool.h>
#include <stddef.h>

enum policy_file_list {
	POLICY_FILE_DENY,
	POLICY_FILE_ALLOW,
	POLICY_FILE_HIDE,
	POLICY_FILE_READONLY,
	POLICY_FILE_LISTS,
};

struct policy_file_rule {
	char *pattern;
	unsigned line; /* from 1 */
};

struct policy_file {
	char *name;		      /* or NULL */
	bool agent_instructions_open; /* protect: {agent_instructions: false} */
	struct policy_file_rule *rules[POLICY_FILE_LISTS];
	size_t rule_count[POLICY_FILE_LISTS];
};

/* The key of a list, as written. */
const char *policy_file_list_name(enum policy_file_list list);

/* Parses text[0..length). On a malformed file -EINVAL and "file:line: key: what, and what to write
 * instead" in `error`; -ENOMEM. *ret_file is released with policy_file_release. */
int policy_file_parse(const char *text, size_t length, const char *file_name,
		      struct policy_file *ret_file, char *error, size_t error_capacity);
void policy_file_release(struct policy_file *file);

#endif
