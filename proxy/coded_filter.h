/*
 * A request's body in a content coding (RFC 9110 section 8.4.1): what it says is read beside it and
 * searched for secrets, and it goes on as it came, for a change would break it.
 *
 * Read are gzip and deflate, the latter as RFC 9110 has it, in zlib's form. Refused besides what
 * the filter of secrets refuses: what is not whole and well-formed, anything behind its end but
 * further members of gzip, and what unpacks to more than CODED_EXPANSION_MAX times its size and
 * CODED_FREE_MAX bytes, because to read it would cost more than to send it.
 */
#ifndef PROXY_CODED_FILTER_H
#define PROXY_CODED_FILTER_H

#include "proxy/body_filter.h"
#include "proxy/http_head.h"

#define CODED_EXPANSION_MAX 200u
#define CODED_FREE_MAX 1048576u

enum body_coding {
	BODY_CODING_NONE,
	BODY_CODING_GZIP,
	BODY_CODING_DEFLATE,
	BODY_CODING_UNREADABLE, /* another one, or several */
};

/* By the head's Content-Encoding; in *ret_name which one, for a person: as it came, so not
 * printable for certain. */
enum body_coding body_coding_of(const struct http_head *head, struct http_text *ret_name);

/* Takes over `secrets`, a filter of requests (secret_filter.h), which is asked for the refusal as
 * ever. GZIP or DEFLATE. NULL without memory, and then it is freed. */
struct body_filter *coded_filter_new(struct body_filter *secrets, enum body_coding coding);

#endif
