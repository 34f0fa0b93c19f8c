#include "base/event_loop.h"

#include "base/clock.h"

#include <errno.h>
#include <unistd.h>

int event_loop_init(struct event_loop *loop)
{
	*loop = (struct event_loop){ 0 };
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll_fd < 0 ? -errno : 0;
}

int event_loop_add(struct event_loop *loop, struct event_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

int event_loop_modify(struct event_loop *loop, struct event_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0 ? -errno : 0;
}

void event_loop_remove(struct event_loop *loop, struct event_source *source)
{
	/* The descriptor is open and registered; there is no other way for this to fail. */
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	for (int i = 0; i < loop->batch_count; i++) {
		if (loop->batch[i].data.ptr == source)
			loop->batch[i].data.ptr = NULL;
	}
}

static int look(struct event_loop *loop, int timeout_ms)
{
	return epoll_wait(loop->epoll_fd, loop->batch, EVENT_LOOP_BATCH, timeout_ms);
}

/* Looks for a while, if that is wanted, and then sleeps. */
static int look_ahead(struct event_loop *loop, int timeout_ms)
{
	uint64_t began = clock_now_ns();
	int count = 0;

	while (loop->ahead.is_wanted) {
		count = look(loop, 0);
		if (count != 0)
			return count;
		if (clock_now_ns() - began >= POLL_AHEAD_NS)
			poll_ahead_failed(&loop->ahead);
	}
	count = look(loop, timeout_ms);
	if (count > 0)
		poll_ahead_slept(&loop->ahead, clock_now_ns() - began);
	return count;
}

int event_loop_run_once(struct event_loop *loop, int timeout_ms)
{
	int count = loop->polls && timeout_ms != 0 ? look_ahead(loop, timeout_ms)
						   : look(loop, timeout_ms);

	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	loop->batch_count = count;
	for (int i = 0; i < loop->batch_count; i++) {
		struct event_source *source = loop->batch[i].data.ptr;

		if (source)
			source->ready(source, loop->batch[i].events);
	}
	loop->batch_count = 0;
	return count;
}

void event_loop_release(struct event_loop *loop)
{
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	loop->epoll_fd = -1;
}
