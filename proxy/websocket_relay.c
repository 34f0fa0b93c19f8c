#include "proxy/websocket_relay.h"

#include "base/checked.h"
#include "proxy/body_limit.h"
#include "proxy/egress_report.h"
#include "proxy/secret_filter.h"
#include "proxy/websocket_frames.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct direction {
	struct websocket_frames *frames;
	/* Of secrets; NULL where there are none. */
	struct body_filter *messages;
	struct body_filter *controls;
	struct body_filter *limit; /* NULL: none */
	uint64_t offered;	   /* bytes that came */
	uint64_t passed;	   /* bytes that went on */
};

struct websocket_relay {
	struct tunnel_screen screen; /* first: its operations find the relay by it */
	const struct services *services;
	const struct exchange_origin *origin;
	struct request_verdict verdict;
	char *path;
	struct direction out; /* from the guest */
	struct direction in;
	const char *reason; /* NULL: it goes on */
	enum websocket_close code;
};

/* ---- filters -------------------------------------------------------------------------------- */

static struct body_filter *make_filter(const struct websocket_relay *relay, bool is_response)
{
	struct secret_store *secrets = relay->services->secrets;
	struct body_filter *filter =
		is_response ? secret_response_filter_new(secrets)
			    : secret_request_filter_new(secrets, &relay->verdict.secret.bound,
							relay->origin->is_tls);

	if (filter)
		secret_filter_take_messages(filter);
	return filter;
}

/* False without memory. */
static bool make_filters(const struct websocket_relay *relay, struct direction *direction)
{
	bool is_response = direction == &relay->in;

	if (!relay->services->secrets ||
	    (is_response && secret_set_is_empty(&relay->verdict.secret.named)))
		return true;
	direction->messages = make_filter(relay, is_response);
	direction->controls = make_filter(relay, is_response);
	return direction->messages && direction->controls;
}

/* Adds what the filters of a direction found to the verdict. */
static void report(struct websocket_relay *relay, const struct direction *direction)
{
	struct secret_verdict *verdict = &relay->verdict.secret;
	struct secret_set used = verdict->used;

	if (!direction->messages)
		return;
	secret_filter_report(direction->messages, verdict);
	secret_filter_report(direction->controls, verdict);
	/* What a server said was not put in. */
	if (direction == &relay->in)
		verdict->used = used;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void tell_denial(const struct websocket_relay *relay)
{
	const struct request_verdict *verdict = &relay->verdict;
	char secrets[REQUEST_SECRETS_MAX];
	struct egress_entry entry = {
		.operation = "tunnel",
		.host = relay->origin->name.text,
		.port = relay->origin->port,
		.protocol = "websocket",
		.path = relay->path,
		.reason = relay->reason,
		.rule = verdict->rule[0] ? verdict->rule : NULL,
		.hint = verdict->hint,
		.sent = relay->out.passed,
		.withheld = relay->out.offered - MIN_OF(relay->out.passed, relay->out.offered),
	};

	request_secret_names(relay->services, verdict, secrets);
	entry.secrets = secrets[0] ? secrets : NULL;
	egress_report_denial(relay->services->report, &entry);
}

static void refuse(struct websocket_relay *relay, const char *reason, enum websocket_close code)
{
	relay->reason = reason;
	relay->code = code;
}

static void refuse_frames(struct websocket_relay *relay, const struct direction *direction,
			  int error)
{
	struct request_verdict *verdict = &relay->verdict;

	report(relay, direction);
	if (error == -EPROTO && direction == &relay->in) {
		refuse(relay, "upstream_broken", WEBSOCKET_CLOSE_INTERNAL_ERROR);
		return;
	}
	if (error == -EPROTO) {
		snprintf(verdict->hint, sizeof(verdict->hint), "%s",
			 websocket_frames_problem(direction->frames));
		refuse(relay, "websocket_malformed", WEBSOCKET_CLOSE_PROTOCOL_ERROR);
	} else if (error == -EACCES) {
		(void)request_check_secrets(relay->services, verdict);
		refuse(relay, verdict->reason, WEBSOCKET_CLOSE_POLICY);
	} else {
		refuse(relay, "out_of_memory", WEBSOCKET_CLOSE_INTERNAL_ERROR);
		return;
	}
	tell_denial(relay);
}

static void refuse_more(struct websocket_relay *relay, const struct direction *direction)
{
	report(relay, &relay->out);
	request_refuse(&relay->verdict, body_limit_verdict(direction->limit));
	refuse(relay, relay->verdict.reason, WEBSOCKET_CLOSE_POLICY);
	tell_denial(relay);
}

/* ---- the screen ----------------------------------------------------------------------------- */

static int pass(struct tunnel_screen *screen, bool from_guest, const uint8_t *data, size_t length,
		struct byte_buffer *out)
{
	struct websocket_relay *relay = (struct websocket_relay *)screen;
	struct direction *direction = from_guest ? &relay->out : &relay->in;
	size_t before = byte_buffer_length(out);
	int error;

	direction->offered += length;
	if (direction->limit && body_limit_count(direction->limit, length) < 0) {
		refuse_more(relay, direction);
		return -EACCES;
	}
	error = websocket_frames_feed(direction->frames, data, length, out);
	direction->passed += byte_buffer_length(out) - before;
	if (error)
		refuse_frames(relay, direction, error);
	return error;
}

static void stop(struct tunnel_screen *screen, struct byte_buffer *to_guest,
		 struct byte_buffer *to_server)
{
	struct websocket_relay *relay = (struct websocket_relay *)screen;
	const char *hint = relay->code == WEBSOCKET_CLOSE_INTERNAL_ERROR ? "" : relay->verdict.hint;
	char text[WEBSOCKET_REASON_MAX + 1];

	snprintf(text, sizeof(text), "matchlock: %.40s%s%.70s", relay->reason, *hint ? ": " : "",
		 hint);
	/* A text in UTF-8, which a cut may have left broken. */
	for (char *at = text; *at; at++)
		*at = (char)(*at & 0x80 ? '?' : *at);
	websocket_frames_close(relay->in.frames, relay->code, text, to_guest);
	websocket_frames_close(relay->out.frames, WEBSOCKET_CLOSE_GOING_AWAY, "", to_server);
}

/* ---- lifetime ------------------------------------------------------------------------------- */

/* False without memory. */
static bool make_direction(struct websocket_relay *relay, struct direction *direction)
{
	struct websocket_frames_options options = { .from_client = direction == &relay->out };
	const struct egress_rule *limits = relay->verdict.limits;
	bool is_response = direction == &relay->in;

	if (!make_filters(relay, direction))
		return false;
	options.messages = direction->messages;
	options.controls = direction->controls;
	direction->frames = websocket_frames_new(&options);
	if (!body_limit_is_needed(limits, is_response))
		return direction->frames != NULL;
	direction->limit = body_limit_new(relay->services->policy, limits, is_response);
	return direction->frames && direction->limit;
}

struct websocket_relay *websocket_relay_new(const struct services *services,
					    const struct exchange_origin *origin,
					    const struct request_verdict *verdict, const char *path)
{
	struct websocket_relay *relay = calloc(1, sizeof(*relay));

	static_assert(offsetof(struct websocket_relay, screen) == 0, "a screen is its relay");
	if (!relay)
		return NULL;
	relay->screen = (struct tunnel_screen){ pass, stop };
	relay->services = services;
	relay->origin = origin;
	relay->verdict = *verdict;
	relay->path = strdup(path);
	if (!relay->path || !make_direction(relay, &relay->out) ||
	    !make_direction(relay, &relay->in)) {
		websocket_relay_free(relay);
		return NULL;
	}
	return relay;
}

static void release_direction(struct direction *direction)
{
	struct body_filter *filters[] = { direction->messages, direction->controls,
					  direction->limit };

	websocket_frames_free(direction->frames);
	for (size_t i = 0; i < ARRAY_LENGTH(filters); i++) {
		if (filters[i])
			filters[i]->free(filters[i]);
	}
}

void websocket_relay_free(struct websocket_relay *relay)
{
	if (!relay)
		return;
	release_direction(&relay->out);
	release_direction(&relay->in);
	free(relay->path);
	free(relay);
}

struct tunnel_screen *websocket_relay_screen(struct websocket_relay *relay)
{
	return &relay->screen;
}

const char *websocket_relay_reason(const struct websocket_relay *relay)
{
	return relay->reason;
}

bool websocket_relay_is_closed(const struct websocket_relay *relay)
{
	return websocket_frames_is_closed(relay->out.frames) &&
	       websocket_frames_is_closed(relay->in.frames);
}

const struct request_verdict *websocket_relay_verdict(struct websocket_relay *relay)
{
	report(relay, &relay->out);
	return &relay->verdict;
}
