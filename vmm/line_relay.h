/*
 * Follows text that the guest or the engine writes on a socket or pipe, line by line, and keeps all
 * or some of it in a file.
 *
 * What arrives is bounded in every respect, since a guest may write for ever: at most `limit` bytes
 * are kept (then a note that the rest is dropped; reading goes on, so that the writer does not
 * block), a line is at most LINE_RELAY_LINE_MAX bytes, and one event reads at most 4 KiB.
 */
#ifndef VMM_LINE_RELAY_H
#define VMM_LINE_RELAY_H

#include "base/event_loop.h"

#include <stdbool.h>
#include <stddef.h>

#define LINE_RELAY_LINE_MAX 256

struct line_relay {
	struct event_source source; /* first; fd owned from line_relay_start() on */
	struct event_loop *loop;
	int file; /* borrowed; -1: keep nothing */
	size_t limit;
	/* Each complete line, NUL-terminated, without its newline, not escaped; long lines are cut.
	 */
	void (*line)(void *observer, const char *line);
	void *observer;
	size_t kept;
	size_t line_length;
	char line_text[LINE_RELAY_LINE_MAX + 1];
};

/* `fd` becomes the relay's. Returns 0 or a negative errno. */
int line_relay_start(struct line_relay *relay, struct event_loop *loop, int fd);
/* Reads what is there already, up to 1 MiB, and passes an incomplete last line on. */
void line_relay_finish(struct line_relay *relay);

#endif
