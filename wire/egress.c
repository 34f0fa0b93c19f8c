#include "wire/egress.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

int egress_decode_hello(const void *data, struct egress_target *ret_target)
{
	static const uint8_t zeros[12];
	struct byte_reader reader;
	struct egress_target target;
	uint32_t magic;
	uint8_t zero;

	byte_reader_init(&reader, data, EGRESS_HELLO_SIZE);
	magic = byte_reader_u32(&reader);
	target.family = byte_reader_u8(&reader);
	zero = byte_reader_u8(&reader);
	target.port = byte_reader_u16(&reader);
	byte_reader_copy(&reader, target.address, sizeof(target.address));
	if (magic != EGRESS_HELLO_MAGIC || zero != 0 || target.port == 0 ||
	    (target.family != 4 && target.family != 6))
		return -EBADMSG;
	if (target.family == 4 && memcmp(target.address + 4, zeros, sizeof(zeros)) != 0)
		return -EBADMSG;
	*ret_target = target;
	return 0;
}

void egress_encode_hello(void *buffer, const struct egress_target *target)
{
	struct byte_writer writer;

	byte_writer_init(&writer, buffer, EGRESS_HELLO_SIZE);
	byte_writer_u32(&writer, EGRESS_HELLO_MAGIC);
	byte_writer_u8(&writer, target->family);
	byte_writer_u8(&writer, 0);
	byte_writer_u16(&writer, target->port);
	byte_writer_bytes(&writer, target->address, sizeof(target->address));
}
