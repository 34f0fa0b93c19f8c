#include "proxy/response_filters.h"

#include "proxy/body_limit.h"
#include "proxy/secret_response.h"
#include "proxy/secret_store.h"

#include <errno.h>

static int check_trailers(void *context, struct http_head *trailers)
{
	const struct response_filters *filters = context;

	return secrets_redact_trailers(filters->services->secrets, trailers,
				       &filters->verdict->secret);
}

void response_filters_init(struct response_filters *filters, const struct services *services,
			   struct body_pipe *pipe, struct request_verdict *verdict)
{
	*filters = (struct response_filters){
		.services = services,
		.verdict = verdict,
		.pipe = pipe,
	};
}

int response_filters_redact(struct response_filters *filters, struct http_leg *server)
{
	struct secret_store *secrets = filters->services->secrets;
	struct secret_verdict *verdict = &filters->verdict->secret;
	int error;

	if (!secrets)
		return 0;
	error = secrets_prepare_response(secrets, server->head,
					 server->framing.kind != HTTP_FRAMING_NONE, verdict,
					 &filters->secrets);
	filters->pipe->check_trailers = check_trailers;
	filters->pipe->context = filters;
	if (error)
		return error;
	return verdict->refusal == SECRET_REFUSAL_NONE ? 0 : -EACCES;
}

int response_filters_add(struct response_filters *filters)
{
	const struct egress_rule *limits = filters->verdict->limits;

	body_pipe_add(filters->pipe, filters->secrets);
	if (!body_limit_is_needed(limits, true))
		return 0;
	filters->limit = body_limit_new(filters->services->policy, limits, true);
	body_pipe_add(filters->pipe, filters->limit);
	return filters->limit ? 0 : -ENOMEM;
}

const char *response_filters_reason(const struct response_filters *filters,
				    const struct egress_verdict **ret_limit)
{
	const struct body_pipe *pipe = filters->pipe;

	*ret_limit = NULL;
	if (filters->limit && pipe->blocked_by + 1 == pipe->filter_count) {
		*ret_limit = body_limit_verdict(filters->limit);
		return (*ret_limit)->reason;
	}
	return secret_refusal_code(secret_store_is_probed(filters->services->secrets)
					   ? SECRET_REFUSAL_PROBED
					   : SECRET_REFUSAL_TOKEN);
}
