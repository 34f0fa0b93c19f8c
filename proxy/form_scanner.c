#include "proxy/form_scanner.h"

#include "base/checked.h"

#include <string.h>

/*
 * Theory of operation
 *
 * Each view is a cursor that takes the stream token by token. A view in which no escape has
 * occurred stands where the stream itself does, in the same state, and costs nothing: it parts from
 * the first view at a byte that may begin an escape of its kind, and joins it again when both are
 * in the same state at the same place. So ordinary text is stepped through once, and text without
 * any byte that begins a pattern is only skipped over, escapes that stand for none included.
 *
 * A cursor remembers where in the stream the bytes of its state's depth begin. When a failure link
 * makes the depth smaller, that place moves on by as many tokens, which are read again from the
 * window: only forwards, so all of it costs no more than reading the stream twice.
 */

#define HEX_DIGITS "0123456789abcdefABCDEF"
#define JSON_ESCAPES "\"\\/bfnrt"
#define ESCAPES_ALL (FORM_ESCAPE_PERCENT | FORM_ESCAPE_JSON)

static int hex_value(uint8_t byte)
{
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	if (byte >= 'a' && byte <= 'f')
		return byte - 'a' + 10;
	if (byte >= 'A' && byte <= 'F')
		return byte - 'A' + 10;
	return -1;
}

/* `count` hexadecimal digits at data[0..length): 1, 0 for something else, -1 when `length` does not
 * tell. */
static int read_hex(const uint8_t *data, size_t length, size_t count, unsigned *ret_value)
{
	unsigned value = 0;

	for (size_t i = 0; i < count; i++) {
		if (i >= length)
			return -1;
		if (hex_value(data[i]) < 0)
			return 0;
		value = value << 4 | (unsigned)hex_value(data[i]);
	}
	*ret_value = value;
	return 1;
}

/* The same for an escape that begins with '\\'; *ret_length is the whole escape's. */
static int read_json(const uint8_t *data, size_t length, size_t *ret_length, unsigned *ret_value)
{
	static const char names[] = JSON_ESCAPES;
	static const char values[] = "\"\\/\b\f\n\r\t";
	const char *name;

	if (length < 2)
		return -1;
	*ret_length = 2;
	name = data[1] != '\0' ? strchr(names, data[1]) : NULL;
	if (name) {
		*ret_value = (uint8_t)values[name - names];
		return 1;
	}
	if (data[1] != 'u')
		return 0;
	*ret_length = 6;
	return read_hex(data + 2, length - 2, 4, ret_value);
}

size_t form_token(const uint8_t *data, size_t length, unsigned escapes, bool is_last,
		  uint8_t *ret_byte)
{
	unsigned value = 0;
	size_t size = 3;
	int found = 0;

	if (length == 0)
		return 0;
	if (data[0] == '%' && (escapes & FORM_ESCAPE_PERCENT))
		found = read_hex(data + 1, length - 1, 2, &value);
	else if (data[0] == '\\' && (escapes & FORM_ESCAPE_JSON))
		found = read_json(data, length, &size, &value);
	if (found < 0 && !is_last)
		return 0;
	if (found <= 0) {
		*ret_byte = data[0];
		return 1;
	}
	*ret_byte = value < 0x80 ? (uint8_t)value : 0xff;
	return size;
}

/* Of an escape, by its first three bytes. */
static bool may_begin(const uint8_t bytes[3], const bool begins[256])
{
	uint8_t byte;

	if (bytes[1] == 'u')
		return hex_value(bytes[2]) >= 0 && (bytes[2] == '0' || begins[0xff]);
	/* What comes behind two backslashes depends on how many there are. */
	if (bytes[1] == '\\')
		return true;
	return form_token(bytes, 3, ESCAPES_ALL, true, &byte) > 1 && begins[byte];
}

const struct byte_stop form_escape_stops[] = {
	{ '%', HEX_DIGITS, may_begin },
	{ '\\', JSON_ESCAPES "u", may_begin },
	{ 0, NULL, NULL },
};

void form_token_write(uint8_t *target, size_t token_length, uint8_t byte)
{
	static const char digits[] = "0123456789abcdef";

	if (token_length == 1) {
		target[0] = byte;
	} else if (token_length == 3) {
		target[1] = (uint8_t)digits[byte >> 4];
		target[2] = (uint8_t)digits[byte & 15];
	} else if (token_length == 6) {
		memcpy(target + 2, "00", 2);
		target[4] = (uint8_t)digits[byte >> 4];
		target[5] = (uint8_t)digits[byte & 15];
	} else if (byte == '"' || byte == '\\' || byte == '/') {
		target[1] = byte;
	} else {
		memset(target, byte, token_length);
	}
}

bool form_scanner_is_needed(const struct byte_automaton *automaton, const void *text, size_t length)
{
	return byte_automaton_skip(automaton, text, length) < length;
}

void form_scanner_init(struct form_scanner *scanner, const struct byte_automaton *automaton)
{
	*scanner = (struct form_scanner){ .automaton = automaton };
}

/* ---- one cursor --------------------------------------------------------------------------------
 */

struct pass {
	struct form_scanner *scanner;
	const struct form_window *window;
	bool is_last;
	form_match_function function;
	void *context;
};

static uint64_t window_end(const struct form_window *window)
{
	return window->offset + window->length;
}

static size_t read_token(const struct pass *pass, uint64_t position, unsigned escapes,
			 uint8_t *ret_byte)
{
	size_t at = (size_t)(position - pass->window->offset);

	return form_token(pass->window->data + at, pass->window->length - at, escapes,
			  pass->is_last, ret_byte);
}

/* The place `count` tokens after `position`; they have been read before. */
static uint64_t skip_tokens(const struct pass *pass, uint64_t position, size_t count,
			    unsigned escapes)
{
	uint8_t ignored;

	if (escapes == 0)
		return position + count;
	while (count-- > 0)
		position += read_token(pass, position, escapes, &ignored);
	return position;
}

static void tell_matches(const struct pass *pass, const struct form_cursor *cursor,
			 unsigned escapes)
{
	const struct byte_automaton *automaton = pass->scanner->automaton;
	size_t depth = byte_automaton_depth(automaton, cursor->state);
	struct form_match match = { .escapes = escapes, .end = cursor->position };
	uint32_t state = cursor->state;
	size_t length;

	while (byte_automaton_match(automaton, &state, &match.tag, &length)) {
		match.start = skip_tokens(pass, cursor->start, depth - length, escapes);
		pass->function(pass->context, &match);
	}
}

/* The cursor's state becomes a shallower one: what may match begins later. */
static void fall_to(const struct pass *pass, unsigned view, uint32_t state, size_t tokens_before)
{
	struct form_cursor *cursor = &pass->scanner->cursors[view];
	size_t depth = byte_automaton_depth(pass->scanner->automaton, state);

	cursor->state = state;
	if (depth == 0)
		cursor->start = cursor->position;
	else if (depth < tokens_before)
		cursor->start = skip_tokens(pass, cursor->start, tokens_before - depth, view);
}

static void step(const struct pass *pass, unsigned view, uint8_t byte, size_t token_length)
{
	const struct byte_automaton *automaton = pass->scanner->automaton;
	struct form_cursor *cursor = &pass->scanner->cursors[view];
	size_t before = byte_automaton_depth(automaton, cursor->state);

	cursor->position += token_length;
	fall_to(pass, view, byte_automaton_step(automaton, cursor->state, byte), before + 1);
	if (byte_automaton_matches(automaton, cursor->state)) {
		tell_matches(pass, cursor, view);
		before = byte_automaton_depth(automaton, cursor->state);
		fall_to(pass, view, byte_automaton_settle(automaton, cursor->state), before);
	}
}

/* ---- all of them -------------------------------------------------------------------------------
 */

/* The views in which `byte` may begin an escape leave the first one. */
static void part(struct form_scanner *scanner, uint8_t byte)
{
	unsigned kind = 0;

	if (byte == '%')
		kind = FORM_ESCAPE_PERCENT;
	else if (byte == '\\')
		kind = FORM_ESCAPE_JSON;
	for (unsigned view = 1; kind != 0 && view < FORM_VIEWS; view++) {
		if ((view & kind) && !(scanner->apart & 1u << view)) {
			scanner->cursors[view] = scanner->cursors[0];
			scanner->apart |= 1u << view;
		}
	}
}

/* Brings a view that is apart up to where the first one is, and lets it join if it can. */
static void follow(const struct pass *pass, unsigned view)
{
	struct form_scanner *scanner = pass->scanner;
	struct form_cursor *cursor = &scanner->cursors[view];
	const struct form_cursor *first = &scanner->cursors[0];

	while (cursor->position < first->position) {
		uint8_t byte;
		size_t length = read_token(pass, cursor->position, view, &byte);

		if (length == 0)
			return;
		step(pass, view, byte, length);
	}
	if (cursor->position == first->position && cursor->state == first->state &&
	    cursor->start == first->start)
		scanner->apart &= ~(1u << view);
}

static void follow_all(const struct pass *pass)
{
	for (unsigned view = 1; view < FORM_VIEWS; view++) {
		if (pass->scanner->apart & 1u << view)
			follow(pass, view);
	}
}

static uint64_t keep_from(const struct form_scanner *scanner)
{
	uint64_t from = scanner->cursors[0].start;

	for (unsigned view = 1; view < FORM_VIEWS; view++) {
		if ((scanner->apart & 1u << view) && scanner->cursors[view].start < from)
			from = scanner->cursors[view].start;
	}
	return from;
}

size_t form_scanner_depth(const struct form_scanner *scanner)
{
	size_t deepest = 0;

	for (unsigned view = 0; view < FORM_VIEWS; view++) {
		size_t depth =
			byte_automaton_depth(scanner->automaton, scanner->cursors[view].state);

		if ((view == 0 || (scanner->apart & 1u << view)) && depth > deepest)
			deepest = depth;
	}
	return deepest;
}

size_t form_scanner_beginning(const struct form_scanner *scanner, unsigned view,
			      struct form_match *ret_match)
{
	const struct form_cursor *cursor = &scanner->cursors[view];

	if (view != 0 && !(scanner->apart & 1u << view))
		return 0;
	if (!byte_automaton_beginning(scanner->automaton, cursor->state, &ret_match->tag))
		return 0;
	ret_match->escapes = view;
	ret_match->start = cursor->start;
	ret_match->end = cursor->position;
	return byte_automaton_depth(scanner->automaton, cursor->state);
}

static bool is_introducer(uint8_t byte)
{
	return byte == '%' || byte == '\\';
}

/* Where the escape begins that `at` lies within, or that the end cuts off; or `at`. Nothing before
 * `from` is part of one. */
static size_t escape_around(const uint8_t *data, size_t length, size_t from, size_t at)
{
	uint8_t ignored;

	from = MAX_OF(from, at - MIN_OF(at, FORM_ESCAPE_MAX - 1));
	for (; from < at; from++) {
		size_t token;

		if (!is_introducer(data[from]))
			continue;
		token = form_token(data + from, length - from, ESCAPES_ALL, false, &ignored);
		if (token == 0 || from + token > at)
			return from;
	}
	return at;
}

/* Over what begins no match in any view, to where a token of all of them begins. Of a number of
 * backslashes each pair is one escape; no other escape holds a byte that may begin one. */
static size_t skip(const struct byte_automaton *automaton, const uint8_t *data, size_t length)
{
	size_t from = 0;
	size_t at = 0;

	for (;;) {
		size_t escape;
		size_t token;
		uint8_t byte;

		at += byte_automaton_skip(automaton, data + at, length - at);
		escape = escape_around(data, length, from, at);
		if (escape < at)
			return escape;
		if (at == length || !is_introducer(data[at]) ||
		    byte_automaton_step(automaton, BYTE_AUTOMATON_START, data[at]) !=
			    BYTE_AUTOMATON_START)
			return at;
		token = form_token(data + at, length - at, ESCAPES_ALL, false, &byte);
		if (token != 1 && !(token == 2 && byte == '\\'))
			return at;
		at += token;
		from = at;
	}
}

uint64_t form_scanner_run(struct form_scanner *scanner, const struct form_window *window,
			  bool is_last, form_match_function function, void *context)
{
	const struct pass pass = { scanner, window, is_last, function, context };
	struct form_cursor *first = &scanner->cursors[0];
	uint64_t end = window_end(window);

	while (first->position < end) {
		const uint8_t *data = window->data + (first->position - window->offset);

		if (first->state == BYTE_AUTOMATON_START && scanner->apart == 0) {
			size_t skipped =
				skip(scanner->automaton, data, (size_t)(end - first->position));

			first->position += skipped;
			first->start = first->position;
			if (first->position == end)
				break;
			data += skipped;
		}
		if (scanner->apart == 0) {
			size_t deeper =
				byte_automaton_deepen(scanner->automaton, &first->state, data,
						      (size_t)(end - first->position));

			first->position += deeper;
			if (deeper > 0)
				continue;
		}
		part(scanner, *data);
		step(&pass, 0, *data, 1);
		if (scanner->apart != 0)
			follow_all(&pass);
	}
	if (is_last)
		follow_all(&pass);
	return is_last ? end : keep_from(scanner);
}
