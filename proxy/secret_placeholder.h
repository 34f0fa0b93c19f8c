/*
 * The placeholder of a secret: what the guest gets in its stead.
 *
 * It has the secret's length and begins like it where that says what kind of secret it is: with the
 * prefix of a known vendor ("sk-ant-api03-", "ghp_", "AKIA"), or with the header and claims of a
 * JSON Web Token, which clients read and which open nothing without the signature. After that every
 * letter and digit is drawn anew from its own class (small, capital, digit; hexadecimal stays so,
 * and base32), and every other character stays, so that a validator of formats is content, and so
 * that either can replace the other inside JSON or a URL without a change of length.
 */
#ifndef PROXY_SECRET_PLACEHOLDER_H
#define PROXY_SECRET_PLACEHOLDER_H

#include <stddef.h>

/* Characters that a placeholder changes, at least. */
#define SECRET_PLACEHOLDER_CHANGES_MIN 6

/* How many characters at the beginning of the value are a known vendor's prefix; 0 for none, and
 * when fewer than 8 letters and digits would remain. */
size_t secret_vendor_prefix(const char *value, size_t length);

/* Writes `length` characters to ret_placeholder, and how many of them are the value's own beginning
 * to *ret_kept. `prefix_length` > 0 says how many are to be kept. Returns 0; -EINVAL when so few
 * letters and digits are left to change that the placeholder could occur by chance; or getrandom's
 * error. */
int secret_placeholder_make(const char *value, size_t length, size_t prefix_length,
			    char *ret_placeholder, size_t *ret_kept);

#endif
