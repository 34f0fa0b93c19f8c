/* Any bytes as the body of a push, cut at places that the first byte chooses: the same comes out as
 * in one piece, and what comes out changes no ref but those that are allowed. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/git_push.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct egress_rule rule;
static const char *refs[] = { "refs/heads/a/*" };
static struct egress_push allowed = { "/r", { refs, 1 } };

/* Returns the result of the whole; `out` is initialised here. */
static int push(const uint8_t *data, size_t size, size_t step, struct byte_buffer *out)
{
	struct http_head *head = http_head_new();
	struct body_filter *filter = NULL;
	struct egress_verdict verdict;
	int result = -ENOMEM;

	byte_buffer_init(out, 1 << 20);
	if (head && http_head_set_path(head, "/r.git/git-receive-pack", 23) == 0)
		result = git_push_prepare(&rule, head, &filter, &verdict);
	for (size_t i = 0; result == 0 && (i < size || i == 0); i += step) {
		size_t length = size - i < step ? size - i : step;

		result = filter->feed(filter, data + i, length, i + length == size, out);
		if (i + length == size)
			break;
	}
	if (result == -EACCES)
		assert(git_push_verdict(filter)->reason && byte_buffer_length(out) == 0);
	if (filter)
		filter->free(filter);
	http_head_free(head);
	return result;
}

/* Reads the list as a server would, without looking for anything that is wrong. */
static void check_refs(const char *data, size_t size)
{
	while (size >= 4) {
		char digits[5] = { data[0], data[1], data[2], data[3], '\0' };
		size_t length = strtoul(digits, NULL, 16);
		const char *ref;

		if (length == 0)
			return;
		assert(length > 4 && length <= size);
		if (memcmp(data + 4, "shallow ", 8) != 0) {
			ref = memchr(data + 4, ' ', length - 4);
			assert(ref);
			ref = memchr(ref + 1, ' ', length - (size_t)(ref + 1 - data));
			assert(ref && (size_t)(ref + 14 - data) <= length);
			assert(memcmp(ref, " refs/heads/a/", 14) == 0);
		}
		data += length;
		size -= length;
	}
	/* What was let through has an end. */
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct byte_buffer whole, pieces;
	/* Of the exact size, so that a read past the end is seen. */
	uint8_t *body = malloc(size > 0 ? size : 1);
	int result;

	if (!body || size < 2) {
		free(body);
		return 0;
	}
	rule.where = "p:1";
	rule.host = (struct host_pattern){ .name = { .text = "x", .length = 1 } };
	rule.limits_pushes = true;
	rule.pushes = &allowed;
	rule.push_count = 1;
	memcpy(body, data + 1, size - 1);
	result = push(body, size - 1, SIZE_MAX, &whole);
	assert(push(body, size - 1, data[0] + 1u, &pieces) == result);
	assert(byte_buffer_length(&whole) == byte_buffer_length(&pieces));
	if (result == 0) {
		assert(byte_buffer_length(&whole) == size - 1);
		assert(memcmp(byte_buffer_front(&whole), body, size - 1) == 0);
		assert(memcmp(byte_buffer_front(&pieces), body, size - 1) == 0);
		check_refs((const char *)body, size - 1);
	}
	byte_buffer_release(&whole);
	byte_buffer_release(&pieces);
	free(body);
	return 0;
}
