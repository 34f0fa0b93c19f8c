/* A store of secrets for tests, made the way the broker makes it: from a bundle. */
#ifndef TESTS_SECRET_FIXTURE_H
#define TESTS_SECRET_FIXTURE_H

#include "base/checked.h"
#include "proxy/secret_store.h"

#include <stdlib.h>
#include <string.h>

struct fixture_secret {
	const char *name;
	const char *value;
	const char *host; /* with an optional ":PORT"; NULL for a canary */
	const char *slot; /* or NULL */
	unsigned flags;
	enum secret_kind kind; /* 0 is SECRET_PLAIN */
};

static inline struct secret_text fixture_text(const char *text)
{
	return (struct secret_text){ text, strlen(text) };
}

/* Length of the bundle in `block`; 0 when it could not be written. */
static inline size_t fixture_bundle(const struct fixture_secret *secrets, size_t count,
				    uint8_t *block, size_t size)
{
	struct byte_writer writer;

	byte_writer_init(&writer, block, size);
	secret_bundle_begin(&writer);
	for (size_t i = 0; i < count; i++) {
		struct secret_entry entry = {
			.kind = secrets[i].kind ? secrets[i].kind : SECRET_PLAIN,
			.flags = (uint8_t)secrets[i].flags,
			.name = fixture_text(secrets[i].name),
			.value = fixture_text(secrets[i].value),
		};

		if (secrets[i].host) {
			const char *colon = strchr(secrets[i].host, ':');

			entry.host_count = 1;
			entry.hosts[0].pattern = fixture_text(secrets[i].host);
			entry.hosts[0].port = 443;
			if (colon) {
				entry.hosts[0].pattern.length = (size_t)(colon - secrets[i].host);
				entry.hosts[0].port = (uint16_t)strtoul(colon + 1, NULL, 10);
			}
		}
		if (secrets[i].slot) {
			entry.slot_count = 1;
			entry.slots[0] = fixture_text(secrets[i].slot);
		}
		secret_bundle_add(&writer, &entry);
	}
	return byte_writer_ok(&writer) ? writer.length : 0;
}

/* NULL when it cannot be made. */
static inline struct secret_store *fixture_store(const struct fixture_secret *secrets, size_t count)
{
	static uint8_t block[SECRET_BUNDLE_MAX];
	char problem[SECRET_PROBLEM_MAX];
	struct secret_store *store;
	size_t length = fixture_bundle(secrets, count, block, sizeof(block));

	if (length == 0 || secret_store_new(block, length, &store, problem) < 0)
		return NULL;
	return store;
}

#endif
