/*
 * The window of memory that this session's guest shares with the file server, and which of its
 * channels (wire/channel.h) are taken.
 *
 * All of it belongs to one guest, which may change any byte at any time. The mapping covers the
 * window alone, of a file that cannot shrink; no access within it faults.
 */
#ifndef FSSERVER_WINDOW_H
#define FSSERVER_WINDOW_H

#include "wire/channel.h"

struct window {
	uint8_t *memory; /* NULL: there is none */
	uint64_t size;
	uint64_t taken; /* bit n: channel n */
};

/* Maps `size` bytes at `offset` of the memory file `fd`, which is the caller's. Returns 0; -EINVAL
 * for what is not whole pages or holds no channel, -EPERM when the file could shrink, -EFBIG when
 * it ends before the window, or the error of mapping. */
int window_map(struct window *window, int fd, uint64_t offset, uint64_t size);
void window_unmap(struct window *window);

/* Begins channel `number`, from 1 on, anew. Returns 0 with the host's end, -EINVAL when there is no
 * such channel, -EBUSY when it is taken. */
int window_take(struct window *window, uint32_t number, struct channel *ret_channel);
void window_give_back(struct window *window, uint32_t number);

#endif
