/*
 * A standard descriptor of the caller, made fit for a poll loop without changing the open file
 * description that it shares with other processes.
 *
 * Pipes and terminals are opened a second time, non-blocking, through /proc/self/fd. Where that is
 * not possible (a terminal of another user after su) the descriptor is used as it is, a little at
 * a time and only when poll(2) says so.
 */
#ifndef CLI_EXEC_STDIO_H
#define CLI_EXEC_STDIO_H

#include "base/relay.h"

#include <stdbool.h>

struct exec_stdio {
	int fd;
	bool owned;
	enum relay_end end;
};

struct exec_stdio exec_stdio_open(int fd, bool for_writing);
void exec_stdio_close(struct exec_stdio *stdio);

#endif
