/*
 * The guest's file system: the root of the image under a layer of memory, the kernel's own file
 * systems, the mounts of CONFIG, and the files of identity_files.h.
 *
 *     /exports/N        where guest-fused mounts export N      (initramfs)
 *     /overlay          tmpfs with the writable layer          (initramfs)
 *     /newroot          overlay of both, becomes /
 *
 * Without an image the root stays the initramfs, which is memory too. Processes started before
 * the switch keep the initramfs as their root; everything after it sees only the new one. Mount
 * points are created as needed, below the new root, so that the image's own absolute symbolic
 * links lead to where they lead in the image. A new directory gets the owner of its parent.
 */
#ifndef GUEST_INIT_GUEST_ROOT_H
#define GUEST_INIT_GUEST_ROOT_H

#include "guest-init/failure.h"
#include "guest-init/file_daemon.h"
#include "wire/agent.h"

/* First thing of all: /dev of the initramfs, for what is done before the switch. */
int guest_root_early(struct failure *failure);
/* All of the above. The daemon has been started. */
int guest_root_assemble(const struct agent_config *config, struct file_daemon *daemon,
			struct failure *failure);
/* Detaches the exports, last first, so that guest-fused ends in order. Errors have no one to
 * tell. */
void guest_root_unmount_exports(const struct agent_config *config);

#endif
