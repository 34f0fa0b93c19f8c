#include "proxy/secret_search.h"

#include "base/checked.h"
#include "proxy/credential_rules.h"
#include "proxy/form_scanner.h"
#include "proxy/secret_forms.h"
#include "proxy/secret_placeholder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum place_kind {
	PLACE_ELSEWHERE,
	PLACE_FIELD,
	PLACE_QUERY,
};

struct place {
	enum place_kind kind;
	struct http_text name; /* of the field */
	size_t index;	       /* the same */
	const char *words;     /* for the hint */
};

/* ---- one text ------------------------------------------------------------------------------- */

struct text_scan {
	const struct secret_pass *pass;
	const struct place *place;
	const char *source;
	char *copy; /* with replacements; NULL before the first */
	size_t length;
	bool failed; /* no memory */
};

/* A secret access key signs and is never sent. */
static bool is_meant_for(const struct secret *secret, const struct place *place)
{
	if (secret->kind == SECRET_AWS_SECRET_ACCESS_KEY)
		return false;
	if (place->kind == PLACE_FIELD)
		return secret_pass_is_slot(secret, place->name);
	return place->kind == PLACE_QUERY && (secret->flags & SECRET_FLAG_QUERY);
}

static bool is_of_aws(const struct secret *secret)
{
	return secret->kind == SECRET_AWS_ACCESS_KEY_ID || secret->kind == SECRET_AWS_SESSION_TOKEN;
}

static void replace_match(struct text_scan *scan, const struct form_match *match, size_t index)
{
	const struct secret *secret = secret_store_get(scan->pass->store, index);
	size_t start = (size_t)match->start;

	if (!scan->copy) {
		scan->copy = malloc(scan->length);
		if (!scan->copy) {
			scan->failed = true;
			return;
		}
		memcpy(scan->copy, scan->source, scan->length);
	}
	secret_form_replace(match, (const uint8_t *)scan->source + start,
			    (uint8_t *)scan->copy + start, secret->value + secret->kept,
			    secret->length - secret->kept);
	/* Neither of these opens anything without the key that is never sent. */
	if (!is_of_aws(secret))
		scan->pass->verdict->is_injected = true;
}

/* A placeholder that is where it may be. */
static void note_use(const struct secret_pass *pass, const struct place *place, size_t index)
{
	secret_set_add(&pass->verdict->used, index);
	if (!pass->findings)
		return;
	if (place->kind == PLACE_QUERY)
		pass->findings->in_query = true;
	else if (place->kind == PLACE_FIELD)
		pass->findings->in_field[place->index] = true;
}

static void on_match(void *context, const struct form_match *match)
{
	struct text_scan *scan = context;
	const struct secret_pass *pass = scan->pass;
	size_t index = match->tag / SECRET_FORM_COUNT;
	const struct secret *secret = secret_store_get(pass->store, index);
	bool is_plain = match->tag % SECRET_FORM_COUNT == SECRET_FORM_RAW &&
			(match->escapes == 0 || scan->place->kind == PLACE_QUERY);

	if (secret->kind == SECRET_CANARY)
		secret_pass_refuse(pass, SECRET_REFUSAL_CANARY, index, NULL);
	else if (!secret_set_has(&pass->verdict->bound, index))
		secret_pass_refuse(pass, SECRET_REFUSAL_WRONG_HOST, index, NULL);
	else if (!pass->request || !is_plain || !is_meant_for(secret, scan->place))
		secret_pass_refuse(pass, SECRET_REFUSAL_OUTSIDE_SLOT, index, scan->place->words);
	else if (!pass->request->is_verified)
		secret_pass_refuse(pass, SECRET_REFUSAL_NEEDS_TLS, index, NULL);
	else if (pass->is_replacing)
		replace_match(scan, match, index);
	else
		note_use(pass, scan->place, index);
}

/* Judges every placeholder in the text. 1 when some were replaced, in *ret_copy, which has the same
 * length and which the caller wipes and frees; 0; or -ENOMEM. */
static int scan_text(const struct secret_pass *pass, struct http_text text,
		     const struct place *place, char **ret_copy)
{
	struct text_scan scan = {
		.pass = pass, .place = place, .source = text.data, .length = text.length
	};
	const struct byte_automaton *finder = secret_store_placeholder_finder(pass->store);
	struct form_window window = { (const uint8_t *)text.data, text.length, 0 };
	struct form_scanner scanner;

	if (text.length < SECRET_PLACEHOLDER_CHANGES_MIN ||
	    !form_scanner_is_needed(finder, text.data, text.length))
		return 0;
	form_scanner_init(&scanner, finder);
	form_scanner_run(&scanner, &window, true, on_match, &scan);
	if (scan.failed)
		return -ENOMEM;
	if (!scan.copy)
		return 0;
	*ret_copy = scan.copy;
	return 1;
}

static void wipe(char *text, size_t length)
{
	explicit_bzero(text, length);
	free(text);
}

/* Where nothing is replaced: the match function refuses every placeholder there. */
int secret_search_text(const struct secret_pass *pass, struct http_text text, const char *words)
{
	const struct place place = { .kind = PLACE_ELSEWHERE, .words = words };
	char *copy;
	int result = scan_text(pass, text, &place, &copy);

	return MIN_OF(result, 0);
}

/* ---- fields --------------------------------------------------------------------------------- */

static int replace_value(const struct secret_pass *pass, size_t index, char *copy, size_t length)
{
	int error = http_head_replace(pass->head, index, copy, length, true);

	wipe(copy, length);
	return error;
}

/* Credentials of scheme Basic: scanned decoded. The value keeps its length. 1 when it is something
 * else. */
static int check_basic(const struct secret_pass *pass, size_t index, const struct place *place)
{
	struct http_text value = http_head_field(pass->head, index).value;
	char decoded[CREDENTIAL_BASIC_MAX];
	char *copy = NULL;
	char *whole;
	size_t length;
	size_t offset;
	int result;

	if (!credential_basic_decode(value, decoded, &length, &offset))
		return 1;
	result = scan_text(pass, (struct http_text){ decoded, length }, place, &copy);
	if (result <= 0)
		return result;
	whole = malloc(value.length);
	if (!whole) {
		wipe(copy, length);
		return -ENOMEM;
	}
	memcpy(whole, value.data, value.length);
	credential_basic_encode(copy, length, whole + offset);
	wipe(copy, length);
	return replace_value(pass, index, whole, value.length);
}

static int check_field(const struct secret_pass *pass, size_t index)
{
	struct http_field field = http_head_field(pass->head, index);
	const struct place place = { .kind = PLACE_FIELD,
				     .name = field.name,
				     .index = index,
				     .words = "this header is none of its own" };
	char *copy = NULL;
	int result;

	if (credential_is_basic(field.value) && credential_is_header(field.name)) {
		result = check_basic(pass, index, &place);
		if (result <= 0)
			return result;
	}
	result = secret_search_text(pass, field.name, "it is a header's name");
	if (result == 0)
		result = scan_text(pass, field.value, &place, &copy);
	if (result <= 0)
		return result;
	return replace_value(pass, index, copy, field.value.length);
}

static int check_path(const struct secret_pass *pass)
{
	static const struct place place = { .kind = PLACE_QUERY,
					    .words = "it is in the query of the URL" };
	struct http_text whole = http_head_path(pass->head);
	struct http_text path = whole;
	struct http_text query = secret_pass_split_query(&path);
	char *copy = NULL;
	char *target;
	int error = secret_search_text(pass, path, "it is in the path of the URL");
	int result;

	if (error)
		return error;
	result = scan_text(pass, query, &place, &copy);
	if (result <= 0)
		return result;
	target = malloc(whole.length);
	if (target) {
		memcpy(target, whole.data, whole.length - query.length);
		memcpy(target + whole.length - query.length, copy, query.length);
		error = http_head_set_path(pass->head, target, whole.length);
		wipe(target, whole.length);
	} else {
		error = -ENOMEM;
	}
	wipe(copy, query.length);
	return error;
}

int secret_search_head(const struct secret_pass *pass)
{
	int error = check_path(pass);

	if (error == 0)
		error = secret_search_text(pass, http_head_method(pass->head), "it is the method");
	if (error == 0)
		error = secret_search_text(pass, http_head_authority(pass->head), "it is the host");
	for (size_t i = 0; error == 0 && i < http_head_field_count(pass->head); i++)
		error = check_field(pass, i);
	return error;
}

/* The second time. */
int secret_search_replace(const struct secret_pass *pass)
{
	int error = pass->findings->in_query ? check_path(pass) : 0;

	for (size_t i = 0; error == 0 && i < http_head_field_count(pass->head); i++)
		error = pass->findings->in_field[i] ? check_field(pass, i) : 0;
	return error;
}
