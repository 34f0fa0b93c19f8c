#include "proxy/sigv4.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <strings.h>

#define ALGORITHM "AWS4-HMAC-SHA256"
#define DIGEST_SIZE 32
/* Longest secret access key; they have 40 characters. */
#define KEY_MAX 256u
#define DATE_LENGTH 16u /* 20150830T123600Z */
#define DAY_LENGTH 8u

const char sigv4_empty_payload[] =
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/* ---- reading -----------------------------------------------------------------------------------
 */

bool sigv4_is(struct http_text value)
{
	return value.length >= 5 && !strncasecmp(value.data, "AWS4-", 5);
}

/* Takes what is before `separator` off the front, all of it when there is none. */
static struct http_text take(struct http_text *text, char separator)
{
	const char *at = memchr(text->data, separator, text->length);
	struct http_text front = *text;

	if (!at) {
		*text = (struct http_text){ "", 0 };
		return front;
	}
	front.length = (size_t)(at - text->data);
	text->data += front.length + 1;
	text->length -= front.length + 1;
	return front;
}

static bool take_credential(struct http_text text, struct sigv4 *signature)
{
	struct http_text rest = text;

	signature->key_id = take(&rest, '/');
	signature->scope = rest;
	signature->date = take(&rest, '/');
	signature->region = take(&rest, '/');
	signature->service = take(&rest, '/');
	return http_text_is_exactly(rest, "aws4_request") && signature->key_id.length > 0 &&
	       signature->date.length == DAY_LENGTH && signature->region.length > 0 &&
	       signature->service.length > 0;
}

static bool take_parameter(struct http_text text, struct sigv4 *signature)
{
	struct http_text name = take(&text, '=');

	if (http_text_is_exactly(name, "Credential"))
		return signature->key_id.length == 0 && take_credential(text, signature);
	if (http_text_is_exactly(name, "SignedHeaders") && signature->signed_headers.length == 0)
		signature->signed_headers = text;
	else if (http_text_is_exactly(name, "Signature") && signature->signature.length == 0)
		signature->signature = text;
	else
		return false;
	return true;
}

int sigv4_parse(struct http_text value, struct sigv4 *ret_signature)
{
	struct sigv4 signature = { 0 };
	struct http_text rest = value;
	struct http_text element;

	if (!http_text_is_exactly(take(&rest, ' '), ALGORITHM))
		return sigv4_is(value) ? -ENOTSUP : -EBADMSG;
	while (http_text_next_element(&rest, &element)) {
		if (!take_parameter(element, &signature))
			return -EBADMSG;
	}
	if (signature.key_id.length == 0 || signature.signed_headers.length == 0 ||
	    signature.signature.length != SIGV4_SIGNATURE_LENGTH)
		return -EBADMSG;
	*ret_signature = signature;
	return 0;
}

/* ---- the canonical request ---------------------------------------------------------------------
 */

struct text_buffer {
	char *data;
	size_t length;
};

static void put(struct text_buffer *buffer, char c)
{
	buffer->data[buffer->length++] = c;
}

static bool is_unreserved(uint8_t byte)
{
	return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
	       (byte >= '0' && byte <= '9') || byte == '-' || byte == '_' || byte == '.' ||
	       byte == '~';
}

static void put_escaped(struct text_buffer *buffer, uint8_t byte)
{
	if (is_unreserved(byte)) {
		put(buffer, (char)byte);
		return;
	}
	put(buffer, '%');
	put(buffer, "0123456789ABCDEF"[byte >> 4]);
	put(buffer, "0123456789ABCDEF"[byte & 15]);
}

static int hex_value(char c)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *at = c != '\0' ? strchr(digits, c) : NULL;

	return at ? (int)((at - digits) % 16) : -1;
}

/* Undoes escapes and makes them anew, so that there is one way to write each text. */
static void put_normal(struct text_buffer *buffer, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		bool is_escape = text[i] == '%' && length - i > 2;
		int high = is_escape ? hex_value(text[i + 1]) : -1;
		int low = is_escape ? hex_value(text[i + 2]) : -1;

		if (high >= 0 && low >= 0) {
			put_escaped(buffer, (uint8_t)(16 * high + low));
			i += 2;
		} else {
			put_escaped(buffer, (uint8_t)text[i]);
		}
	}
}

/* Appends a segment of a path: dot segments and empty ones (RFC 3986 section 5.2.4) are resolved.
 */
static void put_segment(struct text_buffer *buffer, struct http_text segment)
{
	if (segment.length == 0 || http_text_is_exactly(segment, "."))
		return;
	if (!http_text_is_exactly(segment, "..")) {
		put(buffer, '/');
		memcpy(buffer->data + buffer->length, segment.data, segment.length);
		buffer->length += segment.length;
		return;
	}
	while (buffer->length > 0 && buffer->data[--buffer->length] != '/')
		continue;
}

/* Whether the last segment is empty or a dot segment. */
static bool is_directory(struct http_text path)
{
	size_t size = 0;

	while (size < path.length && path.data[path.length - 1 - size] != '/')
		size++;
	path.data += path.length - size;
	path.length = size;
	return size == 0 || http_text_is_exactly(path, ".") || http_text_is_exactly(path, "..");
}

static void remove_dots(struct text_buffer *buffer, struct http_text path)
{
	bool ends_with_slash = is_directory(path);

	while (path.length > 0)
		put_segment(buffer, take(&path, '/'));
	if (buffer->length == 0 || ends_with_slash)
		put(buffer, '/');
}

struct parameter {
	struct http_text name; /* escaped */
	struct http_text value;
};

static int compare_text(struct http_text a, struct http_text b)
{
	size_t length = MIN_OF(a.length, b.length);
	int order = length > 0 ? memcmp(a.data, b.data, length) : 0;

	if (order != 0)
		return order;
	return (a.length > b.length) - (a.length < b.length);
}

static int compare_parameters(const void *a, const void *b)
{
	const struct parameter *left = a;
	const struct parameter *right = b;
	int order = compare_text(left->name, right->name);

	return order != 0 ? order : compare_text(left->value, right->value);
}

static struct http_text put_part(struct text_buffer *buffer, struct http_text part)
{
	size_t begin = buffer->length;

	put_normal(buffer, part.data, part.length);
	return (struct http_text){ buffer->data + begin, buffer->length - begin };
}

/* Hash and text of the canonical request are made piece by piece; only path and query need room. */
struct canonical {
	EVP_MD_CTX *hash;
	struct text_buffer room; /* for 3 times what is to be escaped */
	bool failed;
};

static void add(struct canonical *canonical, const char *data, size_t length)
{
	if (EVP_DigestUpdate(canonical->hash, data, length) != 1)
		canonical->failed = true;
}

static void add_text(struct canonical *canonical, struct http_text text)
{
	add(canonical, text.data, text.length);
}

static void add_path(struct canonical *canonical, struct http_text path,
		     const struct sigv4_form *form)
{
	struct text_buffer plain = canonical->room;
	struct text_buffer escaped;

	if (form->remove_dots) {
		remove_dots(&plain, path);
		path = (struct http_text){ plain.data, plain.length };
	}
	escaped.data = plain.data + plain.length;
	escaped.length = 0;
	for (size_t i = 0; i < path.length; i++) {
		size_t size = 0;

		while (i + size < path.length && path.data[i + size] != '/')
			size++;
		if (form->escape_again) {
			for (size_t j = 0; j < size; j++)
				put_escaped(&escaped, (uint8_t)path.data[i + j]);
		} else {
			put_normal(&escaped, path.data + i, size);
		}
		i += size;
		if (i < path.length)
			put(&escaped, '/');
	}
	if (escaped.length == 0)
		put(&escaped, '/');
	add(canonical, escaped.data, escaped.length);
}

static int add_query(struct canonical *canonical, struct http_text query)
{
	struct text_buffer buffer = canonical->room;
	cleanup_free struct parameter *list = calloc(SIGV4_PARAMETERS_MAX, sizeof(*list));
	size_t count = 0;

	if (!list)
		return -ENOMEM;
	while (query.length > 0) {
		struct http_text value = take(&query, '&');
		struct http_text name = take(&value, '=');

		if (name.length == 0 && value.length == 0)
			continue;
		if (count == SIGV4_PARAMETERS_MAX)
			return -EBADMSG;
		list[count].name = put_part(&buffer, name);
		list[count++].value = put_part(&buffer, value);
	}
	qsort(list, count, sizeof(*list), compare_parameters);
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			add(canonical, "&", 1);
		add_text(canonical, list[i].name);
		add(canonical, "=", 1);
		add_text(canonical, list[i].value);
	}
	return 0;
}

/* A value without the space around it, and each run of spaces in it as one. */
static void add_value(struct canonical *canonical, struct http_text value)
{
	size_t begin = 0;
	size_t end = value.length;

	while (begin < end && (value.data[begin] == ' ' || value.data[begin] == '\t'))
		begin++;
	while (end > begin && (value.data[end - 1] == ' ' || value.data[end - 1] == '\t'))
		end--;
	for (size_t i = begin; i < end; i++) {
		if (value.data[i] != ' ' || value.data[i - 1] != ' ')
			add(canonical, value.data + i, 1);
	}
}

static void add_header(struct canonical *canonical, const struct http_head *head,
		       struct http_text name)
{
	bool is_first = true;

	add_text(canonical, name);
	add(canonical, ":", 1);
	for (size_t i = 0; i < http_head_field_count(head); i++) {
		struct http_field field = http_head_field(head, i);

		if (field.name.length != name.length ||
		    strncasecmp(field.name.data, name.data, name.length) != 0)
			continue;
		if (!is_first)
			add(canonical, ",", 1);
		add_value(canonical, field.value);
		is_first = false;
	}
	/* In HTTP/2 and above the host is not a field. */
	if (is_first && http_text_is_exactly(name, "host"))
		add_text(canonical, http_head_authority(head));
	add(canonical, "\n", 1);
}

static int add_request(struct canonical *canonical, const struct http_head *head,
		       const struct sigv4 *signature, const struct sigv4_form *form)
{
	struct http_text query = http_head_path(head);
	struct http_text path = take(&query, '?');
	struct http_text names = signature->signed_headers;
	int error;

	add_text(canonical, http_head_method(head));
	add(canonical, "\n", 1);
	add_path(canonical, path, form);
	add(canonical, "\n", 1);
	error = add_query(canonical, query);
	if (error)
		return error;
	add(canonical, "\n", 1);
	while (names.length > 0)
		add_header(canonical, head, take(&names, ';'));
	add(canonical, "\n", 1);
	add_text(canonical, signature->signed_headers);
	add(canonical, "\n", 1);
	add_text(canonical, form->payload);
	return canonical->failed ? -ENOMEM : 0;
}

static int hash_request(const struct http_head *head, const struct sigv4 *signature,
			const struct sigv4_form *form, uint8_t ret_digest[static DIGEST_SIZE])
{
	size_t length = http_head_path(head).length;
	struct canonical canonical = { .hash = EVP_MD_CTX_new() };
	int error = -ENOMEM;

	/* The path without dots, and escaped; or the query, escaped. One more for a lone '/'. */
	canonical.room.data = malloc(4 * length + 8);
	if (canonical.room.data && canonical.hash &&
	    EVP_DigestInit_ex(canonical.hash, EVP_sha256(), NULL) == 1)
		error = add_request(&canonical, head, signature, form);
	if (error == 0 && EVP_DigestFinal_ex(canonical.hash, ret_digest, NULL) != 1)
		error = -ENOMEM;
	free(canonical.room.data);
	EVP_MD_CTX_free(canonical.hash);
	return error;
}

/* ---- signing -----------------------------------------------------------------------------------
 */

static void write_hex(const uint8_t *data, size_t length, char *output)
{
	for (size_t i = 0; i < length; i++) {
		output[2 * i] = "0123456789abcdef"[data[i] >> 4];
		output[2 * i + 1] = "0123456789abcdef"[data[i] & 15];
	}
}

/* result = HMAC(result, data), the first time with a key of another length. */
static bool chain(const void *key, size_t key_length, const void *data, size_t length,
		  uint8_t ret_result[static DIGEST_SIZE])
{
	return HMAC(EVP_sha256(), key, (int)key_length, data, length, ret_result, NULL) != NULL;
}

static bool derive_key(const struct sigv4 *signature, const char *key, size_t key_length,
		       uint8_t ret_key[static DIGEST_SIZE])
{
	const struct http_text parts[] = {
		signature->date,
		signature->region,
		signature->service,
		{ "aws4_request", 12 },
	};
	char first[4 + KEY_MAX] = "AWS4";
	uint8_t result[DIGEST_SIZE];
	bool is_done;

	if (key_length > KEY_MAX)
		return false;
	memcpy(first + 4, key, key_length);
	is_done = chain(first, 4 + key_length, parts[0].data, parts[0].length, result);
	for (size_t i = 1; is_done && i < ARRAY_LENGTH(parts); i++) {
		is_done = chain(result, DIGEST_SIZE, parts[i].data, parts[i].length, ret_key);
		memcpy(result, ret_key, DIGEST_SIZE);
	}
	OPENSSL_cleanse(first, sizeof(first));
	OPENSSL_cleanse(result, sizeof(result));
	return is_done;
}

/* ALGORITHM, date, scope and the request's hash, in lines. */
static char *string_to_sign(struct http_text date, struct http_text scope,
			    const uint8_t digest[static DIGEST_SIZE], size_t *ret_length)
{
	struct text_buffer buffer = { .data = malloc(sizeof(ALGORITHM) + date.length + 1 +
						     scope.length + 1 + 2 * DIGEST_SIZE) };

	if (!buffer.data)
		return NULL;
	memcpy(buffer.data, ALGORITHM "\n", sizeof(ALGORITHM));
	buffer.length = sizeof(ALGORITHM);
	memcpy(buffer.data + buffer.length, date.data, date.length);
	buffer.length += date.length;
	put(&buffer, '\n');
	memcpy(buffer.data + buffer.length, scope.data, scope.length);
	buffer.length += scope.length;
	put(&buffer, '\n');
	write_hex(digest, DIGEST_SIZE, buffer.data + buffer.length);
	*ret_length = buffer.length + 2 * DIGEST_SIZE;
	return buffer.data;
}

int sigv4_sign(const struct http_head *head, const struct sigv4 *signature,
	       const struct sigv4_form *form, const char *key, size_t key_length,
	       char ret_hex[static SIGV4_SIGNATURE_LENGTH])
{
	ssize_t index = http_head_find(head, "x-amz-date", 0);
	uint8_t digest[DIGEST_SIZE];
	uint8_t signing_key[DIGEST_SIZE];
	cleanup_free char *text = NULL;
	struct http_text date;
	size_t length = 0;
	int error;

	if (index < 0)
		return -EBADMSG;
	date = http_head_field(head, (size_t)index).value;
	if (date.length != DATE_LENGTH || memcmp(date.data, signature->date.data, DAY_LENGTH) != 0)
		return -EBADMSG;
	error = hash_request(head, signature, form, digest);
	if (error)
		return error;
	text = string_to_sign(date, signature->scope, digest, &length);
	if (!text || !derive_key(signature, key, key_length, signing_key))
		return -ENOMEM;
	if (!chain(signing_key, DIGEST_SIZE, text, length, digest))
		error = -ENOMEM;
	OPENSSL_cleanse(signing_key, sizeof(signing_key));
	if (error == 0)
		write_hex(digest, DIGEST_SIZE, ret_hex);
	return error;
}

int sigv4_find_form(const struct http_head *head, const struct sigv4 *signature,
		    struct http_text payload, const char *key, size_t key_length,
		    struct sigv4_form *ret_form)
{
	char hex[SIGV4_SIGNATURE_LENGTH];

	for (int way = 0; way < 4; way++) {
		struct sigv4_form form = { .escape_again = way & 1,
					   .remove_dots = way & 2,
					   .payload = payload };
		int error = sigv4_sign(head, signature, &form, key, key_length, hex);

		if (error)
			return error;
		if (!memcmp(hex, signature->signature.data, SIGV4_SIGNATURE_LENGTH)) {
			*ret_form = form;
			return 0;
		}
	}
	return -EKEYREJECTED;
}
