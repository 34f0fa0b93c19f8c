#include "proxy/secret_store.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "proxy/form_scanner.h"
#include "proxy/host_pattern.h"
#include "proxy/secret_forms.h"
#include "proxy/secret_memory.h"
#include "proxy/secret_placeholder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct stored {
	struct secret public;
	struct host_pattern *hosts;
	size_t host_count;
	struct secret_text *slots;
	char *placeholder;
	char *captured; /* in secret_memory; else the value lies in the bundle */
	size_t parent;	/* of a captured one: whose hosts and slots it has */
};

/* Both borrowed from the bundle. */
struct certificate {
	struct secret_text name;
	struct secret_text pem;
};

struct secret_store {
	void *bundle; /* in secret_memory; values and slots borrow from it */
	struct stored *secrets[SECRET_STORE_MAX];
	size_t count;
	struct certificate certificates[SECRET_COUNT_MAX];
	size_t certificate_count;
	struct byte_automaton *placeholders;
	struct byte_automaton *values;
	unsigned probes;
};

static const uint16_t default_ports[] = { 443, 0 };

/* ---- the automata ------------------------------------------------------------------------------
 */

static const char *tail_of(const struct secret *secret, bool of_value)
{
	return (of_value ? secret->value : secret->placeholder) + secret->kept;
}

/* The forms of one tail, written to `bytes` on the way. Returns how many bytes that took. */
static size_t add_forms(const char *tail, size_t length, size_t index, uint8_t *bytes,
			struct byte_pattern *patterns)
{
	size_t used = 0;

	for (int form = 0; form < SECRET_FORM_COUNT; form++) {
		size_t size = secret_form_length((enum secret_form)form, length);

		patterns[form] = (struct byte_pattern){
			.data = bytes + used,
			.length = size,
			.tag = (uint32_t)(index * SECRET_FORM_COUNT + (size_t)form),
		};
		for (size_t i = 0; i < size; i++)
			bytes[used++] =
				secret_form_character((enum secret_form)form, tail, length, i);
	}
	return used;
}

static int build_finder(const struct secret_store *store, bool of_values,
			struct byte_automaton **ret_automaton)
{
	cleanup_free struct byte_pattern *patterns = NULL;
	cleanup_secret void *bytes = NULL;
	size_t count = 0;
	size_t size = 0;
	size_t used = 0;
	int error;

	for (size_t i = 0; i < store->count; i++) {
		for (int form = 0; form < SECRET_FORM_COUNT; form++)
			size += secret_form_length((enum secret_form)form,
						   store->secrets[i]->public.length);
	}
	patterns = calloc(store->count * SECRET_FORM_COUNT + 1, sizeof(*patterns));
	if (!patterns)
		return -ENOMEM;
	error = secret_memory_new(size, &bytes);
	if (error)
		return error;
	for (size_t i = 0; i < store->count; i++) {
		const struct secret *secret = &store->secrets[i]->public;

		if (of_values && !secret->value)
			continue;
		used += add_forms(tail_of(secret, of_values), secret->length - secret->kept, i,
				  (uint8_t *)bytes + used, patterns + count);
		count += SECRET_FORM_COUNT;
	}
	return byte_automaton_new(patterns, count, form_escape_stops, of_values, ret_automaton);
}

static int build_finders(struct secret_store *store)
{
	struct byte_automaton *placeholders;
	struct byte_automaton *values;
	int error = build_finder(store, false, &placeholders);

	if (error)
		return error;
	error = build_finder(store, true, &values);
	if (error) {
		byte_automaton_release(placeholders);
		return error;
	}
	byte_automaton_release(store->placeholders);
	byte_automaton_release(store->values);
	store->placeholders = placeholders;
	store->values = values;
	return 0;
}

/* ---- one secret --------------------------------------------------------------------------------
 */

static void free_stored(struct stored *stored)
{
	if (!stored)
		return;
	free(stored->hosts);
	free(stored->slots);
	free(stored->placeholder);
	secret_memory_free(stored->captured);
	free(stored);
}

static int copy_hosts(const struct secret_entry *entry, struct stored *stored)
{
	stored->hosts = calloc(entry->host_count + 1U, sizeof(*stored->hosts));
	if (!stored->hosts)
		return -ENOMEM;
	for (size_t i = 0; i < entry->host_count; i++) {
		const struct secret_host *host = &entry->hosts[i];
		struct host_pattern *pattern = &stored->hosts[i];

		if (host_pattern_parse(host->pattern.data, host->pattern.length, pattern) < 0)
			return -EBADMSG;
		pattern->port = host->port;
		pattern->ports = host->port == SECRET_PORT_ANY ? HOST_PATTERN_PORTS_ALL
							       : HOST_PATTERN_PORTS_ONE;
	}
	stored->host_count = entry->host_count;
	return 0;
}

static int copy_slots(const struct secret_entry *entry, struct stored *stored)
{
	stored->slots = calloc(entry->slot_count + 1U, sizeof(*stored->slots));
	if (!stored->slots)
		return -ENOMEM;
	memcpy(stored->slots, entry->slots, entry->slot_count * sizeof(*stored->slots));
	stored->public.slots = stored->slots;
	stored->public.slot_count = entry->slot_count;
	return 0;
}

static int draw_placeholder(struct stored *stored, const char *value, size_t prefix_length)
{
	struct secret *secret = &stored->public;

	stored->placeholder = calloc(1, secret->length + 1);
	if (!stored->placeholder)
		return -ENOMEM;
	secret->placeholder = stored->placeholder;
	return secret_placeholder_make(value, secret->length, prefix_length, stored->placeholder,
				       &secret->kept);
}

static int add_entry(struct secret_store *store, const struct secret_entry *entry)
{
	struct stored *stored;
	int error;

	if (entry->kind == SECRET_CLIENT_CERTIFICATE) {
		store->certificates[store->certificate_count++] =
			(struct certificate){ entry->name, entry->value };
		return 0;
	}
	stored = calloc(1, sizeof(*stored));
	if (!stored)
		return -ENOMEM;
	stored->public.kind = entry->kind;
	stored->public.flags = entry->flags;
	stored->public.length = entry->value.length;
	stored->public.value = entry->kind == SECRET_CANARY ? NULL : entry->value.data;
	stored->parent = store->count;
	memcpy(stored->public.name, entry->name.data, entry->name.length);
	error = copy_hosts(entry, stored);
	if (error == 0)
		error = copy_slots(entry, stored);
	if (error == 0)
		error = draw_placeholder(stored, entry->value.data, entry->prefix_length);
	if (error) {
		free_stored(stored);
		return error;
	}
	store->secrets[store->count++] = stored;
	return 0;
}

/* ---- all of them -------------------------------------------------------------------------------
 */

static int explain(int error, const struct secret_entry *entry, char *problem)
{
	int length = entry ? (int)entry->name.length : 0;
	const char *name = entry ? entry->name.data : "";

	if (error == -EINVAL)
		snprintf(problem, SECRET_PROBLEM_MAX,
			 "secret %.*s: the value has too few letters and digits (after its prefix) "
			 "for "
			 "a placeholder that could not occur by chance",
			 length, name);
	else if (error == -EPERM)
		snprintf(problem, SECRET_PROBLEM_MAX,
			 "secrets have to be locked in memory, and this process may not lock "
			 "enough: "
			 "raise the limit (ulimit -l), or pass fewer and shorter secrets");
	else if (error == -EBADMSG)
		snprintf(problem, SECRET_PROBLEM_MAX, "the bundle of secrets is damaged");
	else
		snprintf(problem, SECRET_PROBLEM_MAX, "secrets: %s", strerror(-error));
	return error;
}

/* Takes over `bundle`, which is in secret_memory. */
static int take_bundle(void *bundle, size_t length, struct secret_store **ret_store, char *problem)
{
	struct secret_store *store = calloc(1, sizeof(*store));
	struct secret_bundle_reader reader;
	struct secret_entry entry = { 0 };
	int result = -ENOMEM;

	if (!store) {
		secret_memory_free(bundle);
		return explain(result, NULL, problem);
	}
	store->bundle = bundle;
	result = secret_bundle_open(&reader, bundle, length);
	if (result == 0) {
		while ((result = secret_bundle_next(&reader, &entry)) > 0) {
			result = add_entry(store, &entry);
			if (result < 0)
				break;
		}
	}
	if (result == 0)
		result = build_finders(store);
	if (result < 0) {
		explain(result, result == -EINVAL ? &entry : NULL, problem);
		secret_store_free(store);
		return result;
	}
	*ret_store = store;
	return 0;
}

int secret_store_new(const void *bundle, size_t length, struct secret_store **ret_store,
		     char problem[static SECRET_PROBLEM_MAX])
{
	void *copy;
	int error;

	secret_memory_raise_limit();
	if (length > SECRET_BUNDLE_MAX)
		return explain(-EBADMSG, NULL, problem);
	error = secret_memory_new(length, &copy);
	if (error)
		return explain(error, NULL, problem);
	memcpy(copy, bundle, length);
	return take_bundle(copy, length, ret_store, problem);
}

int secret_store_read(int fd, struct secret_store **ret_store,
		      char problem[static SECRET_PROBLEM_MAX])
{
	struct stat status;
	void *block;
	ssize_t got;
	int error;

	secret_memory_raise_limit();
	if (fstat(fd, &status) < 0)
		return explain(-errno, NULL, problem);
	if (status.st_size > SECRET_BUNDLE_MAX)
		return explain(-EBADMSG, NULL, problem);
	error = secret_memory_new((size_t)status.st_size, &block);
	if (error)
		return explain(error, NULL, problem);
	got = lseek(fd, 0, SEEK_SET) < 0 ? -errno : read_full(fd, block, (size_t)status.st_size);
	if (got != status.st_size) {
		secret_memory_free(block);
		return explain(got < 0 ? (int)got : -EBADMSG, NULL, problem);
	}
	return take_bundle(block, (size_t)status.st_size, ret_store, problem);
}

void secret_store_free(struct secret_store *store)
{
	if (!store)
		return;
	for (size_t i = 0; i < store->count; i++)
		free_stored(store->secrets[i]);
	byte_automaton_release(store->placeholders);
	byte_automaton_release(store->values);
	secret_memory_free(store->bundle);
	free(store);
}

size_t secret_store_count(const struct secret_store *store)
{
	return store->count;
}

const struct secret *secret_store_get(const struct secret_store *store, size_t index)
{
	return &store->secrets[index]->public;
}

struct byte_automaton *secret_store_placeholder_finder(const struct secret_store *store)
{
	return store->placeholders;
}

struct byte_automaton *secret_store_value_finder(const struct secret_store *store)
{
	return store->values;
}

void secret_store_bound(const struct secret_store *store, const struct host_name *host,
			uint16_t port, struct secret_set *ret_bound)
{
	*ret_bound = (struct secret_set){ 0 };
	for (size_t i = 0; i < store->count; i++) {
		const struct stored *stored = store->secrets[store->secrets[i]->parent];

		for (size_t j = 0; j < stored->host_count; j++) {
			if (host_pattern_matches(&stored->hosts[j], host, port, default_ports))
				secret_set_add(ret_bound, i);
		}
	}
}

void secret_store_named(const struct secret_store *store, const struct host_name *host,
			struct secret_set *ret_named)
{
	*ret_named = (struct secret_set){ 0 };
	for (size_t i = 0; i < store->count; i++) {
		const struct stored *stored = store->secrets[store->secrets[i]->parent];

		for (size_t j = 0; j < stored->host_count; j++) {
			if (host_pattern_matches_name(&stored->hosts[j], host))
				secret_set_add(ret_named, i);
		}
	}
}

bool secret_store_certificate(const struct secret_store *store, const char *name,
			      struct secret_text *ret_pem)
{
	for (size_t i = 0; i < store->certificate_count; i++) {
		const struct secret_text *known = &store->certificates[i].name;

		if (known->length == strlen(name) && !memcmp(known->data, name, known->length)) {
			*ret_pem = store->certificates[i].pem;
			return true;
		}
	}
	return false;
}

/* What is before the ending in a name such as STAGING_AWS_ACCESS_KEY_ID. */
static size_t base_length(const struct secret *secret)
{
	const char *ending = secret->kind == SECRET_AWS_ACCESS_KEY_ID ? "AWS_ACCESS_KEY_ID"
								      : "AWS_SECRET_ACCESS_KEY";
	size_t length = strlen(secret->name);
	size_t size = strlen(ending);

	return length >= size && !strcmp(secret->name + length - size, ending) ? length - size : 0;
}

bool secret_store_aws_pair(const struct secret_store *store, size_t key_id, size_t *ret_key)
{
	const struct secret *id = secret_store_get(store, key_id);

	for (size_t i = 0; i < store->count; i++) {
		const struct secret *key = secret_store_get(store, i);

		if (key->kind == SECRET_AWS_SECRET_ACCESS_KEY &&
		    base_length(key) == base_length(id) &&
		    !memcmp(key->name, id->name, base_length(id))) {
			*ret_key = i;
			return true;
		}
	}
	return false;
}

void secret_store_note_probe(struct secret_store *store)
{
	if (store->probes <= SECRET_PROBES_MAX)
		store->probes++;
}

bool secret_store_is_probed(const struct secret_store *store)
{
	return store->probes > SECRET_PROBES_MAX;
}

/* ---- captured ones -----------------------------------------------------------------------------
 */

static bool find_captured(const struct secret_store *store, const char *name, const char *value,
			  size_t length, size_t *ret_index)
{
	for (size_t i = 0; i < store->count; i++) {
		const struct stored *stored = store->secrets[i];

		if (stored->captured && stored->public.length == length &&
		    !strcmp(stored->public.name, name) &&
		    !memcmp(stored->public.value, value, length)) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

int secret_store_capture(struct secret_store *store, size_t parent, const char *label,
			 const char *value, size_t length, size_t *ret_index)
{
	const struct stored *model = store->secrets[store->secrets[parent]->parent];
	struct secret_entry entry = { .kind = SECRET_CANARY, .name = { "X", 1 } };
	char name[SECRET_STORE_NAME_MAX + 1];
	struct stored *stored;
	void *block = NULL;
	int error;

	snprintf(name, sizeof(name), "%.*s/%.*s", SECRET_NAME_MAX, model->public.name, 30, label);
	if (find_captured(store, name, value, length, ret_index))
		return 0;
	entry.value = (struct secret_text){ value, length };
	if (secret_entry_fault(&entry))
		return -EINVAL;
	if (store->count == SECRET_STORE_MAX)
		return -ENOSPC;
	stored = calloc(1, sizeof(*stored));
	if (!stored)
		return -ENOMEM;
	stored->public = model->public;
	memcpy(stored->public.name, name, sizeof(name));
	stored->public.kind = SECRET_PLAIN;
	stored->public.length = length;
	stored->parent = model->parent;
	error = secret_memory_new(length, &block);
	if (error == 0) {
		stored->captured = block;
		stored->public.value = block;
		memcpy(stored->captured, value, length);
		error = draw_placeholder(stored, value, 0);
	}
	if (error) {
		free_stored(stored);
		return error;
	}
	store->secrets[store->count++] = stored;
	error = build_finders(store);
	if (error) {
		store->count--;
		free_stored(stored);
		return error;
	}
	*ret_index = store->count - 1;
	return 0;
}
