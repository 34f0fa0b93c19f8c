#include "proxy/http_head.h"

#include "base/checked.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/*
 * Theory of operation. All texts lie in one arena and are named by offset and length. Replacing or
 * removing leaves the old text behind; when the arena is full of such remains, what is in use moves
 * to a fresh one. So the arena never exceeds twice the cap on what is in use.
 */
#define ARENA_MIN 2048u
#define ARENA_MAX (2u * HTTP_HEAD_SIZE_MAX)

struct span {
	uint32_t offset;
	uint32_t length;
};

struct field {
	struct span name;
	struct span value;
	bool is_sensitive;
};

struct http_head {
	char *arena;
	size_t arena_used;
	size_t arena_capacity;
	size_t in_use; /* sum of the lengths of all spans below */
	struct span method;
	struct span scheme;
	struct span authority;
	struct span path;
	struct field *fields;
	size_t field_count;
	size_t field_capacity;
	unsigned status;
};

struct http_head *http_head_new(void)
{
	return calloc(1, sizeof(struct http_head));
}

static void drop_arena(char *arena, size_t used)
{
	if (arena)
		explicit_bzero(arena, used);
	free(arena);
}

void http_head_clear(struct http_head *head)
{
	drop_arena(head->arena, head->arena_used);
	free(head->fields);
	*head = (struct http_head){ 0 };
}

void http_head_free(struct http_head *head)
{
	if (!head)
		return;
	http_head_clear(head);
	free(head);
}

/* ---- the arena ------------------------------------------------------------------------------ */

static struct http_text text_of(const struct http_head *head, struct span span)
{
	return (struct http_text){ .data = span.length > 0 ? head->arena + span.offset : "",
				   .length = span.length };
}

static void move_span(const struct http_head *head, char *target, size_t *used, struct span *span)
{
	if (span->length > 0)
		memcpy(target + *used, head->arena + span->offset, span->length);
	span->offset = (uint32_t)*used;
	*used += span->length;
}

/* Moves what is in use to an arena with room for `length` more bytes and appends `data`, which may
 * lie in the old one. */
static int append_to_fresh_arena(struct http_head *head, const char *data, size_t length)
{
	size_t capacity = MAX_OF(head->arena_capacity, ARENA_MIN);
	size_t used = 0;
	char *arena;

	while (capacity < head->in_use + length)
		capacity *= 2;
	/* Half empty at least, or the next texts would each move everything. */
	if (capacity < ARENA_MAX && head->in_use + length > capacity / 2)
		capacity *= 2;
	arena = malloc(capacity);
	if (!arena)
		return -ENOMEM;
	move_span(head, arena, &used, &head->method);
	move_span(head, arena, &used, &head->scheme);
	move_span(head, arena, &used, &head->authority);
	move_span(head, arena, &used, &head->path);
	for (size_t i = 0; i < head->field_count; i++) {
		move_span(head, arena, &used, &head->fields[i].name);
		move_span(head, arena, &used, &head->fields[i].value);
	}
	memcpy(arena + used, data, length);
	drop_arena(head->arena, head->arena_used);
	head->arena = arena;
	head->arena_capacity = capacity;
	head->arena_used = used + length;
	return 0;
}

/* The caller has checked that `length` fits below the cap. */
static int store(struct http_head *head, const char *data, size_t length, struct span *ret_span)
{
	if (length > 0 && length > head->arena_capacity - head->arena_used) {
		int error = append_to_fresh_arena(head, data, length);

		if (error)
			return error;
	} else if (length > 0) {
		memcpy(head->arena + head->arena_used, data, length);
		head->arena_used += length;
	}
	*ret_span = (struct span){ .offset = (uint32_t)(head->arena_used - length),
				   .length = (uint32_t)length };
	head->in_use += length;
	return 0;
}

static bool fits(const struct http_head *head, size_t length, size_t given_up)
{
	return length <= HTTP_HEAD_SIZE_MAX &&
	       head->in_use - given_up + length <= HTTP_HEAD_SIZE_MAX;
}

static int set_text(struct http_head *head, struct span *span, const char *data, size_t length)
{
	struct span fresh;
	int error;

	if (!fits(head, length, span->length))
		return -E2BIG;
	error = store(head, data, length, &fresh);
	if (error)
		return error;
	head->in_use -= span->length;
	*span = fresh;
	return 0;
}

/* ---- what is in a head ---------------------------------------------------------------------- */

int http_head_set_method(struct http_head *head, const char *data, size_t length)
{
	return set_text(head, &head->method, data, length);
}

int http_head_set_scheme(struct http_head *head, const char *data, size_t length)
{
	return set_text(head, &head->scheme, data, length);
}

int http_head_set_authority(struct http_head *head, const char *data, size_t length)
{
	return set_text(head, &head->authority, data, length);
}

int http_head_set_path(struct http_head *head, const char *data, size_t length)
{
	return set_text(head, &head->path, data, length);
}

void http_head_set_status(struct http_head *head, unsigned status)
{
	head->status = status;
}

struct http_text http_head_method(const struct http_head *head)
{
	return text_of(head, head->method);
}

bool http_head_is_idempotent(const struct http_head *head)
{
	static const char *const methods[] = { "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE" };

	for (size_t i = 0; i < ARRAY_LENGTH(methods); i++) {
		if (http_text_is_exactly(http_head_method(head), methods[i]))
			return true;
	}
	return false;
}

struct http_text http_head_scheme(const struct http_head *head)
{
	return text_of(head, head->scheme);
}

struct http_text http_head_authority(const struct http_head *head)
{
	return text_of(head, head->authority);
}

struct http_text http_head_path(const struct http_head *head)
{
	return text_of(head, head->path);
}

unsigned http_head_status(const struct http_head *head)
{
	return head->status;
}

size_t http_head_size(const struct http_head *head)
{
	return head->in_use;
}

struct http_text http_head_texts(const struct http_head *head)
{
	return (struct http_text){ .data = head->arena ? head->arena : "",
				   .length = head->arena_used };
}

size_t http_head_field_count(const struct http_head *head)
{
	return head->field_count;
}

struct http_field http_head_field(const struct http_head *head, size_t index)
{
	const struct field *field = &head->fields[index];

	return (struct http_field){ .name = text_of(head, field->name),
				    .value = text_of(head, field->value),
				    .is_sensitive = field->is_sensitive };
}

ssize_t http_head_find(const struct http_head *head, const char *name, size_t from)
{
	size_t length = strlen(name);

	for (size_t i = from; i < head->field_count; i++) {
		struct span span = head->fields[i].name;

		if (span.length == length &&
		    (length == 0 || strncasecmp(head->arena + span.offset, name, length) == 0))
			return (ssize_t)i;
	}
	return -ENOENT;
}

static int make_room_for_field(struct http_head *head)
{
	size_t capacity = head->field_capacity ? 2 * head->field_capacity : 16;
	struct field *fields;

	if (head->field_count < head->field_capacity)
		return 0;
	if (head->field_count >= HTTP_FIELDS_MAX)
		return -E2BIG;
	fields = reallocarray(head->fields, capacity, sizeof(*fields));
	if (!fields)
		return -ENOMEM;
	head->fields = fields;
	head->field_capacity = capacity;
	return 0;
}

int http_head_add(struct http_head *head, const char *name, size_t name_length, const char *value,
		  size_t value_length)
{
	struct field field = { 0 };
	size_t both;
	int error = make_room_for_field(head);

	if (error)
		return error;
	if (!checked_add_size(name_length, value_length, &both) || !fits(head, both, 0))
		return -E2BIG;
	/* Entered before the value is stored, so that a move of the arena takes the name along. */
	error = store(head, name, name_length, &field.name);
	if (error)
		return error;
	head->fields[head->field_count++] = field;
	error = store(head, value, value_length, &field.value);
	if (error) {
		head->field_count--;
		head->in_use -= name_length;
		return error;
	}
	head->fields[head->field_count - 1].value = field.value;
	return 0;
}

int http_head_replace(struct http_head *head, size_t index, const char *value, size_t length,
		      bool is_sensitive)
{
	int error = set_text(head, &head->fields[index].value, value, length);

	if (!error)
		head->fields[index].is_sensitive = is_sensitive;
	return error;
}

void http_head_remove(struct http_head *head, size_t index)
{
	head->in_use -= head->fields[index].name.length + head->fields[index].value.length;
	head->field_count--;
	memmove(&head->fields[index], &head->fields[index + 1],
		(head->field_count - index) * sizeof(head->fields[0]));
}

void http_head_remove_all(struct http_head *head, const char *name)
{
	ssize_t index = 0;

	while ((index = http_head_find(head, name, (size_t)index)) >= 0)
		http_head_remove(head, (size_t)index);
}

/* ---- texts ---------------------------------------------------------------------------------- */

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t';
}

bool http_text_next_element(struct http_text *list, struct http_text *ret_element)
{
	while (list->length > 0) {
		const char *comma = memchr(list->data, ',', list->length);
		struct http_text element = { .data = list->data,
					     .length = comma ? (size_t)(comma - list->data)
							     : list->length };
		size_t taken = element.length + (comma ? 1 : 0);

		list->data += taken;
		list->length -= taken;
		while (element.length > 0 && is_blank(element.data[0])) {
			element.data++;
			element.length--;
		}
		while (element.length > 0 && is_blank(element.data[element.length - 1]))
			element.length--;
		if (element.length > 0) {
			*ret_element = element;
			return true;
		}
	}
	return false;
}
