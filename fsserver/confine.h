/*
 * How the serving process is locked up: which system calls it makes, and that it opens nothing
 * outside its exports and stores. No user namespace: the server must see files as their owner.
 *
 * Its working directory becomes /proc/self/fd: that is how calls that take no descriptor reach an
 * O_PATH one (operations_xattr.c, watch.c).
 */
#ifndef FSSERVER_CONFINE_H
#define FSSERVER_CONFINE_H

#include "fsserver/export.h"
#include "jail/jail.h"

#include <stddef.h>

/* Raises the limit of open files to the hard limit and tells it. Where the hard limit is below
 * `wanted` it is raised too, if the kernel lets us (CAP_SYS_RESOURCE). */
int confine_raise_files(uint64_t wanted, uint64_t *ret_limit);

/* Returns 0, or a negative errno with ret_report->failed_stage set where the jail says. */
int confine(struct export *const *exports, size_t export_count, struct jail_report *ret_report);

#endif
