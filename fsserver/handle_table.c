#include "fsserver/handle_table.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void handle_table_init(struct handle_table *table, struct quota *quota)
{
	*table = (struct handle_table){ .quota = quota };
}

bool handle_table_has_room(const struct handle_table *table)
{
	return table->quota->used < table->quota->max;
}

int handle_table_add(struct handle_table *table, struct node *node, int fd,
		     struct handle **ret_handle)
{
	struct handle *handle = NULL;
	int error = -ENFILE;

	if (!handle_table_has_room(table))
		goto fail;
	error = -ENOMEM;
	handle = calloc(1, sizeof(*handle));
	if (!handle)
		goto fail;
	handle->fd = fd;
	handle->node = node;
	handle->references = 1;
	error = id_table_add(&table->ids, handle, &handle->id);
	if (error)
		goto fail;
	node_reference(node);
	table->quota->used++;
	*ret_handle = handle;
	return 0;
fail:
	free(handle);
	close(fd);
	return error;
}

struct handle *handle_table_get(const struct handle_table *table, uint64_t id)
{
	return id_table_get(&table->ids, id);
}

struct handle *handle_table_next(const struct handle_table *table, uint32_t *position)
{
	return id_table_next(&table->ids, position);
}

void handle_table_remove(struct handle_table *table, struct handle *handle)
{
	id_table_remove(&table->ids, handle->id);
	handle->released = true;
}

void handle_reference(struct handle *handle)
{
	handle->references++;
}

void handle_unreference(struct handle_table *table, struct node_table *nodes, struct handle *handle)
{
	if (--handle->references > 0)
		return;
	close(handle->fd);
	node_unreference(nodes, handle->node);
	free(handle->judged_path);
	free(handle);
	table->quota->used--;
}

void handle_table_free(struct handle_table *table)
{
	id_table_free(&table->ids);
}
