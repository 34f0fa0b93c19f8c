/*
 * The namespace stages, and the empty root that a mount namespace makes possible.
 *
 * Theory of operation. unshare() of anything but a user namespace needs CAP_SYS_ADMIN. Root has
 * it and takes the wanted namespaces directly. An ordinary user first takes a user namespace,
 * which gives all capabilities inside it, and maps its own uid and gid to themselves; the
 * capability stage drops the rest afterwards. Some distributions let the user namespace be made
 * but deny everything in it, and by then it is too late to go back: so a child process tries
 * first (jail_user_namespaces_allowed()).
 *
 * Source: user_namespaces(7), mount_namespaces(7), pivot_root(2).
 */
#ifndef JAIL_NAMESPACES_H
#define JAIL_NAMESPACES_H

#include "jail/jail.h"

/* Takes what it can of spec->namespaces and fills the namespaces* members of the report. Returns
 * 0, or a negative errno when one of namespaces_required is missing or the process is left in a
 * user namespace without its ids. */
int namespaces_enter(const struct jail_spec *spec, struct jail_report *report);

/* Makes an empty read-only tmpfs the root and working directory. Needs a mount namespace of its
 * own and CAP_SYS_ADMIN in it. 0 or a negative errno. */
int empty_root_enter(void);

#endif
