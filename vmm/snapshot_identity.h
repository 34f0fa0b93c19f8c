/*
 * What a snapshot fits: this boot of the host (and with it the kernel and the processor), this
 * program and the engine's, the very kernel and initrd files, the kernel's command line, memory and
 * processors. Whoever finds another one starts afresh.
 */
#ifndef VMM_SNAPSHOT_IDENTITY_H
#define VMM_SNAPSHOT_IDENTITY_H

#include "vmm/engine.h"
#include "vmm/snapshot.h"

/* Writes what the machine is made of; `engine_program` is a path, or NULL for an engine of this
 * process. Returns 0, -E2BIG when that does not fit, or the error of looking at a file. */
int snapshot_identity(const struct engine_config *config, const char *engine_program,
		      const char *command_line, char identity[SNAPSHOT_IDENTITY_MAX]);

#endif
