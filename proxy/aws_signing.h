/*
 * A request that its client signed for Amazon Web Services with a pair of placeholders: the
 * signature is verified over the head as it came, and made anew with the real key over the head as
 * it goes (sigv4.h).
 */
#ifndef PROXY_AWS_SIGNING_H
#define PROXY_AWS_SIGNING_H

#include "proxy/secret_pass.h"
#include "proxy/sigv4.h"

#include <stddef.h>
#include <sys/types.h>

struct aws_signing {
	ssize_t field; /* of the Authorization; -1: nothing to sign */
	size_t key_id;
	size_t key;
	struct sigv4_form form;
	char payload[64]; /* the form's text borrows it, or a constant */
};

/* Reads the signature of a request to a host with a pair of AWS keys. ret_signing->field stays -1
 * when it has none that is to be made again. Refuses, or asks for the digest of the body, in the
 * verdict. 0 or -ENOMEM. Not to be copied afterwards. */
int aws_signing_begin(const struct secret_pass *pass, struct aws_signing *ret_signing);
/* Makes the signature anew; the key id in the field has been replaced as any placeholder is. 0, or
 * a negative errno. */
int aws_signing_finish(const struct secret_pass *pass, const struct aws_signing *signing);

#endif
