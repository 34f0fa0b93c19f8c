/*
 * The head of one request or response, whatever version of HTTP carries it.
 *
 * A head owns copies of all its texts. A request has method, scheme, authority and path (RFC 9110
 * section 7.1; the path with its query); a response has a status. Fields keep their order and the
 * spelling they came with; a field that came twice is there twice. Nothing here judges: the parsers
 * have refused what is no token or has control characters before they add it.
 *
 * Texts together take at most HTTP_HEAD_SIZE_MAX bytes, and there are at most HTTP_FIELDS_MAX
 * fields: -E2BIG beyond, -ENOMEM without memory, and the head is then as it was. Memory is wiped
 * before it is freed, because values may be secrets.
 */
#ifndef PROXY_HTTP_HEAD_H
#define PROXY_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

#define HTTP_HEAD_SIZE_MAX 65536u
#define HTTP_FIELDS_MAX 256u

/* Borrowed, not NUL-terminated; data is never NULL. */
struct http_text {
	const char *data;
	size_t length;
};

struct http_field {
	struct http_text name;
	struct http_text value;
	bool is_sensitive; /* never to be indexed (RFC 7541 section 7.1.3) or logged */
};

struct http_head;

/* NULL without memory. */
struct http_head *http_head_new(void);
void http_head_free(struct http_head *head);
/* As new. */
void http_head_clear(struct http_head *head);

/* The given text may lie in this very head. */
int http_head_set_method(struct http_head *head, const char *data, size_t length);
int http_head_set_scheme(struct http_head *head, const char *data, size_t length);
int http_head_set_authority(struct http_head *head, const char *data, size_t length);
int http_head_set_path(struct http_head *head, const char *data, size_t length);
void http_head_set_status(struct http_head *head, unsigned status);

/* Borrowed until the head changes; empty when never set. */
struct http_text http_head_method(const struct http_head *head);
/* Whether the method is one that may be repeated without asking (RFC 9110, 9.2.2). */
bool http_head_is_idempotent(const struct http_head *head);
struct http_text http_head_scheme(const struct http_head *head);
struct http_text http_head_authority(const struct http_head *head);
struct http_text http_head_path(const struct http_head *head);
unsigned http_head_status(const struct http_head *head);
/* Bytes of all texts. */
size_t http_head_size(const struct http_head *head);
/* All texts one behind the other, in any order and beside what remains of such as were replaced:
 * what is nowhere in it, is in no text. Borrowed until the head changes. */
struct http_text http_head_texts(const struct http_head *head);

size_t http_head_field_count(const struct http_head *head);
/* `index` < http_head_field_count(); borrowed until the head changes. */
struct http_field http_head_field(const struct http_head *head, size_t index);
/* Index of the first field of that name at or after `from`, or -ENOENT. */
ssize_t http_head_find(const struct http_head *head, const char *name, size_t from);

/* Neither text may lie in this head. */
int http_head_add(struct http_head *head, const char *name, size_t name_length, const char *value,
		  size_t value_length);
/* The value may lie in this very head. */
int http_head_replace(struct http_head *head, size_t index, const char *value, size_t length,
		      bool is_sensitive);
void http_head_remove(struct http_head *head, size_t index);
void http_head_remove_all(struct http_head *head, const char *name);

/* Equal but for the case of ASCII letters. Here, so that the length of a constant is one. */
static inline bool http_text_is(struct http_text text, const char *wanted)
{
	return strlen(wanted) == text.length && strncasecmp(text.data, wanted, text.length) == 0;
}

/* Equal byte for byte. */
static inline bool http_text_is_exactly(struct http_text text, const char *wanted)
{
	return strlen(wanted) == text.length && memcmp(text.data, wanted, text.length) == 0;
}

/* Takes the next element of a comma-separated list (RFC 9110 section 5.6.1) off the front of *list,
 * without the white space around it; empty elements are skipped. False at the end. */
bool http_text_next_element(struct http_text *list, struct http_text *ret_element);

#endif
