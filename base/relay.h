/*
 * One direction of a byte stream between two descriptors, for a poll loop: what a read delivers
 * is written out before more is read, so memory is one buffer and a slow sink slows the source.
 *
 * The relay owns its buffer; the descriptors stay the caller's. Neither call ever blocks, except
 * on a RELAY_BLOCKING end, where one read or write of at most 4 KiB is made per turn and only
 * after poll(2) said that the end is ready.
 */
#ifndef BASE_RELAY_H
#define BASE_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum relay_end {
	RELAY_NONBLOCKING, /* the description has O_NONBLOCK */
	RELAY_SOCKET,	   /* MSG_DONTWAIT per call; never raises SIGPIPE */
	RELAY_BLOCKING,	   /* somebody else's description, left as it is */
	RELAY_FILE,	   /* a regular file: always ready, whole buffers */
};

struct relay {
	int source;
	int sink;
	enum relay_end source_end;
	enum relay_end sink_end;
	uint8_t *buffer;
	size_t capacity;
	size_t start;
	size_t length;
	bool source_ended; /* end of file or a read error */
	bool sink_failed;  /* EPIPE and the like; what is buffered is dropped */
	int source_error;  /* errno behind source_ended, or 0 */
	int sink_error;
	uint64_t moved; /* bytes written to the sink */
};

/* `capacity` is the buffer's size, at least one page. 0 or -ENOMEM. Descriptors may be -1 and
 * set later; such an end is never ready. */
int relay_init(struct relay *relay, int source, enum relay_end source_end, int sink,
	       enum relay_end sink_end, size_t capacity);
void relay_release(struct relay *relay);

/* What to poll each end for. With 0, leave the source out of the poll set (its hang-up would be
 * reported over and over); the sink may stay in, so that its failure is noticed. */
short relay_source_events(const struct relay *relay);
short relay_sink_events(const struct relay *relay);

/* Moves what can be moved, given the revents of both ends. Returns true if any byte moved or
 * the relay's state changed. */
bool relay_turn(struct relay *relay, short source_revents, short sink_revents);

/* Nothing more will be read. */
void relay_end_source(struct relay *relay);
/* The source has ended and everything was written, or the sink failed. */
bool relay_done(const struct relay *relay);

#endif
