/*
 * A small epoll loop: sources with a callback, dispatched in one thread.
 *
 * A source is embedded in its owner's struct and borrowed by the loop from event_loop_add() to
 * event_loop_remove(). Removing a source inside a callback, its own included, also drops the
 * events which are still to be dispatched to it; it may then be freed at once.
 */
#ifndef BASE_EVENT_LOOP_H
#define BASE_EVENT_LOOP_H

#include "base/poll_ahead.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define EVENT_LOOP_BATCH 64

struct event_source {
	void (*ready)(struct event_source *source, uint32_t events); /* EPOLL* bits */
	int fd;							     /* not owned */
};

struct event_loop {
	int epoll_fd;
	int batch_count;
	struct epoll_event batch[EVENT_LOOP_BATCH];
	bool polls; /* may be set: looks for events before it sleeps, while that is worth it */
	struct poll_ahead ahead;
};

/* Each returns 0 or a negative errno. */
int event_loop_init(struct event_loop *loop);
int event_loop_add(struct event_loop *loop, struct event_source *source, uint32_t events);
int event_loop_modify(struct event_loop *loop, struct event_source *source, uint32_t events);
void event_loop_remove(struct event_loop *loop, struct event_source *source);
/* Waits up to `timeout_ms` (-1: for ever) and dispatches one batch. Returns the number of events
 * or a negative errno; EINTR counts as no event. */
int event_loop_run_once(struct event_loop *loop, int timeout_ms);
void event_loop_release(struct event_loop *loop);

#endif
