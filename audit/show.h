/*
 * A log as a table for people, or filtered as it is for programs.
 *
 * The log's text is a guest's: nothing of it reaches the output except through escape_text() or,
 * for JSON, after record_parse() has taken the whole line, which lets no control character pass.
 * A line that is no record is named by its number and never shown.
 */
#ifndef AUDIT_SHOW_H
#define AUDIT_SHOW_H

#include "jail/jail.h"
#include "wire/audit.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct show_options {
	uint32_t kinds;	   /* bits 1 << enum audit_kind; 0: all */
	const char *path;  /* glob for path or path2, `*` also matches `/`; NULL: all */
	const char *host;  /* glob for host; NULL: all */
	const char *since; /* RECORD_TIME_LENGTH characters as in the log; NULL: all */
	bool follow;	   /* until the writer is gone */
	bool json;
	bool colour;
};

/* What showing calls, for the jail. */
extern const struct jail_syscall_set show_calls;

/* An inotify descriptor that watches the log, for `follow`. >= 0 or a negative errno. */
int show_watch(const char *log_path);

/* Writes the log from its start to `output`. `watch_fd` is -1 unless options->follow. Returns 0,
 * or a negative errno of reading or writing. */
int show_log(int log_fd, int watch_fd, const struct show_options *options, FILE *output);

/* "2026-11-20", "2026-11-20T18:55[:00][Z]" (local time without Z), or how long ago: "90s", "15m",
 * "2h", "3d". False for anything else. */
bool show_parse_since(const char *text, uint64_t now_ns, char *since);

#endif
