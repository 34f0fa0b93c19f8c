/*
 * What the file server tells the audit process: changes, denials, breaches of the protocol.
 *
 * Events go out one datagram each, and the send waits when the audit process is behind: no change
 * goes unrecorded. When the audit process is gone, report_failed() says so and the server ends
 * the session rather than serve without a log.
 *
 * Denials are merged: the first of a kind (operation, path, rule) is sent at once, its
 * repetitions within REPORT_MERGE_MS in one event with their number.
 *
 * Paths are relative to the export's root; "" is shown as ".".
 */
#ifndef FSSERVER_REPORT_H
#define FSSERVER_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define REPORT_MERGE_MS 1000
/* Violations sent per stream are bounded by its end; those that do not end one, by this. */
#define REPORT_VIOLATIONS_MAX 100

struct report;

/* `audit_fd` stays the caller's; -1: no audit process, events are dropped. */
int report_new(int audit_fd, struct report **ret_report);
void report_free(struct report *report);

struct report_mutation {
	const char *operation;
	const char *export_name;
	const char *path;
	const char *path2;     /* NULL: none */
	const uint64_t *bytes; /* NULL: none */
	const uint8_t *before; /* SHA-256, NULL: none */
	const uint8_t *after;  /* SHA-256, NULL: none */
	const mode_t *mode;    /* NULL: none */
};
void report_mutation(struct report *report, const struct report_mutation *mutation);

struct report_denial {
	const char *operation;
	const char *export_name;
	const char *path;
	const char *path2; /* NULL: none */
	const char *rule;
	const char *reason;
	const char *hint; /* NULL: none */
};
void report_denial(struct report *report, const struct report_denial *denial);

void report_violation(struct report *report, const char *detail);
void report_notice(struct report *report, const char *detail);
/* `path`: the policy's name or "built-in"; `sha256` in hex. */
void report_policy(struct report *report, const char *path, const char *sha256, uint64_t rules);
void report_jail(struct report *report, const char *detail);
void report_rollback(struct report *report, uint64_t restored, uint64_t removed, uint64_t kept,
		     uint64_t failed, const char *detail);

/* Sends merged denials whose time has come, or all of them. */
void report_flush(struct report *report, bool all);
/* Whether merged denials wait. */
bool report_waits(const struct report *report);
/* 0, or why the audit process can no longer be told (positive errno). */
int report_failed(const struct report *report);

#endif
