#include "wire/proxy_control.h"

#include "base/bytes.h"
#include "base/checked.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static const char *get_text(struct byte_reader *reader)
{
	uint32_t length = byte_reader_u32(reader);
	const uint8_t *bytes;

	if (length >= PROXY_CONTROL_MAX) {
		byte_reader_fail(reader);
		return "";
	}
	bytes = byte_reader_bytes(reader, (size_t)length + 1);
	if (!bytes || memchr(bytes, '\0', (size_t)length + 1) != bytes + length) {
		byte_reader_fail(reader);
		return "";
	}
	return (const char *)bytes;
}

static void put_text(struct byte_writer *writer, const char *text)
{
	size_t length = text ? strlen(text) : 0;

	/* Longer ones do not fit; a length that wrapped might. */
	if (length >= PROXY_CONTROL_MAX) {
		writer->failed = true;
		return;
	}
	byte_writer_u32(writer, (uint32_t)length);
	byte_writer_bytes(writer, text, length);
	byte_writer_u8(writer, 0);
}

static int judge(const struct proxy_control *message)
{
	bool named = message->name[0] != '\0';
	bool worded = message->text[0] != '\0';

	if (message->error != 0 && message->type != PROXY_CONTROL_RESULT)
		return -EBADMSG;
	switch (message->type) {
	case PROXY_CONTROL_PLACEHOLDER:
		return named && worded ? 0 : -EBADMSG;
	case PROXY_CONTROL_READY:
	case PROXY_CONTROL_ALLOW_ADD:
	case PROXY_CONTROL_ALLOW_REMOVE:
	case PROXY_CONTROL_FORWARD:
		return !named && worded ? 0 : -EBADMSG;
	case PROXY_CONTROL_RESULT:
		return !named ? 0 : -EBADMSG;
	case PROXY_CONTROL_ALLOW_LIST:
		return !named && !worded ? 0 : -EBADMSG;
	default:
		return -EBADMSG;
	}
}

int proxy_control_decode(const void *data, size_t length, struct proxy_control *ret_message)
{
	struct proxy_control message;
	struct byte_reader reader;
	uint16_t zero;

	if (length > PROXY_CONTROL_MAX)
		return -EBADMSG;
	byte_reader_init(&reader, data, length);
	message.type = (enum proxy_control_type)byte_reader_u16(&reader);
	zero = byte_reader_u16(&reader);
	message.error = byte_reader_u32(&reader);
	message.name = get_text(&reader);
	message.text = get_text(&reader);
	if (!byte_reader_done(&reader) || zero != 0 || judge(&message) < 0)
		return -EBADMSG;
	*ret_message = message;
	return 0;
}

size_t proxy_control_encode(void *buffer, size_t capacity, const struct proxy_control *message)
{
	struct byte_writer writer;

	byte_writer_init(&writer, buffer, MIN_OF(capacity, (size_t)PROXY_CONTROL_MAX));
	byte_writer_u16(&writer, (uint16_t)message->type);
	byte_writer_u16(&writer, 0);
	byte_writer_u32(&writer, message->error);
	put_text(&writer, message->name);
	put_text(&writer, message->text);
	return byte_writer_ok(&writer) ? writer.length : 0;
}
