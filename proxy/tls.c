#include "proxy/tls.h"

#include "base/bytes.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "proxy/client_hello.h"
#include "proxy/stream_bio.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* The default one falls through its cases, which clang takes for a mistake. */
#define HASH_FUNCTION HASH_FNV
#include <uthash.h>

/* Sessions that are kept, one a server. */
#define SESSIONS_MAX 256u

struct session {
	struct host_name name;
	SSL_SESSION *session;
	UT_hash_handle hh;
};

struct tls {
	struct session_ca *ca; /* borrowed */
	BIO_METHOD *transport;
	SSL_CTX *guest;
	SSL_CTX *upstream;
	struct session *sessions;
};

static const unsigned char http1[] = { 8, 'h', 't', 't', 'p', '/', '1', '.', '1' };
static const unsigned char http2[] = { 2, 'h', '2' };

/* ---- the guest's side ----------------------------------------------------------------------- */

static void read_hello(SSL *ssl, struct tls_hello *hello)
{
	const unsigned char *data;
	size_t length;

	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &length) == 1) {
		hello->has_name = client_hello_server_name(data, length, &hello->name) == 0;
		hello->has_bad_name = !hello->has_name;
	}
	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation,
				      &data, &length) == 1) {
		hello->has_protocols = true;
		hello->protocols = client_hello_protocols(data, length);
	}
}

static int on_client_hello(SSL *ssl, int *alert, void *context)
{
	struct tls_hello *hello = SSL_get_app_data(ssl);

	(void)context;
	if (hello->alert) {
		*alert = hello->alert;
		return SSL_CLIENT_HELLO_ERROR;
	}
	if (hello->is_answered)
		return SSL_CLIENT_HELLO_SUCCESS;
	read_hello(ssl, hello);
	return SSL_CLIENT_HELLO_RETRY;
}

static int on_select_protocol(SSL *ssl, const unsigned char **ret_protocol,
			      unsigned char *ret_length, const unsigned char *offered,
			      unsigned int offered_length, void *context)
{
	const struct tls_hello *hello = SSL_get_app_data(ssl);

	(void)offered;
	(void)offered_length;
	(void)context;
	if (hello->answer == 0)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*ret_protocol = hello->answer == TLS_PROTOCOL_HTTP2 ? http2 + 1 : http1 + 1;
	*ret_length = hello->answer == TLS_PROTOCOL_HTTP2 ? sizeof(http2) - 1 : sizeof(http1) - 1;
	return SSL_TLSEXT_ERR_OK;
}

static void set_common(SSL_CTX *context)
{
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	/* An idle connection holds no record buffers; a record is read in one call. */
	SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(context, 1);
}

static int make_guest_context(struct tls *tls)
{
	static const unsigned char session_context[] = "guest";

	tls->guest = SSL_CTX_new(TLS_server_method());
	if (!tls->guest)
		return -ENOMEM;
	set_common(tls->guest);
	SSL_CTX_set_client_hello_cb(tls->guest, on_client_hello, NULL);
	SSL_CTX_set_alpn_select_cb(tls->guest, on_select_protocol, NULL);
	SSL_CTX_set_session_id_context(tls->guest, session_context, sizeof(session_context) - 1);
	SSL_CTX_set_session_cache_mode(tls->guest, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(tls->guest, 1);
	SSL_CTX_set_max_early_data(tls->guest, 0);
	return 0;
}

static bool set_transport(const struct tls *tls, SSL *ssl, struct stream *stream)
{
	BIO *transport = stream_bio_new(tls->transport, stream);

	if (transport)
		SSL_set_bio(ssl, transport, transport);
	return transport != NULL;
}

SSL *tls_guest_new(struct tls *tls, struct stream *stream, struct tls_hello *hello)
{
	SSL *ssl = SSL_new(tls->guest);

	if (!ssl)
		return NULL;
	SSL_set_app_data(ssl, hello);
	if (!set_transport(tls, ssl, stream)) {
		SSL_free(ssl);
		return NULL;
	}
	SSL_set_accept_state(ssl);
	return ssl;
}

int tls_guest_answer(struct tls *tls, SSL *ssl, struct tls_hello *hello,
		     const struct host_name *name, unsigned protocol)
{
	X509 *leaf;
	EVP_PKEY *key;
	int error = session_ca_leaf(tls->ca, name, &leaf, &key);

	if (error)
		return error;
	if (SSL_use_certificate(ssl, leaf) != 1 || SSL_use_PrivateKey(ssl, key) != 1)
		return -ENOMEM;
	hello->answer = protocol;
	hello->is_answered = true;
	return 0;
}

void tls_guest_refuse(struct tls_hello *hello, int alert)
{
	hello->alert = alert;
}

/* ---- trusted certificates ------------------------------------------------------------------- */

/* Where distributions keep the bundle: Debian, Fedora, SUSE, BSD and Alpine. */
static const char *const bundles[] = {
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
};

static bool load_system_store(SSL_CTX *context)
{
	const char *named = getenv("SSL_CERT_FILE");

	if (named && *named)
		return SSL_CTX_load_verify_file(context, named) == 1;
	for (size_t i = 0; i < ARRAY_LENGTH(bundles); i++) {
		if (SSL_CTX_load_verify_file(context, bundles[i]) == 1)
			return true;
	}
	return false;
}

/* Returns how many, or -EBADMSG. */
static int load_extra(SSL_CTX *context, int fd)
{
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	BIO *file = BIO_new_fd(fd, BIO_NOCLOSE);
	X509 *certificate;
	int count = 0;

	while (file && (certificate = PEM_read_bio_X509(file, NULL, NULL, NULL)) != NULL) {
		if (X509_STORE_add_cert(store, certificate) == 1)
			count++;
		X509_free(certificate);
	}
	BIO_free(file);
	return count > 0 ? count : -EBADMSG;
}

/* ---- upstream ------------------------------------------------------------------------------- */

static void forget_session(struct tls *tls, struct session *session)
{
	HASH_DEL(tls->sessions, session);
	SSL_SESSION_free(session->session);
	free(session);
}

/* Called by OpenSSL for each ticket; returning 1 keeps the reference. */
static int on_new_session(SSL *ssl, SSL_SESSION *fresh)
{
	struct tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	struct session *session;
	size_t length = name ? strlen(name) : 0;

	/* tls_upstream_new() marked the connection as one with a certificate. */
	if (length == 0 || length > HOST_NAME_MAX_LENGTH || SSL_get_app_data(ssl))
		return 0;
	HASH_FIND(hh, tls->sessions, name, length, session);
	if (session) {
		SSL_SESSION_free(session->session);
		session->session = fresh;
		return 1;
	}
	session = calloc(1, sizeof(*session));
	if (!session)
		return 0;
	memcpy(session->name.text, name, length);
	session->name.length = (uint8_t)length;
	session->session = fresh;
	if (HASH_COUNT(tls->sessions) >= SESSIONS_MAX)
		forget_session(tls, tls->sessions);
	HASH_ADD_KEYPTR(hh, tls->sessions, session->name.text, length, session);
	return 1;
}

static int make_upstream_context(struct tls *tls, int extra_ca_fd)
{
	/* As browsers have it; the larger key takes a tenth more of both ends. */
	static const char suites[] =
		"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
	bool has_system;

	tls->upstream = SSL_CTX_new(TLS_client_method());
	if (!tls->upstream)
		return -ENOMEM;
	set_common(tls->upstream);
	if (SSL_CTX_set_ciphersuites(tls->upstream, suites) != 1)
		return -ENOMEM;
	SSL_CTX_set_app_data(tls->upstream, tls);
	SSL_CTX_set_verify(tls->upstream, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(tls->upstream,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(tls->upstream, on_new_session);
	has_system = load_system_store(tls->upstream);
	if (extra_ca_fd >= 0 && load_extra(tls->upstream, extra_ca_fd) < 0)
		return -EBADMSG;
	ERR_clear_error();
	return has_system || extra_ca_fd >= 0 ? 0 : -ENOENT;
}

int tls_new(struct session_ca *ca, int extra_ca_fd, struct tls **ret_tls)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	int error;

	if (!tls)
		return -ENOMEM;
	tls->ca = ca;
	tls->transport = stream_bio_method_new();
	error = tls->transport ? make_guest_context(tls) : -ENOMEM;
	if (!error)
		error = make_upstream_context(tls, extra_ca_fd);
	if (error) {
		tls_free(tls);
		return error;
	}
	*ret_tls = tls;
	return 0;
}

void tls_free(struct tls *tls)
{
	if (!tls)
		return;
	while (tls->sessions)
		forget_session(tls, tls->sessions);
	SSL_CTX_free(tls->guest);
	SSL_CTX_free(tls->upstream);
	BIO_meth_free(tls->transport);
	free(tls);
}

static bool offer(SSL *ssl, unsigned protocols)
{
	unsigned char list[sizeof(http1) + sizeof(http2)];
	unsigned int length = 0;

	if (protocols & TLS_PROTOCOL_HTTP2) {
		memcpy(list, http2, sizeof(http2));
		length += sizeof(http2);
	}
	if (protocols & TLS_PROTOCOL_HTTP1) {
		memcpy(list + length, http1, sizeof(http1));
		length += sizeof(http1);
	}
	/* Here 0 is success. */
	return length == 0 || SSL_set_alpn_protos(ssl, list, length) == 0;
}

/* What SSL_set_tlsext_host_name() does, whose cast drops the const. */
static bool name_server(SSL *ssl, const struct host_name *name)
{
	return SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
			(void *)(uintptr_t)name->text) == 1;
}

SSL *tls_upstream_new(struct tls *tls, struct stream *stream, const struct host_name *name,
		      unsigned protocols, bool is_identified)
{
	SSL *ssl = SSL_new(tls->upstream);
	struct session *session;

	if (!ssl)
		return NULL;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (!set_transport(tls, ssl, stream) || SSL_set1_host(ssl, name->text) != 1 ||
	    !name_server(ssl, name) || !offer(ssl, protocols)) {
		SSL_free(ssl);
		return NULL;
	}
	if (is_identified)
		SSL_set_app_data(ssl, tls);
	HASH_FIND(hh, tls->sessions, name->text, name->length, session);
	if (session && !is_identified)
		SSL_set_session(ssl, session->session);
	SSL_set_connect_state(ssl);
	return ssl;
}

unsigned tls_upstream_protocol(SSL *ssl)
{
	const unsigned char *protocol;
	unsigned int length;

	SSL_get0_alpn_selected(ssl, &protocol, &length);
	if (length == 2 && memcmp(protocol, "h2", 2) == 0)
		return TLS_PROTOCOL_HTTP2;
	return TLS_PROTOCOL_HTTP1;
}

const char *tls_upstream_failure(SSL *ssl, bool *ret_is_certificate)
{
	long verified = SSL_get_verify_result(ssl);
	unsigned long error = ERR_peek_last_error();
	const char *reason = error ? ERR_reason_error_string(error) : NULL;

	*ret_is_certificate = verified != X509_V_OK;
	if (verified != X509_V_OK)
		return X509_verify_cert_error_string(verified);
	return reason ? reason : "the connection was closed";
}

void tls_end(SSL *ssl)
{
	if (!ssl)
		return;
	/* Otherwise the library takes the session for broken off. */
	SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(ssl);
}
