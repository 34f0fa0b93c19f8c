#include "proxy/credential_rules.h"

#include "base/checked.h"
#include "proxy/secret_placeholder.h"

#include <string.h>
#include <strings.h>

struct word {
	const char *text;
	size_t length;
};

#define WORD(text)                                                                                 \
	{                                                                                          \
		text, sizeof(text) - 1                                                             \
	}

static const struct word usual_slots[] = {
	WORD("authorization"),
	WORD("x-api-key"),
	WORD("api-key"),
	WORD("apikey"),
	WORD("x-goog-api-key"),
	WORD("x-auth-token"),
	WORD("x-access-token"),
	WORD("private-token"),
	WORD("job-token"),
	WORD("x-amz-security-token"),
	WORD("ocp-apim-subscription-key"),
	WORD("x-subscription-token"),
	WORD("x-functions-key"),
	WORD("x-vault-token"),
	WORD("x-figma-token"),
	WORD("x-shopify-access-token"),
	WORD("x-rapidapi-key"),
	WORD("xi-api-key"),
	WORD("dd-api-key"),
	WORD("dd-application-key"),
	WORD("circle-token"),
};

static const struct word other_headers[] = {
	WORD("cookie"),
	WORD("proxy-authorization"),
	WORD("x-goog-iam-authorization-token"),
	WORD("x-ms-authorization-auxiliary"),
};

static const struct word parameters[] = {
	WORD("key"),
	WORD("api_key"),
	WORD("api-key"),
	WORD("apikey"),
	WORD("access_token"),
	WORD("auth_token"),
	WORD("token"),
	WORD("private_token"),
	WORD("client_secret"),
	WORD("password"),
	WORD("sig"),
	WORD("x-amz-credential"),
	WORD("x-amz-security-token"),
	WORD("x-amz-signature"),
	WORD("awsaccesskeyid"),
	WORD("x-goog-credential"),
	WORD("x-goog-signature"),
	WORD("googleaccessid"),
};

/* Longest scheme or parameter name. */
#define WORD_MAX 32u
/* Longest account name, and longest filler where the account name is the key. */
#define USER_MAX 64u
#define FILLER_MAX 16u

static bool is_listed(const char *text, size_t length, const struct word *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (list[i].length == length && !strncasecmp(list[i].text, text, length))
			return true;
	}
	return false;
}

bool credential_is_usual_slot(struct http_text name)
{
	return is_listed(name.data, name.length, usual_slots, ARRAY_LENGTH(usual_slots));
}

bool credential_is_header(struct http_text name)
{
	return credential_is_usual_slot(name) ||
	       is_listed(name.data, name.length, other_headers, ARRAY_LENGTH(other_headers));
}

bool credential_is_parameter(const char *name, size_t length)
{
	return is_listed(name, length, parameters, ARRAY_LENGTH(parameters));
}

static size_t word_length(const char *text, size_t length)
{
	size_t size = 0;

	while (size < length && ((text[size] >= 'a' && text[size] <= 'z') ||
				 (text[size] >= 'A' && text[size] <= 'Z') ||
				 (text[size] >= '0' && text[size] <= '9') ||
				 (text[size] != '\0' && strchr("-_.", text[size]))))
		size++;
	return size;
}

bool credential_is_frame(struct http_text front, struct http_text back)
{
	const char *at = front.data;
	size_t left = front.length;
	size_t word = word_length(at, left);
	bool is_quoted;

	if (word > WORD_MAX)
		return false;
	if (word > 0 && word < left && at[word] == ' ') {
		while (word < left && at[word] == ' ')
			word++;
		at += word;
		left -= word;
		word = word_length(at, left);
	}
	if (word > 0) {
		if (word > WORD_MAX || word == left || at[word] != '=')
			return false;
		at += word + 1;
		left -= word + 1;
	}
	is_quoted = left == 1 && *at == '"';
	if (left > 0 && !is_quoted)
		return false;
	return is_quoted ? http_text_is_exactly(back, "\"") : back.length == 0;
}

/* ---- Basic -------------------------------------------------------------------------------------
 */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int digit_value(char c)
{
	const char *at = c != '\0' ? strchr(alphabet, c) : NULL;

	return at ? (int)(at - alphabet) : -1;
}

/* RFC 4648 section 4, with or without padding; bits that are left over have to be zero, so that one
 * text has one encoding. */
static bool decode(const char *text, size_t length, char *output, size_t *ret_length)
{
	size_t digits = length;
	uint32_t bits = 0;
	unsigned count = 0;
	size_t used = 0;

	while (digits > 0 && length - digits < 2 && text[digits - 1] == '=')
		digits--;
	if (digits % 4 == 1 || (digits != length && length % 4 != 0) ||
	    digits / 4 * 3 + 3 > CREDENTIAL_BASIC_MAX)
		return false;
	for (size_t i = 0; i < digits; i++) {
		int value = digit_value(text[i]);

		if (value < 0)
			return false;
		bits = bits << 6 | (uint32_t)value;
		count += 6;
		if (count >= 8) {
			count -= 8;
			output[used++] = (char)(bits >> count & 0xff);
		}
	}
	if (bits & ((1U << count) - 1))
		return false;
	*ret_length = used;
	return true;
}

bool credential_is_basic(struct http_text value)
{
	return value.length >= 6 && value.data[5] == ' ' &&
	       strncasecmp(value.data, "Basic", 5) == 0;
}

bool credential_basic_decode(struct http_text value, char *output, size_t *ret_length,
			     size_t *ret_offset)
{
	size_t offset = 5;

	if (!credential_is_basic(value))
		return false;
	while (offset < value.length && value.data[offset] == ' ')
		offset++;
	*ret_offset = offset;
	return decode(value.data + offset, value.length - offset, output, ret_length);
}

void credential_basic_encode(const char *decoded, size_t length, char *target)
{
	uint32_t bits = 0;
	unsigned count = 0;

	for (size_t i = 0; i < length; i++) {
		bits = bits << 8 | (uint8_t)decoded[i];
		count += 8;
		while (count >= 6) {
			count -= 6;
			*target++ = alphabet[bits >> count & 63];
		}
	}
	/* The padding is there already, or is not to be. */
	if (count > 0)
		*target = alphabet[bits << (6 - count) & 63];
}

bool credential_is_plain_user(const char *user, size_t length)
{
	return length <= USER_MAX && secret_vendor_prefix(user, length) == 0;
}

bool credential_is_plain_password(const char *password, size_t length)
{
	return length <= FILLER_MAX && secret_vendor_prefix(password, length) == 0;
}
