/*
 * One request on its way through the modules that judge secrets in its head (secret_request.h):
 * what they all work on, and how they refuse.
 */
#ifndef PROXY_SECRET_PASS_H
#define PROXY_SECRET_PASS_H

#include "proxy/http_head.h"
#include "proxy/secret_request.h"
#include "proxy/secret_store.h"
#include "proxy/secret_verdict.h"

#include <stdbool.h>
#include <stddef.h>

/* Where placeholders are. */
struct secret_findings {
	bool in_query;
	bool in_field[HTTP_FIELDS_MAX];
};

struct secret_pass {
	const struct secret_store *store;
	const struct secret_request *request; /* NULL: trailers, where nothing may be */
	struct http_head *head;
	struct secret_verdict *verdict;
	struct secret_findings *findings; /* NULL: nothing will be replaced */
	bool is_replacing;		  /* the second time */
};

/* Refuses for a secret, which counts as used. `detail` may be NULL. */
void secret_pass_refuse(const struct secret_pass *pass, enum secret_refusal refusal, size_t index,
			const char *detail);
/* Refuses for a credential that is none of this session's. */
void secret_pass_refuse_foreign(const struct secret_pass *pass, const char *where);

/* Whether a header of that name is a place for the secret. */
bool secret_pass_is_slot(const struct secret *secret, struct http_text name);
/* Cuts the query off a path and returns it, without the question mark. */
struct http_text secret_pass_split_query(struct http_text *path);

#endif
