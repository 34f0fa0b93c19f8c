#include "cli/client_certificates.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "wire/secret_bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define RULE_KEY "client_certificate"
#define FILE_PREFIX "file:"

static const char *const parts[] = { "certificate", "key" };
#define PARTS 2

static const char *where_of(const json_t *rule)
{
	return json_string_value(json_object_get(rule, "where"));
}

/* Of a rule that was checked: what follows "file:". */
static const char *path_of(const json_t *rule, size_t part)
{
	const json_t *mapping = json_object_get(rule, RULE_KEY);

	return json_string_value(json_object_get(mapping, parts[part])) + strlen(FILE_PREFIX);
}

/* ---- the form --------------------------------------------------------------------------- */

static char *absolute(const char *path, const char *policy)
{
	const char *slash = strrchr(policy, '/');
	const char *home = getenv("HOME");

	if (strncmp(path, "~/", 2) == 0 && home && *home)
		return text_printf("%s/%s", home, path + 2);
	if (*path == '/' || !slash)
		return text_copy(path);
	return text_printf("%.*s/%s", (int)(slash - policy), policy, path);
}

static int check_part(const json_t *rule, json_t *mapping, const char *part, const char *policy,
		      struct problem *problem)
{
	const char *text = json_string_value(json_object_get(mapping, part));
	cleanup_free char *path = NULL;
	cleanup_free char *whole = NULL;

	if (!text || strncmp(text, FILE_PREFIX, strlen(FILE_PREFIX)) != 0 ||
	    text[strlen(FILE_PREFIX)] == '\0')
		return problem_set(problem, STATUS_USAGE,
				   "%s: " RULE_KEY ": %s: write file: and the path of a PEM file, "
				   "such as file:/home/me/client.pem",
				   where_of(rule), part);
	path = absolute(text + strlen(FILE_PREFIX), policy);
	whole = text_printf(FILE_PREFIX "%s", path);
	json_object_set_new(mapping, part, json_string(whole));
	return 0;
}

static int check_rule(json_t *rule, const char *policy, struct problem *problem)
{
	json_t *mapping = json_object_get(rule, RULE_KEY);

	if (!mapping)
		return 0;
	if (!json_is_object(mapping) || json_object_size(mapping) != PARTS ||
	    !json_object_get(mapping, parts[0]) || !json_object_get(mapping, parts[1]))
		return problem_set(problem, STATUS_USAGE,
				   "%s: " RULE_KEY ": write {certificate: file:PATH, key: "
				   "file:PATH}; both may be the same file",
				   where_of(rule));
	for (size_t part = 0; part < PARTS; part++) {
		if (check_part(rule, mapping, parts[part], policy, problem) < 0)
			return -1;
	}
	return 0;
}

int client_certificates_check(json_t *rules, const char *policy, struct problem *problem)
{
	size_t index;
	json_t *rule;

	json_array_foreach(rules, index, rule)
	{
		if (check_rule(rule, policy, problem) < 0)
			return -1;
	}
	return 0;
}

bool client_certificates_are_wanted(const json_t *rules)
{
	for (size_t i = 0; i < json_array_size(rules); i++) {
		if (client_certificates_key(rules, i))
			return true;
	}
	return false;
}

const char *client_certificates_key(const json_t *rules, size_t index)
{
	const json_t *rule = json_array_get(rules, index);

	return json_object_get(rule, RULE_KEY) ? path_of(rule, 1) : NULL;
}

/* ---- names ------------------------------------------------------------------------------ */

static bool is_same(const json_t *a, const json_t *b)
{
	return strcmp(path_of(a, 0), path_of(b, 0)) == 0 &&
	       strcmp(path_of(a, 1), path_of(b, 1)) == 0;
}

/* The first rule with the same two files gives the name. */
static size_t first_like(const json_t *rules, size_t index)
{
	for (size_t i = 0; i < index; i++) {
		if (client_certificates_key(rules, i) &&
		    is_same(json_array_get(rules, i), json_array_get(rules, index)))
			return i;
	}
	return index;
}

static char *name_of(const json_t *rules, size_t index)
{
	return text_printf("CLIENT_CERTIFICATE_%zu", first_like(rules, index) + 1);
}

void client_certificates_name(json_t *rules)
{
	/* From the last on: a name is found by the mappings before it. */
	for (size_t i = json_array_size(rules); i-- > 0;) {
		cleanup_free char *name = NULL;

		if (!client_certificates_key(rules, i))
			continue;
		name = name_of(rules, i);
		json_object_set_new(json_array_get(rules, i), RULE_KEY, json_string(name));
	}
}

/* ---- the bundle ------------------------------------------------------------------------- */

struct text {
	size_t length;
	char data[SECRET_PEM_MAX + 2]; /* with a newline between, and one byte that is too many */
};

static int append_file(const json_t *rule, size_t part, struct text *text, struct problem *problem)
{
	const char *path = path_of(rule, part);
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t room = sizeof(text->data) - text->length;
	ssize_t got = fd < 0 ? -errno : read_full(fd, text->data + text->length, room);

	if (got < 0)
		return problem_set(problem, STATUS_USAGE, "%s: " RULE_KEY ": %s: %s: %s",
				   where_of(rule), parts[part], path, strerror((int)-got));
	text->length += (size_t)got;
	if (text->length > SECRET_PEM_MAX)
		return problem_set(problem, STATUS_USAGE,
				   "%s: " RULE_KEY ": %s: more than %d KiB in all; leave only the "
				   "certificate, those up to its root, and the key in the files",
				   where_of(rule), path, SECRET_PEM_MAX / 1024);
	text->data[text->length++] = '\n';
	return 0;
}

static int add_rule(const json_t *rule, const char *name, struct text *text,
		    struct byte_writer *bundle, struct problem *problem)
{
	struct secret_entry entry = {
		.kind = SECRET_CLIENT_CERTIFICATE,
		.name = { name, strlen(name) },
	};
	const char *fault;

	text->length = 0;
	if (append_file(rule, 0, text, problem) < 0)
		return -1;
	if (strcmp(path_of(rule, 0), path_of(rule, 1)) != 0 &&
	    append_file(rule, 1, text, problem) < 0)
		return -1;
	entry.value = (struct secret_text){ text->data, text->length - 1 };
	fault = secret_entry_fault(&entry);
	if (fault)
		return problem_set(problem, STATUS_USAGE, "%s: " RULE_KEY ": %s: %s",
				   where_of(rule), path_of(rule, 0), fault);
	secret_bundle_add(bundle, &entry);
	return 0;
}

int client_certificates_bundle(const json_t *rules, struct byte_writer *bundle,
			       struct problem *problem)
{
	struct text *text = allocate(1, sizeof(*text));
	int result = 0;

	for (size_t i = 0; i < json_array_size(rules) && result == 0; i++) {
		cleanup_free char *name = NULL;

		if (!client_certificates_key(rules, i) || first_like(rules, i) != i)
			continue;
		name = name_of(rules, i);
		result = add_rule(json_array_get(rules, i), name, text, bundle, problem);
	}
	explicit_bzero(text, sizeof(*text));
	free(text);
	return result;
}
