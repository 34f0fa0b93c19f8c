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
	for (size_t i = 0; i <= BODY_PIPE_FILTERS_MAX; i++)
		byte_buffer_init(&pipe->buffers[i], i == 0 ? RAW_MAX : OUT_MAX);
}

void body_pipe_add(struct body_pipe *pipe, struct body_filter *filter)
{
	if (filter)
		pipe->filters[pipe->filter_count++] = filter;
}

void body_pipe_take(struct body_pipe *pipe, struct byte_buffer *held)
{
	byte_buffer_release(&pipe->buffers[0]);
	pipe->buffers[0] = *held;
	pipe->taken += byte_buffer_length(held);
	byte_buffer_init(held, held->max);
}

void body_pipe_release(struct body_pipe *pipe)
{
	for (size_t i = 0; i < pipe->filter_count; i++)
		pipe->filters[i]->free(pipe->filters[i]);
	for (size_t i = 0; i <= BODY_PIPE_FILTERS_MAX; i++)
		byte_buffer_release(&pipe->buffers[i]);
	pipe->filter_count = 0;
}

/* Through the filter at `index`; `is_last` when no more will come before it. Returns how much of it
 * went. */
static size_t run_filter(struct body_pipe *pipe, size_t index, bool is_last)
{
	struct body_filter *filter = pipe->filters[index];
	struct byte_buffer *in = &pipe->buffers[index];
	struct byte_buffer *out = &pipe->buffers[index + 1];
	size_t length = MIN_OF(byte_buffer_length(in), RAW_MAX);
	int result;

	is_last = is_last && length == byte_buffer_length(in);
	if (pipe->filters_ended > index || (length == 0 && !is_last))
		return 0;
	/* It would be copied behind what does not go on yet. */
	if (filter->feed_buffer && length > 0 && byte_buffer_length(out) > 0)
		return 0;
	if (filter->feed_buffer && length > 0 && length == byte_buffer_length(in))
		result = filter->feed_buffer(filter, in, is_last, out);
	else
		result = filter->feed(filter, byte_buffer_front(in), length, is_last, out);
	if (result == -ENOBUFS && byte_buffer_length(out) > 0)
		return 0;
	if (result) {
		pipe->state = result == -EACCES ? BODY_PIPE_BLOCKED : BODY_PIPE_SINK_FAILED;
		pipe->blocked_by = index;
		return 0;
	}
	byte_buffer_consume(in, length);
	pipe->filters_ended += is_last ? 1 : 0;
	return length;
}

/* Returns how much went through filters. */
static size_t receive(struct body_pipe *pipe, struct http_leg *from)
{
	size_t before = byte_buffer_length(&pipe->buffers[0]);
	size_t moved = 0;

	if (from->receiving == HTTP_RECEIVING_BODY)
		from->ops->receive(from, &pipe->buffers[0]);
	pipe->taken += byte_buffer_length(&pipe->buffers[0]) - before;
	for (size_t i = 0; i < pipe->filter_count && pipe->state == BODY_PIPE_OPEN; i++)
		moved += run_filter(pipe, i,
				    from->receiving == HTTP_RECEIVING_ENDED &&
					    pipe->filters_ended >= i);
	return moved;
}

/* Returns how many bytes the sending leg took. */
static size_t pass_on(struct body_pipe *pipe, struct http_leg *to)
{
	struct byte_buffer *out = &pipe->buffers[pipe->filter_count];
	size_t room = to->ops->room(to);
	size_t length;

	if (room == 0 && byte_buffer_length(out) > 0) {
		(void)to->ops->flush(to);
		room = to->ops->room(to);
	}
	length = MIN_OF(room, byte_buffer_length(out));
	if (length > 0 && to->ops->send_body(to, byte_buffer_front(out), length) == 0) {
		byte_buffer_consume(out, length);
		pipe->moved += length;
	}
	if (to->send_failed)
		pipe->state = BODY_PIPE_SINK_FAILED;
	return length;
}

static void end(struct body_pipe *pipe, struct http_leg *from, struct http_leg *to)
{
	if (from->receiving != HTTP_RECEIVING_ENDED || pipe->filters_ended < pipe->filter_count ||
	    byte_buffer_length(&pipe->buffers[pipe->filter_count]) > 0)
		return;
	if (from->trailers && pipe->check_trailers &&
	    pipe->check_trailers(pipe->context, from->trailers)) {
		pipe->state = BODY_PIPE_BLOCKED;
		pipe->blocked_by = pipe->filter_count;
		return;
	}
	pipe->state = to->ops->send_end(to, from->trailers) == 0 ? BODY_PIPE_ENDED
								 : BODY_PIPE_SINK_FAILED;
}

/* Blocks that each pass would wipe, free and allocate again. */
static void keep_blocks(struct body_pipe *pipe, bool are_kept)
{
	for (size_t i = 0; i <= pipe->filter_count; i++)
		byte_buffer_keep(&pipe->buffers[i], are_kept);
}

static void move(struct body_pipe *pipe, struct http_leg *from, struct http_leg *to)
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

void body_pipe_move(struct body_pipe *pipe, struct http_leg *from, struct http_leg *to)
{
	keep_blocks(pipe, true);
	move(pipe, from, to);
	keep_blocks(pipe, false);
}

void body_pipe_resume(const struct body_pipe *pipe, struct http_leg *from, struct http_leg *to)
{
	if (pipe->state == BODY_PIPE_OPEN &&
	    byte_buffer_length(&pipe->buffers[pipe->filter_count]) > 0 && to->ops->room(to) > 0)
		from->ops->again(from);
}
