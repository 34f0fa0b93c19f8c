#include "proxy/client_hello.h"

#include "base/bytes.h"
#include "proxy/tls.h"

#include <errno.h>
#include <string.h>

#define NAME_TYPE_HOST 0

/* A length in network order, and that many bytes. */
static struct byte_reader read_vector(struct byte_reader *reader, size_t length_size)
{
	size_t length = byte_reader_u8(reader);

	if (length_size == 2)
		length = length << 8 | byte_reader_u8(reader);
	return byte_reader_slice(reader, length);
}

int client_hello_server_name(const uint8_t *data, size_t length, struct host_name *ret_name)
{
	struct byte_reader reader;
	struct byte_reader list;
	struct byte_reader name;
	uint8_t type;

	byte_reader_init(&reader, data, length);
	list = read_vector(&reader, 2);
	type = byte_reader_u8(&list);
	name = read_vector(&list, 2);
	if (!byte_reader_done(&reader) || !byte_reader_done(&list) || type != NAME_TYPE_HOST)
		return -EBADMSG;
	return host_name_parse((const char *)name.data, name.length, ret_name);
}

unsigned client_hello_protocols(const uint8_t *data, size_t length)
{
	struct byte_reader reader;
	struct byte_reader list;
	unsigned protocols = 0;

	byte_reader_init(&reader, data, length);
	list = read_vector(&reader, 2);
	while (byte_reader_remaining(&list) > 0) {
		struct byte_reader name = read_vector(&list, 1);

		if (!byte_reader_ok(&list) || name.length == 0)
			return 0;
		if (name.length == 2 && memcmp(name.data, "h2", 2) == 0)
			protocols |= TLS_PROTOCOL_HTTP2;
		else if (name.length == 8 && memcmp(name.data, "http/1.1", 8) == 0)
			protocols |= TLS_PROTOCOL_HTTP1;
	}
	return byte_reader_done(&reader) && byte_reader_ok(&list) ? protocols : 0;
}

#define RECORD_HANDSHAKE 22
#define MESSAGE_CLIENT_HELLO 1
#define EXTENSION_SERVER_NAME 0
#define RANDOM_SIZE 32u

static uint16_t read_u16(struct byte_reader *reader)
{
	uint16_t high = byte_reader_u8(reader);

	return (uint16_t)(high << 8 | byte_reader_u8(reader));
}

static int find_server_name(struct byte_reader *extensions, struct host_name *ret_name)
{
	const uint8_t *found = NULL;
	size_t found_length = 0;

	while (byte_reader_remaining(extensions) > 0) {
		uint16_t type = read_u16(extensions);
		struct byte_reader data = read_vector(extensions, 2);

		if (!byte_reader_ok(extensions))
			return -EBADMSG;
		if (type != EXTENSION_SERVER_NAME)
			continue;
		/* The server might take the other one. */
		if (found)
			return -EBADMSG;
		found = data.data;
		found_length = data.length;
	}
	return found ? client_hello_server_name(found, found_length, ret_name) : -ENOENT;
}

/* The message's body, up to its extensions. */
static int parse_message(struct byte_reader *message, struct host_name *ret_name)
{
	struct byte_reader extensions;

	(void)read_u16(message);
	(void)byte_reader_bytes(message, RANDOM_SIZE);
	(void)read_vector(message, 1); /* session */
	(void)read_vector(message, 2); /* cipher suites */
	(void)read_vector(message, 1); /* compression */
	if (!byte_reader_ok(message))
		return -EBADMSG;
	if (byte_reader_remaining(message) == 0)
		return -ENOENT;
	extensions = read_vector(message, 2);
	if (!byte_reader_done(message))
		return -EBADMSG;
	return find_server_name(&extensions, ret_name);
}

int client_hello_record(const uint8_t *data, size_t length, struct host_name *ret_name)
{
	struct byte_reader reader;
	struct byte_reader record;
	struct byte_reader message;
	size_t record_length;

	if (length > 0 && data[0] != RECORD_HANDSHAKE)
		return -EBADMSG;
	if (length < 5)
		return -EAGAIN;
	record_length = (size_t)data[3] << 8 | data[4];
	if (record_length > CLIENT_HELLO_RECORD_MAX - 5)
		return -EBADMSG;
	if (length < 5 + record_length)
		return -EAGAIN;
	byte_reader_init(&reader, data + 5, record_length);
	record = reader;
	if (byte_reader_u8(&record) != MESSAGE_CLIENT_HELLO || byte_reader_u8(&record) != 0)
		return -EBADMSG;
	message = read_vector(&record, 2);
	/* A message over several records, or another behind it. */
	if (!byte_reader_done(&record))
		return -EBADMSG;
	return parse_message(&message, ret_name);
}
