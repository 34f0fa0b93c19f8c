/* The plan as text, as JSON, and as the file server's configuration. */
#include "base/cleanup.h"
#include "cli/network_plan.h"
#include "cli/plan.h"
#include "cli/project_file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const profile_names[] = { "workspace", "mount", "image" };

static const char *rollback_wish(const struct run_options *options)
{
	if (options->keep_on_success)
		return "when the command fails";
	if (options->rollback_on_exit)
		return "when the command ends";
	return "by hand, with `matchlock rollback`";
}

static void print_export(FILE *out, const struct plan_export *export)
{
	cleanup_free char *host = quote_word(export->host);
	cleanup_free char *guest = quote_word(export->guest);

	if (export->profile == PLAN_PROFILE_IMAGE) {
		fprintf(out, "%-12s%s%s, read-only; what the guest writes there stays in memory\n",
			"image", host,
			strcmp(export->host, "/") == 0 ? " (the host's files, less credentials)"
						       : "");
		return;
	}
	fprintf(out, "%-12s%s", export->name, host);
	if (strcmp(host, guest) != 0)
		fprintf(out, " at %s", guest);
	fprintf(out, ", %s%s\n", export->tree ? "this file alone, " : "",
		export->read_only ? "read-only" : "read-write");
	if (export->store) {
		cleanup_free char *store = quote_word(export->store);

		fprintf(out, "%-12sundo store %s\n", "", store);
	}
}

/* What of it is in force beyond what other lines tell already. */
static void print_project(FILE *out, const struct run_options *options)
{
	cleanup_free char *path = NULL;

	if (!options->project)
		return;
	path = quote_word(options->project_path);
	fprintf(out, "%-12sand %zu rule%s of %s\n", "", options->project->rule_count,
		options->project->rule_count == 1 ? "" : "s", path);
}

char *plan_text(const struct plan *plan, const struct run_options *options)
{
	cleanup_free char *command = quote_command(options->command.items);
	cleanup_free char *memory = format_size((uint64_t)plan->memory_mib << 20);
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return text_copy("");
	fprintf(out, "%-12s%s\n", "command", command);
	fprintf(out, "%-12s%s\n", "directory", plan->cwd);
	fprintf(out, "%-12s%s (%u:%u), home %s%s\n", "user", plan->user.name,
		(unsigned)plan->user.uid, (unsigned)plan->user.gid, plan->user.home,
		plan->home_is_empty ? " (empty, in memory)" : "");
	fprintf(out, "%-12s%s%s\n", "engine", plan->engine,
		strcmp(plan->engine, "auto") == 0 ? " (KVM if it can run Linux, else QEMU)" : "");
	fprintf(out, "%-12s%u CPU%s, %s of memory%s\n", "machine", plan->cpus,
		plan->cpus == 1 ? "" : "s", memory, plan->huge_pages ? " in huge pages" : "");
	for (size_t i = 0; i < plan->export_count; i++)
		print_export(out, &plan->exports[i]);
	fprintf(out, "%-12s%s\n", "policy", plan->policy ? plan->policy : "built-in rules");
	print_project(out, options);
	for (size_t i = 0; i < options->allow_write.count; i++) {
		cleanup_free char *glob = quote_word(options->allow_write.items[i]);

		fprintf(out, "%-12salso writable: %s\n", "", glob);
	}
	network_print(out, plan, options);
	if (options->timeout_ms) {
		cleanup_free char *limit = format_duration(options->timeout_ms);

		fprintf(out, "%-12s%s\n", "timeout", limit);
	}
	if (plan_has_writable(plan))
		fprintf(out, "%-12s%s\n", "roll-back", rollback_wish(options));
	for (size_t i = 0; i < plan->warnings.count; i++)
		fprintf(out, "%-12s%s\n", "warning", plan->warnings.items[i]);
	fclose(out);
	return text;
}

/* For people and scripts: text that is not UTF-8 is shown escaped. */
static json_t *shown(const char *text)
{
	cleanup_free char *escaped = NULL;
	json_t *value;

	if (!text)
		return json_null();
	value = json_string(text);
	if (value)
		return value;
	escaped = escape_copy(text);
	return json_string(escaped);
}

static json_t *shown_list(const struct text_list *list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < list->count; i++)
		json_array_append_new(array, shown(list->items[i]));
	return array;
}

json_t *plan_json(const struct plan *plan, const struct run_options *options)
{
	json_t *mounts = json_array();

	for (size_t i = 0; i < plan->export_count; i++) {
		const struct plan_export *export = &plan->exports[i];

		json_array_append_new(
			mounts,
			json_pack("{s:s, s:o, s:o, s:b, s:b, s:o, s:o}", "kind", export->name,
				  "host", shown(export->host), "guest", shown(export->guest),
				  "read_only", export->read_only ? 1 : 0, "file",
				  export->tree ? 1 : 0, "undo_store", shown(export->store),
				  "hidden", shown_list(&export->hide)));
	}
	return json_pack("{s:o, s:o, s:{s:s, s:I, s:I, s:s, s:b}, s:s, s:i, s:i, s:b, s:o, s:o, "
			 "s:o, s:o, s:I, "
			 "s:b, s:b, s:o, s:o, s:o, s:o}",
			 "command", shown_list(&options->command), "directory", shown(plan->cwd),
			 "user", "name", plan->user.name, "uid", (json_int_t)plan->user.uid, "gid",
			 (json_int_t)plan->user.gid, "home", plan->user.home, "home_is_empty",
			 plan->home_is_empty ? 1 : 0, "engine", plan->engine, "cpus",
			 (int)plan->cpus, "memory_mib", (int)plan->memory_mib, "huge_pages",
			 plan->huge_pages ? 1 : 0, "mounts", mounts, "policy",
			 plan->policy ? shown(plan->policy) : json_string("built-in"),
			 "allow_write", shown_list(&options->allow_write), "network",
			 network_plan_json(plan, options), "timeout_ms",
			 (json_int_t)options->timeout_ms, "rollback_on_exit",
			 options->rollback_on_exit ? 1 : 0, "keep_on_success",
			 options->keep_on_success ? 1 : 0, "environment",
			 shown_list(&plan->environment), "warnings", shown_list(&plan->warnings),
			 "config", shown(options->config), "project", shown(options->project_path));
}

static json_t *strict_list(const struct text_list *list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < list->count; i++)
		json_array_append_new(array, json_string(list->items[i]));
	return array;
}

static json_t *project_rules_json(const struct project_file *project)
{
	json_t *array = json_array();

	for (size_t i = 0; i < project->rule_count; i++) {
		const struct project_rule *rule = &project->rules[i];
		cleanup_free char *where = text_printf(PROJECT_FILE_NAME ":%u", rule->line);

		json_array_append_new(array, json_pack("{s:s, s:s, s:s}", "list",
						       project_list_name(rule->list), "pattern",
						       rule->pattern, "where", where));
	}
	/* Not even --allow-write opens the file that the user trusts. */
	json_array_append_new(array, json_pack("{s:s, s:s, s:s}", "list", "readonly", "pattern",
					       "/" PROJECT_FILE_NAME, "where", PROJECT_FILE_NAME));
	return array;
}

static json_t *export_json(const struct plan_export *export, const struct run_options *options,
			   const char *policy_copy)
{
	bool image = export->profile == PLAN_PROFILE_IMAGE;
	json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:b, s:b, s:b, s:o}", "id", (int)export->id,
				 "name", export->name, "path", plan_export_tree(export), "profile",
				 profile_names[export->profile], "read_only",
				 export->read_only ? 1 : 0, "immutable", image ? 1 : 0,
				 "cross_mounts", image ? 1 : 0, "hide", strict_list(&export->hide));

	if (!json)
		return NULL;
	if (export->tree)
		json_object_set_new(json, "file", json_string(strrchr(export->host, '/') + 1));
	if (export->store)
		json_object_set_new(json, "undo_store", json_string(export->store));
	if (policy_copy && !image) {
		json_object_set_new(json, "policy", json_string(policy_copy));
		json_object_set_new(json, "policy_name", json_string(options->policy));
	}
	if (options->project && export->profile == PLAN_PROFILE_WORKSPACE)
		json_object_set_new(json, "rules", project_rules_json(options->project));
	if (!export->read_only && options->allow_write.count > 0)
		json_object_set_new(json, "allow", strict_list(&options->allow_write));
	return json;
}

json_t *plan_exports_json(const struct plan *plan, const struct run_options *options,
			  const struct paths *paths, const char *policy_copy)
{
	json_t *exports = json_array();
	json_t *groups = json_array();
	json_t *homes = json_array();
	gid_t own_groups[GUEST_GROUPS_MAX];
	int group_count = getgroups(GUEST_GROUPS_MAX, own_groups);

	for (int i = 0; i < group_count; i++)
		json_array_append_new(groups, json_integer((json_int_t)own_groups[i]));
	json_array_append_new(homes, json_string(paths->home));
	if (strcmp(plan->user.home, paths->home) != 0)
		json_array_append_new(homes, json_string(plan->user.home));
	for (size_t i = 0; i < plan->export_count; i++)
		json_array_append_new(exports,
				      export_json(&plan->exports[i], options, policy_copy));
	return json_pack("{s:s, s:I, s:I, s:o, s:o, s:o}", "session", plan->id, "uid",
			 (json_int_t)geteuid(), "gid", (json_int_t)getegid(), "groups", groups,
			 "homes", homes, "exports", exports);
}
