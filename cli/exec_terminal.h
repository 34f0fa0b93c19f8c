/*
 * The caller's terminal while a pty in the guest stands in for it: raw, so that every key goes
 * to the guest, and put back as it was.
 */
#ifndef CLI_EXEC_TERMINAL_H
#define CLI_EXEC_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>
#include <termios.h>

struct exec_terminal {
	int fd; /* borrowed; -1 when there is no terminal */
	bool raw;
	struct termios saved;
};

/* `fd` that is no terminal makes all other calls do nothing. */
void exec_terminal_init(struct exec_terminal *terminal, int fd);
/* A process in the background is stopped here by SIGTTOU until it is in the foreground. */
void exec_terminal_make_raw(struct exec_terminal *terminal);
/* Never stops the process. */
void exec_terminal_restore(struct exec_terminal *terminal);
/* False when there is no terminal or it does not know its size. */
bool exec_terminal_size(const struct exec_terminal *terminal, uint16_t *ret_rows,
			uint16_t *ret_columns);

#endif
