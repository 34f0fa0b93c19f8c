/*
 * The seccomp stage: the spec's filter, or one that libseccomp compiles from its system call sets,
 * default action "kill the process", for every thread at once (SECCOMP_FILTER_FLAG_TSYNC).
 */
#ifndef JAIL_FILTER_H
#define JAIL_FILTER_H

#include "jail/jail.h"

/* *ret_calls is the number of distinct permitted calls. Returns 0, -EINVAL for an entry with a bad
 * condition, -ESRCH when a thread has a filter of its own, or a negative errno from libseccomp or
 * the kernel. */
int filter_enter(const struct jail_spec *spec, unsigned *ret_calls);

#endif
