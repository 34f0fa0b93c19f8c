/*
 * Answers of the broker's own: a refusal, or that the server could not be reached. JSON that a
 * person and a program can read, and a field that says that it is the broker who speaks:
 * Matchlock-Denied for a refusal, Matchlock-Error for the rest, each with the reason's code.
 */
#ifndef PROXY_ANSWER_H
#define PROXY_ANSWER_H

#include "proxy/http_head.h"
#include "proxy/http_leg.h"

#include <stdbool.h>

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

/* Sends all of it, or its head alone in answer to HEAD. Where the guest has yet to send of its
 * request, that will not be read, and the connection ends with the answer. 0; -ENOMEM; -ENOBUFS
 * when the leg has no room; or an error of sending. */
int answer_send(const struct answer *answer, struct http_leg *guest, bool is_head);

#endif
