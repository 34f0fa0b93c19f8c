#include "proxy/websocket.h"

#include "proxy/http_syntax.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

/* RFC 6455 section 1.3. */
static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#define KEY_LENGTH 24u
#define NONCE_LENGTH 16

static bool has_one(const struct http_head *head, const char *name, struct http_text *ret_value)
{
	ssize_t index = http_head_find(head, name, 0);

	if (index < 0 || http_head_find(head, name, (size_t)index + 1) >= 0)
		return false;
	*ret_value = http_head_field(head, (size_t)index).value;
	return true;
}

static bool is_upgrade(const struct http_head *head)
{
	struct http_text protocol;

	return has_one(head, "upgrade", &protocol) && http_text_is(protocol, "websocket") &&
	       http_head_lists(head, "connection", "upgrade");
}

/* Base64 of sixteen bytes. */
static bool is_key(struct http_text key)
{
	unsigned char decoded[KEY_LENGTH];

	/* The length counts what padding stands for: two bytes. */
	return key.length == KEY_LENGTH && memcmp(key.data + KEY_LENGTH - 2, "==", 2) == 0 &&
	       EVP_DecodeBlock(decoded, (const unsigned char *)key.data, KEY_LENGTH) ==
		       NONCE_LENGTH + 2;
}

bool websocket_is_request(const struct http_head *request, char accept[WEBSOCKET_ACCEPT_SIZE])
{
	unsigned char text[KEY_LENGTH + sizeof(guid) - 1];
	unsigned char digest[SHA_DIGEST_LENGTH];
	struct http_text key;
	struct http_text version;

	if (!http_text_is_exactly(http_head_method(request), "GET") || !is_upgrade(request) ||
	    !has_one(request, "sec-websocket-version", &version) ||
	    !http_text_is_exactly(version, "13") || !has_one(request, "sec-websocket-key", &key) ||
	    !is_key(key))
		return false;
	memcpy(text, key.data, KEY_LENGTH);
	memcpy(text + KEY_LENGTH, guid, sizeof(guid) - 1);
	if (EVP_Digest(text, sizeof(text), digest, NULL, EVP_sha1(), NULL) != 1)
		return false;
	EVP_EncodeBlock((unsigned char *)accept, digest, sizeof(digest));
	return true;
}

void websocket_drop_extensions(struct http_head *request)
{
	http_head_remove_all(request, "sec-websocket-extensions");
}

bool websocket_is_accepted(const struct http_head *response, const char *accept)
{
	struct http_text value;

	return http_head_status(response) == 101 && is_upgrade(response) &&
	       http_head_find(response, "sec-websocket-extensions", 0) < 0 &&
	       has_one(response, "sec-websocket-accept", &value) &&
	       http_text_is_exactly(value, accept);
}
