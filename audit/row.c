#include "audit/row.h"

#include "base/escape.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct row_buffers {
	char raw[RECORD_TEXT_MAX + 1];
	char escaped[4 * RECORD_TEXT_MAX + 1];
};

#define COLOUR_RED "\033[31m"
#define COLOUR_YELLOW "\033[33m"
#define COLOUR_BOLD "\033[1m"
#define COLOUR_DIM "\033[2m"
#define COLOUR_END "\033[0m"

struct row_buffers *row_buffers_new(void)
{
	return malloc(sizeof(struct row_buffers));
}

void row_buffers_free(struct row_buffers *buffers)
{
	free(buffers);
}

const char *row_field_text(struct row_buffers *buffers, const struct record_field *field)
{
	ssize_t length = record_text(field, buffers->raw);

	if (length < 0)
		return NULL;
	buffers->raw[length] = '\0';
	if (!memchr(buffers->raw, '\0', (size_t)length))
		return buffers->raw;
	escape_text(buffers->raw, (size_t)length, buffers->escaped, sizeof(buffers->escaped));
	return buffers->escaped;
}

static void print_text(struct row_buffers *buffers, const struct record_field *field, FILE *output)
{
	ssize_t length = record_text(field, buffers->raw);

	if (length < 0)
		return;
	escape_text(buffers->raw, (size_t)length, buffers->escaped, sizeof(buffers->escaped));
	fputs(buffers->escaped, output);
}

static const char *kind_colour(enum audit_kind kind)
{
	switch (kind) {
	case AUDIT_DENIAL:
	case AUDIT_GRANT:
		return COLOUR_YELLOW;
	case AUDIT_VIOLATION:
	case AUDIT_CANARY:
		return COLOUR_RED;
	case AUDIT_SESSION_START:
	case AUDIT_SESSION_END:
	case AUDIT_EXEC:
	case AUDIT_EXIT:
	case AUDIT_ROLLBACK:
		return COLOUR_BOLD;
	case AUDIT_MUTATION:
	case AUDIT_POLICY:
	case AUDIT_JAIL:
	case AUDIT_NOTICE:
	case AUDIT_REQUEST:
	case AUDIT_CONNECTION:
	default:
		return "";
	}
}

void row_print_header(FILE *output, bool colour)
{
	fprintf(output, "%s%8s  %-23s  %-13s  %-12s  %s%s\n", colour ? COLOUR_DIM : "", "SEQ",
		"TIME (UTC)", "KIND", "OPERATION", "WHAT", colour ? COLOUR_END : "");
}

/* The field that says what a record is about, and has no name in front. */
static bool is_subject(enum audit_field field)
{
	return field == AUDIT_FIELD_PATH || field == AUDIT_FIELD_COMMAND ||
	       field == AUDIT_FIELD_DETAIL || field == AUDIT_FIELD_HOST;
}

static void print_subject(struct row_buffers *buffers, const struct record *record, FILE *output)
{
	const struct record_field *path2 = record_find(record, AUDIT_FIELD_PATH2);
	const char *separator = "";

	for (uint16_t i = 0; i < record->field_count; i++) {
		const struct record_field *field = &record->fields[i];

		if (!is_subject(field->field) || field->type != AUDIT_TYPE_TEXT)
			continue;
		fputs(separator, output);
		print_text(buffers, field, output);
		if (field->field == AUDIT_FIELD_PATH && path2) {
			fputs(" -> ", output);
			print_text(buffers, path2, output);
		}
		separator = "  ";
	}
}

static void print_rest(struct row_buffers *buffers, const struct record *record, FILE *output)
{
	bool has_path = record_find(record, AUDIT_FIELD_PATH) != NULL;
	bool has_operation = record_find(record, AUDIT_FIELD_OPERATION) != NULL;

	for (uint16_t i = 0; i < record->field_count; i++) {
		const struct record_field *field = &record->fields[i];

		if ((is_subject(field->field) && field->type == AUDIT_TYPE_TEXT) ||
		    field->field == AUDIT_FIELD_OPERATION ||
		    (field->field == AUDIT_FIELD_COMPONENT && !has_operation) ||
		    (field->field == AUDIT_FIELD_PATH2 && has_path))
			continue;
		fprintf(output, "  %s=", audit_field_name(field->field));
		if (field->field == AUDIT_FIELD_MODE && field->type == AUDIT_TYPE_NUMBER)
			fprintf(output, "%04" PRIo64, field->number);
		else if (field->type == AUDIT_TYPE_NUMBER)
			fprintf(output, "%" PRIu64, field->number);
		else
			print_text(buffers, field, output);
	}
}

void row_print(struct row_buffers *buffers, const struct record *record, bool colour, FILE *output)
{
	const struct record_field *operation = record_find(record, AUDIT_FIELD_OPERATION);
	const struct record_field *component = record_find(record, AUDIT_FIELD_COMPONENT);
	const char *name = "";

	/* "2026-11-20 18:55:00.123" */
	fprintf(output, "%8" PRIu64 "  %.10s %.12s  %s%-13s%s  ", record->sequence, record->time,
		record->time + 11, colour ? kind_colour(record->kind) : "",
		audit_kind_name(record->kind), colour ? COLOUR_END : "");
	if (!operation && component)
		operation = component;
	if (operation && record_text(operation, buffers->raw) >= 0) {
		ssize_t length = record_text(operation, buffers->raw);

		escape_text(buffers->raw, (size_t)length, buffers->escaped,
			    sizeof(buffers->escaped));
		name = buffers->escaped;
	}
	fprintf(output, "%-12s  ", name);
	print_subject(buffers, record, output);
	print_rest(buffers, record, output);
	putc('\n', output);
}
