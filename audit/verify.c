#include "audit/verify.h"

#include "audit/head.h"
#include "audit/line_reader.h"
#include "audit/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * Theory of operation. The head is read first and the log afterwards: a running writer
 * extends the log before the head, so that what the head counts must be in the log, and records
 * beyond it are only allowed while the log is not closed. The hash of line N is compared when line
 * N + 1 (or the head) tells what it should be; hence a changed record is found one line later.
 */
struct verification {
	struct line_reader *reader;
	struct digest *digest;
	const struct head *head;
	struct record record;
	uint64_t last; /* sequence number of the last line that parsed and linked */
	uint8_t last_hash[DIGEST_SIZE];
	enum audit_kind last_kind;
	struct verdict verdict;
};

static bool fail(struct verification *run, enum verdict_reason reason, uint64_t first_bad,
		 uint64_t found)
{
	run->verdict.reason = reason;
	run->verdict.first_bad = first_bad;
	run->verdict.found = found;
	return false;
}

/* Returns false when the verdict is settled. */
static bool check_line(struct verification *run, const struct line *line)
{
	uint64_t next = run->last + 1;
	uint8_t hash[DIGEST_SIZE];

	if (run->head->closed && run->last == run->head->sequence)
		return fail(run, VERDICT_AFTER_END, next, 0);
	if (line->state == LINE_TOO_LONG || record_parse(line->text, line->length, &run->record))
		return fail(run, VERDICT_PARSE, next, 0);
	if (run->record.sequence != next)
		return fail(run, VERDICT_SEQUENCE, next, run->record.sequence);
	if (memcmp(run->record.previous, run->last_hash, DIGEST_SIZE) != 0) {
		/* The first record has none before it: it is itself what changed. */
		return fail(run, VERDICT_LINK, run->last > 0 ? run->last : next, 0);
	}
	if (!digest_compute(run->digest, line->text, line->length, hash))
		return fail(run, VERDICT_PARSE, next, 0);
	if (next == run->head->sequence && memcmp(hash, run->head->hash, DIGEST_SIZE) != 0)
		return fail(run, VERDICT_LINK, next, 0);
	run->last = next;
	run->last_kind = run->record.kind;
	memcpy(run->last_hash, hash, DIGEST_SIZE);
	run->verdict.complete_bytes = line->offset + line->length + 1;
	return true;
}

static bool check_end(struct verification *run, const struct line *line)
{
	uint64_t next = run->last + 1;

	if (run->head->sequence > run->last) {
		if (line->state == LINE_PARTIAL)
			return fail(run, VERDICT_TRUNCATED, next, run->head->sequence);
		return fail(run, VERDICT_MISSING, next, run->head->sequence);
	}
	run->verdict.closed = run->head->closed;
	if (line->state == LINE_PARTIAL) {
		if (run->head->closed)
			return fail(run, VERDICT_AFTER_END, next, 0);
		run->verdict.incomplete_bytes = line->length;
	}
	if (run->head->closed && run->last_kind != AUDIT_SESSION_END)
		return fail(run, VERDICT_HEAD, run->last, 0);
	return true;
}

static int walk(struct verification *run)
{
	struct line line;
	int error;

	do {
		error = line_reader_next(run->reader, &line);
		if (error)
			return error;
		if (line.state == LINE_PARTIAL || line.state == LINE_NONE) {
			check_end(run, &line);
			break;
		}
	} while (check_line(run, &line));
	/* A record that its successor disowns is not among the intact ones. */
	run->verdict.records = run->verdict.reason == VERDICT_LINK && run->last > 0 &&
					       run->verdict.first_bad == run->last
				       ? run->last - 1
				       : run->last;
	memcpy(run->verdict.hash, run->last_hash, DIGEST_SIZE);
	return 0;
}

static int read_head(int head_fd, struct head *head)
{
	int error = -ENOENT;

	if (head_fd < 0)
		return error;
	/* A head that a writer is just replacing may be read half and half. */
	for (int attempt = 0; attempt < 3 && error; attempt++)
		error = head_read(head_fd, head);
	return error;
}

int verify_log(int log_fd, int head_fd, const uint8_t *expected, struct verdict *ret_verdict)
{
	struct head head = { 0 };
	struct verification run = { .head = &head };
	int head_error = read_head(head_fd, &head);
	int error = -ENOMEM;

	run.reader = line_reader_new(log_fd);
	run.digest = digest_new();
	if (run.reader && run.digest)
		error = walk(&run);
	line_reader_free(run.reader);
	digest_free(run.digest);
	if (error)
		return error;
	if (run.verdict.reason == VERDICT_INTACT && head_error)
		fail(&run, VERDICT_HEAD, run.last, 0);
	if (run.verdict.reason == VERDICT_INTACT && expected &&
	    memcmp(expected, run.verdict.hash, DIGEST_SIZE) != 0)
		fail(&run, VERDICT_EXPECTED, run.last, 0);
	*ret_verdict = run.verdict;
	return 0;
}

const char *verdict_reason_name(enum verdict_reason reason)
{
	static const char *const names[] = {
		[VERDICT_INTACT] = "intact",	   [VERDICT_PARSE] = "parse",
		[VERDICT_SEQUENCE] = "sequence",   [VERDICT_LINK] = "link",
		[VERDICT_TRUNCATED] = "truncated", [VERDICT_MISSING] = "missing",
		[VERDICT_HEAD] = "head",	   [VERDICT_EXPECTED] = "expected",
		[VERDICT_AFTER_END] = "after-end",
	};

	return names[reason];
}

static void reason_text(const struct verdict *verdict, char *text, size_t size)
{
	switch (verdict->reason) {
	case VERDICT_PARSE:
		snprintf(text, size, "the line is not a record");
		break;
	case VERDICT_SEQUENCE:
		snprintf(text, size, "record %" PRIu64 " stands in its place", verdict->found);
		break;
	case VERDICT_LINK:
		snprintf(text, size, "it does not have the hash that what follows it holds");
		break;
	case VERDICT_TRUNCATED:
		snprintf(text, size, "the file ends inside it; the head counts %" PRIu64 " records",
			 verdict->found);
		break;
	case VERDICT_MISSING:
		snprintf(text, size, "it is missing; the head counts %" PRIu64 " records",
			 verdict->found);
		break;
	case VERDICT_HEAD:
		snprintf(text, size, "no head file vouches for the end of the log here");
		break;
	case VERDICT_EXPECTED:
		snprintf(text, size, "it is the last and does not have the expected hash");
		break;
	case VERDICT_AFTER_END:
		snprintf(text, size, "it follows the end of a closed log");
		break;
	case VERDICT_INTACT:
	default:
		snprintf(text, size, "intact");
	}
}

void verdict_text(const struct verdict *verdict, char *text, size_t size)
{
	char reason[128];

	if (verdict->reason != VERDICT_INTACT) {
		reason_text(verdict, reason, sizeof(reason));
		snprintf(text, size,
			 "record %" PRIu64 " is bad: %s (%s); %" PRIu64 " records before it "
			 "are intact",
			 verdict->first_bad, reason, verdict_reason_name(verdict->reason),
			 verdict->records < verdict->first_bad ? verdict->records
							       : verdict->first_bad);
	} else if (verdict->closed) {
		snprintf(text, size, "%" PRIu64 " records, intact", verdict->records);
	} else if (verdict->incomplete_bytes) {
		snprintf(text, size,
			 "%" PRIu64 " records, intact; not closed, and %" PRIu64
			 " bytes of an incomplete record follow: the writer was killed or is "
			 "writing",
			 verdict->records, verdict->incomplete_bytes);
	} else {
		snprintf(text, size,
			 "%" PRIu64
			 " records, intact; not closed: the session runs or its writer was killed",
			 verdict->records);
	}
}
