/*
 * Makes the guest's programs trust the session's certificate authority, in the layer of memory over
 * the image.
 *
 *     AGENT_TRUST_CERTIFICATE, AGENT_TRUST_BUNDLE	the certificate; all that is trusted. These
 *							are always there, for variables to name.
 *     every bundle that the image has			one more certificate at its end
 *     Java's stores					the same
 *     policies of browsers				browser_policies.h (NSS's databases, in
 *							the home, are among CONFIG's files)
 *     /etc/ssl/certs/HASH.N				for OpenSSL without a bundle
 *     places from which bundles are made again		so that it stays when they are
 */
#ifndef GUEST_INIT_TRUST_STORE_H
#define GUEST_INIT_TRUST_STORE_H

#include "guest-init/failure.h"

#include <stdint.h>

#define TRUST_STORE_DIRECTORY "/run/matchlock"
/* Of a bundle; Mozilla's is 220 KiB. */
#define TRUST_STORE_BUNDLE_MAX (16U << 20)

/* `hash` is that of the subject, as `openssl x509 -subject_hash` prints it. */
int trust_store_add(const char *certificate, uint32_t hash, struct failure *failure);
/* The same for a tree whose root is `root_fd`. */
int trust_store_add_at(int root_fd, const char *certificate, uint32_t hash,
		       struct failure *failure);

#endif
