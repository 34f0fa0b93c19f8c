/*
 * A gRPC body of any bytes through the filter of its messages. What comes out has the length of
 * what went in and does not depend on how that was cut; nothing of a message is kept back at its
 * end; and a value that lies whole in a message does not come out.
 *
 * Input: one byte for the cuts, then the body, in which 1 stands for a whole message with the
 * value, and 2 for a message with the bytes that follow up to the next 2.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/grpc_filter.h"
#include "proxy/secret_filter.h"
#include "tests/unit/secret_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VALUE "sk-Ab/C012+def345Ghi"
#define BODY_MAX 8192

static const struct fixture_secret secrets[] = {
	{ .name = "KEY", .value = VALUE, .host = "a.test" },
};

static struct secret_store *store;

static void require(int condition)
{
	if (!condition)
		abort();
}

static size_t put_message(const void *text, size_t length, uint8_t *out)
{
	const uint8_t prefix[GRPC_PREFIX_SIZE] = { 0, 0, 0, (uint8_t)(length >> 8),
						   (uint8_t)length };

	memcpy(out, prefix, sizeof(prefix));
	if (length > 0)
		memcpy(out + sizeof(prefix), text, length);
	return sizeof(prefix) + length;
}

/* *ret_ends: the body is messages alone. */
static size_t make_body(const uint8_t *data, size_t size, uint8_t *body, int *ret_ends)
{
	size_t used = 0;

	*ret_ends = 1;
	for (size_t i = 0; i < size && used < BODY_MAX - 4200; i++) {
		const uint8_t *end = memchr(data + i + 1, 2, MIN_OF(size - i - 1, (size_t)4000));

		if (data[i] == 1) {
			used += put_message(VALUE, strlen(VALUE), body + used);
		} else if (data[i] == 2 && end) {
			used += put_message(data + i + 1, (size_t)(end - data) - i - 1,
					    body + used);
			i = (size_t)(end - data);
		} else {
			*ret_ends = 0;
			body[used++] = data[i];
		}
	}
	return used;
}

/* In pieces; how much had come out before the body's end was told. False when the store has seen
 * too many pauses within what began like a value. */
static bool run(const uint8_t *body, size_t length, size_t piece, struct byte_buffer *out,
		size_t *ret_before)
{
	struct body_filter *filter = grpc_filter_new(secret_response_filter_new(store), false);
	int error = 0;

	require(filter != NULL);
	for (size_t at = 0; at < length && !error; at += piece) {
		size_t step = MIN_OF(piece, length - at);
		uint8_t *copy = malloc(step);

		require(copy != NULL);
		memcpy(copy, body + at, step);
		error = filter->feed(filter, copy, step, false, out);
		free(copy);
	}
	*ret_before = byte_buffer_length(out);
	if (!error)
		error = filter->feed(filter, body, 0, true, out);
	filter->free(filter);
	require(!error || secret_store_is_probed(store));
	return !error;
}

static void check(const uint8_t *body, size_t length, size_t piece, bool ends)
{
	struct byte_buffer whole;
	struct byte_buffer parts;
	size_t before;

	byte_buffer_init(&whole, BODY_MAX);
	byte_buffer_init(&parts, BODY_MAX);
	if (run(body, length, length + 1, &whole, &before)) {
		require(before == length || !ends);
		require(byte_buffer_length(&whole) == length);
		require(!ends || length == 0 ||
			!memmem(byte_buffer_front(&whole), length, &VALUE[3], strlen(VALUE) - 3));
		if (run(body, length, piece, &parts, &before)) {
			require(byte_buffer_length(&parts) == length);
			require(length == 0 || !memcmp(byte_buffer_front(&parts),
						       byte_buffer_front(&whole), length));
		}
	}
	byte_buffer_release(&whole);
	byte_buffer_release(&parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t body[BODY_MAX];
	size_t length;
	int ends;

	if (!store || secret_store_is_probed(store)) {
		secret_store_free(store);
		store = fixture_store(secrets, ARRAY_LENGTH(secrets));
		require(store != NULL);
	}
	if (size < 2)
		return 0;
	length = make_body(data + 1, size - 1, body, &ends);
	check(body, length, data[0] + 1u, ends);
	return 0;
}
