#include "audit/digest.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct digest {
	EVP_MD *algorithm;
	EVP_MD_CTX *context;
};

struct digest *digest_new(void)
{
	struct digest *digest = calloc(1, sizeof(*digest));

	if (!digest)
		return NULL;
	digest->algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
	digest->context = EVP_MD_CTX_new();
	if (!digest->algorithm || !digest->context ||
	    EVP_DigestInit_ex2(digest->context, digest->algorithm, NULL) != 1) {
		digest_free(digest);
		return NULL;
	}
	return digest;
}

void digest_free(struct digest *digest)
{
	if (!digest)
		return;
	EVP_MD_CTX_free(digest->context);
	EVP_MD_free(digest->algorithm);
	free(digest);
}

bool digest_compute(struct digest *digest, const void *data, size_t length,
		    uint8_t result[DIGEST_SIZE])
{
	/* Without an algorithm the context keeps the one it has. */
	return EVP_DigestInit_ex2(digest->context, NULL, NULL) == 1 &&
	       EVP_DigestUpdate(digest->context, data, length) == 1 &&
	       EVP_DigestFinal_ex(digest->context, result, NULL) == 1;
}

void digest_to_hex(const uint8_t value[DIGEST_SIZE], char *hex)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		hex[2 * i] = digits[value[i] >> 4];
		hex[2 * i + 1] = digits[value[i] & 15];
	}
}

static int digit_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

bool digest_from_hex(const char *hex, uint8_t result[DIGEST_SIZE])
{
	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		int high = digit_value(hex[2 * i]);
		int low = high < 0 ? -1 : digit_value(hex[2 * i + 1]);

		if (low < 0)
			return false;
		result[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}
