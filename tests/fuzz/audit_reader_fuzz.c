/*
 * A log that anybody may have written, as `show` and `verify` read it: the first HEAD_SIZE bytes
 * are the head, the rest is the log. What show prints holds no control character. Reached that way:
 * audit/head.c, audit/line_reader.c, audit/parse.c and audit/row.c.
 */
#include "audit/head.h"
#include "audit/record.h"
#include "audit/show.h"
#include "audit/verify.h"
#include "base/log.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each line in a block of exactly its size, so that the first byte behind it is noticed. */
static size_t parse_lines(const char *text, size_t size)
{
	size_t records = 0;
	static char value[RECORD_TEXT_MAX];
	static struct record record;

	while (size > 0) {
		const char *newline = memchr(text, '\n', size);
		size_t length = newline ? (size_t)(newline - text) : size;
		char *line = malloc(length ? length : 1);

		if (!line)
			return records;
		memcpy(line, text, length);
		if (record_parse(line, length, &record) == 0) {
			records++;
			for (uint16_t i = 0; i < record.field_count; i++)
				record_text(&record.fields[i], value);
		}
		free(line);
		if (!newline)
			break;
		size -= length + 1;
		text = newline + 1;
	}
	return records;
}

static void check_output(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)text[i];

		if ((byte < 0x20 && byte != '\n') || byte == 0x7f)
			abort();
	}
}

static void show(int fd, bool json)
{
	const struct show_options options = { .json = json, .path = json ? "*a*" : NULL };
	char *text = NULL;
	size_t length = 0;
	FILE *output = open_memstream(&text, &length);

	if (!output)
		return;
	lseek(fd, 0, SEEK_SET);
	show_log(fd, -1, &options, output);
	fclose(output);
	check_output(text, length);
	free(text);
}

static int file_with(const void *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd >= 0 && write(fd, data, size) != (ssize_t)size) {
		close(fd);
		return -1;
	}
	lseek(fd, 0, SEEK_SET);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct verdict verdict;
	char text[384];
	int head;
	int log;

	if (size < HEAD_SIZE)
		return 0;
	log_configure("fuzz", LOG_LEVEL_ERROR);
	/* The buffers of a whole reader are large: logs without a record are only sampled. */
	if (parse_lines((const char *)data + HEAD_SIZE, size - HEAD_SIZE) == 0 && size % 16 != 0)
		return 0;
	head = file_with(data, HEAD_SIZE);
	log = file_with(data + HEAD_SIZE, size - HEAD_SIZE);
	if (head >= 0 && log >= 0) {
		if (verify_log(log, head, NULL, &verdict) == 0) {
			verdict_text(&verdict, text, sizeof(text));
			check_output(text, strlen(text));
		}
		show(log, false);
		show(log, true);
	}
	close(head);
	close(log);
	return 0;
}
