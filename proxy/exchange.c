#include "proxy/exchange.h"

#include "base/clock.h"
#include "proxy/answer.h"
#include "proxy/body_pipe.h"
#include "proxy/canary_search.h"
#include "proxy/egress_policy.h"
#include "proxy/grpc_filter.h"
#include "proxy/request_check.h"
#include "proxy/request_filters.h"
#include "proxy/request_report.h"
#include "proxy/response_filters.h"
#include "proxy/secret_request.h"
#include "proxy/shortage.h"
#include "proxy/signed_body.h"
#include "proxy/tls.h"
#include "proxy/websocket.h"
#include "proxy/websocket_relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
 * of answer, a request without a body is sent once more on a new one, if its method may be repeated
 * without asking (RFC 9110, 9.2.2): the server may have seen it. For any other the connection is
 * looked at before it is used.
 */
enum exchange_state {
	EXCHANGE_NEW,
	EXCHANGE_HOLDING,
	EXCHANGE_SEARCHING,
	EXCHANGE_CONNECTING,
	EXCHANGE_RELAYING,
	EXCHANGE_OVER,
};

struct exchange {
	const struct services *services;
	const struct exchange_origin *origin;
	struct http_leg *guest;
	struct upstream *upstream;
	bool is_connecting; /* `upstream` is not ours to use yet */
	bool was_retried;
	bool response_begun;
	bool expects_continue;
	bool is_websocket;
	struct websocket_relay *websocket; /* owned until taken */
	bool is_head;
	bool is_repeatable; /* without a body, and by its method */
	unsigned interims;  /* responses */
	char accept[WEBSOCKET_ACCEPT_SIZE];
	enum exchange_state state;
	struct byte_buffer held; /* HOLDING, SEARCHING */
	struct body_pipe request;
	struct body_pipe response;
	struct request_filters request_filters;
	struct response_filters response_filters;
	exchange_done *done; /* NULL once it was called */
	void *context;
	enum exchange_outcome outcome;
	struct request_verdict verdict;
	struct request_report report;
	const char *problem; /* a code: why it went wrong */
};

/* ---- the end -------------------------------------------------------------------------------- */

static void tell(struct exchange *exchange, const char *reason, bool is_denial, const char *hint)
{
	if (exchange->report.is_told)
		return;
	request_filters_report(&exchange->request_filters);
	request_report_tell(&exchange->report, reason, is_denial, hint);
}

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

/* Answers in the broker's own name; nothing of a response may have been begun. */
static void answer(struct exchange *exchange, unsigned status, bool is_denial, const char *reason,
		   const char *hint)
{
	const struct answer contents = {
		.status = status,
		.is_denial = is_denial,
		.reason = reason,
		.host = exchange->origin->name.text,
		.method = { exchange->report.method, strlen(exchange->report.method) },
		.path = { exchange->report.path, strlen(exchange->report.path) },
		.rule = exchange->verdict.rule[0] ? exchange->verdict.rule : NULL,
		.hint = hint,
	};
	int error;

	exchange->report.status = status;
	exchange->response_begun = true;
	tell(exchange, reason, is_denial, hint);
	error = answer_send(&contents, exchange->guest, exchange->is_head);
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
	exchange->report.address = *upstream_address(exchange->upstream);
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
		exchange->upstream = exchange->is_repeatable ? upstream_take_idle(pool, &target)
							     : upstream_take_live(pool, &target);
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
	int error = -EACCES;

	if (exchange->verdict.is_allowed)
		error = request_filters_add(&exchange->request_filters, exchange->services,
					    exchange->origin, exchange->guest, &exchange->request,
					    &exchange->verdict);
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
	uint8_t digest[SIGNED_BODY_DIGEST_SIZE];

	switch (signed_body_collect(exchange->guest, &exchange->held, digest)) {
	case 0:
		request_check_signed(exchange->services, exchange->origin, exchange->guest, digest,
				     &exchange->verdict);
		send_on(exchange);
		break;
	case -EAGAIN:
		break;
	case -EBADMSG:
		answer(exchange, 400, false, "request_broken", exchange->guest->problem);
		break;
	case -EMSGSIZE:
		answer(exchange, 413, true, "signature_not_possible",
		       "the body is too large to be signed anew");
		break;
	default:
		answer(exchange, 503, false, "out_of_memory", "the broker is out of memory");
	}
}

static void start_holding(struct exchange *exchange)
{
	if (exchange->expects_continue)
		signed_body_ask(exchange->guest);
	exchange->expects_continue = false;
	exchange->state = EXCHANGE_HOLDING;
	hold(exchange);
}

static void begin(struct exchange *exchange)
{
	struct http_leg *guest = exchange->guest;
	ssize_t expect = http_head_find(guest->head, "expect", 0);

	request_report_head(&exchange->report, guest);
	exchange->is_head = http_text_is_exactly(http_head_method(guest->head), "HEAD");
	exchange->is_repeatable =
		guest->framing.kind == HTTP_FRAMING_NONE && http_head_is_idempotent(guest->head);
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
	const struct request_verdict *verdict = &exchange->verdict;

	request_filters_refuse(&exchange->request_filters);
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
			  exchange->is_repeatable;
	const char *problem = server->problem;

	if (!can_repeat) {
		answer(exchange, 502, false, "upstream_broken", problem);
		return;
	}
	exchange->was_retried = true;
	drop_upstream(exchange);
	find_upstream(exchange);
}

/* False when the answer cannot go on, and the exchange is over. */
static bool redact(struct exchange *exchange, struct http_leg *server)
{
	const struct secret_verdict *verdict = &exchange->verdict.secret;
	int error;

	request_filters_report(&exchange->request_filters);
	error = response_filters_redact(&exchange->response_filters, server);
	if (error == -EACCES)
		answer(exchange, 502, false, secret_refusal_code(verdict->refusal), verdict->hint);
	else if (error)
		answer(exchange, 502, false, "upstream_broken", "the answer's head is too large");
	return error == 0;
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
						  &exchange->verdict, exchange->report.path);
	if (!exchange->websocket) {
		answer(exchange, 503, false, "out_of_memory", "the broker is out of memory");
		return;
	}
	exchange->report.status = 101;
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
	    exchange->report.status != 204 && exchange->report.status != 304) {
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
	if (response_filters_add(&exchange->response_filters) < 0) {
		answer(exchange, 503, false, "out_of_memory", "the broker is out of memory");
		return false;
	}
	exchange->report.status = http_head_status(server->head);
	http_head_drop_connection_fields(server->head);
	http_head_remove_all(server->head, "alt-svc");
	/* A response before the request's end: what is still to come of that is not read. */
	guest->closes =
		exchange->request.state != BODY_PIPE_ENDED && exchange->report.status >= 400;
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
	const struct egress_verdict *limit;
	const char *reason = response_filters_reason(&exchange->response_filters, &limit);

	if (limit)
		tell(exchange, reason, true, limit->hint);
	cut(exchange, reason);
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
		exchange->report.ended_ns = clock_now_ns();
		/* What is left to do can be done while the guest reads it. */
		(void)exchange->guest->ops->flush(exchange->guest);
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
	exchange->report = (struct request_report){
		.services = services,
		.origin = origin,
		.verdict = &exchange->verdict,
		.request = &exchange->request,
		.response = &exchange->response,
		.started_ns = clock_now_ns(),
	};
	byte_buffer_init(&exchange->held, SECRET_SIGNED_BODY_MAX + 1);
	body_pipe_init(&exchange->request);
	body_pipe_init(&exchange->response);
	response_filters_init(&exchange->response_filters, services, &exchange->response,
			      &exchange->verdict);
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
