/*
 * Requests signed for AWS, of any bytes. A header that is read names texts inside itself; a
 * signature that is made for what was read is found again, and not with another key.
 *
 * Input: lines. The first is the Authorization's value, the second the path, the rest fields.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/sigv4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
	if (!condition)
		abort();
}

static void require_inside(struct http_text text, const char *data, size_t length)
{
	require(text.data >= data && text.length <= length &&
		text.data + text.length <= data + length);
}

static struct http_text next_line(const char **at, size_t *left)
{
	const char *end = memchr(*at, '\n', *left);
	struct http_text line = { *at, end ? (size_t)(end - *at) : *left };

	*at += end ? line.length + 1 : line.length;
	*left -= end ? line.length + 1 : line.length;
	return line;
}

static void sign_and_find(const struct http_head *head, struct http_text value,
			  const struct sigv4 *signature)
{
	struct sigv4_form form = { .escape_again = value.length & 1,
				   .payload = { sigv4_empty_payload, 64 } };
	char hex[SIGV4_SIGNATURE_LENGTH];
	struct sigv4 signed_again = *signature;
	struct sigv4_form found;

	if (sigv4_sign(head, signature, &form, "key", 3, hex) != 0)
		return;
	signed_again.signature = (struct http_text){ hex, sizeof(hex) };
	require(sigv4_find_form(head, &signed_again, form.payload, "key", 3, &found) == 0);
	require(sigv4_find_form(head, &signed_again, form.payload, "kex", 3, &found) ==
		-EKEYREJECTED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of the exact size, so that a read past the end is seen. */
	char *copy = malloc(size + 1);
	struct http_head *head = http_head_new();
	const char *at = copy;
	size_t left = size;
	struct http_text value;
	struct http_text path;
	struct sigv4 signature;

	require(copy && head);
	memcpy(copy, data, size);
	value = next_line(&at, &left);
	path = next_line(&at, &left);
	http_head_set_method(head, "GET", 3);
	http_head_set_path(head, path.data, path.length);
	while (left > 0) {
		struct http_text line = next_line(&at, &left);
		const char *colon = memchr(line.data, ':', line.length);

		if (colon)
			http_head_add(head, line.data, (size_t)(colon - line.data), colon + 1,
				      line.length - (size_t)(colon - line.data) - 1);
	}
	if (sigv4_parse(value, &signature) == 0) {
		require_inside(signature.key_id, value.data, value.length);
		require_inside(signature.scope, value.data, value.length);
		require_inside(signature.signed_headers, value.data, value.length);
		require_inside(signature.signature, value.data, value.length);
		require(signature.key_id.length > 0);
		require(signature.signature.length == SIGV4_SIGNATURE_LENGTH);
		sign_and_find(head, value, &signature);
	}
	http_head_free(head);
	free(copy);
	return 0;
}
