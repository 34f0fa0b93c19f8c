#include "proxy/request_report.h"

#include "base/checked.h"
#include "base/clock.h"
#include "proxy/egress_report.h"
#include "proxy/exchange.h"

#include <string.h>

void request_report_head(struct request_report *report, const struct http_leg *guest)
{
	struct http_text method = http_head_method(guest->head);
	struct http_text path = http_head_path(guest->head);
	const char *query = memchr(path.data, '?', path.length);

	if (query)
		path.length = (size_t)(query - path.data);
	memcpy(report->method, method.data, MIN_OF(method.length, HTTP_METHOD_LOGGED_MAX));
	memcpy(report->path, path.data, MIN_OF(path.length, PATH_LOGGED_MAX));
	report->version = guest->version;
	report->announced = guest->framing.has_length ? guest->framing.length : 0;
}

/* Of the request's body: what the guest said that it would send, or what has come of it. */
static uint64_t withheld(const struct request_report *report)
{
	const struct body_pipe *request = report->request;
	uint64_t offered = MAX_OF(report->announced, request->taken);

	return offered - MIN_OF(offered, request->moved);
}

static const char *protocol_of(const struct request_report *report)
{
	if (!report->origin->is_tls)
		return "http";
	return report->version == 2 ? "h2" : "https";
}

void request_report_tell(struct request_report *report, const char *reason, bool is_denial,
			 const char *hint)
{
	const struct request_verdict *verdict = report->verdict;
	uint64_t ended_ns = report->ended_ns ? report->ended_ns : clock_now_ns();
	char secrets[REQUEST_SECRETS_MAX];
	struct egress_entry entry = {
		.operation = "request",
		.host = report->origin->name.text,
		.port = report->origin->port,
		.address = report->address.family ? &report->address : NULL,
		.protocol = protocol_of(report),
		.method = report->method,
		.path = report->path,
		.status = report->status,
		.reason = reason,
		.rule = verdict->rule[0] ? verdict->rule : NULL,
		.hint = hint,
		.sent = report->request->moved,
		.received = report->response->moved,
		.withheld = is_denial ? withheld(report) : 0,
		.duration_ns = ended_ns - report->started_ns,
	};

	if (report->is_told)
		return;
	report->is_told = true;
	request_secret_names(report->services, verdict, secrets);
	entry.secrets = secrets[0] ? secrets : NULL;
	if (is_denial)
		egress_report_denial(report->services->report, &entry);
	else
		egress_report_request(report->services->report, &entry);
}
