/*
 * A stream to the file server: a connection over vsock or a Unix socket, carrying the requests
 * of one export. Each stream belongs to one thread at a time, which sends a frame and reads its
 * reply; so no thread hands replies to another, and nobody takes a lock around the connection.
 *
 * Theory of operation: where the guest shares a window of memory with the server, a stream's frames
 * go over a channel in it (wire/channel.h), and its socket carries but doorbells. Most replies come
 * within microseconds, so the thread looks for one for a while before it sleeps. Replies are copied
 * out: the kernel takes no data from a mapping of /dev/mem.
 *
 * Every error but those of single operations means that the stream is of no more use.
 */
#ifndef GUEST_FUSED_STREAM_H
#define GUEST_FUSED_STREAM_H

#include "guest-fused/frame.h"
#include "wire/channel.h"

#include <stdatomic.h>
#include <stdint.h>

/* Counters have one writer each at a time, and readers that may be a little behind: no locked
 * instruction. */
static inline void fused_count(_Atomic uint64_t *counter, uint64_t more)
{
	uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, now + more, memory_order_relaxed);
}

/* Memory shared with the server. */
struct fused_window {
	int fd; /* /dev/mem, or a file; borrowed */
	uint64_t offset;
	uint64_t size;
	uint16_t doorbell_port; /* 0: none */
	_Atomic uint32_t taken; /* channels */
};

struct fused_endpoint {
	struct fused_window *window; /* NULL: none */
	int64_t vsock_port;	     /* at the host; -1: use the path */
	const char *unix_path;
};

struct fused_stream {
	int fd; /* -1: not open */
	uint64_t tag;
	uint8_t *buffer;    /* FS_FRAME_MAX bytes; owned */
	bool wants_channel; /* to be set before it is opened */
	bool over_channel;
	uint16_t doorbell_port; /* of the window */
	struct channel channel;
	uint8_t *memory;	/* the channel; mapped */
	_Atomic uint64_t rings; /* doorbells for the server */
	_Atomic uint64_t sleeps;
	_Atomic uint64_t round_trips; /* but for the HELLO of each stream */
	_Atomic uint64_t posts;	      /* frames that ask for no reply */
	_Atomic uint64_t bytes_sent;
	_Atomic uint64_t bytes_received;
};

void fused_stream_init(struct fused_stream *stream);
/* Connects and says HELLO. Returns 0, the server's refusal (a negative errno), -EBADMSG, or the
 * error of the connection. */
int fused_stream_open(struct fused_stream *stream, const struct fused_endpoint *endpoint,
		      uint32_t export_id, enum fs_stream_kind kind,
		      struct fs_hello_reply *ret_hello);
void fused_stream_close(struct fused_stream *stream);

/* Sends `frame` and waits for its reply, whose bodies lie in the stream's buffer until the next
 * call. -ECONNRESET when the server has gone. */
int fused_stream_call(struct fused_stream *stream, struct fused_frame *frame,
		      struct fused_reply *ret_reply);
/* Sends a frame of FORGET and RELEASE operations, which has no reply. */
int fused_stream_post(struct fused_stream *stream, struct fused_frame *frame);
/* Receives one whole frame, *ret_length bytes of the buffer. `alone`: nothing may follow it, as
 * after a reply, so that one system call can take all there is. */
int fused_stream_receive(struct fused_stream *stream, bool alone, size_t *ret_length);

#endif
