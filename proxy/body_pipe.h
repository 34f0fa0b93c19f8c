/*
 * Moves a message's body from the leg that receives it to the leg that sends it, through filters if
 * there are any, in bounded memory and without holding anything back but what a filter does.
 */
#ifndef PROXY_BODY_PIPE_H
#define PROXY_BODY_PIPE_H

#include "proxy/body_filter.h"
#include "proxy/byte_buffer.h"
#include "proxy/http_leg.h"

#include <stdbool.h>
#include <stdint.h>

enum body_pipe_state {
	BODY_PIPE_OPEN,
	BODY_PIPE_ENDED,	 /* all of it is with the sending leg, its end included */
	BODY_PIPE_BLOCKED,	 /* a filter or check_trailers does not let it go on */
	BODY_PIPE_SOURCE_FAILED, /* the receiving leg's `problem` says why */
	BODY_PIPE_SINK_FAILED,
};

#define BODY_PIPE_FILTERS_MAX 4u

struct body_pipe {
	size_t filter_count;
	struct body_filter *filters[BODY_PIPE_FILTERS_MAX]; /* owned; in the order of passage */
	struct byte_buffer
		buffers[BODY_PIPE_FILTERS_MAX + 1]; /* before each, and behind the last */
	size_t filters_ended;			    /* so many of them have had their last byte */
	size_t blocked_by; /* BODY_PIPE_BLOCKED: index of the filter; else their count */
	/* Called before trailers go on, which it may change; not 0: they may not. Or NULL. */
	int (*check_trailers)(void *context, struct http_head *trailers);
	void *context;
	enum body_pipe_state state;
	uint64_t taken; /* bytes had from the receiving leg */
	uint64_t moved; /* bytes given to the sending leg */
};

void body_pipe_init(struct body_pipe *pipe);
/* Before the first move. Takes over the filter; NULL is none. */
void body_pipe_add(struct body_pipe *pipe, struct body_filter *filter);
/* Takes over a body that has come whole already, up to `held->max` bytes; to be moved from there.
 */
void body_pipe_take(struct body_pipe *pipe, struct byte_buffer *held);
void body_pipe_release(struct body_pipe *pipe);

/* Moves what can be moved now; the state says how far it came. After a fair share it stops and sees
 * to it that the receiving leg's `changed` is called again. */
void body_pipe_move(struct body_pipe *pipe, struct http_leg *from, struct http_leg *to);
/* After the last flush of a turn, which may have made room that no event will tell of: if something
 * waits for that room, `changed` is called again too. */
void body_pipe_resume(const struct body_pipe *pipe, struct http_leg *from, struct http_leg *to);

#endif
