#include "proxy/request_check.h"

#include "proxy/egress_policy.h"
#include "proxy/exchange.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define HTTP_PORT 80
#define HTTPS_PORT 443

__attribute__((format(printf, 4, 5))) static bool refuse(struct request_verdict *verdict,
							 unsigned status, const char *reason,
							 const char *hint, ...)
{
	va_list arguments;

	verdict->status = status;
	verdict->is_denial = status == 403 || status == 421;
	verdict->reason = reason;
	va_start(arguments, hint);
	vsnprintf(verdict->hint, sizeof(verdict->hint), hint, arguments);
	va_end(arguments);
	return false;
}

static bool check_method(const struct http_head *head, struct request_verdict *verdict)
{
	struct http_text method = http_head_method(head);

	if (http_text_is(method, "CONNECT"))
		return refuse(verdict, 403, "connect_not_allowed",
			      "no tunnels through this broker: connect to the host itself");
	/* It would send back what the broker put in. */
	if (http_text_is(method, "TRACE"))
		return refuse(verdict, 403, "trace_not_allowed", "TRACE is not carried");
	return true;
}

/* One spelling of the target's host: it must be the one that the connection goes to. */
static bool check_authority(struct http_text authority, const struct exchange_origin *origin,
			    struct request_verdict *verdict)
{
	uint16_t default_port = origin->is_tls ? HTTPS_PORT : HTTP_PORT;
	struct host_name name;
	uint16_t port;
	int error = authority_parse(authority.data, authority.length, default_port, &name, &port);

	if (error == -ENOTSUP)
		return refuse(verdict, 403, "address_literal",
			      "use a host name; addresses are never connected to");
	if (error)
		return refuse(verdict, 400, "host_invalid", "the host is no host name");
	if (!host_name_equal(&name, &origin->name) || port != origin->port)
		return refuse(verdict, origin->is_tls ? 421 : 403, "host_mismatch",
			      "the request is for another host than the connection: %s:%u",
			      origin->name.text, origin->port);
	return true;
}

static bool check_names(struct http_head *head, const struct exchange_origin *origin,
			struct request_verdict *verdict)
{
	struct http_text scheme = http_head_scheme(head);
	struct http_text authority = http_head_authority(head);
	ssize_t host = http_head_find(head, "host", 0);

	if (scheme.length > 0 && !http_text_is(scheme, origin->is_tls ? "https" : "http"))
		return refuse(verdict, 421, "scheme_mismatch",
			      "the target's scheme is not the connection's");
	/* HTTP/1.0 can do without. */
	if (authority.length > 0 && !check_authority(authority, origin, verdict))
		return false;
	return host < 0 ||
	       check_authority(http_head_field(head, (size_t)host).value, origin, verdict);
}

/* The server gets the name as it was checked, not as it was spelled. */
static bool set_authority(struct http_head *head, const struct exchange_origin *origin,
			  struct request_verdict *verdict)
{
	char text[HOST_NAME_MAX_LENGTH + 8];
	uint16_t default_port = origin->is_tls ? HTTPS_PORT : HTTP_PORT;

	if (origin->port == default_port)
		snprintf(text, sizeof(text), "%s", origin->name.text);
	else
		snprintf(text, sizeof(text), "%s:%u", origin->name.text, origin->port);
	if (http_head_set_authority(head, text, strlen(text)) < 0)
		return refuse(verdict, 431, "head_too_large", "the head has no room left");
	return true;
}

static bool check_rules(const struct services *services, const struct exchange_origin *origin,
			const struct http_head *head, struct request_verdict *verdict)
{
	struct egress_verdict judged;

	egress_policy_judge_request(services->policy, &origin->name, origin->port, head, &judged);
	snprintf(verdict->rule, sizeof(verdict->rule), "%s", judged.rule);
	if (!judged.allowed)
		return refuse(verdict, 403, judged.reason, "%s", judged.hint);
	return true;
}

void request_check(const struct services *services, const struct exchange_origin *origin,
		   struct http_leg *guest, struct request_verdict *ret_verdict)
{
	struct http_head *head = guest->head;

	*ret_verdict = (struct request_verdict){ .is_allowed = false };
	if (origin->denied) {
		refuse(ret_verdict, 403, origin->denied,
		       "use a host name; addresses are never connected to");
		return;
	}
	ret_verdict->is_allowed = check_method(head, ret_verdict) &&
				  check_names(head, origin, ret_verdict) &&
				  set_authority(head, origin, ret_verdict) &&
				  check_rules(services, origin, head, ret_verdict);
}
