/*
 * The capability stage. No libcap: the three prctl()s and capset() are all there is.
 * Source: capabilities(7).
 */
#ifndef JAIL_CAPABILITIES_H
#define JAIL_CAPABILITIES_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the calling thread has the capability (CAP_...) in its effective set. */
bool capability_held(int capability);

/* Reduces the permitted, effective, inheritable, ambient and bounding sets to `keep` (bits
 * 1 << CAP_...) and takes from uid 0 its power to regain them by exec. *ret_kept is what is left
 * in the permitted set. 0 or a negative errno. */
int capabilities_drop(uint64_t keep, uint64_t *ret_kept);

#endif
