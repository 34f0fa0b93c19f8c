/*
 * The few files of /etc that must fit this guest: the caller's lines in passwd and group if the
 * image lacks them, the host name in hosts, resolv.conf and localtime. All writing goes to the
 * layer of memory over the image: into the layer itself before it is laid over the image where that
 * will do, which saves the overlay its copying, else through the root.
 */
#ifndef GUEST_INIT_IDENTITY_FILES_H
#define GUEST_INIT_IDENTITY_FILES_H

#include "guest-init/failure.h"
#include "wire/agent.h"

#include <stdbool.h>

/* In the root, which is in place. */
int identity_files_write(const struct agent_config *config, struct failure *failure);
/* Reads the image that is mounted at `image` and writes into `etc`, an empty directory. Where the
 * image's passwd, group or hosts are there but no plain files that can be read, it writes nothing
 * and leaves all to the other function: *ret_written says. */
int identity_files_write_apart(const struct agent_config *config, const char *image,
			       const char *etc, bool *ret_written, struct failure *failure);

/* True when a line of passwd(5) or group(5) form has `id` as its third field. */
bool identity_text_has_id(const char *text, unsigned id);
/* True when a line of hosts(5) form names `hostname`. */
bool identity_text_has_host(const char *text, const char *hostname);

#endif
