/*
 * What a fresh kernel lacks and the host's CONFIG supplies: the time, entropy, a name, the
 * loopback interface; and the connections to the host.
 */
#ifndef GUEST_INIT_MACHINE_H
#define GUEST_INIT_MACHINE_H

#include "guest-init/failure.h"
#include "wire/agent.h"

#include <stdbool.h>
#include <stdint.h>

/* Starts a connection to the host's vsock `port`: a non-blocking socket that is still
 * connecting, or a negative errno. */
int machine_dial(unsigned port);
/* Waits until it is connected. 0 or a negative errno. */
int machine_dial_wait(int fd);

/* Needs nothing of the host. */
int machine_bring_up_loopback(struct failure *failure);
/* Clock, entropy, host name, resource limits. */
int machine_configure(const struct agent_config *config, struct failure *failure);

/* Starts every processor that the kernel was told to leave alone (maxcpus=). One that does not come
 * is a failure: the guest would have fewer than were asked for. */
int machine_start_processors(struct failure *failure);

/* Whether the host wants the guest stored for later starts; and the moment for it: the call returns
 * in this guest and, much later, in each of those. */
bool machine_may_be_stored(void);
void machine_store(void);

/* Monotonic nanoseconds since the kernel's start. */
uint64_t machine_uptime_ns(void);

/* Ends the VM; nothing is synced. `at_once`: nobody has anything left to do, and the machine's
 * switch is used, if it is known, without the kernel's preparations. */
_Noreturn void machine_power_off(bool at_once);

#endif
