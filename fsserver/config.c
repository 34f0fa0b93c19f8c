#include "fsserver/config.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* One object of the document while it is taken apart; errors stick to the first. */
struct reader {
	char *error;
	int result;
};

static void fail(struct reader *reader, const char *where, const char *key, const char *what)
{
	if (reader->result)
		return;
	reader->result = -EINVAL;
	snprintf(reader->error, CONFIG_ERROR_MAX, "configuration: %s%s%s: %s", where,
		 *where ? "." : "", key, what);
}

static void check_keys(struct reader *reader, json_t *object, const char *where,
		       const char *const *known, size_t known_count)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value)
	{
		bool found = false;

		for (size_t i = 0; i < known_count; i++)
			found = found || strcmp(key, known[i]) == 0;
		if (!found)
			fail(reader, where, key, "unknown key");
	}
}

static const char *take_text(struct reader *reader, json_t *object, const char *where,
			     const char *key, bool required)
{
	json_t *value = json_object_get(object, key);

	if (!value && !required)
		return NULL;
	if (!json_is_string(value) || json_string_length(value) == 0 ||
	    strlen(json_string_value(value)) != json_string_length(value)) {
		fail(reader, where, key, "must be a text that is not empty");
		return NULL;
	}
	return json_string_value(value);
}

static const char *take_path(struct reader *reader, json_t *object, const char *where,
			     const char *key, bool required)
{
	const char *path = take_text(reader, object, where, key, required);

	if (path && path[0] != '/')
		fail(reader, where, key, "must be an absolute path");
	return path;
}

static bool take_bool(struct reader *reader, json_t *object, const char *where, const char *key)
{
	json_t *value = json_object_get(object, key);

	if (value && !json_is_boolean(value))
		fail(reader, where, key, "must be true or false");
	return json_is_true(value);
}

static uint64_t take_number(struct reader *reader, json_t *object, const char *where,
			    const char *key, uint64_t most, const uint64_t *preset)
{
	json_t *value = json_object_get(object, key);

	if (!value && preset)
		return *preset;
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > most) {
		fail(reader, where, key, "must be a whole number in range");
		return 0;
	}
	return (uint64_t)json_integer_value(value);
}

static void take_strings(struct reader *reader, json_t *object, const char *where, const char *key,
			 struct config_strings *ret)
{
	json_t *list = json_object_get(object, key);

	if (!list)
		return;
	if (!json_is_array(list)) {
		fail(reader, where, key, "must be a list of texts");
		return;
	}
	ret->items = calloc(json_array_size(list) + 1, sizeof(*ret->items));
	if (!ret->items) {
		fail(reader, where, key, "no memory");
		return;
	}
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *item = json_array_get(list, i);

		if (!json_is_string(item)) {
			fail(reader, where, key, "must be a list of texts");
			return;
		}
		ret->items[ret->count++] = json_string_value(item);
	}
}

static void take_profile(struct reader *reader, json_t *object, const char *where,
			 struct config_export *export)
{
	static const char *const names[] = {
		[POLICY_PROFILE_WORKSPACE] = "workspace",
		[POLICY_PROFILE_MOUNT] = "mount",
		[POLICY_PROFILE_IMAGE] = "image",
	};
	const char *name = take_text(reader, object, where, "profile", true);

	for (size_t i = 0; name && i < ARRAY_LENGTH(names); i++) {
		if (strcmp(name, names[i]) == 0) {
			export->profile = (enum policy_profile)i;
			return;
		}
	}
	fail(reader, where, "profile", "must be workspace, mount or image");
}

/* One component, so that it cannot lead out of the directory. */
static const char *take_name(struct reader *reader, json_t *object, const char *where,
			     const char *key)
{
	const char *name = take_text(reader, object, where, key, false);

	if (name && (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0))
		fail(reader, where, key, "must be the name of a file in `path`");
	return name;
}

static void take_rule(struct reader *reader, json_t *object, const char *where,
		      struct policy_extra_rule *rule)
{
	static const char *const known[] = { "list", "pattern", "where" };

	if (!json_is_object(object)) {
		fail(reader, where, "rules", "must be a list of objects");
		return;
	}
	check_keys(reader, object, where, known, ARRAY_LENGTH(known));
	rule->list = take_text(reader, object, where, "list", true);
	rule->pattern = take_text(reader, object, where, "pattern", true);
	rule->where = take_text(reader, object, where, "where", true);
	if (rule->list && strcmp(rule->list, "deny") != 0 && strcmp(rule->list, "hide") != 0 &&
	    strcmp(rule->list, "readonly") != 0)
		fail(reader, where, "rules.list", "must be deny, hide or readonly");
}

static void take_rules(struct reader *reader, json_t *object, const char *where,
		       struct config_export *export)
{
	json_t *list = json_object_get(object, "rules");

	if (!list)
		return;
	if (!json_is_array(list) || json_array_size(list) > POLICY_RULES_MAX) {
		fail(reader, where, "rules", "must be a list of at most 4096 rules");
		return;
	}
	export->rules = calloc(json_array_size(list) + 1, sizeof(*export->rules));
	if (!export->rules) {
		fail(reader, where, "rules", "no memory");
		return;
	}
	for (size_t i = 0; i < json_array_size(list); i++)
		take_rule(reader, json_array_get(list, i), where,
			  &export->rules[export->rule_count++]);
}

static void take_export(struct reader *reader, json_t *object, const char *where,
			struct config_export *export)
{
	static const char *const known[] = { "id",	     "name",	   "path",
					     "profile",	     "read_only",  "immutable",
					     "cross_mounts", "undo_store", "policy",
					     "policy_name",  "allow",	   "hide",
					     "file",	     "rules" };

	if (!json_is_object(object)) {
		fail(reader, where, "", "must be an object");
		return;
	}
	check_keys(reader, object, where, known, ARRAY_LENGTH(known));
	export->id = (uint32_t)take_number(reader, object, where, "id", CONFIG_EXPORTS_MAX, NULL);
	if (export->id == 0)
		fail(reader, where, "id", "must be 1 to 63");
	export->name = take_text(reader, object, where, "name", true);
	export->path = take_path(reader, object, where, "path", true);
	take_profile(reader, object, where, export);
	export->read_only = take_bool(reader, object, where, "read_only");
	export->immutable = take_bool(reader, object, where, "immutable");
	export->cross_mounts = take_bool(reader, object, where, "cross_mounts");
	export->undo_store = take_path(reader, object, where, "undo_store", false);
	export->policy = take_path(reader, object, where, "policy", false);
	export->policy_name = take_text(reader, object, where, "policy_name", false);
	if (!export->policy_name)
		export->policy_name = export->policy;
	take_strings(reader, object, where, "allow", &export->allow);
	take_strings(reader, object, where, "hide", &export->hide);
	export->file = take_name(reader, object, where, "file");
	take_rules(reader, object, where, export);
	if (export->file && (export->immutable || export->cross_mounts))
		fail(reader, where, "file", "a single file is neither immutable nor has it mounts");
	if (export->immutable && !export->read_only)
		fail(reader, where, "immutable", "only a read_only export can be immutable");
	if (export->read_only && export->undo_store)
		fail(reader, where, "undo_store", "a read_only export has none");
}

static void take_exports(struct reader *reader, json_t *root, struct config *config)
{
	json_t *list = json_object_get(root, "exports");
	uint64_t seen = 0;

	if (!json_is_array(list) || json_array_size(list) == 0 ||
	    json_array_size(list) > CONFIG_EXPORTS_MAX) {
		fail(reader, "", "exports", "must be a list of 1 to 63 exports");
		return;
	}
	config->exports = calloc(json_array_size(list), sizeof(*config->exports));
	if (!config->exports) {
		fail(reader, "", "exports", "no memory");
		return;
	}
	for (size_t i = 0; i < json_array_size(list); i++) {
		char where[32];

		snprintf(where, sizeof(where), "exports[%zu]", i);
		config->export_count++;
		take_export(reader, json_array_get(list, i), where, &config->exports[i]);
		if (seen & UINT64_C(1) << config->exports[i].id)
			fail(reader, where, "id", "is used twice");
		seen |= UINT64_C(1) << config->exports[i].id;
	}
}

static void take_groups(struct reader *reader, json_t *root, struct config *config)
{
	json_t *list = json_object_get(root, "groups");

	if (!list)
		return;
	if (!json_is_array(list)) {
		fail(reader, "", "groups", "must be a list of numbers");
		return;
	}
	config->groups = calloc(json_array_size(list) + 1, sizeof(*config->groups));
	if (!config->groups) {
		fail(reader, "", "groups", "no memory");
		return;
	}
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *item = json_array_get(list, i);

		if (!json_is_integer(item) || json_integer_value(item) < 0 ||
		    json_integer_value(item) > UINT32_MAX - 1) {
			fail(reader, "", "groups", "must be a list of numbers");
			return;
		}
		config->groups[config->group_count++] = (gid_t)json_integer_value(item);
	}
}

static void take_quotas(struct reader *reader, json_t *root, struct config *config)
{
	static const char *const known[] = { "nodes", "handles", "store_bytes" };
	static const uint64_t presets[] = { CONFIG_NODES_DEFAULT, CONFIG_HANDLES_DEFAULT,
					    CONFIG_STORE_BYTES_DEFAULT };
	json_t *quotas = json_object_get(root, "quotas");

	if (quotas && !json_is_object(quotas))
		fail(reader, "", "quotas", "must be an object");
	if (quotas)
		check_keys(reader, quotas, "quotas", known, ARRAY_LENGTH(known));
	config->nodes_max =
		take_number(reader, quotas, "quotas", "nodes", UINT32_MAX / 4, &presets[0]);
	config->handles_max =
		take_number(reader, quotas, "quotas", "handles", UINT32_MAX / 4, &presets[1]);
	config->store_bytes_max =
		take_number(reader, quotas, "quotas", "store_bytes", INT64_MAX, &presets[2]);
}

static void take_all(struct reader *reader, json_t *root, struct config *config)
{
	static const char *const known[] = { "session", "uid",	   "gid",   "groups",
					     "homes",	"exports", "quotas" };

	if (!json_is_object(root)) {
		fail(reader, "", "document", "must be an object");
		return;
	}
	check_keys(reader, root, "", known, ARRAY_LENGTH(known));
	config->session = take_text(reader, root, "", "session", true);
	config->uid = (uid_t)take_number(reader, root, "", "uid", UINT32_MAX - 1, NULL);
	config->gid = (gid_t)take_number(reader, root, "", "gid", UINT32_MAX - 1, NULL);
	take_groups(reader, root, config);
	take_strings(reader, root, "", "homes", &config->homes);
	take_exports(reader, root, config);
	take_quotas(reader, root, config);
}

int config_read(int fd, struct config **ret_config, char error[static CONFIG_ERROR_MAX])
{
	cleanup_free char *text = NULL;
	struct config *config;
	json_error_t syntax;
	size_t length;
	struct reader reader = { .error = error };
	int result = read_file(fd, CONFIG_FILE_MAX, &text, &length);

	if (result) {
		snprintf(error, CONFIG_ERROR_MAX, "cannot read the configuration: %s",
			 strerror(-result));
		return result;
	}
	config = calloc(1, sizeof(*config));
	if (!config)
		return -ENOMEM;
	config->document = json_loadb(text, length, JSON_REJECT_DUPLICATES, &syntax);
	if (!config->document) {
		snprintf(error, CONFIG_ERROR_MAX, "configuration: line %d: %s", syntax.line,
			 syntax.text);
		config_free(config);
		return -EINVAL;
	}
	take_all(&reader, config->document, config);
	if (reader.result) {
		config_free(config);
		return reader.result;
	}
	*ret_config = config;
	return 0;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config->export_count; i++) {
		free(config->exports[i].allow.items);
		free(config->exports[i].hide.items);
		free(config->exports[i].rules);
	}
	free(config->exports);
	free(config->groups);
	free(config->homes.items);
	json_decref(config->document);
	free(config);
}
