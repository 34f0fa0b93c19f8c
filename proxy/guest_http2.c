#include "proxy/guest_http2.h"

#include "proxy/http2_codec.h"

#include <stdlib.h>
#include <utlist.h>

/* One request and its stream. */
struct request {
	struct guest_http2 *guest;
	struct http_leg *leg;
	struct exchange *exchange;
	struct request *prev;
	struct request *next;
};

struct guest_http2 {
	const struct services *services;
	const struct exchange_origin *origin;
	struct http2_codec codec;
	struct request *requests;
};

static void end_request(struct request *request, bool is_cut)
{
	DL_DELETE(request->guest->requests, request);
	exchange_free(request->exchange);
	http2_leg_release(request->leg, is_cut);
	free(request);
}

static void on_done(void *context, enum exchange_outcome outcome)
{
	end_request(context, outcome != EXCHANGE_DONE);
}

/* A client that resets its stream wants no more of it, wherever the exchange is. */
static void on_changed(struct http_leg *leg)
{
	struct request *request = leg->user;

	if (leg->receiving == HTTP_RECEIVING_FAILED || leg->send_failed)
		end_request(request, true);
	else
		exchange_turn(request->exchange);
}

static void on_request(void *user, struct http_leg *leg)
{
	struct guest_http2 *guest = user;
	struct request *request = calloc(1, sizeof(*request));

	if (request)
		request->exchange =
			exchange_new(guest->services, guest->origin, leg, on_done, request);
	if (!request || !request->exchange) {
		free(request);
		http2_leg_release(leg, true);
		return;
	}
	request->guest = guest;
	request->leg = leg;
	leg->user = request;
	leg->changed = on_changed;
	DL_APPEND(guest->requests, request);
	exchange_turn(request->exchange);
}

struct guest_http2 *guest_http2_new(const struct services *services,
				    const struct exchange_origin *origin, struct stream *stream)
{
	struct guest_http2 *guest = calloc(1, sizeof(*guest));

	if (!guest)
		return NULL;
	guest->services = services;
	guest->origin = origin;
	if (http2_codec_init(&guest->codec, stream, HTTP2_SERVER) < 0) {
		free(guest);
		return NULL;
	}
	guest->codec.accept = on_request;
	guest->codec.user = guest;
	return guest;
}

void guest_http2_free(struct guest_http2 *guest)
{
	if (!guest)
		return;
	/* Nothing is written any more, least of all by the last of its requests. */
	guest->codec.is_over = true;
	while (guest->requests) {
		struct request *request = guest->requests;

		DL_DELETE(guest->requests, request);
		exchange_free(request->exchange);
		free(request);
	}
	http2_codec_release(&guest->codec);
	free(guest);
}

bool guest_http2_turn(struct guest_http2 *guest)
{
	http2_codec_turn(&guest->codec);
	return !guest->codec.is_over;
}

bool guest_http2_is_idle(const struct guest_http2 *guest)
{
	return guest->requests == NULL;
}
