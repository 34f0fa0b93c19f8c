/*
 * The record of one session, sessions/ID/session.json, and the directory of all of them.
 *
 * A record is replaced atomically (written beside, fsynced, renamed), so that a reader sees the
 * old or the new one whole. Who runs the session is in it as pids with their start times and the
 * boot they belong to; a record that says "running" whose processes are gone is a crashed
 * session, and its undo store can still be rolled back.
 *
 * Beside the record lie exports.json (the file server's configuration, which roll-back and diff
 * need again), policy.yaml (as applied), audit.jsonl, console.log, and diff.txt with diff.json
 * from before a roll-back.
 */
#ifndef CLI_SESSION_RECORD_H
#define CLI_SESSION_RECORD_H

#include "cli/paths.h"
#include "cli/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SESSION_ID_LENGTH 12 /* lower-case hexadecimal digits */
#define SESSION_NAME_MAX 63  /* bytes of --name */
#define SESSION_PROCESSES_MAX 8
#define SESSION_RECORD_MAX (4u << 20) /* bytes of session.json */

enum session_phase {
	SESSION_RUNNING, /* or crashed: see session_status() */
	SESSION_FINISHED,
};

enum session_changes {
	SESSION_CHANGES_OPEN,	     /* in place; roll-back possible */
	SESSION_CHANGES_KEPT,	     /* the same, because --keep-on-success said so */
	SESSION_CHANGES_ROLLED_BACK, /* undone */
	SESSION_CHANGES_NONE,	     /* the session could not write to the host */
};

struct session_process {
	char role[16]; /* "cli", "vmm", "fsserver", "audit" */
	pid_t pid;
	uint64_t start; /* clock ticks since boot, /proc/PID/stat field 22 */
};

struct session_record {
	char id[SESSION_ID_LENGTH + 1];
	char *name; /* NULL without --name */
	struct text_list command;
	char *workspace; /* NULL without one */
	char *image;
	char *user;
	char *engine; /* "kvm" or "qemu"; what was asked for until the VM runs */
	char *boot_id;
	int64_t started; /* seconds since 1970 */
	int64_t finished;
	int64_t rolled_back;
	uint64_t duration_ms; /* of the command */
	enum session_phase phase;
	enum session_changes changes;
	int exit_status; /* -1 until it finished */
	char *reason;	 /* why it ended, when not by the command's own end; else NULL */
	bool rollback_on_exit;
	struct text_list stores; /* undo stores, absolute */
	struct session_process processes[SESSION_PROCESSES_MAX];
	size_t process_count;
};

enum session_status {
	SESSION_STATUS_RUNNING,
	SESSION_STATUS_EXITED,
	SESSION_STATUS_ROLLED_BACK,
	SESSION_STATUS_KEPT,
	SESSION_STATUS_CRASHED,
};

void session_record_free(struct session_record *record);
#define cleanup_record __attribute__((cleanup(session_record_free)))

/* A fresh random id. */
void session_id_generate(char id[SESSION_ID_LENGTH + 1]);
/* Letters, digits, '.', '_' and '-', beginning with a letter or digit; and not something that
 * could be taken for an id or for "last". */
bool session_name_valid(const char *name);

/* Where a session lives. The caller frees. */
char *session_record_directory(const struct paths *paths, const char *id);

/* Adds a process that runs now. */
void session_record_add_process(struct session_record *record, const char *role, pid_t pid);

int session_record_save(const struct paths *paths, const struct session_record *record,
			struct problem *problem);
/* `ret_record` owns what it holds. */
int session_record_load(const struct paths *paths, const char *id,
			struct session_record *ret_record, struct problem *problem);

enum session_status session_status(const struct session_record *record);
const char *session_status_name(enum session_status status);
/* True while a recorded process with that role (NULL: any) lives. */
bool session_process_alive(const struct session_record *record, const char *role);
/* True when there is something that a roll-back would undo. */
bool session_has_undo(const struct session_record *record);

/* All records, newest first. Directories without a readable record are left out and counted in
 * *ret_damaged (may be NULL). The caller frees each and the array. */
size_t session_list(const struct paths *paths, struct session_record **ret_records,
		    size_t *ret_damaged);
void session_list_free(struct session_record *records, size_t count);

/* Resolves a name, an id, an unambiguous prefix of an id, or "last" (the newest). */
int session_record_find(const struct paths *paths, const char *text,
			struct session_record *ret_record, struct problem *problem);

/* Takes the session for this process alone, until the descriptor is closed: the one who runs it,
 * rolls it back or removes it. Returns a descriptor, or -1 with *problem set. */
int session_lock(const struct paths *paths, const struct session_record *record,
		 struct problem *problem);

#endif
