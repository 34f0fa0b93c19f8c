/*
 * A bundle of any bytes decodes or is refused. What decodes keeps within the limits that the broker
 * relies on, and encodes to the very same bytes.
 */
#include "wire/secret_bundle.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
	if (!condition)
		abort();
}

static void check_entry(const struct secret_entry *entry)
{
	require(entry->name.length > 0 && entry->name.length <= SECRET_NAME_MAX);
	if (entry->kind == SECRET_CLIENT_CERTIFICATE) {
		require(entry->value.length > 0 && entry->value.length <= SECRET_PEM_MAX);
		require(entry->host_count == 0 && entry->slot_count == 0 && entry->flags == 0);
		return;
	}
	require(entry->value.length >= SECRET_VALUE_MIN && entry->value.length <= SECRET_VALUE_MAX);
	require(entry->host_count <= SECRET_HOSTS_MAX && entry->slot_count <= SECRET_SLOTS_MAX);
	require(entry->host_count > 0 || entry->kind == SECRET_CANARY);
	for (size_t i = 0; i < entry->value.length; i++)
		require(entry->value.data[i] >= ' ' && entry->value.data[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[SECRET_BUNDLE_MAX];
	struct secret_bundle_reader reader;
	struct secret_entry entry;
	struct byte_writer writer;
	/* Of the exact size, so that a read past the end is seen. */
	uint8_t *copy = malloc(size > 0 ? size : 1);
	int result;

	if (!copy)
		return 0;
	if (size > 0)
		memcpy(copy, data, size);
	byte_writer_init(&writer, again, sizeof(again));
	secret_bundle_begin(&writer);
	result = secret_bundle_open(&reader, copy, size);
	if (result == 0) {
		while ((result = secret_bundle_next(&reader, &entry)) > 0) {
			check_entry(&entry);
			secret_bundle_add(&writer, &entry);
		}
	}
	if (result == 0) {
		require(byte_writer_ok(&writer) && writer.length == size);
		require(memcmp(again, copy, size) == 0);
	}
	free(copy);
	return 0;
}
