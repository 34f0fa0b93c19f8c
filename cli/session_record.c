#include "cli/session_record.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_VERSION 1

static const char *const phase_names[] = { "running", "finished" };
static const char *const changes_names[] = { "open", "kept", "rolled-back", "none" };
static const char *const status_names[] = { "running", "exited", "rolled-back", "kept", "crashed" };

static void cleanup_json_impl(json_t **json)
{
	json_decref(*json);
}
#define cleanup_json __attribute__((cleanup(cleanup_json_impl)))

void session_record_free(struct session_record *record)
{
	free(record->name);
	text_list_free(&record->command);
	free(record->workspace);
	free(record->image);
	free(record->user);
	free(record->engine);
	free(record->boot_id);
	free(record->reason);
	text_list_free(&record->stores);
	*record = (struct session_record){ 0 };
}

void session_id_generate(char id[SESSION_ID_LENGTH + 1])
{
	uint8_t bytes[SESSION_ID_LENGTH / 2];

	/* Cannot fail for so few bytes once the kernel's generator is seeded. */
	while (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		continue;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}

bool session_name_valid(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > SESSION_NAME_MAX || strcmp(name, "last") == 0)
		return false;
	if (!isalnum((unsigned char)name[0]))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	}
	return length != SESSION_ID_LENGTH || strspn(name, "0123456789abcdef") != length;
}

char *session_record_directory(const struct paths *paths, const char *id)
{
	return text_printf("%s/sessions/%s", paths->state, id);
}

static char *read_small_file(const char *path)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = NULL;

	if (fd < 0 || read_file(fd, 4096, &text, NULL) < 0)
		return NULL;
	text[strcspn(text, "\n")] = '\0';
	return text;
}

/* Field 22 of /proc/PID/stat, counted after the name's closing parenthesis; 0 when gone. */
static uint64_t process_start_time(pid_t pid)
{
	cleanup_free char *path = text_printf("/proc/%d/stat", (int)pid);
	cleanup_free char *text = read_small_file(path);
	char *at = text ? strrchr(text, ')') : NULL;

	for (int field = 2; at && field < 22; field++) {
		at = strchr(at, ' ');
		if (at)
			at++;
		/* A zombie has ended; only its parent has not looked yet. */
		if (at && field == 2 && *at == 'Z')
			return 0;
	}
	return at ? strtoull(at, NULL, 10) : 0;
}

void session_record_add_process(struct session_record *record, const char *role, pid_t pid)
{
	struct session_process *process;

	if (record->process_count == SESSION_PROCESSES_MAX)
		return;
	process = &record->processes[record->process_count++];
	snprintf(process->role, sizeof(process->role), "%s", role);
	process->pid = pid;
	process->start = process_start_time(pid);
	if (!record->boot_id)
		record->boot_id = read_small_file("/proc/sys/kernel/random/boot_id");
}

bool session_process_alive(const struct session_record *record, const char *role)
{
	cleanup_free char *boot_id = read_small_file("/proc/sys/kernel/random/boot_id");

	if (record->boot_id && boot_id && strcmp(record->boot_id, boot_id) != 0)
		return false;
	for (size_t i = 0; i < record->process_count; i++) {
		const struct session_process *process = &record->processes[i];

		if (role && strcmp(process->role, role) != 0)
			continue;
		if (process->start != 0 && process_start_time(process->pid) == process->start)
			return true;
	}
	return false;
}

enum session_status session_status(const struct session_record *record)
{
	if (record->changes == SESSION_CHANGES_ROLLED_BACK)
		return SESSION_STATUS_ROLLED_BACK;
	if (record->phase == SESSION_RUNNING)
		return session_process_alive(record, "cli") ? SESSION_STATUS_RUNNING
							    : SESSION_STATUS_CRASHED;
	return record->changes == SESSION_CHANGES_KEPT ? SESSION_STATUS_KEPT
						       : SESSION_STATUS_EXITED;
}

const char *session_status_name(enum session_status status)
{
	return status_names[status];
}

bool session_has_undo(const struct session_record *record)
{
	if (record->changes == SESSION_CHANGES_ROLLED_BACK)
		return false;
	for (size_t i = 0; i < record->stores.count; i++) {
		if (access(record->stores.items[i], F_OK) == 0)
			return true;
	}
	return false;
}

/* ---- JSON ------------------------------------------------------------------------------- */

/* Names that are not UTF-8 would make jansson refuse the whole record; they are stored escaped,
 * for people alone. */
static json_t *json_text(const char *text)
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

static json_t *json_texts(const struct text_list *list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < list->count; i++)
		json_array_append_new(array, json_text(list->items[i]));
	return array;
}

static json_t *record_to_json(const struct session_record *record)
{
	json_t *processes = json_array();

	for (size_t i = 0; i < record->process_count; i++) {
		const struct session_process *process = &record->processes[i];

		json_array_append_new(processes, json_pack("{s:s, s:I, s:I}", "role", process->role,
							   "pid", (json_int_t)process->pid, "start",
							   (json_int_t)process->start));
	}
	return json_pack(
		"{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:s, "
		"s:s, s:i, s:o, s:b, s:o, s:o}",
		"version", RECORD_VERSION, "id", record->id, "name", json_text(record->name),
		"command", json_texts(&record->command), "workspace", json_text(record->workspace),
		"image", json_text(record->image), "user", json_text(record->user), "engine",
		json_text(record->engine), "boot_id", json_text(record->boot_id), "started",
		(json_int_t)record->started, "finished", (json_int_t)record->finished,
		"rolled_back", (json_int_t)record->rolled_back, "duration_ms",
		(json_int_t)record->duration_ms, "phase", phase_names[record->phase], "changes",
		changes_names[record->changes], "exit_status", record->exit_status, "reason",
		json_text(record->reason), "rollback_on_exit", record->rollback_on_exit ? 1 : 0,
		"stores", json_texts(&record->stores), "processes", processes);
}

static bool take_texts(json_t *array, struct text_list *list)
{
	size_t index;
	json_t *item;

	if (!json_is_array(array))
		return false;
	json_array_foreach(array, index, item)
	{
		if (!json_is_string(item))
			return false;
		text_list_add(list, json_string_value(item));
	}
	return true;
}

static char *take_text(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text_copy(text) : NULL;
}

static bool take_name(json_t *object, const char *key, const char *const *names, size_t count,
		      unsigned *ret_index)
{
	const char *text = json_string_value(json_object_get(object, key));

	for (size_t i = 0; text && i < count; i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret_index = (unsigned)i;
			return true;
		}
	}
	return false;
}

static bool take_processes(json_t *array, struct session_record *record)
{
	size_t index;
	json_t *item;

	if (!json_is_array(array) || json_array_size(array) > SESSION_PROCESSES_MAX)
		return false;
	json_array_foreach(array, index, item)
	{
		struct session_process *process = &record->processes[record->process_count++];
		const char *role = json_string_value(json_object_get(item, "role"));

		if (!role)
			return false;
		snprintf(process->role, sizeof(process->role), "%s", role);
		process->pid = (pid_t)json_integer_value(json_object_get(item, "pid"));
		process->start = (uint64_t)json_integer_value(json_object_get(item, "start"));
	}
	return true;
}

static int64_t take_number(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static bool record_from_json(json_t *json, const char *id, struct session_record *record)
{
	const char *stored_id = json_string_value(json_object_get(json, "id"));
	unsigned phase;
	unsigned changes;

	if (take_number(json, "version") != RECORD_VERSION || !stored_id ||
	    strcmp(stored_id, id) != 0 ||
	    !take_name(json, "phase", phase_names, ARRAY_LENGTH(phase_names), &phase) ||
	    !take_name(json, "changes", changes_names, ARRAY_LENGTH(changes_names), &changes))
		return false;
	snprintf(record->id, sizeof(record->id), "%s", id);
	record->phase = (enum session_phase)phase;
	record->changes = (enum session_changes)changes;
	record->name = take_text(json, "name");
	record->workspace = take_text(json, "workspace");
	record->image = take_text(json, "image");
	record->user = take_text(json, "user");
	record->engine = take_text(json, "engine");
	record->boot_id = take_text(json, "boot_id");
	record->reason = take_text(json, "reason");
	record->started = take_number(json, "started");
	record->finished = take_number(json, "finished");
	record->rolled_back = take_number(json, "rolled_back");
	record->duration_ms = (uint64_t)take_number(json, "duration_ms");
	record->exit_status = (int)take_number(json, "exit_status");
	record->rollback_on_exit = json_is_true(json_object_get(json, "rollback_on_exit"));
	return take_texts(json_object_get(json, "command"), &record->command) &&
	       take_texts(json_object_get(json, "stores"), &record->stores) &&
	       take_processes(json_object_get(json, "processes"), record);
}

/* ---- files ------------------------------------------------------------------------------ */

int session_record_save(const struct paths *paths, const struct session_record *record,
			struct problem *problem)
{
	cleanup_free char *directory = session_record_directory(paths, record->id);
	cleanup_free char *target = text_printf("%s/session.json", directory);
	cleanup_free char *temporary = text_printf("%s/.session.json.%d", directory, (int)getpid());
	cleanup_json json_t *json = record_to_json(record);
	cleanup_free char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	cleanup_fd int fd = -1;
	int error = 0;

	if (!text)
		return problem_set(problem, STATUS_SANDBOX, "cannot write the session's record");
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		error = -errno;
	if (!error)
		error = write_full(fd, text, strlen(text));
	if (!error && (fdatasync(fd) < 0 || rename(temporary, target) < 0))
		error = -errno;
	if (error) {
		unlink(temporary);
		return problem_set(problem, STATUS_SANDBOX, "cannot write %s: %s", target,
				   strerror(-error));
	}
	return 0;
}

int session_record_load(const struct paths *paths, const char *id,
			struct session_record *ret_record, struct problem *problem)
{
	cleanup_free char *directory = session_record_directory(paths, id);
	cleanup_free char *path = text_printf("%s/session.json", directory);
	cleanup_free char *text = NULL;
	cleanup_json json_t *json = NULL;
	cleanup_fd int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct session_record record = { 0 };
	json_error_t where;
	size_t length = 0;
	int error = fd < 0 ? -errno : read_file(fd, SESSION_RECORD_MAX, &text, &length);

	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot read %s: %s", path,
				   strerror(-error));
	json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
	if (!json)
		return problem_set(problem, STATUS_SANDBOX, "%s:%d: %s", path, where.line,
				   where.text);
	if (!record_from_json(json, id, &record)) {
		session_record_free(&record);
		return problem_set(problem, STATUS_SANDBOX, "%s is no session record of version %d",
				   path, RECORD_VERSION);
	}
	*ret_record = record;
	return 0;
}

static int newer_first(const void *left, const void *right)
{
	const struct session_record *a = left;
	const struct session_record *b = right;

	if (a->started != b->started)
		return a->started < b->started ? 1 : -1;
	return strcmp(a->id, b->id);
}

static bool is_session_id(const char *text)
{
	return strlen(text) == SESSION_ID_LENGTH &&
	       strspn(text, "0123456789abcdef") == SESSION_ID_LENGTH;
}

size_t session_list(const struct paths *paths, struct session_record **ret_records,
		    size_t *ret_damaged)
{
	cleanup_free char *path = text_printf("%s/sessions", paths->state);
	DIR *directory = opendir(path);
	struct session_record *records = NULL;
	const struct dirent *entry;
	size_t count = 0;
	size_t damaged = 0;

	while (directory && (entry = readdir(directory))) {
		struct session_record *grown;
		struct problem ignored;

		if (!is_session_id(entry->d_name))
			continue;
		grown = reallocarray(records, count + 1, sizeof(*records));
		if (!grown)
			break;
		records = grown;
		if (session_record_load(paths, entry->d_name, &records[count], &ignored) == 0)
			count++;
		else
			damaged++;
	}
	if (directory)
		closedir(directory);
	if (count > 1)
		qsort(records, count, sizeof(*records), newer_first);
	*ret_records = records;
	if (ret_damaged)
		*ret_damaged = damaged;
	return count;
}

void session_list_free(struct session_record *records, size_t count)
{
	for (size_t i = 0; i < count; i++)
		session_record_free(&records[i]);
	free(records);
}

int session_record_find(const struct paths *paths, const char *text,
			struct session_record *ret_record, struct problem *problem)
{
	struct session_record *records = NULL;
	size_t count = session_list(paths, &records, NULL);
	size_t matches = 0;
	size_t match = 0;

	for (size_t i = 0; i < count; i++) {
		bool exact = strcmp(records[i].id, text) == 0 ||
			     (records[i].name && strcmp(records[i].name, text) == 0) ||
			     strcmp(text, "last") == 0;

		if (exact) {
			matches = 1;
			match = i;
			break;
		}
		if (*text != '\0' && strncmp(records[i].id, text, strlen(text)) == 0) {
			matches++;
			match = i;
		}
	}
	if (matches == 1) {
		*ret_record = records[match];
		records[match] = (struct session_record){ 0 };
	}
	session_list_free(records, count);
	if (matches == 1)
		return 0;
	if (matches > 1)
		return problem_set(problem, STATUS_USAGE,
				   "%s is the beginning of %zu session ids: give more of it", text,
				   matches);
	return problem_set(problem, STATUS_USAGE, "there is no session %s: see `matchlock ls`",
			   text);
}

int session_lock(const struct paths *paths, const struct session_record *record,
		 struct problem *problem)
{
	cleanup_free char *path = session_record_directory(paths, record->id);
	cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot open %s: %s", path,
				   strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return problem_set(problem, STATUS_SANDBOX,
				   "session %s is in use: it runs, or is being rolled back",
				   record->id);
	return steal_fd(&fd);
}
