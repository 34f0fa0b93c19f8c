/*
 * Egress: the guest's process that carries its network connections to the host's broker and
 * inbound ones back (wire/egress.h, docs/protocol-egress.md).
 *
 * Theory of operation. Routes send every TCP connection to loopback (egress_routes.h), a BPF
 * program hands it to this process' listeners (egress_steering.h), and each becomes one stream of
 * the host's (egress_streams.h). A stub at port 53 of loopback passes DNS queries on
 * (egress_dns.h); the same over TCP is a stream as any other. One thread, one epoll set.
 *
 * Nothing of it guards anything: root in the guest may undo all of this, and loses the network by
 * it. What may leave is decided on the host.
 */
#ifndef GUEST_INIT_EGRESS_H
#define GUEST_INIT_EGRESS_H

#include "guest-init/egress_streams.h"
#include "guest-init/failure.h"

#include <sys/types.h>

struct egress {
	pid_t pid;    /* -1: not started */
	int ready_fd; /* -1 once ready */
};

/* Starts the process; loopback is up. It is outside of every command's cgroup, and the kernel's
 * out-of-memory killer leaves it alone. */
int egress_start(struct egress *egress, struct failure *failure);
/* Waits until connections are carried. */
int egress_wait(struct egress *egress, struct failure *failure);
/* After the process has ended: connections fail at once from now on. */
void egress_ended(struct egress *egress);

struct egress_options {
	egress_dial dial;
	void *context;
	int publish_listener; /* where the host's streams come in, non-blocking; or -1 */
	int ready_fd;	      /* gets a byte when connections are carried; or -1 */
};

/* The process' life, which only ends by a failure; also for tests, in a network of their own. */
int egress_run(const struct egress_options *options, struct failure *failure);

#endif
