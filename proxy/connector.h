/*
 * From a name and a port to a connected stream, or to the reason why there is none.
 *
 * The name is resolved once (proxy/resolver.h judges the answer whole), and the connection goes to
 * one of just these addresses: they are tried with IPv6 and IPv4 in turn, the next one when the
 * one before fails or has not answered in a quarter of a second, and the first to answer wins
 * (RFC 8305). The winner's peer must be the address that was dialled, and must not be the host.
 *
 * With an upstream proxy the connection goes there instead, and a tunnel to the name is asked for;
 * names that the person pinned to an address are dialled directly all the same.
 *
 * Results arrive in the callback, never from inside connector_start().
 */
#ifndef PROXY_CONNECTOR_H
#define PROXY_CONNECTOR_H

#include "proxy/resolver.h"
#include "proxy/upstream_proxy.h"

#define CONNECTOR_ATTEMPTS_MAX 1024u /* under way at once */
#define CONNECTOR_TIMEOUT_MS 15000u  /* resolving included */
#define CONNECTOR_FALLBACK_MS 250u

struct connect_result {
	int fd; /* connected, non-blocking, TCP_NODELAY; the callee's from now on. -1: none */
	struct ip_address address; /* the stream's other end; family 0 when none was dialled */
	/* NULL, or a word that stays: name_not_found, resolve_failed, address_blocked,
	 * connect_failed, connect_timeout, upstream_proxy_failed; too_many_connections when there
	 * was no file left for a socket */
	const char *reason;
	char detail[256]; /* for a person: what failed, where, why; printable */
};

typedef void connector_done(void *context, struct connect_result *result);

struct connector;
struct connector_attempt;

struct connector_options {
	struct event_loop *loop;
	struct resolver *resolver;
	const struct upstream_proxy *upstream; /* borrowed; or NULL */
	unsigned timeout_ms;		       /* 0: CONNECTOR_TIMEOUT_MS */
	uint64_t files_max;		       /* that the process may have open */
};

/* -ENOMEM. */
int connector_new(const struct connector_options *options, struct connector **ret_connector);
/* Attempts that are under way must have been cancelled. */
void connector_free(struct connector *connector);

/* -EBUSY over the limits, -ENOMEM, -EMFILE. The attempt is gone when `done` is called. */
int connector_start(struct connector *connector, const struct host_name *name, uint16_t port,
		    connector_done *done, void *context, struct connector_attempt **ret_attempt);
/* `done` will not be called. */
void connector_cancel(struct connector_attempt *attempt);

/* What connecting calls once the jail is shut, resolver_calls apart. */
extern const struct jail_syscall_set connector_calls;

#endif
