/*
 * What the broker tells the audit log (wire/audit.h): one event a request, refusal or tunnel.
 *
 * To tell a process something wakes it, which takes longer than to answer a request. So the events
 * of requests wait until egress_report_flush(), which has to be called before anybody sleeps, or
 * until there are more of them; any other event goes at once, and with it those before it.
 */
#ifndef PROXY_EGRESS_REPORT_H
#define PROXY_EGRESS_REPORT_H

#include "proxy/address_class.h"

#include <stdbool.h>
#include <stdint.h>

struct egress_report;

/* One request or connection that is over. Texts may be NULL; none holds a secret. */
struct egress_entry {
	const char *operation; /* of a connection or a denial: "request", "connect", "tunnel" */
	const char *host;
	uint16_t port;
	const struct ip_address *address; /* NULL: no server was reached */
	const char *protocol;		  /* "http/1.1", "tls", "tcp" */
	const char *method;
	const char *path; /* the query is not in it */
	unsigned status;  /* 0: none was sent */
	const char *reason;
	const char *rule;
	const char *hint;
	const char *secrets; /* names, with commas */
	uint64_t sent;
	uint64_t received;
	uint64_t withheld; /* of a denial: bytes that the guest offered and that did not leave */
	uint64_t duration_ns;
};

/* Records of decoys in a session; their denials go on. */
#define EGRESS_REPORT_CANARIES_MAX 16u

/* `audit_fd` is a SOCK_SEQPACKET socket, or -1: nothing is told. NULL without memory. */
struct egress_report *egress_report_new(int audit_fd);
void egress_report_free(struct egress_report *report);
/* Sends what waits; so does egress_report_free(). */
void egress_report_flush(struct egress_report *report);
/* The audit process no longer takes events: the session must end. */
bool egress_report_has_failed(const struct egress_report *report);

void egress_report_jail(struct egress_report *report, const char *detail);
void egress_report_request(struct egress_report *report, const struct egress_entry *entry);
/* One because of a decoy is told twice, once as a record that no quota of denials holds back. */
void egress_report_denial(struct egress_report *report, const struct egress_entry *entry);
void egress_report_connection(struct egress_report *report, const struct egress_entry *entry);

#endif
