#include "cli/plan.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/client_certificates.h"
#include "cli/egress_rules.h"
#include "cli/environment.h"
#include "cli/project_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Below a home directory: what unlocks something else. -v of one is warned about. */
static const char *const credential_places[] = {
	".ssh",
	".gnupg",
	".aws",
	".azure",
	".config/gcloud",
	".kube",
	".docker",
	".git-credentials",
	".netrc",
	".npmrc",
	".vault-token",
	".config/op",
	".password-store",
	".local/share/keyrings",
	".config/gh",
	".pki",
	".credentials",
	".secrets",
	".terraform.d",
	".claude",
	".codex",
	".mozilla",
	".config/google-chrome",
	".config/chromium",
};

/* Guest directories that belong to the guest's kernel and init. */
static const char *const guest_reserved[] = { "/proc", "/sys", "/dev" };

void plan_free(struct plan *plan)
{
	guest_user_free(&plan->user);
	for (size_t i = 0; i < plan->export_count; i++) {
		struct plan_export *export = &plan->exports[i];

		free(export->host);
		free(export->tree);
		free(export->guest);
		free(export->store);
		text_list_free(&export->hide);
	}
	free(plan->cwd);
	free(plan->hostname);
	free(plan->time_zone);
	text_list_free(&plan->environment);
	free(plan->policy);
	json_decref(plan->egress_rules);
	text_list_free(&plan->warnings);
	*plan = (struct plan){ 0 };
}

const char *plan_export_tree(const struct plan_export *export)
{
	return export->tree ? export->tree : export->host;
}

const struct plan_export *plan_workspace(const struct plan *plan)
{
	for (size_t i = 0; i < plan->export_count; i++) {
		if (plan->exports[i].profile == PLAN_PROFILE_WORKSPACE)
			return &plan->exports[i];
	}
	return NULL;
}

bool plan_has_writable(const struct plan *plan)
{
	for (size_t i = 0; i < plan->export_count; i++) {
		if (!plan->exports[i].read_only)
			return true;
	}
	return false;
}

static struct plan_export *add_export(struct plan *plan, const char *name,
				      enum plan_profile profile, const char *host,
				      const char *guest, bool read_only)
{
	struct plan_export *export = &plan->exports[plan->export_count];

	*export = (struct plan_export){
		.id = (unsigned)plan->export_count + PLAN_IMAGE_EXPORT,
		.name = name,
		.profile = profile,
		.host = text_copy(host),
		.guest = text_copy(guest),
		.read_only = read_only,
	};
	plan->export_count++;
	return export;
}

/* A glob that matches `path` (relative) alone, anchored at the export's root. */
static char *exact_glob(const char *path)
{
	char *glob = allocate(strlen(path) * 2 + 2, 1);
	size_t length = 0;

	glob[length++] = '/';
	for (; *path; path++) {
		if (strchr("*?[]{}\\!", *path))
			glob[length++] = '\\';
		glob[length++] = *path;
	}
	return glob;
}

static void hide_if_inside(struct plan_export *export, const char *path)
{
	if (path_is_within(path, export->host) && strcmp(path, export->host) != 0)
		text_list_take(&export->hide, exact_glob(path_below(path, export->host)));
}

/* Matchlock's own directories are in nobody's export; nor is an undo store. */
static void hide_own_places(struct plan_export *export, const struct paths *paths)
{
	cleanup_free char *runtime = canonical_prefix(paths->runtime);

	hide_if_inside(export, paths->state);
	hide_if_inside(export, paths->config);
	hide_if_inside(export, paths->cache);
	hide_if_inside(export, runtime);
	if (export->profile != PLAN_PROFILE_IMAGE && !export->tree)
		text_list_add(&export->hide, "/.matchlock");
}

/* An undo store inside one tree may be visible through another that holds the tree. */
static void hide_other_stores(struct plan *plan)
{
	for (size_t i = 0; i < plan->export_count; i++) {
		const struct plan_export *owner = &plan->exports[i];
		cleanup_free char *place = NULL;

		if (!owner->store_inside)
			continue;
		place = text_printf("%s/.matchlock", plan_export_tree(owner));
		for (size_t j = 0; j < plan->export_count; j++) {
			if (j != i)
				hide_if_inside(&plan->exports[j], place);
		}
	}
}

/* ---- trees of the host ------------------------------------------------------------------ */

static int canonical_path(const char *what, const char *given, char **ret_path,
			  struct stat *ret_status, struct problem *problem)
{
	cleanup_free char *path = realpath(given, NULL);

	if (!path)
		return problem_set(problem, STATUS_USAGE, "%s %s: %s", what, given,
				   strerror(errno));
	if (stat(path, ret_status) < 0)
		return problem_set(problem, STATUS_USAGE, "%s %s: %s", what, path, strerror(errno));
	*ret_path = steal_pointer(&path);
	return 0;
}

static bool has_component(const char *path, const char *component)
{
	size_t length = strlen(component);

	for (const char *at = path; *at;) {
		size_t size;

		while (*at == '/')
			at++;
		size = strcspn(at, "/");
		if (size == length && strncasecmp(at, component, length) == 0)
			return true;
		at += size;
	}
	return false;
}

/* Rules that hold for the workspace and for every -v. */
static int judge_tree(const char *what, const char *host, bool read_only, const struct paths *paths,
		      struct problem *problem)
{
	static const char *const kernel_places[] = { "/proc", "/sys", "/dev" };

	for (size_t i = 0; i < ARRAY_LENGTH(kernel_places); i++) {
		if (path_is_within(host, kernel_places[i]))
			return problem_set(problem, STATUS_USAGE,
					   "%s %s: files of the host's kernel are not served", what,
					   host);
	}
	if (path_is_within(host, paths->state))
		return problem_set(problem, STATUS_USAGE,
				   "%s %s: lies in Matchlock's own state directory %s, which no "
				   "guest may see",
				   what, host, paths->state);
	if (read_only)
		return 0;
	if (path_is_within(host, paths->config))
		return problem_set(problem, STATUS_USAGE,
				   "%s %s: lies in Matchlock's own configuration directory %s, "
				   "which decides what the next session may do; it can be mounted "
				   "with :ro only",
				   what, host, paths->config);
	if (path_is_within(host, paths->cache))
		return problem_set(problem, STATUS_USAGE,
				   "%s %s: lies in Matchlock's own cache %s, from whose kernels "
				   "and stored guests the next session starts; it can be mounted "
				   "with :ro only",
				   what, host, paths->cache);
	if (strcmp(host, "/") == 0)
		return problem_set(problem, STATUS_USAGE,
				   "%s /: the whole host is no workspace; give the directory of a "
				   "project",
				   what);
	/* From inside, protected names could not be told any more: hooks/ would be just a
	 * directory. */
	if (has_component(host, ".git") || has_component(host, ".matchlock"))
		return problem_set(
			problem, STATUS_USAGE,
			"%s %s: lies inside a %s directory, where the protection of hooks "
			"and configuration cannot work; give the work tree",
			what, host, has_component(host, ".git") ? ".git" : ".matchlock");
	if (access(host, W_OK) < 0)
		return problem_set(problem, STATUS_USAGE, "%s %s: you may not write there (%s)%s",
				   what, host, strerror(errno),
				   strcmp(what, "-v") == 0 ? "; add :ro to mount it read-only"
							   : "");
	return 0;
}

static void choose_store(const struct plan *plan, struct plan_export *export,
			 const struct paths *paths)
{
	cleanup_free char *common = text_printf("%s/undo", paths->state);

	if (same_mount(common, export->host) && !path_is_within(common, export->host)) {
		export->store = text_printf("%s/%s/%u", common, plan->id, export->id);
	} else {
		export->store_inside = true;
		export->store = text_printf("%s/.matchlock/undo/%s/%u", plan_export_tree(export),
					    plan->id, export->id);
	}
}

static int add_workspace(struct plan *plan, const struct run_options *options,
			 const struct paths *paths, struct problem *problem)
{
	bool read_only = options->project && options->project->read_only;
	cleanup_free char *host = NULL;
	struct plan_export *export;
	struct stat status;

	if (!options->workspace)
		return 0;
	if (canonical_path("--workspace", options->workspace, &host, &status, problem) < 0)
		return -1;
	if (!S_ISDIR(status.st_mode))
		return problem_set(problem, STATUS_USAGE, "--workspace %s: is not a directory",
				   host);
	if (judge_tree("--workspace", host, read_only, paths, problem) < 0)
		return -1;
	if (strcmp(host, paths->home) == 0)
		text_list_take(&plan->warnings,
			       text_printf("the workspace is your whole home directory %s: the "
					   "command can read every key and password file in it and "
					   "change nearly everything; give a project's directory "
					   "instead",
					   host));
	else if (path_is_within(paths->home, host))
		return problem_set(problem, STATUS_USAGE,
				   "--workspace %s: holds your home directory; give a project's "
				   "directory",
				   host);
	else if (path_is_within(paths->state, host))
		return problem_set(
			problem, STATUS_USAGE,
			"--workspace %s: holds Matchlock's state directory %s; move that "
			"with XDG_STATE_HOME",
			host, paths->state);
	export = add_export(plan, "workspace", PLAN_PROFILE_WORKSPACE, host, host, read_only);
	if (!read_only)
		choose_store(plan, export, paths);
	hide_own_places(export, paths);
	return 0;
}

static void warn_of_credentials(struct plan *plan, const char *host, const struct paths *paths)
{
	for (size_t i = 0; i < ARRAY_LENGTH(credential_places); i++) {
		cleanup_free char *place = text_printf("%s/%s", paths->home, credential_places[i]);

		if (path_is_within(host, place))
			text_list_take(&plan->warnings,
				       text_printf("-v %s: this holds credentials, and the command "
						   "can read all of them",
						   host));
	}
	if (strcmp(host, paths->home) == 0)
		text_list_take(&plan->warnings,
			       text_printf("-v %s: this is your whole home directory", host));
}

/* Two writable views of one tree would each undo the other's changes. */
static int refuse_overlap(const struct plan *plan, const char *host, bool read_only,
			  const char *guest, struct problem *problem)
{
	for (size_t i = 0; i < plan->export_count; i++) {
		const struct plan_export *other = &plan->exports[i];

		if (strcmp(other->guest, guest) == 0)
			return problem_set(problem, STATUS_USAGE,
					   "-v %s:%s: %s is already mounted there", host, guest,
					   other->host);
		if (!read_only && !other->read_only &&
		    (path_is_within(host, other->host) || path_is_within(other->host, host)))
			return problem_set(problem, STATUS_USAGE,
					   "-v %s:%s: overlaps %s, which is writable too, so that "
					   "neither could be rolled back; add :ro, or leave it out",
					   host, guest, other->host);
	}
	return 0;
}

/* `path` with a leading ~ replaced. */
static char *expand_home(const char *path, const char *home)
{
	if (path[0] != '~' || (path[1] != '/' && path[1] != '\0'))
		return text_copy(path);
	return text_printf("%s%s", strcmp(home, "/") == 0 ? "" : home, path + 1);
}

static int find_mount(const struct mount_option *mount, const struct paths *paths, char **ret_host,
		      struct stat *ret_status, struct problem *problem)
{
	cleanup_free char *given = expand_home(mount->host, paths->home);

	if (!strchr(given, '/') && strcmp(given, ".") != 0 && strcmp(given, "..") != 0)
		return problem_set(problem, STATUS_USAGE,
				   "-v %s:%s: named volumes do not exist; for a file or directory "
				   "write ./%s",
				   given, mount->guest, given);
	if (canonical_path("-v", given, ret_host, ret_status, problem) < 0)
		return -1;
	if (!S_ISDIR(ret_status->st_mode) && !S_ISREG(ret_status->st_mode))
		return problem_set(problem, STATUS_USAGE,
				   "-v %s: is neither a directory nor a regular file", *ret_host);
	return 0;
}

static int judge_target(const char *host, const char *guest, struct problem *problem)
{
	if (!path_is_plain_absolute(guest) || strcmp(guest, "/") == 0)
		return problem_set(problem, STATUS_USAGE, "-v %s:%s: the guest has no such place",
				   host, guest);
	for (size_t i = 0; i < ARRAY_LENGTH(guest_reserved); i++) {
		if (path_is_within(guest, guest_reserved[i]))
			return problem_set(problem, STATUS_USAGE,
					   "-v %s:%s: %s belongs to the guest's kernel", host,
					   guest, guest_reserved[i]);
	}
	return 0;
}

static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == path ? text_copy("/") : text_printf("%.*s", (int)(slash - path), path);
}

static int add_mount(struct plan *plan, const struct mount_option *mount, const struct paths *paths,
		     struct problem *problem)
{
	cleanup_free char *guest = expand_home(mount->guest, plan->user.home);
	cleanup_free char *host = NULL;
	struct plan_export *export;
	struct stat status;

	if (find_mount(mount, paths, &host, &status, problem) < 0 ||
	    judge_target(host, guest, problem) < 0 ||
	    judge_tree("-v", host, mount->read_only, paths, problem) < 0 ||
	    refuse_overlap(plan, host, mount->read_only, guest, problem) < 0)
		return -1;
	warn_of_credentials(plan, host, paths);
	export = add_export(plan, "mount", PLAN_PROFILE_MOUNT, host, guest, mount->read_only);
	if (!S_ISDIR(status.st_mode))
		export->tree = parent_of(host);
	if (!mount->read_only)
		choose_store(plan, export, paths);
	hide_own_places(export, paths);
	return 0;
}

/* A mistake in a file is corrected there. */
static void name_source(const struct mount_option *mount, struct problem *problem)
{
	cleanup_free char *text = NULL;

	if (!mount->where)
		return;
	text = text_copy(problem->text);
	problem_write(problem, problem->status, "%s: volumes: %s", mount->where,
		      strncmp(text, "-v ", 3) == 0 ? text + 3 : text);
}

/* Whoever can write the configuration decides about the next session. The directory that it
 * usually lies in is hidden from a tree that holds it. */
static void warn_of_config(struct plan *plan, const struct run_options *options,
			   const struct paths *paths)
{
	cleanup_free char *path = options->config ? realpath(options->config, NULL) : NULL;

	for (size_t i = 0; path && i < plan->export_count; i++) {
		const struct plan_export *export = &plan->exports[i];

		if (export->read_only || !path_is_within(path, export->host) ||
		    (path_is_within(path, paths->config) &&
		     path_is_within(paths->config, export->host)))
			continue;
		text_list_take(&plan->warnings,
			       text_printf("the command can change %s, which decides what later "
					   "sessions may do; keep it elsewhere",
					   path));
	}
}

static int add_image(struct plan *plan, const struct run_options *options,
		     const struct paths *paths, struct problem *problem)
{
	cleanup_free char *host = NULL;
	struct plan_export *export;
	struct stat status;

	if (!options->image || strcmp(options->image, "host") == 0) {
		host = text_copy("/");
	} else {
		if (canonical_path("--image", options->image, &host, &status, problem) < 0)
			return -1;
		if (!S_ISDIR(status.st_mode))
			return problem_set(problem, STATUS_USAGE,
					   "--image %s: write host, or a directory that holds a "
					   "root file system",
					   host);
		if (judge_tree("--image", host, true, paths, problem) < 0)
			return -1;
	}
	export = add_export(plan, "image", PLAN_PROFILE_IMAGE, host, "/", true);
	hide_own_places(export, paths);
	return 0;
}

/* ---- inside ----------------------------------------------------------------------------- */

static int by_depth(const void *left, const void *right)
{
	const struct plan_export *a = left;
	const struct plan_export *b = right;
	size_t a_depth = path_depth(a->guest);
	size_t b_depth = path_depth(b->guest);

	if (a_depth != b_depth)
		return a_depth < b_depth ? -1 : 1;
	return strcmp(a->guest, b->guest);
}

static void judge_home(struct plan *plan)
{
	plan->home_is_empty = strcmp(plan->user.home, "/") != 0;
	for (size_t i = 0; i < plan->export_count; i++) {
		const struct plan_export *export = &plan->exports[i];

		if (export->profile != PLAN_PROFILE_IMAGE &&
		    path_is_within(plan->user.home, export->guest))
			plan->home_is_empty = false;
	}
}

static int choose_cwd(struct plan *plan, const struct run_options *options, struct problem *problem)
{
	const struct plan_export *workspace = plan_workspace(plan);
	const char *base = workspace ? workspace->guest : plan->user.home;

	if (!options->cwd)
		plan->cwd = text_copy(base);
	else if (options->cwd[0] == '/')
		plan->cwd = text_copy(options->cwd);
	else
		plan->cwd = text_printf("%s/%s", base, options->cwd);
	if (strlen(plan->cwd) >= PATH_MAX)
		return problem_set(problem, STATUS_USAGE, "-w: the path is too long");
	return 0;
}

static void choose_time_zone(struct plan *plan, const struct run_options *options)
{
	char target[PATH_MAX];
	const char *zone;
	ssize_t length;

	plan->time_zone = text_copy("");
	if (!options->image || strcmp(options->image, "host") == 0)
		return;
	length = readlink("/etc/localtime", target, sizeof(target) - 1);
	if (length <= 0)
		return;
	target[length] = '\0';
	zone = strstr(target, "/zoneinfo/");
	if (!zone || strlen(zone) > 200)
		return;
	free(plan->time_zone);
	plan->time_zone = text_copy(zone + strlen("/zoneinfo/"));
}

static int choose_policy(struct plan *plan, const struct run_options *options,
			 struct problem *problem)
{
	if (!options->policy)
		return 0;
	plan->policy = realpath(options->policy, NULL);
	if (!plan->policy || access(plan->policy, R_OK) < 0)
		return problem_set(problem, STATUS_USAGE, "--policy %s: %s", options->policy,
				   strerror(errno));
	return 0;
}

/* A key that the broker is to keep from the guest, in a directory that the guest sees. */
static void warn_of_keys(struct plan *plan)
{
	for (size_t i = 0; i < json_array_size(plan->egress_rules); i++) {
		const char *key = client_certificates_key(plan->egress_rules, i);
		cleanup_free char *path = key ? realpath(key, NULL) : NULL;

		for (size_t j = 0; path && j < plan->export_count; j++) {
			const struct plan_export *export = &plan->exports[j];
			size_t length = strlen(export->host);

			if (export->profile == PLAN_PROFILE_IMAGE ||
			    strncmp(path, export->host, length) != 0 ||
			    (path[length] != '/' && path[length] != '\0'))
				continue;
			text_list_take(&plan->warnings,
				       text_printf("client_certificate: the command can read the "
						   "key %s itself; keep it outside of %s",
						   path, export->host));
			break;
		}
	}
}

/* A policy that names hosts asks for a network, too. */
static int choose_network(struct plan *plan, const struct run_options *options,
			  struct problem *problem)
{
	const struct network_options *network = &options->network;
	cleanup_fd int fd = -1;
	cleanup_free char *text = NULL;
	struct egress_section section;
	size_t length = 0;

	plan->has_network = network_is_asked(network);
	plan->plants_canaries = network->plants_canaries;
	if (options->project && options->project->no_network) {
		if (!plan->has_network)
			return 0;
		return problem_set(problem, STATUS_USAGE,
				   "%s wants no network (network: none); leave out the flags that "
				   "give one, or change it and trust it again",
				   options->project_path);
	}
	if (network->allow_all)
		text_list_add(&plan->warnings,
			      "--allow-all-hosts: the command can send what it reads, the whole "
			      "workspace, to any host of the Internet");
	if (!plan->policy || network->is_refused)
		return 0;
	fd = open(plan->policy, O_RDONLY | O_CLOEXEC);
	/* What is wrong with the file otherwise, the file server tells. */
	if (fd < 0 || read_file(fd, EGRESS_RULES_BYTES_MAX, &text, &length) < 0)
		return 0;
	if (egress_rules_parse(text, length, options->policy, &section, problem) < 0)
		return -1;
	plan->egress_rules = section.rules;
	if (client_certificates_check(plan->egress_rules, plan->policy, problem) < 0)
		return -1;
	warn_of_keys(plan);
	if (json_array_size(plan->egress_rules) > 0)
		plan->has_network = true;
	/* Without a network nothing could carry one away. */
	plan->plants_canaries |= plan->has_network && section.canary != CANARY_UNSAID;
	plan->freezes_on_canary = section.canary == CANARY_FREEZE;
	return 0;
}

static bool names_entry(const char *name, const char *entry)
{
	size_t length = strlen(name);

	return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

/* The guest gets what stands for a secret, by the secret's name. */
static int judge_secrets(const struct plan *plan, const struct run_options *options,
			 struct problem *problem)
{
	const struct network_options *network = &options->network;

	if ((network->secret_count > 0 || network->plants_canaries) && !plan->has_network)
		return problem_set(problem, STATUS_USAGE,
				   "%s: no host may be reached; add --allow-host HOST",
				   network->secret_count > 0 ? "--secret" : "--canary");
	for (size_t i = 0; i < network->secret_count; i++) {
		for (size_t j = 0; j < plan->environment.count; j++) {
			if (names_entry(network->secrets[i].name, plan->environment.items[j]))
				return problem_set(problem, STATUS_USAGE,
						   "%s is a secret (--secret), whose value stays "
						   "outside; take it out of -e, --env-file and "
						   "config.yaml's env",
						   network->secrets[i].name);
		}
	}
	return 0;
}

static int judge_wishes(const struct plan *plan, const struct run_options *options,
			struct problem *problem)
{
	/* A file's wish is for the sessions that it fits. */
	bool asked = options->source[SETTING_ROLLBACK_ON_EXIT] == SOURCE_FLAG ||
		     options->source[SETTING_KEEP_ON_SUCCESS] == SOURCE_FLAG;
	bool writable =
		plan_has_writable(plan) || (options->project && options->project->read_only);

	if (asked && (options->rollback_on_exit || options->keep_on_success) && !writable)
		return problem_set(problem, STATUS_USAGE,
				   "%s: there is nothing that could change; add --workspace DIR",
				   options->rollback_on_exit ? "--rollback-on-exit"
							     : "--keep-on-success");
	if (options->allow_write.count > 0 && !writable)
		return problem_set(problem, STATUS_USAGE,
				   "--allow-write: there is nothing to write to; add --workspace "
				   "DIR");
	if (options->allow_write.count > PLAN_ALLOW_MAX)
		return problem_set(problem, STATUS_USAGE, "more than %d --allow-write",
				   PLAN_ALLOW_MAX);
	if (options->terminal && !isatty(STDIN_FILENO) && options->input)
		return problem_set(problem, STATUS_USAGE,
				   "-t: standard input is not a terminal; use -i alone to pipe "
				   "something in");
	return 0;
}

static int choose_machine(struct plan *plan, const struct run_options *options,
			  struct problem *problem)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);

	plan->engine = options->engine ? options->engine : "auto";
	plan->cpus = options->cpus ? options->cpus
				   : (unsigned)MAX_OF(MIN_OF(online, PLAN_CPUS_DEFAULT), 1);
	plan->memory_mib = options->memory_mib ? options->memory_mib : PLAN_MEMORY_DEFAULT_MIB;
	plan->huge_pages = options->huge_pages;
	if (!plan->huge_pages)
		return 0;
	if (strcmp(plan->engine, "qemu") == 0)
		return problem_set(problem, STATUS_USAGE,
				   "--huge-pages: the engine qemu has none; leave the flag out, or "
				   "use --engine kvm");
	if (plan->memory_mib % 2 != 0)
		return problem_set(problem, STATUS_USAGE,
				   "--huge-pages: a page has 2 MiB; %u MiB of memory is no "
				   "multiple of it",
				   plan->memory_mib);
	plan->engine = "kvm";
	return 0;
}

static int choose_environment(struct plan *plan, const struct run_options *options,
			      struct problem *problem)
{
	struct environment_facts facts = {
		.home = plan->user.home,
		.user = plan->user.name,
		.shell = plan->user.shell,
		.session = plan->id,
		.superuser = plan->user.uid == 0,
		.host_image = strcmp(plan->exports[0].host, "/") == 0,
		.network = plan->has_network,
	};

	return environment_build(options, &facts, &plan->environment, problem);
}

int plan_make(const struct run_options *options, const struct paths *paths, struct plan *ret_plan,
	      struct problem *problem)
{
	struct plan plan = { 0 };
	const char *image = NULL;

	session_id_generate(plan.id);
	plan.hostname = text_copy(options->name ? options->name : "matchlock");
	if (choose_machine(&plan, options, problem) < 0 ||
	    add_image(&plan, options, paths, problem) < 0)
		goto failed;
	if (strcmp(plan.exports[0].host, "/") != 0)
		image = plan.exports[0].host;
	if (guest_user_find(options->user, image, paths->home, &plan.user, problem) < 0 ||
	    add_workspace(&plan, options, paths, problem) < 0)
		goto failed;
	for (size_t i = 0; i < options->mount_count; i++) {
		if (add_mount(&plan, &options->mounts[i], paths, problem) < 0) {
			name_source(&options->mounts[i], problem);
			goto failed;
		}
	}
	hide_other_stores(&plan);
	qsort(plan.exports, plan.export_count, sizeof(plan.exports[0]), by_depth);
	choose_time_zone(&plan, options);
	judge_home(&plan);
	warn_of_config(&plan, options, paths);
	for (size_t i = 0; i < options->notices.count; i++)
		text_list_add(&plan.warnings, options->notices.items[i]);
	if (choose_cwd(&plan, options, problem) < 0 || choose_policy(&plan, options, problem) < 0 ||
	    choose_network(&plan, options, problem) < 0 ||
	    judge_wishes(&plan, options, problem) < 0 ||
	    choose_environment(&plan, options, problem) < 0 ||
	    judge_secrets(&plan, options, problem) < 0)
		goto failed;
	*ret_plan = plan;
	return 0;
failed:
	plan_free(&plan);
	return -1;
}
