#include "fsserver/report.h"

#include "base/checked.h"
#include "base/clock.h"
#include "wire/audit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MERGED_KINDS 64
#define COMPONENT "fsserver"
#define HEX_LENGTH 64

/* Repetitions of one denial since the event that was sent. */
struct merged {
	struct report_denial denial; /* strings owned; operation NULL: empty slot */
	uint64_t count;
	uint64_t since_ms;
};

struct report {
	int fd;
	int failed;
	unsigned violations;
	unsigned waiting;
	struct merged merged[MERGED_KINDS];
	struct audit_event event;
};

int report_new(int audit_fd, struct report **ret_report)
{
	struct report *report = calloc(1, sizeof(*report));

	if (!report)
		return -ENOMEM;
	report->fd = audit_fd;
	*ret_report = report;
	return 0;
}

static void merged_clear(struct report *report, struct merged *merged)
{
	const struct report_denial *denial = &merged->denial;
	const char *owned[] = { denial->operation, denial->export_name, denial->path, denial->path2,
				denial->rule,	   denial->reason,	denial->hint };

	for (size_t i = 0; i < ARRAY_LENGTH(owned); i++)
		free((void *)(uintptr_t)owned[i]);
	*merged = (struct merged){ 0 };
	report->waiting--;
}

void report_free(struct report *report)
{
	if (!report)
		return;
	for (size_t i = 0; i < MERGED_KINDS; i++) {
		if (report->merged[i].denial.operation)
			merged_clear(report, &report->merged[i]);
	}
	free(report);
}

static void send_event(struct report *report)
{
	if (report->fd >= 0 && !report->failed)
		report->failed = -audit_event_send(&report->event, report->fd);
}

static void put_path(struct report *report, enum audit_field field, const char *path)
{
	if (path)
		audit_event_text(&report->event, field, path[0] ? path : ".");
}

static void put_hash(struct report *report, enum audit_field field, const uint8_t *hash)
{
	static const char digits[] = "0123456789abcdef";
	char text[HEX_LENGTH];

	if (!hash)
		return;
	for (size_t i = 0; i < HEX_LENGTH / 2; i++) {
		text[2 * i] = digits[hash[i] >> 4];
		text[2 * i + 1] = digits[hash[i] & 15];
	}
	audit_event_bytes(&report->event, field, text, sizeof(text));
}

void report_mutation(struct report *report, const struct report_mutation *mutation)
{
	struct audit_event *event = &report->event;

	audit_event_begin(event, AUDIT_MUTATION);
	audit_event_text(event, AUDIT_FIELD_OPERATION, mutation->operation);
	audit_event_text(event, AUDIT_FIELD_EXPORT, mutation->export_name);
	put_path(report, AUDIT_FIELD_PATH, mutation->path);
	put_path(report, AUDIT_FIELD_PATH2, mutation->path2);
	if (mutation->bytes)
		audit_event_number(event, AUDIT_FIELD_BYTES, *mutation->bytes);
	put_hash(report, AUDIT_FIELD_BEFORE, mutation->before);
	put_hash(report, AUDIT_FIELD_AFTER, mutation->after);
	if (mutation->mode)
		audit_event_number(event, AUDIT_FIELD_MODE, *mutation->mode);
	send_event(report);
}

static void send_denial(struct report *report, const struct report_denial *denial, uint64_t count)
{
	struct audit_event *event = &report->event;

	audit_event_begin(event, AUDIT_DENIAL);
	audit_event_text(event, AUDIT_FIELD_OPERATION, denial->operation);
	audit_event_text(event, AUDIT_FIELD_EXPORT, denial->export_name);
	put_path(report, AUDIT_FIELD_PATH, denial->path);
	put_path(report, AUDIT_FIELD_PATH2, denial->path2);
	audit_event_text(event, AUDIT_FIELD_RULE, denial->rule);
	audit_event_text(event, AUDIT_FIELD_REASON, denial->reason);
	audit_event_text(event, AUDIT_FIELD_HINT, denial->hint);
	audit_event_number(event, AUDIT_FIELD_COUNT, count);
	send_event(report);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static char *copy_text(const char *text)
{
	return text ? strdup(text) : NULL;
}

/* Remembers a denial that was just sent, in the place of the oldest kind if need be. */
static void merged_begin(struct report *report, const struct report_denial *denial)
{
	struct merged *place = &report->merged[0];

	for (size_t i = 0; i < MERGED_KINDS; i++) {
		struct merged *merged = &report->merged[i];

		if (!merged->denial.operation) {
			place = merged;
			break;
		}
		if (merged->since_ms < place->since_ms)
			place = merged;
	}
	if (place->denial.operation) {
		if (place->count > 0)
			send_denial(report, &place->denial, place->count);
		merged_clear(report, place);
	}
	place->denial.operation = copy_text(denial->operation);
	if (!place->denial.operation)
		return;
	place->denial.export_name = copy_text(denial->export_name);
	place->denial.path = copy_text(denial->path);
	place->denial.path2 = copy_text(denial->path2);
	place->denial.rule = copy_text(denial->rule);
	place->denial.reason = copy_text(denial->reason);
	place->denial.hint = copy_text(denial->hint);
	place->since_ms = clock_now_ms();
	report->waiting++;
}

void report_denial(struct report *report, const struct report_denial *denial)
{
	for (size_t i = 0; i < MERGED_KINDS; i++) {
		struct merged *merged = &report->merged[i];
		const struct report_denial *seen = &merged->denial;

		if (seen->operation && same_text(seen->operation, denial->operation) &&
		    same_text(seen->path, denial->path) && same_text(seen->rule, denial->rule) &&
		    same_text(seen->path2, denial->path2) &&
		    same_text(seen->export_name, denial->export_name)) {
			merged->count++;
			return;
		}
	}
	send_denial(report, denial, 1);
	merged_begin(report, denial);
}

void report_flush(struct report *report, bool all)
{
	uint64_t now = clock_now_ms();

	for (size_t i = 0; i < MERGED_KINDS; i++) {
		struct merged *merged = &report->merged[i];

		if (!merged->denial.operation || (!all && now - merged->since_ms < REPORT_MERGE_MS))
			continue;
		if (merged->count > 0)
			send_denial(report, &merged->denial, merged->count);
		merged_clear(report, merged);
	}
}

bool report_waits(const struct report *report)
{
	return report->waiting > 0;
}

static void send_detail(struct report *report, enum audit_kind kind, const char *detail)
{
	audit_event_begin(&report->event, kind);
	audit_event_text(&report->event, AUDIT_FIELD_COMPONENT, COMPONENT);
	audit_event_text(&report->event, AUDIT_FIELD_DETAIL, detail);
	send_event(report);
}

void report_violation(struct report *report, const char *detail)
{
	if (report->violations >= REPORT_VIOLATIONS_MAX)
		return;
	report->violations++;
	send_detail(report, AUDIT_VIOLATION, detail);
	if (report->violations == REPORT_VIOLATIONS_MAX)
		send_detail(report, AUDIT_VIOLATION, "further violations are not listed");
}

void report_notice(struct report *report, const char *detail)
{
	send_detail(report, AUDIT_NOTICE, detail);
}

void report_jail(struct report *report, const char *detail)
{
	send_detail(report, AUDIT_JAIL, detail);
}

void report_policy(struct report *report, const char *path, const char *sha256, uint64_t rules)
{
	audit_event_begin(&report->event, AUDIT_POLICY);
	audit_event_text(&report->event, AUDIT_FIELD_PATH, path);
	audit_event_text(&report->event, AUDIT_FIELD_SHA256, sha256);
	audit_event_number(&report->event, AUDIT_FIELD_RULES, rules);
	send_event(report);
}

void report_rollback(struct report *report, uint64_t restored, uint64_t removed, uint64_t kept,
		     uint64_t failed, const char *detail)
{
	audit_event_begin(&report->event, AUDIT_ROLLBACK);
	audit_event_number(&report->event, AUDIT_FIELD_RESTORED, restored);
	audit_event_number(&report->event, AUDIT_FIELD_REMOVED, removed);
	audit_event_number(&report->event, AUDIT_FIELD_KEPT, kept);
	audit_event_number(&report->event, AUDIT_FIELD_FAILED, failed);
	audit_event_text(&report->event, AUDIT_FIELD_DETAIL, detail);
	send_event(report);
}

int report_failed(const struct report *report)
{
	return report->failed;
}
