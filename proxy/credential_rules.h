/*
 * Where credentials sit in a request, and what they look like around the secret itself. Pure
 * functions.
 *
 * Credential pinning asks two things of these: whether a place can carry a credential at all, and
 * whether what stands around a placeholder there is only the syntax of such a place (a scheme's
 * name, a parameter's), so that nobody's own key travels beside it.
 */
#ifndef PROXY_CREDENTIAL_RULES_H
#define PROXY_CREDENTIAL_RULES_H

#include "proxy/http_head.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest credentials of scheme Basic (RFC 7617), decoded. */
#define CREDENTIAL_BASIC_MAX 8192u

/* Headers in which a secret is replaced when it names none itself. */
bool credential_is_usual_slot(struct http_text name);
/* Headers that carry a credential: the usual slots, and those that only others use. */
bool credential_is_header(struct http_text name);
/* Names of parameters in a query that carry one; as they are after undoing escapes. */
bool credential_is_parameter(const char *name, size_t length);

/* Whether `front` + a placeholder + `back` is a credential and nothing more: a scheme, a
 * parameter's name with '=', an opening quotation mark, each at most once; and the closing mark. */
bool credential_is_frame(struct http_text front, struct http_text back);

/* Whether the value says that its scheme is Basic. */
bool credential_is_basic(struct http_text value);
/* The credentials in a value of scheme Basic: decodes into `output`, CREDENTIAL_BASIC_MAX bytes,
 * and says where they lie in the value. False when the value is of another scheme or malformed. */
bool credential_basic_decode(struct http_text value, char *output, size_t *ret_length,
			     size_t *ret_offset);
/* Writes them back to value + offset, in the same length. */
void credential_basic_encode(const char *decoded, size_t length, char *target);
/* Whether what stands beside the placeholder in such credentials can be a credential of its own. */
bool credential_is_plain_user(const char *user, size_t length);
bool credential_is_plain_password(const char *password, size_t length);

#endif
