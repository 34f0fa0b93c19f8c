/*
 * The seccomp stage: a libseccomp filter from the spec's system call sets, default action "kill
 * the process", loaded into every thread at once (SCMP_FLTATR_CTL_TSYNC).
 */
#ifndef JAIL_FILTER_H
#define JAIL_FILTER_H

#include "jail/jail.h"

/* Builds and loads the filter; *ret_calls is the number of distinct permitted calls. Returns 0,
 * -EINVAL for an entry with a bad condition, or a negative errno from libseccomp or the kernel. */
int filter_enter(const struct jail_spec *spec, unsigned *ret_calls);

#endif
