/*
 * .matchlock.yaml in a workspace: what the project asks of every session in it. It can only take
 * away: rules that deny, upper limits, less access. A key that would open something is an error.
 * docs/configuration.md describes the format.
 *
 * The bytes are an attacker's until the user has looked at them (cli/project_trust.h).
 */
#ifndef CLI_PROJECT_FILE_H
#define CLI_PROJECT_FILE_H

#include "cli/text.h"

#include <stdbool.h>
#include <stddef.h>

#define PROJECT_FILE_NAME ".matchlock.yaml"

enum project_list {
	PROJECT_DENY,
	PROJECT_HIDE,
	PROJECT_READONLY,
	PROJECT_LISTS,
};

struct project_rule {
	enum project_list list;
	char *pattern;
	unsigned line;
};

struct project_file {
	struct project_rule *rules;
	size_t rule_count;
	bool no_network;
	bool read_only; /* the workspace */
	bool rollback_on_exit;
	unsigned cpus;	     /* at most so many; 0: no limit */
	unsigned memory_mib; /* the same */
	unsigned timeout_ms; /* the same */
};

/* The bytes of a workspace's file, as they were at one moment. */
struct project_bytes {
	char *path; /* absolute */
	char *text;
	size_t length;
	char sha256[65];
};

const char *project_list_name(enum project_list list);

/* Reads DIRECTORY/.matchlock.yaml, never through a symbolic link. `directory` is canonical. 1 when
 * there is one, 0 when there is none, -1 with *problem when it is not to be read. */
int project_bytes_read(const char *directory, struct project_bytes *ret_bytes,
		       struct problem *problem);
void project_bytes_free(struct project_bytes *bytes);

/* `name` is for messages: "file:line: key: what". */
int project_file_parse(const char *text, size_t length, const char *name,
		       struct project_file *ret_file, struct problem *problem);
void project_file_free(struct project_file *file);

/* What it asks for, a line each, escaped; the caller frees. */
char *project_file_text(const struct project_file *file);

#endif
