#include "proxy/request_path.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* A dot segment, or one to a server that takes parameters off. */
static bool is_dot_segment(const char *segment, size_t length)
{
	const char *parameters = memchr(segment, ';', length);

	if (parameters)
		length = (size_t)(parameters - segment);
	return (length == 1 || length == 2) && memcmp(segment, "..", length) == 0;
}

/* The byte at text[*position], decoded; negative for one that has no place in a normal path. */
static int decode(const char *text, size_t length, size_t *position)
{
	unsigned char byte = (unsigned char)text[(*position)++];

	if (byte == '%') {
		int high = length - *position >= 2 ? hex_value(text[*position]) : -1;
		int low = length - *position >= 2 ? hex_value(text[*position + 1]) : -1;

		if (high < 0 || low < 0)
			return -EINVAL;
		byte = (unsigned char)(high << 4 | low);
		*position += 2;
		if (byte == '/' || byte == '%')
			return -EINVAL;
	}
	return byte < 0x20 || byte == 0x7f || byte == '\\' ? -EINVAL : byte;
}

static int check_segments(const struct request_path *path)
{
	const char *text = path->text;
	size_t begin = 1;
	size_t count = 0;

	if (path->length == 0 || text[0] != '/')
		return -EINVAL;
	for (size_t i = 1; i <= path->length; i++) {
		bool is_last = i == path->length;

		if (!is_last && text[i] != '/')
			continue;
		if ((i == begin && !is_last) || is_dot_segment(text + begin, i - begin))
			return -EINVAL;
		if (++count > REQUEST_PATH_SEGMENTS_MAX)
			return -E2BIG;
		begin = i + 1;
	}
	return 0;
}

int request_path_parse(struct http_text target, struct request_path *ret_path)
{
	const char *query = target.length > 0 ? memchr(target.data, '?', target.length) : NULL;
	size_t length = query ? (size_t)(query - target.data) : target.length;
	size_t position = 0;

	ret_path->length = 0;
	while (position < length) {
		int byte = decode(target.data, length, &position);

		if (byte < 0)
			return byte;
		if (ret_path->length == REQUEST_PATH_MAX)
			return -E2BIG;
		ret_path->text[ret_path->length++] = (char)byte;
	}
	return check_segments(ret_path);
}

/* ---- patterns -------------------------------------------------------------------------------- */

int request_path_pattern_parse(const char *text, struct request_path_pattern *ret_pattern)
{
	struct request_path as_path = { .length = strlen(text) };

	/* What no normal path has would never match, which nobody writes on purpose. */
	if (as_path.length > REQUEST_PATH_MAX)
		return -EINVAL;
	for (size_t i = 0; i < as_path.length; i++) {
		unsigned char byte = (unsigned char)text[i];

		if (byte < 0x20 || byte == 0x7f || strchr("\\%?#", text[i]))
			return -EINVAL;
		/* "**" is a segment of its own, or the sign of a mistake. */
		if (text[i] == '*' && text[i + 1] == '*' &&
		    (i == 0 || text[i - 1] != '/' || (text[i + 2] != '/' && text[i + 2] != '\0')))
			return -EINVAL;
	}
	memcpy(as_path.text, text, as_path.length);
	if (check_segments(&as_path) < 0)
		return -EINVAL;
	ret_pattern->text = text;
	return 0;
}

/* The end of the segment that begins at text. */
static size_t segment_length(const char *text, size_t length)
{
	const char *slash = length > 0 ? memchr(text, '/', length) : NULL;

	return slash ? (size_t)(slash - text) : length;
}

/* One segment with `*` in it: the last star takes more as long as the rest does not fit. */
static bool segment_matches(const char *pattern, size_t pattern_length, const char *text,
			    size_t length)
{
	size_t p = 0, t = 0;
	size_t star = SIZE_MAX, star_text = 0;

	while (t < length) {
		if (p < pattern_length && pattern[p] == '*') {
			star = p++;
			star_text = t;
		} else if (p < pattern_length && pattern[p] == text[t]) {
			p++;
			t++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			t = ++star_text;
		} else {
			return false;
		}
	}
	while (p < pattern_length && pattern[p] == '*')
		p++;
	return p == pattern_length;
}

/* Positions are those of slashes; the end of the text is one behind the last segment. */
static bool paths_match(const char *pattern, size_t pattern_length, const char *text, size_t length)
{
	size_t p = 0, t = 0;
	size_t star = SIZE_MAX, star_text = 0;

	while (t < length) {
		size_t pattern_segment = 0, text_segment;

		if (p < pattern_length)
			pattern_segment = segment_length(pattern + p + 1, pattern_length - p - 1);
		text_segment = segment_length(text + t + 1, length - t - 1);
		if (p < pattern_length && pattern_segment == 2 &&
		    memcmp(pattern + p + 1, "**", 2) == 0) {
			star = p;
			star_text = t;
			p += 3;
		} else if (p < pattern_length && segment_matches(pattern + p + 1, pattern_segment,
								 text + t + 1, text_segment)) {
			p += pattern_segment + 1;
			t += text_segment + 1;
		} else if (star != SIZE_MAX) {
			star_text +=
				1 + segment_length(text + star_text + 1, length - star_text - 1);
			p = star + 3;
			t = star_text;
		} else {
			return false;
		}
	}
	while (pattern_length - p >= 3 && memcmp(pattern + p, "/**", 3) == 0 &&
	       (p + 3 == pattern_length || pattern[p + 3] == '/'))
		p += 3;
	return p == pattern_length;
}

bool request_path_matches(const struct request_path_pattern *pattern,
			  const struct request_path *path)
{
	return paths_match(pattern->text, strlen(pattern->text), path->text, path->length);
}
