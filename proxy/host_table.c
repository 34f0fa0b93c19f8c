#include "proxy/host_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
/* The default one falls through its cases, which clang takes for a mistake. */
#define HASH_FUNCTION HASH_FNV
#include <uthash.h>

struct named_entry {
	UT_hash_handle hh;
	struct host_table_entry *entry;
	uint8_t length;
	char text[]; /* not terminated */
};

struct host_table {
	struct named_entry *names;
};

struct host_table *host_table_new(void)
{
	return calloc(1, sizeof(struct host_table));
}

void host_table_free(struct host_table *table)
{
	struct named_entry *named;
	struct named_entry *next;

	if (!table)
		return;
	HASH_ITER(hh, table->names, named, next)
	{
		HASH_DEL(table->names, named);
		free(named->entry);
		free(named);
	}
	free(table);
}

static struct named_entry *add_name(struct host_table *table, const struct host_name *name)
{
	struct named_entry *named = malloc(sizeof(*named) + name->length);

	if (!named)
		return NULL;
	named->entry = NULL;
	named->length = name->length;
	memcpy(named->text, name->text, name->length);
	HASH_ADD_KEYPTR(hh, table->names, named->text, named->length, named);
	return named;
}

/* Entries have room for just their addresses, because hosts files that block advertisements have a
 * hundred thousand names with one each. */
int host_table_add(struct host_table *table, const struct host_name *name,
		   const struct ip_address *address)
{
	struct named_entry *named;
	struct host_table_entry *entry;
	size_t count;

	HASH_FIND(hh, table->names, name->text, name->length, named);
	if (!named)
		named = add_name(table, name);
	if (!named)
		return -ENOMEM;
	count = named->entry ? named->entry->count : 0;
	if (count == HOST_TABLE_ADDRESSES_MAX)
		return -ENOSPC;
	entry = realloc(named->entry, offsetof(struct host_table_entry, addresses) +
					      (count + 1) * sizeof(entry->addresses[0]));
	if (!entry)
		return -ENOMEM;
	entry->addresses[count] = *address;
	entry->count = count + 1;
	named->entry = entry;
	return 0;
}

/* The next word of a line that ends at `end`; its length, or 0. */
static size_t next_word(const char **text, const char *end)
{
	size_t length = 0;

	while (*text < end && strchr(" \t\r", **text))
		(*text)++;
	while (*text + length < end && !strchr(" \t\r", (*text)[length]))
		length++;
	return length;
}

static int read_line(struct host_table *table, const char *line, const char *end)
{
	char text[IP_ADDRESS_TEXT_MAX];
	struct ip_address address;
	struct host_name name;
	size_t length = next_word(&line, end);

	if (length == 0 || length >= sizeof(text))
		return 0;
	memcpy(text, line, length);
	text[length] = '\0';
	if (ip_address_parse(text, &address) < 0)
		return 0;
	for (line += length; (length = next_word(&line, end)) > 0; line += length) {
		if (host_name_parse(line, length, &name) == 0 &&
		    host_table_add(table, &name, &address) == -ENOMEM)
			return -ENOMEM;
	}
	return 0;
}

int host_table_read(struct host_table *table, const char *text, size_t length)
{
	const char *end = text + length;

	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *line_end = newline ? newline : end;
		const char *comment = memchr(text, '#', (size_t)(line_end - text));
		int error = read_line(table, text, comment ? comment : line_end);

		if (error)
			return error;
		text = line_end + 1;
	}
	return 0;
}

const struct host_table_entry *host_table_find(const struct host_table *table,
					       const struct host_name *name)
{
	const struct named_entry *named;

	HASH_FIND(hh, table->names, name->text, name->length, named);
	return named ? named->entry : NULL;
}
