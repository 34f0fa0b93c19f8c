#include "fsserver/policy_file.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/escape.h"
#include "fsserver/policy.h"

/*
 * Theory of operation
 *
 * Two readings of the same text. The first goes over libyaml's events and holds what a schema
 * cannot: one document, no anchors, aliases or tags (an alias can make a small file large), no
 * nesting deeper than the format has, no NUL in a rule, no unknown or repeated key - each error
 * with the line of its key - and it notes the line of every rule. The second is libcyaml's strict
 * schema, which checks types and loads the values. Its count of rules must equal the first's.
 */

static const char *const list_names[POLICY_FILE_LISTS] = {
	[POLICY_FILE_DENY] = "deny",
	[POLICY_FILE_ALLOW] = "allow",
	[POLICY_FILE_HIDE] = "hide",
	[POLICY_FILE_READONLY] = "readonly",
};

const char *policy_file_list_name(enum policy_file_list list)
{
	return list_names[list];
}

struct lines {
	unsigned *items[POLICY_FILE_LISTS];
	size_t count[POLICY_FILE_LISTS];
	unsigned key_line[POLICY_FILE_LISTS];
	unsigned version_line;
	unsigned name_line;
	unsigned protect_line;
	unsigned egress_line;
	unsigned canary_line;
};

struct scanner {
	yaml_parser_t parser;
	yaml_event_t event;
	bool has_event;
	const char *file_name;
	char key[64]; /* escaped; of the entry being read */
	struct lines *lines;
	char *error;
	size_t error_capacity;
};

#define KEYS_KNOWN "version, name, deny, allow, hide, readonly, protect, egress, canary"
#define SKIPPED_DEPTH_MAX 16u

/* ---- errors ------------------------------------------------------------------------------------
 */

static int fail(struct scanner *scanner, size_t line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct scanner *scanner, size_t line, const char *format, ...)
{
	char what[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	if (scanner->key[0] != '\0')
		snprintf(scanner->error, scanner->error_capacity, "%s:%zu: %s: %s",
			 scanner->file_name, line, scanner->key, what);
	else
		snprintf(scanner->error, scanner->error_capacity, "%s:%zu: %s", scanner->file_name,
			 line, what);
	return -EINVAL;
}

static size_t event_line(const struct scanner *scanner)
{
	return scanner->event.start_mark.line + 1;
}

/* ---- first reading: events ---------------------------------------------------------------------
 */

static int next_event(struct scanner *scanner)
{
	const yaml_char_t *anchor = NULL;
	const yaml_char_t *tag = NULL;

	if (scanner->has_event)
		yaml_event_delete(&scanner->event);
	scanner->has_event = false;
	if (!yaml_parser_parse(&scanner->parser, &scanner->event)) {
		size_t line = scanner->parser.problem_mark.line + 1;

		if (scanner->parser.error == YAML_MEMORY_ERROR)
			return -ENOMEM;
		return fail(scanner, line, "not YAML: %s",
			    scanner->parser.problem != NULL ? scanner->parser.problem
							    : "unreadable");
	}
	scanner->has_event = true;
	if (scanner->event.type == YAML_ALIAS_EVENT)
		return fail(scanner, event_line(scanner),
			    "aliases (*name) are not taken here; write the value out");
	if (scanner->event.type == YAML_SCALAR_EVENT) {
		anchor = scanner->event.data.scalar.anchor;
		tag = scanner->event.data.scalar.tag;
	} else if (scanner->event.type == YAML_SEQUENCE_START_EVENT) {
		anchor = scanner->event.data.sequence_start.anchor;
		tag = scanner->event.data.sequence_start.tag;
	} else if (scanner->event.type == YAML_MAPPING_START_EVENT) {
		anchor = scanner->event.data.mapping_start.anchor;
		tag = scanner->event.data.mapping_start.tag;
	}
	if (anchor != NULL || tag != NULL)
		return fail(scanner, event_line(scanner),
			    "anchors (&name) and tags (!name) are not taken here; remove them");
	return 0;
}

static int expect(struct scanner *scanner, yaml_event_type_t type, const char *wanted)
{
	int error = next_event(scanner);

	if (error < 0)
		return error;
	if (scanner->event.type != type)
		return fail(scanner, event_line(scanner), "expected %s", wanted);
	return 0;
}

static const char *scalar_text(const struct scanner *scanner)
{
	return (const char *)scanner->event.data.scalar.value;
}

static int check_scalar(struct scanner *scanner)
{
	if (strlen(scalar_text(scanner)) != scanner->event.data.scalar.length)
		return fail(scanner, event_line(scanner), "holds a NUL character");
	return 0;
}

static bool is_null_text(const struct scanner *scanner)
{
	const char *text = scalar_text(scanner);

	return scanner->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	       (*text == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0);
}

static bool has_control_character(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

static void set_key(struct scanner *scanner, const char *prefix)
{
	size_t used = strlen(prefix);

	memcpy(scanner->key, prefix, used);
	escape_text(scalar_text(scanner), scanner->event.data.scalar.length, scanner->key + used,
		    sizeof(scanner->key) - used);
}

static int add_line(struct scanner *scanner, enum policy_file_list list, size_t line)
{
	struct lines *lines = scanner->lines;
	unsigned *items;
	size_t total = 0;

	for (size_t i = 0; i < POLICY_FILE_LISTS; i++)
		total += lines->count[i];
	if (total >= POLICY_RULES_MAX)
		return fail(scanner, line, "more than %u rules; join some with wildcards",
			    POLICY_RULES_MAX);
	items = reallocarray(lines->items[list], lines->count[list] + 1, sizeof(unsigned));
	if (items == NULL)
		return -ENOMEM;
	items[lines->count[list]++] = (unsigned)line;
	lines->items[list] = items;
	return 0;
}

static int scan_list(struct scanner *scanner, enum policy_file_list list)
{
	int error = expect(scanner, YAML_SEQUENCE_START_EVENT,
			   "a list of patterns, for example [\"secrets/**\"]");

	while (error == 0) {
		error = next_event(scanner);
		if (error < 0 || scanner->event.type == YAML_SEQUENCE_END_EVENT)
			break;
		if (scanner->event.type != YAML_SCALAR_EVENT)
			return fail(scanner, event_line(scanner),
				    "each rule is one pattern, not a list or a mapping; put a "
				    "pattern that holds special characters in quotes");
		error = check_scalar(scanner);
		if (error < 0)
			break;
		if (is_null_text(scanner))
			return fail(scanner, event_line(scanner),
				    "an empty rule; name a pattern or remove the line");
		if (scanner->event.data.scalar.length > POLICY_PATTERN_MAX)
			return fail(scanner, event_line(scanner),
				    "a pattern of more than %u bytes; shorten it with wildcards",
				    POLICY_PATTERN_MAX);
		error = add_line(scanner, list, event_line(scanner));
	}
	return error;
}

static int scan_plain(struct scanner *scanner, const char *wanted)
{
	int error = expect(scanner, YAML_SCALAR_EVENT, wanted);

	if (error == 0)
		error = check_scalar(scanner);
	if (error == 0 && is_null_text(scanner))
		error = fail(scanner, event_line(scanner), "expected %s", wanted);
	return error;
}

static int scan_protect(struct scanner *scanner)
{
	bool seen = false;
	int error =
		expect(scanner, YAML_MAPPING_START_EVENT, "a mapping: {agent_instructions: false}");

	while (error == 0) {
		error = next_event(scanner);
		if (error < 0 || scanner->event.type == YAML_MAPPING_END_EVENT)
			break;
		if (scanner->event.type != YAML_SCALAR_EVENT)
			return fail(scanner, event_line(scanner), "a key must be a plain word");
		set_key(scanner, "protect.");
		if (strcmp(scalar_text(scanner), "agent_instructions") != 0)
			return fail(scanner, event_line(scanner),
				    "unknown key; the only one here is agent_instructions (other "
				    "protections are opened one by one under allow)");
		if (seen)
			return fail(scanner, event_line(scanner), "is given twice; keep one");
		seen = true;
		error = scan_plain(scanner, "true or false");
		if (error == 0 && strcmp(scalar_text(scanner), "true") != 0 &&
		    strcmp(scalar_text(scanner), "false") != 0)
			return fail(scanner, event_line(scanner), "expected true or false");
	}
	return error;
}

/* The rules of the network, which matchlock hands to the broker: a list of whatever form. */
static int skip_list(struct scanner *scanner)
{
	int error = expect(scanner, YAML_SEQUENCE_START_EVENT, "a list of rules");
	size_t depth = 1;

	while (error == 0 && depth > 0) {
		error = next_event(scanner);
		if (error < 0)
			break;
		if (scanner->event.type == YAML_SEQUENCE_START_EVENT ||
		    scanner->event.type == YAML_MAPPING_START_EVENT)
			depth++;
		else if (scanner->event.type == YAML_SEQUENCE_END_EVENT ||
			 scanner->event.type == YAML_MAPPING_END_EVENT)
			depth--;
		if (depth > SKIPPED_DEPTH_MAX)
			return fail(scanner, event_line(scanner), "is nested too deep");
	}
	return error;
}

static int seen_twice(struct scanner *scanner, unsigned *line)
{
	if (*line != 0)
		return fail(scanner, event_line(scanner),
			    "is given twice (first in line %u); join them", *line);
	*line = (unsigned)event_line(scanner);
	return 0;
}

static int scan_entry(struct scanner *scanner)
{
	const char *key;
	int error;

	if (scanner->event.type != YAML_SCALAR_EVENT)
		return fail(scanner, event_line(scanner), "a key must be a plain word");
	set_key(scanner, "");
	key = scalar_text(scanner);
	for (size_t i = 0; i < POLICY_FILE_LISTS; i++) {
		if (strcmp(key, list_names[i]) != 0)
			continue;
		error = seen_twice(scanner, &scanner->lines->key_line[i]);
		return error < 0 ? error : scan_list(scanner, (enum policy_file_list)i);
	}
	if (strcmp(key, "version") == 0) {
		error = seen_twice(scanner, &scanner->lines->version_line);
		if (error == 0)
			error = scan_plain(scanner, "the number 1");
		if (error == 0 && strcmp(scalar_text(scanner), "1") != 0)
			return fail(scanner, event_line(scanner),
				    "this Matchlock reads version 1 only; write version: 1");
		return error;
	}
	if (strcmp(key, "name") == 0) {
		error = seen_twice(scanner, &scanner->lines->name_line);
		if (error == 0)
			error = scan_plain(scanner, "a short text");
		if (error == 0 && scanner->event.data.scalar.length > 64)
			return fail(scanner, event_line(scanner),
				    "is longer than 64 bytes; shorten it");
		if (error == 0 && has_control_character(scalar_text(scanner)))
			return fail(scanner, event_line(scanner),
				    "holds a control character; remove it");
		return error;
	}
	if (strcmp(key, "protect") == 0) {
		error = seen_twice(scanner, &scanner->lines->protect_line);
		return error < 0 ? error : scan_protect(scanner);
	}
	if (strcmp(key, "egress") == 0) {
		error = seen_twice(scanner, &scanner->lines->egress_line);
		return error < 0 ? error : skip_list(scanner);
	}
	if (strcmp(key, "canary") == 0) {
		error = seen_twice(scanner, &scanner->lines->canary_line);
		return error < 0 ? error : scan_plain(scanner, "deny or freeze");
	}
	return fail(scanner, event_line(scanner), "unknown key; the keys are " KEYS_KNOWN);
}

static int scan_document(struct scanner *scanner)
{
	int error = expect(scanner, YAML_STREAM_START_EVENT, "YAML");

	if (error == 0)
		error = next_event(scanner);
	if (error == 0 && scanner->event.type != YAML_DOCUMENT_START_EVENT)
		return fail(scanner, 1,
			    "version: the file is empty; write at least \"version: 1\"");
	if (error == 0)
		error = expect(scanner, YAML_MAPPING_START_EVENT,
			       "keys with values; write at least \"version: 1\"");
	while (error == 0) {
		scanner->key[0] = '\0';
		error = next_event(scanner);
		if (error < 0 || scanner->event.type == YAML_MAPPING_END_EVENT)
			break;
		error = scan_entry(scanner);
	}
	if (error == 0 && scanner->lines->version_line == 0)
		return fail(scanner, 1, "version: is missing; write \"version: 1\" first");
	if (error == 0)
		error = expect(scanner, YAML_DOCUMENT_END_EVENT, "the end of the document");
	if (error == 0)
		error = expect(scanner, YAML_STREAM_END_EVENT,
			       "one document only; remove what follows \"---\"");
	return error;
}

static int scan(const char *text, size_t length, const char *file_name, struct lines *lines,
		char *error_text, size_t error_capacity)
{
	struct scanner scanner = { .file_name = file_name,
				   .lines = lines,
				   .error = error_text,
				   .error_capacity = error_capacity };
	int error;

	if (!yaml_parser_initialize(&scanner.parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&scanner.parser, (const unsigned char *)text, length);
	yaml_parser_set_encoding(&scanner.parser, YAML_UTF8_ENCODING);
	error = scan_document(&scanner);
	if (scanner.has_event)
		yaml_event_delete(&scanner.event);
	yaml_parser_delete(&scanner.parser);
	return error;
}

/* ---- second reading: schema --------------------------------------------------------------------
 */

struct document_protect {
	bool agent_instructions;
};

struct document {
	unsigned version;
	char *name;
	struct document_protect *protect;
	char **deny;
	unsigned deny_count;
	char **allow;
	unsigned allow_count;
	char **hide;
	unsigned hide_count;
	char **readonly;
	unsigned readonly_count;
};

#define OPTIONAL (CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER)

/* clang-format off: the macros are the library's table syntax */
static const cyaml_schema_value_t pattern_schema = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, POLICY_PATTERN_MAX),
};

static const cyaml_schema_field_t protect_fields[] = {
	CYAML_FIELD_BOOL("agent_instructions", CYAML_FLAG_DEFAULT, struct document_protect,
			 agent_instructions),
	CYAML_FIELD_END
};

static const cyaml_schema_field_t document_fields[] = {
	CYAML_FIELD_UINT("version", CYAML_FLAG_DEFAULT, struct document, version),
	CYAML_FIELD_STRING_PTR("name", OPTIONAL, struct document, name, 1, 64),
	CYAML_FIELD_MAPPING_PTR("protect", OPTIONAL, struct document, protect, protect_fields),
	CYAML_FIELD_SEQUENCE("deny", OPTIONAL, struct document, deny, &pattern_schema, 0,
			     POLICY_RULES_MAX),
	CYAML_FIELD_SEQUENCE("allow", OPTIONAL, struct document, allow, &pattern_schema, 0,
			     POLICY_RULES_MAX),
	CYAML_FIELD_SEQUENCE("hide", OPTIONAL, struct document, hide, &pattern_schema, 0,
			     POLICY_RULES_MAX),
	CYAML_FIELD_SEQUENCE("readonly", OPTIONAL, struct document, readonly, &pattern_schema, 0,
			     POLICY_RULES_MAX),
	CYAML_FIELD_IGNORE("egress", CYAML_FLAG_OPTIONAL),
	CYAML_FIELD_IGNORE("canary", CYAML_FLAG_OPTIONAL),
	CYAML_FIELD_END
};

static const cyaml_schema_value_t document_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct document, document_fields),
};
/* clang-format on */

/* What libcyaml logs of an error: its first line, and the first line number of its backtrace. */
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
	else if (log->where[0] == '\0' && strstr(line, "line:") != NULL)
		memcpy(log->where, line, sizeof(line));
}

/* libcyaml says "Load: what" and "  in mapping field 'key' (line: N, column: M)". */
static void describe_schema_error(const struct schema_log *log, const char *file_name, char *error,
				  size_t capacity)
{
	const char *what = strncmp(log->what, "Load: ", 6) == 0 ? log->what + 6 : log->what;
	const char *at = strstr(log->where, "line: ");
	const char *quote = strchr(log->where, '\'');
	char key[64] = "document";

	if (quote != NULL)
		escape_text(quote + 1, strcspn(quote + 1, "'"), key, sizeof(key));
	snprintf(error, capacity, "%s:%lu: %s: %s; see docs/policy.md", file_name,
		 at != NULL ? strtoul(at + 6, NULL, 10) : 1ul, key, what);
}

static int take_rules(struct policy_file *file, enum policy_file_list list, char **patterns,
		      size_t count, const struct lines *lines)
{
	if (count != lines->count[list])
		return -EINVAL;
	if (count == 0)
		return 0;
	file->rules[list] = calloc(count, sizeof(struct policy_file_rule));
	if (file->rules[list] == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		file->rules[list][i].line = lines->items[list][i];
		file->rules[list][i].pattern = strdup(patterns[i]);
		if (file->rules[list][i].pattern == NULL)
			return -ENOMEM;
		file->rule_count[list]++;
	}
	return 0;
}

static int take_document(struct policy_file *file, const struct document *document,
			 const struct lines *lines)
{
	int error = take_rules(file, POLICY_FILE_DENY, document->deny, document->deny_count, lines);

	if (error == 0)
		error = take_rules(file, POLICY_FILE_ALLOW, document->allow, document->allow_count,
				   lines);
	if (error == 0)
		error = take_rules(file, POLICY_FILE_HIDE, document->hide, document->hide_count,
				   lines);
	if (error == 0)
		error = take_rules(file, POLICY_FILE_READONLY, document->readonly,
				   document->readonly_count, lines);
	if (error == 0 && document->name != NULL) {
		file->name = strdup(document->name);
		if (file->name == NULL)
			error = -ENOMEM;
	}
	file->agent_instructions_open =
		document->protect != NULL && !document->protect->agent_instructions;
	return error;
}

static int load_schema(const char *text, size_t length, const char *file_name,
		       const struct lines *lines, struct policy_file *file, char *error_text,
		       size_t error_capacity)
{
	struct schema_log log = { .what = "" };
	const cyaml_config_t config = {
		.log_fn = on_schema_log,
		.log_ctx = &log,
		.mem_fn = cyaml_mem,
		.log_level = CYAML_LOG_ERROR,
		.flags = CYAML_CFG_NO_ALIAS,
	};
	cyaml_data_t *data = NULL;
	cyaml_err_t result = cyaml_load_data((const uint8_t *)text, length, &config,
					     &document_schema, &data, NULL);
	int error;

	if (result == CYAML_ERR_OOM)
		return -ENOMEM;
	if (result != CYAML_OK || data == NULL) {
		describe_schema_error(&log, file_name, error_text, error_capacity);
		return -EINVAL;
	}
	error = take_document(file, data, lines);
	cyaml_free(&config, &document_schema, data, 0);
	if (error == -EINVAL)
		snprintf(error_text, error_capacity,
			 "%s:1: version: the two readings of this file differ; report this file",
			 file_name);
	return error;
}

int policy_file_parse(const char *text, size_t length, const char *file_name,
		      struct policy_file *ret_file, char *error, size_t error_capacity)
{
	struct lines lines = { .version_line = 0 };
	struct policy_file file = { .name = NULL };
	int result;

	if (length > POLICY_FILE_MAX) {
		snprintf(error, error_capacity, "%s:1: version: the file is larger than %u bytes",
			 file_name, POLICY_FILE_MAX);
		return -EINVAL;
	}
	result = scan(text, length, file_name, &lines, error, error_capacity);
	if (result == 0)
		result = load_schema(text, length, file_name, &lines, &file, error, error_capacity);
	for (size_t i = 0; i < POLICY_FILE_LISTS; i++)
		free(lines.items[i]);
	if (result < 0)
		policy_file_release(&file);
	else
		*ret_file = file;
	return result;
}

void policy_file_release(struct policy_file *file)
{
	for (size_t list = 0; list < POLICY_FILE_LISTS; list++) {
		for (size_t i = 0; i < file->rule_count[list]; i++)
			free(file->rules[list][i].pattern);
		free(file->rules[list]);
	}
	free(file->name);
	memset(file, 0, sizeof(*file));
}
