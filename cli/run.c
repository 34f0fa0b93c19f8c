#include "cli/run.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/denials.h"
#include "cli/environment.h"
#include "cli/exec_session.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/plan.h"
#include "cli/project_trust.h"
#include "cli/session_control.h"
#include "cli/session_record.h"
#include "cli/session_vm.h"
#include "cli/undo_actions.h"
#include "cli/user_config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct run {
	const struct paths *paths;
	struct run_options options;
	struct plan plan;
	struct session_record record;
	struct session_vm vm;
	struct exec_result result;
	uint64_t started_ms;
	int status;	   /* what this process will end with */
	bool ran;	   /* the command was sent to the guest */
	bool sandbox_fine; /* nothing but the command itself failed */
	bool rolled_back;
	struct rollback_result rollback;
	struct denials *denials;
	struct session_control control;
};

static void report(const struct problem *problem)
{
	fprintf(stderr, "matchlock: %s\n", problem->text);
}

/* The sandbox failed: says so, and what the person can still do. The first failure counts. */
static void sandbox_failed(struct run *run, const struct problem *problem)
{
	report(problem);
	if (!run->sandbox_fine)
		return;
	run->sandbox_fine = false;
	run->status = problem->status;
	free(run->record.reason);
	run->record.reason = escape_copy(problem->text);
}

/* ---- before ----------------------------------------------------------------------------- */

static int dry_run(const struct run *run)
{
	cleanup_free char *text = NULL;

	if (run->options.json) {
		json_t *json = plan_json(&run->plan, &run->options);

		text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
		json_decref(json);
		if (!text) {
			fprintf(stderr, "matchlock: the plan cannot be written as JSON\n");
			return STATUS_SANDBOX;
		}
		puts(text);
	} else {
		text = plan_text(&run->plan, &run->options);
		fputs(text, stdout);
	}
	return 0;
}

static void fill_record(struct run *run)
{
	const struct plan_export *workspace = plan_workspace(&run->plan);
	struct session_record *record = &run->record;

	memcpy(record->id, run->plan.id, sizeof(record->id));
	record->name = run->options.name ? text_copy(run->options.name) : NULL;
	for (size_t i = 0; i < run->options.command.count; i++)
		text_list_add(&record->command, run->options.command.items[i]);
	record->workspace = workspace ? text_copy(workspace->host) : NULL;
	record->image = text_copy(run->plan.exports[0].host);
	record->user = text_copy(run->plan.user.name);
	record->engine = text_copy(run->plan.engine);
	record->started = (int64_t)time(NULL);
	record->phase = SESSION_RUNNING;
	record->changes =
		plan_has_writable(&run->plan) ? SESSION_CHANGES_OPEN : SESSION_CHANGES_NONE;
	record->exit_status = -1;
	record->rollback_on_exit = run->options.rollback_on_exit;
	for (size_t i = 0; i < run->plan.export_count; i++) {
		if (run->plan.exports[i].store)
			text_list_add(&record->stores, run->plan.exports[i].store);
	}
	session_record_add_process(record, "cli", getpid());
}

/* A name may be used again, but not while a session that has it runs: --name would be
 * ambiguous just when it matters. */
static int refuse_running_name(const struct run *run, struct problem *problem)
{
	struct session_record found = { 0 };
	struct problem ignored;
	int result = 0;

	if (!run->options.name)
		return 0;
	if (session_record_find(run->paths, run->options.name, &found, &ignored) < 0)
		return 0;
	if (found.name && strcmp(found.name, run->options.name) == 0 &&
	    session_status(&found) == SESSION_STATUS_RUNNING)
		result = problem_set(problem, STATUS_USAGE,
				     "--name %s: session %s has that name and runs",
				     run->options.name, found.id);
	session_record_free(&found);
	return result;
}

/* ---- the command ------------------------------------------------------------------------ */

static void command_started(void *context, uint32_t guest_pid)
{
	struct run *run = context;
	cleanup_free char *command = quote_command(run->options.command.items);
	struct audit_event *event = &run->vm.event;

	run->started_ms = clock_now_ms();
	audit_event_begin(event, AUDIT_EXEC);
	audit_event_text(event, AUDIT_FIELD_COMMAND, command);
	audit_event_text(event, AUDIT_FIELD_CWD, run->plan.cwd);
	audit_event_text(event, AUDIT_FIELD_USER, run->plan.user.name);
	audit_event_number(event, AUDIT_FIELD_PID, guest_pid);
	session_vm_tell(&run->vm);
}

static void tell_exit(struct run *run)
{
	struct audit_event *event = &run->vm.event;

	audit_event_begin(event, AUDIT_EXIT);
	audit_event_number(event, AUDIT_FIELD_PID, run->result.guest_pid);
	if (run->result.kind == EXEC_RESULT_SIGNALED)
		audit_event_number(event, AUDIT_FIELD_SIGNAL, (uint64_t)run->result.code);
	else
		audit_event_number(event, AUDIT_FIELD_STATUS, (uint64_t)run->result.exit_status);
	audit_event_number(event, AUDIT_FIELD_DURATION_NS, run->record.duration_ms * 1000000);
	session_vm_tell(&run->vm);
}

static void command_lost(struct run *run)
{
	cleanup_free char *casualty = NULL;
	struct problem problem;

	/* The VMM's own end may be a moment behind the connection's. */
	child_wait(&run->vm.vmm, 1000);
	casualty = session_vm_casualty(&run->vm);
	problem_set(&problem, STATUS_SANDBOX,
		    "the sandbox failed while the command ran: %s\n"
		    "what it changed is recorded; undo it: matchlock rollback %s\n"
		    "what happened: matchlock audit show %s",
		    casualty ? casualty : run->result.text, run->plan.id, run->plan.id);
	sandbox_failed(run, &problem);
}

/* Only to a person: in a pipe, standard error is the command's. The log has it in any case. */
static void announce_engine(struct run *run)
{
	if (run->options.verbosity != RUN_QUIET && isatty(STDERR_FILENO) &&
	    strcmp(session_vm_engine(&run->vm), "qemu") == 0)
		fprintf(stderr, "matchlock: engine qemu: software emulation, slower and the weaker "
				"boundary (-q hides this)\n");
}

/* `matchlock allow`: the broker decides, the log is told; as it is of `matchlock port-forward`. */
static int answer_control(void *context, enum proxy_control_type type, const char *text,
			  char **ret_text)
{
	struct run *run = context;
	struct audit_event *event = &run->vm.event;
	struct problem problem;
	int error = type == PROXY_CONTROL_FORWARD
			    ? 0
			    : proxy_daemon_ask(&run->vm.proxy, type, text, ret_text, &problem);

	if (error < 0) {
		*ret_text = text_copy(problem.text);
		return EIO;
	}
	if (error == 0 && type != PROXY_CONTROL_ALLOW_LIST) {
		audit_event_begin(event, AUDIT_GRANT);
		audit_event_text(event, AUDIT_FIELD_OPERATION,
				 type == PROXY_CONTROL_FORWARD	   ? "forward"
				 : type == PROXY_CONTROL_ALLOW_ADD ? "allow"
								   : "withdraw");
		audit_event_text(event, AUDIT_FIELD_RULE, text);
		session_vm_tell(&run->vm);
	}
	return error;
}

static void tell_control(void *context, const void *event, size_t length)
{
	struct run *run = context;

	session_vm_pass_on(&run->vm, event, length);
}

static void control_ready(void *context, struct pollfd *watches, size_t count)
{
	struct run *run = context;

	(void)watches;
	(void)count;
	session_control_turn(&run->control);
}

/* No secret's name is in the environment already; a decoy gives way to what is. */
static int connect_command(struct run *run, struct exec_loop *loop, struct problem *problem)
{
	const struct text_list *placeholders = &run->vm.proxy.placeholders;

	if (!run->plan.has_network)
		return 0;
	for (size_t i = 0; i < placeholders->count; i++)
		environment_add(&run->plan.environment, placeholders->items[i]);
	run->control.answer = answer_control;
	run->control.tell = tell_control;
	run->control.context = run;
	loop->watches = run->control.watches;
	loop->watch_count = SESSION_CONTROL_WATCHES;
	loop->on_watch = control_ready;
	return session_control_listen(&run->control, run->vm.files.runtime, problem);
}

static void run_command(struct run *run)
{
	mode_t mask = umask(0);
	struct exec_request request = {
		.arguments = (const char *const *)run->options.command.items,
		.environment = (const char *const *)run->plan.environment.items,
		.cwd = run->plan.cwd,
		.uid = run->plan.user.uid,
		.gid = run->plan.user.gid,
		.groups = run->plan.user.groups,
		.group_count = run->plan.user.group_count,
		.umask = mask,
		.terminal = run->options.terminal,
		.input = run->options.input,
		.fds = { STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO },
		.timeout_ms = run->options.timeout_ms,
	};
	struct exec_loop loop = {
		.abort_fd = run->vm.watch_fd,
		.on_started = command_started,
		.context = run,
	};
	struct problem problem;
	int error;

	umask(mask);
	if (connect_command(run, &loop, &problem) < 0) {
		sandbox_failed(run, &problem);
		return;
	}
	request.environment = (const char *const *)run->plan.environment.items;
	announce_engine(run);
	run->started_ms = clock_now_ms();
	run->ran = true;
	error = exec_session_run(run->vm.client, &request, &loop, &run->result);
	run->record.duration_ms = clock_now_ms() - run->started_ms;
	if (error < 0) {
		problem_set(&problem, STATUS_SANDBOX, "cannot start the command: %s",
			    strerror(-error));
		sandbox_failed(run, &problem);
		return;
	}
	tell_exit(run);
	run->status = run->result.exit_status;
	switch (run->result.kind) {
	case EXEC_RESULT_LOST:
		command_lost(run);
		break;
	case EXEC_RESULT_FAILED:
		fprintf(stderr, "matchlock: %s: %s\n", run->options.command.items[0],
			run->result.text);
		break;
	case EXEC_RESULT_TIMEOUT: {
		cleanup_free char *limit = format_duration(run->options.timeout_ms);

		fprintf(stderr, "matchlock: the command was stopped after %s (--timeout)\n", limit);
		break;
	}
	case EXEC_RESULT_EXITED:
	case EXEC_RESULT_SIGNALED:
		break;
	}
}

/* ---- afterwards ------------------------------------------------------------------------- */

static bool wants_rollback(const struct run *run)
{
	if (run->record.changes != SESSION_CHANGES_OPEN || !run->vm.fsserver.pid)
		return false;
	if (run->options.keep_on_success)
		return run->status != 0;
	return run->options.rollback_on_exit;
}

static void roll_back_now(struct run *run)
{
	struct audit_event *event = &run->vm.event;
	struct problem problem;
	cleanup_free char *text = NULL;

	if (save_diff(run->paths, &run->record, &problem) < 0)
		report(&problem);
	if (roll_back(run->paths, &run->record, &run->rollback, &problem) < 0) {
		sandbox_failed(run, &problem);
		return;
	}
	run->rolled_back = true;
	text = rollback_text(&run->rollback);
	audit_event_begin(event, AUDIT_ROLLBACK);
	audit_event_number(event, AUDIT_FIELD_RESTORED, run->rollback.restored);
	audit_event_number(event, AUDIT_FIELD_REMOVED, run->rollback.removed);
	audit_event_number(event, AUDIT_FIELD_KEPT, run->rollback.kept);
	audit_event_number(event, AUDIT_FIELD_FAILED, run->rollback.failed);
	audit_event_text(event, AUDIT_FIELD_DETAIL, text);
	session_vm_tell(&run->vm);
	if (run->rollback.details)
		fprintf(stderr, "matchlock: rolled back: %s\n%s", text, run->rollback.details);
}

static void end_audit(struct run *run)
{
	struct audit_event *event = &run->vm.event;
	struct problem problem;

	audit_event_begin(event, AUDIT_SESSION_END);
	audit_event_text(event, AUDIT_FIELD_REASON,
			 !run->sandbox_fine ? "sandbox-failed"
			 : run->status == STATUS_TIMEOUT && run->result.kind == EXEC_RESULT_TIMEOUT
				 ? "timeout"
				 : "exited");
	audit_event_number(event, AUDIT_FIELD_STATUS, (uint64_t)run->status);
	audit_event_text(event, AUDIT_FIELD_DETAIL, run->record.reason);
	session_vm_tell(&run->vm);
	if (session_vm_end_audit(&run->vm, &problem) < 0)
		sandbox_failed(run, &problem);
}

static void finish_record(struct run *run)
{
	struct session_record *record = &run->record;
	struct problem problem;

	record->phase = SESSION_FINISHED;
	record->finished = (int64_t)time(NULL);
	record->exit_status = run->status;
	record->process_count = 0;
	if (run->vm.engine[0]) {
		free(record->engine);
		record->engine = text_copy(run->vm.engine);
	}
	if (!run->vm.fsserver.pid)
		record->changes = SESSION_CHANGES_NONE;
	else if (run->options.keep_on_success && run->status == 0 &&
		 record->changes == SESSION_CHANGES_OPEN)
		record->changes = SESSION_CHANGES_KEPT;
	if (session_record_save(run->paths, record, &problem) < 0)
		report(&problem);
}

static void print_json_summary(const struct run *run)
{
	static const char *const changes[] = { "in place", "kept", "rolled back", "none" };
	json_t *json = json_pack(
		"{s:s, s:o, s:i, s:b, s:s, s:I, s:s, s:o, s:o, s:o, s:o}", "session", run->plan.id,
		"name", run->record.name ? json_string(run->record.name) : json_null(),
		"exit_status", run->status, "sandbox_failed", run->sandbox_fine ? 0 : 1, "engine",
		run->record.engine, "duration_ms", (json_int_t)run->record.duration_ms, "changes",
		changes[run->record.changes], "rollback",
		run->rolled_back ? rollback_json(&run->rollback) : json_null(), "denials",
		run->denials ? denials_json(run->denials) : json_array(), "canaries",
		run->denials ? denials_canaries_json(run->denials) : json_array(), "reason",
		run->record.reason ? json_string(run->record.reason) : json_null());
	cleanup_free char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	if (text)
		fprintf(stderr, "%s\n", text);
	json_decref(json);
}

/* The last words, on standard error: only to a person, but denials always. */
static void summarise(struct run *run)
{
	bool chatty = isatty(STDERR_FILENO) && run->options.verbosity != RUN_QUIET;

	if (run->vm.files.directory)
		run->denials = denials_read(run->vm.files.directory);
	/* Before everything else, and whatever the verbosity. */
	if (run->denials)
		denials_print_canaries(run->denials, "matchlock: DECOY USED: ", stderr);
	if (run->options.json) {
		print_json_summary(run);
		return;
	}
	if (run->rolled_back && !run->rollback.details && chatty) {
		cleanup_free char *text = rollback_text(&run->rollback);

		fprintf(stderr, "matchlock: rolled back: %s\n", text);
	} else if (chatty && run->ran &&
		   (run->record.changes == SESSION_CHANGES_OPEN ||
		    run->record.changes == SESSION_CHANGES_KEPT)) {
		fprintf(stderr,
			"matchlock: session %s; what changed: matchlock diff %s, undo it: "
			"matchlock rollback %s\n",
			run->plan.id, run->plan.id, run->plan.id);
	}
	if (run->status != 0 && run->denials)
		denials_print(run->denials, stderr);
}

static void end_session(struct run *run)
{
	struct problem problem;
	bool orderly = run->ran && run->result.kind != EXEC_RESULT_LOST;

	session_control_finish(&run->control);
	if (session_vm_stop(&run->vm, orderly, &problem) < 0)
		sandbox_failed(run, &problem);
	if (wants_rollback(run))
		roll_back_now(run);
	end_audit(run);
	finish_record(run);
	summarise(run);
}

static void run_session(struct run *run)
{
	struct problem problem;

	run->sandbox_fine = true;
	fill_record(run);
	if (session_vm_start(&run->vm, &run->plan, &run->options, run->paths, &run->record,
			     &problem) < 0) {
		sandbox_failed(run, &problem);
		if (!run->vm.files.directory)
			return;
	} else {
		run_command(run);
	}
	end_session(run);
}

static void release(struct run *run)
{
	session_control_release(&run->control);
	session_vm_release(&run->vm);
	session_record_free(&run->record);
	rollback_result_free(&run->rollback);
	denials_free(run->denials);
	plan_free(&run->plan);
	run_options_free(&run->options);
}

static void tell_warnings(const struct run *run)
{
	const struct run_options *options = &run->options;

	if (options->dry_run)
		return;
	for (size_t i = 0; i < run->plan.warnings.count; i++)
		log_warning("%s", run->plan.warnings.items[i]);
	/* That restrictions do not hold any more is for those, too, who want to hear nothing. */
	if (options->verbosity == RUN_QUIET && options->project_changed) {
		for (size_t i = 0; i < options->notices.count; i++)
			log_error("%s", options->notices.items[i]);
	}
}

int command_run(int argc, char **argv, const struct paths *paths)
{
	static const enum log_level levels[] = { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO,
						 LOG_LEVEL_DEBUG };
	struct run *run = allocate(1, sizeof(*run));
	struct problem problem;
	int status;

	run->paths = paths;
	session_control_init(&run->control);
	run->vm.files = (struct session_files)SESSION_FILES_INIT;
	run->vm.vmm = run->vm.fsserver = run->vm.audit = run->vm.forwarder =
		(struct child)CHILD_INIT("none");
	run->vm.proxy = (struct proxy_daemon)PROXY_DAEMON_INIT;
	run->vm.vmm_control = run->vm.fsserver_control = run->vm.audit_socket = -1;
	run->vm.watch_fd = run->vm.signal_fd = run->vm.secrets_fd = -1;
	if (run_options_parse(argc, argv, &run->options, &problem) < 0)
		goto failed;
	if (run->options.help) {
		fputs(help_text("run"), stdout);
		release(run);
		free(run);
		return 0;
	}
	if (user_config_apply(&run->options, paths, &problem) < 0 ||
	    project_apply(&run->options, paths, &problem) < 0)
		goto failed;
	log_configure("matchlock", levels[run->options.verbosity]);
	if (plan_make(&run->options, paths, &run->plan, &problem) < 0 ||
	    refuse_running_name(run, &problem) < 0)
		goto failed;
	tell_warnings(run);
	if (run->options.dry_run)
		run->status = dry_run(run);
	else
		run_session(run);
	status = run->status;
	release(run);
	free(run);
	return status;
failed:
	report(&problem);
	release(run);
	free(run);
	return problem.status;
}
