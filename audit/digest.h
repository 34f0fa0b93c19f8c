/*
 * SHA-256 of single lines by OpenSSL, with one context that is used again and again: the library's
 * set-up for each digest costs more than hashing a short record.
 */
#ifndef AUDIT_DIGEST_H
#define AUDIT_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_SIZE 32
#define DIGEST_HEX_SIZE 64

struct digest;

/* NULL when OpenSSL has no SHA-256 or memory is out. Load it before entering the jail. */
struct digest *digest_new(void);
void digest_free(struct digest *digest);
bool digest_compute(struct digest *digest, const void *data, size_t length,
		    uint8_t result[DIGEST_SIZE]);

/* Lower-case, DIGEST_HEX_SIZE characters, no NUL. */
void digest_to_hex(const uint8_t value[DIGEST_SIZE], char *hex);
/* False unless `hex` begins with DIGEST_HEX_SIZE lower-case hexadecimal digits. */
bool digest_from_hex(const char *hex, uint8_t result[DIGEST_SIZE]);

#endif
