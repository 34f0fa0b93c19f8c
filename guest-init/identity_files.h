/*
 * The few files of /etc that must fit this guest: the caller's lines in passwd and group if the
 * image lacks them, the host name in hosts, resolv.conf and localtime. All writing goes to the
 * layer of memory over the image.
 */
#ifndef GUEST_INIT_IDENTITY_FILES_H
#define GUEST_INIT_IDENTITY_FILES_H

#include "guest-init/failure.h"
#include "wire/agent.h"

#include <stdbool.h>

int identity_files_write(const struct agent_config *config, struct failure *failure);

/* True when a line of passwd(5) or group(5) form has `id` as its third field. */
bool identity_text_has_id(const char *text, unsigned id);
/* True when a line of hosts(5) form names `hostname`. */
bool identity_text_has_host(const char *text, const char *hostname);

#endif
