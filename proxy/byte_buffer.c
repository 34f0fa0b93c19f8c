#include "proxy/byte_buffer.h"

#include "base/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 1024u
#define LARGE 16384u

void byte_buffer_init(struct byte_buffer *buffer, size_t max)
{
	*buffer = (struct byte_buffer){ .max = max };
}

static void drop_block(struct byte_buffer *buffer)
{
	if (buffer->data)
		explicit_bzero(buffer->data, buffer->touched);
	free(buffer->data);
}

void byte_buffer_release(struct byte_buffer *buffer)
{
	drop_block(buffer);
	*buffer = (struct byte_buffer){ .max = buffer->max, .is_kept = buffer->is_kept };
}

/* It holds nothing more. */
static void empty(struct byte_buffer *buffer)
{
	buffer->begin = buffer->end = 0;
	if (!buffer->is_kept)
		byte_buffer_release(buffer);
}

void byte_buffer_keep(struct byte_buffer *buffer, bool is_kept)
{
	buffer->is_kept = is_kept;
	if (buffer->begin == buffer->end)
		empty(buffer);
}

size_t byte_buffer_length(const struct byte_buffer *buffer)
{
	return buffer->end - buffer->begin;
}

const uint8_t *byte_buffer_front(const struct byte_buffer *buffer)
{
	return buffer->data ? buffer->data + buffer->begin : NULL;
}

size_t byte_buffer_room(const struct byte_buffer *buffer)
{
	return buffer->max - byte_buffer_length(buffer);
}

static int grow(struct byte_buffer *buffer, size_t wanted)
{
	size_t length = byte_buffer_length(buffer);
	size_t capacity = MAX_OF(buffer->capacity, CAPACITY_MIN);
	uint8_t *data;

	/* Memory that is not touched costs nothing, and what a large block holds would be copied.
	 */
	while (capacity < wanted)
		capacity *= capacity < LARGE ? 2 : 4;
	/* Not above the cap: `wanted` is within it. */
	capacity = MIN_OF(capacity, MAX_OF(buffer->max, wanted));
	data = malloc(capacity);
	if (!data)
		return -ENOMEM;
	if (buffer->data)
		memcpy(data, buffer->data + buffer->begin, length);
	drop_block(buffer);
	buffer->data = data;
	buffer->capacity = capacity;
	buffer->begin = 0;
	buffer->end = length;
	buffer->touched = length;
	return 0;
}

int byte_buffer_reserve(struct byte_buffer *buffer, size_t length, uint8_t **ret_space)
{
	size_t queued = byte_buffer_length(buffer);

	if (length > buffer->max - queued)
		return -ENOBUFS;
	if (length > buffer->capacity - buffer->end && buffer->begin > 0) {
		memmove(buffer->data, buffer->data + buffer->begin, queued);
		buffer->begin = 0;
		buffer->end = queued;
	}
	if (!buffer->data || length > buffer->capacity - buffer->end) {
		int error = grow(buffer, queued + length);

		if (error)
			return error;
	}
	*ret_space = buffer->data + buffer->end;
	return 0;
}

void byte_buffer_commit(struct byte_buffer *buffer, size_t length)
{
	buffer->end += MIN_OF(length, buffer->capacity - buffer->end);
	buffer->touched = MAX_OF(buffer->touched, buffer->end);
}

int byte_buffer_append(struct byte_buffer *buffer, const void *data, size_t length)
{
	uint8_t *space;
	int error;

	if (length == 0)
		return 0;
	error = byte_buffer_reserve(buffer, length, &space);
	if (error)
		return error;
	memcpy(space, data, length);
	byte_buffer_commit(buffer, length);
	return 0;
}

void byte_buffer_consume(struct byte_buffer *buffer, size_t length)
{
	buffer->begin += MIN_OF(length, byte_buffer_length(buffer));
	if (buffer->begin == buffer->end)
		empty(buffer);
}

void byte_buffer_trim(struct byte_buffer *buffer, size_t length)
{
	length = MIN_OF(length, byte_buffer_length(buffer));
	if (length == 0)
		return;
	buffer->end -= length;
	explicit_bzero(buffer->data + buffer->end, length);
	if (buffer->begin == buffer->end)
		empty(buffer);
}

void byte_buffer_move(struct byte_buffer *from, struct byte_buffer *to)
{
	struct byte_buffer other = *to;

	*to = *from;
	to->max = other.max;
	to->is_kept = other.is_kept;
	other.max = from->max;
	other.is_kept = from->is_kept;
	*from = other;
	empty(from);
}
