#include "cli/project_trust.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/plan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAX (64u * 1024u) /* bytes */
#define SUFFIX ".json"

/* ---- records -------------------------------------------------------------------------------- */

static char *directory_of(const struct paths *paths)
{
	return text_printf("%s/trust", paths->state);
}

static int record_name(const char *path, char name[static 64 + sizeof(SUFFIX)],
		       struct problem *problem)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned length = 0;

	if (EVP_Digest(path, strlen(path), digest, &length, EVP_sha256(), NULL) != 1 ||
	    length != 32)
		return problem_set(problem, STATUS_SANDBOX, "no SHA-256 in libcrypto");
	for (unsigned i = 0; i < length; i++)
		snprintf(name + 2 * i, 3, "%02x", digest[i]);
	memcpy(name + 64, SUFFIX, sizeof(SUFFIX));
	return 0;
}

static void record_free(struct trust_record *record)
{
	free(record->path);
	*record = (struct trust_record){ 0 };
}

static bool is_hash(const char *text)
{
	return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static int parse_record(const char *text, size_t length, struct trust_record *ret_record)
{
	json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	const char *path;
	const char *sha256;
	json_int_t version;
	json_int_t since;
	int result = -EINVAL;

	if (json &&
	    json_unpack(json, "{s:I, s:s, s:s, s:I !}", "version", &version, "path", &path,
			"sha256", &sha256, "since", &since) == 0 &&
	    version == 1 && path[0] == '/' && is_hash(sha256)) {
		ret_record->path = text_copy(path);
		memcpy(ret_record->sha256, sha256, sizeof(ret_record->sha256));
		ret_record->since = (time_t)since;
		result = 0;
	}
	json_decref(json);
	return result;
}

/* 1, 0 when there is none, -1. */
static int read_record(const char *directory, const char *name, struct trust_record *ret_record,
		       struct problem *problem)
{
	cleanup_free char *file = text_printf("%s/%s", directory, name);
	cleanup_fd int fd = open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	cleanup_free char *text = NULL;
	size_t length = 0;
	int error;

	if (fd < 0 && errno == ENOENT)
		return 0;
	error = fd < 0 ? -errno : read_file(fd, RECORD_MAX, &text, &length);
	if (error == 0)
		error = parse_record(text, length, ret_record);
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX,
				   "%s: %s; remove it, and trust its project anew: matchlock "
				   "trust DIR",
				   file,
				   error == -EINVAL ? "is no record of `matchlock trust`"
						    : strerror(-error));
	return 1;
}

static int write_record(int directory_fd, const char *name, const char *text)
{
	cleanup_free char *fresh = text_printf(".%s.%d", name, (int)getpid());
	cleanup_fd int fd = openat(directory_fd, fresh,
				   O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int error = fd < 0 ? -errno : write_full(fd, text, strlen(text));

	if (error == 0 && (fsync(fd) < 0 || renameat(directory_fd, fresh, directory_fd, name) < 0))
		error = -errno;
	if (error < 0 && fd >= 0)
		unlinkat(directory_fd, fresh, 0);
	return error;
}

int trust_look_up(const struct paths *paths, const struct project_bytes *bytes,
		  enum trust_state *ret_state, struct problem *problem)
{
	cleanup_free char *directory = directory_of(paths);
	char name[64 + sizeof(SUFFIX)];
	struct trust_record record = { 0 };
	int found;

	if (record_name(bytes->path, name, problem) < 0)
		return -1;
	found = read_record(directory, name, &record, problem);
	if (found < 0)
		return -1;
	*ret_state = TRUST_NONE;
	if (record.path && strcmp(record.path, bytes->path) == 0)
		*ret_state =
			strcmp(record.sha256, bytes->sha256) == 0 ? TRUST_GIVEN : TRUST_CHANGED;
	record_free(&record);
	return 0;
}

int trust_give(const struct paths *paths, const struct project_bytes *bytes,
	       struct problem *problem)
{
	cleanup_free char *directory = directory_of(paths);
	cleanup_free char *text = NULL;
	cleanup_fd int directory_fd = -1;
	char name[64 + sizeof(SUFFIX)];
	json_t *json;
	int error;

	json = json_pack("{s:i, s:s, s:s, s:I}", "version", 1, "path", bytes->path, "sha256",
			 bytes->sha256, "since", (json_int_t)time(NULL));
	text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	if (!text)
		return problem_set(problem, STATUS_USAGE,
				   "the path is not UTF-8, and cannot be recorded: rename it");
	if (record_name(bytes->path, name, problem) < 0)
		return -1;
	directory_fd = open_private_directory(directory, problem);
	if (directory_fd < 0)
		return -1;
	error = write_record(directory_fd, name, text);
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot write %s/%s: %s", directory,
				   name, strerror(-error));
	return 0;
}

int trust_take_back(const struct paths *paths, const char *path, struct problem *problem)
{
	cleanup_free char *directory = directory_of(paths);
	cleanup_free char *file = NULL;
	char name[64 + sizeof(SUFFIX)];

	if (record_name(path, name, problem) < 0)
		return -1;
	file = text_printf("%s/%s", directory, name);
	if (unlink(file) == 0)
		return 1;
	if (errno == ENOENT)
		return 0;
	return problem_set(problem, STATUS_SANDBOX, "cannot remove %s: %s", file, strerror(errno));
}

/* ---- all records ---------------------------------------------------------------------------- */

static int by_path(const void *left, const void *right)
{
	return strcmp(((const struct trust_record *)left)->path,
		      ((const struct trust_record *)right)->path);
}

int trust_list(const struct paths *paths, struct trust_record **ret_records, size_t *ret_count,
	       struct problem *problem)
{
	cleanup_free char *place = directory_of(paths);
	DIR *directory = opendir(place);
	struct trust_record *records = allocate(1, sizeof(*records));
	const struct dirent *entry;
	size_t count = 0;
	int found = 0;

	while (directory && (entry = readdir(directory))) {
		size_t length = strlen(entry->d_name);
		struct trust_record *more;

		if (entry->d_name[0] == '.' || length != 64 + strlen(SUFFIX))
			continue;
		more = reallocarray(records, count + 1, sizeof(*records));
		found = more ? 0 : -1;
		if (!more) {
			problem_set(problem, STATUS_SANDBOX, "no memory");
			break;
		}
		records = more;
		found = read_record(place, entry->d_name, &records[count], problem);
		if (found < 0)
			break;
		count += (size_t)found;
	}
	if (directory)
		closedir(directory);
	if (found < 0) {
		trust_list_free(records, count);
		return -1;
	}
	qsort(records, count, sizeof(*records), by_path);
	*ret_records = records;
	*ret_count = count;
	return 0;
}

void trust_list_free(struct trust_record *records, size_t count)
{
	for (size_t i = 0; i < count; i++)
		record_free(&records[i]);
	free(records);
}

/* ---- a session ------------------------------------------------------------------------------ */

static void limit(unsigned *value, unsigned preset, unsigned most, enum setting_source *source)
{
	unsigned now = *value ? *value : preset;

	if (most == 0 || (now != 0 && now <= most))
		return;
	*value = most;
	*source = SOURCE_PROJECT;
}

static void tighten(struct run_options *options)
{
	const struct project_file *project = options->project;

	limit(&options->cpus, PLAN_CPUS_DEFAULT, project->cpus, &options->source[SETTING_CPUS]);
	limit(&options->memory_mib, PLAN_MEMORY_DEFAULT_MIB, project->memory_mib,
	      &options->source[SETTING_MEMORY]);
	limit(&options->timeout_ms, 0, project->timeout_ms, &options->source[SETTING_TIMEOUT]);
	if (project->rollback_on_exit) {
		if (options->keep_on_success || !options->rollback_on_exit)
			options->source[SETTING_ROLLBACK_ON_EXIT] = SOURCE_PROJECT;
		options->rollback_on_exit = true;
		options->keep_on_success = false;
	}
}

static int apply_trusted(struct run_options *options, struct project_bytes *bytes,
			 struct problem *problem)
{
	struct project_file *project = allocate(1, sizeof(*project));

	if (project_file_parse(bytes->text, bytes->length, bytes->path, project, problem) < 0) {
		free(project);
		return -1;
	}
	options->project = project;
	options->project_path = steal_pointer(&bytes->path);
	options->project_text = steal_pointer(&bytes->text);
	tighten(options);
	return 0;
}

/* There is no file to be read; had there been one that was trusted? */
static int notice_lost(struct run_options *options, const struct paths *paths,
		       const char *workspace, struct problem *problem)
{
	const char *parent = strcmp(workspace, "/") == 0 ? "" : workspace;
	struct project_bytes gone = { .path = text_printf("%s/" PROJECT_FILE_NAME, parent) };
	cleanup_free char *word = quote_word(workspace);
	enum trust_state state = TRUST_NONE;
	int result = trust_look_up(paths, &gone, &state, problem);

	if (result == 0 && state != TRUST_NONE) {
		options->project_changed = true;
		text_list_take(&options->notices,
			       text_printf("%s, which you trusted, is GONE, and what it asked for "
					   "does not hold; if that is meant: matchlock trust "
					   "--remove %s",
					   gone.path, word));
	}
	project_bytes_free(&gone);
	return result;
}

int project_apply(struct run_options *options, const struct paths *paths, struct problem *problem)
{
	cleanup_free char *workspace =
		options->workspace ? realpath(options->workspace, NULL) : NULL;
	cleanup_free char *word = NULL;
	struct project_bytes bytes = { 0 };
	struct problem unreadable;
	enum trust_state state;
	int result = 0;
	int found;

	/* Whether it exists is for the plan to say. */
	if (!workspace)
		return 0;
	word = quote_word(workspace);
	found = project_bytes_read(workspace, &bytes, &unreadable);
	if (found < 0)
		text_list_take(&options->notices,
			       text_printf("%s; it is ignored", unreadable.text));
	if (found <= 0)
		return notice_lost(options, paths, workspace, problem);
	if (trust_look_up(paths, &bytes, &state, problem) < 0) {
		result = -1;
	} else if (state == TRUST_GIVEN) {
		result = apply_trusted(options, &bytes, problem);
	} else if (state == TRUST_CHANGED) {
		options->project_changed = true;
		text_list_take(&options->notices,
			       text_printf("%s CHANGED since you trusted it, and is ignored; see "
					   "what it asks for now, and trust that: matchlock trust "
					   "%s",
					   bytes.path, word));
	} else {
		text_list_take(&options->notices,
			       text_printf("%s is ignored; see what it asks for, and trust it: "
					   "matchlock trust %s",
					   bytes.path, word));
	}
	project_bytes_free(&bytes);
	return result;
}
