/*
 * One stream's state: what has arrived, what waits to leave. No system calls here but close().
 * The session owns streams and moves their bytes, by the socket or over a channel (wire/channel.h);
 * in the latter case the socket carries but doorbells.
 */
#ifndef FSSERVER_STREAM_H
#define FSSERVER_STREAM_H

#include "fsserver/operations.h"
#include "wire/channel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define STREAM_GATHER_MAX 16
#define STREAM_DOORBELLS_MAX 64

struct stream {
	struct stream *next;
	int fd;
	struct export *export; /* NULL until HELLO */
	bool notifies;
	uint32_t data_max;

	struct buffer *rx;
	size_t rx_start;   /* bytes of rx that are done with */
	struct buffer *tx; /* oldest first */
	struct buffer **tx_end;
	size_t tx_bytes; /* not yet sent */
	struct iovec vectors[STREAM_GATHER_MAX];
	struct msghdr message;

	uint32_t channel_number; /* 0: none */
	bool over_channel;	 /* from the HELLO's reply on */
	struct channel channel;
	uint8_t doorbells[STREAM_DOORBELLS_MAX]; /* that came; of no meaning otherwise */

	unsigned jobs; /* in the ring */
	bool receiving;
	bool sending;
	bool watching;	      /* a poll on the export's watch is outstanding */
	bool watch_cancelled; /* and is to end */
	bool ready;	      /* has complete frames left over from its turn */
	bool ending;	      /* nothing is read any more; closes when all is sent */
	bool dead;	      /* closes as soon as nothing is under way */
	bool shut;
};

/* Takes `fd` over, also on failure. */
int stream_new(int fd, struct stream **ret_stream);
void stream_free(struct stream *stream);

/* The header of the next frame, checked. -EAGAIN: not all of it is there; -EBADMSG. */
int stream_next_frame(const struct stream *stream, struct fs_frame *ret_frame);
const uint8_t *stream_frame_body(const struct stream *stream);
void stream_skip(struct stream *stream, size_t length);
/* Hands over the buffer that holds the current frame; what follows the frame moves to a new one,
 * to which stream_skip() then applies as before. NULL without memory: nothing changed. */
struct buffer *stream_steal_frame(struct stream *stream, size_t frame_length);
/* Moves what is left to the front and makes room for the frame that is arriving. */
int stream_make_room(struct stream *stream);

/* Whether the next frame may be executed; whether more may be received. */
bool stream_may_run(const struct stream *stream);
bool stream_wants_bytes(const struct stream *stream);

/* Over a channel: whether the guest did anything that lets the stream go on. */
bool stream_has_news(const struct stream *stream);
/* Moves bytes from the channel to what has arrived, or from what waits into the channel. Each
 * returns whether any moved; -EPROTO when the guest broke the channel. */
int stream_pull(struct stream *stream);
int stream_push(struct stream *stream);

/* Takes the buffer over. */
void stream_queue(struct stream *stream, struct buffer *buffer);
int stream_answer(struct stream *stream, uint64_t tag, enum fs_opcode opcode, int error,
		  const void *body, size_t length);
void stream_say_goodbye(struct stream *stream, enum fs_goodbye_reason reason, const char *text);
/* Queues what the export's watch has to tell, if nothing waits already. */
void stream_notify(struct stream *stream);
/* Points `message` at what waits. False when nothing does. */
bool stream_gather(struct stream *stream);
void stream_sent(struct stream *stream, size_t length);

#endif
