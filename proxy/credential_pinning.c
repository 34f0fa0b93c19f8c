#include "proxy/credential_pinning.h"

#include "base/cleanup.h"
#include "proxy/credential_rules.h"
#include "proxy/form_scanner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool credential_pinning_is_on(const struct secret_pass *pass)
{
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		if (secret_set_has(&pass->verdict->named, i) &&
		    (secret_store_get(pass->store, i)->flags & SECRET_FLAG_UNPINNED))
			return false;
	}
	return !secret_set_is_empty(&pass->verdict->named);
}

/* Whether a placeholder of this host stands at the end of `text`, but for `back`. */
static bool is_framed_placeholder(struct http_text text, struct http_text back,
				  const struct secret *secret)
{
	struct http_text front = { text.data, text.length - back.length };

	if (front.length < secret->length)
		return false;
	front.length -= secret->length;
	return !memcmp(front.data + front.length, secret->placeholder, secret->length) &&
	       credential_is_frame(front, back);
}

/* Whether the text is the placeholder of a secret of this host, and beside it nothing but syntax.
 */
static bool is_own_credential(const struct secret_pass *pass, struct http_text text)
{
	struct http_text none = { "", 0 };
	struct http_text mark = none;

	if (text.length > 0 && text.data[text.length - 1] == '"')
		mark = (struct http_text){ text.data + text.length - 1, 1 };
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		const struct secret *secret = secret_store_get(pass->store, i);

		if (secret_set_has(&pass->verdict->named, i) &&
		    (is_framed_placeholder(text, none, secret) ||
		     (mark.length > 0 && is_framed_placeholder(text, mark, secret))))
			return true;
	}
	return false;
}

static bool is_exact_placeholder(const struct secret_pass *pass, const char *text, size_t length)
{
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		const struct secret *secret = secret_store_get(pass->store, i);

		if (secret_set_has(&pass->verdict->named, i) && secret->length == length &&
		    !memcmp(secret->placeholder, text, length))
			return true;
	}
	return false;
}

/* USER:PASSWORD of which one is a placeholder and the other no credential. */
static bool is_own_basic(const struct secret_pass *pass, const char *text, size_t length)
{
	const char *colon = memchr(text, ':', length);
	size_t user = colon ? (size_t)(colon - text) : length;
	size_t password = colon ? length - user - 1 : 0;

	if (is_exact_placeholder(pass, text, user))
		return !colon || is_exact_placeholder(pass, colon + 1, password) ||
		       credential_is_plain_password(colon + 1, password);
	return colon && is_exact_placeholder(pass, colon + 1, password) &&
	       credential_is_plain_user(text, user);
}

/* Each pair of a cookie (RFC 6265 section 4.2.1) is NAME=PLACEHOLDER. */
static bool is_own_cookie(const struct secret_pass *pass, struct http_text value)
{
	while (value.length > 0) {
		const char *end = memchr(value.data, ';', value.length);
		struct http_text pair = { value.data,
					  end ? (size_t)(end - value.data) : value.length };

		value.data += end ? pair.length + 1 : pair.length;
		value.length -= end ? pair.length + 1 : pair.length;
		while (pair.length > 0 && *pair.data == ' ') {
			pair.data++;
			pair.length--;
		}
		if (!is_own_credential(pass, pair))
			return false;
	}
	return true;
}

static bool is_slot_of_any(const struct secret_pass *pass, struct http_text name)
{
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		if (secret_set_has(&pass->verdict->named, i) &&
		    secret_pass_is_slot(secret_store_get(pass->store, i), name))
			return true;
	}
	return false;
}

/* 1 or 0 for what is of scheme Basic, else -1. */
static int judge_basic(const struct secret_pass *pass, struct http_text value)
{
	char decoded[CREDENTIAL_BASIC_MAX];
	size_t length;
	size_t offset;

	if (!credential_basic_decode(value, decoded, &length, &offset))
		return -1;
	return is_own_basic(pass, decoded, length);
}

static bool is_own_field(const struct secret_pass *pass, struct http_field field)
{
	int judged = credential_is_basic(field.value) ? judge_basic(pass, field.value) : -1;

	if (field.value.length == 0)
		return true;
	if (judged >= 0)
		return judged;
	if (http_text_is(field.name, "cookie"))
		return is_own_cookie(pass, field.value);
	return is_own_credential(pass, field.value);
}

/* Undoes percent-escapes. Returns the length. */
static size_t unescape(struct http_text text, char *output)
{
	size_t used = 0;

	for (size_t at = 0; at < text.length;) {
		uint8_t byte;

		at += form_token((const uint8_t *)text.data + at, text.length - at,
				 FORM_ESCAPE_PERCENT, true, &byte);
		output[used++] = (char)byte;
	}
	return used;
}

static struct http_text cut(struct http_text *text, char separator)
{
	const char *end = memchr(text->data, separator, text->length);
	struct http_text front = { text->data, end ? (size_t)(end - text->data) : text->length };

	text->data += end ? front.length + 1 : front.length;
	text->length -= end ? front.length + 1 : front.length;
	return front;
}

static int pin_query(const struct secret_pass *pass)
{
	struct http_text path = http_head_path(pass->head);
	struct http_text query = secret_pass_split_query(&path);
	cleanup_free char *plain = malloc(query.length + 1);

	if (!plain)
		return -ENOMEM;
	while (query.length > 0) {
		struct http_text value = cut(&query, '&');
		struct http_text name = cut(&value, '=');

		if (credential_is_parameter(plain, unescape(name, plain)) && value.length > 0 &&
		    !is_exact_placeholder(pass, plain, unescape(value, plain)))
			secret_pass_refuse_foreign(pass, "the query of its URL");
	}
	return 0;
}

int credential_pinning_judge(const struct secret_pass *pass, ssize_t signed_field)
{
	char name[64];

	for (size_t i = 0; i < http_head_field_count(pass->head); i++) {
		struct http_field field = http_head_field(pass->head, i);

		if ((ssize_t)i == signed_field ||
		    (!credential_is_header(field.name) && !is_slot_of_any(pass, field.name)) ||
		    is_own_field(pass, field))
			continue;
		/* The name is one that a rule knows. */
		snprintf(name, sizeof(name), "%.*s", (int)field.name.length, field.name.data);
		secret_pass_refuse_foreign(pass, name);
	}
	return pin_query(pass);
}
