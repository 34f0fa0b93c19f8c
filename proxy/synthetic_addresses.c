#include "proxy/synthetic_addresses.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
/* The default one falls through its cases, which clang takes for a mistake. */
#define HASH_FUNCTION HASH_FNV
#include <uthash.h>

/* 198.18.0.0/15, of whose every /24 the octets 1 to 254 are used. */
#define V4_BASE 0xc6120000u
#define V4_OCTETS 254u
static_assert(SYNTHETIC_NAMES_MAX <= 512u * V4_OCTETS, "all names fit the /15");

static const uint8_t v6_prefix[12] = { 0xfd, 'm', 'l', 'g', 'e', 's' };

struct entry {
	UT_hash_handle hh;
	uint32_t index;
	uint8_t length;
	char text[]; /* not terminated */
};

struct synthetic_addresses {
	struct entry *by_name;
	struct entry *by_index[SYNTHETIC_NAMES_MAX];
	uint32_t count;
};

struct synthetic_addresses *synthetic_addresses_new(void)
{
	return calloc(1, sizeof(struct synthetic_addresses));
}

void synthetic_addresses_free(struct synthetic_addresses *table)
{
	struct entry *entry;
	struct entry *next;

	if (!table)
		return;
	HASH_ITER(hh, table->by_name, entry, next)
	{
		HASH_DEL(table->by_name, entry);
		free(entry);
	}
	free(table);
}

static void write_address(uint32_t index, uint8_t *bytes)
{
	uint32_t address = V4_BASE + index / V4_OCTETS * 256 + index % V4_OCTETS + 1;

	for (unsigned i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(address >> (24 - 8 * i));
}

/* The inverse; anything that write_address() does not write gives an index beyond all. */
static uint32_t read_address(const uint8_t *bytes)
{
	uint32_t address = 0;
	uint32_t octet;

	for (unsigned i = 0; i < 4; i++)
		address = address << 8 | bytes[i];
	octet = address % 256;
	if (address < V4_BASE || octet == 0 || octet == 255)
		return UINT32_MAX;
	return (address - V4_BASE) / 256 * V4_OCTETS + octet - 1;
}

static int add(struct synthetic_addresses *table, const struct host_name *name,
	       struct entry **ret_entry)
{
	struct entry *entry;

	if (table->count >= SYNTHETIC_NAMES_MAX)
		return -ENOSPC;
	entry = malloc(sizeof(*entry) + name->length);
	if (!entry)
		return -ENOMEM;
	entry->index = table->count;
	entry->length = name->length;
	memcpy(entry->text, name->text, name->length);
	HASH_ADD_KEYPTR(hh, table->by_name, entry->text, entry->length, entry);
	table->by_index[table->count++] = entry;
	*ret_entry = entry;
	return 0;
}

int synthetic_addresses_of(struct synthetic_addresses *table, const struct host_name *name,
			   struct ip_address *ret_v4, struct ip_address *ret_v6)
{
	struct entry *entry;

	HASH_FIND(hh, table->by_name, name->text, name->length, entry);
	if (!entry) {
		int error = add(table, name, &entry);

		if (error)
			return error;
	}
	if (ret_v4) {
		*ret_v4 = (struct ip_address){ .family = 4 };
		write_address(entry->index, ret_v4->bytes);
	}
	if (ret_v6) {
		*ret_v6 = (struct ip_address){ .family = 6 };
		memcpy(ret_v6->bytes, v6_prefix, sizeof(v6_prefix));
		write_address(entry->index, ret_v6->bytes + sizeof(v6_prefix));
	}
	return 0;
}

int synthetic_addresses_name(const struct synthetic_addresses *table,
			     const struct ip_address *address, struct host_name *ret_name)
{
	const uint8_t *v4 = address->bytes;
	const struct entry *entry;
	uint32_t index;

	if (address->family == 6) {
		if (memcmp(address->bytes, v6_prefix, sizeof(v6_prefix)) != 0)
			return -ENOENT;
		v4 += sizeof(v6_prefix);
	}
	index = read_address(v4);
	if (index >= table->count)
		return -ENOENT;
	entry = table->by_index[index];
	*ret_name = (struct host_name){ .length = entry->length };
	memcpy(ret_name->text, entry->text, entry->length);
	return 0;
}
