#include "proxy/token_capture.h"

#include "base/checked.h"
#include "proxy/form_scanner.h"
#include "proxy/secret_filter.h"
#include "proxy/secret_forms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * Only as much of JSON is read as tells strings from the rest: a string is a key when a colon
 * follows it. What is no JSON does no harm, since all that can happen is that a text between
 * quotation marks is captured.
 *
 * Everything but the token itself goes straight on to a filter that hides known values. When a
 * token has been captured, that filter ends, with what it holds, at the quotation mark before the
 * token, and a new one that knows the token takes over.
 */

/* Longest key, with every character escaped. */
#define KEY_MAX 128u
#define TOKEN_MAX (FORM_ESCAPE_MAX * SECRET_VALUE_MAX)
#define TOKEN_START 1024u

static const char *const keys[] = {
	"access_token", "refresh_token", "id_token", "token",	"accessToken",
	"refreshToken", "idToken",	 "raw_key",  "api_key", "client_secret",
};

enum state {
	STATE_OUTSIDE,
	STATE_STRING,
	STATE_AFTER_STRING, /* of one that would be a known key */
	STATE_AFTER_COLON,
	STATE_TOKEN,
};

struct token_capture {
	struct body_filter filter; /* first: feed() and free() get this */
	struct secret_store *store;
	size_t parent;
	struct body_filter *inner;
	enum state state;
	bool is_escaped; /* the next character of the string */
	uint8_t key[KEY_MAX];
	size_t key_length; /* KEY_MAX when it is longer */
	const char *label; /* the key of the token */
	uint8_t *token;
	size_t token_length;
	size_t token_capacity;
	size_t held; /* bytes that came and have not gone out */
	const char *fault;
};

/* Undoes JSON's escapes in place. Returns the length. */
static size_t unescape(const uint8_t *text, size_t length, char *output)
{
	size_t used = 0;

	for (size_t at = 0; at < length;) {
		uint8_t byte;

		at += form_token(text + at, length - at, FORM_ESCAPE_JSON, true, &byte);
		output[used++] = (char)byte;
	}
	return used;
}

static const char *known_key(const struct token_capture *self)
{
	char text[KEY_MAX];
	size_t length;

	if (self->key_length >= KEY_MAX)
		return NULL;
	length = unescape(self->key, self->key_length, text);
	for (size_t i = 0; i < ARRAY_LENGTH(keys); i++) {
		if (strlen(keys[i]) == length && !memcmp(keys[i], text, length))
			return keys[i];
	}
	return NULL;
}

/* ---- the token ---------------------------------------------------------------------------------
 */

static void drop_token(struct token_capture *self)
{
	if (self->token)
		explicit_bzero(self->token, self->token_length);
	free(self->token);
	self->token = NULL;
	self->token_length = 0;
	self->token_capacity = 0;
}

static int refuse(struct token_capture *self, const char *fault)
{
	self->fault = fault;
	drop_token(self);
	return -EACCES;
}

static int add_to_token(struct token_capture *self, uint8_t byte)
{
	if (self->token_length == self->token_capacity) {
		size_t capacity = MAX_OF(2 * self->token_capacity, TOKEN_START);
		uint8_t *larger;

		if (self->token_length >= TOKEN_MAX)
			return refuse(self, "it is longer than a secret may be");
		larger = malloc(capacity);
		if (!larger)
			return -ENOMEM;
		if (self->token) {
			memcpy(larger, self->token, self->token_length);
			explicit_bzero(self->token, self->token_length);
		}
		free(self->token);
		self->token = larger;
		self->token_capacity = capacity;
	}
	self->token[self->token_length++] = byte;
	return 0;
}

static int pass_on(struct token_capture *self, const uint8_t *data, size_t length, bool is_last,
		   struct byte_buffer *out)
{
	size_t before = byte_buffer_length(out);
	int error = self->inner->feed(self->inner, data, length, is_last, out);

	self->held -= byte_buffer_length(out) - before;
	return error;
}

/* A filter that knows the secrets of now, after the one so far has put out what it held. */
static int renew_inner(struct token_capture *self, struct byte_buffer *out)
{
	struct body_filter *fresh = secret_response_filter_new(self->store);
	int error;

	if (!fresh)
		return -ENOMEM;
	error = pass_on(self, NULL, 0, true, out);
	self->inner->free(self->inner);
	self->inner = fresh;
	return error;
}

static int capture(struct token_capture *self, const char *text, size_t length)
{
	const struct secret *secret;
	const struct form_match match = { .tag = SECRET_FORM_RAW,
					  .escapes = FORM_ESCAPE_JSON,
					  .start = 0,
					  .end = self->token_length };
	uint8_t *source;
	size_t index;
	int error =
		secret_store_capture(self->store, self->parent, self->label, text, length, &index);

	if (error == -EINVAL)
		return refuse(self, "no safe placeholder can be made for it");
	if (error == -ENOSPC || error == -EPERM || error == -E2BIG)
		return refuse(self, "there is no more room for secrets in this session");
	if (error)
		return error;
	secret = secret_store_get(self->store, index);
	source = malloc(self->token_length);
	if (!source)
		return -ENOMEM;
	memcpy(source, self->token, self->token_length);
	secret_form_replace(&match, source, self->token, secret->placeholder, secret->length);
	explicit_bzero(source, self->token_length);
	free(source);
	return 0;
}

/* The closing quotation mark has come. */
static int finish_token(struct token_capture *self, struct byte_buffer *out)
{
	char *text = malloc(self->token_length + 1);
	size_t length;
	int error = 0;

	if (!text)
		return -ENOMEM;
	length = unescape(self->token, self->token_length, text);
	/* Nothing that short opens anything. */
	if (length >= SECRET_VALUE_MIN) {
		error = capture(self, text, length);
		if (error == 0)
			error = renew_inner(self, out);
	}
	explicit_bzero(text, self->token_length + 1);
	free(text);
	if (error == 0 && self->token_length > 0)
		error = pass_on(self, self->token, self->token_length, false, out);
	drop_token(self);
	return error;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static void read_string(struct token_capture *self, uint8_t byte)
{
	if (!self->is_escaped && byte == '"') {
		self->label = known_key(self);
		self->state = self->label ? STATE_AFTER_STRING : STATE_OUTSIDE;
		return;
	}
	self->is_escaped = !self->is_escaped && byte == '\\';
	if (self->key_length < KEY_MAX)
		self->key[self->key_length++] = byte;
}

static bool is_space(uint8_t byte)
{
	return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static void begin_string(struct token_capture *self, enum state state)
{
	self->state = state;
	self->is_escaped = false;
	self->key_length = 0;
}

/* Takes one byte that goes straight on. */
static void read_byte(struct token_capture *self, uint8_t byte)
{
	switch (self->state) {
	case STATE_STRING:
		read_string(self, byte);
		break;
	case STATE_AFTER_STRING:
		if (byte == ':')
			self->state = STATE_AFTER_COLON;
		else if (byte == '"')
			begin_string(self, STATE_STRING);
		else if (!is_space(byte))
			self->state = STATE_OUTSIDE;
		break;
	case STATE_AFTER_COLON:
		if (byte == '"')
			begin_string(self, STATE_TOKEN);
		else if (!is_space(byte))
			self->state = STATE_OUTSIDE;
		break;
	case STATE_OUTSIDE:
	case STATE_TOKEN:
		if (byte == '"')
			begin_string(self, STATE_STRING);
		break;
	}
}

/* Takes bytes of a token, up to its end. *ret_used says how many; the closing mark is none of them.
 */
static int read_token(struct token_capture *self, const uint8_t *data, size_t length,
		      size_t *ret_used, struct byte_buffer *out)
{
	for (size_t i = 0; i < length; i++) {
		int error;

		if (!self->is_escaped && data[i] == '"') {
			*ret_used = i;
			self->state = STATE_OUTSIDE;
			return finish_token(self, out);
		}
		self->is_escaped = !self->is_escaped && data[i] == '\\';
		error = add_to_token(self, data[i]);
		if (error)
			return error;
	}
	*ret_used = length;
	return 0;
}

static int read_all(struct token_capture *self, const uint8_t *data, size_t length,
		    struct byte_buffer *out)
{
	bool is_closing = false; /* the mark at `data` ends a token, and begins nothing */

	while (length > 0) {
		size_t used = 0;
		int error;

		if (self->state == STATE_TOKEN) {
			error = read_token(self, data, length, &used, out);
			is_closing = self->state != STATE_TOKEN;
		} else {
			if (is_closing)
				used = 1;
			is_closing = false;
			while (used < length && self->state != STATE_TOKEN)
				read_byte(self, data[used++]);
			error = pass_on(self, data, used, false, out);
		}
		if (error)
			return error;
		data += used;
		length -= used;
	}
	return 0;
}

static int feed(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		struct byte_buffer *out)
{
	struct token_capture *self = (struct token_capture *)filter;
	int error;

	if (self->fault)
		return -EACCES;
	/* So that nothing below runs out of room. */
	if (length > byte_buffer_room(out) || self->held > byte_buffer_room(out) - length)
		return -ENOBUFS;
	self->held += length;
	error = read_all(self, data, length, out);
	if (error || !is_last)
		return error;
	if (self->state == STATE_TOKEN && self->token_length > 0)
		return refuse(self, "the answer ends inside it");
	return pass_on(self, NULL, 0, true, out);
}

static void free_capture(struct body_filter *filter)
{
	struct token_capture *self = (struct token_capture *)filter;

	drop_token(self);
	self->inner->free(self->inner);
	free(self);
}

struct body_filter *token_capture_new(struct secret_store *store, size_t parent)
{
	struct token_capture *self = calloc(1, sizeof(*self));

	if (!self)
		return NULL;
	self->filter = (struct body_filter){ .feed = feed, .free = free_capture };
	self->store = store;
	self->parent = parent;
	self->inner = secret_response_filter_new(store);
	if (!self->inner) {
		free(self);
		return NULL;
	}
	return &self->filter;
}

void token_capture_report(const struct body_filter *filter, struct secret_verdict *verdict)
{
	const struct token_capture *self = (const struct token_capture *)filter;

	if (self->fault)
		secret_verdict_refuse(verdict, self->store, SECRET_REFUSAL_TOKEN, SECRET_STORE_MAX,
				      self->fault);
}
