/*
 * What happens to secrets in the answer to a request, before the guest reads it.
 *
 * Answers of every host that a secret is bound to are searched, whichever request they answer: such
 * a host has been given the secret, and may show it later. Values in fields become placeholders.
 * The body gets a filter (secret_filter.h, and token_capture.h where the request carried a secret
 * that asks for it).
 *
 * A body with a Content-Encoding is never changed. Where the request carried a secret, which asked
 * for none, such an answer is refused.
 *
 * Set-Cookie is dropped from answers of pinned hosts: a cookie is a credential that the guest could
 * not send back (secret_request.h), so that an honest client does not run into a refusal. A secret
 * whose slot is Cookie keeps them.
 */
#ifndef PROXY_SECRET_RESPONSE_H
#define PROXY_SECRET_RESPONSE_H

#include "proxy/body_filter.h"
#include "proxy/http_head.h"
#include "proxy/secret_store.h"
#include "proxy/secret_verdict.h"

#include <stdbool.h>

/* `verdict` is that of the request; a refusal of the answer (SECRET_REFUSAL_ENCODED, which is to be
 * a 502) is written into it. `has_body` is false for answers that have none whatever their fields
 * say (to HEAD; 1xx, 204, 304). *ret_filter is NULL when the body needs none; the caller frees it.
 * Returns 0, or -ENOMEM or -E2BIG when the answer cannot go on. When the filter ends the body with
 * -EACCES, token_capture_report() says why. */
int secrets_prepare_response(struct secret_store *store, struct http_head *head, bool has_body,
			     struct secret_verdict *verdict, struct body_filter **ret_filter);

/* Values in the trailer fields of such an answer become placeholders. */
int secrets_redact_trailers(const struct secret_store *store, struct http_head *trailers,
			    const struct secret_verdict *verdict);

#endif
