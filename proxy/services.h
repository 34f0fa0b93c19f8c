/*
 * What every connection of the broker works with, made once by broker.c. All is borrowed.
 */
#ifndef PROXY_SERVICES_H
#define PROXY_SERVICES_H

#include "base/event_loop.h"
#include "proxy/client_identity.h"

struct services {
	struct event_loop *loop;
	struct egress_policy *policy;
	struct synthetic_addresses *addresses;
	struct connector *connector;
	struct tls *tls;
	struct client_identities identities;
	struct secret_store *secrets; /* NULL: none */
	struct upstream_pool *upstreams;
	struct egress_report *report;
	uint64_t files_max; /* that the process may have open */
};

#endif
