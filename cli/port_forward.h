/*
 * Connections of the host into the guest: each that a listening socket takes becomes a stream to
 * the guest's loopback (EGRESS_PUBLISH_PORT of wire/egress.h), bytes both ways with ends of
 * direction.
 *
 * What comes out of the guest is passed on and never looked at. Runs in a process of its own.
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
/* Serves until `end_fd` (or -1) is readable or hung up, or a termination signal comes.
 * `socket_base` is the session's (session_files.h). 0 or a negative errno. */
int port_forward_serve(const char *socket_base, const struct forward_listener *listeners,
		       size_t count, int end_fd);

#endif
