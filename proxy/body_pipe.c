#include "proxy/body_pipe.h"

#include "base/checked.h"

#include <errno.h>

#define RAW_MAX 65536u
/* A filter may give what it held back beside what it was given. */
#define OUT_MAX 131072u
/* What one turn moves before others have theirs. */
#define SHARE 1048576u

void body_pipe_init(struct body_pipe *pipe)
{
	*pipe = (struct body_pipe){ .state = BODY_PIPE_OPEN };
	byte_buffer_init(&pipe->raw, RAW_MAX);
	byte_buffer_init(&pipe->out, OUT_MAX);
}

void body_pipe_take(struct body_pipe *pipe, struct byte_buffer *held)
{
	struct byte_buffer *into = pipe->filter ? &pipe->raw : &pipe->out;

	byte_buffer_release(into);
	*into = *held;
	byte_buffer_init(held, held->max);
}

void body_pipe_release(struct body_pipe *pipe)
{
	if (pipe->filter)
		pipe->filter->free(pipe->filter);
	pipe->filter = NULL;
	byte_buffer_release(&pipe->raw);
	byte_buffer_release(&pipe->out);
}

/* From `raw` through the filter; `is_last` when no more will come into `raw`. Returns how much of
 * it went. */
static size_t run_filter(struct body_pipe *pipe, bool is_last)
{
	size_t queued = byte_buffer_length(&pipe->raw);
	size_t length = MIN_OF(queued, RAW_MAX);
	int result;

	is_last = is_last && length == queued;
	if (pipe->filter_ended || (length == 0 && !is_last))
		return 0;
	result = pipe->filter->feed(pipe->filter, byte_buffer_front(&pipe->raw), length, is_last,
				    &pipe->out);
	if (result == -ENOBUFS && byte_buffer_length(&pipe->out) > 0)
		return 0;
	if (result) {
		pipe->state = result == -EACCES ? BODY_PIPE_BLOCKED : BODY_PIPE_SINK_FAILED;
		return 0;
	}
	byte_buffer_consume(&pipe->raw, length);
	pipe->filter_ended = is_last;
	return length;
}

/* Returns how much went through the filter. */
static size_t receive(struct body_pipe *pipe, struct http_leg *from)
{
	if (from->receiving == HTTP_RECEIVING_BODY)
		from->ops->receive(from, pipe->filter ? &pipe->raw : &pipe->out);
	if (pipe->filter)
		return run_filter(pipe, from->receiving == HTTP_RECEIVING_ENDED);
	pipe->filter_ended = from->receiving == HTTP_RECEIVING_ENDED;
	return 0;
}

/* Returns how many bytes the sending leg took. */
static size_t pass_on(struct body_pipe *pipe, struct http_leg *to)
{
	size_t room = to->ops->room(to);
	size_t length;

	if (room == 0 && byte_buffer_length(&pipe->out) > 0) {
		(void)to->ops->flush(to);
		room = to->ops->room(to);
	}
	length = MIN_OF(room, byte_buffer_length(&pipe->out));
	if (length > 0 && to->ops->send_body(to, byte_buffer_front(&pipe->out), length) == 0) {
		byte_buffer_consume(&pipe->out, length);
		pipe->moved += length;
	}
	if (to->send_failed)
		pipe->state = BODY_PIPE_SINK_FAILED;
	return length;
}

static void end(struct body_pipe *pipe, struct http_leg *from, struct http_leg *to)
{
	if (!pipe->filter_ended || byte_buffer_length(&pipe->out) > 0)
		return;
	if (from->trailers && pipe->check_trailers &&
	    pipe->check_trailers(pipe->context, from->trailers)) {
		pipe->state = BODY_PIPE_BLOCKED;
		return;
	}
	pipe->state = to->ops->send_end(to, from->trailers) == 0 ? BODY_PIPE_ENDED
								 : BODY_PIPE_SINK_FAILED;
}

void body_pipe_move(struct body_pipe *pipe, struct http_leg *from, struct http_leg *to)
{
	uint64_t begin = pipe->moved;
	size_t progress = 1;

	while (pipe->state == BODY_PIPE_OPEN && progress > 0) {
		if (pipe->moved - begin > SHARE) {
			from->ops->again(from);
			return;
		}
		progress = receive(pipe, from);
		if (pipe->state != BODY_PIPE_OPEN)
			return;
		progress += pass_on(pipe, to);
		if (pipe->state == BODY_PIPE_OPEN)
			end(pipe, from, to);
	}
	/* What came before the failure has gone on. */
	if (pipe->state == BODY_PIPE_OPEN && from->receiving == HTTP_RECEIVING_FAILED)
		pipe->state = BODY_PIPE_SOURCE_FAILED;
}
