/*
 * guest-fused, the FUSE daemon: started from the initramfs before the root is switched, one
 * process for all exports. It writes "ready ID\n" to a pipe as each mount is up.
 *
 * It is outside of every command's cgroup, and the kernel's out-of-memory killer leaves it alone.
 */
#ifndef GUEST_INIT_FILE_DAEMON_H
#define GUEST_INIT_FILE_DAEMON_H

#include "guest-init/failure.h"
#include "wire/agent.h"

#include <stdbool.h>
#include <sys/types.h>

struct file_daemon {
	pid_t pid;    /* -1: not started, there being no exports */
	int ready_fd; /* -1 once all are ready */
	size_t line_length;
	char line[64];
	bool ready[AGENT_MOUNTS_MAX];
};

/* Where it mounts the export of config->mounts[index]; ret_path has room for 32 bytes. */
void file_daemon_staging_path(size_t index, char *ret_path);
/* Creates the staging mount points and starts the daemon if `config` has exports. */
int file_daemon_start(struct file_daemon *daemon, const struct agent_config *config,
		      struct failure *failure);
/* Waits until the export of config->mounts[index] is mounted. */
int file_daemon_wait(struct file_daemon *daemon, const struct agent_config *config, size_t index,
		     struct failure *failure);

#endif
