/*
 * The guest's memory as a file, and the window in it that the file server shares
 * (docs/protocol-channel.md).
 *
 * The file is made here because two processes map it: the engine all of it, the file server the
 * window alone. It can neither shrink nor grow.
 */
#ifndef CLI_MEMORY_WINDOW_H
#define CLI_MEMORY_WINDOW_H

#include "cli/text.h"

#include <stdint.h>

struct memory_window {
	int fd;		     /* -1: none was made, and there is no window */
	uint64_t address;    /* guest physical, and offset in the file */
	uint64_t size;	     /* bytes; 0: the guest is too small for one */
	int doorbell_engine; /* stream socket that the engine writes the guest's doorbells to ... */
	int doorbell_server; /* ... and the end where the file server reads them */
};

int memory_window_make(unsigned memory_mib, struct memory_window *ret_window,
		       struct problem *problem);
void memory_window_close(struct memory_window *window);

#endif
