/*
 * One non-blocking byte stream in the event loop, plain or TLS.
 *
 * The loop reports edges: `ready` is called when something may have changed, and the stream then
 * remembers that it can be read until a read finds nothing more. So a user moves bytes until
 * stream_read() or stream_write() gives -EAGAIN or its buffers are full, and looks again at
 * stream_can_read() when these have room. A TLS stream does its handshake by itself, in every call
 * of stream_handshake().
 *
 * Inside `ready` the stream may be released.
 */
#ifndef PROXY_STREAM_H
#define PROXY_STREAM_H

#include "base/event_loop.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct stream {
	struct event_source source; /* first: `ready` finds the stream by it */
	struct event_loop *loop;
	SSL *ssl;		    /* owned; NULL: plain */
	struct stream_batch *batch; /* records that wait for room in the socket; mostly NULL */
	/* How many streams may still be given a deeper socket; NULL: this one never is. Borrowed.
	 */
	unsigned *deep_left;
	uint64_t written; /* below TLS */
	void (*ready)(struct stream *stream);
	bool can_read;
	bool is_drained;      /* the descriptor has nothing since the last event */
	bool is_ending;	      /* an event said that no more will come, or an error */
	bool transport_ended; /* below TLS */
	bool awaits_write;    /* EPOLLOUT is asked for */
	bool fills_batch;     /* what the library transmits goes there */
	bool is_deep;	      /* its socket has been made deeper */
	bool read_ended;
	bool write_ended;
	bool failed;
};

/* Takes over `fd`, non-blocking. On failure it is closed. 0 or a negative errno. */
int stream_init(struct stream *stream, struct event_loop *loop, int fd,
		void (*ready)(struct stream *stream));
/* Makes it a TLS stream; takes over `ssl`, which was made for it. */
void stream_set_tls(struct stream *stream, SSL *ssl);
int stream_fd(const struct stream *stream);
/* Closes; harmless when it was done. */
void stream_release(struct stream *stream);
/* The same with a reset instead of an orderly end, where the transport has that. */
void stream_reset(struct stream *stream);

/* 0 when the handshake is complete, -EAGAIN, -EINPROGRESS while it is parked at the ClientHello,
 * -EPROTO when it failed, -ECONNRESET when the peer went away. */
int stream_handshake(struct stream *stream);

/* Bytes read; 0 at the end of the peer's bytes; -EAGAIN; or another negative errno: the stream is
 * then of no more use. TLS that ends without close_notify is -EPROTO, because it may have been cut.
 */
ssize_t stream_read(struct stream *stream, void *buffer, size_t length);
/* Bytes written, at least 1; -EAGAIN, after which `ready` is called when there is room again; or
 * another negative errno. After -EAGAIN, TLS wants the same bytes again, and may have more behind
 * them. */
ssize_t stream_write(struct stream *stream, const void *data, size_t length);
/* A socket that has been written much to is made deeper as long as *left, which counts them, is not
 * 0: while the peer's process waits for a processor, this one goes on. It stays so until the
 * release, which gives it back. Not for TCP, whose sockets see to that by themselves. */
void stream_may_deepen(struct stream *stream, unsigned *left);
/* What lies below TLS; for stream_bio.h alone. Bytes moved, 0 at the end, or a negative errno. */
ssize_t stream_receive(struct stream *stream, void *buffer, size_t length);
ssize_t stream_transmit(struct stream *stream, const void *data, size_t length);
/* No more will be written: close_notify, or a shutdown of that direction. */
void stream_end_write(struct stream *stream);
/* `ready` is called again in the loop's next round. */
void stream_poke(struct stream *stream);
/* Whether a read may find something. */
bool stream_can_read(const struct stream *stream);

#endif
