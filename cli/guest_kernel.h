/*
 * The guest's kernel and initrd out of the cache ($XDG_CACHE_HOME/matchlock/kernel/, laid out by
 * scripts/guest-kernel.sh). When they are there, finding them costs one hash of the initramfs;
 * otherwise the script fetches and unpacks, which takes a while the first time and says so on a
 * terminal.
 */
#ifndef CLI_GUEST_KERNEL_H
#define CLI_GUEST_KERNEL_H

#include "cli/paths.h"
#include "cli/text.h"

#include <stdbool.h>

struct guest_kernel {
	char *vmlinux;
	char *initrd; /* the initramfs with the kernel's modules appended */
};

/* `fetch`: run the script when something is missing; without it that is an error. */
int guest_kernel_find(const struct paths *paths, bool fetch, struct guest_kernel *ret_kernel,
		      struct problem *problem);
void guest_kernel_free(struct guest_kernel *kernel);

#endif
