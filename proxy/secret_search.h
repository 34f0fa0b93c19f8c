/*
 * Finds placeholders in the head of a request, in every form, and judges each by the place that it
 * is in (secret_request.h). The first time it only judges, and notes where they are; the second
 * time, when all is well, it replaces them there.
 */
#ifndef PROXY_SECRET_SEARCH_H
#define PROXY_SECRET_SEARCH_H

#include "proxy/secret_pass.h"

/* Judges the whole head. All return 0; -ENOMEM, or -E2BIG when the head has no room. */
int secret_search_head(const struct secret_pass *pass);
/* With `is_replacing`: puts values where the first time found placeholders. */
int secret_search_replace(const struct secret_pass *pass);
/* Judges a text where no secret belongs; `words` say where that is, for the hint. */
int secret_search_text(const struct secret_pass *pass, struct http_text text, const char *words);

#endif
