/*
 * Whether a thread that waits for something looks for it for a while before it sleeps.
 *
 * To be woken takes some 5 to 10 us, in a virtual machine more, which is longer than many a wait.
 * But who looks takes a processor, which whoever is waited for may need. So it is done while it is
 * worth it: after a wait that was so short that to look would have been enough, and until it was in
 * vain once. Then some short waits are slept through before it is tried again.
 *
 * The same idea is behind KVM's halt polling (Documentation/virt/kvm/halt-polling.rst).
 */
#ifndef BASE_POLL_AHEAD_H
#define BASE_POLL_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

/* How long to look. */
#define POLL_AHEAD_NS 50000u
/* Short waits that are slept through after a look in vain. */
#define POLL_AHEAD_REST 2u

struct poll_ahead {
	bool is_wanted; /* for the next wait */
	unsigned rest;	/* short waits until it may be wanted */
};

/* Somebody looked for POLL_AHEAD_NS, and it did not come. */
void poll_ahead_failed(struct poll_ahead *ahead);
/* A wait is over that took so long and was slept through. */
void poll_ahead_slept(struct poll_ahead *ahead, uint64_t duration_ns);

#endif
