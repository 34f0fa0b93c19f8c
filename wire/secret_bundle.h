/*
 * The secret bundle: what the command line hands to the broker in a sealed memfd, and the only
 * form in which secret values leave the process that read them.
 *
 *     u32 magic (SECRET_BUNDLE_MAGIC)   u16 version (SECRET_BUNDLE_VERSION)   u16 count
 *     then each secret:
 *         u8 kind (enum secret_kind)   u8 flags (SECRET_FLAG_*)   u8 prefix length   u8 zero
 *         u8 name length   u8 host count   u8 slot count   u8 zero   u16 value length   u16 zero
 *         the name, the value
 *         each host:  u16 port   u8 length   the pattern
 *         each slot:  u8 length   the header's name
 *
 * All integers are little-endian. Nothing allocates; decoded texts borrow from the bundle and are
 * not NUL-terminated. The decoder takes nothing but what the encoder writes, so that both agree on
 * what a value may be: printable ASCII, because it has to fit a header field; of a client
 * certificate PEM, with its lines.
 */
#ifndef WIRE_SECRET_BUNDLE_H
#define WIRE_SECRET_BUNDLE_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECRET_BUNDLE_MAGIC 0x3173634dU /* "Mcs1" */
#define SECRET_BUNDLE_VERSION 1
#define SECRET_BUNDLE_MAX 262144 /* bytes */

#define SECRET_COUNT_MAX 64
#define SECRET_NAME_MAX 128
/* A shorter value would be found by chance in what it does not occur in. */
#define SECRET_VALUE_MIN 8
#define SECRET_VALUE_MAX 4096
/* A certificate with those up to its root, and its key. */
#define SECRET_PEM_MAX 49152
#define SECRET_HOSTS_MAX 16
#define SECRET_HOST_MAX 253
#define SECRET_SLOTS_MAX 16
#define SECRET_SLOT_MAX 64

#define SECRET_PORT_ANY 0

enum secret_kind {
	SECRET_PLAIN = 1,
	/* Three that belong together when their names differ only in this ending. */
	SECRET_AWS_ACCESS_KEY_ID = 2,	  /* ...AWS_ACCESS_KEY_ID */
	SECRET_AWS_SECRET_ACCESS_KEY = 3, /* ...AWS_SECRET_ACCESS_KEY */
	SECRET_AWS_SESSION_TOKEN = 4,	  /* ...AWS_SESSION_TOKEN */
	/* A decoy: the value is only the model of its placeholder; it has no hosts. */
	SECRET_CANARY = 5,
	/* Shown to servers, and never put into a request: the value is PEM, of a certificate and
	 * its key; it has no hosts, because rules name it. */
	SECRET_CLIENT_CERTIFICATE = 6,
};

#define SECRET_FLAG_QUERY 0x01U /* also replaced in the query of a URL */
#define SECRET_FLAG_BODY 0x02U	/* also replaced in a request's body */
/* Tokens in JSON answers to requests that carried it become secrets for the same hosts. */
#define SECRET_FLAG_CAPTURE 0x04U
/* Requests to its hosts may carry other credentials as well. */
#define SECRET_FLAG_UNPINNED 0x08U
#define SECRET_FLAGS 0x0fU

struct secret_text {
	const char *data;
	size_t length;
};

struct secret_host {
	struct secret_text pattern; /* "api.example.com" or "*.example.com", in lower case */
	uint16_t port;		    /* or SECRET_PORT_ANY */
};

struct secret_entry {
	enum secret_kind kind;
	uint8_t flags;
	/* How many characters at the value's beginning the placeholder shares with it; 0: those of
	 * the vendor's prefix, if it has a known one. */
	uint8_t prefix_length;
	uint8_t host_count;
	uint8_t slot_count; /* 0: the usual headers */
	struct secret_text name;
	struct secret_text value;
	struct secret_host hosts[SECRET_HOSTS_MAX];
	struct secret_text slots[SECRET_SLOTS_MAX];
};

/* What is wrong with an entry, in words for a person that do not quote the value; NULL when
 * nothing is. */
const char *secret_entry_fault(const struct secret_entry *entry);

void secret_bundle_begin(struct byte_writer *writer);
/* An entry with a fault, or one too many, fails the writer. What the writer holds is a whole bundle
 * after each call. */
void secret_bundle_add(struct byte_writer *writer, const struct secret_entry *entry);

struct secret_bundle_reader {
	struct byte_reader bytes;
	uint16_t left;
};

/* Returns 0, or -EBADMSG for what does not begin like a bundle. */
int secret_bundle_open(struct secret_bundle_reader *reader, const void *data, size_t length);
/* Returns 1 with the next entry; 0 at the end, which is exactly the end of the bundle; -EBADMSG,
 * *ret_entry then being undefined. */
int secret_bundle_next(struct secret_bundle_reader *reader, struct secret_entry *ret_entry);

#endif
