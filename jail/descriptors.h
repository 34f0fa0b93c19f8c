/*
 * The descriptor stage: what was inherited and is not wanted is closed. Source: close_range(2).
 */
#ifndef JAIL_DESCRIPTORS_H
#define JAIL_DESCRIPTORS_H

#include <stddef.h>

/* Closes every descriptor above 2 that is not in `keep` (any order, negative entries skipped).
 * Returns 0 or a negative errno; -EINVAL for more than twice JAIL_KEEP_FDS_MAX. */
int descriptors_close_others(const int *keep, size_t keep_count);

#define JAIL_KEEP_FDS_MAX 4096

#endif
