#include "proxy/secret_request.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "proxy/credential_rules.h"
#include "proxy/form_scanner.h"
#include "proxy/secret_forms.h"
#include "proxy/secret_placeholder.h"
#include "proxy/sigv4.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/*
 * Theory of operation
 *
 * The texts of the head are searched twice: first every placeholder is judged by the place it is
 * in, and only when all is well, each is replaced; so a head that is refused never holds a value. A
 * text in which something is replaced is a wiped copy that becomes the field's value. Credentials
 * of scheme Basic are decoded, searched as any text, and encoded again.
 *
 * Pinning comes before replacing, while a credential's field still holds the placeholder: what
 * stands around it must be syntax alone. A request signed for AWS has its signature checked first,
 * over the head as it came, and made again last, over the head as it goes.
 */

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

/* Where placeholders are. */
struct findings {
	bool in_query;
	bool in_field[HTTP_FIELDS_MAX];
};

struct pass {
	const struct secret_store *store;
	const struct secret_request *request;
	struct http_head *head;
	struct secret_verdict *verdict;
	struct findings *findings; /* NULL: nothing will be replaced */
	bool is_replacing;	   /* the second time */
};

/* ---- one text ----------------------------------------------------------------------------------
 */

struct text_scan {
	const struct pass *pass;
	const struct place *place;
	const char *source;
	char *copy; /* with replacements; NULL before the first */
	size_t length;
	bool failed; /* no memory */
};

static bool is_slot(const struct secret *secret, struct http_text name)
{
	if (secret->slot_count == 0)
		return credential_is_usual_slot(name);
	for (size_t i = 0; i < secret->slot_count; i++) {
		if (secret->slots[i].length == name.length &&
		    !strncasecmp(secret->slots[i].data, name.data, name.length))
			return true;
	}
	return false;
}

/* A secret access key signs and is never sent. */
static bool is_meant_for(const struct secret *secret, const struct place *place)
{
	if (secret->kind == SECRET_AWS_SECRET_ACCESS_KEY)
		return false;
	if (place->kind == PLACE_FIELD)
		return is_slot(secret, place->name);
	return place->kind == PLACE_QUERY && (secret->flags & SECRET_FLAG_QUERY);
}

static bool is_of_aws(const struct secret *secret)
{
	return secret->kind == SECRET_AWS_ACCESS_KEY_ID || secret->kind == SECRET_AWS_SESSION_TOKEN;
}

static void refuse(const struct pass *pass, enum secret_refusal refusal, size_t index,
		   const char *detail)
{
	secret_verdict_refuse(pass->verdict, pass->store, refusal, index, detail);
	secret_set_add(&pass->verdict->used, index);
}

static void refuse_foreign(const struct pass *pass, const char *where)
{
	secret_verdict_refuse(pass->verdict, pass->store, SECRET_REFUSAL_FOREIGN, SECRET_STORE_MAX,
			      where);
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
static void note_use(const struct pass *pass, const struct place *place, size_t index)
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
	const struct pass *pass = scan->pass;
	size_t index = match->tag / SECRET_FORM_COUNT;
	const struct secret *secret = secret_store_get(pass->store, index);
	bool is_plain = match->tag % SECRET_FORM_COUNT == SECRET_FORM_RAW &&
			(match->escapes == 0 || scan->place->kind == PLACE_QUERY);

	if (secret->kind == SECRET_CANARY)
		refuse(pass, SECRET_REFUSAL_CANARY, index, NULL);
	else if (!secret_set_has(&pass->verdict->bound, index))
		refuse(pass, SECRET_REFUSAL_WRONG_HOST, index, NULL);
	else if (!pass->request || !is_plain || !is_meant_for(secret, scan->place))
		refuse(pass, SECRET_REFUSAL_OUTSIDE_SLOT, index, scan->place->words);
	else if (!pass->request->is_verified)
		refuse(pass, SECRET_REFUSAL_NEEDS_TLS, index, NULL);
	else if (pass->is_replacing)
		replace_match(scan, match, index);
	else
		note_use(pass, scan->place, index);
}

/* Judges every placeholder in the text. 1 when some were replaced, in *ret_copy, which has the same
 * length and which the caller wipes and frees; 0; or -ENOMEM. */
static int scan_text(const struct pass *pass, struct http_text text, const struct place *place,
		     char **ret_copy)
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
static int check_text(const struct pass *pass, struct http_text text, const char *words)
{
	const struct place place = { .kind = PLACE_ELSEWHERE, .words = words };
	char *copy;
	int result = scan_text(pass, text, &place, &copy);

	return MIN_OF(result, 0);
}

/* ---- fields ------------------------------------------------------------------------------------
 */

static int replace_value(const struct pass *pass, size_t index, char *copy, size_t length)
{
	int error = http_head_replace(pass->head, index, copy, length, true);

	wipe(copy, length);
	return error;
}

/* Credentials of scheme Basic: scanned decoded. The value keeps its length. 1 when it is something
 * else. */
static int check_basic(const struct pass *pass, size_t index, const struct place *place)
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

static int check_field(const struct pass *pass, size_t index)
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
	result = check_text(pass, field.name, "it is a header's name");
	if (result == 0)
		result = scan_text(pass, field.value, &place, &copy);
	if (result <= 0)
		return result;
	return replace_value(pass, index, copy, field.value.length);
}

static struct http_text split_query(struct http_text *path)
{
	const char *mark = memchr(path->data, '?', path->length);
	struct http_text query = { "", 0 };

	if (mark) {
		query.data = mark + 1;
		query.length = path->length - (size_t)(mark + 1 - path->data);
		path->length = (size_t)(mark - path->data);
	}
	return query;
}

static int check_path(const struct pass *pass)
{
	static const struct place place = { .kind = PLACE_QUERY,
					    .words = "it is in the query of the URL" };
	struct http_text whole = http_head_path(pass->head);
	struct http_text path = whole;
	struct http_text query = split_query(&path);
	char *copy = NULL;
	char *target;
	int error = check_text(pass, path, "it is in the path of the URL");
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

static int check_all(const struct pass *pass)
{
	int error = check_path(pass);

	if (error == 0)
		error = check_text(pass, http_head_method(pass->head), "it is the method");
	if (error == 0)
		error = check_text(pass, http_head_authority(pass->head), "it is the host");
	for (size_t i = 0; error == 0 && i < http_head_field_count(pass->head); i++)
		error = check_field(pass, i);
	return error;
}

/* The second time. */
static int replace_all(const struct pass *pass)
{
	int error = pass->findings->in_query ? check_path(pass) : 0;

	for (size_t i = 0; error == 0 && i < http_head_field_count(pass->head); i++)
		error = pass->findings->in_field[i] ? check_field(pass, i) : 0;
	return error;
}

/* ---- pinning -----------------------------------------------------------------------------------
 */

static bool is_pinned(const struct pass *pass)
{
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		if (secret_set_has(&pass->verdict->named, i) &&
		    (secret_store_get(pass->store, i)->flags & SECRET_FLAG_UNPINNED))
			return false;
	}
	return !secret_set_is_empty(&pass->verdict->named);
}

/* Whether a placeholder of this host stands at the end of `text`, but for `back`. */
static bool is_framed_placeholder(struct http_text text, struct http_text back,
				  const struct secret *secret)
{
	struct http_text front = { text.data, text.length - back.length };

	if (front.length < secret->length)
		return false;
	front.length -= secret->length;
	return !memcmp(front.data + front.length, secret->placeholder, secret->length) &&
	       credential_is_frame(front, back);
}

/* Whether the text is the placeholder of a secret of this host, and beside it nothing but syntax.
 */
static bool is_own_credential(const struct pass *pass, struct http_text text)
{
	struct http_text none = { "", 0 };
	struct http_text mark = none;

	if (text.length > 0 && text.data[text.length - 1] == '"')
		mark = (struct http_text){ text.data + text.length - 1, 1 };
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		const struct secret *secret = secret_store_get(pass->store, i);

		if (secret_set_has(&pass->verdict->named, i) &&
		    (is_framed_placeholder(text, none, secret) ||
		     (mark.length > 0 && is_framed_placeholder(text, mark, secret))))
			return true;
	}
	return false;
}

static bool is_exact_placeholder(const struct pass *pass, const char *text, size_t length)
{
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		const struct secret *secret = secret_store_get(pass->store, i);

		if (secret_set_has(&pass->verdict->named, i) && secret->length == length &&
		    !memcmp(secret->placeholder, text, length))
			return true;
	}
	return false;
}

/* USER:PASSWORD of which one is a placeholder and the other no credential. */
static bool is_own_basic(const struct pass *pass, const char *text, size_t length)
{
	const char *colon = memchr(text, ':', length);
	size_t user = colon ? (size_t)(colon - text) : length;
	size_t password = colon ? length - user - 1 : 0;

	if (is_exact_placeholder(pass, text, user))
		return !colon || is_exact_placeholder(pass, colon + 1, password) ||
		       credential_is_plain_password(colon + 1, password);
	return colon && is_exact_placeholder(pass, colon + 1, password) &&
	       credential_is_plain_user(text, user);
}

/* Each pair of a cookie (RFC 6265 section 4.2.1) is NAME=PLACEHOLDER. */
static bool is_own_cookie(const struct pass *pass, struct http_text value)
{
	while (value.length > 0) {
		const char *end = memchr(value.data, ';', value.length);
		struct http_text pair = { value.data,
					  end ? (size_t)(end - value.data) : value.length };

		value.data += end ? pair.length + 1 : pair.length;
		value.length -= end ? pair.length + 1 : pair.length;
		while (pair.length > 0 && *pair.data == ' ') {
			pair.data++;
			pair.length--;
		}
		if (!is_own_credential(pass, pair))
			return false;
	}
	return true;
}

static bool is_slot_of_any(const struct pass *pass, struct http_text name)
{
	for (size_t i = 0; i < secret_store_count(pass->store); i++) {
		if (secret_set_has(&pass->verdict->named, i) &&
		    is_slot(secret_store_get(pass->store, i), name))
			return true;
	}
	return false;
}

/* 1 or 0 for what is of scheme Basic, else -1. */
static int judge_basic(const struct pass *pass, struct http_text value)
{
	char decoded[CREDENTIAL_BASIC_MAX];
	size_t length;
	size_t offset;

	if (!credential_basic_decode(value, decoded, &length, &offset))
		return -1;
	return is_own_basic(pass, decoded, length);
}

static bool is_own_field(const struct pass *pass, struct http_field field)
{
	int judged = credential_is_basic(field.value) ? judge_basic(pass, field.value) : -1;

	if (field.value.length == 0)
		return true;
	if (judged >= 0)
		return judged;
	if (http_text_is(field.name, "cookie"))
		return is_own_cookie(pass, field.value);
	return is_own_credential(pass, field.value);
}

/* Undoes percent-escapes. Returns the length. */
static size_t unescape(struct http_text text, char *output)
{
	size_t used = 0;

	for (size_t at = 0; at < text.length;) {
		uint8_t byte;

		at += form_token((const uint8_t *)text.data + at, text.length - at,
				 FORM_ESCAPE_PERCENT, true, &byte);
		output[used++] = (char)byte;
	}
	return used;
}

static struct http_text cut(struct http_text *text, char separator)
{
	const char *end = memchr(text->data, separator, text->length);
	struct http_text front = { text->data, end ? (size_t)(end - text->data) : text->length };

	text->data += end ? front.length + 1 : front.length;
	text->length -= end ? front.length + 1 : front.length;
	return front;
}

static int pin_query(const struct pass *pass)
{
	struct http_text path = http_head_path(pass->head);
	struct http_text query = split_query(&path);
	cleanup_free char *plain = malloc(query.length + 1);

	if (!plain)
		return -ENOMEM;
	while (query.length > 0) {
		struct http_text value = cut(&query, '&');
		struct http_text name = cut(&value, '=');

		if (credential_is_parameter(plain, unescape(name, plain)) && value.length > 0 &&
		    !is_exact_placeholder(pass, plain, unescape(value, plain)))
			refuse_foreign(pass, "the query of its URL");
	}
	return 0;
}

/* `signed_field` is the index of the Authorization that was verified otherwise, or -1. */
static int pin(const struct pass *pass, ssize_t signed_field)
{
	char name[64];

	for (size_t i = 0; i < http_head_field_count(pass->head); i++) {
		struct http_field field = http_head_field(pass->head, i);

		if ((ssize_t)i == signed_field ||
		    (!credential_is_header(field.name) && !is_slot_of_any(pass, field.name)) ||
		    is_own_field(pass, field))
			continue;
		/* The name is one that a rule knows. */
		snprintf(name, sizeof(name), "%.*s", (int)field.name.length, field.name.data);
		refuse_foreign(pass, name);
	}
	return pin_query(pass);
}

/* ---- what a host with secrets is asked for -----------------------------------------------------
 */

/* Answers that can be searched: not compressed, by whatever means. */
static int ask_for_plain_answers(struct http_head *head)
{
	static const char *const fields[] = { "Accept-Encoding", "grpc-accept-encoding" };

	for (size_t i = 0; i < ARRAY_LENGTH(fields); i++) {
		ssize_t index = http_head_find(head, fields[i], 0);
		int error;

		/* gRPC's is only for who speaks it. */
		if (index < 0 && i > 0)
			continue;
		http_head_remove_all(head, fields[i]);
		error = http_head_add(head, fields[i], strlen(fields[i]), "identity", 8);
		if (error)
			return error;
	}
	/* permessage-deflate (RFC 7692) is an extension. */
	http_head_remove_all(head, "Sec-WebSocket-Extensions");
	return 0;
}

/* ---- signatures of AWS -------------------------------------------------------------------------
 */

struct signing {
	ssize_t field; /* of the Authorization; -1: nothing to sign */
	size_t key_id;
	size_t key;
	struct sigv4_form form;
	char payload[64]; /* the form's text borrows it, or a constant */
};

/* The secret whose placeholder is the key id, among those of this host. */
static bool find_key_id(const struct pass *pass, struct http_text key_id, size_t *ret_index)
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
static bool said_payload(const struct pass *pass, struct signing *signing)
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
static int verify(const struct pass *pass, const struct sigv4 *signature, struct signing *signing)
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
		refuse(pass, SECRET_REFUSAL_SIGNATURE, signing->key,
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
		refuse(pass, SECRET_REFUSAL_SIGNATURE, signing->key,
		       "the signature that it has is not one by the placeholder of its key");
		return 0;
	}
	return error;
}

/* Reads the signature of a request to a host with a pair of AWS keys. *ret_signing->field stays -1
 * when it has none that is to be made again. */
static int begin_signing(const struct pass *pass, struct signing *ret_signing)
{
	ssize_t index = http_head_find(pass->head, "Authorization", 0);
	struct http_text value;
	struct sigv4 signature;
	int error;

	*ret_signing = (struct signing){ .field = -1 };
	if (index < 0 || secret_set_is_empty(&pass->verdict->bound))
		return 0;
	value = http_head_field(pass->head, (size_t)index).value;
	if (!sigv4_is(value))
		return 0;
	error = sigv4_parse(value, &signature);
	if (error || !find_key_id(pass, signature.key_id, &ret_signing->key_id))
		return 0; /* pinning, or the search for placeholders, judges it */
	if (!secret_store_aws_pair(pass->store, ret_signing->key_id, &ret_signing->key)) {
		refuse(pass, SECRET_REFUSAL_SIGNATURE, ret_signing->key_id,
		       "no secret of this session is the secret access key that belongs to it");
		return 0;
	}
	if (!pass->request->is_verified) {
		refuse(pass, SECRET_REFUSAL_NEEDS_TLS, ret_signing->key, NULL);
		return 0;
	}
	ret_signing->field = index;
	return verify(pass, &signature, ret_signing);
}

/* Makes the signature anew; the key id in the field has been replaced as any placeholder is. */
static int finish_signing(const struct pass *pass, const struct signing *signing)
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

/* ---- all of it ---------------------------------------------------------------------------------
 */

/* All is well: the head becomes what goes upstream. */
static int change_head(struct pass *pass, const struct signing *signing)
{
	int error = 0;

	pass->is_replacing = true;
	if (!secret_set_is_empty(&pass->verdict->used))
		error = replace_all(pass);
	if (error == 0 && !secret_set_is_empty(&pass->verdict->named))
		error = ask_for_plain_answers(pass->head);
	if (error == 0 && signing->field >= 0)
		error = finish_signing(pass, signing);
	return error;
}

int secrets_prepare_request(const struct secret_store *store, struct http_head *head,
			    const struct secret_request *request,
			    struct secret_verdict *ret_verdict)
{
	struct secret_verdict verdict = { 0 };
	struct findings findings = { .in_query = false };
	struct pass pass = { store, request, head, &verdict, &findings, false };
	struct signing signing;
	int error;

	secret_store_bound(store, &request->host, request->port, &verdict.bound);
	secret_store_named(store, &request->host, &verdict.named);
	if (secret_store_is_probed(store) && !secret_set_is_empty(&verdict.named))
		secret_verdict_refuse(&verdict, store, SECRET_REFUSAL_PROBED, SECRET_STORE_MAX,
				      NULL);
	error = begin_signing(&pass, &signing);
	if (error == 0 && !verdict.needs_body_digest) {
		if (is_pinned(&pass))
			error = pin(&pass, signing.field);
		if (error == 0)
			error = check_all(&pass);
		if (error == 0 && verdict.refusal == SECRET_REFUSAL_NONE)
			error = change_head(&pass, &signing);
	}
	if (error)
		return error;
	*ret_verdict = verdict;
	return 0;
}

void secrets_check_trailers(const struct secret_store *store, const struct http_head *trailers,
			    struct secret_verdict *verdict)
{
	const struct pass pass = { .store = store, .verdict = verdict };

	for (size_t i = 0; i < http_head_field_count(trailers); i++) {
		struct http_field field = http_head_field(trailers, i);

		check_text(&pass, field.name, "it is in a trailer");
		check_text(&pass, field.value, "it is in a trailer");
	}
}
