#include "proxy/request_filters.h"

#include "proxy/body_limit.h"
#include "proxy/exchange.h"
#include "proxy/git_push.h"
#include "proxy/request_body.h"
#include "proxy/secret_filter.h"
#include "proxy/secret_request.h"

#include <errno.h>

static int check_trailers(void *context, struct http_head *trailers)
{
	const struct request_filters *filters = context;
	struct secret_verdict *verdict = &filters->verdict->secret;

	secrets_check_trailers(filters->services->secrets, trailers, verdict);
	return verdict->refusal == SECRET_REFUSAL_NONE ? 0 : -EACCES;
}

int request_filters_add(struct request_filters *filters, const struct services *services,
			const struct exchange_origin *origin, struct http_leg *guest,
			struct body_pipe *pipe, struct request_verdict *verdict)
{
	struct body_filter *secrets = NULL;
	int error;

	*filters = (struct request_filters){
		.services = services,
		.verdict = verdict,
		.pipe = pipe,
	};
	error = request_check_push(guest, &filters->push, verdict);
	if (error || guest->framing.kind == HTTP_FRAMING_NONE) {
		body_pipe_add(pipe, filters->push);
		return error;
	}
	if (services->secrets) {
		pipe->check_trailers = check_trailers;
		pipe->context = filters;
		error = request_body_filter(services->secrets, guest->head, verdict->limits,
					    origin->is_tls, &verdict->secret, &secrets,
					    &filters->secrets);
	}
	if (error == -EACCES)
		(void)request_check_secrets(services, verdict);
	body_pipe_add(pipe, secrets);
	body_pipe_add(pipe, filters->push);
	if (body_limit_is_needed(verdict->limits, false)) {
		filters->limit = body_limit_new(services->policy, verdict->limits, false);
		error = filters->limit ? error : -ENOMEM;
	}
	body_pipe_add(pipe, filters->limit);
	return error;
}

void request_filters_report(const struct request_filters *filters)
{
	if (filters->secrets)
		secret_filter_report(filters->secrets, &filters->verdict->secret);
}

void request_filters_refuse(const struct request_filters *filters)
{
	const struct body_pipe *pipe = filters->pipe;
	/* Trailers are checked behind all filters, for secrets. */
	const struct body_filter *blocker = pipe->blocked_by < pipe->filter_count
						    ? pipe->filters[pipe->blocked_by]
						    : filters->secrets;

	if (blocker && blocker == filters->limit)
		request_refuse(filters->verdict, body_limit_verdict(blocker));
	else if (blocker && blocker == filters->push)
		request_refuse(filters->verdict, git_push_verdict(blocker));
	else
		request_filters_report(filters);
	(void)request_check_secrets(filters->services, filters->verdict);
}
