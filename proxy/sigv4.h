/*
 * Signatures of AWS Signature Version 4 in the Authorization header: read, verified and made.
 *
 * Source: AWS, "Create a signed AWS API request" (IAM User Guide) and "Authenticating Requests:
 * Using the Authorization Header" (S3 API Reference); checked against AWS's published test suite.
 *
 * Services differ in how the path is written for signing: S3 takes it as it is on the wire, the
 * others escape it once more and most remove dot segments. Nothing in a request says which, so the
 * signature that came with it, made with a key that is known, is tried in each way; the one that
 * fits is used for the new one.
 *
 * Not done, and refused by the caller: signatures in the query (presigned URLs), payloads of which
 * every chunk is signed (STREAMING-AWS4-HMAC-SHA256-PAYLOAD and -TRAILER), and SigV4A (ECDSA).
 */
#ifndef PROXY_SIGV4_H
#define PROXY_SIGV4_H

#include "proxy/http_head.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGV4_SIGNATURE_LENGTH 64u /* characters */
#define SIGV4_PARAMETERS_MAX 256u  /* in the query */

/* An Authorization header's value; texts borrow from it. */
struct sigv4 {
	struct http_text key_id;
	struct http_text scope; /* DATE/REGION/SERVICE/aws4_request */
	struct http_text date;
	struct http_text region;
	struct http_text service;
	struct http_text signed_headers; /* "host;x-amz-date" */
	struct http_text signature;
};

/* How the request is written for signing. */
struct sigv4_form {
	bool escape_again;
	bool remove_dots;
	struct http_text payload; /* the hash in hexadecimal, or a word in its place */
};

/* Whether the value is of this family at all ("AWS4-..."). */
bool sigv4_is(struct http_text value);
/* Returns 0; -ENOTSUP for another algorithm of the family; -EBADMSG. */
int sigv4_parse(struct http_text value, struct sigv4 *ret_signature);

/* The signature of the head's request with that key, in hexadecimal. Returns 0; -EBADMSG when the
 * head lacks what it needs (X-Amz-Date, of the scope's day) or has more than SIGV4_PARAMETERS_MAX
 * parameters; -ENOMEM. */
int sigv4_sign(const struct http_head *head, const struct sigv4 *signature,
	       const struct sigv4_form *form, const char *key, size_t key_length,
	       char ret_hex[static SIGV4_SIGNATURE_LENGTH]);
/* Finds the form in which the signature is that of `key`, with the given payload: 0 with *ret_form,
 * -EKEYREJECTED when there is none; else as above. */
int sigv4_find_form(const struct http_head *head, const struct sigv4 *signature,
		    struct http_text payload, const char *key, size_t key_length,
		    struct sigv4_form *ret_form);

/* SHA-256 of nothing, in hexadecimal. */
extern const char sigv4_empty_payload[];

#endif
