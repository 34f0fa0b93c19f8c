/*
 * What a session puts into the caller's home in the guest (struct agent_file): only where that is a
 * file system of its own there, in memory, and nothing of the host's is mounted on the way.
 */
#ifndef CLI_GUEST_FILES_H
#define CLI_GUEST_FILES_H

#include "cli/plan.h"
#include "wire/agent.h"

struct guest_file {
	char *path;
	void *data;
	size_t size;
};

struct guest_files {
	uint32_t count;
	struct guest_file items[AGENT_FILES_MAX];
};

/* A file of mode 0600, `name` below the home. Takes the data over, and drops it where the file may
 * not be written. All callers together add AGENT_FILES_MAX at most. */
void guest_files_add(struct guest_files *files, const struct plan *plan, const char *name,
		     void *data, size_t size);
/* ~/.pki/nssdb, with `certificate` (cli/nss_database.h). */
int guest_files_add_trust(struct guest_files *files, const struct plan *plan,
			  const char *certificate, struct problem *problem);
/* Into CONFIG, which borrows them. */
void guest_files_list(const struct guest_files *files, struct agent_config *config);
void guest_files_free(struct guest_files *files);

#define cleanup_guest_files __attribute__((cleanup(guest_files_free)))

#endif
