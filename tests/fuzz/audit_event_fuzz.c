/*
 * One datagram of a producer: the decoder, the record it becomes, and the parser of that record.
 * Whatever decodes must come back from the log with the same bytes.
 */
#include "audit/record.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
	if (!condition)
		abort();
}

static void compare(const struct audit_event_view *event, const struct record *record)
{
	static char text[RECORD_TEXT_MAX];

	require(record->kind == event->kind && record->field_count == event->field_count);
	for (uint16_t i = 0; i < event->field_count; i++) {
		const struct audit_field_view *sent = &event->fields[i];
		const struct record_field *got = &record->fields[i];

		require(got->field == sent->field && got->type == sent->type);
		if (sent->type == AUDIT_TYPE_NUMBER) {
			require(got->number == sent->number);
			continue;
		}
		require(record_text(got, text) == (ssize_t)sent->text_length);
		require(sent->text_length == 0 || !memcmp(text, sent->text, sent->text_length));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t previous[DIGEST_SIZE] = { 1 };
	static const struct record_stamp stamp = { 1, 2, 3, previous };
	static uint8_t output[RECORD_LINE_MAX];
	static struct record_encoder *encoder;
	static struct audit_event_view event;
	static struct record record;
	struct byte_writer writer;

	if (!encoder)
		encoder = record_encoder_new();
	if (!encoder || size > AUDIT_EVENT_MAX || audit_event_decode(data, size, &event))
		return 0;
	byte_writer_init(&writer, output, sizeof(output));
	record_encode(encoder, &event, &stamp, &writer);
	require(byte_writer_ok(&writer) && output[writer.length - 1] == '\n');
	for (size_t i = 0; i + 1 < writer.length; i++)
		require(output[i] >= 0x20 && output[i] != 0x7f);
	require(record_parse((const char *)output, writer.length - 1, &record) == 0);
	compare(&event, &record);
	return 0;
}
