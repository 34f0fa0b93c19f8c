/*
 * Files that the host wants in the caller's home (struct agent_file), which is a file system in
 * memory. They are the caller's, as are the directories that have to be made for them.
 */
#ifndef GUEST_INIT_HOME_FILES_H
#define GUEST_INIT_HOME_FILES_H

#include "guest-init/failure.h"
#include "wire/agent.h"

/* After the root was assembled. */
int home_files_write(const struct agent_config *config, struct failure *failure);
/* The same in a directory that stands for the root; for tests. Returns 0 or a negative errno. */
int home_files_write_at(int root_fd, const struct agent_config *config);

#endif
