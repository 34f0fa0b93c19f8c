#include "proxy/aws_signing.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The secret whose placeholder is the key id, among those of this host. */
static bool find_key_id(const struct secret_pass *pass, struct http_text key_id, size_t *ret_index)
{
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		const struct secret *secret = secret_store_get(pass->store, i);

		if (secret->kind == SECRET_AWS_ACCESS_KEY_ID && secret->length == key_id.length &&
		    secret_set_has(&pass->verdict->bound, i) &&
		    !memcmp(secret->placeholder, key_id.data, key_id.length)) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

static struct http_text constant(const char *text)
{
	return (struct http_text){ text, strlen(text) };
}

/* What the request says of its body: false when it says nothing. */
static bool said_payload(const struct secret_pass *pass, struct aws_signing *signing)
{
	ssize_t index = http_head_find(pass->head, "x-amz-content-sha256", 0);
	struct http_text value;

	if (index < 0)
		return false;
	value = http_head_field(pass->head, (size_t)index).value;
	signing->form.payload = (struct http_text){ signing->payload, 0 };
	if (value.length <= sizeof(signing->payload)) {
		memcpy(signing->payload, value.data, value.length);
		signing->form.payload.length = value.length;
	}
	return true;
}

static void write_digest(const uint8_t *digest, char *output)
{
	for (size_t i = 0; i < 32; i++) {
		output[2 * i] = "0123456789abcdef"[digest[i] >> 4];
		output[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
	}
}

/* Finds how the signature that came was made. */
static int verify(const struct secret_pass *pass, const struct sigv4 *signature,
		  struct aws_signing *signing)
{
	const struct secret *key = secret_store_get(pass->store, signing->key);
	bool is_said = said_payload(pass, signing);
	struct http_text payload = signing->form.payload;
	int error;

	if (!is_said && pass->request->body_digest) {
		write_digest(pass->request->body_digest, signing->payload);
		payload = (struct http_text){ signing->payload, sizeof(signing->payload) };
	} else if (!is_said) {
		payload = constant(sigv4_empty_payload);
	} else if (payload.length > 15 && !memcmp(payload.data, "STREAMING-AWS4-", 15)) {
		secret_pass_refuse(pass, SECRET_REFUSAL_SIGNATURE, signing->key,
				   "each chunk of its payload is signed; have the client send "
				   "UNSIGNED-PAYLOAD or the payload's hash");
		return 0;
	}
	error = sigv4_find_form(pass->head, signature, payload, key->placeholder, key->length,
				&signing->form);
	if (error == -EKEYREJECTED && !is_said && !pass->request->body_digest) {
		pass->verdict->needs_body_digest = true;
		return 0;
	}
	if (error == -EKEYREJECTED || error == -EBADMSG) {
		secret_pass_refuse(
			pass, SECRET_REFUSAL_SIGNATURE, signing->key,
			"the signature that it has is not one by the placeholder of its key");
		return 0;
	}
	return error;
}

int aws_signing_begin(const struct secret_pass *pass, struct aws_signing *ret_signing)
{
	ssize_t index = http_head_find(pass->head, "Authorization", 0);
	struct http_text value;
	struct sigv4 signature;
	int error;

	*ret_signing = (struct aws_signing){ .field = -1 };
	if (index < 0 || secret_set_is_empty(&pass->verdict->bound))
		return 0;
	value = http_head_field(pass->head, (size_t)index).value;
	if (!sigv4_is(value))
		return 0;
	error = sigv4_parse(value, &signature);
	if (error || !find_key_id(pass, signature.key_id, &ret_signing->key_id))
		return 0; /* pinning, or the search for placeholders, judges it */
	if (!secret_store_aws_pair(pass->store, ret_signing->key_id, &ret_signing->key)) {
		secret_pass_refuse(
			pass, SECRET_REFUSAL_SIGNATURE, ret_signing->key_id,
			"no secret of this session is the secret access key that belongs to it");
		return 0;
	}
	if (!pass->request->is_verified) {
		secret_pass_refuse(pass, SECRET_REFUSAL_NEEDS_TLS, ret_signing->key, NULL);
		return 0;
	}
	ret_signing->field = index;
	return verify(pass, &signature, ret_signing);
}

int aws_signing_finish(const struct secret_pass *pass, const struct aws_signing *signing)
{
	const struct secret *key = secret_store_get(pass->store, signing->key);
	struct sigv4_form form = signing->form;
	ssize_t index = http_head_find(pass->head, "Authorization", 0);
	char hex[SIGV4_SIGNATURE_LENGTH];
	struct http_text value;
	struct sigv4 signature;
	cleanup_free char *copy = NULL;
	int error;

	value = http_head_field(pass->head, (size_t)index).value;
	error = sigv4_parse(value, &signature);
	if (error == 0)
		error = sigv4_sign(pass->head, &signature, &form, key->value, key->length, hex);
	if (error)
		return error;
	copy = malloc(value.length);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, value.data, value.length);
	memcpy(copy + (signature.signature.data - value.data), hex, sizeof(hex));
	secret_set_add(&pass->verdict->used, signing->key);
	return http_head_replace(pass->head, (size_t)index, copy, value.length, true);
}
