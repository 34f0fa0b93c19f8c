/*
 * The streams of one session and the loop that serves them.
 *
 * Theory of operation: one thread, one ring. Each stream has one receive outstanding, into a
 * buffer of its own that grows to the frame it announces; complete frames are executed where they
 * lie. Metadata is answered at once; an operation that would wait for the disk becomes a job of
 * the ring, and takes the buffer along. Replies queue at the stream and leave by one gathered
 * send at a time.
 *
 * A guest that shares memory with this process may have a stream's frames go over a channel.
 * Channels have no event of the ring: they are looked at in each turn of the loop, and for a while
 * after the latest news of any, again and again, since a guest that asks tends to ask again at
 * once. Only then does the thread say that it sleeps and wait for the ring, where the guest's
 * doorbell arrives.
 *
 * No stream can harm another: each has its own buffers with fixed maxima, a stream is not read
 * while SESSION_UNSENT_MAX bytes of replies or FS_INFLIGHT_MAX jobs are outstanding, and takes
 * SESSION_TURN frames at most before the others have their turn.
 */
#ifndef FSSERVER_SESSION_H
#define FSSERVER_SESSION_H

#include "fsserver/export.h"

#include <stdbool.h>
#include <stddef.h>

#define SESSION_UNSENT_MAX (4u * 1024u * 1024u)
#define SESSION_TURN 64u

struct session;
struct io_uring;
struct window;

struct session_options {
	struct server *server;
	struct export *const *exports;
	size_t export_count;
	int listen_fd;
	int control_fd; /* end of file there ends the session; -1: none */
	int signal_fd;	/* a signalfd that ends the session; -1: none */
	struct io_uring *ring;
	struct window *window; /* NULL or empty: no channels */
	int doorbell_fd;       /* bytes there are doorbells of any channel; -1: none */
};

int session_new(const struct session_options *options, struct session **ret_session);
/* Serves until the end is asked for, or the audit process is gone (-EPIPE or so). Handles are
 * released and streams closed when it returns. */
int session_run(struct session *session);
void session_free(struct session *session);

#endif
