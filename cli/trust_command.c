/* `matchlock trust`: shows what a project's .matchlock.yaml asks for, and lets it have that. */
#include "base/cleanup.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/project_trust.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPTION_SHOW = 256, OPTION_REMOVE, OPTION_LIST, OPTION_JSON };

static const struct option long_options[] = {
	{ "show", no_argument, NULL, OPTION_SHOW }, { "remove", no_argument, NULL, OPTION_REMOVE },
	{ "list", no_argument, NULL, OPTION_LIST }, { "json", no_argument, NULL, OPTION_JSON },
	{ "help", no_argument, NULL, 'h' },	    { NULL, 0, NULL, 0 },
};

static const char *const state_names[] = { "ignored", "changed", "trusted" };

static int print_json(json_t *json)
{
	cleanup_free char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;

	json_decref(json);
	if (!text) {
		fprintf(stderr, "matchlock: this cannot be written as JSON\n");
		return 1;
	}
	puts(text);
	return 0;
}

static json_t *shown(const char *text)
{
	cleanup_free char *escaped = escape_copy(text);

	return json_string(escaped);
}

/* ---- one project ---------------------------------------------------------------------------- */

static json_t *rules_json(const struct project_file *file, enum project_list list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < file->rule_count; i++) {
		if (file->rules[i].list == list)
			json_array_append_new(array, shown(file->rules[i].pattern));
	}
	return array;
}

static json_t *file_json(const struct project_bytes *bytes, const struct project_file *file,
			 enum trust_state state)
{
	return json_pack(
		"{s:o, s:s, s:s, s:o, s:o, s:o, s:b, s:b, s:b, s:i, s:i, s:I}", "path",
		shown(bytes->path), "sha256", bytes->sha256, "state", state_names[state], "deny",
		rules_json(file, PROJECT_DENY), "hide", rules_json(file, PROJECT_HIDE), "readonly",
		rules_json(file, PROJECT_READONLY), "no_network", file->no_network ? 1 : 0,
		"workspace_read_only", file->read_only ? 1 : 0, "rollback_on_exit",
		file->rollback_on_exit ? 1 : 0, "cpus_max", (int)file->cpus, "memory_max_mib",
		(int)file->memory_mib, "timeout_max_ms", (json_int_t)file->timeout_ms);
}

static void print_file(const struct project_bytes *bytes, const struct project_file *file,
		       enum trust_state before, bool show)
{
	cleanup_free char *text = project_file_text(file);
	cleanup_free char *path = escape_copy(bytes->path);

	printf("%s asks for\n%s", path, text);
	if (!show)
		printf("It is trusted%s as long as it stays as it is (SHA-256 %.12s...).\n",
		       before == TRUST_GIVEN ? ", as before," : "", bytes->sha256);
	else
		printf("It is %s.\n", before == TRUST_GIVEN	? "trusted"
				      : before == TRUST_CHANGED ? "ignored, because it changed "
								  "since it was trusted"
								: "ignored");
}

static int trust(const char *directory, bool show, bool json, const struct paths *paths)
{
	struct project_bytes bytes = { 0 };
	struct project_file file = { 0 };
	enum trust_state state = TRUST_NONE;
	struct problem problem;
	int found = project_bytes_read(directory, &bytes, &problem);
	int status = 1;

	if (found == 0)
		problem_set(&problem, STATUS_USAGE, "%s has no " PROJECT_FILE_NAME, directory);
	if (found <= 0)
		return command_problem(&problem);
	if (project_file_parse(bytes.text, bytes.length, bytes.path, &file, &problem) < 0 ||
	    trust_look_up(paths, &bytes, &state, &problem) < 0 ||
	    (!show && trust_give(paths, &bytes, &problem) < 0)) {
		status = command_problem(&problem);
	} else if (json) {
		status = print_json(file_json(&bytes, &file, show ? state : TRUST_GIVEN));
	} else {
		print_file(&bytes, &file, state, show);
		status = 0;
	}
	project_file_free(&file);
	project_bytes_free(&bytes);
	return status;
}

static int take_back(const char *directory, const struct paths *paths)
{
	cleanup_free char *path =
		text_printf("%s/" PROJECT_FILE_NAME, strcmp(directory, "/") == 0 ? "" : directory);
	struct problem problem;
	int found = trust_take_back(paths, path, &problem);

	if (found == 0)
		problem_set(&problem, STATUS_SANDBOX, "%s is not trusted", path);
	return found > 0 ? 0 : command_problem(&problem);
}

/* ---- all ------------------------------------------------------------------------------------ */

static enum trust_state state_now(const struct trust_record *record, bool *ret_there)
{
	cleanup_free char *directory = text_copy(record->path);
	struct project_bytes bytes = { 0 };
	struct problem ignored;
	enum trust_state state = TRUST_CHANGED;

	*strrchr(directory, '/') = '\0';
	*ret_there = project_bytes_read(*directory ? directory : "/", &bytes, &ignored) > 0;
	if (*ret_there && strcmp(bytes.sha256, record->sha256) == 0)
		state = TRUST_GIVEN;
	project_bytes_free(&bytes);
	return state;
}

static int list(bool json, const struct paths *paths)
{
	struct trust_record *records;
	struct problem problem;
	json_t *array = json_array();
	size_t count;

	if (trust_list(paths, &records, &count, &problem) < 0) {
		json_decref(array);
		return command_problem(&problem);
	}
	for (size_t i = 0; i < count; i++) {
		cleanup_free char *path = escape_copy(records[i].path);
		cleanup_free char *age = format_age(time(NULL), records[i].since);
		bool there;
		enum trust_state state = state_now(&records[i], &there);
		const char *name = there ? state_names[state] : "missing";

		if (json)
			json_array_append_new(array,
					      json_pack("{s:s, s:s, s:s, s:I}", "path", path,
							"sha256", records[i].sha256, "state", name,
							"since", (json_int_t)records[i].since));
		else
			printf("%-8s %s, %s\n", name, path, age);
	}
	trust_list_free(records, count);
	if (json)
		return print_json(array);
	json_decref(array);
	return 0;
}

int command_trust(int argc, char **argv, const struct paths *paths)
{
	cleanup_free char *directory = NULL;
	struct problem problem;
	int verb = 0;
	bool json = false;
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "trust", ":h", long_options, &problem)) != -1) {
		if (option == -2)
			return command_problem(&problem);
		if (option == 'h')
			return command_help("trust");
		if (option == OPTION_JSON) {
			json = true;
		} else if (verb != 0 && verb != option) {
			return command_usage("trust",
					     "--show, --remove and --list exclude each other");
		} else {
			verb = option;
		}
	}
	if (argc - optind > (verb == OPTION_LIST ? 0 : 1))
		return command_usage("trust", verb == OPTION_LIST ? "--list takes no directory"
								  : "give one directory");
	if (verb == OPTION_LIST)
		return list(json, paths);
	/* A project that is gone can still be forgotten. */
	directory = canonical_prefix(optind < argc ? argv[optind] : ".");
	if (directory[0] != '/') {
		problem_set(&problem, STATUS_USAGE, "%s: %s", argv[optind], strerror(ENOENT));
		return command_problem(&problem);
	}
	if (verb == OPTION_REMOVE)
		return take_back(directory, paths);
	return trust(directory, verb == OPTION_SHOW, json, paths);
}
