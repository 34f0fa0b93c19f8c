#include "wire/audit.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static const char *const kind_names[] = {
	[AUDIT_SESSION_START] = "session_start",
	[AUDIT_POLICY] = "policy",
	[AUDIT_JAIL] = "jail",
	[AUDIT_EXEC] = "exec",
	[AUDIT_EXIT] = "exit",
	[AUDIT_MUTATION] = "mutation",
	[AUDIT_DENIAL] = "denial",
	[AUDIT_VIOLATION] = "violation",
	[AUDIT_ROLLBACK] = "rollback",
	[AUDIT_SESSION_END] = "session_end",
	[AUDIT_NOTICE] = "notice",
	[AUDIT_REQUEST] = "request",
	[AUDIT_CONNECTION] = "connection",
	[AUDIT_GRANT] = "grant",
	[AUDIT_CANARY] = "canary",
};

static const char *const field_names[] = {
	[AUDIT_FIELD_SESSION] = "session",
	[AUDIT_FIELD_COMMAND] = "command",
	[AUDIT_FIELD_WORKSPACE] = "workspace",
	[AUDIT_FIELD_ENGINE] = "engine",
	[AUDIT_FIELD_IMAGE] = "image",
	[AUDIT_FIELD_USER] = "user",
	[AUDIT_FIELD_PATH] = "path",
	[AUDIT_FIELD_PATH2] = "path2",
	[AUDIT_FIELD_SHA256] = "sha256",
	[AUDIT_FIELD_RULES] = "rules",
	[AUDIT_FIELD_COMPONENT] = "component",
	[AUDIT_FIELD_DETAIL] = "detail",
	[AUDIT_FIELD_CWD] = "cwd",
	[AUDIT_FIELD_PID] = "pid",
	[AUDIT_FIELD_STATUS] = "status",
	[AUDIT_FIELD_SIGNAL] = "signal",
	[AUDIT_FIELD_DURATION_NS] = "duration_ns",
	[AUDIT_FIELD_OPERATION] = "operation",
	[AUDIT_FIELD_BYTES] = "bytes",
	[AUDIT_FIELD_BEFORE] = "before",
	[AUDIT_FIELD_AFTER] = "after",
	[AUDIT_FIELD_EXPORT] = "export",
	[AUDIT_FIELD_MODE] = "mode",
	[AUDIT_FIELD_RULE] = "rule",
	[AUDIT_FIELD_REASON] = "reason",
	[AUDIT_FIELD_HINT] = "hint",
	[AUDIT_FIELD_COUNT] = "count",
	[AUDIT_FIELD_RESTORED] = "restored",
	[AUDIT_FIELD_REMOVED] = "removed",
	[AUDIT_FIELD_KEPT] = "kept",
	[AUDIT_FIELD_FAILED] = "failed",
	[AUDIT_FIELD_HOST] = "host",
	[AUDIT_FIELD_PORT] = "port",
	[AUDIT_FIELD_ADDRESS] = "address",
	[AUDIT_FIELD_PROTOCOL] = "protocol",
	[AUDIT_FIELD_METHOD] = "method",
	[AUDIT_FIELD_SENT] = "sent",
	[AUDIT_FIELD_RECEIVED] = "received",
	[AUDIT_FIELD_SECRETS] = "secrets",
};

/* Offset of the field count in the datagram. */
#define FIELD_COUNT_OFFSET 4

const char *audit_kind_name(enum audit_kind kind)
{
	return (size_t)kind < ARRAY_LENGTH(kind_names) ? kind_names[kind] : NULL;
}

const char *audit_field_name(enum audit_field field)
{
	return (size_t)field < ARRAY_LENGTH(field_names) ? field_names[field] : NULL;
}

void audit_event_begin(struct audit_event *event, enum audit_kind kind)
{
	byte_writer_init(&event->writer, event->data, sizeof(event->data));
	event->field_count = 0;
	byte_writer_u16(&event->writer, AUDIT_VERSION);
	byte_writer_u16(&event->writer, (uint16_t)kind);
	byte_writer_u32(&event->writer, 0);
}

static void put_field(struct audit_event *event, enum audit_field field, enum audit_type type,
		      uint32_t length)
{
	byte_writer_u16(&event->writer, (uint16_t)field);
	byte_writer_u16(&event->writer, (uint16_t)type);
	byte_writer_u32(&event->writer, length);
	event->field_count++;
}

void audit_event_number(struct audit_event *event, enum audit_field field, uint64_t value)
{
	put_field(event, field, AUDIT_TYPE_NUMBER, sizeof(value));
	byte_writer_u64(&event->writer, value);
}

void audit_event_bytes(struct audit_event *event, enum audit_field field, const void *data,
		       size_t length)
{
	length = MIN_OF(length, (size_t)AUDIT_TEXT_MAX);
	put_field(event, field, AUDIT_TYPE_TEXT, (uint32_t)length);
	byte_writer_bytes(&event->writer, data, length);
}

void audit_event_text(struct audit_event *event, enum audit_field field, const char *text)
{
	if (text)
		audit_event_bytes(event, field, text, strlen(text));
}

bool audit_event_finish(struct audit_event *event, const void **ret_data, size_t *ret_length)
{
	byte_writer_patch_u32(&event->writer, FIELD_COUNT_OFFSET, event->field_count);
	if (!byte_writer_ok(&event->writer) || event->field_count > AUDIT_FIELDS_MAX)
		return false;
	*ret_data = event->data;
	*ret_length = event->writer.length;
	return true;
}

int audit_event_send(struct audit_event *event, int socket)
{
	const void *data;
	size_t length;

	if (!audit_event_finish(event, &data, &length))
		return -EMSGSIZE;
	return audit_send(socket, data, length);
}

int audit_send(int socket, const void *data, size_t length)
{
	ssize_t sent;

	do {
		sent = send(socket, data, length, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

static bool decode_field(struct byte_reader *reader, struct audit_field_view *field)
{
	uint16_t id = byte_reader_u16(reader);
	uint16_t type = byte_reader_u16(reader);
	uint32_t length = byte_reader_u32(reader);

	if (!byte_reader_ok(reader) || !audit_field_name((enum audit_field)id))
		return false;
	*field = (struct audit_field_view){
		.field = (enum audit_field)id,
		.type = (enum audit_type)type,
	};
	if (type == AUDIT_TYPE_NUMBER && length == sizeof(uint64_t)) {
		field->number = byte_reader_u64(reader);
	} else if (type == AUDIT_TYPE_TEXT && length <= AUDIT_TEXT_MAX) {
		field->text = (const char *)byte_reader_bytes(reader, length);
		field->text_length = length;
	} else {
		return false;
	}
	return byte_reader_ok(reader);
}

int audit_event_decode(const void *data, size_t length, struct audit_event_view *ret_view)
{
	struct byte_reader reader;
	uint64_t seen = 0;
	uint16_t version;
	uint16_t kind;
	uint16_t field_count;

	byte_reader_init(&reader, data, length);
	version = byte_reader_u16(&reader);
	kind = byte_reader_u16(&reader);
	field_count = byte_reader_u16(&reader);
	if (byte_reader_u16(&reader) != 0 || !byte_reader_ok(&reader) || version != AUDIT_VERSION ||
	    !audit_kind_name((enum audit_kind)kind) || field_count > AUDIT_FIELDS_MAX)
		return -EBADMSG;
	for (uint16_t i = 0; i < field_count; i++) {
		uint64_t bit;

		if (!decode_field(&reader, &ret_view->fields[i]))
			return -EBADMSG;
		bit = UINT64_C(1) << ret_view->fields[i].field;
		if (seen & bit)
			return -EBADMSG;
		seen |= bit;
	}
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	ret_view->kind = (enum audit_kind)kind;
	ret_view->field_count = field_count;
	return 0;
}
