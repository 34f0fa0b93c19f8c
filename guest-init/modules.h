/*
 * Kernel modules of the initramfs: /modules/NN-name.ko, in the order of the list /modules/order
 * (scripts/guest-kernel.sh writes both). A kernel that has them built in comes without /modules.
 *
 * The drivers of devices that not every machine has are not in that list but in /modules/devices,
 * with a line "0xID NN-name.ko" each: the virtio device for which it is loaded, written as sysfs
 * has it.
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
/* Loads what /modules/devices has for the devices that are there, and removes the files of all. An
 * absent list is an empty one. After the modules of virtio itself, while the initramfs is the root:
 * /sys of it is mounted for as long as this takes. */
int module_load_devices(struct failure *failure);
void module_list_close(struct module_list *list);

#endif
