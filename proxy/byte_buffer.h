/*
 * A queue of bytes with a hard cap: appended at the back, consumed from the front.
 *
 * The block grows by a factor up to `max` and is given back when the queue runs empty, so that an
 * idle connection holds none; where it is filled and emptied many times in one turn, it may be kept
 * until the turn is over. Pointers into it are valid until the next append, reserve or consume.
 * What is freed or left behind by growth is wiped, as far as it was ever committed: a secret may
 * have passed through.
 */
#ifndef PROXY_BYTE_BUFFER_H
#define PROXY_BYTE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct byte_buffer {
	uint8_t *data;
	size_t begin;
	size_t end;
	size_t capacity;
	size_t touched; /* how much of the block ever held something */
	size_t max;
	bool is_kept; /* the block, when it runs empty */
};

void byte_buffer_init(struct byte_buffer *buffer, size_t max);
/* Empty, without a block; usable again with the same cap. */
void byte_buffer_release(struct byte_buffer *buffer);
/* From now on a block that runs empty is kept; or no longer, nor is one that is empty now. */
void byte_buffer_keep(struct byte_buffer *buffer, bool is_kept);

/* Bytes queued, and their start: NULL or any pointer when there are none. */
size_t byte_buffer_length(const struct byte_buffer *buffer);
const uint8_t *byte_buffer_front(const struct byte_buffer *buffer);
/* How many more bytes the cap allows. */
size_t byte_buffer_room(const struct byte_buffer *buffer);

/* Queues all of `data`, or nothing: -ENOBUFS over the cap, -ENOMEM. */
int byte_buffer_append(struct byte_buffer *buffer, const void *data, size_t length);
/* Room for `length` bytes in *ret_space, of which byte_buffer_commit() queues the first ones. Who
 * writes more than it commits wipes the rest. Errors as above. */
int byte_buffer_reserve(struct byte_buffer *buffer, size_t length, uint8_t **ret_space);
void byte_buffer_commit(struct byte_buffer *buffer, size_t length);
/* Drops the first `length` bytes, at most those that are there. */
void byte_buffer_consume(struct byte_buffer *buffer, size_t length);
/* Drops the last bytes, and wipes them. */
void byte_buffer_trim(struct byte_buffer *buffer, size_t length);
/* Hands over all that `from` holds to `to`, which is empty and whose cap allows it, and gets its
 * block. */
void byte_buffer_move(struct byte_buffer *from, struct byte_buffer *to);

#endif
