/*
 * Steers every TCP connection that is not to the guest itself to two listening sockets, whatever
 * its destination and port: a BPF program at the kernel's lookup of listeners (sk_lookup, Linux
 * 5.9). The accepted socket's own name is then the destination that the program meant.
 *
 * Not steered: 127.0.0.0/8, ::1, and the addresses of egress_routes.h, which are the guest's.
 * Steering lasts for as long as the returned descriptor is open.
 */
#ifndef GUEST_INIT_EGRESS_STEERING_H
#define GUEST_INIT_EGRESS_STEERING_H

#include "guest-init/failure.h"

/* Makes the listeners transparent (ip(7)). `listener_v6` is -1 on a kernel without IPv6. Returns a
 * descriptor, the caller's, or a negative errno. */
int egress_steering_start(int listener_v4, int listener_v6, struct failure *failure);

#endif
