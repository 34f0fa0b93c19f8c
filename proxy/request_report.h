/*
 * What the log is told of one request: once, when it is refused, answered or given up.
 */
#ifndef PROXY_REQUEST_REPORT_H
#define PROXY_REQUEST_REPORT_H

#include "proxy/address_class.h"
#include "proxy/body_pipe.h"
#include "proxy/http_leg.h"
#include "proxy/request_check.h"
#include "proxy/services.h"

#include <stdbool.h>
#include <stdint.h>

#define PATH_LOGGED_MAX 2048u

struct request_report {
	const struct services *services;
	const struct exchange_origin *origin;
	const struct request_verdict *verdict;
	const struct body_pipe *request; /* what went through them is told */
	const struct body_pipe *response;
	unsigned version;   /* of the guest's HTTP */
	uint64_t announced; /* length of the request's body; 0 when the head does not say */
	/* What the head says, cut; the path without its query. */
	char method[HTTP_METHOD_LOGGED_MAX + 1];
	char path[PATH_LOGGED_MAX + 1];
	struct ip_address address; /* of the server, set by the user; family 0: none */
	unsigned status;	   /* of the answer, set by the user; 0: none */
	uint64_t started_ns;	   /* set by the user */
	uint64_t ended_ns;	   /* the same; 0: when it is told */
	bool is_told;
};

void request_report_head(struct request_report *report, const struct http_leg *guest);
/* `reason` and `hint` may be NULL. */
void request_report_tell(struct request_report *report, const char *reason, bool is_denial,
			 const char *hint);

#endif
