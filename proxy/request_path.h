/*
 * The path of a request, compared with patterns.
 *
 * Servers differ in how they read a path that is not in normal form, so a rule on paths is worth
 * nothing for one: where there are rules, it is refused. Refused are dot segments, also encoded or
 * with parameters (`..;x`), empty segments but for a last one, encoded slashes, backslashes,
 * percent signs and NULs (which a second decoding would bring to life), raw backslashes, control
 * characters and bad escapes. What remains is decoded, so that `%61` is `a`. The query is not
 * looked at.
 *
 * In a pattern `*` is any text within a segment, and `**`, as a whole segment, any number of
 * segments, none included. Everything else is itself; letters are not folded.
 *
 * Sources: RFC 3986 sections 2.1, 3.3 and 6.2.2.
 */
#ifndef PROXY_REQUEST_PATH_H
#define PROXY_REQUEST_PATH_H

#include "proxy/http_head.h"

#define REQUEST_PATH_MAX 4096u
#define REQUEST_PATH_SEGMENTS_MAX 128u

struct request_path {
	size_t length;
	char text[REQUEST_PATH_MAX]; /* decoded; begins with a slash; not terminated */
};

struct request_path_pattern {
	const char *text; /* borrowed */
};

/* The path of a request's target, without its query. -EINVAL for one that is not in normal form;
 * -E2BIG. */
int request_path_parse(struct http_text target, struct request_path *ret_path);
/* `text` begins with a slash and could match something; it is borrowed. -EINVAL. */
int request_path_pattern_parse(const char *text, struct request_path_pattern *ret_pattern);
bool request_path_matches(const struct request_path_pattern *pattern,
			  const struct request_path *path);

#endif
