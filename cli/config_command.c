/* `matchlock config`: what config.yaml sets, and what holds without it. */
#include "base/cleanup.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/plan.h"
#include "cli/user_config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPTION_CONFIG = 256, OPTION_JSON };

static const struct option long_options[] = {
	{ "config", required_argument, NULL, OPTION_CONFIG },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static char *yes_no(bool value)
{
	return text_copy(value ? "true" : "false");
}

/* The setting as it would be written; the caller frees. */
static char *value_of(const struct run_options *options, enum run_setting setting)
{
	switch (setting) {
	case SETTING_ENGINE:
		return text_copy(options->engine ? options->engine : "auto");
	case SETTING_CPUS:
		return options->cpus
			       ? text_printf("%u", options->cpus)
			       : text_printf("%d, or as many as there are", PLAN_CPUS_DEFAULT);
	case SETTING_MEMORY:
		return text_printf("%um", options->memory_mib ? options->memory_mib
							      : PLAN_MEMORY_DEFAULT_MIB);
	case SETTING_TIMEOUT:
		return options->timeout_ms ? text_printf("%us", options->timeout_ms / 1000)
					   : text_copy("none");
	case SETTING_IMAGE:
		return escape_copy(options->image ? options->image : "host");
	case SETTING_POLICY:
		return escape_copy(options->policy ? options->policy : "none");
	case SETTING_USER:
		return escape_copy(options->user ? options->user : "you");
	case SETTING_ROLLBACK_ON_EXIT:
		return yes_no(options->rollback_on_exit);
	case SETTING_KEEP_ON_SUCCESS:
		return yes_no(options->keep_on_success);
	case SETTING_QUIET:
		return yes_no(options->verbosity == RUN_QUIET);
	case SETTING_VOLUMES:
		return text_printf("%zu", options->mount_count);
	case SETTING_ENV:
		return text_printf("%zu", options->environment.count);
	case SETTING_COUNT:
		break;
	}
	return text_copy("");
}

static json_t *lists_json(const struct run_options *options, enum run_setting setting)
{
	json_t *array = json_array();

	for (size_t i = 0; setting == SETTING_ENV && i < options->environment.count; i++) {
		cleanup_free char *shown = escape_copy(options->environment.items[i]);

		json_array_append_new(array, json_string(shown));
	}
	for (size_t i = 0; setting == SETTING_VOLUMES && i < options->mount_count; i++) {
		const struct mount_option *mount = &options->mounts[i];
		cleanup_free char *host = escape_copy(mount->host);
		cleanup_free char *guest = escape_copy(mount->guest);
		cleanup_free char *shown =
			text_printf("%s:%s:%s", host, guest, mount->read_only ? "ro" : "rw");

		json_array_append_new(array, json_string(shown));
	}
	return array;
}

static void print_list(json_t *array)
{
	for (size_t i = 0; i < json_array_size(array); i++)
		printf("    %s\n", json_string_value(json_array_get(array, i)));
}

static void print_all(const struct run_options *options, const struct text_list *where, bool json)
{
	json_t *all = json_object();

	for (int i = 0; i < SETTING_COUNT; i++) {
		enum run_setting setting = (enum run_setting)i;
		bool is_list = setting == SETTING_VOLUMES || setting == SETTING_ENV;
		cleanup_free char *value = value_of(options, setting);
		cleanup_free char *place = options->source[i] == SOURCE_DEFAULT
						   ? text_copy("default")
						   : escape_copy(where->items[i]);
		json_t *items = lists_json(options, setting);

		if (!json) {
			printf("%-17s %-12s (%s)\n", setting_name(setting), value, place);
			print_list(items);
		}
		json_object_set_new(all, setting_name(setting),
				    json_pack("{s:o, s:s}", "value",
					      is_list ? json_incref(items) : json_string(value),
					      "from", place));
		json_decref(items);
	}
	if (json) {
		cleanup_free char *text = json_dumps(all, JSON_INDENT(2));

		puts(text ? text : "{}");
	}
	json_decref(all);
}

int command_config(int argc, char **argv, const struct paths *paths)
{
	cleanup_list struct text_list where = { 0 };
	cleanup_free char *path = NULL;
	struct run_options settings = { .verbosity = RUN_NORMAL };
	struct problem problem;
	bool named = false;
	bool json = false;
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "config", ":h", long_options, &problem)) != -1) {
		if (option == -2)
			return command_problem(&problem);
		if (option == 'h')
			return command_help("config");
		if (option == OPTION_JSON) {
			json = true;
			continue;
		}
		free(path);
		path = text_copy(optarg);
		named = true;
	}
	if (optind < argc)
		return command_usage("config", "it takes flags only");
	if (!path)
		path = user_config_default(paths);
	if ((named || access(path, F_OK) == 0 || errno != ENOENT) &&
	    user_config_read(path, paths, &settings, &where, &problem) < 0)
		return command_problem(&problem);
	print_all(&settings, &where, json);
	run_options_free(&settings);
	return 0;
}
