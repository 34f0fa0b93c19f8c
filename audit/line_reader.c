#include "audit/line_reader.h"

#include "audit/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Room for the rest of a line and a large read behind it. */
#define BUFFER_SIZE (RECORD_LINE_MAX + (1 << 20))

struct line_reader {
	int fd;
	bool skipping; /* inside a line that was too long */
	size_t start;  /* of the bytes not handed out yet */
	size_t end;
	size_t searched; /* no newline between start and here */
	uint64_t offset; /* of `start` in the file */
	char buffer[BUFFER_SIZE];
};

struct line_reader *line_reader_new(int fd)
{
	struct line_reader *reader = malloc(sizeof(*reader));

	if (reader) {
		reader->fd = fd;
		reader->skipping = false;
		reader->start = reader->end = reader->searched = 0;
		reader->offset = 0;
	}
	return reader;
}

void line_reader_free(struct line_reader *reader)
{
	free(reader);
}

/* Returns bytes added, 0 at the end of the file, or a negative errno. */
static ssize_t fill(struct line_reader *reader)
{
	ssize_t count;

	if (reader->start > 0) {
		memmove(reader->buffer, reader->buffer + reader->start,
			reader->end - reader->start);
		reader->end -= reader->start;
		reader->searched -= reader->start;
		reader->start = 0;
	}
	do {
		count = read(reader->fd, reader->buffer + reader->end, BUFFER_SIZE - reader->end);
	} while (count < 0 && errno == EINTR);
	if (count < 0)
		return -errno;
	reader->end += (size_t)count;
	return count;
}

static void consume(struct line_reader *reader, size_t length)
{
	reader->start += length;
	reader->searched = reader->start;
	reader->offset += length;
}

static void hand_out(struct line_reader *reader, struct line *line, enum line_state state,
		     size_t length)
{
	*line = (struct line){
		.state = state,
		.text = reader->buffer + reader->start,
		.length = length,
		.offset = reader->offset,
	};
}

int line_reader_next(struct line_reader *reader, struct line *ret_line)
{
	for (;;) {
		const char *newline = memchr(reader->buffer + reader->searched, '\n',
					     reader->end - reader->searched);
		ssize_t count;

		if (newline) {
			size_t length = (size_t)(newline - (reader->buffer + reader->start));
			bool skipped = reader->skipping;
			bool too_long = length >= RECORD_LINE_MAX;

			reader->skipping = false;
			hand_out(reader, ret_line, too_long ? LINE_TOO_LONG : LINE_WHOLE, length);
			consume(reader, length + 1);
			if (!skipped)
				return 0;
			continue;
		}
		reader->searched = reader->end;
		if (reader->end - reader->start > RECORD_LINE_MAX) {
			bool skipped = reader->skipping;

			hand_out(reader, ret_line, LINE_TOO_LONG, RECORD_LINE_MAX);
			consume(reader, reader->end - reader->start);
			reader->skipping = true;
			if (!skipped)
				return 0;
			continue;
		}
		count = fill(reader);
		if (count < 0)
			return (int)count;
		if (count == 0) {
			size_t rest = reader->end - reader->start;

			hand_out(reader, ret_line,
				 rest > 0 && !reader->skipping ? LINE_PARTIAL : LINE_NONE, rest);
			return 0;
		}
	}
}
