#include "cli/nss_database.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "cli/text.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LABEL "matchlock"
#define CERTIFICATE_ID 1
#define TRUST_ID 2
#define MAC_SIZE 32

/* All that NSS knows (sftkdb_known_attributes), since it asks for any by name. */
static const char columns[] =
	"a0, a1, a2, a3, a10, a11, a12, a80, a81, a82, a83, a84, a85, a86, a87, a88, a89, "
	"a8a, a8b, a90, a100, a101, a102, a103, a104, a105, a106, a107, a108, a109, a10a, "
	"a10b, a10c, a110, a111, a120, a121, a122, a123, a124, a125, a126, a127, a128, "
	"a129, a130, a131, a132, a133, a134, a160, a161, a162, a163, a164, a165, a166, "
	"a170, a180, a181, a200, a201, a202, a210, a300, a301, a302, a400, a401, a402, "
	"a403, a404, a405, a406, a480, a481, a482, a500, a501, a502, a503, a40000211, "
	"a40000212, a80000001, ace534351, ace534352, ace534353, ace534354, ace534355, "
	"ace534356, ace534357, ace534358, ace534364, ace534365, ace534366, ace534367, "
	"ace534368, ace534369, ace534373, ace534374, ace536351, ace536352, ace536353, "
	"ace536354, ace536355, ace536356, ace536357, ace536358, ace536359, ace53635a, "
	"ace53635b, ace53635c, ace53635d, ace53635e, ace53635f, ace536360, ace5363b4, "
	"ace5363b5, ad5a0db00";

/* Attributes of PKCS #11 (section 4), */
#define CKA_CLASS 0
#define CKA_TOKEN 1
#define CKA_PRIVATE 2
#define CKA_LABEL 3
#define CKA_VALUE 0x11
#define CKA_CERTIFICATE_TYPE 0x80
#define CKA_ISSUER 0x81
#define CKA_SERIAL_NUMBER 0x82
#define CKA_SUBJECT 0x101
#define CKA_ID 0x102
#define CKA_MODIFIABLE 0x170

/* and NSS's own (pkcs11n.h), which are the signed ones. */
#define CKA_TRUST_SERVER_AUTH 0xce536358U
#define CKA_TRUST_CLIENT_AUTH 0xce536359U
#define CKA_TRUST_CODE_SIGNING 0xce53635aU
#define CKA_TRUST_EMAIL_PROTECTION 0xce53635bU
#define CKA_TRUST_STEP_UP_APPROVED 0xce536360U
#define CKA_CERT_SHA1_HASH 0xce5363b4U

struct attribute {
	uint32_t type;
	const void *data;
	size_t size;
};

/* Numbers are four bytes, big-endian; truth is one. */
static const uint8_t class_certificate[] = { 0, 0, 0, 1 };
static const uint8_t class_trust[] = { 0xce, 0x53, 0x43, 0x53 };
static const uint8_t type_x509[] = { 0, 0, 0, 0 };
static const uint8_t trusted_delegator[] = { 0xce, 0x53, 0x43, 0x52 };
static const uint8_t must_verify[] = { 0xce, 0x53, 0x43, 0x53 };
static const uint8_t yes[] = { 1 };
static const uint8_t no[] = { 0 };

/* ---- the password, which is empty --------------------------------------------------------- */

#define SALT_SIZE 32

static const uint8_t global_salt[SHA_DIGEST_LENGTH];
static const uint8_t salt[SALT_SIZE];

/* DER of what a password is used by (RFC 8018): the scheme, with PBKDF2 of one round and a key of
 * 32 bytes, and a primitive. */
#define PKCS5(number) 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, (number)
#define HMAC_SHA256 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09
#define AES_256_CBC 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a
#define ZEROS_8 0, 0, 0, 0, 0, 0, 0, 0
#define SALT 0x04, SALT_SIZE, ZEROS_8, ZEROS_8, ZEROS_8, ZEROS_8
#define PBKDF2                                                                                     \
	0x30, 0x41, PKCS5(12), 0x30, 0x34, SALT, 0x02, 0x01, 1, 0x02, 0x01, MAC_SIZE, HMAC_SHA256

/* PBMAC1, in front of the MAC. */
static const uint8_t mac_form[] = { 0x30, 0x81, 0x80,	0x30,	     0x5c, PKCS5(14),
				    0x30, 0x4f, PBKDF2, HMAC_SHA256, 0x04, MAC_SIZE };

/* PBES2, in front of the cipher text. NSS has no more than 14 bytes of the initialization vector
 * there, and takes their header for its first two. */
#define IV_SIZE 16
static const uint8_t cipher_form[] = { 0x30, 0x81,	  0x81,	   0x30, 0x6d,	 PKCS5(13),
				       0x30, 0x60,	  PBKDF2,  0x30, 0x1b,	 AES_256_CBC,
				       0x04, IV_SIZE - 2, ZEROS_8, 0,	 0,	 0,
				       0,    0,		  0,	   0x04, IV_SIZE };
static const uint8_t iv[IV_SIZE] = { 0x04, 0x0e };

static bool derive_key(uint8_t key[MAC_SIZE])
{
	uint8_t password[SHA_DIGEST_LENGTH];

	return EVP_Digest(global_salt, sizeof(global_salt), password, NULL, EVP_sha1(), NULL) ==
		       1 &&
	       PKCS5_PBKDF2_HMAC((const char *)password, sizeof(password), salt, sizeof(salt), 1,
				 EVP_sha256(), MAC_SIZE, key) == 1;
}

/* sftkdb_SignAttribute(): over the object's number, the attribute's, and its value. */
static bool sign(const uint8_t key[MAC_SIZE], uint32_t object, const struct attribute *attribute,
		 uint8_t ret_signature[sizeof(mac_form) + MAC_SIZE])
{
	const uint32_t numbers[] = { __builtin_bswap32(object),
				     __builtin_bswap32(attribute->type) };
	uint8_t text[sizeof(numbers) + SHA_DIGEST_LENGTH];

	memcpy(text, numbers, sizeof(numbers));
	memcpy(text + sizeof(numbers), attribute->data, attribute->size);
	memcpy(ret_signature, mac_form, sizeof(mac_form));
	return HMAC(EVP_sha256(), key, MAC_SIZE, text, sizeof(numbers) + attribute->size,
		    ret_signature + sizeof(mac_form), NULL) != NULL;
}

/* What decrypts to "password-check" with the right password. */
static bool encrypt_check(const uint8_t key[MAC_SIZE],
			  uint8_t ret_check[sizeof(cipher_form) + IV_SIZE])
{
	static const char text[] = "password-check";
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t *at = ret_check + sizeof(cipher_form);
	int first = 0;
	int last = 0;
	bool ok;

	memcpy(ret_check, cipher_form, sizeof(cipher_form));
	ok = context && EVP_EncryptInit_ex(context, EVP_aes_256_cbc(), NULL, key, iv) == 1 &&
	     EVP_EncryptUpdate(context, at, &first, (const uint8_t *)text, sizeof(text) - 1) == 1 &&
	     EVP_EncryptFinal_ex(context, at + first, &last) == 1 && first + last == IV_SIZE;
	EVP_CIPHER_CTX_free(context);
	return ok;
}

/* ---- SQLite -------------------------------------------------------------------------------- */

static void close_database(sqlite3 **database)
{
	sqlite3_close(*database);
}

#define cleanup_database __attribute__((cleanup(close_database)))

static bool execute(sqlite3 *database, const char *sql)
{
	return sqlite3_exec(database, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* In memory; NULL when it fails. Small pages, for there is little in them. */
static sqlite3 *open_database(const char *table)
{
	cleanup_database sqlite3 *database = NULL;
	cleanup_free char *sql =
		text_printf("PRAGMA page_size = 1024;"
			    "CREATE TABLE %s (id PRIMARY KEY UNIQUE ON CONFLICT ABORT, %s);"
			    "CREATE INDEX issuer ON %s (a81);"
			    "CREATE INDEX subject ON %s (a101);"
			    "CREATE INDEX label ON %s (a3);"
			    "CREATE INDEX ckaid ON %s (a102);",
			    table, columns, table, table, table, table);
	if (sqlite3_open(":memory:", &database) != SQLITE_OK || !execute(database, sql))
		return NULL;
	return steal_pointer(&database);
}

static bool insert_row(sqlite3 *database, const char *sql, const struct attribute *values,
		       size_t count)
{
	sqlite3_stmt *statement = NULL;
	bool ok = sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK;

	for (size_t i = 0; ok && i < count; i++)
		ok = sqlite3_bind_blob(statement, (int)i + 1, values[i].data, (int)values[i].size,
				       SQLITE_STATIC) == SQLITE_OK;
	ok = ok && sqlite3_step(statement) == SQLITE_DONE;
	sqlite3_finalize(statement);
	return ok;
}

static bool insert_object(sqlite3 *database, uint32_t id, const struct attribute *attributes,
			  size_t count)
{
	cleanup_free char *names = NULL;
	cleanup_free char *sql = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&names, &size);

	for (size_t i = 0; i < count; i++)
		fprintf(out, ", a%x", attributes[i].type);
	fputs(") VALUES (", out);
	fprintf(out, "%u", id);
	for (size_t i = 0; i < count; i++)
		fputs(", ?", out);
	fclose(out);
	sql = text_printf("INSERT INTO nssPublic (id%s)", names);
	return insert_row(database, sql, attributes, count);
}

/* As a file would have it, a fresh block; NULL when it fails. */
static uint8_t *serialize(sqlite3 *database, size_t *ret_size)
{
	sqlite3_int64 size = 0;
	uint8_t *image = sqlite3_serialize(database, "main", &size, 0);
	uint8_t *copy = NULL;

	if (image) {
		copy = allocate(1, (size_t)size);
		memcpy(copy, image, (size_t)size);
		*ret_size = (size_t)size;
	}
	sqlite3_free(image);
	return copy;
}

/* ---- the two databases --------------------------------------------------------------------- */

struct encoded_certificate {
	uint8_t *der;
	uint8_t *name;
	uint8_t *serial;
	int der_size;
	int name_size;
	int serial_size;
	uint8_t hash[SHA_DIGEST_LENGTH];
	uint8_t key_hash[SHA_DIGEST_LENGTH];
};

static void free_encoded(struct encoded_certificate *encoded)
{
	OPENSSL_free(encoded->der);
	OPENSSL_free(encoded->name);
	OPENSSL_free(encoded->serial);
}

#define cleanup_encoded __attribute__((cleanup(free_encoded)))

static int encode(const char *pem, struct encoded_certificate *encoded)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	int error = certificate ? 0 : -EBADMSG;

	if (certificate) {
		encoded->der_size = i2d_X509(certificate, &encoded->der);
		encoded->name_size =
			i2d_X509_NAME(X509_get_subject_name(certificate), &encoded->name);
		encoded->serial_size =
			i2d_ASN1_INTEGER(X509_get0_serialNumber(certificate), &encoded->serial);
		if (encoded->der_size <= 0 || encoded->name_size <= 0 ||
		    encoded->serial_size <= 0 ||
		    X509_digest(certificate, EVP_sha1(), encoded->hash, NULL) != 1 ||
		    X509_pubkey_digest(certificate, EVP_sha1(), encoded->key_hash, NULL) != 1)
			error = -EIO;
	}
	X509_free(certificate);
	BIO_free(bio);
	return error;
}

#define SIGNED_COUNT 6

static void list_signed(const struct encoded_certificate *encoded,
			struct attribute attributes[SIGNED_COUNT])
{
	const struct attribute list[SIGNED_COUNT] = {
		{ CKA_TRUST_SERVER_AUTH, trusted_delegator, sizeof(trusted_delegator) },
		{ CKA_TRUST_CLIENT_AUTH, must_verify, sizeof(must_verify) },
		{ CKA_TRUST_CODE_SIGNING, must_verify, sizeof(must_verify) },
		{ CKA_TRUST_EMAIL_PROTECTION, must_verify, sizeof(must_verify) },
		{ CKA_TRUST_STEP_UP_APPROVED, no, sizeof(no) },
		{ CKA_CERT_SHA1_HASH, encoded->hash, sizeof(encoded->hash) },
	};

	memcpy(attributes, list, sizeof(list));
}

static uint8_t *make_certificates(const struct encoded_certificate *encoded,
				  const struct attribute trust[SIGNED_COUNT], size_t *ret_size)
{
	const struct attribute certificate_row[] = {
		{ CKA_CLASS, class_certificate, sizeof(class_certificate) },
		{ CKA_TOKEN, yes, sizeof(yes) },
		{ CKA_PRIVATE, no, sizeof(no) },
		{ CKA_LABEL, LABEL, sizeof(LABEL) - 1 },
		{ CKA_VALUE, encoded->der, (size_t)encoded->der_size },
		{ CKA_CERTIFICATE_TYPE, type_x509, sizeof(type_x509) },
		{ CKA_ISSUER, encoded->name, (size_t)encoded->name_size },
		{ CKA_SERIAL_NUMBER, encoded->serial, (size_t)encoded->serial_size },
		{ CKA_SUBJECT, encoded->name, (size_t)encoded->name_size },
		{ CKA_ID, encoded->key_hash, sizeof(encoded->key_hash) },
		{ CKA_MODIFIABLE, yes, sizeof(yes) },
	};
	struct attribute trust_row[6 + SIGNED_COUNT] = {
		{ CKA_CLASS, class_trust, sizeof(class_trust) },
		{ CKA_TOKEN, yes, sizeof(yes) },
		{ CKA_PRIVATE, no, sizeof(no) },
		{ CKA_ISSUER, encoded->name, (size_t)encoded->name_size },
		{ CKA_SERIAL_NUMBER, encoded->serial, (size_t)encoded->serial_size },
		{ CKA_MODIFIABLE, yes, sizeof(yes) },
	};
	cleanup_database sqlite3 *database = open_database("nssPublic");

	memcpy(trust_row + 6, trust, SIGNED_COUNT * sizeof(*trust));
	if (!database ||
	    !insert_object(database, CERTIFICATE_ID, certificate_row,
			   ARRAY_LENGTH(certificate_row)) ||
	    !insert_object(database, TRUST_ID, trust_row, ARRAY_LENGTH(trust_row)))
		return NULL;
	return serialize(database, ret_size);
}

static uint8_t *make_keys(const struct attribute trust[SIGNED_COUNT], size_t *ret_size)
{
	cleanup_database sqlite3 *database = open_database("nssPrivate");
	uint8_t key[MAC_SIZE];
	uint8_t check[sizeof(cipher_form) + IV_SIZE];
	const struct attribute password[] = {
		{ 0, global_salt, sizeof(global_salt) },
		{ 0, check, sizeof(check) },
	};

	if (!database || !derive_key(key) || !encrypt_check(key, check) ||
	    !execute(database, "CREATE TABLE metaData (id PRIMARY KEY UNIQUE ON CONFLICT REPLACE, "
			       "item1, item2)") ||
	    !insert_row(database, "INSERT INTO metaData VALUES ('password', ?, ?)", password,
			ARRAY_LENGTH(password)))
		return NULL;
	for (size_t i = 0; i < SIGNED_COUNT; i++) {
		uint8_t signature[sizeof(mac_form) + MAC_SIZE];
		const struct attribute value = { 0, signature, sizeof(signature) };
		cleanup_free char *sql = text_printf(
			"INSERT INTO metaData (id, item1) VALUES ('sig_cert_%08x_%08x', ?)",
			TRUST_ID, trust[i].type);

		if (!sign(key, TRUST_ID, &trust[i], signature) ||
		    !insert_row(database, sql, &value, 1))
			return NULL;
	}
	return serialize(database, ret_size);
}

int nss_database_make(const char *certificate, struct nss_database *ret_database)
{
	cleanup_encoded struct encoded_certificate encoded = { 0 };
	struct nss_database database = { 0 };
	struct attribute trust[SIGNED_COUNT];
	int error = encode(certificate, &encoded);

	if (error < 0)
		return error;
	list_signed(&encoded, trust);
	database.certificates = make_certificates(&encoded, trust, &database.certificates_size);
	database.keys = make_keys(trust, &database.keys_size);
	if (!database.certificates || !database.keys) {
		nss_database_free(&database);
		return -EIO;
	}
	*ret_database = database;
	return 0;
}

void nss_database_free(struct nss_database *database)
{
	free(database->certificates);
	free(database->keys);
	*database = (struct nss_database){ 0 };
}
