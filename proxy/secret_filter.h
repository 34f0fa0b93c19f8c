/*
 * The body filters that concern secrets (body_filter.h).
 *
 * A request's body is searched for placeholders in every form. One of a secret that may not go to
 * this host ends it (-EACCES); one of a secret with SECRET_FLAG_BODY is replaced by the value where
 * it stands as such, inside JSON and forms too; any other stays what it is, a text that opens
 * nothing.
 *
 * A response's body is searched for values in every form, and each becomes the placeholder in the
 * same form, so that the guest reads what it would have sent.
 *
 * What is kept back shows to who watches the pauses of an answer that it begins like a value. A
 * server that echoes the guest could be used to guess a value that way, one character after
 * another; so the store counts answers that pause SECRET_PROBE_DEPTH characters or more into a
 * value and then go on otherwise, and when it is probed, every response filter ends its body.
 *
 * Messages of a conversation (secret_filter_take_messages()) are one text to be searched, but each
 * goes out whole at its end, because the other side may say nothing before it has it. A placeholder
 * that began in an earlier message still ends the conversation, and is never replaced. Where a
 * message from a server ends SECRET_PROBE_DEPTH characters or more into a value, these become the
 * beginning of the placeholder, and what the next message has of the value becomes the rest. That
 * tells as much as a pause, so it counts as one.
 *
 * Both keep back only what may still become a match, nothing at all after most bytes, so that a
 * stream of events is not delayed; and what they put out does not depend on how the input was cut.
 * Bodies with a Content-Encoding are for coded_filter.h. Besides 0, -EACCES and -ENOBUFS, feed()
 * may return -ENOMEM, after which the body cannot go on.
 */
#ifndef PROXY_SECRET_FILTER_H
#define PROXY_SECRET_FILTER_H

#include "proxy/body_filter.h"
#include "proxy/secret_store.h"
#include "proxy/secret_verdict.h"

/* Characters of a form; that many are not the beginning of a value by chance. */
#define SECRET_PROBE_DEPTH 5u

/* `bound` are the secrets of the host; `over_tls` false makes a placeholder to replace a refusal.
 * The filter borrows the store. Returns NULL without memory. */
struct body_filter *secret_request_filter_new(const struct secret_store *store,
					      const struct secret_set *bound, bool over_tls);
struct body_filter *secret_response_filter_new(struct secret_store *store);

/* Of a request's: what goes on is not what comes out here, so that nothing can be replaced, and a
 * placeholder that would be is a refusal (SECRET_REFUSAL_CODED). */
void secret_filter_look_only(struct body_filter *filter);
/* Refuses for a reason that is not in the bytes; `detail` is static. The next feed() says so. */
void secret_filter_refuse(struct body_filter *filter, enum secret_refusal refusal,
			  const char *detail);
/* Before the first byte: what comes is one message after another, the last byte of each told by
 * `is_last`. Nothing of a message is kept back at its end, and what began there may go on in the
 * next one. */
void secret_filter_take_messages(struct body_filter *filter);

/* Of a filter made here: after -EACCES, writes the refusal into *verdict; in any case adds the
 * secrets found so far to its `used`, and sets `is_injected` when one was put in. */
void secret_filter_report(const struct body_filter *filter, struct secret_verdict *verdict);

/* False for a text without a secret; true for hardly any other. */
bool secret_may_be_in(const struct secret_store *store, const char *text, size_t length);
/* Rewrites a whole text the same way as a response's body: 1 with the rewritten copy, of the same
 * length, which the caller frees; 0 when the text has no secret; or -ENOMEM. */
int secret_redact(const struct secret_store *store, const char *text, size_t length,
		  char **ret_copy);

#endif
