#include "proxy/session_ca.h"

#include "proxy/secret_heap.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* The default one falls through its cases, which clang takes for a mistake. */
#define HASH_FUNCTION HASH_FNV
#include <uthash.h>

#define DAY (24L * 60 * 60)
#define STARTS_BEFORE (2 * DAY)
/* What browsers take at most is 398 days. */
#define ENDS_AFTER (390 * DAY)
#define COMMON_NAME_MAX 64u
#define EXTENSION_VALUE_MAX (HOST_NAME_MAX_LENGTH + 8u)

struct leaf {
	struct host_name name; /* key: `text` up to its length */
	X509 *certificate;
	UT_hash_handle hh;
};

struct session_ca {
	EVP_PKEY *key;
	EVP_PKEY *leaf_key;
	X509 *certificate;
	char *pem;
	struct leaf *leaves; /* in the order of use, oldest first */
};

/* ---- parts of a certificate ----------------------------------------------------------------- */

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	bool added;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	added = extension && X509_add_ext(certificate, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return added;
}

/* Random, positive and not zero (RFC 5280 section 4.1.2.2). */
static bool set_serial(X509 *certificate)
{
	uint8_t bytes[16];
	BIGNUM *number;
	bool set;

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return false;
	bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40);
	number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	set = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
	BN_free(number);
	return set;
}

static bool add_name(X509_NAME *name, const char *field, const char *text)
{
	return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)text,
					  -1, -1, 0) == 1;
}

/* A certificate with everything but subject, issuer and extensions. */
static X509 *begin_certificate(EVP_PKEY *key)
{
	X509 *certificate = X509_new();

	if (certificate && X509_set_version(certificate, X509_VERSION_3) == 1 &&
	    set_serial(certificate) &&
	    X509_gmtime_adj(X509_getm_notBefore(certificate), -STARTS_BEFORE) &&
	    X509_gmtime_adj(X509_getm_notAfter(certificate), ENDS_AFTER) &&
	    X509_set_pubkey(certificate, key) == 1)
		return certificate;
	X509_free(certificate);
	return NULL;
}

static X509 *make_authority(EVP_PKEY *key, const char *session)
{
	X509 *certificate = begin_certificate(key);
	char common_name[COMMON_NAME_MAX + 1];
	X509_NAME *name;

	if (!certificate)
		return NULL;
	snprintf(common_name, sizeof(common_name), "Matchlock session %s", session);
	name = X509_get_subject_name(certificate);
	if (add_name(name, "O", "Matchlock") && add_name(name, "CN", common_name) &&
	    X509_set_issuer_name(certificate, name) == 1 &&
	    add_extension(certificate, certificate, NID_basic_constraints,
			  "critical,CA:TRUE,pathlen:0") &&
	    add_extension(certificate, certificate, NID_key_usage,
			  "critical,keyCertSign,cRLSign") &&
	    add_extension(certificate, certificate, NID_subject_key_identifier, "hash") &&
	    X509_sign(certificate, key, EVP_sha256()) > 0)
		return certificate;
	X509_free(certificate);
	return NULL;
}

/* The name lies in the alternative name alone: a common name takes 64 bytes and nobody reads it.
 * An empty subject makes that extension critical (RFC 5280 section 4.2.1.6). */
static X509 *mint(struct session_ca *ca, const struct host_name *name)
{
	X509 *certificate = begin_certificate(ca->leaf_key);
	char alternative[EXTENSION_VALUE_MAX + 16];

	if (!certificate)
		return NULL;
	snprintf(alternative, sizeof(alternative), "critical,DNS:%s", name->text);
	if (X509_set_issuer_name(certificate, X509_get_subject_name(ca->certificate)) == 1 &&
	    add_extension(certificate, ca->certificate, NID_basic_constraints,
			  "critical,CA:FALSE") &&
	    add_extension(certificate, ca->certificate, NID_key_usage,
			  "critical,digitalSignature") &&
	    add_extension(certificate, ca->certificate, NID_ext_key_usage, "serverAuth") &&
	    add_extension(certificate, ca->certificate, NID_subject_key_identifier, "hash") &&
	    add_extension(certificate, ca->certificate, NID_authority_key_identifier,
			  "keyid:always") &&
	    add_extension(certificate, ca->certificate, NID_subject_alt_name, alternative) &&
	    X509_sign(certificate, ca->key, EVP_sha256()) > 0)
		return certificate;
	X509_free(certificate);
	return NULL;
}

/* ---- the authority -------------------------------------------------------------------------- */

static char *to_pem(X509 *certificate)
{
	BIO *memory = BIO_new(BIO_s_mem());
	char *text = NULL;
	char *data;
	long length;

	if (memory && PEM_write_bio_X509(memory, certificate) == 1) {
		length = BIO_get_mem_data(memory, &data);
		text = length > 0 ? strndup(data, (size_t)length) : NULL;
	}
	BIO_free(memory);
	return text;
}

/* NULL, also without memory. */
static EVP_PKEY *make_key(void)
{
	EVP_PKEY *key;

	secret_heap_enter();
	key = EVP_EC_gen("P-256");
	if (key)
		secret_heap_use_key(key);
	(void)secret_heap_leave();
	return key;
}

int session_ca_new(const char *session, struct session_ca **ret_ca)
{
	struct session_ca *ca = calloc(1, sizeof(*ca));

	if (!ca)
		return -ENOMEM;
	ca->key = make_key();
	ca->leaf_key = make_key();
	if (ca->key && ca->leaf_key)
		ca->certificate = make_authority(ca->key, session);
	if (ca->certificate)
		ca->pem = to_pem(ca->certificate);
	if (!ca->pem) {
		session_ca_free(ca);
		return -EIO;
	}
	*ret_ca = ca;
	return 0;
}

static void drop_leaf(struct session_ca *ca, struct leaf *leaf)
{
	HASH_DEL(ca->leaves, leaf);
	X509_free(leaf->certificate);
	free(leaf);
}

void session_ca_free(struct session_ca *ca)
{
	if (!ca)
		return;
	while (ca->leaves)
		drop_leaf(ca, ca->leaves);
	X509_free(ca->certificate);
	EVP_PKEY_free(ca->key);
	EVP_PKEY_free(ca->leaf_key);
	free(ca->pem);
	free(ca);
}

const char *session_ca_certificate(const struct session_ca *ca)
{
	return ca->pem;
}

int session_ca_leaf(struct session_ca *ca, const struct host_name *name, X509 **ret_leaf,
		    EVP_PKEY **ret_key)
{
	struct leaf *leaf;

	HASH_FIND(hh, ca->leaves, name->text, name->length, leaf);
	if (leaf) {
		/* To the end: used last. */
		HASH_DEL(ca->leaves, leaf);
	} else {
		leaf = calloc(1, sizeof(*leaf));
		if (!leaf)
			return -ENOMEM;
		leaf->name = *name;
		leaf->certificate = mint(ca, name);
		if (!leaf->certificate) {
			free(leaf);
			return -EIO;
		}
		if (HASH_COUNT(ca->leaves) >= SESSION_CA_LEAVES_MAX)
			drop_leaf(ca, ca->leaves);
	}
	HASH_ADD_KEYPTR(hh, ca->leaves, leaf->name.text, leaf->name.length, leaf);
	*ret_leaf = leaf->certificate;
	*ret_key = ca->leaf_key;
	return 0;
}
