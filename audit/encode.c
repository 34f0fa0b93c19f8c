#include "audit/record.h"

#include "audit/text.h"
#include "base/checked.h"
#include "base/escape.h"

#include <stdlib.h>
#include <string.h>

#define NS_PER_SECOND UINT64_C(1000000000)
/* 9999-12-31T23:59:59Z */
#define LAST_SECOND UINT64_C(253402300799)

/*
 * Theory of operation. This runs once for every file that a build touches, so nothing here
 * goes through printf: runs of ordinary characters are copied whole, and the date, which is
 * the dear part of a time stamp, is formatted when the second changes.
 */
struct record_encoder {
	uint64_t second;
	char second_text[RECORD_TIME_LENGTH + 1]; /* with zero nanoseconds */
	char escaped[AUDIT_TEXT_MAX * 4 + 1];
};

struct record_encoder *record_encoder_new(void)
{
	struct record_encoder *encoder = calloc(1, sizeof(*encoder));

	if (encoder)
		encoder->second = UINT64_MAX;
	return encoder;
}

void record_encoder_free(struct record_encoder *encoder)
{
	free(encoder);
}

/* `width` > 0 pads with zeros to that many digits. */
static void put_number(struct byte_writer *writer, uint64_t value, size_t width)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0 || sizeof(digits) - at < width);
	byte_writer_bytes(writer, digits + at, sizeof(digits) - at);
}

static void put_literal(struct byte_writer *writer, const char *text)
{
	byte_writer_bytes(writer, text, strlen(text));
}

static void put_digits(char *text, uint64_t value, int count)
{
	for (int i = count - 1; i >= 0; i--, value /= 10)
		text[i] = (char)('0' + value % 10);
}

/*
 * The day in the Gregorian calendar. Not by gmtime_r() and strftime(): these open
 * /etc/localtime, in which the jail sees an attack. Counted from 1 March of the year 0, so that
 * the leap day ends the year and 400 years are 146097 days.
 */
static void format_day(uint64_t days_since_1970, char *text)
{
	uint64_t days = days_since_1970 + 719468;
	uint64_t era = days / 146097;
	uint64_t day_of_era = days % 146097;
	uint64_t year_of_era =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	uint64_t day_of_year =
		day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	/* Months from March are 31, 30, 31, 30, 31 days long, again and again: 153 for five. */
	uint64_t month = (5 * day_of_year + 2) / 153;
	uint64_t january_or_february = month >= 10;

	put_digits(text, era * 400 + year_of_era + january_or_february, 4);
	put_digits(text + 5, january_or_february ? month - 9 : month + 3, 2);
	put_digits(text + 8, day_of_year - (153 * month + 2) / 5 + 1, 2);
}

static void format_second(uint64_t second, char text[RECORD_TIME_LENGTH + 1])
{
	second = MIN_OF(second, LAST_SECOND);
	memcpy(text, "0000-00-00T00:00:00.000000000Z", RECORD_TIME_LENGTH + 1);
	format_day(second / 86400, text);
	put_digits(text + 11, second / 3600 % 24, 2);
	put_digits(text + 14, second / 60 % 60, 2);
	put_digits(text + 17, second % 60, 2);
}

void record_format_time(uint64_t realtime_ns, char text[RECORD_TIME_LENGTH + 1])
{
	format_second(realtime_ns / NS_PER_SECOND, text);
	put_digits(text + RECORD_TIME_LENGTH - 10, realtime_ns % NS_PER_SECOND, 9);
}

static void put_time(struct record_encoder *encoder, struct byte_writer *writer,
		     uint64_t realtime_ns)
{
	uint64_t second = realtime_ns / NS_PER_SECOND;

	if (second != encoder->second) {
		format_second(second, encoder->second_text);
		encoder->second = second;
	}
	byte_writer_bytes(writer, encoder->second_text, RECORD_TIME_LENGTH - 10);
	put_number(writer, realtime_ns % NS_PER_SECOND, 9);
	byte_writer_bytes(writer, "Z", 1);
}

/* Returns whether the text had to be escaped. */
static bool put_field(struct record_encoder *encoder, struct byte_writer *writer,
		      const struct audit_field_view *field)
{
	size_t length;

	byte_writer_bytes(writer, ",\"", 2);
	put_literal(writer, audit_field_name(field->field));
	byte_writer_bytes(writer, "\":", 2);
	if (field->type == AUDIT_TYPE_NUMBER) {
		put_number(writer, field->number, 0);
		return false;
	}
	if (text_is_plain(field->text, field->text_length)) {
		text_put_json(writer, field->text, field->text_length);
		return false;
	}
	length = escape_text(field->text, field->text_length, encoder->escaped,
			     sizeof(encoder->escaped));
	text_put_json(writer, encoder->escaped, length);
	return true;
}

static void put_escaped_names(struct byte_writer *writer, const struct audit_event_view *event,
			      uint32_t escaped)
{
	const char *separator = "\"";

	put_literal(writer, ",\"escaped\":[");
	for (uint16_t i = 0; i < event->field_count; i++) {
		if (!(escaped >> i & 1))
			continue;
		put_literal(writer, separator);
		put_literal(writer, audit_field_name(event->fields[i].field));
		separator = "\",\"";
	}
	put_literal(writer, "\"]");
}

void record_encode(struct record_encoder *encoder, const struct audit_event_view *event,
		   const struct record_stamp *stamp, struct byte_writer *writer)
{
	char hex[DIGEST_HEX_SIZE];
	uint32_t escaped = 0;

	_Static_assert(AUDIT_FIELDS_MAX <= 32, "one bit for each field");
	put_literal(writer, "{\"seq\":");
	put_number(writer, stamp->sequence, 0);
	put_literal(writer, ",\"mono_ns\":");
	put_number(writer, stamp->monotonic_ns, 0);
	put_literal(writer, ",\"time\":\"");
	put_time(encoder, writer, stamp->realtime_ns);
	put_literal(writer, "\",\"kind\":\"");
	put_literal(writer, audit_kind_name(event->kind));
	put_literal(writer, "\"");
	for (uint16_t i = 0; i < event->field_count; i++) {
		if (put_field(encoder, writer, &event->fields[i]))
			escaped |= UINT32_C(1) << i;
	}
	if (escaped)
		put_escaped_names(writer, event, escaped);
	digest_to_hex(stamp->previous, hex);
	put_literal(writer, ",\"prev\":\"");
	byte_writer_bytes(writer, hex, sizeof(hex));
	put_literal(writer, "\"}\n");
}
