#include "proxy/request_check.h"

#include "proxy/egress_policy.h"
#include "proxy/exchange.h"
#include "proxy/git_push.h"
#include "proxy/secret_request.h"
#include "proxy/secret_store.h"

#include <assert.h>
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

/* One spelling of the target's host: it must be the one that the connection goes to. Without a port
 * it has the connection's, though RFC 9110 section 7.2 has the scheme's: cargo leaves out every
 * port, and the server gets the right one anyway. */
static bool check_authority(struct http_text authority, const struct exchange_origin *origin,
			    struct request_verdict *verdict)
{
	struct host_name name;
	uint16_t port;
	int error = authority_parse(authority.data, authority.length, origin->port, &name, &port);

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
	uint16_t default_port = origin->is_tls ? HTTPS_PORT : HTTP_PORT;
	const char *authority = origin->name.text;
	char text[HOST_NAME_MAX_LENGTH + 8];

	if (origin->port != default_port) {
		snprintf(text, sizeof(text), "%s:%u", origin->name.text, origin->port);
		authority = text;
	}
	if (http_head_set_authority(head, authority, strlen(authority)) < 0)
		return refuse(verdict, 431, "head_too_large", "the head has no room left");
	return true;
}

/* ---- rules and secrets ---------------------------------------------------------------------- */

void request_refuse(struct request_verdict *verdict, const struct egress_verdict *judged)
{
	verdict->is_allowed = false;
	snprintf(verdict->rule, sizeof(verdict->rule), "%s", judged->rule);
	refuse(verdict, 403, judged->reason, "%s", judged->hint);
}

int request_check_push(struct http_leg *guest, struct body_filter **ret_filter,
		       struct request_verdict *verdict)
{
	struct egress_verdict judged;
	int error = verdict->limits
			    ? git_push_prepare(verdict->limits, guest->head, ret_filter, &judged)
			    : 0;

	if (error == -EACCES)
		request_refuse(verdict, &judged);
	return error;
}

bool request_check_secrets(const struct services *services, struct request_verdict *verdict)
{
	const struct secret_verdict *secret = &verdict->secret;

	if (secret->refusal == SECRET_REFUSAL_NONE)
		return true;
	verdict->is_allowed = false;
	if (secret->refusal == SECRET_REFUSAL_CANARY)
		egress_policy_note_canary(services->policy);
	return refuse(verdict, 403, secret_refusal_code(secret->refusal), "%s%s", secret->hint,
		      egress_policy_is_frozen(services->policy)
			      ? "; the session is frozen: nothing of it reaches the network any "
				"more"
			      : "");
}

/* Rules may bind a secret to some requests of its host. One that could go into a body is refused
 * there, too: the body is not known yet. */
static bool check_bindings(const struct services *services, const struct http_head *head,
			   struct request_verdict *verdict)
{
	struct secret_verdict *secrets = &verdict->secret;

	for (size_t i = 0; i < secret_store_count(services->secrets); i++) {
		const struct secret *secret = secret_store_get(services->secrets, i);
		struct egress_verdict judged;
		bool is_used = secret_set_has(&secrets->used, i);
		bool is_for_body =
			secret_set_has(&secrets->bound, i) && (secret->flags & SECRET_FLAG_BODY);

		if (!is_used && !is_for_body)
			continue;
		egress_rule_judge_secret(verdict->limits, secret->name, head, &judged);
		if (judged.allowed)
			continue;
		if (is_used) {
			request_refuse(verdict, &judged);
			return false;
		}
		secret_set_remove(&secrets->bound, i);
	}
	return true;
}

static bool put_secrets(const struct services *services, const struct exchange_origin *origin,
			struct http_head *head, const uint8_t *body_digest,
			struct request_verdict *verdict)
{
	const struct secret_request request = {
		.host = origin->name,
		.port = origin->port,
		.is_verified = origin->is_tls,
		.body_digest = body_digest,
	};
	int error;

	if (!services->secrets)
		return true;
	error = secrets_prepare_request(services->secrets, head, &request, &verdict->secret);
	if (error == -E2BIG)
		return refuse(verdict, 431, "head_too_large", "the head has no room left");
	if (error)
		return refuse(verdict, 503, "out_of_memory", "the broker is out of memory");
	return request_check_secrets(services, verdict) && check_bindings(services, head, verdict);
}

static bool check_rules(const struct services *services, const struct exchange_origin *origin,
			struct http_head *head, struct request_verdict *verdict)
{
	struct egress_verdict judged;

	egress_policy_judge_request(services->policy, &origin->name, origin->port, head, &judged);
	static_assert(sizeof(verdict->rule) == sizeof(judged.rule), "a rule has one length");
	memcpy(verdict->rule, judged.rule, strlen(judged.rule) + 1);
	verdict->limits = judged.limits;
	if (judged.allowed)
		return put_secrets(services, origin, head, NULL, verdict);
	/* It goes nowhere; but that it carries a decoy is what a person wants to know first. */
	if (services->secrets && !put_secrets(services, origin, head, NULL, verdict) &&
	    verdict->secret.refusal == SECRET_REFUSAL_CANARY)
		return false;
	return refuse(verdict, 403, judged.reason, "%s", judged.hint);
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

void request_check_signed(const struct services *services, const struct exchange_origin *origin,
			  struct http_leg *guest, const uint8_t *body_digest,
			  struct request_verdict *verdict)
{
	verdict->is_allowed = put_secrets(services, origin, guest->head, body_digest, verdict);
}

void request_secret_names(const struct services *services, const struct request_verdict *verdict,
			  char names[REQUEST_SECRETS_MAX])
{
	size_t length = 0;

	names[0] = '\0';
	for (size_t i = 0; services->secrets && i < secret_store_count(services->secrets); i++) {
		if (!secret_set_has(&verdict->secret.used, i) || length >= REQUEST_SECRETS_MAX)
			continue;
		length += (size_t)snprintf(names + length, REQUEST_SECRETS_MAX - length, "%s%s",
					   length > 0 ? "," : "",
					   secret_store_get(services->secrets, i)->name);
	}
}
