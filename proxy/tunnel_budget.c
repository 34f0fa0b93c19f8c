#include "proxy/tunnel_budget.h"

#include "proxy/body_limit.h"
#include "proxy/egress_report.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct tunnel_budget {
	struct tunnel_screen screen; /* first: its operations find the budget by it */
	const struct services *services;
	const struct exchange_origin *origin;
	struct body_filter *out; /* from the guest */
	struct body_filter *in;
	uint64_t sent;
	const char *reason;
};

static void refuse(struct tunnel_budget *budget, const struct egress_verdict *verdict,
		   uint64_t withheld)
{
	const struct egress_entry entry = {
		.operation = "tunnel",
		.host = budget->origin->name.text,
		.port = budget->origin->port,
		.protocol = "tcp",
		.reason = verdict->reason,
		.rule = verdict->rule,
		.hint = verdict->hint,
		.sent = budget->sent,
		.withheld = withheld,
	};

	budget->reason = verdict->reason;
	egress_report_denial(budget->services->report, &entry);
}

static int pass(struct tunnel_screen *screen, bool from_guest, const uint8_t *data, size_t length,
		struct byte_buffer *out)
{
	struct tunnel_budget *budget = (struct tunnel_budget *)screen;
	struct body_filter *limit = from_guest ? budget->out : budget->in;

	if (body_limit_count(limit, length) < 0) {
		refuse(budget, body_limit_verdict(limit), from_guest ? length : 0);
		return -EACCES;
	}
	budget->sent += from_guest ? length : 0;
	return byte_buffer_append(out, data, length);
}

struct tunnel_budget *tunnel_budget_new(const struct services *services,
					const struct exchange_origin *origin,
					const struct egress_rule *limits)
{
	struct tunnel_budget *budget = calloc(1, sizeof(*budget));

	static_assert(offsetof(struct tunnel_budget, screen) == 0, "a screen is its budget");
	if (!budget)
		return NULL;
	budget->screen = (struct tunnel_screen){ pass, NULL };
	budget->services = services;
	budget->origin = origin;
	budget->out = body_limit_new(services->policy, limits, false);
	budget->in = body_limit_new(services->policy, limits, true);
	if (!budget->out || !budget->in) {
		tunnel_budget_free(budget);
		return NULL;
	}
	return budget;
}

void tunnel_budget_free(struct tunnel_budget *budget)
{
	if (!budget)
		return;
	if (budget->out)
		budget->out->free(budget->out);
	if (budget->in)
		budget->in->free(budget->in);
	free(budget);
}

struct tunnel_screen *tunnel_budget_screen(struct tunnel_budget *budget)
{
	return &budget->screen;
}

const char *tunnel_budget_reason(const struct tunnel_budget *budget)
{
	return budget->reason;
}
