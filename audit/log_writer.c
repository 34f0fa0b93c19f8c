#include "audit/log_writer.h"

#include "audit/head.h"
#include "audit/record.h"
#include "audit/verify.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Who may use how much of the file. */
enum quota_class {
	QUOTA_MUTATION,
	QUOTA_TRAFFIC,
	QUOTA_FINDING,
	QUOTA_SESSION,
	QUOTA_CLASSES,
};

struct log_writer {
	int log_fd;
	int head_fd;
	struct digest *digest;
	struct record_encoder *encoder;
	struct head head; /* of the last record added; the file's is older until a flush */
	uint64_t bytes;	  /* size of the file with the batch */
	uint64_t limits[QUOTA_CLASSES];
	uint64_t kept_out[QUOTA_CLASSES];
	bool has_end;
	size_t end_length;
	uint8_t end_event[AUDIT_EVENT_MAX];
	struct audit_event own_event;
	struct byte_writer batch;
	uint8_t batch_data[BATCH_SIZE + RECORD_LINE_MAX];
};

static const char *const class_names[] = {
	[QUOTA_MUTATION] = "mutations",
	[QUOTA_TRAFFIC] = "requests and connections",
	[QUOTA_FINDING] = "denials, violations and notices",
	[QUOTA_SESSION] = "session records",
};

static enum quota_class class_of(enum audit_kind kind)
{
	switch (kind) {
	case AUDIT_MUTATION:
		return QUOTA_MUTATION;
	case AUDIT_REQUEST:
	case AUDIT_CONNECTION:
		return QUOTA_TRAFFIC;
	case AUDIT_SESSION_START:
	case AUDIT_SESSION_END:
	case AUDIT_EXIT:
	case AUDIT_ROLLBACK:
	/* Who used a decoy may have flooded the log with other denials before. */
	case AUDIT_CANARY:
		return QUOTA_SESSION;
	case AUDIT_POLICY:
	case AUDIT_JAIL:
	case AUDIT_EXEC:
	case AUDIT_DENIAL:
	case AUDIT_VIOLATION:
	case AUDIT_NOTICE:
	case AUDIT_GRANT:
	default:
		return QUOTA_FINDING;
	}
}

/* ---- opening ------------------------------------------------------------------------------- */

static int open_plain_file(int directory_fd, const char *name, int flags)
{
	cleanup_fd int fd = openat(directory_fd, name,
				   flags | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	struct stat status;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() || status.st_nlink != 1)
		return -EPERM;
	if (fchmod(fd, 0600) < 0)
		return -errno;
	return steal_fd(&fd);
}

static int continue_log(struct log_writer *writer, uint64_t size, uint64_t *ret_cut,
			char *explanation)
{
	struct verdict verdict;
	int error;

	if (lseek(writer->log_fd, 0, SEEK_SET) < 0)
		return -errno;
	error = verify_log(writer->log_fd, writer->head_fd, NULL, &verdict);
	if (error)
		return error;
	if (verdict.reason != VERDICT_INTACT) {
		verdict_text(&verdict, explanation, 256);
		return -EBADMSG;
	}
	*ret_cut = size - verdict.complete_bytes;
	if (*ret_cut > 0 && ftruncate(writer->log_fd, (off_t)verdict.complete_bytes) < 0)
		return -errno;
	writer->bytes = verdict.complete_bytes;
	writer->head.sequence = verdict.records;
	memcpy(writer->head.hash, verdict.hash, DIGEST_SIZE);
	return 0;
}

static int open_files(struct log_writer *writer, int directory_fd, uint64_t *ret_cut,
		      char *explanation)
{
	struct stat status;
	int error;

	writer->log_fd = open_plain_file(directory_fd, LOG_NAME, O_RDWR | O_APPEND);
	if (writer->log_fd < 0)
		return writer->log_fd;
	if (flock(writer->log_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(writer->log_fd, &status) < 0)
		return -errno;
	/* A head without a log, or a log without a head, is for continue_log() to refuse. */
	writer->head_fd = openat(directory_fd, HEAD_NAME, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (writer->head_fd < 0 && errno != ENOENT)
		return -errno;
	if (status.st_size > 0 || writer->head_fd >= 0) {
		error = continue_log(writer, (uint64_t)status.st_size, ret_cut, explanation);
		if (error)
			return error;
	}
	if (writer->head_fd >= 0)
		close(writer->head_fd);
	writer->head_fd = open_plain_file(directory_fd, HEAD_NAME, O_RDWR);
	if (writer->head_fd < 0)
		return writer->head_fd;
	return head_write(writer->head_fd, &writer->head);
}

static struct log_writer *allocate(uint64_t max_bytes)
{
	struct log_writer *writer = malloc(sizeof(*writer));
	uint64_t reserve = MAX_OF(max_bytes / 16, RESERVE_MIN);

	if (!writer)
		return NULL;
	/* All but the large buffers, whose pages are first touched when they are used. */
	memset(writer, 0, offsetof(struct log_writer, end_event));
	writer->log_fd = -1;
	writer->head_fd = -1;
	writer->limits[QUOTA_MUTATION] = max_bytes;
	writer->limits[QUOTA_TRAFFIC] = max_bytes;
	writer->limits[QUOTA_FINDING] = max_bytes + reserve / 2;
	writer->limits[QUOTA_SESSION] = max_bytes + reserve;
	byte_writer_init(&writer->batch, writer->batch_data, sizeof(writer->batch_data));
	writer->digest = digest_new();
	writer->encoder = record_encoder_new();
	if (!writer->digest || !writer->encoder) {
		log_writer_free(writer);
		return NULL;
	}
	return writer;
}

int log_writer_open(int directory_fd, uint64_t max_bytes, struct log_writer **ret_writer,
		    char *explanation)
{
	struct log_writer *writer;
	uint64_t cut = 0;
	int error;

	explanation[0] = '\0';
	if (max_bytes < LOG_MAX_BYTES_LEAST || max_bytes > INT64_MAX / 2)
		return -EINVAL;
	writer = allocate(max_bytes);
	if (!writer)
		return -ENOMEM;
	error = open_files(writer, directory_fd, &cut, explanation);
	if (!error && cut > 0) {
		char detail[128];

		snprintf(detail, sizeof(detail),
			 "cut off %" PRIu64 " bytes of an incomplete record", cut);
		error = log_writer_note(writer, AUDIT_NOTICE, detail);
	}
	if (error) {
		log_writer_free(writer);
		return error;
	}
	*ret_writer = writer;
	return 0;
}

void log_writer_free(struct log_writer *writer)
{
	if (!writer)
		return;
	if (writer->log_fd >= 0)
		close(writer->log_fd);
	if (writer->head_fd >= 0)
		close(writer->head_fd);
	digest_free(writer->digest);
	record_encoder_free(writer->encoder);
	free(writer);
}

int log_writer_log_fd(const struct log_writer *writer)
{
	return writer->log_fd;
}

int log_writer_head_fd(const struct log_writer *writer)
{
	return writer->head_fd;
}

/* ---- writing ------------------------------------------------------------------------------- */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec time = { 0 };

	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int log_writer_flush(struct log_writer *writer)
{
	int error;

	if (writer->batch.length == 0)
		return 0;
	error = write_full(writer->log_fd, writer->batch.data, writer->batch.length);
	byte_writer_init(&writer->batch, writer->batch_data, sizeof(writer->batch_data));
	return error ? error : head_write(writer->head_fd, &writer->head);
}

static int append(struct log_writer *writer, const struct audit_event_view *event)
{
	const struct record_stamp stamp = {
		.sequence = writer->head.sequence + 1,
		.monotonic_ns = clock_ns(CLOCK_MONOTONIC),
		.realtime_ns = clock_ns(CLOCK_REALTIME),
		.previous = writer->head.hash,
	};
	size_t start = writer->batch.length;
	size_t length;

	record_encode(writer->encoder, event, &stamp, &writer->batch);
	if (!byte_writer_ok(&writer->batch))
		return -EMSGSIZE;
	length = writer->batch.length - start;
	if (!digest_compute(writer->digest, writer->batch.data + start, length - 1,
			    writer->head.hash))
		return -EIO;
	writer->head.sequence++;
	writer->bytes += length;
	return writer->batch.length >= BATCH_SIZE ? log_writer_flush(writer) : 0;
}

/* Beside the quota. */
static int append_own(struct log_writer *writer, enum audit_kind kind, const char *detail)
{
	struct audit_event_view view;
	const void *data;
	size_t length;

	audit_event_begin(&writer->own_event, kind);
	audit_event_text(&writer->own_event, AUDIT_FIELD_COMPONENT, "audit");
	audit_event_text(&writer->own_event,
			 kind == AUDIT_SESSION_END ? AUDIT_FIELD_REASON : AUDIT_FIELD_DETAIL,
			 detail);
	if (!audit_event_finish(&writer->own_event, &data, &length) ||
	    audit_event_decode(data, length, &view))
		return -EINVAL;
	return append(writer, &view);
}

/* Returns whether the record may be written; otherwise it has been counted. */
static bool within_quota(struct log_writer *writer, enum quota_class class, int *ret_error)
{
	char detail[160];

	*ret_error = 0;
	if (writer->bytes < writer->limits[class])
		return true;
	if (writer->kept_out[class]++ == 0) {
		snprintf(detail, sizeof(detail),
			 "log quota of %" PRIu64 " bytes reached: %s are only counted from here on",
			 writer->limits[class], class_names[class]);
		*ret_error = append_own(writer, AUDIT_NOTICE, detail);
	}
	return false;
}

/* The event outlives the datagram it came in. */
static int keep_end(struct log_writer *writer, const struct audit_event_view *event)
{
	if (writer->has_end)
		return -EEXIST;
	audit_event_begin(&writer->own_event, AUDIT_SESSION_END);
	for (uint16_t i = 0; i < event->field_count; i++) {
		const struct audit_field_view *field = &event->fields[i];

		if (field->type == AUDIT_TYPE_NUMBER)
			audit_event_number(&writer->own_event, field->field, field->number);
		else
			audit_event_bytes(&writer->own_event, field->field, field->text,
					  field->text_length);
	}
	const void *data;
	size_t length;

	if (!audit_event_finish(&writer->own_event, &data, &length))
		return -EMSGSIZE;
	memcpy(writer->end_event, data, length);
	writer->end_length = length;
	writer->has_end = true;
	return 0;
}

int log_writer_add(struct log_writer *writer, const struct audit_event_view *event)
{
	int error;

	if (event->kind == AUDIT_SESSION_END)
		return keep_end(writer, event);
	if (!within_quota(writer, class_of(event->kind), &error))
		return error;
	return append(writer, event);
}

int log_writer_note(struct log_writer *writer, enum audit_kind kind, const char *detail)
{
	int error;

	if (!within_quota(writer, class_of(kind), &error))
		return error;
	return append_own(writer, kind, detail);
}

static int flush_to_disk(struct log_writer *writer)
{
	int error = log_writer_flush(writer);

	if (!error && (fdatasync(writer->log_fd) < 0 || fdatasync(writer->head_fd) < 0))
		error = -errno;
	return error;
}

static int summarise(struct log_writer *writer)
{
	for (int i = 0; i < QUOTA_CLASSES; i++) {
		char detail[160];
		int error;

		if (writer->kept_out[i] == 0)
			continue;
		snprintf(detail, sizeof(detail), "log quota: %" PRIu64 " %s were not written",
			 writer->kept_out[i], class_names[i]);
		error = append_own(writer, AUDIT_NOTICE, detail);
		if (error)
			return error;
	}
	return 0;
}

static int append_end(struct log_writer *writer)
{
	struct audit_event_view view;

	if (!writer->has_end)
		return append_own(writer, AUDIT_SESSION_END,
				  "all producers ended without announcing the end of the session");
	if (audit_event_decode(writer->end_event, writer->end_length, &view))
		return -EINVAL;
	return append(writer, &view);
}

int log_writer_close(struct log_writer *writer)
{
	int error = summarise(writer);

	if (!error)
		error = append_end(writer);
	if (error)
		return error;
	/* The flush writes the head; it must not say "closed" before the last record is there,
	 * and it does not: the log comes first. */
	writer->head.closed = true;
	return flush_to_disk(writer);
}

uint64_t log_writer_records(const struct log_writer *writer)
{
	return writer->head.sequence;
}
