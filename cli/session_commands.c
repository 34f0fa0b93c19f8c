/* `matchlock ls`, `matchlock rm`, `matchlock prune`. */
#include "base/checked.h"
#include "base/cleanup.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/session_files.h"
#include "cli/session_record.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PRUNE_AGE_MS UINT64_C(604800000) /* 7 days */
#define COMMAND_SHOWN 60		 /* bytes of the command in the table */

/* ---- ls --------------------------------------------------------------------------------- */

static json_t *record_json(const struct paths *paths, const struct session_record *record)
{
	cleanup_free char *directory = session_record_directory(paths, record->id);
	cleanup_free char *command =
		quote_command(record->command.items ? record->command.items : (char *[]){ NULL });
	json_t *processes = json_array();

	for (size_t i = 0; i < record->process_count; i++)
		json_array_append_new(processes,
				      json_pack("{s:s, s:i}", "role", record->processes[i].role,
						"pid", (int)record->processes[i].pid));
	return json_pack(
		"{s:s, s:o, s:s, s:o, s:s, s:o, s:o, s:o, s:I, s:I, s:I, s:b, s:s, s:o}", "id",
		record->id, "name", record->name ? json_string(record->name) : json_null(),
		"status", session_status_name(session_status(record)), "exit_status",
		record->exit_status >= 0 ? json_integer(record->exit_status) : json_null(),
		"command", command, "workspace",
		record->workspace ? json_string(record->workspace) : json_null(), "engine",
		record->engine ? json_string(record->engine) : json_null(), "reason",
		record->reason ? json_string(record->reason) : json_null(), "started",
		(json_int_t)record->started, "finished", (json_int_t)record->finished,
		"duration_ms", (json_int_t)record->duration_ms, "can_roll_back",
		session_has_undo(record) ? 1 : 0, "directory", directory, "processes", processes);
}

static void print_json(const struct paths *paths, const struct session_record *records,
		       size_t count)
{
	cleanup_free char *text = NULL;
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, record_json(paths, &records[i]));
	text = json_dumps(array, JSON_INDENT(2));
	puts(text ? text : "[]");
	json_decref(array);
}

static void print_row(const struct session_record *record, time_t now)
{
	cleanup_free char *age = format_age(now, (time_t)record->started);
	cleanup_free char *command =
		quote_command(record->command.items ? record->command.items : (char *[]){ NULL });
	cleanup_free char *workspace = escape_copy(record->workspace ? record->workspace : "-");
	char exit_text[16] = "-";

	if (record->exit_status >= 0)
		snprintf(exit_text, sizeof(exit_text), "%d", record->exit_status);
	printf("%-13s %-16s %-12s %4s  %-15s %-5s %-28s %.*s%s\n", record->id,
	       record->name ? record->name : "-", session_status_name(session_status(record)),
	       exit_text, age, record->engine ? record->engine : "-", workspace, COMMAND_SHOWN,
	       command, strlen(command) > COMMAND_SHOWN ? "..." : "");
}

int command_ls(int argc, char **argv, const struct paths *paths)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct session_record *records;
	struct problem problem;
	bool quiet = false;
	bool json = false;
	size_t damaged;
	size_t count;
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "ls", ":qh", options, &problem)) != -1) {
		if (option == -2)
			return command_problem(&problem);
		if (option == 'h')
			return command_help("ls");
		json = json || option == 'j';
		quiet = quiet || option == 'q';
	}
	if (optind < argc)
		return command_usage("ls", "it takes no arguments");
	count = session_list(paths, &records, &damaged);
	if (json) {
		print_json(paths, records, count);
	} else {
		if (!quiet)
			printf("%-13s %-16s %-12s %4s  %-15s %-5s %-28s %s\n", "SESSION", "NAME",
			       "STATUS", "EXIT", "STARTED", "ON", "WORKSPACE", "COMMAND");
		for (size_t i = 0; i < count; i++) {
			if (quiet)
				puts(records[i].id);
			else
				print_row(&records[i], time(NULL));
		}
	}
	if (damaged > 0)
		fprintf(stderr, "matchlock: %zu session director%s in %s/sessions cannot be read\n",
			damaged, damaged == 1 ? "y" : "ies", paths->state);
	session_list_free(records, count);
	return 0;
}

/* ---- rm --------------------------------------------------------------------------------- */

/* Changes that nobody has decided on: removing the store makes them final. */
static bool undecided(const struct session_record *record)
{
	return record->changes == SESSION_CHANGES_OPEN && session_has_undo(record);
}

static int remove_session(const struct paths *paths, const struct session_record *record,
			  struct problem *problem)
{
	int lock = session_lock(paths, record, problem);
	int result;

	if (lock < 0)
		return -1;
	result = session_files_remove(paths, record, problem);
	close(lock);
	return result;
}

static int remove_named(const struct paths *paths, const char *name, bool force)
{
	cleanup_record struct session_record record = { 0 };
	struct problem problem;

	if (session_record_find(paths, name, &record, &problem) < 0)
		return command_problem(&problem);
	if (session_status(&record) == SESSION_STATUS_RUNNING) {
		fprintf(stderr, "matchlock: session %s runs; end its command first\n", record.id);
		return 1;
	}
	if (!force && undecided(&record)) {
		fprintf(stderr,
			"matchlock: what session %s changed can still be undone, and could not be "
			"after this: undo it with `matchlock rollback %s`, or keep it with "
			"`matchlock rm --force %s`\n",
			record.id, record.id, record.id);
		return 1;
	}
	if (remove_session(paths, &record, &problem) < 0)
		return command_problem(&problem);
	puts(record.id);
	return 0;
}

int command_rm(int argc, char **argv, const struct paths *paths)
{
	static const struct option options[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct problem problem;
	bool force = false;
	int status = 0;
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "rm", ":fh", options, &problem)) != -1) {
		if (option == -2)
			return command_problem(&problem);
		if (option == 'h')
			return command_help("rm");
		force = true;
	}
	if (optind == argc)
		return command_usage("rm", "give one session or more");
	for (int i = optind; i < argc; i++) {
		int one = remove_named(paths, argv[i], force);

		status = one ? one : status;
	}
	return status;
}

/* ---- prune ------------------------------------------------------------------------------ */

static bool prunable(const struct session_record *record, time_t before, bool force)
{
	enum session_status status = session_status(record);
	int64_t since = record->finished ? record->finished : record->started;

	if (status == SESSION_STATUS_RUNNING || since > before)
		return false;
	return status != SESSION_STATUS_CRASHED || force || !session_has_undo(record);
}

static size_t list_prunable(const struct session_record *records, size_t count, time_t before,
			    bool force)
{
	size_t found = 0;

	for (size_t i = 0; i < count; i++) {
		cleanup_free char *age = NULL;

		if (!prunable(&records[i], before, force))
			continue;
		age = format_age(time(NULL), (time_t)records[i].started);
		fprintf(stderr, "  %s  %-11s  %s%s\n", records[i].id,
			session_status_name(session_status(&records[i])), age,
			undecided(&records[i]) ? ", its changes become final" : "");
		found++;
	}
	return found;
}

static int prune_all(const struct paths *paths, const struct session_record *records, size_t count,
		     time_t before, bool force)
{
	int status = 0;

	for (size_t i = 0; i < count; i++) {
		struct problem problem;

		if (!prunable(&records[i], before, force))
			continue;
		if (remove_session(paths, &records[i], &problem) < 0)
			status = command_problem(&problem);
		else
			puts(records[i].id);
	}
	return status;
}

int command_prune(int argc, char **argv, const struct paths *paths)
{
	static const struct option options[] = {
		{ "older-than", required_argument, NULL, 'o' },
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct session_record *records;
	uint64_t age_ms = PRUNE_AGE_MS;
	struct problem problem;
	bool force = false;
	time_t before;
	size_t count;
	int status = 0;
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "prune", ":fh", options, &problem)) != -1) {
		if (option == -2)
			return command_problem(&problem);
		if (option == 'h')
			return command_help("prune");
		if (option == 'f')
			force = true;
		else if (strcmp(optarg, "0") == 0)
			age_ms = 0;
		else if (!parse_duration(optarg, 86400000, &age_ms))
			return command_usage("prune", "--older-than wants a duration such as 7d, "
						      "12h, or 0 for all");
	}
	if (optind < argc)
		return command_usage("prune", "it takes no arguments");
	before = time(NULL) - (time_t)(age_ms / 1000);
	count = session_list(paths, &records, NULL);
	if (list_prunable(records, count, before, force) == 0) {
		fprintf(stderr, "matchlock: nothing to remove\n");
	} else if (force || ask("Remove these sessions?")) {
		status = prune_all(paths, records, count, before, force);
	} else {
		fprintf(stderr,
			"matchlock: nothing removed; --force removes them without asking\n");
		status = 1;
	}
	session_list_free(records, count);
	return status;
}
