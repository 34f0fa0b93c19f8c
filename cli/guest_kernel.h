/*
 * The guest's kernel and initrd out of the cache ($XDG_CACHE_HOME/matchlock/kernel/, laid out by
 * scripts/guest-kernel.sh). When they are there, finding them costs one hash of the initramfs;
 * otherwise the script fetches and unpacks, which takes a while the first time and says so on a
 * terminal.
 *
 * Two kernels can be there: Debian's, and the trimmed one that `make guest-kernel` builds
 * (scripts/build-guest-kernel.sh). The trimmed one is taken when it is there; MATCHLOCK_KERNEL in
 * the environment, "debian" or "trimmed", asks for one of them.
 */
#ifndef CLI_GUEST_KERNEL_H
#define CLI_GUEST_KERNEL_H

#include "cli/paths.h"
#include "cli/text.h"

#include <stdbool.h>

struct guest_kernel {
	char *vmlinux;
	char *initrd;  /* the initramfs with the kernel's modules appended */
	char *version; /* of the Debian package; the trimmed one's ends in -matchlock */
	bool trimmed;
};

/* `fetch`: run the script when something is missing; without it a missing kernel is an error, and
 * `initrd` is NULL until a run has made the one for this build's programs. A choice of what is not
 * there, or does not exist, is STATUS_USAGE. */
int guest_kernel_find(const struct paths *paths, bool fetch, struct guest_kernel *ret_kernel,
		      struct problem *problem);
void guest_kernel_free(struct guest_kernel *kernel);

#endif
