#include "guest-init/java_store.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define MAGIC 0xfeedfeedU
#define VERSION 2
#define HEADER_SIZE 12
#define DIGEST_SIZE 20
#define BLOCK_SIZE 64
#define TRUSTED 2
#define ALIAS "matchlock"
#define TYPE "X.509"
#define BEGIN "-----BEGIN CERTIFICATE-----"
#define END "-----END CERTIFICATE-----"

/* "changeit" in UTF-16. */
static const uint8_t password[] = {
	0, 'c', 0, 'h', 0, 'a', 0, 'n', 0, 'g', 0, 'e', 0, 'i', 0, 't'
};
static const char salt[] = "Mighty Aphrodite";

/* ---- SHA-1 (RFC 3174), which is all that Java would take ------------------------------- */

struct sha1 {
	uint32_t state[5];
	uint64_t length;
	uint8_t block[BLOCK_SIZE];
};

static uint32_t rotate(uint32_t word, unsigned count)
{
	return word << count | word >> (32 - count);
}

static uint32_t get_word(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_word(uint8_t *at, uint32_t word)
{
	at[0] = (uint8_t)(word >> 24);
	at[1] = (uint8_t)(word >> 16);
	at[2] = (uint8_t)(word >> 8);
	at[3] = (uint8_t)word;
}

static void mix(uint32_t state[5], unsigned round, uint32_t word)
{
	static const uint32_t constants[] = { 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6 };
	uint32_t b = state[1];
	uint32_t c = state[2];
	uint32_t d = state[3];
	uint32_t choice = b ^ c ^ d;
	uint32_t first;

	if (round < 20)
		choice = (b & c) | (~b & d);
	else if (round >= 40 && round < 60)
		choice = (b & c) | (b & d) | (c & d);
	first = rotate(state[0], 5) + choice + state[4] + word + constants[round / 20];
	state[4] = d;
	state[3] = c;
	state[2] = rotate(b, 30);
	state[1] = state[0];
	state[0] = first;
}

static void take_block(struct sha1 *sha1)
{
	uint32_t words[80];
	uint32_t state[5];

	memcpy(state, sha1->state, sizeof(state));
	for (unsigned i = 0; i < 16; i++)
		words[i] = get_word(sha1->block + (size_t)4 * i);
	for (unsigned i = 16; i < 80; i++)
		words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
	for (unsigned i = 0; i < 80; i++)
		mix(state, i, words[i]);
	for (unsigned i = 0; i < 5; i++)
		sha1->state[i] += state[i];
}

static void add(struct sha1 *sha1, const void *data, size_t length)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < length; i++) {
		sha1->block[sha1->length++ % BLOCK_SIZE] = bytes[i];
		if (sha1->length % BLOCK_SIZE == 0)
			take_block(sha1);
	}
}

static void finish(struct sha1 *sha1, uint8_t digest[DIGEST_SIZE])
{
	uint64_t bits = sha1->length * 8;
	uint8_t length[8];

	add(sha1, "\x80", 1);
	while (sha1->length % BLOCK_SIZE != BLOCK_SIZE - sizeof(length))
		add(sha1, "", 1);
	put_word(length, (uint32_t)(bits >> 32));
	put_word(length + 4, (uint32_t)bits);
	add(sha1, length, sizeof(length));
	for (size_t i = 0; i < 5; i++)
		put_word(digest + 4 * i, sha1->state[i]);
}

static void digest_store(const uint8_t *store, size_t length, uint8_t digest[DIGEST_SIZE])
{
	struct sha1 sha1 = { .state = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
					0xc3d2e1f0 } };

	add(&sha1, password, sizeof(password));
	add(&sha1, salt, sizeof(salt) - 1);
	add(&sha1, store, length);
	finish(&sha1, digest);
}

/* ---- PEM -------------------------------------------------------------------------------- */

static int value_of(char letter)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = letter ? strchr(letters, letter) : NULL;

	return at ? (int)(at - letters) : -1;
}

/* The DER of the first certificate, into `der` with room for strlen(pem); its length, 0 when there
 * is none. */
static size_t decode(const char *pem, uint8_t *der)
{
	const char *at = strstr(pem, BEGIN);
	const char *end = at ? strstr(at, END) : NULL;
	uint32_t bits = 0;
	unsigned count = 0;
	size_t length = 0;

	if (!end)
		return 0;
	for (at += strlen(BEGIN); at < end; at++) {
		int value = value_of(*at);

		if (value < 0 && *at != '\n' && *at != '\r' && *at != '=')
			return 0;
		if (value < 0)
			continue;
		bits = bits << 6 | (uint32_t)value;
		count += 6;
		if (count >= 8) {
			count -= 8;
			der[length++] = (uint8_t)(bits >> count);
		}
	}
	return length;
}

/* ---- the store -------------------------------------------------------------------------- */

static uint8_t *put_bytes(uint8_t *at, const void *data, size_t length)
{
	memcpy(at, data, length);
	return at + length;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
	size_t length = strlen(text);

	at[0] = (uint8_t)(length >> 8);
	at[1] = (uint8_t)length;
	return put_bytes(at + 2, text, length);
}

int java_store_add(const uint8_t *store, size_t length, const char *certificate,
		   uint8_t **ret_store, size_t *ret_length)
{
	size_t room = length + strlen(certificate) + 64;
	cleanup_free uint8_t *der = malloc(strlen(certificate) + 1);
	cleanup_free uint8_t *grown = NULL;
	size_t der_length;
	uint8_t *at;

	if (!der)
		return -ENOMEM;
	der_length = decode(certificate, der);
	if (length < HEADER_SIZE + DIGEST_SIZE || length > JAVA_STORE_MAX || der_length == 0 ||
	    get_word(store) != MAGIC || get_word(store + 4) != VERSION ||
	    get_word(store + 8) == UINT32_MAX)
		return -EBADMSG;
	grown = calloc(1, room);
	if (!grown)
		return -ENOMEM;
	at = put_bytes(grown, store, length - DIGEST_SIZE);
	put_word(grown + 8, get_word(store + 8) + 1);
	put_word(at, TRUSTED);
	at = put_text(at + 4, ALIAS);
	at += 8; /* made in 1970 */
	at = put_text(at, TYPE);
	put_word(at, (uint32_t)der_length);
	at = put_bytes(at + 4, der, der_length);
	digest_store(grown, (size_t)(at - grown), at);
	*ret_length = (size_t)(at - grown) + DIGEST_SIZE;
	*ret_store = steal_pointer(&grown);
	return 0;
}
