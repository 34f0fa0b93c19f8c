#include "cli/options.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "cli/paths.h"
#include "cli/project_file.h"
#include "cli/session_record.h"

#include <string.h>
#include <unistd.h>

enum long_only {
	OPTION_WORKSPACE = 256,
	OPTION_ROLLBACK_ON_EXIT,
	OPTION_KEEP_ON_SUCCESS,
	OPTION_IMAGE,
	OPTION_ENV_FILE,
	OPTION_CPUS,
	OPTION_MEMORY,
	OPTION_TIMEOUT,
	OPTION_ENGINE,
	OPTION_POLICY,
	OPTION_ALLOW_WRITE,
	OPTION_NAME,
	OPTION_DRY_RUN,
	OPTION_JSON,
	OPTION_VERBOSE,
	OPTION_DEBUG,
	OPTION_CONFIG,
	OPTION_NO_CONFIG,
	OPTION_NO_ROLLBACK_ON_EXIT,
	OPTION_NO_KEEP_ON_SUCCESS,
	OPTION_NO_TIMEOUT,
	OPTION_NO_POLICY,
	OPTION_NO_QUIET,
	OPTION_NO_SNAPSHOT,
	OPTION_HUGE_PAGES,
	OPTION_ALLOW_HOST,
	OPTION_ALLOW_ALL_HOSTS,
	OPTION_NO_NETWORK,
	OPTION_ADD_HOST,
	OPTION_UPSTREAM_PROXY,
	OPTION_UPSTREAM_CA,
	OPTION_PASSTHROUGH,
	OPTION_SECRET,
	OPTION_CANARY,
};

static const struct option run_long_options[] = {
	{ "workspace", required_argument, NULL, OPTION_WORKSPACE },
	{ "rollback-on-exit", no_argument, NULL, OPTION_ROLLBACK_ON_EXIT },
	{ "keep-on-success", no_argument, NULL, OPTION_KEEP_ON_SUCCESS },
	{ "image", required_argument, NULL, OPTION_IMAGE },
	{ "interactive", no_argument, NULL, 'i' },
	{ "tty", no_argument, NULL, 't' },
	{ "env", required_argument, NULL, 'e' },
	{ "env-file", required_argument, NULL, OPTION_ENV_FILE },
	{ "workdir", required_argument, NULL, 'w' },
	{ "user", required_argument, NULL, 'u' },
	{ "cpus", required_argument, NULL, OPTION_CPUS },
	{ "memory", required_argument, NULL, OPTION_MEMORY },
	{ "huge-pages", no_argument, NULL, OPTION_HUGE_PAGES },
	{ "timeout", required_argument, NULL, OPTION_TIMEOUT },
	{ "engine", required_argument, NULL, OPTION_ENGINE },
	{ "policy", required_argument, NULL, OPTION_POLICY },
	{ "allow-write", required_argument, NULL, OPTION_ALLOW_WRITE },
	{ "volume", required_argument, NULL, 'v' },
	{ "name", required_argument, NULL, OPTION_NAME },
	{ "dry-run", no_argument, NULL, OPTION_DRY_RUN },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "quiet", no_argument, NULL, 'q' },
	{ "verbose", no_argument, NULL, OPTION_VERBOSE },
	{ "debug", no_argument, NULL, OPTION_DEBUG },
	{ "config", required_argument, NULL, OPTION_CONFIG },
	{ "no-config", no_argument, NULL, OPTION_NO_CONFIG },
	{ "no-rollback-on-exit", no_argument, NULL, OPTION_NO_ROLLBACK_ON_EXIT },
	{ "no-keep-on-success", no_argument, NULL, OPTION_NO_KEEP_ON_SUCCESS },
	{ "no-timeout", no_argument, NULL, OPTION_NO_TIMEOUT },
	{ "no-policy", no_argument, NULL, OPTION_NO_POLICY },
	{ "no-quiet", no_argument, NULL, OPTION_NO_QUIET },
	{ "no-snapshot", no_argument, NULL, OPTION_NO_SNAPSHOT },
	{ "allow-host", required_argument, NULL, OPTION_ALLOW_HOST },
	{ "allow-all-hosts", no_argument, NULL, OPTION_ALLOW_ALL_HOSTS },
	{ "no-network", no_argument, NULL, OPTION_NO_NETWORK },
	{ "add-host", required_argument, NULL, OPTION_ADD_HOST },
	{ "upstream-proxy", required_argument, NULL, OPTION_UPSTREAM_PROXY },
	{ "upstream-ca", required_argument, NULL, OPTION_UPSTREAM_CA },
	{ "passthrough", required_argument, NULL, OPTION_PASSTHROUGH },
	{ "secret", required_argument, NULL, OPTION_SECRET },
	{ "canary", no_argument, NULL, OPTION_CANARY },
	{ "publish", required_argument, NULL, 'p' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

void restart_options(void)
{
	optind = 0;
	opterr = 0;
}

/* The long flag in `word`, without dashes and value; NULL for a short one. */
static char *long_flag_name(const char *word)
{
	if (strncmp(word, "--", 2) != 0)
		return NULL;
	return strndup(word + 2, strcspn(word + 2, "="));
}

static const char *nearest_flag(const char *name, const struct option *long_options)
{
	const char *names[64];
	size_t count = 0;

	for (; count < ARRAY_LENGTH(names) && long_options[count].name; count++)
		names[count] = long_options[count].name;
	return suggest(name, names, count);
}

static bool is_known_flag(const char *name, const struct option *long_options)
{
	for (; long_options->name; long_options++) {
		if (strcmp(long_options->name, name) == 0)
			return true;
	}
	return false;
}

int next_option(int argc, char **argv, const char *command, const char *short_options,
		const struct option *long_options, struct problem *problem)
{
	int option = getopt_long(argc, argv, short_options, long_options, NULL);
	cleanup_free char *name = NULL;
	const char *near;

	if (option != '?' && option != ':')
		return option;
	name = optind > 0 && optind <= argc ? long_flag_name(argv[optind - 1]) : NULL;
	if (option == ':') {
		if (name)
			problem_set(problem, STATUS_USAGE, "--%s wants a value", name);
		else
			problem_set(problem, STATUS_USAGE, "-%c wants a value", optopt);
		return -2;
	}
	if (!name || (optopt > 0 && optopt < 256)) {
		problem_set(problem, STATUS_USAGE, "unknown flag -%c; see `matchlock %s --help`",
			    optopt, command);
		return -2;
	}
	if (is_known_flag(name, long_options)) {
		problem_set(problem, STATUS_USAGE, "--%s takes no value", name);
		return -2;
	}
	near = nearest_flag(name, long_options);
	if (near)
		problem_set(problem, STATUS_USAGE, "unknown flag --%s; did you mean --%s?", name,
			    near);
	else
		problem_set(problem, STATUS_USAGE,
			    "unknown or ambiguous flag --%s; see `matchlock %s --help`", name,
			    command);
	return -2;
}

static bool is_guest_place(const char *path)
{
	if (path[0] == '~')
		return path[1] == '\0' ||
		       (path[1] == '/' && path_is_plain_absolute(path + 1) && path[2] != '\0');
	return path_is_plain_absolute(path) && strcmp(path, "/") != 0;
}

int parse_mount_option(const char *text, struct mount_option *ret_mount, struct problem *problem)
{
	const char *colon = strchr(text, ':');
	const char *mode;
	struct mount_option mount = { 0 };

	if (!colon || colon == text || colon[1] == '\0')
		return problem_set(
			problem, STATUS_USAGE,
			"-v %s: write -v HOST:GUEST or -v HOST:GUEST:ro (for more output "
			"there is --verbose)",
			text);
	mode = strchr(colon + 1, ':');
	if (mode && strcmp(mode, ":ro") != 0 && strcmp(mode, ":rw") != 0)
		return problem_set(problem, STATUS_USAGE,
				   "-v %s: after the guest's path comes :ro, :rw or nothing", text);
	mount.host = strndup(text, (size_t)(colon - text));
	mount.guest = mode ? strndup(colon + 1, (size_t)(mode - colon - 1)) : strdup(colon + 1);
	mount.read_only = mode && strcmp(mode, ":ro") == 0;
	if (!mount.host || !mount.guest || !is_guest_place(mount.guest)) {
		problem_set(problem, STATUS_USAGE,
			    "-v %s: the guest's path must be absolute or begin with ~/, without . "
			    "or .. in it, and not /",
			    text);
		free(mount.host);
		free(mount.guest);
		return -1;
	}
	*ret_mount = mount;
	return 0;
}

static int set_once(char **target, const char *flag, const char *value, struct problem *problem)
{
	if (*target)
		return problem_set(problem, STATUS_USAGE, "%s is given twice", flag);
	if (*value == '\0')
		return problem_set(problem, STATUS_USAGE, "%s wants a value that is not empty",
				   flag);
	*target = text_copy(value);
	return 0;
}

static int set_memory(struct run_options *options, const char *value, struct problem *problem)
{
	uint64_t bytes;

	if (!parse_size(value, &bytes))
		return problem_set(problem, STATUS_USAGE,
				   "--memory %s: write a number and a unit, such as 512m or 4g",
				   value);
	if (bytes >> 20 < RUN_MEMORY_MIN_MIB || bytes >> 20 > RUN_MEMORY_MAX_MIB)
		return problem_set(problem, STATUS_USAGE,
				   "--memory %s: must be between %dm and %dg", value,
				   RUN_MEMORY_MIN_MIB, RUN_MEMORY_MAX_MIB >> 10);
	options->memory_mib = (unsigned)(bytes >> 20);
	return 0;
}

static int set_number_option(struct run_options *options, int option, const char *value,
			     struct problem *problem)
{
	uint64_t number;

	switch (option) {
	case OPTION_CPUS:
		if (!parse_unsigned(value, RUN_CPUS_MAX, &number) || number == 0)
			return problem_set(problem, STATUS_USAGE,
					   "--cpus %s: write a number from 1 to %d", value,
					   RUN_CPUS_MAX);
		options->cpus = (unsigned)number;
		return 0;
	case OPTION_TIMEOUT:
		if (!parse_duration(value, 1000, &number) || number > UINT32_MAX / 2)
			return problem_set(problem, STATUS_USAGE,
					   "--timeout %s: write a duration such as 90, 90s, 5m or "
					   "2h, of at most 24 days",
					   value);
		options->timeout_ms = (unsigned)number;
		return 0;
	default:
		return set_memory(options, value, problem);
	}
}

static int set_engine(struct run_options *options, const char *value, struct problem *problem)
{
	if (strcmp(value, "auto") != 0 && strcmp(value, "kvm") != 0 && strcmp(value, "qemu") != 0)
		return problem_set(problem, STATUS_USAGE, "--engine %s: write auto, kvm or qemu",
				   value);
	return set_once(&options->engine, "--engine", value, problem);
}

static int set_name(struct run_options *options, const char *value, struct problem *problem)
{
	if (!session_name_valid(value))
		return problem_set(problem, STATUS_USAGE,
				   "--name %s: use letters, digits, '.', '_' and '-', at most %d, "
				   "beginning with a letter or digit (\"last\" is taken)",
				   value, SESSION_NAME_MAX);
	return set_once(&options->name, "--name", value, problem);
}

static int add_mount(struct run_options *options, const char *value, struct problem *problem)
{
	if (options->mount_count == RUN_MOUNTS_MAX)
		return problem_set(problem, STATUS_USAGE, "more than %d mounts (-v)",
				   RUN_MOUNTS_MAX);
	if (parse_mount_option(value, &options->mounts[options->mount_count], problem) < 0)
		return -1;
	options->mount_count++;
	return 0;
}

static int add_environment(struct run_options *options, const char *value, struct problem *problem)
{
	if (*value == '\0' || *value == '=')
		return problem_set(problem, STATUS_USAGE,
				   "-e %s: write NAME=VALUE, or NAME to pass on its value", value);
	text_list_add(&options->environment, value);
	return 0;
}

/* The forms that take back what a configuration file set. */
static bool unset_flag(struct run_options *options, int option)
{
	switch (option) {
	case OPTION_NO_CONFIG:
		options->no_config = true;
		return true;
	case OPTION_NO_SNAPSHOT:
		options->no_snapshot = true;
		return true;
	case OPTION_NO_ROLLBACK_ON_EXIT:
		options->rollback_on_exit = false;
		return true;
	case OPTION_NO_KEEP_ON_SUCCESS:
		options->keep_on_success = false;
		return true;
	case OPTION_NO_TIMEOUT:
		options->timeout_ms = 0;
		return true;
	case OPTION_NO_POLICY:
		free(options->policy);
		options->policy = NULL;
		return true;
	case OPTION_NO_QUIET:
		options->verbosity = RUN_NORMAL;
		return true;
	default:
		return false;
	}
}

static int set_flag(struct run_options *options, int option)
{
	if (unset_flag(options, option))
		return 0;
	switch (option) {
	case OPTION_ROLLBACK_ON_EXIT:
		options->rollback_on_exit = true;
		break;
	case OPTION_HUGE_PAGES:
		options->huge_pages = true;
		break;
	case OPTION_ALLOW_ALL_HOSTS:
		options->network.allow_all = true;
		break;
	case OPTION_CANARY:
		options->network.plants_canaries = true;
		break;
	case OPTION_NO_NETWORK:
		options->network.is_refused = true;
		break;
	case OPTION_KEEP_ON_SUCCESS:
		options->keep_on_success = true;
		break;
	case 'i':
		options->input = true;
		break;
	case 't':
		options->terminal = true;
		break;
	case OPTION_DRY_RUN:
		options->dry_run = true;
		break;
	case OPTION_JSON:
		options->json = true;
		break;
	case 'q':
		options->verbosity = RUN_QUIET;
		break;
	case OPTION_VERBOSE:
		options->verbosity = RUN_VERBOSE;
		break;
	case OPTION_DEBUG:
		options->verbosity = RUN_DEBUG;
		break;
	default:
		options->help = true;
		break;
	}
	return 0;
}

static int set_network_option(struct run_options *options, int option, const char *value,
			      struct problem *problem)
{
	struct network_options *network = &options->network;

	switch (option) {
	case OPTION_ALLOW_HOST:
		return network_allow(network, value, problem);
	case OPTION_PASSTHROUGH:
		return network_pass_through(network, value, problem);
	case OPTION_ADD_HOST:
		return network_add_host(network, value, problem);
	case OPTION_UPSTREAM_PROXY:
		return network_set_upstream_proxy(network, value, problem);
	case OPTION_UPSTREAM_CA:
		return set_once(&network->upstream_ca, "--upstream-ca", value, problem);
	case OPTION_SECRET:
		return network_add_secret(network, value, problem);
	default:
		return network_forward(network, value, problem);
	}
}

static int set_option(struct run_options *options, int option, const char *value,
		      struct problem *problem)
{
	switch (option) {
	case OPTION_WORKSPACE:
		return set_once(&options->workspace, "--workspace", value, problem);
	case OPTION_IMAGE:
		return set_once(&options->image, "--image", value, problem);
	case 'w':
		return set_once(&options->cwd, "-w", value, problem);
	case 'u':
		return set_once(&options->user, "-u", value, problem);
	case OPTION_POLICY:
		return set_once(&options->policy, "--policy", value, problem);
	case OPTION_CONFIG:
		return set_once(&options->config, "--config", value, problem);
	case OPTION_NAME:
		return set_name(options, value, problem);
	case OPTION_ENGINE:
		return set_engine(options, value, problem);
	case 'e':
		return add_environment(options, value, problem);
	case OPTION_ENV_FILE:
		text_list_add(&options->environment_files, value);
		return 0;
	case OPTION_ALLOW_WRITE:
		text_list_add(&options->allow_write, value);
		return 0;
	case 'v':
		return add_mount(options, value, problem);
	case OPTION_ALLOW_HOST:
	case OPTION_PASSTHROUGH:
	case OPTION_ADD_HOST:
	case OPTION_UPSTREAM_PROXY:
	case OPTION_UPSTREAM_CA:
	case OPTION_SECRET:
	case 'p':
		return set_network_option(options, option, value, problem);
	case OPTION_CPUS:
	case OPTION_MEMORY:
	case OPTION_TIMEOUT:
		return set_number_option(options, option, value, problem);
	default:
		return set_flag(options, option);
	}
}

/* ---- settings ------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int option;    /* sets it */
	int others[3]; /* set it too, or take it back; 0: none */
} settings[SETTING_COUNT] = {
	[SETTING_ENGINE] = { "engine", OPTION_ENGINE, { 0 } },
	[SETTING_CPUS] = { "cpus", OPTION_CPUS, { 0 } },
	[SETTING_MEMORY] = { "memory", OPTION_MEMORY, { 0 } },
	[SETTING_TIMEOUT] = { "timeout", OPTION_TIMEOUT, { OPTION_NO_TIMEOUT } },
	[SETTING_IMAGE] = { "image", OPTION_IMAGE, { 0 } },
	[SETTING_POLICY] = { "policy", OPTION_POLICY, { OPTION_NO_POLICY } },
	[SETTING_USER] = { "user", 'u', { 0 } },
	[SETTING_ROLLBACK_ON_EXIT] = { "rollback_on_exit",
				       OPTION_ROLLBACK_ON_EXIT,
				       { OPTION_NO_ROLLBACK_ON_EXIT } },
	[SETTING_KEEP_ON_SUCCESS] = { "keep_on_success",
				      OPTION_KEEP_ON_SUCCESS,
				      { OPTION_NO_KEEP_ON_SUCCESS } },
	[SETTING_QUIET] = { "quiet", 'q', { OPTION_VERBOSE, OPTION_DEBUG, OPTION_NO_QUIET } },
	[SETTING_VOLUMES] = { "volumes", 'v', { 0 } },
	[SETTING_ENV] = { "env", 'e', { 0 } },
};

const char *setting_name(enum run_setting setting)
{
	return settings[setting].name;
}

static void note_source(struct run_options *options, int option)
{
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		bool same = settings[i].option == option;

		for (size_t j = 0; j < ARRAY_LENGTH(settings[i].others); j++)
			same = same || settings[i].others[j] == option;
		if (same)
			options->source[i] = SOURCE_FLAG;
	}
}

int run_options_set(struct run_options *options, enum run_setting setting, const char *value,
		    struct problem *problem)
{
	options->source[setting] = SOURCE_CONFIG;
	if (strcmp(value, "false") == 0 && settings[setting].others[0]) {
		if (setting == SETTING_QUIET)
			return set_option(options, OPTION_NO_QUIET, NULL, problem);
		if (setting == SETTING_ROLLBACK_ON_EXIT || setting == SETTING_KEEP_ON_SUCCESS)
			return set_option(options, settings[setting].others[0], NULL, problem);
	}
	return set_option(options, settings[setting].option, value, problem);
}

static bool inherits(const struct run_options *options, const struct run_options *preset,
		     enum run_setting setting)
{
	return options->source[setting] == SOURCE_DEFAULT &&
	       preset->source[setting] != SOURCE_DEFAULT;
}

static void inherit_text(struct run_options *options, const struct run_options *preset,
			 enum run_setting setting, char **target, char **value)
{
	if (inherits(options, preset, setting))
		*target = steal_pointer(value);
}

static int inherit_mounts(struct run_options *options, struct run_options *preset,
			  struct problem *problem)
{
	for (size_t i = 0; i < preset->mount_count; i++) {
		struct mount_option *mount = &preset->mounts[i];
		bool replaced = false;

		for (size_t j = 0; j < options->mount_count; j++)
			replaced = replaced || strcmp(options->mounts[j].guest, mount->guest) == 0;
		if (replaced)
			continue;
		if (options->mount_count == RUN_MOUNTS_MAX)
			return problem_set(problem, STATUS_USAGE,
					   "more than %d mounts (-v, and volumes of %s)",
					   RUN_MOUNTS_MAX, mount->where);
		options->mounts[options->mount_count++] = *mount;
		*mount = (struct mount_option){ 0 };
	}
	return 0;
}

static void inherit_booleans(struct run_options *options, const struct run_options *preset)
{
	bool asked_now = options->source[SETTING_ROLLBACK_ON_EXIT] == SOURCE_FLAG &&
			 options->rollback_on_exit;

	if (inherits(options, preset, SETTING_ROLLBACK_ON_EXIT))
		options->rollback_on_exit = preset->rollback_on_exit;
	/* Who asks for a roll-back now wants it also after a success. */
	if (inherits(options, preset, SETTING_KEEP_ON_SUCCESS) && !asked_now)
		options->keep_on_success = preset->keep_on_success;
	if (inherits(options, preset, SETTING_QUIET))
		options->verbosity = preset->verbosity;
}

int run_options_inherit(struct run_options *options, struct run_options *preset,
			struct problem *problem)
{
	inherit_text(options, preset, SETTING_ENGINE, &options->engine, &preset->engine);
	inherit_text(options, preset, SETTING_IMAGE, &options->image, &preset->image);
	inherit_text(options, preset, SETTING_POLICY, &options->policy, &preset->policy);
	inherit_text(options, preset, SETTING_USER, &options->user, &preset->user);
	if (inherits(options, preset, SETTING_CPUS))
		options->cpus = preset->cpus;
	if (inherits(options, preset, SETTING_MEMORY))
		options->memory_mib = preset->memory_mib;
	if (inherits(options, preset, SETTING_TIMEOUT))
		options->timeout_ms = preset->timeout_ms;
	inherit_booleans(options, preset);
	for (size_t i = 0; i < preset->environment.count; i++)
		text_list_add(&options->environment_preset, preset->environment.items[i]);
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		if (inherits(options, preset, (enum run_setting)i))
			options->source[i] = preset->source[i];
	}
	return inherit_mounts(options, preset, problem);
}

/* ---- all of it ------------------------------------------------------------------------------ */

int run_options_parse(int argc, char **argv, struct run_options *ret_options,
		      struct problem *problem)
{
	struct run_options options = { .verbosity = RUN_NORMAL };
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "run", "+:ite:w:u:v:p:qh", run_long_options,
				     problem)) != -1) {
		if (option == -2 || set_option(&options, option, optarg, problem) < 0)
			goto failed;
		note_source(&options, option);
	}
	for (int i = optind; i < argc; i++)
		text_list_add(&options.command, argv[i]);
	if (!options.help && network_judge(&options.network, problem) < 0)
		goto failed;
	if (!options.help && options.command.count == 0) {
		problem_set(problem, STATUS_USAGE,
			    "no command: write `matchlock run [flags] -- COMMAND [ARGUMENT...]`");
		goto failed;
	}
	*ret_options = options;
	return 0;
failed:
	run_options_free(&options);
	return -1;
}

void run_options_free(struct run_options *options)
{
	free(options->workspace);
	free(options->image);
	text_list_free(&options->environment);
	text_list_free(&options->environment_files);
	free(options->cwd);
	free(options->user);
	free(options->engine);
	free(options->policy);
	for (size_t i = 0; i < options->mount_count; i++) {
		free(options->mounts[i].host);
		free(options->mounts[i].guest);
		free(options->mounts[i].where);
	}
	text_list_free(&options->environment_preset);
	text_list_free(&options->notices);
	free(options->config);
	if (options->project)
		project_file_free(options->project);
	free(options->project);
	free(options->project_path);
	free(options->project_text);
	text_list_free(&options->allow_write);
	network_options_free(&options->network);
	free(options->name);
	text_list_free(&options->command);
	*options = (struct run_options){ 0 };
}
