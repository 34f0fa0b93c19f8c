#include "proxy/secret_filter.h"

#include "base/checked.h"
#include "proxy/form_scanner.h"
#include "proxy/secret_forms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * The scanner says up to where the stream can no longer be part of a match. Up to there it goes
 * out; the rest is kept, twice: as it came, because the scanner reads it again, and as it is to go
 * out, because matches may overlap and each is written over what the ones before it made.
 *
 * What is to go out is made in place, in the space that the output gives. A buffer in which nothing
 * is found is handed on as it is. Only when something was kept from before are the pieces put
 * together in a block of their own for the scanner.
 *
 * At the end of a message all goes out, but the scanner goes on, and what it has to read again
 * stays kept: `released` bytes of that are gone already. A match may thus begin in what is gone,
 * and then only its rest is written over. Secrets that came into the store since the message before
 * are looked for with the next one: the new automaton reads again what is kept.
 *
 * A replacement has the length of what it replaces. Placeholder and value differ in letters and
 * digits alone, so each token of the match keeps its kind: a byte, %XX, or \u00XX. What was kept is
 * in ordinary memory: it comes from buffers of the network and goes back to them. It is wiped when
 * freed.
 */

struct secret_filter {
	struct body_filter filter; /* first: feed() and free() get this */
	const struct secret_store *store;
	struct secret_store *watched; /* the same, of a response */
	struct byte_automaton *automaton;
	struct form_scanner scanner;
	bool is_response;
	bool over_tls;
	bool is_injected;
	bool is_probe; /* the last piece ended deep in a value */
	bool is_match; /* in this piece */
	bool takes_messages;
	bool is_between; /* messages: the next byte begins one */
	struct secret_set bound;
	struct secret_set used;
	enum secret_refusal refusal;
	size_t refused; /* index of the secret */
	const char *detail;
	bool looks_only;

	uint8_t *kept; /* `kept_length` bytes as they came, and as many as they go out */
	size_t kept_length;
	size_t released; /* of the kept bytes: they have gone out, with the end of a message */
	uint64_t offset; /* in the stream, of the first kept byte */

	/* While feeding: */
	const uint8_t *window;
	uint8_t *target;	 /* NULL while that is the window as it came */
	size_t total;		 /* bytes in both */
	struct byte_buffer *out; /* where a target is made when it is needed */
	bool failed;		 /* there was no memory for it */
};

/* Where to write, or NULL. */
static uint8_t *need_target(struct secret_filter *self)
{
	if (self->target)
		return self->target;
	if (byte_buffer_reserve(self->out, self->total, &self->target) < 0) {
		self->failed = true;
		return NULL;
	}
	memcpy(self->target, self->window, self->total);
	return self->target;
}

static void on_response_match(void *context, const struct form_match *match)
{
	struct secret_filter *self = context;
	size_t index = match->tag / SECRET_FORM_COUNT;
	const struct secret *secret = secret_store_get(self->store, index);
	size_t at = (size_t)(match->start - self->offset);
	uint8_t *target = need_target(self);

	secret_set_add(&self->used, index);
	self->is_match = true;
	if (target)
		secret_form_replace(match, self->window + at, target + at,
				    secret->placeholder + secret->kept,
				    secret->length - secret->kept);
}

static void refuse(struct secret_filter *self, enum secret_refusal refusal, size_t index)
{
	if (self->refusal != SECRET_REFUSAL_NONE)
		return;
	self->refusal = refusal;
	self->refused = index;
	if (index < SECRET_STORE_MAX)
		secret_set_add(&self->used, index);
}

static void on_request_match(void *context, const struct form_match *match)
{
	struct secret_filter *self = context;
	size_t index = match->tag / SECRET_FORM_COUNT;
	const struct secret *secret = secret_store_get(self->store, index);
	size_t at = (size_t)(match->start - self->offset);
	uint8_t *target;

	if (secret->kind == SECRET_CANARY) {
		refuse(self, SECRET_REFUSAL_CANARY, index);
	} else if (!secret_set_has(&self->bound, index)) {
		refuse(self, SECRET_REFUSAL_WRONG_HOST, index);
	} else if ((secret->flags & SECRET_FLAG_BODY) &&
		   match->tag % SECRET_FORM_COUNT == SECRET_FORM_RAW) {
		if (at < self->released)
			return;
		if (self->looks_only) {
			refuse(self, SECRET_REFUSAL_CODED, index);
			return;
		}
		if (!self->over_tls)
			refuse(self, SECRET_REFUSAL_NEEDS_TLS, index);
		target = need_target(self);
		if (target)
			secret_form_replace(match, self->window + at, target + at,
					    secret->value + secret->kept,
					    secret->length - secret->kept);
		secret_set_add(&self->used, index);
		self->is_injected = true;
	}
}

/* A message ends: what it has of a value that may go on in the next one is not told. */
static void cover_beginnings(struct secret_filter *self)
{
	for (unsigned view = 0; view < FORM_VIEWS; view++) {
		struct form_match match;
		size_t depth = form_scanner_beginning(&self->scanner, view, &match);
		const struct secret *secret;
		uint8_t *target;
		size_t start;
		size_t end;

		if (depth < SECRET_PROBE_DEPTH)
			continue;
		target = need_target(self);
		if (!target)
			return;
		secret = secret_store_get(self->store, match.tag / SECRET_FORM_COUNT);
		start = (size_t)(match.start - self->offset);
		end = (size_t)(match.end - self->offset);
		secret_form_replace(&match, self->window + start, target + start,
				    secret->placeholder + secret->kept,
				    secret->length - secret->kept);
		secret_form_replace_cut(&match, depth, target + end, self->total - end,
					secret->placeholder + secret->kept,
					secret->length - secret->kept);
	}
}

/* ---- feeding -----------------------------------------------------------------------------------
 */

static void forget(struct secret_filter *self)
{
	if (self->kept)
		explicit_bzero(self->kept, 2 * self->kept_length);
	free(self->kept);
	self->kept = NULL;
	self->kept_length = 0;
}

/* Keeps the last `length` bytes of the window and of what it became; of these, `released` went. */
static int keep(struct secret_filter *self, size_t length, size_t released)
{
	const uint8_t *target = self->target ? self->target : self->window;
	uint8_t *kept = length > 0 ? malloc(2 * length) : NULL;

	if (length > 0 && !kept)
		return -ENOMEM;
	if (kept) {
		memcpy(kept, self->window + self->total - length, length);
		memcpy(kept + length, target + self->total - length, length);
	}
	forget(self);
	self->kept = kept;
	self->kept_length = length;
	self->released = released;
	return 0;
}

/* After a piece of a response of which `done` bytes are through; `ends`: no more will be read. */
static void watch(struct secret_filter *self, size_t done, bool ends)
{
	if (self->is_probe && !self->is_match && (done > 0 || ends))
		secret_store_note_probe(self->watched);
	self->is_probe = form_scanner_depth(&self->scanner) >= SECRET_PROBE_DEPTH && !ends;
	self->is_match = false;
	if (secret_store_is_probed(self->watched))
		refuse(self, SECRET_REFUSAL_PROBED, SECRET_STORE_MAX);
}

/* 0 with how many bytes of the window may go on, or have; or a negative errno. */
static int scan(struct secret_filter *self, bool is_last, size_t *ret_done)
{
	struct form_window window = { self->window, self->total, self->offset };
	bool ends = is_last && !self->takes_messages;
	uint64_t from =
		form_scanner_run(&self->scanner, &window, ends,
				 self->is_response ? on_response_match : on_request_match, self);
	size_t through = (size_t)(from - self->offset);
	size_t done = is_last ? self->total : MAX_OF(through, self->released);

	if (self->watched)
		watch(self, through, ends);
	if (self->refusal != SECRET_REFUSAL_NONE)
		return -EACCES;
	if (self->is_response && is_last && !ends)
		cover_beginnings(self);
	if (self->failed || keep(self, self->total - through, done - through) < 0)
		return -ENOMEM;
	self->offset = from;
	self->is_between = is_last;
	*ret_done = done;
	return 0;
}

/* What was made up to `done` goes; of the rest no copy stays. */
static void commit(struct secret_filter *self, size_t done, struct byte_buffer *out)
{
	byte_buffer_commit(out, done);
	if (done < self->total)
		explicit_bzero(self->target + done, self->total - done);
}

/* A message begins. */
static void look_for_new_secrets(struct secret_filter *self)
{
	struct byte_automaton *finder = self->is_response
						? secret_store_value_finder(self->store)
						: secret_store_placeholder_finder(self->store);

	if (finder == self->automaton)
		return;
	byte_automaton_release(self->automaton);
	self->automaton = byte_automaton_hold(finder);
	form_scanner_init(&self->scanner, self->automaton);
	self->offset = 0;
}

/* With `data` behind what is kept; `block` is for the window and what it becomes. */
static int feed_joined(struct secret_filter *self, const uint8_t *data, size_t length, bool is_last,
		       uint8_t *block, struct byte_buffer *out)
{
	size_t before = self->kept_length;
	size_t released = self->released;
	size_t done = released;
	uint8_t *space;
	int error = byte_buffer_reserve(out, before + length - released, &space);

	if (error)
		return error;
	self->total = before + length;
	self->window = block;
	self->target = block + self->total;
	memcpy(block, self->kept, before);
	memcpy(self->target, self->kept + before, before);
	if (length > 0) {
		memcpy(block + before, data, length);
		memcpy(self->target + before, data, length);
	}
	error = scan(self, is_last, &done);
	memcpy(space, self->target + released, done - released);
	byte_buffer_commit(out, done - released);
	explicit_bzero(block, 2 * self->total);
	return error;
}

static int feed(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		struct byte_buffer *out)
{
	struct secret_filter *self = (struct secret_filter *)filter;
	size_t size;
	size_t done = 0;
	uint8_t *block;
	int error;

	if (self->refusal != SECRET_REFUSAL_NONE)
		return -EACCES;
	if (!checked_add_size(self->kept_length, length, &size) || size > SIZE_MAX / 2)
		return -ENOBUFS;
	if (size == self->released) {
		self->is_between |= is_last;
		return 0;
	}
	if (self->is_between)
		look_for_new_secrets(self);
	if (self->kept_length > 0) {
		block = malloc(2 * size);
		error = block ? feed_joined(self, data, length, is_last, block, out) : -ENOMEM;
		free(block);
		return error;
	}
	error = byte_buffer_reserve(out, length, &self->target);
	if (error)
		return error;
	memcpy(self->target, data, length);
	self->window = data;
	self->total = length;
	error = scan(self, is_last, &done);
	commit(self, done, out);
	return error;
}

static int feed_buffer(struct body_filter *filter, struct byte_buffer *in, bool is_last,
		       struct byte_buffer *out)
{
	struct secret_filter *self = (struct secret_filter *)filter;
	size_t length = byte_buffer_length(in);
	size_t done = 0;
	int error;

	if (self->kept_length > 0 || self->refusal != SECRET_REFUSAL_NONE) {
		error = feed(filter, byte_buffer_front(in), length, is_last, out);
		if (!error)
			byte_buffer_consume(in, length);
		return error;
	}
	if (self->is_between)
		look_for_new_secrets(self);
	self->window = byte_buffer_front(in);
	self->target = NULL;
	self->total = length;
	self->out = out;
	error = scan(self, is_last, &done);
	if (self->target) {
		commit(self, done, out);
		byte_buffer_consume(in, error ? 0 : length);
	} else if (!error) {
		byte_buffer_move(in, out);
		byte_buffer_trim(out, length - done);
	}
	return error;
}

static void free_filter(struct body_filter *filter)
{
	struct secret_filter *self = (struct secret_filter *)filter;

	/* Whoever saw the pause may have cut the rest off. */
	if (self->watched && self->is_probe)
		secret_store_note_probe(self->watched);
	forget(self);
	byte_automaton_release(self->automaton);
	free(self);
}

static struct secret_filter *new_filter(const struct secret_store *store, bool is_response)
{
	struct secret_filter *self = calloc(1, sizeof(*self));

	if (!self)
		return NULL;
	self->filter = (struct body_filter){ .feed = feed,
					     .free = free_filter,
					     .feed_buffer = feed_buffer };
	self->store = store;
	self->is_response = is_response;
	self->automaton = byte_automaton_hold(is_response ? secret_store_value_finder(store)
							  : secret_store_placeholder_finder(store));
	form_scanner_init(&self->scanner, self->automaton);
	return self;
}

struct body_filter *secret_request_filter_new(const struct secret_store *store,
					      const struct secret_set *bound, bool over_tls)
{
	struct secret_filter *self = new_filter(store, false);

	if (!self)
		return NULL;
	self->bound = *bound;
	self->over_tls = over_tls;
	return &self->filter;
}

struct body_filter *secret_response_filter_new(struct secret_store *store)
{
	struct secret_filter *self = new_filter(store, true);

	if (!self)
		return NULL;
	self->watched = store;
	return &self->filter;
}

void secret_filter_look_only(struct body_filter *filter)
{
	((struct secret_filter *)filter)->looks_only = true;
}

void secret_filter_refuse(struct body_filter *filter, enum secret_refusal refusal,
			  const char *detail)
{
	struct secret_filter *self = (struct secret_filter *)filter;

	if (self->refusal == SECRET_REFUSAL_NONE)
		self->detail = detail;
	refuse(self, refusal, SECRET_STORE_MAX);
}

void secret_filter_take_messages(struct body_filter *filter)
{
	((struct secret_filter *)filter)->takes_messages = true;
}

void secret_filter_report(const struct body_filter *filter, struct secret_verdict *verdict)
{
	const struct secret_filter *self = (const struct secret_filter *)filter;

	for (size_t i = 0; i < secret_store_count(self->store); i++) {
		if (secret_set_has(&self->used, i))
			secret_set_add(&verdict->used, i);
	}
	verdict->is_injected |= self->is_injected;
	if (self->refusal != SECRET_REFUSAL_NONE)
		secret_verdict_refuse(verdict, self->store, self->refusal, self->refused,
				      self->detail);
}

struct redaction {
	struct secret_filter filter; /* first: on_response_match() gets this */
	size_t length;
	bool failed; /* no memory */
};

static void on_text_match(void *context, const struct form_match *match)
{
	struct redaction *self = context;
	struct secret_filter *filter = &self->filter;

	if (!filter->target) {
		filter->target = malloc(self->length);
		if (filter->target)
			memcpy(filter->target, filter->window, self->length);
	}
	self->failed = !filter->target;
	if (!self->failed)
		on_response_match(filter, match);
}

static int redact_text(const struct secret_store *store, const char *text, size_t length,
		       char **ret_copy)
{
	struct redaction self = {
		.filter = { .store = store, .is_response = true, .window = (const uint8_t *)text },
		.length = length,
	};
	const struct form_window window = { (const uint8_t *)text, length, 0 };

	form_scanner_init(&self.filter.scanner, secret_store_value_finder(store));
	form_scanner_run(&self.filter.scanner, &window, true, on_text_match, &self);
	if (self.failed)
		return -ENOMEM;
	if (!self.filter.target)
		return 0;
	*ret_copy = (char *)self.filter.target;
	return 1;
}

bool secret_may_be_in(const struct secret_store *store, const char *text, size_t length)
{
	return form_scanner_is_needed(secret_store_value_finder(store), text, length);
}

int secret_redact(const struct secret_store *store, const char *text, size_t length,
		  char **ret_copy)
{
	if (!secret_may_be_in(store, text, length))
		return 0;
	return redact_text(store, text, length, ret_copy);
}
