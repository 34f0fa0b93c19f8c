/*
 * A request's body in a content coding, of any bytes, and of what zlib makes of any text. It goes
 * on as it came or is refused, however it is cut; one that zlib made goes on, unless its text holds
 * a decoy, and then it is refused.
 *
 * Input: one byte of choice (coding, whether the rest is the coded body or a text), one for the
 * cuts, the rest; in a text 1 stands for the decoy.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "proxy/coded_filter.h"
#include "proxy/secret_filter.h"
#include "tests/unit/secret_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BODY_MAX 16384

static const struct fixture_secret secrets[] = {
	{ .name = "DECOY", .value = "ghp_0123456789abcdefghij", .kind = SECRET_CANARY },
};

static struct secret_store *store;

static void require(int condition)
{
	if (!condition)
		abort();
}

/* The refusal. */
static int run(enum body_coding coding, const uint8_t *body, size_t length, size_t piece,
	       struct byte_buffer *out)
{
	const struct secret_set none = { 0 };
	struct body_filter *inner = secret_request_filter_new(store, &none, true);
	struct body_filter *filter = coded_filter_new(inner, coding);
	struct secret_verdict verdict = { 0 };
	size_t at = 0;
	int error = 0;

	require(filter != NULL);
	do {
		size_t step = MIN_OF(piece, length - at);
		uint8_t *copy = malloc(step + 1);

		require(copy != NULL);
		memcpy(copy, body + at, step);
		at += step;
		error = filter->feed(filter, copy, step, at == length, out);
		free(copy);
	} while (!error && at < length);
	secret_filter_report(inner, &verdict);
	filter->free(filter);
	require(error == 0 || error == -EACCES);
	require((error == 0) == (verdict.refusal == SECRET_REFUSAL_NONE));
	return (int)verdict.refusal;
}

static size_t make_text(const uint8_t *data, size_t size, uint8_t *text, bool *ret_is_decoy)
{
	const struct secret *decoy = secret_store_get(store, 0);
	size_t used = 0;

	*ret_is_decoy = false;
	for (size_t i = 0; i < size && used < BODY_MAX / 2; i++) {
		if (data[i] == 1) {
			memcpy(text + used, decoy->placeholder, decoy->length);
			used += decoy->length;
			*ret_is_decoy = true;
		} else {
			text[used++] = data[i];
		}
	}
	return used;
}

static size_t pack(enum body_coding coding, const uint8_t *text, size_t length, uint8_t *body)
{
	z_stream stream = { 0 };

	require(deflateInit2(&stream, 1, Z_DEFLATED,
			     coding == BODY_CODING_GZIP ? MAX_WBITS + 16 : MAX_WBITS, 8,
			     Z_DEFAULT_STRATEGY) == Z_OK);
	stream.next_in = (Bytef *)(uintptr_t)text;
	stream.avail_in = (uInt)length;
	stream.next_out = body;
	stream.avail_out = BODY_MAX;
	require(deflate(&stream, Z_FINISH) == Z_STREAM_END);
	length = stream.total_out;
	deflateEnd(&stream);
	return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t text[BODY_MAX];
	static uint8_t packed[BODY_MAX];
	enum body_coding coding;
	struct byte_buffer whole;
	struct byte_buffer parts;
	const uint8_t *body = data + 2;
	size_t length = size - 2;
	bool is_text;
	bool is_decoy = false;
	int refusal;

	if (!store)
		store = fixture_store(secrets, ARRAY_LENGTH(secrets));
	if (size < 2 || size > BODY_MAX / 2)
		return 0;
	coding = data[0] & 1 ? BODY_CODING_GZIP : BODY_CODING_DEFLATE;
	is_text = (data[0] & 2) != 0;
	if (is_text) {
		length = make_text(body, length, text, &is_decoy);
		length = pack(coding, text, length, packed);
		body = packed;
	}
	byte_buffer_init(&whole, BODY_MAX);
	byte_buffer_init(&parts, BODY_MAX);
	refusal = run(coding, body, length, length + 1, &whole);
	require(run(coding, body, length, data[1] + 1u, &parts) == refusal);
	require(!is_decoy || refusal == SECRET_REFUSAL_CANARY);
	require(!is_text || refusal == SECRET_REFUSAL_NONE || refusal == SECRET_REFUSAL_CANARY);
	require(refusal || byte_buffer_length(&whole) == length);
	require(byte_buffer_length(&parts) <= length);
	require(byte_buffer_length(&parts) == 0 ||
		!memcmp(byte_buffer_front(&parts), body, byte_buffer_length(&parts)));
	byte_buffer_release(&whole);
	byte_buffer_release(&parts);
	return 0;
}
