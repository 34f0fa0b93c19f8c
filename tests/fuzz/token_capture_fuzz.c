/*
 * Tokens captured from an answer of any bytes: what comes out has the same length, does not depend
 * on how the answer was cut but for the placeholders drawn, is JSON where the answer was, with the
 * same strings but those of the known keys, and holds no captured token.
 *
 * Input: one byte for the cuts, then the answer.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/token_capture.h"
#include "tests/unit/secret_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ANSWER_MAX 4096

static const struct fixture_secret parent = {
	.name = "P", .value = "parent-secret-0123", .host = "a.test", .flags = SECRET_FLAG_CAPTURE
};

static void require(int condition)
{
	if (!condition)
		abort();
}

static int run(struct secret_store *store, const uint8_t *data, size_t length, size_t piece,
	       struct byte_buffer *out)
{
	struct body_filter *filter = token_capture_new(store, 0);
	size_t at = 0;
	int result = 0;

	require(filter != NULL);
	do {
		size_t step = MIN_OF(piece, length - at);
		uint8_t *copy = malloc(step + 1);

		require(copy != NULL);
		memcpy(copy, data + at, step);
		at += step;
		result = filter->feed(filter, copy, step, at == length, out);
		free(copy);
	} while (result == 0 && at < length);
	filter->free(filter);
	return result;
}

static int is_same_kind(const json_t *a, const json_t *b);

/* A key may hold a secret's value too, and then reads otherwise afterwards, in the same length. */
static int is_same_object(const json_t *a, const json_t *b)
{
	void *in_a = json_object_iter((json_t *)(uintptr_t)a);
	void *in_b = json_object_iter((json_t *)(uintptr_t)b);

	while (in_a && in_b) {
		if (json_object_iter_key_len(in_a) != json_object_iter_key_len(in_b) ||
		    !is_same_kind(json_object_iter_value(in_a), json_object_iter_value(in_b)))
			return 0;
		in_a = json_object_iter_next((json_t *)(uintptr_t)a, in_a);
		in_b = json_object_iter_next((json_t *)(uintptr_t)b, in_b);
	}
	return !in_a && !in_b;
}

static int is_same_kind(const json_t *a, const json_t *b)
{
	if (json_typeof(a) != json_typeof(b))
		return 0;
	if (json_is_string(a))
		return json_string_length(a) == json_string_length(b);
	if (json_is_object(a))
		return is_same_object(a, b);
	if (!json_is_array(a))
		return json_equal((json_t *)(uintptr_t)a, (json_t *)(uintptr_t)b);
	if (json_array_size(a) != json_array_size(b))
		return 0;
	for (size_t i = 0; i < json_array_size(a); i++) {
		if (!is_same_kind(json_array_get(a, i), json_array_get(b, i)))
			return 0;
	}
	return 1;
}

/* Where tokens overlap, themselves as in eeee or one another, what the placeholders then make
 * together can be a token by chance. */
static int may_overlap(const struct secret_store *store)
{
	for (size_t i = 1; i < secret_store_count(store); i++) {
		for (size_t j = 1; j < secret_store_count(store); j++) {
			const struct secret *a = secret_store_get(store, i);
			const struct secret *b = secret_store_get(store, j);
			const char *end = a->value + a->length;

			for (size_t k = 1; k < MIN_OF(a->length, b->length); k++) {
				if (!memcmp(end - k, b->value + b->kept, k))
					return 1;
			}
		}
	}
	return 0;
}

static void require_hidden(const struct secret_store *store, const uint8_t *text, size_t length)
{
	if (may_overlap(store))
		return;
	for (size_t i = 1; i < secret_store_count(store); i++) {
		const struct secret *secret = secret_store_get(store, i);

		require(!memmem(text, length, secret->value + secret->kept,
				secret->length - secret->kept));
	}
}

static int is_captured(const struct secret_store *store, const json_t *value)
{
	for (size_t i = 1; i < secret_store_count(store); i++) {
		const struct secret *secret = secret_store_get(store, i);

		if (secret->length == json_string_length(value) &&
		    !memcmp(secret->value, json_string_value(value), secret->length))
			return 1;
	}
	return json_string_length(value) < SECRET_VALUE_MIN;
}

/* Each token, as a reader of JSON sees it, is a secret now. */
static void require_captured(const struct secret_store *store, const json_t *json)
{
	const char *key;
	json_t *value;

	for (size_t i = 0; i < json_array_size(json); i++)
		require_captured(store, json_array_get(json, i));
	json_object_foreach((json_t *)(uintptr_t)json, key, value)
	{
		if (!strcmp(key, "access_token") || !strcmp(key, "token"))
			require(!json_is_string(value) || is_captured(store, value));
		require_captured(store, value);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct secret_store *store;
	struct byte_buffer whole;
	struct byte_buffer parts;
	json_t *before;
	int result;

	if (size < 2 || size > ANSWER_MAX)
		return 0;
	store = fixture_store(&parent, 1);
	require(store != NULL);
	byte_buffer_init(&whole, ANSWER_MAX);
	byte_buffer_init(&parts, ANSWER_MAX);
	result = run(store, data + 1, size - 1, size, &whole);
	/* The same tokens again are the same secrets, so the same placeholders. */
	require(run(store, data + 1, size - 1, 1U + data[0] % 32, &parts) == result ||
		secret_store_is_probed(store));
	if (result == 0 && !secret_store_is_probed(store)) {
		require(byte_buffer_length(&whole) == size - 1);
		require(byte_buffer_length(&parts) == size - 1);
		before = json_loadb((const char *)data + 1, size - 1, JSON_ALLOW_NUL, NULL);
		if (before) {
			json_t *after = json_loadb((const char *)byte_buffer_front(&whole),
						   size - 1, JSON_ALLOW_NUL, NULL);

			require(after && is_same_kind(before, after));
			require_captured(store, before);
			json_decref(after);
			json_decref(before);
		}
		require_hidden(store, byte_buffer_front(&parts), size - 1);
	}
	byte_buffer_release(&whole);
	byte_buffer_release(&parts);
	secret_store_free(store);
	return 0;
}
