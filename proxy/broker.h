/*
 * The broker as a whole: reads what it was given, makes what connections work with, shuts the jail,
 * and serves until matchlock closes the control socket.
 */
#ifndef PROXY_BROKER_H
#define PROXY_BROKER_H

/* Descriptors; the broker's from now on. -1: not given. */
struct broker_options {
	int config_fd;	    /* proxy_config.h */
	int secrets_fd;	    /* wire/secret_bundle.h; may be -1 */
	int listen_fd;	    /* Unix socket that listens, for EGRESS_STREAM_PORT */
	int dns_fd;	    /* the same, for EGRESS_DNS_PORT */
	int control_fd;	    /* wire/proxy_control.h; may be -1: then SIGTERM ends it */
	int audit_fd;	    /* wire/audit.h; may be -1 */
	int upstream_ca_fd; /* PEM; may be -1 */
};

/* Returns 0 when it ended in order, or a negative errno after a message. */
int broker_run(const struct broker_options *options);

#endif
