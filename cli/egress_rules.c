#include "cli/egress_rules.h"

#include "base/cleanup.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

struct scanner {
	yaml_parser_t parser;
	yaml_event_t event;
	bool has_event;
	const char *file_name;
	unsigned depth;
	unsigned values;
	struct problem *problem;
};

static int fail(const struct scanner *scanner, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int fail(const struct scanner *scanner, const char *format, ...)
{
	size_t line = scanner->has_event ? scanner->event.start_mark.line + 1 : 1;
	char what[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	return problem_set(scanner->problem, STATUS_USAGE, "%s:%zu: %s", scanner->file_name, line,
			   what);
}

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
		return problem_set(scanner->problem, STATUS_USAGE, "%s:%zu: not YAML: %s",
				   scanner->file_name, scanner->parser.problem_mark.line + 1,
				   scanner->parser.problem ? scanner->parser.problem
							   : "unreadable");
	scanner->has_event = true;
	if (is_decorated(&scanner->event))
		return fail(scanner, "anchors (&name), aliases (*name) and tags (!name) are not "
				     "taken here; put text that begins so in quotes");
	return 0;
}

static int expect(struct scanner *scanner, yaml_event_type_t type, const char *wanted)
{
	if (next_event(scanner) < 0)
		return -1;
	return scanner->event.type == type ? 0 : fail(scanner, "expected %s", wanted);
}

static const char *scalar_text(const struct scanner *scanner)
{
	return (const char *)scanner->event.data.scalar.value;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* The event is a scalar; *ret_value is new. */
static int read_scalar(const struct scanner *scanner, json_t **ret_value)
{
	bool is_plain = scanner->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	const char *text = scalar_text(scanner);
	uint64_t number;

	if (strlen(text) != scanner->event.data.scalar.length)
		return fail(scanner, "holds a NUL character");
	if (*text == '\0' ||
	    (is_plain && (strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0)))
		return fail(scanner, "an empty value; write one, or remove its key");
	if (is_plain && strcmp(text, "true") == 0)
		*ret_value = json_true();
	else if (is_plain && strcmp(text, "false") == 0)
		*ret_value = json_false();
	else if (is_plain && parse_unsigned(text, INT64_MAX, &number))
		*ret_value = json_integer((json_int_t)number);
	else
		*ret_value = json_string(text);
	return *ret_value ? 0 : fail(scanner, "not UTF-8");
}

static int read_value(struct scanner *scanner, json_t **ret_value);

/* Adds the value that comes next to the mapping, of whose key the event is. */
static int read_entry(struct scanner *scanner, json_t *object)
{
	cleanup_free char *key = NULL;
	cleanup_free char *shown = NULL;
	json_t *value = NULL;

	if (scanner->event.type != YAML_SCALAR_EVENT || *scalar_text(scanner) == '\0' ||
	    strlen(scalar_text(scanner)) != scanner->event.data.scalar.length)
		return fail(scanner, "a key must be a plain word");
	key = text_copy(scalar_text(scanner));
	shown = escape_copy(key);
	if (json_object_get(object, key))
		return fail(scanner, "%s: is given twice; keep one", shown);
	if (next_event(scanner) < 0 || read_value(scanner, &value) < 0)
		return -1;
	return json_object_set_new(object, key, value) < 0 ? fail(scanner, "%s: not UTF-8", shown)
							   : 0;
}

static int read_members(struct scanner *scanner, json_t *target, yaml_event_type_t end)
{
	if (++scanner->depth > EGRESS_RULES_DEPTH_MAX)
		return fail(scanner, "is nested too deep");
	for (;;) {
		json_t *item = NULL;

		if (next_event(scanner) < 0)
			return -1;
		if (scanner->event.type == end)
			break;
		if (json_is_object(target)) {
			if (read_entry(scanner, target) < 0)
				return -1;
		} else if (read_value(scanner, &item) < 0 ||
			   json_array_append_new(target, item) < 0) {
			return -1;
		}
	}
	scanner->depth--;
	return 0;
}

/* The value whose first event is the present one; *ret_value is new. */
static int read_value(struct scanner *scanner, json_t **ret_value)
{
	bool is_list = scanner->event.type == YAML_SEQUENCE_START_EVENT;
	json_t *value;

	if (scanner->values++ >= EGRESS_RULES_VALUES_MAX)
		return fail(scanner, "more than %u values", EGRESS_RULES_VALUES_MAX);
	if (scanner->event.type == YAML_SCALAR_EVENT)
		return read_scalar(scanner, ret_value);
	value = is_list ? json_array() : json_object();
	if (!value)
		return fail(scanner, "no memory");
	if (read_members(scanner, value,
			 is_list ? YAML_SEQUENCE_END_EVENT : YAML_MAPPING_END_EVENT) < 0) {
		json_decref(value);
		return -1;
	}
	*ret_value = value;
	return 0;
}

/* ---- the document ---------------------------------------------------------------------------- */

static int read_rule(struct scanner *scanner, json_t *rules)
{
	cleanup_free char *where =
		text_printf("%s:%zu", scanner->file_name, scanner->event.start_mark.line + 1);
	json_t *rule = NULL;

	if (scanner->event.type != YAML_MAPPING_START_EVENT)
		return fail(scanner, "egress: each rule is a mapping, such as {host: example.com}");
	if (read_value(scanner, &rule) < 0)
		return -1;
	if (json_object_get(rule, "where")) {
		json_decref(rule);
		return problem_set(scanner->problem, STATUS_USAGE, "%s: where: unknown key", where);
	}
	if (json_object_set_new(rule, "where", json_string(where)) < 0 ||
	    json_array_append_new(rules, rule) < 0)
		return fail(scanner, "egress: no memory");
	return 0;
}

static int read_rules(struct scanner *scanner, json_t *rules)
{
	if (expect(scanner, YAML_SEQUENCE_START_EVENT, "a list of rules") < 0)
		return -1;
	for (;;) {
		if (next_event(scanner) < 0)
			return -1;
		if (scanner->event.type == YAML_SEQUENCE_END_EVENT)
			return 0;
		if (read_rule(scanner, rules) < 0)
			return -1;
	}
}

/* A key of the file server's, and its value. */
static int pass_over(struct scanner *scanner)
{
	unsigned depth = 0;

	do {
		if (next_event(scanner) < 0)
			return -1;
		if (scanner->event.type == YAML_SEQUENCE_START_EVENT ||
		    scanner->event.type == YAML_MAPPING_START_EVENT)
			depth++;
		else if (scanner->event.type == YAML_SEQUENCE_END_EVENT ||
			 scanner->event.type == YAML_MAPPING_END_EVENT)
			depth--;
	} while (depth > 0);
	return 0;
}

static int read_canary(struct scanner *scanner, struct egress_section *section)
{
	if (section->canary != CANARY_UNSAID)
		return fail(scanner, "canary: is given twice; keep one");
	if (expect(scanner, YAML_SCALAR_EVENT, "canary: deny, or canary: freeze") < 0)
		return -1;
	if (strcmp(scalar_text(scanner), "deny") == 0)
		section->canary = CANARY_DENY;
	else if (strcmp(scalar_text(scanner), "freeze") == 0)
		section->canary = CANARY_FREEZE;
	else
		return fail(scanner, "canary: must be deny or freeze");
	return 0;
}

/* The value of the key that the event is. */
static int read_section(struct scanner *scanner, struct egress_section *section, bool *has_rules)
{
	if (strcmp(scalar_text(scanner), "canary") == 0)
		return read_canary(scanner, section);
	if (strcmp(scalar_text(scanner), "egress") != 0)
		return pass_over(scanner);
	if (*has_rules)
		return fail(scanner, "egress: is given twice; join them");
	*has_rules = true;
	return read_rules(scanner, section->rules);
}

static int read_document(struct scanner *scanner, struct egress_section *section)
{
	bool has_rules = false;

	if (expect(scanner, YAML_STREAM_START_EVENT, "YAML") < 0 ||
	    expect(scanner, YAML_DOCUMENT_START_EVENT, "a policy; write at least version: 1") < 0 ||
	    expect(scanner, YAML_MAPPING_START_EVENT, "keys with values") < 0)
		return -1;
	for (;;) {
		if (next_event(scanner) < 0)
			return -1;
		if (scanner->event.type == YAML_MAPPING_END_EVENT)
			break;
		if (scanner->event.type != YAML_SCALAR_EVENT)
			return fail(scanner, "a key must be a plain word");
		if (read_section(scanner, section, &has_rules) < 0)
			return -1;
	}
	if (expect(scanner, YAML_DOCUMENT_END_EVENT, "the end of the document") < 0)
		return -1;
	return expect(scanner, YAML_STREAM_END_EVENT,
		      "one document only; remove what follows \"---\"");
}

int egress_rules_parse(const char *text, size_t length, const char *file_name,
		       struct egress_section *ret_section, struct problem *problem)
{
	struct scanner scanner = { .file_name = file_name, .problem = problem };
	struct egress_section section = { 0 };
	int result;

	if (length > EGRESS_RULES_BYTES_MAX)
		return problem_set(problem, STATUS_USAGE, "%s:1: the file is larger than %u bytes",
				   file_name, EGRESS_RULES_BYTES_MAX);
	if (!yaml_parser_initialize(&scanner.parser))
		return problem_set(problem, STATUS_SANDBOX, "%s: no memory", file_name);
	section.rules = json_array();
	yaml_parser_set_input_string(&scanner.parser, (const unsigned char *)text, length);
	yaml_parser_set_encoding(&scanner.parser, YAML_UTF8_ENCODING);
	result = section.rules ? read_document(&scanner, &section)
			       : problem_set(problem, STATUS_SANDBOX, "%s: no memory", file_name);
	if (scanner.has_event)
		yaml_event_delete(&scanner.event);
	yaml_parser_delete(&scanner.parser);
	if (result < 0)
		json_decref(section.rules);
	else
		*ret_section = section;
	return result;
}
