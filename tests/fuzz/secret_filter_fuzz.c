/*
 * Both body filters over any bytes, into which the input also puts the secrets in several forms.
 * What comes out has the length of what went in, does not depend on how it was cut, and holds no
 * value that went in.
 *
 * Input: one byte of choice (direction), one for the cuts, then the body; bytes 1 to 7 stand for
 * the secret in a form.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/form_scanner.h"
#include "proxy/secret_filter.h"
#include "proxy/secret_forms.h"
#include "tests/unit/secret_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VALUE "sk-Ab/C012+def345Ghi"
#define BODY_MAX 8192

static const struct fixture_secret secrets[] = {
	{ .name = "KEY", .value = VALUE, .host = "a.test", .flags = SECRET_FLAG_BODY },
	{ .name = "OTHER", .value = "abababababab12", .host = "b.test" },
	{ .name = "LONGER", .value = "abababababab12345678", .host = "a.test" },
	{ .name = "DECOY", .value = "ghp_0123456789abcdefghij", .kind = SECRET_CANARY },
};

static struct secret_store *store;
static struct secret_set bound;

static void require(int condition)
{
	if (!condition)
		abort();
}

static size_t put(uint8_t form, const char *text, uint8_t *output)
{
	size_t used = 0;
	size_t length = strlen(text);

	switch (form) {
	case 1:
		memcpy(output, text, length);
		return length;
	case 2:
	case 3:
	case 4:
		length = secret_form_length((enum secret_form)(form - 1), strlen(text));
		for (size_t i = 0; i < length; i++)
			output[i] = secret_form_character((enum secret_form)(form - 1), text,
							  strlen(text), i);
		return length;
	case 5:
		for (size_t i = 0; i < length; i++)
			used += (size_t)snprintf((char *)output + used, 8, i % 2 ? "%%%02x" : "%c",
						 text[i]);
		return used;
	case 6:
		for (size_t i = 0; i < length; i++)
			used += (size_t)snprintf((char *)output + used, 8, i % 3 ? "%c" : "\\u%04x",
						 text[i]);
		return used;
	default:
		for (size_t i = 0; i < length; i++)
			used += (size_t)snprintf((char *)output + used, 8, "%02x", text[i]);
		return used;
	}
}

static size_t make_body(const uint8_t *data, size_t size, int is_response, uint8_t *body)
{
	size_t used = 0;

	for (size_t i = 0; i < size && used < BODY_MAX - 256; i++) {
		const struct secret *secret = secret_store_get(store, data[i] >> 3 & 1 ? 2 : 0);
		char text[64];

		if (data[i] == 0 || data[i] > 15 || (data[i] & 7) == 0) {
			body[used++] = data[i];
			continue;
		}
		snprintf(text, sizeof(text), "%.*s", (int)secret->length,
			 is_response ? secret->value : secret->placeholder);
		used += put(data[i] & 7, text, body + used);
	}
	return used;
}

/* Gives it the data in a buffer to hand on. */
static int feed_buffer(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		       struct byte_buffer *out)
{
	struct byte_buffer in;
	struct byte_buffer piece;
	int result;

	byte_buffer_init(&in, BODY_MAX);
	byte_buffer_init(&piece, BODY_MAX);
	require(byte_buffer_append(&in, data, length) == 0);
	result = filter->feed_buffer(filter, &in, is_last, &piece);
	require(result != 0 || byte_buffer_length(&in) == 0);
	require(byte_buffer_append(out, byte_buffer_front(&piece), byte_buffer_length(&piece)) ==
		0);
	byte_buffer_release(&in);
	byte_buffer_release(&piece);
	return result;
}

/* The body in pieces of the given length, in buffers; 0 is in one that is not. Returns feed()'s
 * result. */
static int run(int is_response, const uint8_t *body, size_t length, size_t piece,
	       struct byte_buffer *out)
{
	struct body_filter *filter = is_response ? secret_response_filter_new(store)
						 : secret_request_filter_new(store, &bound, true);
	size_t at = 0;
	int result = 0;

	require(filter != NULL);
	do {
		size_t step = piece == 0 ? length : MIN_OF(piece, length - at);
		uint8_t *copy = malloc(step + 1);

		require(copy != NULL);
		memcpy(copy, body + at, step);
		at += step;
		if (piece > 0 && step > 0)
			result = feed_buffer(filter, copy, step, at == length, out);
		else
			result = filter->feed(filter, copy, step, at == length, out);
		free(copy);
	} while (result == 0 && at < length);
	filter->free(filter);
	return result;
}

static void expect_hidden(const uint8_t *text, size_t length)
{
	for (unsigned escapes = 0; escapes < FORM_VIEWS; escapes++) {
		static uint8_t plain[BODY_MAX];
		size_t used = 0;

		for (size_t at = 0; at < length;)
			at += form_token(text + at, length - at, escapes, true, &plain[used++]);
		require(!memmem(plain, used, &secrets[0].value[3], strlen(VALUE) - 3));
		require(!memmem(plain, used, secrets[2].value, strlen(secrets[2].value)));
	}
}

static void make_store(void)
{
	struct host_name host;

	secret_store_free(store);
	store = fixture_store(secrets, ARRAY_LENGTH(secrets));
	require(store && host_name_parse("a.test", 6, &host) == 0);
	secret_store_bound(store, &host, 443, &bound);
}

/* The same, whole and in pieces. */
static void compare(int is_response, const uint8_t *body, size_t length, size_t piece)
{
	struct byte_buffer whole;
	struct byte_buffer parts;
	int result;

	byte_buffer_init(&whole, BODY_MAX);
	byte_buffer_init(&parts, BODY_MAX);
	result = run(is_response, body, length, 0, &whole);
	/* Pieces that end inside a value are counted, and then the result is another. */
	if (run(is_response, body, length, piece, &parts) != result) {
		require(secret_store_is_probed(store));
	} else if (result == 0) {
		require(byte_buffer_length(&whole) == length);
		require(byte_buffer_length(&parts) == length);
		require(length == 0 ||
			!memcmp(byte_buffer_front(&whole), byte_buffer_front(&parts), length));
		if (is_response)
			expect_hidden(byte_buffer_front(&whole), length);
	}
	require(!is_response || result == 0);
	byte_buffer_release(&whole);
	byte_buffer_release(&parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t body[BODY_MAX];
	size_t length;

	if (!store || secret_store_is_probed(store))
		make_store();
	if (size < 2)
		return 0;
	length = make_body(data + 2, size - 2, data[0] & 1, body);
	compare(data[0] & 1, body, length, 1U + data[1] % 40);
	return 0;
}
