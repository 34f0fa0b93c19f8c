/*
 * Connections of the host into the guest: each that a listening socket takes becomes a stream to
 * the guest's loopback (EGRESS_PUBLISH_PORT of wire/egress.h), bytes both ways with ends of
 * direction.
 *
 * What comes out of the guest is passed on and never looked at. Runs in a process of its own, which
 * is locked (port_forward_lock()): it takes connections, makes them to the VMM's one socket, and
 * can do nothing else. Each connection is one CONNECTION event of the log (wire/audit.h, operation
 * "forward"): the address that it came from, the guest's port, and the bytes out of the guest and
 * into it.
 */
#ifndef CLI_PORT_FORWARD_H
#define CLI_PORT_FORWARD_H

#include "cli/network_options.h"
#include "cli/text.h"

#include <stddef.h>
#include <stdint.h>

/* Connections at a time; more wait in the kernel's queue. */
#define PORT_FORWARD_CONNECTIONS_MAX 512

struct forward_listener {
	int fd; /* listening, non-blocking */
	uint16_t guest_port;
};

/* A listening socket at the forward's address, close-on-exec; -1 with *problem set. */
int port_forward_listen(const struct port_forward *forward, struct problem *problem);
struct forward_options {
	const char *socket_base; /* the session's (session_files.h) */
	const struct forward_listener *listeners;
	size_t count;
	int end_fd;   /* the end comes when it is readable or hung up; -1: none */
	int audit_fd; /* SOCK_SEQPACKET; may be the same; -1: nothing is told */
};

/* Locks the process for port_forward_serve(), which then must be given `socket_base` as it is
 * afterwards: relative to the working directory. 0, or a negative errno that was logged. */
int port_forward_lock(struct forward_options *options);
/* Serves until the end, SIGINT, SIGTERM or SIGHUP, or when the log takes no more events. 0 or a
 * negative errno. */
int port_forward_serve(const struct forward_options *options);

#endif
