/*
 * The Landlock stage: the process may use no path outside the spec's hierarchies. Rights that
 * the running kernel's ABI does not know are left out of both the handled set and the rules.
 * Source: landlock(7), Documentation/userspace-api/landlock.rst.
 */
#ifndef JAIL_LANDLOCK_H
#define JAIL_LANDLOCK_H

#include "jail/jail.h"

/* Needs no_new_privs. Returns 0 with the ABI in *ret_abi, also when Landlock is absent or too old
 * and not required: then *ret_abi is 0 and *ret_reason a positive errno. Otherwise a negative
 * errno. */
int landlock_enter(const struct jail_spec *spec, int *ret_abi, int *ret_reason);

#endif
