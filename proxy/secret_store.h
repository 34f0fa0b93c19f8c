/*
 * The session's secrets: their values, their placeholders, where each may go, and the two automata
 * that find them.
 *
 * Values, and the automaton that finds them, lie in secret_memory and nowhere else. Placeholders
 * are the guest's to know. A canary has no value: its placeholder is the decoy. Secrets are only
 * ever added (tokens that a server handed out, secret_capture.h), so an index stays what it was.
 *
 * A match of either automaton has the tag index * SECRET_FORM_COUNT + form, and is of the secret's
 * tail: what follows the part that the placeholder shares with the value.
 */
#ifndef PROXY_SECRET_STORE_H
#define PROXY_SECRET_STORE_H

#include "proxy/byte_automaton.h"
#include "proxy/host_name.h"
#include "proxy/secret_set.h"
#include "wire/secret_bundle.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Secrets of the bundle and captured ones. */
#define SECRET_STORE_MAX SECRET_SET_MAX
#define SECRET_STORE_NAME_MAX (SECRET_NAME_MAX + 32u)
#define SECRET_PROBLEM_MAX 320u

struct secret {
	enum secret_kind kind;
	uint8_t flags; /* SECRET_FLAG_* */
	char name[SECRET_STORE_NAME_MAX + 1];
	size_t length;
	size_t kept;	   /* characters that value and placeholder share at the beginning */
	const char *value; /* NULL for a canary */
	const char *placeholder;
	const struct secret_text *slots; /* none: the usual headers */
	size_t slot_count;
};

struct secret_store;

/* Takes the bundle's secrets; the caller still wipes its own copy. On failure a sentence for a
 * person, which quotes no value, is in `problem`: -EBADMSG for what is no bundle, -EINVAL for a
 * value of which no safe placeholder can be made, -EPERM when memory cannot be locked, -ENOMEM. */
int secret_store_new(const void *bundle, size_t length, struct secret_store **ret_store,
		     char problem[static SECRET_PROBLEM_MAX]);
/* The same for a bundle that is the whole of a file, such as a sealed memfd; the bytes are read
 * into locked memory. */
int secret_store_read(int fd, struct secret_store **ret_store,
		      char problem[static SECRET_PROBLEM_MAX]);
void secret_store_free(struct secret_store *store);

size_t secret_store_count(const struct secret_store *store);
const struct secret *secret_store_get(const struct secret_store *store, size_t index);
/* The secrets that may go to that host and port. */
void secret_store_bound(const struct secret_store *store, const struct host_name *host,
			uint16_t port, struct secret_set *ret_bound);
/* Those of that name, whatever the port. */
void secret_store_named(const struct secret_store *store, const struct host_name *host,
			struct secret_set *ret_named);
/* The PEM text of a client certificate, which is no secret in the sense of what is here: it has no
 * index and no placeholder. Borrowed. */
bool secret_store_certificate(const struct secret_store *store, const char *name,
			      struct secret_text *ret_pem);
/* The secret access key that belongs to an access key id, by its name. */
bool secret_store_aws_pair(const struct secret_store *store, size_t key_id, size_t *ret_key);

/* Borrowed; a stream that outlives the call takes hold of it. */
struct byte_automaton *secret_store_placeholder_finder(const struct secret_store *store);
struct byte_automaton *secret_store_value_finder(const struct secret_store *store);

/* Counts one beginning of a value that a server sent last before a pause and that then was none
 * (secret_filter.h). After SECRET_PROBES_MAX the store counts as probed for the rest of the
 * session. */
#define SECRET_PROBES_MAX 8u
void secret_store_note_probe(struct secret_store *store);
bool secret_store_is_probed(const struct secret_store *store);

/* A new secret with the hosts, slots and flags of `parent`, named "<parent>/<label>". The same
 * value under the same name is the secret that there is. -ENOSPC when the store is full; -EINVAL
 * for a value that no entry of a bundle could have; else as above. */
int secret_store_capture(struct secret_store *store, size_t parent, const char *label,
			 const char *value, size_t length, size_t *ret_index);

#endif
