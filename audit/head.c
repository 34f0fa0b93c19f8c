#include "audit/head.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void head_format(const struct head *head, char text[HEAD_SIZE])
{
	char hex[DIGEST_HEX_SIZE];
	char line[HEAD_SIZE + 1];
	int length;

	digest_to_hex(head->hash, hex);
	length = snprintf(line, sizeof(line),
			  "{\"seq\":%" PRIu64 ",\"hash\":\"%.*s\",\"closed\":%s}", head->sequence,
			  DIGEST_HEX_SIZE, hex, head->closed ? "true" : "false");
	memset(text, ' ', HEAD_SIZE);
	memcpy(text, line, (size_t)length);
	text[HEAD_SIZE - 1] = '\n';
}

int head_parse(const char *text, size_t length, struct head *ret_head)
{
	static const char prefix[] = "{\"seq\":";
	static const char infix[] = ",\"hash\":\"";
	char copy[HEAD_SIZE + 1];
	char again[HEAD_SIZE];
	struct head head;
	char *end;

	if (length != HEAD_SIZE || memcmp(text, prefix, sizeof(prefix) - 1) != 0)
		return -EBADMSG;
	memcpy(copy, text, HEAD_SIZE);
	copy[HEAD_SIZE] = '\0';
	head.sequence = strtoull(copy + sizeof(prefix) - 1, &end, 10);
	if (strncmp(end, infix, sizeof(infix) - 1) != 0)
		return -EBADMSG;
	end += sizeof(infix) - 1;
	if (strlen(end) < DIGEST_HEX_SIZE || !digest_from_hex(end, head.hash))
		return -EBADMSG;
	head.closed = strstr(end, "\"closed\":true}") != NULL;
	/* One form only: what does not come out the same is something else. */
	head_format(&head, again);
	if (memcmp(again, text, HEAD_SIZE) != 0)
		return -EBADMSG;
	*ret_head = head;
	return 0;
}

int head_read(int fd, struct head *ret_head)
{
	char text[HEAD_SIZE + 1];
	ssize_t count = pread(fd, text, sizeof(text), 0);

	if (count < 0)
		return -errno;
	return head_parse(text, (size_t)count, ret_head);
}

int head_write(int fd, const struct head *head)
{
	char text[HEAD_SIZE];
	ssize_t count;

	head_format(head, text);
	do {
		count = pwrite(fd, text, sizeof(text), 0);
	} while (count < 0 && errno == EINTR);
	if (count < 0)
		return -errno;
	return count == (ssize_t)sizeof(text) ? 0 : -ENOSPC;
}
