/*
 * The databases of NSS, in which programs built on it (Electron, the browsers that Playwright and
 * Puppeteer bring, certutil) look in ~/.pki/nssdb whom to trust: fresh ones, with one authority.
 *
 *     cert9.db	SQLite. Table nssPublic: a row for the certificate, one for the trust in it.
 *     key4.db	SQLite. Table nssPrivate: private keys, none. Table metaData: what the password is
 *		checked by, which is empty, and a MAC for each attribute of the trust, without which
 *		NSS does not believe it.
 *
 * An object is a row, with a column for each attribute of PKCS #11, named by its number. They are
 * what `certutil -N --empty-password` and `certutil -A -t C,,` make, and NSS writes to them later.
 * There is no document: the source is lib/softoken/sdb.c, sftkdb.c and sftkpwd.c of NSS. With an
 * empty password there is nothing to guard, so salts are zeros.
 */
#ifndef CLI_NSS_DATABASE_H
#define CLI_NSS_DATABASE_H

#include <stddef.h>
#include <stdint.h>

struct nss_database {
	uint8_t *certificates; /* cert9.db */
	size_t certificates_size;
	uint8_t *keys; /* key4.db */
	size_t keys_size;
};

/* `certificate` is PEM, an authority, trusted to vouch for servers and for nothing else. Some 10
 * KiB each. Returns 0, -EBADMSG for what is no certificate, or -EIO when SQLite or OpenSSL fails.
 */
int nss_database_make(const char *certificate, struct nss_database *ret_database);
void nss_database_free(struct nss_database *database);

#endif
