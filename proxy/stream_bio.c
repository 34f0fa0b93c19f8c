#include "proxy/stream_bio.h"

#include <errno.h>

/* What OpenSSL wants to hear of a result of stream_receive() or stream_transmit(). */
static int result_of(BIO *bio, ssize_t count, int retry_flag)
{
	if (count >= 0)
		return (int)count;
	if (count == -EAGAIN)
		BIO_set_flags(bio, retry_flag | BIO_FLAGS_SHOULD_RETRY);
	errno = (int)-count;
	return -1;
}

static int read_bytes(BIO *bio, char *buffer, int length)
{
	BIO_clear_retry_flags(bio);
	if (length <= 0)
		return 0;
	return result_of(bio, stream_receive(BIO_get_data(bio), buffer, (size_t)length),
			 BIO_FLAGS_READ);
}

static int write_bytes(BIO *bio, const char *data, int length)
{
	BIO_clear_retry_flags(bio);
	if (length <= 0)
		return 0;
	return result_of(bio, stream_transmit(BIO_get_data(bio), data, (size_t)length),
			 BIO_FLAGS_WRITE);
}

static long control(BIO *bio, int command, long number, void *pointer)
{
	const struct stream *stream = BIO_get_data(bio);

	(void)number;
	(void)pointer;
	if (command == BIO_CTRL_EOF)
		return stream->transport_ended;
	return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *stream_bio_method_new(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");

	if (!method)
		return NULL;
	BIO_meth_set_read(method, read_bytes);
	BIO_meth_set_write(method, write_bytes);
	BIO_meth_set_ctrl(method, control);
	return method;
}

BIO *stream_bio_new(const BIO_METHOD *method, struct stream *stream)
{
	BIO *bio = BIO_new(method);

	if (!bio)
		return NULL;
	BIO_set_data(bio, stream);
	BIO_set_init(bio, 1);
	return bio;
}
