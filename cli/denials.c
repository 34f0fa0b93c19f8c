#include "cli/denials.h"

#include "base/cleanup.h"
#include "cli/text.h"

#include <stdbool.h>
#include <string.h>

/* Text of a record: fields named in "escaped" have that form already. */
static char *field_text(json_t *record, const char *key)
{
	const char *text = json_string_value(json_object_get(record, key));
	size_t index;
	json_t *name;

	if (!text)
		return NULL;
	json_array_foreach(json_object_get(record, "escaped"), index, name)
	{
		if (json_is_string(name) && strcmp(json_string_value(name), key) == 0)
			return text_copy(text);
	}
	return escape_copy(text);
}

static void denial_clear(struct denial *denial)
{
	free(denial->operation);
	free(denial->path);
	free(denial->path2);
	free(denial->rule);
	free(denial->reason);
	free(denial->hint);
	*denial = (struct denial){ 0 };
}

static bool same_text(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

/* Of a network's denial: the host stands before the path, and a port that says something. */
static char *place(json_t *record)
{
	cleanup_free char *host = field_text(record, "host");
	cleanup_free char *path = field_text(record, "path");
	json_int_t port = json_integer_value(json_object_get(record, "port"));

	if (!host)
		return steal_pointer(&path);
	if (port == 0 || port == 443 || port == 80)
		return text_printf("%s%s", host, path ? path : "");
	return text_printf("%s:%" JSON_INTEGER_FORMAT "%s", host, port, path ? path : "");
}

static void add_denial(struct denials *denials, json_t *record)
{
	json_int_t repeated = json_integer_value(json_object_get(record, "count"));
	uint64_t count = repeated > 0 ? (uint64_t)repeated : 1;
	struct denial denial = {
		.operation = field_text(record, "operation"),
		.path = place(record),
		.path2 = field_text(record, "path2"),
		.rule = field_text(record, "rule"),
		.reason = field_text(record, "reason"),
		.hint = field_text(record, "hint"),
		.count = count,
	};

	denials->total += count;
	for (size_t i = 0; i < denials->count; i++) {
		struct denial *known = &denials->items[i];

		if (same_text(known->operation, denial.operation) &&
		    same_text(known->path, denial.path) && same_text(known->rule, denial.rule)) {
			known->count += count;
			denial_clear(&denial);
			return;
		}
	}
	if (denials->count == DENIALS_KEPT) {
		denial_clear(&denial);
		return;
	}
	if (!denial.operation)
		denial.operation = text_copy("access");
	if (!denial.path)
		denial.path = text_copy("?");
	denials->items[denials->count++] = denial;
}

static void add_canary(struct denials *denials, json_t *record)
{
	cleanup_free char *where = place(record);
	cleanup_free char *hint = field_text(record, "hint");

	if (denials->canary_count < DENIALS_CANARIES_KEPT)
		denials->canaries[denials->canary_count++] =
			text_printf("%s: %s", where ? where : "?", hint ? hint : "denied");
}

static bool is_kind(const char *line, const char *kind)
{
	cleanup_free char *text = text_printf("\"kind\":\"%s\"", kind);

	/* Quotes inside a value are escaped, so that no guest's text looks like this. */
	return strstr(line, text) != NULL;
}

struct denials *denials_read(const char *directory)
{
	struct denials *denials = allocate(1, sizeof(*denials));
	cleanup_free char *path = text_printf("%s/audit.jsonl", directory);
	cleanup_free char *line = NULL;
	size_t capacity = 0;
	FILE *file = fopen(path, "re");

	if (!file)
		return denials;
	while (getline(&line, &capacity, file) > 0) {
		bool is_canary = is_kind(line, "canary");
		json_t *record;

		if (!is_canary && !is_kind(line, "denial"))
			continue;
		record = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
		if (json_is_object(record) && is_canary)
			add_canary(denials, record);
		else if (json_is_object(record))
			add_denial(denials, record);
		json_decref(record);
	}
	fclose(file);
	return denials;
}

void denials_free(struct denials *denials)
{
	if (!denials)
		return;
	for (size_t i = 0; i < denials->count; i++)
		denial_clear(&denials->items[i]);
	for (size_t i = 0; i < denials->canary_count; i++)
		free(denials->canaries[i]);
	free(denials);
}

void denials_print_canaries(const struct denials *denials, const char *prefix, FILE *out)
{
	for (size_t i = 0; i < denials->canary_count; i++)
		fprintf(out, "%s%s\n", prefix, denials->canaries[i]);
}

json_t *denials_canaries_json(const struct denials *denials)
{
	json_t *array = json_array();

	for (size_t i = 0; i < denials->canary_count; i++)
		json_array_append_new(array, json_string(denials->canaries[i]));
	return array;
}

static void print_denial(const struct denial *denial, FILE *out)
{
	fprintf(out, "  %s %s", denial->operation, denial->path);
	if (denial->path2)
		fprintf(out, " -> %s", denial->path2);
	if (denial->count > 1)
		fprintf(out, " (%ju times)", (uintmax_t)denial->count);
	fputc('\n', out);
	if (denial->reason && denial->rule)
		fprintf(out, "      why: %s (%s)\n", denial->reason, denial->rule);
	else if (denial->reason || denial->rule)
		fprintf(out, "      why: %s\n", denial->reason ? denial->reason : denial->rule);
	if (denial->hint)
		fprintf(out, "      to allow it: %s\n", denial->hint);
}

void denials_print(const struct denials *denials, FILE *out)
{
	if (denials->count == 0)
		return;
	fprintf(out, "matchlock: denied, %ju access%s:\n", (uintmax_t)denials->total,
		denials->total == 1 ? "" : "es");
	for (size_t i = 0; i < denials->count && i < DENIALS_SHOWN; i++)
		print_denial(&denials->items[i], out);
	if (denials->count > DENIALS_SHOWN)
		fprintf(out, "  and more; `matchlock audit show` has all of them\n");
}

static json_t *json_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

json_t *denials_json(const struct denials *denials)
{
	json_t *array = json_array();

	for (size_t i = 0; i < denials->count; i++) {
		const struct denial *denial = &denials->items[i];

		json_array_append_new(
			array,
			json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:I}", "operation",
				  denial->operation, "path", denial->path, "path2",
				  json_or_null(denial->path2), "rule", json_or_null(denial->rule),
				  "reason", json_or_null(denial->reason), "hint",
				  json_or_null(denial->hint), "count", (json_int_t)denial->count));
	}
	return array;
}
