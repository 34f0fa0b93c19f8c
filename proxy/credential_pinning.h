/*
 * Where a secret is bound to a host's name, a request to it may carry no other credential
 * (secret_request.h, credential_rules.h). Judged while the head still holds placeholders: what
 * stands around one must be syntax alone.
 */
#ifndef PROXY_CREDENTIAL_PINNING_H
#define PROXY_CREDENTIAL_PINNING_H

#include "proxy/secret_pass.h"

#include <stdbool.h>
#include <sys/types.h>

/* Whether the host of the request has a secret, and none that lifts it. */
bool credential_pinning_is_on(const struct secret_pass *pass);
/* Refuses for each credential that is not a placeholder of that host. `signed_field` is the index
 * of an Authorization that was verified otherwise, or -1. 0 or -ENOMEM. */
int credential_pinning_judge(const struct secret_pass *pass, ssize_t signed_field);

#endif
