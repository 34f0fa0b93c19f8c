#include "vmm/line_relay.h"

#include "base/checked.h"
#include "base/io.h"

#include <string.h>
#include <unistd.h>

#define READ_MAX 4096
#define FINISH_READS 256

static void keep(struct line_relay *relay, const char *text, size_t length)
{
	static const char note[] = "\n[the rest of this output is dropped]\n";
	size_t room = relay->limit - relay->kept;
	size_t taken = MIN_OF(room, length);

	if (relay->file < 0 || room == 0)
		return;
	/* A full disk must not end the guest; the text is for people only. */
	(void)write_full(relay->file, text, taken);
	relay->kept += taken;
	if (relay->kept == relay->limit)
		(void)write_full(relay->file, note, sizeof(note) - 1);
}

static void end_line(struct line_relay *relay)
{
	relay->line_text[relay->line_length] = '\0';
	if (relay->line && relay->line_length > 0)
		relay->line(relay->observer, relay->line_text);
	relay->line_length = 0;
}

static void follow_lines(struct line_relay *relay, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '\n')
			end_line(relay);
		else if (text[i] != '\0' && text[i] != '\r' &&
			 relay->line_length < LINE_RELAY_LINE_MAX)
			relay->line_text[relay->line_length++] = text[i];
	}
}

static void close_source(struct line_relay *relay)
{
	event_loop_remove(relay->loop, &relay->source);
	close(relay->source.fd);
	relay->source.fd = -1;
}

/* Returns false when there is nothing more to read now. */
static bool read_some(struct line_relay *relay)
{
	char text[READ_MAX];
	ssize_t count = read(relay->source.fd, text, sizeof(text));

	if (count > 0) {
		keep(relay, text, (size_t)count);
		follow_lines(relay, text, (size_t)count);
		return true;
	}
	if (count == 0)
		close_source(relay);
	return false;
}

static void relay_ready(struct event_source *source, uint32_t events)
{
	(void)events;
	(void)read_some((struct line_relay *)source);
}

int line_relay_start(struct line_relay *relay, struct event_loop *loop, int fd)
{
	int r;

	relay->loop = loop;
	relay->source.fd = fd;
	relay->source.ready = relay_ready;
	r = set_nonblocking(fd, true);
	return r < 0 ? r : event_loop_add(loop, &relay->source, EPOLLIN);
}

void line_relay_finish(struct line_relay *relay)
{
	for (int i = 0; i < FINISH_READS && relay->source.fd >= 0 && read_some(relay); i++)
		;
	end_line(relay);
	if (relay->source.fd >= 0)
		close_source(relay);
}
