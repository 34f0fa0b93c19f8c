#include "proxy/client_identity.h"

#include "proxy/secret_heap.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct client_identity {
	char *name;
	X509 *certificate;
	STACK_OF(X509) * chain;
	EVP_PKEY *key;
	struct client_identity *prev;
	struct client_identity *next;
};

static void free_identity(struct client_identity *identity)
{
	free(identity->name);
	X509_free(identity->certificate);
	sk_X509_pop_free(identity->chain, X509_free);
	EVP_PKEY_free(identity->key);
	free(identity);
}

static struct client_identity *find(const struct client_identities *identities, const char *name)
{
	struct client_identity *identity = identities->all;

	while (identity && strcmp(identity->name, name) != 0)
		identity = identity->next;
	return identity;
}

/* The library would ask on the terminal. */
static int no_password(char *buffer, int size, int is_writing, void *context)
{
	(void)buffer;
	(void)size;
	(void)is_writing;
	*(bool *)context = true;
	return -1;
}

/* A copy of a certificate that was read in the heap of keys, outside of it. */
static int move_out(X509 **certificate)
{
	X509 *copy = X509_dup(*certificate);

	if (!copy)
		return -ENOMEM;
	X509_free(*certificate);
	*certificate = copy;
	return 0;
}

static int move_certificates_out(struct client_identity *identity)
{
	int error = move_out(&identity->certificate);
	STACK_OF(X509) *chain = identity->chain;

	identity->chain = sk_X509_deep_copy(chain, X509_dup, X509_free);
	sk_X509_pop_free(chain, X509_free);
	return error || !identity->chain ? -ENOMEM : 0;
}

static int read_certificates(BIO *text, struct client_identity *identity)
{
	X509 *certificate;

	identity->chain = sk_X509_new_null();
	if (!identity->chain)
		return -ENOMEM;
	identity->certificate = PEM_read_bio_X509(text, NULL, NULL, NULL);
	while (identity->certificate &&
	       (certificate = PEM_read_bio_X509(text, NULL, NULL, NULL)) != NULL) {
		/* One file that holds both may have been given for each. */
		if (X509_cmp(certificate, identity->certificate) == 0) {
			X509_free(certificate);
		} else if (sk_X509_push(identity->chain, certificate) <= 0) {
			X509_free(certificate);
			return -ENOMEM;
		}
	}
	ERR_clear_error();
	return identity->certificate ? 0 : -EINVAL;
}

/* What read_certificates() left is read again from its beginning. */
static int read_key(const char *pem, size_t length, struct client_identity *identity,
		    const char **ret_problem)
{
	BIO *text = BIO_new_mem_buf(pem, (int)length);
	bool is_encrypted = false;

	if (!text)
		return -ENOMEM;
	identity->key = PEM_read_bio_PrivateKey(text, NULL, no_password, &is_encrypted);
	BIO_free(text);
	ERR_clear_error();
	if (is_encrypted)
		*ret_problem = "the key is encrypted, and nobody is asked for its password; write "
			       "a decrypted copy with: openssl pkey -in KEY -out FILE";
	else if (!identity->key)
		*ret_problem = "no private key in PEM (-----BEGIN PRIVATE KEY-----)";
	else if (X509_check_private_key(identity->certificate, identity->key) != 1)
		*ret_problem = "the key does not belong to the first certificate of the file";
	else
		return 0;
	ERR_clear_error();
	return -EINVAL;
}

static int read_pem(const char *pem, size_t length, struct client_identity *identity,
		    const char **ret_problem)
{
	BIO *text = BIO_new_mem_buf(pem, (int)length);
	int error = text ? read_certificates(text, identity) : -ENOMEM;

	BIO_free(text);
	if (error == -EINVAL)
		*ret_problem = "no certificate in PEM (-----BEGIN CERTIFICATE-----)";
	return error ? error : read_key(pem, length, identity, ret_problem);
}

/* The certificates are read in the heap of keys, because the key's text passes by as well. */
static int read_identity(const char *pem, size_t length, struct client_identity *identity,
			 const char **ret_problem)
{
	int error;

	secret_heap_enter();
	error = read_pem(pem, length, identity, ret_problem);
	if (!error)
		secret_heap_use_key(identity->key);
	if (!secret_heap_leave()) {
		*ret_problem = "no room is left for its key in locked memory";
		error = -ENOMEM;
	}
	return error ? error : move_certificates_out(identity);
}

static int use(const struct client_identity *identity, SSL *ssl)
{
	bool is_taken = SSL_use_certificate(ssl, identity->certificate) == 1 &&
			SSL_use_PrivateKey(ssl, identity->key) == 1 &&
			SSL_set1_chain(ssl, identity->chain) == 1;

	ERR_clear_error();
	return is_taken ? 0 : -EINVAL;
}

/* Whether the library would take it, as a key that is too short is not. */
static int try(const struct client_identity *identity, const char **ret_problem)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	SSL *ssl = context ? SSL_new(context) : NULL;
	int error = ssl ? use(identity, ssl) : -ENOMEM;

	if (error == -EINVAL)
		*ret_problem = "the certificate or its key is too weak for TLS";
	SSL_free(ssl);
	SSL_CTX_free(context);
	return error;
}

int client_identities_add(struct client_identities *identities, const char *name, const char *pem,
			  size_t length, const char **ret_problem)
{
	struct client_identity *identity;
	int error;

	if (find(identities, name))
		return 0;
	identity = calloc(1, sizeof(*identity));
	if (!identity)
		return -ENOMEM;
	identity->name = strdup(name);
	error = identity->name ? read_identity(pem, length, identity, ret_problem) : -ENOMEM;
	if (!error)
		error = try(identity, ret_problem);
	if (error) {
		free_identity(identity);
		return error;
	}
	DL_APPEND(identities->all, identity);
	return 0;
}

void client_identities_release(struct client_identities *identities)
{
	struct client_identity *identity = identities->all;

	while (identity) {
		struct client_identity *next = identity->next;

		free_identity(identity);
		identity = next;
	}
	identities->all = NULL;
}

int client_identities_use(const struct client_identities *identities, const char *name, SSL *ssl)
{
	const struct client_identity *identity = find(identities, name);

	return identity ? use(identity, ssl) : -ENOENT;
}
