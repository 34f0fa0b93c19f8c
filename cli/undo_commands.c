/* `matchlock rollback` and `matchlock diff`. */
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/denials.h"
#include "cli/remove_tree.h"
#include "cli/undo_actions.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long daemons of a killed session may take to follow it. */
#define LEFTOVER_TRIES 100
#define LEFTOVER_PAUSE_NS 50000000

/* ---- rollback --------------------------------------------------------------------------- */

static int wait_for_leftovers(const struct session_record *record, struct problem *problem)
{
	for (int i = 0; i < LEFTOVER_TRIES; i++) {
		struct timespec pause = { .tv_nsec = LEFTOVER_PAUSE_NS };

		if (!session_process_alive(record, NULL))
			return 0;
		nanosleep(&pause, NULL);
	}
	return problem_set(problem, STATUS_SANDBOX,
			   "processes of session %s are still there; end them first (`matchlock ls "
			   "--json` lists them)",
			   record->id);
}

static int roll_back_session(const struct paths *paths, struct session_record *record,
			     struct rollback_result *ret_result, struct problem *problem)
{
	cleanup_free char *runtime = text_printf("%s/%s", paths->runtime, record->id);
	cleanup_fd int lock = -1;
	struct problem ignored;

	if (session_status(record) == SESSION_STATUS_RUNNING)
		return problem_set(problem, STATUS_SANDBOX,
				   "session %s runs; end its command first", record->id);
	lock = session_lock(paths, record, problem);
	if (lock < 0 || wait_for_leftovers(record, problem) < 0)
		return -1;
	/* A killed session could not remove its sockets. */
	remove_tree(runtime);
	if (save_diff(paths, record, &ignored) < 0)
		fprintf(stderr, "matchlock: %s\n", ignored.text);
	if (roll_back(paths, record, ret_result, problem) < 0)
		return -1;
	if (log_rollback(paths, record, ret_result, &ignored) < 0)
		fprintf(stderr, "matchlock: %s\n", ignored.text);
	return 0;
}

static void print_rollback(const struct session_record *record,
			   const struct rollback_result *result, bool json, const char *note)
{
	cleanup_free char *text = note ? text_copy(note) : rollback_text(result);

	if (json) {
		json_t *object =
			json_pack("{s:s, s:s, s:b, s:o}", "session", record->id, "workspace",
				  record->workspace ? record->workspace : "", "already_done",
				  note ? 1 : 0, "rollback", rollback_json(result));
		cleanup_free char *dump = object ? json_dumps(object, JSON_INDENT(2)) : NULL;

		puts(dump ? dump : "{}");
		json_decref(object);
		return;
	}
	printf("session %s: %s\n", record->id, text);
	if (result->details)
		fputs(result->details, stdout);
}

int command_rollback(int argc, char **argv, const struct paths *paths)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	cleanup_record struct session_record record = { 0 };
	struct rollback_result result = { 0 };
	const char *note = NULL;
	struct problem problem;
	bool json = false;
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "rollback", ":h", options, &problem)) != -1) {
		if (option == -2)
			return command_problem(&problem);
		if (option == 'h')
			return command_help("rollback");
		json = true;
	}
	if (argc - optind != 1)
		return command_usage("rollback", "give one session, such as `last`");
	if (session_record_find(paths, argv[optind], &record, &problem) < 0)
		return command_problem(&problem);
	if (record.changes == SESSION_CHANGES_ROLLED_BACK)
		note = "rolled back already; nothing to do";
	else if (record.changes == SESSION_CHANGES_NONE || record.stores.count == 0)
		note = "it could not change anything on the host; nothing to do";
	else if (roll_back_session(paths, &record, &result, &problem) < 0)
		return command_problem(&problem);
	print_rollback(&record, &result, json, note);
	rollback_result_free(&result);
	return 0;
}

/* ---- diff ------------------------------------------------------------------------------- */

struct diff_options {
	bool json;
	bool name_only;
	struct text_list paths; /* relative to the workspace */
};

/* A path as a person gives it: absolute, or relative to where he stands when that is in the
 * workspace, else to the workspace. */
static int add_diff_path(struct diff_options *options, const struct session_record *record,
			 const char *given, struct problem *problem)
{
	cleanup_free char *cwd = realpath(".", NULL);
	cleanup_free char *path = NULL;
	size_t length;

	if (given[0] == '/' && record->workspace)
		path = canonical_prefix(given);
	else if (record->workspace && cwd && path_is_within(cwd, record->workspace) &&
		 strcmp(cwd, record->workspace) != 0)
		path = text_printf("%s/%s", cwd, given);
	else
		path = text_printf("%s/%s", record->workspace ? record->workspace : "", given);
	if (record->workspace && !path_is_within(path, record->workspace))
		return problem_set(problem, STATUS_USAGE, "%s is not in the workspace %s", given,
				   record->workspace);
	/* "./x" and "x/" as shells complete them. */
	length = strlen(path);
	while (length > 1 && path[length - 1] == '/')
		path[--length] = '\0';
	if (record->workspace) {
		const char *below = path_below(path, record->workspace);

		while (strncmp(below, "./", 2) == 0)
			below += 2;
		if (strcmp(below, ".") != 0 && *below != '\0')
			text_list_add(&options->paths, below);
	}
	return 0;
}

static bool path_wanted(const struct diff_options *options, const char *path)
{
	if (options->paths.count == 0)
		return true;
	for (size_t i = 0; i < options->paths.count; i++) {
		if (path && path_is_within(path, options->paths.items[i]))
			return true;
	}
	return false;
}

static char *read_saved(const char *directory, const char *file)
{
	cleanup_free char *path = text_printf("%s/%s", directory, file);
	cleanup_fd int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char *text = NULL;

	if (fd < 0 || read_file(fd, DIFF_OUTPUT_MAX, &text, NULL) < 0)
		return NULL;
	return text;
}

static void filter_changes(json_t *document, const struct diff_options *options)
{
	json_t *changes = json_object_get(document, "changes");

	for (size_t i = json_array_size(changes); i > 0; i--) {
		json_t *change = json_array_get(changes, i - 1);

		if (!path_wanted(options, json_string_value(json_object_get(change, "path"))))
			json_array_remove(changes, i - 1);
		else if (options->name_only)
			json_object_del(change, "diff");
	}
}

static void print_document(json_t *document, const struct diff_options *options)
{
	json_t *change;
	size_t index;

	if (options->json) {
		cleanup_free char *text = json_dumps(document, JSON_INDENT(2));

		puts(text ? text : "{}");
		return;
	}
	json_array_foreach(json_object_get(document, "new_repositories"), index, change)
	{
		const char *path = json_string_value(change);

		printf("! new repository %s\n", path ? path : "?");
	}
	json_array_foreach(json_object_get(document, "changes"), index, change)
	{
		const char *kind = json_string_value(json_object_get(change, "kind"));
		const char *path = json_string_value(json_object_get(change, "path"));
		const char *diff = json_string_value(json_object_get(change, "diff"));

		printf("%-10s %s\n", kind ? kind : "?", path ? path : "?");
		if (diff && !options->name_only)
			fputs(diff, stdout);
	}
}

/* What was saved before the roll-back: one document for each export that could be written. */
static int print_saved_diff(const struct paths *paths, const struct session_record *record,
			    const struct diff_options *options)
{
	cleanup_free char *directory = session_record_directory(paths, record->id);
	cleanup_free char *text = NULL;
	cleanup_free char *saved = NULL;

	fprintf(stderr, "matchlock: session %s was rolled back; this is what it had changed\n",
		record->id);
	if (!options->json && !options->name_only && options->paths.count == 0) {
		text = read_saved(directory, "diff.txt");
		if (text) {
			fputs(text, stdout);
			return 0;
		}
	}
	saved = read_saved(directory, "diff.json");
	if (!saved) {
		fprintf(stderr, "matchlock: no list of changes was kept\n");
		return 1;
	}
	for (size_t at = 0; at < strlen(saved);) {
		json_error_t end = { 0 };
		json_t *document = json_loads(saved + at, JSON_DISABLE_EOF_CHECK, &end);

		if (!document)
			break;
		filter_changes(document, options);
		print_document(document, options);
		json_decref(document);
		at += (size_t)end.position;
	}
	return 0;
}

/* Hands over to the file server, which writes to our standard output. */
static int exec_diff(const struct paths *paths, const struct session_record *record,
		     const struct diff_options *options)
{
	cleanup_list struct text_list arguments = { 0 };
	cleanup_free char *directory = session_record_directory(paths, record->id);
	cleanup_free char *program = NULL;
	struct problem problem;

	program = find_program(paths, "matchlock-fsserver", &problem);
	if (!program)
		return command_problem(&problem);
	text_list_add(&arguments, "matchlock-fsserver");
	text_list_add(&arguments, "diff");
	text_list_add(&arguments, "--config");
	text_list_take(&arguments, text_printf("%s/exports.json", directory));
	if (options->json)
		text_list_add(&arguments, "--json");
	if (options->name_only)
		text_list_add(&arguments, "--name-only");
	text_list_add(&arguments, "--");
	for (size_t i = 0; i < options->paths.count; i++)
		text_list_add(&arguments, options->paths.items[i]);
	execv(program, arguments.items);
	fprintf(stderr, "matchlock: cannot run %s: %s\n", program, strerror(errno));
	return 1;
}

/* The first thing to know of a session. */
static void print_canaries(const struct paths *paths, const struct session_record *record,
			   const struct diff_options *options)
{
	cleanup_free char *directory = session_record_directory(paths, record->id);
	struct denials *denials = denials_read(directory);

	if (options->json)
		denials_print_canaries(denials, "matchlock: DECOY USED: ", stderr);
	else
		denials_print_canaries(denials, "! decoy used: ", stdout);
	denials_free(denials);
	/* The file server writes the rest. */
	fflush(stdout);
}

int command_diff(int argc, char **argv, const struct paths *paths)
{
	static const struct option long_options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "name-only", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	cleanup_record struct session_record record = { 0 };
	struct diff_options options = { 0 };
	struct problem problem;
	int option;
	int status;

	restart_options();
	while ((option = next_option(argc, argv, "diff", ":h", long_options, &problem)) != -1) {
		if (option == -2)
			return command_problem(&problem);
		if (option == 'h')
			return command_help("diff");
		options.json = options.json || option == 'j';
		options.name_only = options.name_only || option == 'n';
	}
	if (argc == optind)
		return command_usage("diff", "give a session, such as `last`");
	if (session_record_find(paths, argv[optind], &record, &problem) < 0)
		return command_problem(&problem);
	for (int i = optind + 1; i < argc; i++) {
		if (add_diff_path(&options, &record, argv[i], &problem) < 0) {
			text_list_free(&options.paths);
			return command_problem(&problem);
		}
	}
	print_canaries(paths, &record, &options);
	if (record.changes == SESSION_CHANGES_NONE || record.stores.count == 0) {
		fprintf(stderr, "matchlock: session %s could not change anything on the host\n",
			record.id);
		status = 0;
	} else if (record.changes == SESSION_CHANGES_ROLLED_BACK) {
		status = print_saved_diff(paths, &record, &options);
	} else {
		status = exec_diff(paths, &record, &options);
	}
	text_list_free(&options.paths);
	return status;
}
