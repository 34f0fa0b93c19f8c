#include "cli/flat_yaml.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

/*
 * Theory of operation
 *
 * Two readings of the same text. The first goes over libyaml's events, holds what a schema cannot
 * (no aliases, which make a small file large; no repeated key; true and false and no other words)
 * and notes the lines. The second is libcyaml's, which checks types and loads the values.
 */

struct scanner {
	yaml_parser_t parser;
	yaml_event_t event;
	bool has_event;
	const struct flat_yaml_form *form;
	const char *file_name;
	char *key; /* escaped; of the entry being read; or NULL */
	struct flat_yaml_lines *lines;
	size_t items;
	struct problem *problem;
};

static int fail(const struct scanner *scanner, size_t line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(const struct scanner *scanner, size_t line, const char *format, ...)
{
	char what[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	return problem_set(scanner->problem, STATUS_USAGE, "%s:%zu: %s%s%s", scanner->file_name,
			   line, scanner->key ? scanner->key : "", scanner->key ? ": " : "", what);
}

static size_t event_line(const struct scanner *scanner)
{
	return scanner->event.start_mark.line + 1;
}

/* ---- first reading -------------------------------------------------------------------------- */

static bool is_decorated(const yaml_event_t *event)
{
	switch ((int)event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.anchor || event->data.scalar.tag;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.anchor || event->data.sequence_start.tag;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor || event->data.mapping_start.tag;
	default:
		return event->type == YAML_ALIAS_EVENT;
	}
}

static int next_event(struct scanner *scanner)
{
	if (scanner->has_event)
		yaml_event_delete(&scanner->event);
	scanner->has_event = false;
	if (!yaml_parser_parse(&scanner->parser, &scanner->event))
		return fail(scanner, scanner->parser.problem_mark.line + 1, "not YAML: %s",
			    scanner->parser.problem ? scanner->parser.problem : "unreadable");
	scanner->has_event = true;
	if (is_decorated(&scanner->event))
		return fail(scanner, event_line(scanner),
			    "anchors (&name), aliases (*name) and tags (!name) are not taken "
			    "here; put text that begins so in quotes");
	return 0;
}

static int expect(struct scanner *scanner, yaml_event_type_t type, const char *wanted)
{
	if (next_event(scanner) < 0)
		return -1;
	if (scanner->event.type != type)
		return fail(scanner, event_line(scanner), "expected %s", wanted);
	return 0;
}

static const char *scalar_text(const struct scanner *scanner)
{
	return (const char *)scanner->event.data.scalar.value;
}

/* The event is a scalar that says something. */
static int check_scalar(const struct scanner *scanner)
{
	const char *text = scalar_text(scanner);

	if (strlen(text) != scanner->event.data.scalar.length)
		return fail(scanner, event_line(scanner), "holds a NUL character");
	if (*text == '\0' || (scanner->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
			      (strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0)))
		return fail(scanner, event_line(scanner), "is empty; write a value, or remove it");
	return 0;
}

static int scan_list(struct scanner *scanner, size_t index)
{
	if (expect(scanner, YAML_SEQUENCE_START_EVENT, "a list, such as [\"one\", \"two\"]") < 0)
		return -1;
	for (;;) {
		unsigned *items = scanner->lines->keys[index].items;
		size_t count = scanner->lines->keys[index].item_count;

		if (next_event(scanner) < 0)
			return -1;
		if (scanner->event.type == YAML_SEQUENCE_END_EVENT)
			return 0;
		if (scanner->event.type != YAML_SCALAR_EVENT)
			return fail(scanner, event_line(scanner),
				    "each item is one text; put one that holds special characters "
				    "in quotes");
		if (check_scalar(scanner) < 0)
			return -1;
		if (scanner->items++ >= FLAT_YAML_ITEMS_MAX)
			return fail(scanner, event_line(scanner), "more than %u items",
				    FLAT_YAML_ITEMS_MAX);
		items = reallocarray(items, count + 1, sizeof(*items));
		if (!items)
			return fail(scanner, event_line(scanner), "no memory");
		items[count] = (unsigned)event_line(scanner);
		scanner->lines->keys[index].items = items;
		scanner->lines->keys[index].item_count++;
	}
}

static int scan_value(struct scanner *scanner, const cyaml_schema_field_t *field, size_t index)
{
	if (field->value.type == CYAML_SEQUENCE)
		return scan_list(scanner, index);
	if (expect(scanner, YAML_SCALAR_EVENT, "one value, not a list or a mapping") < 0 ||
	    check_scalar(scanner) < 0)
		return -1;
	if (field->value.type == CYAML_BOOL && strcmp(scalar_text(scanner), "true") != 0 &&
	    strcmp(scalar_text(scanner), "false") != 0)
		return fail(scanner, event_line(scanner), "expected true or false");
	if (strcmp(field->key, "version") == 0 && strcmp(scalar_text(scanner), "1") != 0)
		return fail(scanner, event_line(scanner),
			    "this Matchlock reads version 1 only; write version: 1");
	return 0;
}

static int unknown_key(const struct scanner *scanner, const char *key)
{
	const cyaml_schema_field_t *fields = scanner->form->schema->mapping.fields;
	const struct flat_yaml_refusal *refusal = scanner->form->refusals;
	const char *names[FLAT_YAML_KEYS_MAX];
	const char *near;
	size_t count = 0;

	for (; refusal && refusal->key; refusal++) {
		if (strcmp(refusal->key, key) == 0)
			return fail(scanner, event_line(scanner), "%s", refusal->why);
	}
	for (; count < FLAT_YAML_KEYS_MAX && fields[count].key; count++)
		names[count] = fields[count].key;
	near = suggest(key, names, count);
	if (near)
		return fail(scanner, event_line(scanner), "unknown key; did you mean %s?", near);
	return fail(scanner, event_line(scanner), "unknown key; see %s", scanner->form->manual);
}

static int scan_entry(struct scanner *scanner)
{
	const cyaml_schema_field_t *field = scanner->form->schema->mapping.fields;
	size_t index = scanner->lines->count;

	if (scanner->event.type != YAML_SCALAR_EVENT)
		return fail(scanner, event_line(scanner), "a key must be a plain word");
	free(scanner->key);
	scanner->key = escape_copy(scalar_text(scanner));
	if (strlen(scalar_text(scanner)) != scanner->event.data.scalar.length)
		return fail(scanner, event_line(scanner), "holds a NUL character");
	while (field->key && strcmp(field->key, scalar_text(scanner)) != 0)
		field++;
	if (!field->key)
		return unknown_key(scanner, scalar_text(scanner));
	if (flat_yaml_key_line(scanner->lines, field->key))
		return fail(scanner, event_line(scanner),
			    "is given twice (first in line %u); join them",
			    flat_yaml_key_line(scanner->lines, field->key));
	/* Each key once, so that there are never more than the schema has. */
	scanner->lines->keys[index].key = field->key;
	scanner->lines->keys[index].line = (unsigned)event_line(scanner);
	scanner->lines->count++;
	return scan_value(scanner, field, index);
}

static int scan_document(struct scanner *scanner)
{
	if (expect(scanner, YAML_STREAM_START_EVENT, "YAML") < 0 || next_event(scanner) < 0)
		return -1;
	if (scanner->event.type != YAML_DOCUMENT_START_EVENT)
		return fail(scanner, 1,
			    "version: the file is empty; write at least \"version: 1\"");
	if (expect(scanner, YAML_MAPPING_START_EVENT,
		   "keys with values; write at least \"version: 1\"") < 0)
		return -1;
	for (;;) {
		if (next_event(scanner) < 0)
			return -1;
		if (scanner->event.type == YAML_MAPPING_END_EVENT)
			break;
		if (scan_entry(scanner) < 0)
			return -1;
		free(scanner->key);
		scanner->key = NULL;
	}
	if (flat_yaml_key_line(scanner->lines, "version") == 0)
		return fail(scanner, 1, "version: is missing; write \"version: 1\" first");
	if (expect(scanner, YAML_DOCUMENT_END_EVENT, "the end of the document") < 0)
		return -1;
	return expect(scanner, YAML_STREAM_END_EVENT,
		      "one document only; remove what follows \"---\"");
}

static int scan(const struct flat_yaml_form *form, const char *text, size_t length,
		const char *file_name, struct flat_yaml_lines *lines, struct problem *problem)
{
	struct scanner scanner = {
		.form = form, .file_name = file_name, .lines = lines, .problem = problem
	};
	int result;

	if (!yaml_parser_initialize(&scanner.parser))
		return problem_set(problem, STATUS_SANDBOX, "%s: no memory", file_name);
	yaml_parser_set_input_string(&scanner.parser, (const unsigned char *)text, length);
	yaml_parser_set_encoding(&scanner.parser, YAML_UTF8_ENCODING);
	result = scan_document(&scanner);
	if (scanner.has_event)
		yaml_event_delete(&scanner.event);
	yaml_parser_delete(&scanner.parser);
	free(scanner.key);
	return result;
}

/* ---- second reading ------------------------------------------------------------------------- */

/* What libcyaml logs of an error: its first line, and the first of its backtrace with a place. */
struct schema_log {
	char what[256];
	char where[256];
};

static void on_schema_log(cyaml_log_t level, void *context, const char *format, va_list arguments)
	__attribute__((format(printf, 3, 0)));

static void on_schema_log(cyaml_log_t level, void *context, const char *format, va_list arguments)
{
	struct schema_log *log = context;
	char line[256];

	(void)level;
	vsnprintf(line, sizeof(line), format, arguments);
	line[strcspn(line, "\n")] = '\0';
	if (log->what[0] == '\0')
		memcpy(log->what, line, sizeof(line));
	else if (log->where[0] == '\0' && strstr(line, "line:"))
		memcpy(log->where, line, sizeof(line));
}

/* libcyaml says "Load: what" and "  in mapping field 'key' (line: N, column: M)". */
static int schema_failed(const struct schema_log *log, const struct flat_yaml_form *form,
			 const char *file_name, struct problem *problem)
{
	cleanup_free char *what =
		escape_copy(strncmp(log->what, "Load: ", 6) == 0 ? log->what + 6 : log->what);
	const char *at = strstr(log->where, "line: ");
	const char *quote = strchr(log->where, '\'');
	int length = quote ? (int)strcspn(quote + 1, "'") : 0;

	return problem_set(problem, STATUS_USAGE, "%s:%lu: %.*s%s%s; see %s", file_name,
			   at ? strtoul(at + 6, NULL, 10) : 1ul, length, quote ? quote + 1 : "",
			   length ? ": " : "", what, form->manual);
}

int flat_yaml_read(const struct flat_yaml_form *form, const char *text, size_t length,
		   const char *file_name, void **ret_data, struct flat_yaml_lines *ret_lines,
		   struct problem *problem)
{
	struct schema_log log = { .what = "" };
	const cyaml_config_t config = {
		.log_fn = on_schema_log,
		.log_ctx = &log,
		.mem_fn = cyaml_mem,
		.log_level = CYAML_LOG_ERROR,
		.flags = CYAML_CFG_NO_ALIAS,
	};
	struct flat_yaml_lines lines = { .count = 0 };
	cyaml_data_t *data = NULL;

	if (length > FLAT_YAML_BYTES_MAX)
		return problem_set(problem, STATUS_USAGE, "%s:1: the file is larger than %u bytes",
				   file_name, FLAT_YAML_BYTES_MAX);
	if (scan(form, text, length, file_name, &lines, problem) < 0) {
		flat_yaml_free(form, NULL, &lines);
		return -1;
	}
	if (cyaml_load_data((const uint8_t *)text, length, &config, form->schema, &data, NULL) !=
		    CYAML_OK ||
	    !data) {
		flat_yaml_free(form, NULL, &lines);
		return schema_failed(&log, form, file_name, problem);
	}
	*ret_data = data;
	*ret_lines = lines;
	return 0;
}

void flat_yaml_free(const struct flat_yaml_form *form, void *data, struct flat_yaml_lines *lines)
{
	const cyaml_config_t config = { .mem_fn = cyaml_mem, .flags = CYAML_CFG_NO_ALIAS };

	if (data)
		cyaml_free(&config, form->schema, data, 0);
	for (size_t i = 0; i < lines->count; i++)
		free(lines->keys[i].items);
	*lines = (struct flat_yaml_lines){ .count = 0 };
}

/* ---- lines ---------------------------------------------------------------------------------- */

unsigned flat_yaml_key_line(const struct flat_yaml_lines *lines, const char *key)
{
	for (size_t i = 0; i < lines->count; i++) {
		if (strcmp(lines->keys[i].key, key) == 0)
			return lines->keys[i].line;
	}
	return 0;
}

unsigned flat_yaml_item_line(const struct flat_yaml_lines *lines, const char *key, size_t item)
{
	for (size_t i = 0; i < lines->count; i++) {
		if (strcmp(lines->keys[i].key, key) == 0)
			return item < lines->keys[i].item_count ? lines->keys[i].items[item] : 0;
	}
	return 0;
}
