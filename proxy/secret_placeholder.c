#include "proxy/secret_placeholder.h"

#include "base/checked.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

/* Letters and digits that have to follow a vendor's prefix, for it to count as one. */
#define AFTER_VENDOR_MIN 8
/* Length of a token's signature that is taken for one: a MAC of 128 bits has 22. */
#define SIGNATURE_MIN 22

#define UUID_LENGTH 36
#define UUID_VERSION 14
#define UUID_VARIANT 19

static const char *const vendor_prefixes[] = {
	"sk-ant-api03-", "sk-ant-oat01-", "sk-ant-ort01-", "sk-ant-admin01-",
	"sk-ant-",	 "sk-proj-",	  "sk-svcacct-",   "sk-admin-",
	"sk-or-v1-",	 "sk-lf-",	  "sk-",	   "sk_live_",
	"sk_test_",	 "rk_live_",	  "rk_test_",	   "pk_live_",
	"pk_test_",	 "whsec_",	  "ghp_",	   "gho_",
	"ghu_",		 "ghs_",	  "ghr_",	   "github_pat_",
	"glpat-",	 "gldt-",	  "glrt-",	   "glcbt-",
	"gloas-",	 "AKIA",	  "ASIA",	   "AIza",
	"ya29.",	 "GOCSPX-",	  "1//",	   "xoxb-",
	"xoxp-",	 "xoxa-2-",	  "xoxa-",	   "xoxr-",
	"xoxs-",	 "xoxe.xoxp-",	  "xapp-",	   "npm_",
	"pypi-",	 "hf_",		  "dop_v1_",	   "doo_v1_",
	"dor_v1_",	 "shpat_",	  "shpss_",	   "shpca_",
	"shppa_",	 "SG.",		  "figd_",	   "lin_api_",
	"nvapi-",	 "gsk_",	  "r8_",	   "pplx-",
	"tvly-",	 "dckr_pat_",	  "hvs.",	   "hvb.",
	"ATATT3",	 "ATCTT3",	  "ntn_",	   "secret_",
	"sntrys_",	 "sntryu_",	  "sbp_",	   "xai-",
	"csk-",		 "fw_",		  "key-",	   "pat-",
	"PMAK-",	 "dapi",	  "glsa_",	   "NRAK-",
	"pscale_tkn_",	 "rnd_",	  "crates.io-",
};

static bool is_small(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_capital(char c)
{
	return c >= 'A' && c <= 'Z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static size_t count_changing(const char *text, size_t length)
{
	size_t count = 0;

	for (size_t i = 0; i < length; i++)
		count += is_small(text[i]) || is_capital(text[i]) || is_digit(text[i]);
	return count;
}

size_t secret_vendor_prefix(const char *value, size_t length)
{
	size_t best = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(vendor_prefixes); i++) {
		size_t size = strlen(vendor_prefixes[i]);

		if (size > best && size < length && !memcmp(value, vendor_prefixes[i], size) &&
		    count_changing(value + size, length - size) >= AFTER_VENDOR_MIN)
			best = size;
	}
	return best;
}

/* Header and claims of a JSON Web Token (RFC 7519), with the dot before the signature; 0 for
 * anything else. */
static size_t token_prefix(const char *value, size_t length)
{
	size_t dots = 0;
	size_t last = 0;

	if (length < 3 || memcmp(value, "eyJ", 3) != 0)
		return 0;
	for (size_t i = 0; i < length; i++) {
		if (value[i] == '.') {
			dots++;
			last = i + 1;
		} else if (count_changing(value + i, 1) == 0 && value[i] != '-' &&
			   value[i] != '_') {
			return 0;
		}
	}
	return dots == 2 && length - last >= SIGNATURE_MIN ? last : 0;
}

/* ---- classes -----------------------------------------------------------------------------------
 */

/* From which characters each class is drawn. */
struct classes {
	const char *small;
	const char *capital;
	const char *digit;
};

static bool all_in(const char *text, size_t length, const char *set)
{
	for (size_t i = 0; i < length; i++) {
		if (count_changing(text + i, 1) > 0 && !strchr(set, text[i]))
			return false;
	}
	return true;
}

static struct classes find_classes(const char *text, size_t length)
{
	static const char small[] = "abcdefghijklmnopqrstuvwxyz";
	static const char capital[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	static const char digit[] = "0123456789";

	if (all_in(text, length, "0123456789abcdef"))
		return (struct classes){ "abcdef", capital, digit };
	if (all_in(text, length, "0123456789ABCDEF"))
		return (struct classes){ small, "ABCDEF", digit };
	/* RFC 4648 section 6 */
	if (all_in(text, length, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
		return (struct classes){ small, capital, "234567" };
	return (struct classes){ small, capital, digit };
}

static const char *class_of(const struct classes *classes, char c)
{
	if (is_small(c))
		return classes->small;
	if (is_capital(c))
		return classes->capital;
	return is_digit(c) ? classes->digit : NULL;
}

/* Version and variant of a UUID (RFC 9562 section 4) are part of its format. */
static bool stays_in_uuid(const char *value, size_t length, size_t index)
{
	return length == UUID_LENGTH && value[8] == '-' && value[13] == '-' && value[18] == '-' &&
	       value[23] == '-' && (index == UUID_VERSION || index == UUID_VARIANT);
}

/* ---- drawing -----------------------------------------------------------------------------------
 */

struct source {
	uint8_t bytes[256];
	size_t left;
};

static int next_byte(struct source *source, uint8_t *ret_byte)
{
	if (source->left == 0) {
		ssize_t got = getrandom(source->bytes, sizeof(source->bytes), 0);

		if (got < 0)
			return -errno;
		source->left = (size_t)got;
	}
	*ret_byte = source->bytes[--source->left];
	return 0;
}

static int draw(struct source *source, const char *set, char *ret_character)
{
	size_t count = strlen(set);
	uint8_t byte = 0;

	/* What is over the greatest multiple would favour the first characters. */
	do {
		int error = next_byte(source, &byte);

		if (error)
			return error;
	} while (byte >= 256 - 256 % count);
	*ret_character = set[byte % count];
	return 0;
}

int secret_placeholder_make(const char *value, size_t length, size_t prefix_length,
			    char *ret_placeholder, size_t *ret_kept)
{
	struct source source = { .left = 0 };
	size_t kept = prefix_length;
	struct classes classes;

	if (kept == 0)
		kept = token_prefix(value, length);
	if (kept == 0)
		kept = secret_vendor_prefix(value, length);
	if (kept >= length ||
	    count_changing(value + kept, length - kept) < SECRET_PLACEHOLDER_CHANGES_MIN)
		return -EINVAL;
	classes = find_classes(value + kept, length - kept);
	do {
		for (size_t i = 0; i < length; i++) {
			const char *set = class_of(&classes, value[i]);
			int error = 0;

			if (i < kept || !set || stays_in_uuid(value, length, i))
				ret_placeholder[i] = value[i];
			else
				error = draw(&source, set, &ret_placeholder[i]);
			if (error)
				return error;
		}
	} while (!memcmp(ret_placeholder, value, length));
	*ret_kept = kept;
	return 0;
}
