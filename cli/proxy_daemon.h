/*
 * The broker, matchlock-proxy, as matchlock starts, asks and ends it (wire/proxy_control.h).
 *
 * What it is told goes through descriptors that leave no trace: the configuration, which may hold
 * an upstream proxy's password, and the secrets are in sealed memory, not in files, arguments or
 * the environment.
 */
#ifndef CLI_PROXY_DAEMON_H
#define CLI_PROXY_DAEMON_H

#include "cli/launch.h"
#include "cli/options.h"
#include "cli/paths.h"
#include "cli/plan.h"
#include "wire/proxy_control.h"

#include <stdint.h>

struct proxy_daemon {
	struct child child;
	int control; /* SOCK_SEQPACKET; -1 when closed */
	/* Once it is ready: */
	char *certificate; /* PEM */
	uint32_t certificate_hash;
	struct text_list placeholders; /* "NAME=VALUE" */
};

#define PROXY_DAEMON_INIT                                                                          \
	{                                                                                          \
		.child = CHILD_INIT("proxy"), .control = -1                                        \
	}

struct proxy_sockets {
	int streams; /* listening, EGRESS_STREAM_PORT */
	int queries; /* listening, EGRESS_DNS_PORT */
	int audit;
	int secrets; /* sealed; wire/secret_bundle.h; or -1 */
};

/* The sockets stay the caller's. */
int proxy_daemon_start(struct proxy_daemon *proxy, const struct plan *plan,
		       const struct run_options *options, const struct paths *paths,
		       const struct proxy_sockets *sockets, struct problem *problem);
/* Waits for its certificate and placeholders. */
int proxy_daemon_wait_ready(struct proxy_daemon *proxy, struct problem *problem);
/* Sends one of the ALLOW_ messages; the answer's text is the caller's to free. Returns its error,
 * an errno, or 0; -1 with *problem set when there was no answer. */
int proxy_daemon_ask(struct proxy_daemon *proxy, enum proxy_control_type type, const char *text,
		     char **ret_text, struct problem *problem);
/* Tells it to finish; child_wait() tells when it has. */
void proxy_daemon_finish(struct proxy_daemon *proxy);
void proxy_daemon_release(struct proxy_daemon *proxy);

#endif
