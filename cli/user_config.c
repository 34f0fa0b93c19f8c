#include "cli/user_config.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/flat_yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VALUE_MAX 4096

/* ---- form ----------------------------------------------------------------------------------- */

struct document {
	unsigned version;
	char *engine;
	char *cpus;
	char *memory;
	char *timeout;
	char *image;
	char *policy;
	char *user;
	bool *rollback_on_exit;
	bool *keep_on_success;
	bool *quiet;
	char **volumes;
	unsigned volumes_count;
	char **env;
	unsigned env_count;
};

#define OPTIONAL (CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER)
#define TEXT(name) CYAML_FIELD_STRING_PTR(#name, OPTIONAL, struct document, name, 1, VALUE_MAX)
#define FLAG(name) CYAML_FIELD_BOOL_PTR(#name, OPTIONAL, struct document, name)

/* clang-format off: the macros are the library's table syntax */
static const cyaml_schema_value_t item_schema = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, 2 * VALUE_MAX),
};

static const cyaml_schema_field_t document_fields[] = {
	CYAML_FIELD_UINT("version", CYAML_FLAG_DEFAULT, struct document, version),
	TEXT(engine),
	TEXT(cpus),
	TEXT(memory),
	TEXT(timeout),
	TEXT(image),
	TEXT(policy),
	TEXT(user),
	FLAG(rollback_on_exit),
	FLAG(keep_on_success),
	FLAG(quiet),
	CYAML_FIELD_SEQUENCE("volumes", OPTIONAL, struct document, volumes, &item_schema, 0,
			     RUN_MOUNTS_MAX),
	CYAML_FIELD_SEQUENCE("env", OPTIONAL, struct document, env, &item_schema, 0,
			     FLAT_YAML_ITEMS_MAX),
	CYAML_FIELD_END
};

static const cyaml_schema_value_t document_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct document, document_fields),
};
/* clang-format on */

static const struct flat_yaml_refusal refusals[] = {
	{ "workspace", "what a command may change is said on the command line, with --workspace "
		       "DIR" },
	{ "allow_write", "what a command may change is said on the command line, with "
			 "--allow-write, or in a policy" },
	{ NULL, NULL },
};

static const struct flat_yaml_form form = {
	.schema = &document_schema,
	.refusals = refusals,
	.manual = "docs/configuration.md",
};

/* ---- reading -------------------------------------------------------------------------------- */

/* Who can write it decides what every session may do. */
static int judge_owner(const char *path, const struct stat *status, struct problem *problem)
{
	cleanup_free char *word = quote_word(path);

	if (!S_ISREG(status->st_mode))
		return problem_set(problem, STATUS_USAGE, "%s: is no regular file", path);
	if (status->st_uid != geteuid() && status->st_uid != 0)
		return problem_set(problem, STATUS_USAGE,
				   "%s: belongs to user %u, who could change it; make it yours: "
				   "chown %u %s",
				   path, (unsigned)status->st_uid, (unsigned)geteuid(), word);
	if ((status->st_mode & 022) != 0)
		return problem_set(problem, STATUS_USAGE,
				   "%s: others can write it; correct that: chmod go-w %s", path,
				   word);
	return 0;
}

static int load(const char *path, char **ret_text, size_t *ret_length, struct problem *problem)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat status;
	int error;

	if (fd < 0 || fstat(fd, &status) < 0)
		return problem_set(problem, STATUS_USAGE, "%s: %s", path, strerror(errno));
	if (judge_owner(path, &status, problem) < 0)
		return -1;
	error = read_file(fd, FLAT_YAML_BYTES_MAX, ret_text, ret_length);
	if (error < 0)
		return problem_set(problem, STATUS_USAGE, "%s: %s", path,
				   error == -EFBIG ? "is larger than 256 KiB" : strerror(-error));
	return 0;
}

struct taking {
	const char *path;
	const struct paths *paths;
	const struct flat_yaml_lines *lines;
	struct run_options *settings;
	struct text_list *where;
	struct problem *problem;
};

static int mistake(const struct taking *taking, unsigned line, const char *key, const char *what)
{
	return problem_set(taking->problem, STATUS_USAGE, "%s:%u: %s: %s", taking->path, line, key,
			   what);
}

/* One setting, with the checks of its flag. Those name the flag, for which we put the key. */
static int take(const struct taking *taking, enum run_setting setting, const char *value,
		unsigned line)
{
	struct problem problem;
	const char *what = problem.text;

	if (run_options_set(taking->settings, setting, value, &problem) == 0) {
		if (taking->where) {
			free(taking->where->items[setting]);
			taking->where->items[setting] = text_printf("%s:%u", taking->path, line);
		}
		return 0;
	}
	if (*what == '-' && strstr(what, ": "))
		what = strstr(what, ": ") + 2;
	return mistake(taking, line, setting_name(setting), what);
}

static int take_text(const struct taking *taking, enum run_setting setting, const char *value)
{
	return value ? take(taking, setting, value,
			    flat_yaml_key_line(taking->lines, setting_name(setting)))
		     : 0;
}

static int take_flag(const struct taking *taking, enum run_setting setting, const bool *value)
{
	return value ? take_text(taking, setting, *value ? "true" : "false") : 0;
}

/* The file is read wherever one happens to be: relative to what would a path be? */
static int take_path(const struct taking *taking, enum run_setting setting, const char *value)
{
	cleanup_free char *path = NULL;

	if (!value)
		return 0;
	if (strncmp(value, "~/", 2) == 0)
		path = text_printf("%s%s", taking->paths->home, value + 1);
	else if (value[0] == '/' || (setting == SETTING_IMAGE && strcmp(value, "host") == 0))
		path = text_copy(value);
	else
		return mistake(taking, flat_yaml_key_line(taking->lines, setting_name(setting)),
			       setting_name(setting), "the path must be absolute or begin with ~/");
	return take_text(taking, setting, path);
}

static int take_volumes(const struct taking *taking, char **volumes, unsigned count)
{
	struct run_options *settings = taking->settings;

	for (unsigned i = 0; i < count; i++) {
		unsigned line = flat_yaml_item_line(taking->lines, "volumes", i);

		if (take(taking, SETTING_VOLUMES, volumes[i], line) < 0)
			return -1;
		settings->mounts[settings->mount_count - 1].where =
			text_printf("%s:%u", taking->path, line);
		if (volumes[i][0] != '/' && strncmp(volumes[i], "~/", 2) != 0)
			return mistake(taking, line, "volumes",
				       "the host's path must be absolute or begin with ~/");
	}
	return 0;
}

static int take_document(const struct taking *taking, const struct document *document)
{
	if (take_text(taking, SETTING_ENGINE, document->engine) < 0 ||
	    take_text(taking, SETTING_CPUS, document->cpus) < 0 ||
	    take_text(taking, SETTING_MEMORY, document->memory) < 0 ||
	    take_text(taking, SETTING_TIMEOUT, document->timeout) < 0 ||
	    take_path(taking, SETTING_IMAGE, document->image) < 0 ||
	    take_path(taking, SETTING_POLICY, document->policy) < 0 ||
	    take_text(taking, SETTING_USER, document->user) < 0 ||
	    take_flag(taking, SETTING_ROLLBACK_ON_EXIT, document->rollback_on_exit) < 0 ||
	    take_flag(taking, SETTING_KEEP_ON_SUCCESS, document->keep_on_success) < 0 ||
	    take_flag(taking, SETTING_QUIET, document->quiet) < 0 ||
	    take_volumes(taking, document->volumes, document->volumes_count) < 0)
		return -1;
	for (unsigned i = 0; i < document->env_count; i++) {
		if (take(taking, SETTING_ENV, document->env[i],
			 flat_yaml_item_line(taking->lines, "env", i)) < 0)
			return -1;
	}
	return 0;
}

int user_config_read(const char *path, const struct paths *paths, struct run_options *ret_settings,
		     struct text_list *where, struct problem *problem)
{
	struct run_options settings = { .verbosity = RUN_NORMAL };
	cleanup_free char *text = NULL;
	struct flat_yaml_lines lines;
	size_t length = 0;
	void *document;
	int result;

	for (size_t i = 0; where && i < SETTING_COUNT; i++)
		text_list_add(where, "");
	if (load(path, &text, &length, problem) < 0 ||
	    flat_yaml_read(&form, text, length, path, &document, &lines, problem) < 0)
		return -1;
	result = take_document(&(struct taking){ .path = path,
						 .paths = paths,
						 .lines = &lines,
						 .settings = &settings,
						 .where = where,
						 .problem = problem },
			       document);
	flat_yaml_free(&form, document, &lines);
	if (result < 0)
		run_options_free(&settings);
	else
		*ret_settings = settings;
	return result;
}

char *user_config_default(const struct paths *paths)
{
	return text_printf("%s/config.yaml", paths->config);
}

int user_config_apply(struct run_options *options, const struct paths *paths,
		      struct problem *problem)
{
	cleanup_free char *path = NULL;
	struct run_options settings;
	int result;

	if (options->no_config && options->config)
		return problem_set(problem, STATUS_USAGE,
				   "--config and --no-config exclude each other");
	if (options->no_config)
		return 0;
	path = options->config ? text_copy(options->config) : user_config_default(paths);
	/* Only the one that was not asked for by name may be missing. */
	if (!options->config && access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	if (user_config_read(path, paths, &settings, NULL, problem) < 0)
		return -1;
	result = run_options_inherit(options, &settings, problem);
	run_options_free(&settings);
	free(options->config);
	options->config = steal_pointer(&path);
	return result;
}
