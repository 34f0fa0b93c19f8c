/*
 * Decoys in files: what somebody who looks for credentials finds in the caller's home, ~/.env and a
 * profile in ~/.aws/credentials, with the same decoys as the environment.
 *
 * They are in the guest's memory alone: only where the home is a file system of its own there, and
 * nothing of the host's is mounted on the way to them.
 */
#ifndef CLI_CANARY_FILES_H
#define CLI_CANARY_FILES_H

#include "cli/plan.h"
#include "wire/agent.h"

#define CANARY_FILES_MAX 2

struct canary_files {
	size_t count;
	char *paths[CANARY_FILES_MAX];
	char *texts[CANARY_FILES_MAX];
};

/* `placeholders` ("NAME=VALUE") hold the decoys when there are any. */
void canary_files_make(const struct plan *plan, const struct text_list *placeholders,
		       struct canary_files *ret_files);
void canary_files_free(struct canary_files *files);
/* Adds them to CONFIG, which borrows them. */
void canary_files_add(const struct canary_files *files, struct agent_config *config);

#endif
