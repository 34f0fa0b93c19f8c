#include "audit/record.h"

#include "audit/text.h"
#include "base/escape.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A position in the line; `failed` sticks, and a failed cursor consumes nothing. */
struct cursor {
	const char *at;
	const char *end;
	bool failed;
};

static size_t left(const struct cursor *cursor)
{
	return (size_t)(cursor->end - cursor->at);
}

static bool looking_at(const struct cursor *cursor, const char *text, size_t length)
{
	return !cursor->failed && left(cursor) >= length && memcmp(cursor->at, text, length) == 0;
}

#define LOOKING_AT(cursor, literal) looking_at(cursor, literal, sizeof(literal) - 1)

static void expect(struct cursor *cursor, const char *text, size_t length)
{
	if (looking_at(cursor, text, length))
		cursor->at += length;
	else
		cursor->failed = true;
}

#define EXPECT(cursor, literal) expect(cursor, literal, sizeof(literal) - 1)

static const char *take(struct cursor *cursor, size_t length)
{
	const char *text = cursor->at;

	if (cursor->failed || left(cursor) < length) {
		cursor->failed = true;
		return NULL;
	}
	cursor->at += length;
	return text;
}

static uint64_t take_number(struct cursor *cursor)
{
	const char *start = cursor->at;
	uint64_t value = 0;

	if (cursor->failed)
		return 0;
	while (cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9') {
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*cursor->at - '0'), &value)) {
			cursor->failed = true;
			return 0;
		}
		cursor->at++;
	}
	if (cursor->at == start || (*start == '0' && cursor->at - start > 1))
		cursor->failed = true;
	return value;
}

/* A name of lower-case letters, digits and underscores up to the closing quote. */
static size_t name_length(const struct cursor *cursor)
{
	const char *quote;

	if (cursor->failed)
		return 0;
	quote = memchr(cursor->at, '"', left(cursor) < 32 ? left(cursor) : 32);
	return quote ? (size_t)(quote - cursor->at) : 0;
}

static enum audit_kind take_kind(struct cursor *cursor)
{
	size_t length = name_length(cursor);

	for (int i = 1; audit_kind_name((enum audit_kind)i); i++) {
		const char *name = audit_kind_name((enum audit_kind)i);

		if (strlen(name) == length && memcmp(name, cursor->at, length) == 0) {
			cursor->at += length;
			return (enum audit_kind)i;
		}
	}
	cursor->failed = true;
	return AUDIT_NOTICE;
}

static enum audit_field take_field_name(struct cursor *cursor)
{
	size_t length = name_length(cursor);

	for (int i = 1; audit_field_name((enum audit_field)i); i++) {
		const char *name = audit_field_name((enum audit_field)i);

		if (name[0] == *cursor->at && strlen(name) == length &&
		    memcmp(name, cursor->at, length) == 0) {
			cursor->at += length;
			return (enum audit_field)i;
		}
	}
	cursor->failed = true;
	return AUDIT_FIELD_DETAIL;
}

/* Digits and separators where they belong; whether the day exists is of no consequence. */
static void check_time(struct cursor *cursor, const char *time)
{
	static const char form[] = "dddd-dd-ddTdd:dd:dd.dddddddddZ";

	for (size_t i = 0; !cursor->failed && i < RECORD_TIME_LENGTH; i++) {
		bool digit = time[i] >= '0' && time[i] <= '9';

		if (form[i] == 'd' ? !digit : time[i] != form[i])
			cursor->failed = true;
	}
}

static void take_field(struct cursor *cursor, struct record_field *field)
{
	ssize_t length;

	EXPECT(cursor, ",\"");
	*field = (struct record_field){ 0 };
	if (cursor->failed || left(cursor) == 0) {
		cursor->failed = true;
		return;
	}
	field->field = take_field_name(cursor);
	EXPECT(cursor, "\":");
	if (!LOOKING_AT(cursor, "\"")) {
		field->type = AUDIT_TYPE_NUMBER;
		field->number = take_number(cursor);
		return;
	}
	cursor->at++;
	field->type = AUDIT_TYPE_TEXT;
	length = text_scan_json(cursor->at, left(cursor));
	if (length < 0) {
		cursor->failed = true;
		return;
	}
	field->body = cursor->at;
	field->body_length = (size_t)length;
	cursor->at += length + 1;
}

static void take_fields(struct cursor *cursor, struct record *record)
{
	uint64_t seen = 0;

	while (!cursor->failed && !LOOKING_AT(cursor, ",\"prev\":") &&
	       !LOOKING_AT(cursor, ",\"escaped\":")) {
		struct record_field *field;
		uint64_t bit;

		if (record->field_count == AUDIT_FIELDS_MAX) {
			cursor->failed = true;
			return;
		}
		field = &record->fields[record->field_count++];
		take_field(cursor, field);
		bit = UINT64_C(1) << field->field;
		if (seen & bit)
			cursor->failed = true;
		seen |= bit;
	}
}

/* The names come in the order of the fields, each at most once. */
static void take_escaped_names(struct cursor *cursor, struct record *record)
{
	uint16_t next = 0;

	EXPECT(cursor, ",\"escaped\":[");
	do {
		enum audit_field name;

		EXPECT(cursor, "\"");
		if (cursor->failed || left(cursor) == 0) {
			cursor->failed = true;
			return;
		}
		name = take_field_name(cursor);
		EXPECT(cursor, "\"");
		while (next < record->field_count && record->fields[next].field != name)
			next++;
		if (cursor->failed || next == record->field_count ||
		    record->fields[next].type != AUDIT_TYPE_TEXT) {
			cursor->failed = true;
			return;
		}
		record->fields[next++].escaped = true;
		if (!LOOKING_AT(cursor, ","))
			break;
		cursor->at++;
	} while (true);
	EXPECT(cursor, "]");
}

int record_parse(const char *line, size_t length, struct record *ret_record)
{
	struct cursor cursor = { .at = line, .end = line + length };
	const char *previous;

	if (length >= RECORD_LINE_MAX)
		return -EBADMSG;
	ret_record->field_count = 0;
	EXPECT(&cursor, "{\"seq\":");
	ret_record->sequence = take_number(&cursor);
	EXPECT(&cursor, ",\"mono_ns\":");
	ret_record->monotonic_ns = take_number(&cursor);
	EXPECT(&cursor, ",\"time\":\"");
	ret_record->time = take(&cursor, RECORD_TIME_LENGTH);
	check_time(&cursor, ret_record->time);
	EXPECT(&cursor, "\",\"kind\":\"");
	ret_record->kind = take_kind(&cursor);
	EXPECT(&cursor, "\"");
	take_fields(&cursor, ret_record);
	if (LOOKING_AT(&cursor, ",\"escaped\":"))
		take_escaped_names(&cursor, ret_record);
	EXPECT(&cursor, ",\"prev\":\"");
	previous = take(&cursor, DIGEST_HEX_SIZE);
	EXPECT(&cursor, "\"}");
	if (cursor.failed || cursor.at != cursor.end ||
	    !digest_from_hex(previous, ret_record->previous))
		return -EBADMSG;
	return 0;
}

const struct record_field *record_find(const struct record *record, enum audit_field field)
{
	for (uint16_t i = 0; i < record->field_count; i++) {
		if (record->fields[i].field == field)
			return &record->fields[i];
	}
	return NULL;
}

ssize_t record_text(const struct record_field *field, char *output)
{
	ssize_t length;

	if (field->type != AUDIT_TYPE_TEXT || field->body_length > RECORD_TEXT_MAX)
		return -EBADMSG;
	length = text_get_json(field->body, field->body_length, output);
	if (length < 0 || !field->escaped)
		return length;
	/* In place: the result is never longer and is written behind the reading position. */
	return unescape_text(output, (size_t)length, output);
}
