#include "proxy/answer.h"

#include "proxy/byte_buffer.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define PATH_SHOWN_MAX 1024u
#define ANSWER_BODY_MAX 16384u

static json_t *text_value(struct http_text text, size_t max)
{
	size_t length = text.length < max ? text.length : max;

	/* Paths are ASCII, for the parsers have seen to it. */
	return json_stringn(text.data, length);
}

static json_t *plain_value(const char *text)
{
	return text ? json_string(text) : json_null();
}

static char *to_json(const struct answer *answer)
{
	json_t *object = json_object();
	char *text = NULL;

	if (json_object_set_new(object, "error", plain_value(answer->reason)) == 0 &&
	    json_object_set_new(object, "host", plain_value(answer->host)) == 0 &&
	    json_object_set_new(object, "method", text_value(answer->method, PATH_SHOWN_MAX)) ==
		    0 &&
	    json_object_set_new(object, "path", text_value(answer->path, PATH_SHOWN_MAX)) == 0 &&
	    json_object_set_new(object, "rule", plain_value(answer->rule)) == 0 &&
	    json_object_set_new(object, "hint", plain_value(answer->hint)) == 0)
		text = json_dumps(object, JSON_INDENT(2));
	json_decref(object);
	return text;
}

static int add(struct http_head *head, const char *name, const char *value)
{
	return http_head_add(head, name, strlen(name), value, strlen(value));
}

static int make(const struct answer *answer, struct http_head *head, struct byte_buffer *body)
{
	char *text = to_json(answer);
	int error = text ? byte_buffer_append(body, text, strlen(text)) : -ENOMEM;

	if (!error)
		error = byte_buffer_append(body, "\n", 1);
	free(text);
	http_head_set_status(head, answer->status);
	if (!error)
		error = add(head, "Content-Type", "application/json");
	if (!error)
		error = add(head, "Cache-Control", "no-store");
	if (!error)
		error = add(head, answer->is_denial ? "Matchlock-Denied" : "Matchlock-Error",
			    answer->reason);
	return error;
}

static int send_parts(struct http_leg *guest, const struct http_head *head,
		      const struct byte_buffer *body, bool is_head)
{
	const struct http_framing framing = {
		.kind = is_head ? HTTP_FRAMING_NONE : HTTP_FRAMING_LENGTH,
		.has_length = true,
		.length = byte_buffer_length(body),
	};
	int error;

	guest->closes = guest->receiving != HTTP_RECEIVING_ENDED;
	error = guest->ops->send_head(guest, head, &framing);
	if (error || is_head)
		return error;
	if (guest->ops->room(guest) < byte_buffer_length(body))
		return -ENOBUFS;
	error = guest->ops->send_body(guest, byte_buffer_front(body), byte_buffer_length(body));
	return error ? error : guest->ops->send_end(guest, NULL);
}

int answer_send(const struct answer *answer, struct http_leg *guest, bool is_head)
{
	struct http_head *head = http_head_new();
	struct byte_buffer body;
	int error = -ENOMEM;

	byte_buffer_init(&body, ANSWER_BODY_MAX);
	if (head)
		error = make(answer, head, &body);
	if (!error)
		error = send_parts(guest, head, &body, is_head);
	http_head_free(head);
	byte_buffer_release(&body);
	return error;
}
