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
