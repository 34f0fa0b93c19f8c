#include "proxy/secret_response.h"

#include "proxy/grpc_filter.h"
#include "proxy/secret_filter.h"
#include "proxy/token_capture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int redact_value(const struct secret_store *store, struct http_head *head, size_t index)
{
	struct http_text value = http_head_field(head, index).value;
	char *copy;
	int result = secret_redact(store, value.data, value.length, &copy);

	if (result <= 0)
		return result;
	result = http_head_replace(head, index, copy, value.length, true);
	free(copy);
	return result;
}

/* Nobody means to show a secret in the name of a field: such a field is dropped. */
static bool name_is_redacted(const struct secret_store *store, struct http_text name)
{
	char *copy = NULL;
	int result = secret_redact(store, name.data, name.length, &copy);

	free(copy);
	return result != 0;
}

static int redact_fields(const struct secret_store *store, struct http_head *head)
{
	struct http_text texts = http_head_texts(head);
	int error = 0;

	/* All of them in one go, as mostly there is nothing in any. */
	if (!secret_may_be_in(store, texts.data, texts.length))
		return 0;
	for (size_t i = http_head_field_count(head); error == 0 && i-- > 0;) {
		if (name_is_redacted(store, http_head_field(head, i).name))
			http_head_remove(head, i);
		else
			error = redact_value(store, head, i);
	}
	return error;
}

static bool slot_is_cookie(const struct secret *secret)
{
	for (size_t i = 0; i < secret->slot_count; i++) {
		struct http_text slot = { secret->slots[i].data, secret->slots[i].length };

		if (http_text_is(slot, "cookie"))
			return true;
	}
	return false;
}

static bool keeps_cookies(const struct secret_store *store, const struct secret_set *named)
{
	for (size_t i = 0; i < secret_store_count(store); i++) {
		const struct secret *secret = secret_store_get(store, i);

		if (secret_set_has(named, i) &&
		    ((secret->flags & SECRET_FLAG_UNPINNED) || slot_is_cookie(secret)))
			return true;
	}
	return false;
}

static bool is_encoded(const struct http_head *head)
{
	static const char *const names[] = { "Content-Encoding", "grpc-encoding" };

	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
		for (ssize_t i = http_head_find(head, names[n], 0); i >= 0;
		     i = http_head_find(head, names[n], (size_t)i + 1)) {
			struct http_text list = http_head_field(head, (size_t)i).value;
			struct http_text coding;

			while (http_text_next_element(&list, &coding)) {
				if (!http_text_is(coding, "identity"))
					return true;
			}
		}
	}
	return false;
}

/* The media type without its parameters ends in json: application/json, application/scim+json. */
static bool is_json(const struct http_head *head)
{
	ssize_t index = http_head_find(head, "Content-Type", 0);
	struct http_text type;
	const char *end;

	if (index < 0)
		return false;
	type = http_head_field(head, (size_t)index).value;
	end = memchr(type.data, ';', type.length);
	if (end)
		type.length = (size_t)(end - type.data);
	while (type.length > 0 && type.data[type.length - 1] == ' ')
		type.length--;
	if (type.length < 5)
		return false;
	type.data += type.length - 5;
	type.length = 5;
	return http_text_is(type, "/json") || http_text_is(type, "+json");
}

/* The secret in the request that asks for the tokens in its answers. */
static bool captures(const struct secret_store *store, const struct secret_set *used,
		     size_t *ret_index)
{
	for (size_t i = 0; i < secret_store_count(store); i++) {
		if (secret_set_has(used, i) &&
		    (secret_store_get(store, i)->flags & SECRET_FLAG_CAPTURE)) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

int secrets_prepare_response(struct secret_store *store, struct http_head *head, bool has_body,
			     struct secret_verdict *verdict, struct body_filter **ret_filter)
{
	struct body_filter *filter;
	size_t parent;
	int error;

	*ret_filter = NULL;
	if (secret_set_is_empty(&verdict->named))
		return 0;
	error = redact_fields(store, head);
	if (error)
		return error;
	if (!keeps_cookies(store, &verdict->named)) {
		http_head_remove_all(head, "Set-Cookie");
		http_head_remove_all(head, "Set-Cookie2");
	}
	if (!has_body)
		return 0;
	if (is_encoded(head)) {
		if (verdict->is_injected)
			secret_verdict_refuse(verdict, store, SECRET_REFUSAL_ENCODED,
					      SECRET_STORE_MAX, NULL);
		return 0;
	}
	if (is_json(head) && captures(store, &verdict->used, &parent))
		filter = token_capture_new(store, parent);
	else
		filter = secret_response_filter_new(store);
	if (filter && grpc_has_messages(head))
		filter = grpc_filter_new(filter, false);
	if (!filter)
		return -ENOMEM;
	*ret_filter = filter;
	return 0;
}

int secrets_redact_trailers(const struct secret_store *store, struct http_head *trailers,
			    const struct secret_verdict *verdict)
{
	return secret_set_is_empty(&verdict->named) ? 0 : redact_fields(store, trailers);
}
