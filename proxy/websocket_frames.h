/*
 * The frames of a WebSocket in one direction (RFC 6455 section 5), read strictly and written anew.
 *
 * Messages keep their type and their text, through a filter that knows them all; control frames
 * have another, because they may stand inside a message. A message's division into frames is made
 * anew: what a filter lets go of when a piece has come becomes a frame at once, so
 * that nothing waits for the end of a frame or of a message, and a control frame never waits behind
 * what a filter keeps. A frame that came whole stays one, unless its filter had kept something.
 * RFC 6455 section 5.4 lets an intermediary do that, because no extension is ever negotiated here.
 * Frames to a server are masked with fresh keys.
 *
 * Refused are: reserved bits and opcodes, masked frames from a server and unmasked ones from a
 * client, lengths that are not written in the shortest way, control frames that are fragmented or
 * longer than 125 bytes, Close frames without a valid code, a continuation of nothing, a message
 * inside another, and anything behind a Close.
 */
#ifndef PROXY_WEBSOCKET_FRAMES_H
#define PROXY_WEBSOCKET_FRAMES_H

#include "proxy/body_filter.h"
#include "proxy/byte_buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEBSOCKET_CONTROL_MAX 125u
/* Text of a Close frame, behind its code. */
#define WEBSOCKET_REASON_MAX (WEBSOCKET_CONTROL_MAX - 2u)

/* RFC 6455 section 7.4.1. */
enum websocket_close {
	WEBSOCKET_CLOSE_GOING_AWAY = 1001,
	WEBSOCKET_CLOSE_PROTOCOL_ERROR = 1002,
	WEBSOCKET_CLOSE_POLICY = 1008,
	WEBSOCKET_CLOSE_INTERNAL_ERROR = 1011,
};

struct websocket_frames;

struct websocket_frames_options {
	bool from_client;
	/* Borrowed; NULL for none. They are told the end of each message, and of each control
	 * frame, by `is_last` (secret_filter_take_messages()). */
	struct body_filter *messages;
	struct body_filter *controls;
};

/* NULL without memory. */
struct websocket_frames *websocket_frames_new(const struct websocket_frames_options *options);
void websocket_frames_free(struct websocket_frames *frames);

/* Takes any number of bytes and appends to `out` whole frames: in all about as many bytes, those
 * that filters had kept, and 14 for each piece of a message. Returns 0; -EPROTO for what is no
 * WebSocket (websocket_frames_problem()); -EACCES when a filter refused; -ENOMEM; -ENOBUFS; -EIO
 * without random numbers. What was before the place is in `out`; after a failure only
 * websocket_frames_close() is of use. */
int websocket_frames_feed(struct websocket_frames *frames, const uint8_t *data, size_t length,
			  struct byte_buffer *out);
/* After -EPROTO: why; static. */
const char *websocket_frames_problem(const struct websocket_frames *frames);

/* A Close was written. */
bool websocket_frames_is_closed(const struct websocket_frames *frames);
/* Appends a Close frame with as much of `reason` as it can hold, unless one has gone already. */
void websocket_frames_close(struct websocket_frames *frames, enum websocket_close code,
			    const char *reason, struct byte_buffer *out);

#endif
