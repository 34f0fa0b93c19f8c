/*
 * The head of a request of any texts, into which the input also puts placeholders. A refused head
 * holds no value; an allowed one holds values of that host's secrets alone, in headers that are
 * their slots or, where that is allowed, in the query; never over anything but verified TLS.
 *
 * Input: one byte of choice (host, port, TLS), then lines: method, path, fields. Bytes 1 to 6 stand
 * for placeholders.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/credential_rules.h"
#include "proxy/secret_request.h"
#include "tests/unit/secret_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_MAX 16384

enum { KEY, OTHER, QUERY, AWS_ID, AWS_SECRET, DECOY };

static const struct fixture_secret secrets[] = {
	[KEY] = { .name = "KEY", .value = "sk-ant-api03-AbC012def345Ghi", .host = "a.test" },
	[OTHER] = { .name = "OTHER", .value = "another-secret-0123", .host = "b.test" },
	[QUERY] = { .name = "QUERY",
		    .value = "que/ry+secret=0123",
		    .host = "a.test",
		    .flags = SECRET_FLAG_QUERY },
	[AWS_ID] = { .name = "AWS_ACCESS_KEY_ID",
		     .value = "AKIAIOSFODNN7EXAMPLE",
		     .host = "a.test",
		     .kind = SECRET_AWS_ACCESS_KEY_ID },
	[AWS_SECRET] = { .name = "AWS_SECRET_ACCESS_KEY",
			 .value = "wJalrXUtnFEMI/K7MDENG+bPx",
			 .host = "a.test",
			 .kind = SECRET_AWS_SECRET_ACCESS_KEY },
	[DECOY] = { .name = "DECOY", .value = "ghp_0123456789abcdefghij", .kind = SECRET_CANARY },
};

static const char *const hosts[] = { "a.test", "b.test", "c.test", "a.test" };

static struct secret_store *store;

static void require(int condition)
{
	if (!condition)
		abort();
}

static size_t expand(const uint8_t *data, size_t size, char *text)
{
	size_t used = 0;

	for (size_t i = 0; i < size && used < TEXT_MAX - 64; i++) {
		if (data[i] > 0 && data[i] <= ARRAY_LENGTH(secrets)) {
			const struct secret *secret = secret_store_get(store, data[i] - 1U);

			memcpy(text + used, secret->placeholder, secret->length);
			used += secret->length;
		} else {
			text[used++] = (char)data[i];
		}
	}
	return used;
}

static struct http_text next_line(const char **at, size_t *left)
{
	const char *end = memchr(*at, '\n', *left);
	struct http_text line = { *at, end ? (size_t)(end - *at) : *left };

	*at += end ? line.length + 1 : line.length;
	*left -= end ? line.length + 1 : line.length;
	return line;
}

static int holds(struct http_text text, size_t index)
{
	return memmem(text.data, text.length, secrets[index].value, strlen(secrets[index].value)) !=
	       NULL;
}

/* Whether it holds the value of any secret that is not in the set, one bit each. */
static int holds_other(struct http_text text, unsigned allowed)
{
	for (size_t i = 0; i < DECOY; i++) {
		if (!(allowed & 1U << i) && holds(text, i))
			return 1;
	}
	return 0;
}

static void check_field(struct http_field field, unsigned allowed)
{
	struct http_text value = field.value;
	char decoded[CREDENTIAL_BASIC_MAX];
	size_t length;
	size_t offset;

	if (credential_basic_decode(value, decoded, &length, &offset))
		value = (struct http_text){ decoded, length };
	require(!holds_other(value, allowed) && !holds_other(field.name, 0));
	if (holds_other(value, 0))
		require(credential_is_usual_slot(field.name) && field.is_sensitive);
}

/* `allowed` are the secrets whose values may be in it. */
static void check_head(const struct http_head *head, unsigned allowed)
{
	struct http_text path = http_head_path(head);
	const char *mark = memchr(path.data, '?', path.length);

	require(!holds_other(path, allowed & 1U << QUERY));
	if (mark)
		path.length = (size_t)(mark - path.data);
	require(!holds_other(path, 0) && !holds_other(http_head_method(head), 0));
	for (size_t i = 0; i < http_head_field_count(head); i++)
		check_field(http_head_field(head, i), allowed);
}

/* What may go to that host at all. */
static unsigned allowed_for(const struct secret_request *request)
{
	if (!request->is_verified || request->port != 443)
		return 0;
	if (!strcmp(request->host.text, "a.test"))
		return 1U << KEY | 1U << QUERY | 1U << AWS_ID;
	return strcmp(request->host.text, "b.test") == 0 ? 1U << OTHER : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char text[TEXT_MAX];
	struct secret_request request = { 0 };
	struct secret_verdict verdict;
	struct http_head *head = http_head_new();
	const char *at = text;
	struct http_text line;
	size_t length;
	size_t left;

	if (!store)
		store = fixture_store(secrets, ARRAY_LENGTH(secrets));
	require(store && head);
	length = left = size > 0 ? expand(data + 1, size - 1, text) : 0;
	request.port = size > 0 && data[0] & 4 ? 8443 : 443;
	request.is_verified = size > 0 && !(data[0] & 8);
	if (size > 0)
		require(host_name_parse(hosts[data[0] & 3], 6, &request.host) == 0);
	line = next_line(&at, &left);
	http_head_set_method(head, line.data, line.length);
	line = next_line(&at, &left);
	http_head_set_path(head, line.data, line.length);
	while (left > 0) {
		const char *colon;

		line = next_line(&at, &left);
		colon = memchr(line.data, ':', line.length);
		if (colon)
			http_head_add(head, line.data, (size_t)(colon - line.data), colon + 1,
				      line.length - (size_t)(colon - line.data) - 1);
	}
	/* A value that the input has of itself is nobody's fault. */
	if (size > 0 && !holds_other((struct http_text){ text, length }, 0) &&
	    secrets_prepare_request(store, head, &request, &verdict) == 0) {
		unsigned allowed = 0;

		if (verdict.refusal == SECRET_REFUSAL_NONE)
			allowed = allowed_for(&request);
		require(!verdict.is_injected || allowed != 0);
		check_head(head, allowed);
	}
	http_head_free(head);
	return 0;
}
