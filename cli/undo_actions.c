#include "cli/undo_actions.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/launch.h"
#include "wire/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROLLBACK_OUTPUT_MAX (16u << 20)
/* matchlock-fsserver rollback: done, and both versions of something were kept. */
#define ROLLBACK_KEPT_STATUS 3

void rollback_result_free(struct rollback_result *result)
{
	free(result->details);
	*result = (struct rollback_result){ 0 };
}

/* Runs `matchlock-fsserver VERB --config EXPORTS [EXTRA]` and takes what it prints. */
static int run_fsserver(const struct paths *paths, const struct session_record *record,
			const char *verb, const char *const *extra, size_t extra_count,
			size_t limit, char **ret_output, size_t *ret_length, int *ret_status,
			struct problem *problem)
{
	cleanup_free char *program = find_program(paths, "matchlock-fsserver", problem);
	cleanup_free char *directory = session_record_directory(paths, record->id);
	cleanup_list struct text_list arguments = { 0 };

	if (!program)
		return -1;
	text_list_add(&arguments, program);
	text_list_add(&arguments, verb);
	text_list_add(&arguments, "--config");
	text_list_take(&arguments, text_printf("%s/exports.json", directory));
	for (size_t i = 0; i < extra_count; i++)
		text_list_add(&arguments, extra[i]);
	return run_helper(program, arguments.items, limit, ret_output, ret_length, ret_status,
			  problem);
}

static int save_one(const struct paths *paths, const struct session_record *record,
		    const char *file, bool json, struct problem *problem)
{
	static const char *const json_flag[] = { "--json" };
	cleanup_free char *directory = session_record_directory(paths, record->id);
	cleanup_free char *path = text_printf("%s/%s", directory, file);
	cleanup_free char *temporary = text_printf("%s/.%s", directory, file);
	cleanup_free char *output = NULL;
	cleanup_fd int fd = -1;
	size_t length = 0;
	int status = 0;
	int error;

	if (access(path, F_OK) == 0)
		return 0;
	if (run_fsserver(paths, record, "diff", json_flag, json ? 1 : 0, DIFF_OUTPUT_MAX, &output,
			 &length, &status, problem) < 0)
		return -1;
	if (status != 0)
		return problem_set(problem, STATUS_SANDBOX,
				   "the list of changes could not be made (matchlock-fsserver diff "
				   "ended with status %d)",
				   status);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	error = fd < 0 ? -errno : write_full(fd, output, length);
	if (error == 0 && rename(temporary, path) < 0)
		error = -errno;
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot write %s: %s", path,
				   strerror(-error));
	return 0;
}

int save_diff(const struct paths *paths, const struct session_record *record,
	      struct problem *problem)
{
	if (save_one(paths, record, "diff.json", true, problem) < 0)
		return -1;
	return save_one(paths, record, "diff.txt", false, problem);
}

/* ---- roll-back -------------------------------------------------------------------------- */

static uint64_t number_of(json_t *object, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(object, key));

	return value > 0 ? (uint64_t)value : 0;
}

/* Takes over `line`. */
static void append_line(char **text, char *line)
{
	char *before = *text;

	*text = text_printf("%s%s\n", before ? before : "", line);
	free(before);
	free(line);
}

/* The file server has escaped it. */
static const char *escaped_text(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "?";
}

/* One export's object, or the whole answer. */
static void add_result(json_t *json, struct rollback_result *result)
{
	size_t index;
	json_t *item;

	result->restored += number_of(json, "restored");
	result->removed += number_of(json, "removed");
	result->kept += number_of(json, "kept");
	result->failed += number_of(json, "failed");
	json_array_foreach(json_object_get(json, "conflicts"), index, item)
	{
		append_line(&result->details,
			    text_printf("  %s was also changed from outside, or while the session "
					"crashed: that version is %s",
					escaped_text(item, "path"), escaped_text(item, "kept")));
	}
	json_array_foreach(json_object_get(json, "failures"), index, item)
	{
		append_line(&result->details,
			    text_printf("  %s could not be put back: %s",
					escaped_text(item, "path"), escaped_text(item, "error")));
	}
	json_array_foreach(json_object_get(json, "exports"), index, item)
	{
		add_result(item, result);
	}
}

int roll_back(const struct paths *paths, struct session_record *record,
	      struct rollback_result *ret_result, struct problem *problem)
{
	static const char *const extra[] = { "--json" };
	struct rollback_result result = { 0 };
	cleanup_free char *output = NULL;
	size_t length = 0;
	json_t *json;
	int status = 0;

	if (run_fsserver(paths, record, "rollback", extra, 1, ROLLBACK_OUTPUT_MAX, &output, &length,
			 &status, problem) < 0)
		return -1;
	json = json_loadb(output, length, 0, NULL);
	if (json_is_object(json))
		add_result(json, &result);
	json_decref(json);
	if ((status != 0 && status != ROLLBACK_KEPT_STATUS) || result.failed > 0) {
		problem_set(problem, STATUS_SANDBOX,
			    "the roll-back of session %s is incomplete (%ju not put back, "
			    "matchlock-fsserver ended with status %d)%s%s\n"
			    "run it again with: matchlock rollback %s",
			    record->id, (uintmax_t)result.failed, status,
			    result.details ? ":\n" : "", result.details ? result.details : "",
			    record->id);
		rollback_result_free(&result);
		return -1;
	}
	record->changes = SESSION_CHANGES_ROLLED_BACK;
	record->rolled_back = (int64_t)time(NULL);
	if (session_record_save(paths, record, problem) < 0) {
		rollback_result_free(&result);
		return -1;
	}
	*ret_result = result;
	return 0;
}

char *rollback_text(const struct rollback_result *result)
{
	cleanup_free char *kept = result->kept == 0
					  ? text_copy("")
					  : text_printf(", %ju of them with the other version kept",
							(uintmax_t)result->kept);

	if (result->restored + result->removed + result->kept == 0)
		return text_copy("nothing had changed");
	return text_printf("%ju restored, %ju removed%s", (uintmax_t)result->restored,
			   (uintmax_t)result->removed, kept);
}

json_t *rollback_json(const struct rollback_result *result)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "restored", (json_int_t)result->restored,
			 "removed", (json_int_t)result->removed, "kept", (json_int_t)result->kept,
			 "failed", (json_int_t)result->failed);
}

/* ---- the log ---------------------------------------------------------------------------- */

static bool send_rollback(int socket, const struct rollback_result *result)
{
	struct audit_event *event = allocate(1, sizeof(*event));
	cleanup_free char *text = rollback_text(result);
	bool sent;

	audit_event_begin(event, AUDIT_ROLLBACK);
	audit_event_number(event, AUDIT_FIELD_RESTORED, result->restored);
	audit_event_number(event, AUDIT_FIELD_REMOVED, result->removed);
	audit_event_number(event, AUDIT_FIELD_KEPT, result->kept);
	audit_event_number(event, AUDIT_FIELD_FAILED, result->failed);
	audit_event_text(event, AUDIT_FIELD_DETAIL, text);
	sent = audit_event_send(event, socket) == 0;
	audit_event_begin(event, AUDIT_SESSION_END);
	audit_event_text(event, AUDIT_FIELD_REASON, "rolled-back");
	sent = audit_event_send(event, socket) == 0 && sent;
	free(event);
	return sent;
}

int log_rollback(const struct paths *paths, const struct session_record *record,
		 const struct rollback_result *result, struct problem *problem)
{
	struct child child = CHILD_INIT("audit");
	cleanup_free char *program = find_program(paths, "matchlock-audit", problem);
	cleanup_free char *directory = session_record_directory(paths, record->id);
	cleanup_fd int directory_fd =
		open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_list struct text_list arguments = { 0 };
	bool sent;
	int pair[2];
	int status;

	if (!program)
		return -1;
	if (directory_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return problem_set(problem, STATUS_SANDBOX, "the roll-back cannot be logged: %s",
				   strerror(errno));
	text_list_add(&arguments, program);
	text_list_add(&arguments, "serve");
	text_list_add(&arguments, "--directory-fd");
	text_list_take(&arguments, text_printf("%d", directory_fd));
	text_list_add(&arguments, "--source-fd");
	text_list_take(&arguments, text_printf("%d", pair[1]));
	text_list_add(&arguments, "--session");
	text_list_add(&arguments, record->id);
	status = child_start(&child, program, arguments.items,
			     (const int[]){ directory_fd, pair[1] }, 2, NULL, problem);
	close(pair[1]);
	sent = status == 0 && send_rollback(pair[0], result);
	close(pair[0]);
	if (status < 0)
		return -1;
	child_wait(&child, -1);
	child_close(&child);
	if (!sent || child_exit_status(&child) != 0)
		return problem_set(
			problem, STATUS_SANDBOX,
			"the roll-back is done, but could not be added to the audit log");
	return 0;
}
