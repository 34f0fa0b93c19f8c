#include "proxy/exchange.h"

#include "base/checked.h"
#include "proxy/answer.h"
#include "proxy/body_limit.h"
#include "proxy/body_pipe.h"
#include "proxy/canary_search.h"
#include "proxy/egress_policy.h"
#include "proxy/egress_report.h"
#include "proxy/git_push.h"
#include "proxy/grpc_filter.h"
#include "proxy/request_body.h"
#include "proxy/request_check.h"
#include "proxy/secret_filter.h"
#include "proxy/secret_request.h"
#include "proxy/secret_response.h"
#include "proxy/shortage.h"
#include "proxy/tls.h"
#include "proxy/websocket.h"
#include "proxy/websocket_relay.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/*
 * Theory of operation. Everything happens in exchange_turn(), which looks at both legs and moves
 * what can be moved; it is called whenever either leg changed, and may be called at any time. The
 * states follow each other in this order; ANSWERING replaces what has not begun yet.
 *
 *	NEW		the guest's head is complete and not looked at
 *	HOLDING		the body is collected, because a signature in the head is over it
 *	SEARCHING	the request goes nowhere, and its body is searched for decoys
 *	CONNECTING	waits for a server's connection
 *	RELAYING	the request was begun; the response may have been
 *	OVER		the turn ends with `done`
 *
 * A server closes idle connections when it likes. When one that was used before ends without a byte
 * of answer, a request without a body is sent once more on a new one: the server has not seen it,
 * or would have answered.
 */
enum exchange_state {
	EXCHANGE_NEW,
	EXCHANGE_HOLDING,
	EXCHANGE_SEARCHING,
	EXCHANGE_CONNECTING,
	EXCHANGE_RELAYING,
	EXCHANGE_OVER,
};

#define PATH_LOGGED_MAX 2048u

struct exchange {
	const struct services *services;
	const struct exchange_origin *origin;
	struct http_leg *guest;
	struct upstream *upstream;
	bool is_connecting; /* `upstream` is not ours to use yet */
	bool was_retried;
	bool response_begun;
	bool is_reported;
	bool expects_continue;
	bool is_websocket;
	struct websocket_relay *websocket; /* owned until taken */
	bool is_head;
	unsigned interims; /* responses */
	char accept[WEBSOCKET_ACCEPT_SIZE];
	enum exchange_state state;
	struct byte_buffer held; /* HOLDING, SEARCHING */
	struct body_pipe request;
	struct body_pipe response;
	/* In `request` and `response`, borrowed; each may be NULL. */
	struct body_filter *request_secrets;
	struct body_filter *request_limit;
	struct body_filter *request_push;
	struct body_filter *response_secrets;
	struct body_filter *response_limit;
	exchange_done *done; /* NULL once it was called */
	void *context;
	enum exchange_outcome outcome;
	/* For the log and for answers. */
	char method[HTTP_METHOD_LOGGED_MAX + 1];
	char path[PATH_LOGGED_MAX + 1];
	struct request_verdict verdict;
	unsigned status;
	const char *problem; /* a code: why it went wrong */
	struct ip_address address;
	uint64_t started_ns;
};

/* ---- the log -------------------------------------------------------------------------------- */

static const char *protocol_of(const struct exchange *exchange)
{
	if (!exchange->origin->is_tls)
		return "http";
	return exchange->guest->version == 2 ? "h2" : "https";
}

static void tell(struct exchange *exchange, const char *reason, bool is_denial, const char *hint)
{
	struct request_verdict *verdict = &exchange->verdict;
	char secrets[REQUEST_SECRETS_MAX];
	struct egress_entry entry = {
		.operation = "request",
		.host = exchange->origin->name.text,
		.port = exchange->origin->port,
		.address = exchange->address.family ? &exchange->address : NULL,
		.protocol = protocol_of(exchange),
		.method = exchange->method,
		.path = exchange->path,
		.status = exchange->status,
		.reason = reason,
		.rule = verdict->rule[0] ? verdict->rule : NULL,
		.hint = hint,
		.sent = exchange->request.moved,
		.received = exchange->response.moved,
		.duration_ns = services_now_ns() - exchange->started_ns,
	};

	if (exchange->is_reported)
		return;
	exchange->is_reported = true;
	if (exchange->request_secrets)
		secret_filter_report(exchange->request_secrets, &verdict->secret);
	request_secret_names(exchange->services, verdict, secrets);
	entry.secrets = secrets[0] ? secrets : NULL;
	if (is_denial)
		egress_report_denial(exchange->services->report, &entry);
	else
		egress_report_request(exchange->services->report, &entry);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void drop_upstream(struct exchange *exchange)
{
	if (!exchange->upstream)
		return;
	if (exchange->is_connecting)
		upstream_cancel(exchange->upstream);
	else
		upstream_release(exchange->upstream);
	exchange->upstream = NULL;
	exchange->is_connecting = false;
}

static void finish(struct exchange *exchange, enum exchange_outcome outcome)
{
	tell(exchange, exchange->problem, false, NULL);
	exchange->state = EXCHANGE_OVER;
	exchange->outcome = outcome;
	if (outcome != EXCHANGE_UPGRADED)
		drop_upstream(exchange);
}

static void cut(struct exchange *exchange, const char *problem)
{
	exchange->problem = problem;
	finish(exchange, EXCHANGE_CUT);
}

static int send_answer(struct exchange *exchange, struct http_head *head,
		       const struct byte_buffer *body)
{
	struct http_leg *guest = exchange->guest;
	struct http_framing framing = {
		.kind = exchange->is_head ? HTTP_FRAMING_NONE : HTTP_FRAMING_LENGTH,
		.has_length = true,
		.length = byte_buffer_length(body),
	};
	int error;

	/* What the guest has yet to send of its request will not be read. */
	guest->closes = guest->receiving != HTTP_RECEIVING_ENDED;
	error = guest->ops->send_head(guest, head, &framing);
	if (error || exchange->is_head)
		return error;
	if (guest->ops->room(guest) < byte_buffer_length(body))
		return -ENOBUFS;
	error = guest->ops->send_body(guest, byte_buffer_front(body), byte_buffer_length(body));
	return error ? error : guest->ops->send_end(guest, NULL);
}

/* Answers in the broker's own name; nothing of a response may have been begun. */
static void answer(struct exchange *exchange, unsigned status, bool is_denial, const char *reason,
		   const char *hint)
{
	const struct answer contents = {
		.status = status,
		.is_denial = is_denial,
		.reason = reason,
		.host = exchange->origin->name.text,
		.method = { exchange->method, strlen(exchange->method) },
		.path = { exchange->path, strlen(exchange->path) },
		.rule = exchange->verdict.rule[0] ? exchange->verdict.rule : NULL,
		.hint = hint,
	};
	struct http_head *head = http_head_new();
	struct byte_buffer body;
	int error = -ENOMEM;

	byte_buffer_init(&body, ANSWER_BODY_MAX);
	exchange->status = status;
	exchange->response_begun = true;
	tell(exchange, reason, is_denial, hint);
	if (head)
		error = answer_make(&contents, head, &body);
	if (!error)
		error = send_answer(exchange, head, &body);
	http_head_free(head);
	byte_buffer_release(&body);
	finish(exchange, error ? EXCHANGE_CUT : EXCHANGE_DONE);
}

static void refuse(struct exchange *exchange)
{
	const struct request_verdict *verdict = &exchange->verdict;

	answer(exchange, verdict->status, verdict->is_denial, verdict->reason, verdict->hint);
}

/* A decoy was seen in some request: nothing that is under way goes further. */
static void stop_frozen(struct exchange *exchange)
{
	struct egress_verdict judged;

	egress_policy_judge_connection(exchange->services->policy, &exchange->origin->name,
				       exchange->origin->port, &judged);
	drop_upstream(exchange);
	if (exchange->response_begun) {
		cut(exchange, judged.reason);
		return;
	}
	request_refuse(&exchange->verdict, &judged);
	refuse(exchange);
}

/* ---- the server's connection ---------------------------------------------------------------- */

static void on_server_changed(struct http_leg *leg)
{
	exchange_turn(leg->user);
}

/* The request's head, on a connection that is ours. */
static void begin_request(struct exchange *exchange)
{
	struct http_leg *server = upstream_begin(exchange->upstream);
	struct http_leg *guest = exchange->guest;

	exchange->state = EXCHANGE_RELAYING;
	exchange->address = *upstream_address(exchange->upstream);
	server->user = exchange;
	server->changed = on_server_changed;
	server->upgrade = exchange->is_websocket ? "websocket" : NULL;
	server->accepts_trailers = guest->accepts_trailers;
	if (server->version == 1 && grpc_has_messages(guest->head)) {
		answer(exchange, 502, false, "grpc_needs_http2",
		       "the server does not speak HTTP/2, without which there is no gRPC");
		return;
	}
	/* A failure shows as one of the pipe or of the answer. */
	(void)server->ops->send_head(server, guest->head, &guest->framing);
	if (guest->framing.kind == HTTP_FRAMING_NONE)
		exchange->request.state = BODY_PIPE_ENDED;
	if (byte_buffer_length(&exchange->held) > 0)
		body_pipe_take(&exchange->request, &exchange->held);
}

static unsigned failure_status(const char *reason)
{
	if (strcmp(reason, "connect_timeout") == 0)
		return 504;
	return strcmp(reason, "too_many_connections") == 0 ? 503 : 502;
}

static void on_connected(void *context, struct upstream *upstream,
			 const struct upstream_failure *failure)
{
	struct exchange *exchange = context;

	exchange->upstream = upstream;
	exchange->is_connecting = false;
	if (upstream && egress_policy_is_frozen(exchange->services->policy))
		stop_frozen(exchange);
	else if (upstream)
		begin_request(exchange);
	else if (strcmp(failure->reason, "address_blocked") == 0)
		answer(exchange, 403, true, failure->reason, failure->detail);
	else
		answer(exchange, failure_status(failure->reason), false, failure->reason,
		       failure->detail);
	exchange_turn(exchange);
}

static void find_upstream(struct exchange *exchange)
{
	struct upstream_target target = {
		.name = exchange->origin->name,
		.port = exchange->origin->port,
		.is_tls = exchange->origin->is_tls,
		.protocols = TLS_PROTOCOL_HTTP1 |
			     (exchange->guest->version == 2 ? TLS_PROTOCOL_HTTP2 : 0),
	};
	struct upstream_pool *pool = exchange->services->upstreams;
	char hint[SHORTAGE_TEXT_MAX];
	int error;

	exchange->state = EXCHANGE_CONNECTING;
	if (!exchange->upstream && !exchange->was_retried)
		exchange->upstream = upstream_take_idle(pool, &target);
	if (exchange->upstream) {
		begin_request(exchange);
		return;
	}
	error = upstream_connect(pool, &target, on_connected, exchange, &exchange->upstream);
	if (error) {
		shortage_text(error, exchange->services->files_max, hint);
		answer(exchange, 503, false, "too_many_connections", hint);
		return;
	}
	exchange->is_connecting = true;
}

/* ---- the request ---------------------------------------------------------------------------- */

static void note(struct exchange *exchange)
{
	struct http_text method = http_head_method(exchange->guest->head);
	struct http_text path = http_head_path(exchange->guest->head);
	const char *query = memchr(path.data, '?', path.length);

	if (query)
		path.length = (size_t)(query - path.data);
	memcpy(exchange->method, method.data, MIN_OF(method.length, HTTP_METHOD_LOGGED_MAX));
	memcpy(exchange->path, path.data, MIN_OF(path.length, PATH_LOGGED_MAX));
	exchange->is_head = http_text_is_exactly(method, "HEAD");
}

/* The head as the server is to get it. */
static int prepare_head(struct exchange *exchange)
{
	struct http_head *head = exchange->guest->head;

	exchange->is_websocket = exchange->guest->framing.kind == HTTP_FRAMING_NONE &&
				 !exchange->guest->is_old &&
				 websocket_is_request(head, exchange->accept);
	http_head_drop_connection_fields(head);
	if (exchange->is_websocket)
		websocket_drop_extensions(head);
	if (exchange->expects_continue)
		return http_head_add(head, "Expect", 6, "100-continue", 12);
	return 0;
}

static int check_request_trailers(void *context, struct http_head *trailers)
{
	struct exchange *exchange = context;

	secrets_check_trailers(exchange->services->secrets, trailers, &exchange->verdict.secret);
	return exchange->verdict.secret.refusal == SECRET_REFUSAL_NONE ? 0 : -EACCES;
}

/* Filters for a body of the request: what is put in first, what is counted last. 0, -EACCES with
 * the verdict, or -ENOMEM. */
static int prepare_body(struct exchange *exchange)
{
	const struct services *services = exchange->services;
	struct request_verdict *verdict = &exchange->verdict;
	struct body_pipe *pipe = &exchange->request;
	struct body_filter *secrets = NULL;
	int error = request_check_push(exchange->guest, &exchange->request_push, verdict);

	if (error || exchange->guest->framing.kind == HTTP_FRAMING_NONE) {
		body_pipe_add(pipe, exchange->request_push);
		return error;
	}
	if (services->secrets) {
		pipe->check_trailers = check_request_trailers;
		pipe->context = exchange;
	}
	if (services->secrets)
		error = request_body_filter(services->secrets, exchange->guest->head,
					    verdict->limits, exchange->origin->is_tls,
					    &verdict->secret, &secrets, &exchange->request_secrets);
	if (error == -EACCES)
		(void)request_check_secrets(services, verdict);
	body_pipe_add(pipe, secrets);
	body_pipe_add(pipe, exchange->request_push);
	if (body_limit_is_needed(verdict->limits, false)) {
		exchange->request_limit = body_limit_new(services->policy, verdict->limits, false);
		error = exchange->request_limit ? error : -ENOMEM;
	}
	body_pipe_add(pipe, exchange->request_limit);
	return error;
}

static void search(struct exchange *exchange)
{
	if (canary_search(exchange->services, exchange->guest, &exchange->held, &exchange->verdict))
		refuse(exchange);
}

static void refuse_request(struct exchange *exchange)
{
	if (!canary_search_is_wanted(exchange->services, exchange->guest, &exchange->verdict)) {
		refuse(exchange);
		return;
	}
	byte_buffer_release(&exchange->held);
	byte_buffer_init(&exchange->held, CANARY_SEARCH_MAX);
	exchange->state = EXCHANGE_SEARCHING;
	search(exchange);
}

/* Everything is known: to the server with it. */
static void send_on(struct exchange *exchange)
{
	int error = exchange->verdict.is_allowed ? prepare_body(exchange) : -EACCES;

	if (error == -EACCES)
		refuse_request(exchange);
	else if (error || prepare_head(exchange) < 0)
		answer(exchange, 431, false, "head_too_large", "the head has no room left");
	else
		find_upstream(exchange);
}

/* The body is small enough, or it cannot be signed. */
static void hold(struct exchange *exchange)
{
	struct http_leg *guest = exchange->guest;
	uint8_t digest[SHA256_DIGEST_LENGTH];
	size_t length;

	if (guest->receiving == HTTP_RECEIVING_BODY)
		guest->ops->receive(guest, &exchange->held);
	length = byte_buffer_length(&exchange->held);
	if (guest->receiving == HTTP_RECEIVING_FAILED) {
		answer(exchange, 400, false, "request_broken", guest->problem);
		return;
	}
	if (guest->receiving == HTTP_RECEIVING_BODY) {
		if (byte_buffer_room(&exchange->held) == 0)
			answer(exchange, 413, true, "signature_not_possible",
			       "the body is too large to be signed anew");
		return;
	}
	if (EVP_Digest(byte_buffer_front(&exchange->held), length, digest, NULL, EVP_sha256(),
		       NULL) != 1) {
		answer(exchange, 503, false, "out_of_memory", "the broker is out of memory");
		return;
	}
	request_check_signed(exchange->services, exchange->origin, guest, digest,
			     &exchange->verdict);
	send_on(exchange);
}

static void start_holding(struct exchange *exchange)
{
	struct http_leg *guest = exchange->guest;
	const struct http_framing none = { .kind = HTTP_FRAMING_NONE };
	struct http_head *go_on = exchange->expects_continue ? http_head_new() : NULL;

	/* The server cannot be asked before the body is there. */
	if (go_on) {
		http_head_set_status(go_on, 100);
		(void)guest->ops->send_head(guest, go_on, &none);
		(void)guest->ops->flush(guest);
	}
	http_head_free(go_on);
	exchange->expects_continue = false;
	exchange->state = EXCHANGE_HOLDING;
	hold(exchange);
}

static void begin(struct exchange *exchange)
{
	struct http_leg *guest = exchange->guest;
	ssize_t expect = http_head_find(guest->head, "expect", 0);

	note(exchange);
	request_check(exchange->services, exchange->origin, guest, &exchange->verdict);
	if (exchange->verdict.is_allowed && expect >= 0 && !guest->is_old) {
		if (!http_text_is(http_head_field(guest->head, (size_t)expect).value,
				  "100-continue")) {
			answer(exchange, 417, false, "expectation_unknown",
			       "only 100-continue can be expected");
			return;
		}
		exchange->expects_continue = guest->framing.kind != HTTP_FRAMING_NONE;
	}
	if (exchange->verdict.is_allowed && exchange->verdict.secret.needs_body_digest)
		start_holding(exchange);
	else
		send_on(exchange);
}

/* A body that may not go on; what was before the place has gone. The server's connection ends in
 * the middle of the message. */
static void refuse_body(struct exchange *exchange)
{
	struct body_pipe *pipe = &exchange->request;
	struct request_verdict *verdict = &exchange->verdict;
	struct body_filter *blocker = pipe->blocked_by < pipe->filter_count
					      ? pipe->filters[pipe->blocked_by]
					      : exchange->request_secrets;

	if (blocker && blocker == exchange->request_limit)
		request_refuse(verdict, body_limit_verdict(blocker));
	else if (blocker && blocker == exchange->request_push)
		request_refuse(verdict, git_push_verdict(blocker));
	else if (exchange->request_secrets)
		secret_filter_report(exchange->request_secrets, &verdict->secret);
	(void)request_check_secrets(exchange->services, verdict);
	tell(exchange, verdict->reason, true, verdict->hint);
	drop_upstream(exchange);
	if (exchange->response_begun)
		cut(exchange, verdict->reason);
	else
		refuse(exchange);
}

/* False when the exchange is over. */
static bool relay_request(struct exchange *exchange, struct http_leg *server)
{
	struct body_pipe *pipe = &exchange->request;

	body_pipe_move(pipe, exchange->guest, server);
	switch (pipe->state) {
	case BODY_PIPE_OPEN:
	case BODY_PIPE_ENDED:
	/* The server may have answered before it stopped reading. */
	case BODY_PIPE_SINK_FAILED:
		return true;
	case BODY_PIPE_BLOCKED:
		refuse_body(exchange);
		return false;
	case BODY_PIPE_SOURCE_FAILED:
		if (exchange->response_begun)
			cut(exchange, "request_broken");
		else
			answer(exchange, 400, false, "request_broken", exchange->guest->problem);
		return false;
	}
	return true;
}

/* ---- the response --------------------------------------------------------------------------- */

/* The server's leg failed before a response was begun. */
static void on_server_failure(struct exchange *exchange, struct http_leg *server)
{
	bool can_repeat = upstream_was_used(exchange->upstream) &&
			  !upstream_has_answered(exchange->upstream) && !exchange->was_retried &&
			  exchange->guest->framing.kind == HTTP_FRAMING_NONE;
	const char *problem = server->problem;

	if (!can_repeat) {
		answer(exchange, 502, false, "upstream_broken", problem);
		return;
	}
	exchange->was_retried = true;
	drop_upstream(exchange);
	find_upstream(exchange);
}

static int check_response_trailers(void *context, struct http_head *trailers)
{
	struct exchange *exchange = context;

	return secrets_redact_trailers(exchange->services->secrets, trailers,
				       &exchange->verdict.secret);
}

/* Secrets out of the head, and a filter for the body. False when the answer cannot go on, and the
 * exchange is over. */
static bool redact(struct exchange *exchange, struct http_leg *server)
{
	struct secret_store *secrets = exchange->services->secrets;
	struct secret_verdict *verdict = &exchange->verdict.secret;
	struct body_pipe *pipe = &exchange->response;
	int error;

	if (!secrets)
		return true;
	if (exchange->request_secrets)
		secret_filter_report(exchange->request_secrets, verdict);
	error = secrets_prepare_response(secrets, server->head,
					 server->framing.kind != HTTP_FRAMING_NONE, verdict,
					 &exchange->response_secrets);
	pipe->check_trailers = check_response_trailers;
	pipe->context = exchange;
	if (!error && verdict->refusal == SECRET_REFUSAL_NONE)
		return true;
	if (error)
		answer(exchange, 502, false, "upstream_broken", "the answer's head is too large");
	else
		answer(exchange, 502, false, secret_refusal_code(verdict->refusal), verdict->hint);
	return false;
}

/* The filters of a final answer's body. False when there is no memory, and the exchange is over. */
static bool limit_response(struct exchange *exchange)
{
	const struct egress_rule *limits = exchange->verdict.limits;

	body_pipe_add(&exchange->response, exchange->response_secrets);
	if (!body_limit_is_needed(limits, true))
		return true;
	exchange->response_limit = body_limit_new(exchange->services->policy, limits, true);
	body_pipe_add(&exchange->response, exchange->response_limit);
	if (!exchange->response_limit)
		answer(exchange, 503, false, "out_of_memory", "the broker is out of memory");
	return exchange->response_limit != NULL;
}

static void upgrade(struct exchange *exchange, struct http_leg *server)
{
	struct http_leg *guest = exchange->guest;
	const struct http_framing none = { .kind = HTTP_FRAMING_NONE };

	if (!exchange->is_websocket || !websocket_is_accepted(server->head, exchange->accept)) {
		answer(exchange, 502, false, "upgrade_refused",
		       "the server switched protocols and was not asked to, or not rightly");
		return;
	}
	if (!redact(exchange, server))
		return;
	exchange->websocket = websocket_relay_new(exchange->services, exchange->origin,
						  &exchange->verdict, exchange->path);
	if (!exchange->websocket) {
		answer(exchange, 503, false, "out_of_memory", "the broker is out of memory");
		return;
	}
	exchange->status = 101;
	http_head_drop_connection_fields(server->head);
	guest->upgrade = "websocket";
	if (guest->ops->send_head(guest, server->head, &none) < 0)
		finish(exchange, EXCHANGE_CUT);
	else
		finish(exchange, EXCHANGE_UPGRADED);
}

/* Interim responses go on to whoever can read them (RFC 9110 section 15.2). False when the exchange
 * is over. */
static bool relay_interim(struct exchange *exchange, struct http_leg *server)
{
	struct http_leg *guest = exchange->guest;
	const struct http_framing none = { .kind = HTTP_FRAMING_NONE };

	if (!redact(exchange, server))
		return false;
	if (!guest->is_old) {
		http_head_drop_connection_fields(server->head);
		(void)guest->ops->send_head(guest, server->head, &none);
	}
	server->ops->skip_head(server);
	return true;
}

/* HTTP/2 can end with the head where HTTP/1 has to say that there is no body. */
static void set_length(const struct exchange *exchange, struct http_leg *server)
{
	if (server->framing.kind == HTTP_FRAMING_NONE && !exchange->is_head &&
	    exchange->status != 204 && exchange->status != 304) {
		server->framing.has_length = true;
		server->framing.length = 0;
	}
}

/* A server that goes on and on with interim responses. */
#define INTERIM_MAX 64

/* False when there is no final head yet, or the exchange is over. */
static bool begin_response(struct exchange *exchange, struct http_leg *server)
{
	struct http_leg *guest = exchange->guest;

	while (server->receiving == HTTP_RECEIVING_ENDED && http_head_status(server->head) < 200 &&
	       exchange->interims < INTERIM_MAX) {
		exchange->interims++;
		if (http_head_status(server->head) == 101) {
			upgrade(exchange, server);
			return false;
		}
		if (!relay_interim(exchange, server))
			return false;
	}
	if (server->receiving == HTTP_RECEIVING_HEAD)
		return false;
	if (server->receiving == HTTP_RECEIVING_FAILED) {
		on_server_failure(exchange, server);
		return false;
	}
	if (http_head_status(server->head) < 200) {
		answer(exchange, 502, false, "upstream_broken", "too many interim responses");
		return false;
	}
	if (!redact(exchange, server))
		return false;
	if (!limit_response(exchange))
		return false;
	exchange->status = http_head_status(server->head);
	http_head_drop_connection_fields(server->head);
	http_head_remove_all(server->head, "alt-svc");
	/* A response before the request's end: what is still to come of that is not read. */
	guest->closes = exchange->request.state != BODY_PIPE_ENDED && exchange->status >= 400;
	exchange->response_begun = true;
	set_length(exchange, server);
	if (guest->ops->send_head(guest, server->head, &server->framing) < 0) {
		cut(exchange, "guest_gone");
		return false;
	}
	if (server->framing.kind == HTTP_FRAMING_NONE)
		exchange->response.state = BODY_PIPE_ENDED;
	return true;
}

/* More than the rule allows, or a token that cannot be kept from the guest. */
static void cut_response(struct exchange *exchange)
{
	const struct egress_verdict *judged;

	if (!exchange->response_limit ||
	    exchange->response.blocked_by + 1 != exchange->response.filter_count) {
		cut(exchange,
		    secret_refusal_code(secret_store_is_probed(exchange->services->secrets)
						? SECRET_REFUSAL_PROBED
						: SECRET_REFUSAL_TOKEN));
		return;
	}
	judged = body_limit_verdict(exchange->response_limit);
	tell(exchange, judged->reason, true, judged->hint);
	cut(exchange, judged->reason);
}

static void relay_response(struct exchange *exchange, struct http_leg *server)
{
	if (!exchange->response_begun && !begin_response(exchange, server))
		return;
	body_pipe_move(&exchange->response, server, exchange->guest);
	switch (exchange->response.state) {
	case BODY_PIPE_OPEN:
		break;
	case BODY_PIPE_ENDED:
		finish(exchange, EXCHANGE_DONE);
		break;
	case BODY_PIPE_SOURCE_FAILED:
		cut(exchange, "upstream_broken");
		break;
	case BODY_PIPE_BLOCKED:
		cut_response(exchange);
		break;
	case BODY_PIPE_SINK_FAILED:
		cut(exchange, "guest_gone");
		break;
	}
}

static void relay(struct exchange *exchange)
{
	struct http_leg *server = upstream_leg(exchange->upstream);

	if (!relay_request(exchange, server))
		return;
	(void)server->ops->flush(server);
	relay_response(exchange, server);
	/* Nothing is held back for more to come; HTTP/2 has also window to give. */
	(void)exchange->guest->ops->flush(exchange->guest);
	if (exchange->state != EXCHANGE_RELAYING)
		return;
	(void)server->ops->flush(server);
	body_pipe_resume(&exchange->request, exchange->guest, server);
	body_pipe_resume(&exchange->response, server, exchange->guest);
}

/* ---- lifetime ------------------------------------------------------------------------------- */

struct exchange *exchange_new(const struct services *services, const struct exchange_origin *origin,
			      struct http_leg *guest, exchange_done *done, void *context)
{
	struct exchange *exchange = calloc(1, sizeof(*exchange));

	if (!exchange)
		return NULL;
	exchange->services = services;
	exchange->origin = origin;
	exchange->guest = guest;
	exchange->done = done;
	exchange->context = context;
	exchange->started_ns = services_now_ns();
	byte_buffer_init(&exchange->held, SECRET_SIGNED_BODY_MAX);
	body_pipe_init(&exchange->request);
	body_pipe_init(&exchange->response);
	return exchange;
}

void exchange_free(struct exchange *exchange)
{
	if (!exchange)
		return;
	if (exchange->state != EXCHANGE_NEW)
		tell(exchange, "guest_gone", false, NULL);
	drop_upstream(exchange);
	byte_buffer_release(&exchange->held);
	body_pipe_release(&exchange->request);
	body_pipe_release(&exchange->response);
	websocket_relay_free(exchange->websocket);
	free(exchange);
}

void exchange_turn(struct exchange *exchange)
{
	exchange_done *done = exchange->done;

	if (exchange->state == EXCHANGE_NEW)
		begin(exchange);
	else if (exchange->state != EXCHANGE_OVER &&
		 egress_policy_is_frozen(exchange->services->policy))
		stop_frozen(exchange);
	else if (exchange->state == EXCHANGE_HOLDING)
		hold(exchange);
	else if (exchange->state == EXCHANGE_SEARCHING)
		search(exchange);
	if (exchange->state == EXCHANGE_RELAYING)
		relay(exchange);
	if (exchange->state == EXCHANGE_OVER && done) {
		exchange->done = NULL;
		done(exchange->context, exchange->outcome);
	}
}

void exchange_give_upstream(struct exchange *exchange, struct upstream *upstream)
{
	exchange->upstream = upstream;
}

struct upstream *exchange_take_upstream(struct exchange *exchange)
{
	struct upstream *upstream = exchange->upstream;

	exchange->upstream = NULL;
	return upstream;
}

struct websocket_relay *exchange_take_websocket(struct exchange *exchange)
{
	struct websocket_relay *websocket = exchange->websocket;

	exchange->websocket = NULL;
	return websocket;
}
