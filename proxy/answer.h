/*
 * Answers of the broker's own: a refusal, or that the server could not be reached. JSON that a
 * person and a program can read, and a field that says that it is the broker who speaks:
 * Matchlock-Denied for a refusal, Matchlock-Error for the rest, each with the reason's code.
 */
#ifndef PROXY_ANSWER_H
#define PROXY_ANSWER_H

#include "proxy/byte_buffer.h"
#include "proxy/http_head.h"

#include <stdbool.h>

#define ANSWER_BODY_MAX 16384u

struct answer {
	unsigned status;
	bool is_denial;
	const char *reason; /* a code, such as "host_not_allowed" */
	const char *host;
	struct http_text method;
	struct http_text path; /* without the query */
	const char *rule;      /* NULL: none */
	const char *hint;      /* what would allow it, or what is wrong; NULL: nothing to say */
};

/* Fills `head`, which is clear, with everything but framing, and `body`. 0, -ENOMEM or -ENOBUFS. */
int answer_make(const struct answer *answer, struct http_head *head, struct byte_buffer *body);

#endif
