/*
 * Kernel modules of the initramfs: /modules/NN-name.ko, in the order of the list /modules/order
 * (scripts/guest-kernel.sh writes both). A kernel that has them built in comes without /modules.
 */
#ifndef GUEST_INIT_MODULES_H
#define GUEST_INIT_MODULES_H

#include "guest-init/failure.h"

#include <stddef.h>

struct module_list {
	char *text; /* owned; one name per line, cut up as it is walked */
	char *next;
};

/* An absent list is an empty one. */
int module_list_open(struct module_list *list, struct failure *failure);
/* Loads modules up to and including the one whose file name ends in `last`, or all that are left
 * with NULL. Each file is removed once loaded: the initramfs is memory. */
int module_list_load(struct module_list *list, const char *last, struct failure *failure);
void module_list_close(struct module_list *list);

#endif
