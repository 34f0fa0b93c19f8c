/* A pattern, a newline, a path: what is taken is in normal form, and matches by the definition. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/request_path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The definition, character by character; exponential, so for short texts alone. */
static bool matches(const char *pattern, const char *text, const char *end)
{
	if (*pattern == '\0')
		return text == end;
	if (strncmp(pattern, "/**", 3) == 0 && (pattern[3] == '/' || pattern[3] == '\0')) {
		if (matches(pattern + 3, text, end))
			return true;
		while (text < end && *text == '/') {
			for (text++; text < end && *text != '/';)
				text++;
			if (matches(pattern + 3, text, end))
				return true;
		}
		return false;
	}
	if (*pattern == '*') {
		for (const char *p = text;; p++) {
			if (matches(pattern + 1, p, end))
				return true;
			if (p == end || *p == '/')
				return false;
		}
	}
	return text < end && *text == *pattern && matches(pattern + 1, text + 1, end);
}

static void check_normal(const struct request_path *path)
{
	assert(path->length > 0 && path->text[0] == '/');
	for (size_t i = 0; i < path->length; i++) {
		const char *segment = path->text + i + 1;
		size_t length = 0;

		assert(path->text[i] != '\\' && path->text[i] != '%' && path->text[i] != '\0');
		if (path->text[i] != '/')
			continue;
		while (i + 1 + length < path->length && segment[length] != '/' &&
		       segment[length] != ';')
			length++;
		assert(!(length == 1 && segment[0] == '.'));
		assert(!(length == 2 && segment[0] == '.' && segment[1] == '.'));
		assert(i == 0 || path->text[i - 1] != '/');
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct request_path path;
	const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
	struct request_path_pattern pattern;
	struct http_text target;
	char *text, *copy;

	if (!newline)
		return 0;
	text = strndup((const char *)data, (size_t)(newline - data));
	target.length = size - (size_t)(newline + 1 - data);
	/* Of the exact size, so that a read past the end is seen. */
	copy = malloc(target.length > 0 ? target.length : 1);
	if (text && copy) {
		memcpy(copy, newline + 1, target.length);
		target.data = copy;
		if (request_path_parse(target, &path) == 0) {
			check_normal(&path);
			if (request_path_pattern_parse(text, &pattern) == 0 &&
			    strlen(text) + path.length < 48)
				assert(request_path_matches(&pattern, &path) ==
				       matches(text, path.text, path.text + path.length));
		}
	}
	free(text);
	free(copy);
	return 0;
}
