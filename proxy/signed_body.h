/*
 * The body of a request whose head is signed over it: it is collected whole, in bounded memory,
 * before the request can be signed anew (sigv4.h).
 */
#ifndef PROXY_SIGNED_BODY_H
#define PROXY_SIGNED_BODY_H

#include "proxy/byte_buffer.h"
#include "proxy/http_leg.h"

#include <stdint.h>

#define SIGNED_BODY_DIGEST_SIZE 32u /* SHA-256 */

/* Asks the guest for a body that waits to be asked for (RFC 9110 section 10.1.1): the server, whose
 * part that is, cannot be asked before the body is there. A failure shows when it is collected. */
void signed_body_ask(struct http_leg *guest);
/* Takes what has come of it into `held`, whose cap is one byte more than a body may have: of one
 * that has just that many, the end may come later than the last byte. 0 with the digest when that
 * is all; -EAGAIN when there is more to wait for; -EMSGSIZE when `held` is full; -EBADMSG when the
 * leg has failed; -ENOMEM. */
int signed_body_collect(struct http_leg *guest, struct byte_buffer *held,
			uint8_t digest[static SIGNED_BODY_DIGEST_SIZE]);

#endif
