#include "proxy/stream.h"

#include "base/checked.h"
#include "proxy/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)
/* A record of TLS has up to 16 KiB (RFC 8446, 5.1); so many go out in one call, because each call
 * wakes the peer, which often takes the processor. */
#define BATCH_RECORDS 4u
#define BATCH_MAX (BATCH_RECORDS * SSL3_RT_MAX_PLAIN_LENGTH)

/* A download is one that has had so many bytes. */
#define DEEP_AFTER (1u << 20)
/* The kernel doubles it for its own needs, and allows no more than net.core.wmem_max (socket(7)).
 */
#define DEEP_SIZE (1 << 20)

/* Records on their way. The library has made them and never makes them again, so that all of them
 * go before anything else does; their user is told of its bytes when the last one is gone. */
struct stream_batch {
	size_t plain; /* the user's bytes in it */
	size_t begin;
	size_t end;
	uint8_t records[BATCH_RECORDS * SSL3_RT_MAX_PACKET_SIZE];
};

static void on_events(struct event_source *source, uint32_t events)
{
	struct stream *stream = (struct stream *)source;

	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		stream->can_read = true;
		stream->is_drained = false;
	}
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		stream->is_ending = true;
	stream->ready(stream);
}

int stream_init(struct stream *stream, struct event_loop *loop, int fd,
		void (*ready)(struct stream *stream))
{
	int error;

	*stream = (struct stream){
		.source = { .ready = on_events, .fd = fd },
		.loop = loop,
		.ready = ready,
		.can_read = true,
	};
	error = event_loop_add(loop, &stream->source, READ_EVENTS);
	if (error) {
		close(fd);
		stream->source.fd = -1;
	}
	return error;
}

void stream_set_tls(struct stream *stream, SSL *ssl)
{
	stream->ssl = ssl;
	stream->can_read = true;
}

int stream_fd(const struct stream *stream)
{
	return stream->source.fd;
}

static bool is_open(const struct stream *stream)
{
	return stream->loop && stream->source.fd >= 0;
}

static void end_batch(struct stream *stream)
{
	free(stream->batch);
	stream->batch = NULL;
}

static void release(struct stream *stream)
{
	event_loop_remove(stream->loop, &stream->source);
	tls_end(stream->ssl);
	stream->ssl = NULL;
	end_batch(stream);
	if (stream->is_deep)
		(*stream->deep_left)++;
	stream->is_deep = false;
	close(stream->source.fd);
	stream->source.fd = -1;
	stream->failed = true;
}

/* Bytes that nobody read would make a reset of it. */
void stream_release(struct stream *stream)
{
	uint8_t waste[1024];

	if (!is_open(stream))
		return;
	if (!stream->is_ending)
		(void)recv(stream->source.fd, waste, sizeof(waste), MSG_DONTWAIT);
	release(stream);
}

void stream_reset(struct stream *stream)
{
	const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	if (!is_open(stream))
		return;
	/* Fails on what is no TCP, where closing with unread bytes says the same. */
	(void)setsockopt(stream->source.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	release(stream);
}

static int await_write(struct stream *stream, bool wanted)
{
	if (stream->awaits_write == wanted)
		return 0;
	stream->awaits_write = wanted;
	return event_loop_modify(stream->loop, &stream->source,
				 READ_EVENTS | (wanted ? EPOLLOUT : 0));
}

/* The library tells failures by its queue of errors, which takes long to clear and mostly is empty.
 */
static void clear_errors(void)
{
	if (ERR_peek_error() != 0)
		ERR_clear_error();
}

/* What a failed call of the library comes to; `result` is what it returned. */
static int tls_error(struct stream *stream, int result)
{
	int saved = errno;
	int error = SSL_get_error(stream->ssl, result);

	switch (error) {
	case SSL_ERROR_WANT_READ:
		stream->can_read = false;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		return await_write(stream, true) < 0 ? -EIO : -EAGAIN;
	case SSL_ERROR_WANT_CLIENT_HELLO_CB:
		return -EINPROGRESS;
	case SSL_ERROR_ZERO_RETURN:
		stream->read_ended = true;
		return 0;
	default:
		stream->failed = true;
		return error == SSL_ERROR_SYSCALL && saved == ECONNRESET ? -ECONNRESET : -EPROTO;
	}
}

int stream_handshake(struct stream *stream)
{
	int result;

	if (!stream->ssl || SSL_is_init_finished(stream->ssl))
		return 0;
	if (stream->failed)
		return -EPROTO;
	clear_errors();
	errno = 0;
	result = SSL_do_handshake(stream->ssl);
	if (result == 1) {
		/* What came with the last flight is in the library already. */
		stream->can_read = true;
		return await_write(stream, false);
	}
	result = tls_error(stream, result);
	return result ? result : -ECONNRESET;
}

/* Less than was asked for is all there is: what comes later, brings an event (epoll(7), question
 * 9). The end is an event of its own, which may have come already. */
ssize_t stream_receive(struct stream *stream, void *buffer, size_t length)
{
	ssize_t count;

	if (stream->is_drained)
		return -EAGAIN;
	do {
		count = recv(stream->source.fd, buffer, length, 0);
	} while (count < 0 && errno == EINTR);
	if (count < 0)
		return -errno;
	if (count == 0)
		stream->transport_ended = true;
	stream->is_drained = (size_t)count < length && !stream->is_ending;
	return count;
}

static ssize_t plain_read(struct stream *stream, void *buffer, size_t length)
{
	ssize_t count = stream_receive(stream, buffer, length);

	if (count == 0)
		stream->read_ended = true;
	else if (count == -EAGAIN)
		stream->can_read = false;
	else if (count < 0)
		stream->failed = true;
	return count;
}

ssize_t stream_read(struct stream *stream, void *buffer, size_t length)
{
	size_t count;
	int result;

	if (stream->failed)
		return -EPIPE;
	if (stream->read_ended)
		return 0;
	if (!stream->ssl)
		return plain_read(stream, buffer, length);
	clear_errors();
	errno = 0;
	result = SSL_read_ex(stream->ssl, buffer, length, &count);
	if (result != 1)
		return tls_error(stream, result);
	/* Spares the library a look for what is not there. */
	if (stream->is_drained && !SSL_has_pending(stream->ssl))
		stream->can_read = false;
	return (ssize_t)count;
}

void stream_may_deepen(struct stream *stream, unsigned *left)
{
	stream->deep_left = left;
}

static void deepen(struct stream *stream)
{
	const int size = DEEP_SIZE;

	stream->is_deep = true;
	(*stream->deep_left)--;
	(void)setsockopt(stream->source.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static ssize_t transmit(struct stream *stream, const void *data, size_t length)
{
	ssize_t count;

	do {
		count = send(stream->source.fd, data, length, MSG_NOSIGNAL);
	} while (count < 0 && errno == EINTR);
	if (count == 0)
		return -EAGAIN;
	if (count < 0)
		return -errno;
	stream->written += (uint64_t)count;
	if (stream->written > DEEP_AFTER && !stream->is_deep && stream->deep_left &&
	    *stream->deep_left > 0)
		deepen(stream);
	return count;
}

/* Returns how much of it has room. */
static ssize_t add_to_batch(struct stream_batch *batch, const void *data, size_t length)
{
	length = MIN_OF(length, sizeof(batch->records) - batch->end);
	if (length == 0)
		return -EAGAIN;
	memcpy(batch->records + batch->end, data, length);
	batch->end += length;
	return (ssize_t)length;
}

/* 0 when all of it is gone. */
static int transmit_batch(struct stream *stream)
{
	struct stream_batch *batch = stream->batch;

	while (batch->begin < batch->end) {
		ssize_t count =
			transmit(stream, batch->records + batch->begin, batch->end - batch->begin);

		if (count < 0)
			return (int)count;
		batch->begin += (size_t)count;
	}
	return 0;
}

ssize_t stream_transmit(struct stream *stream, const void *data, size_t length)
{
	int error;

	if (stream->fills_batch)
		return add_to_batch(stream->batch, data, length);
	error = stream->batch ? transmit_batch(stream) : 0;
	return error ? error : transmit(stream, data, length);
}

static ssize_t plain_write(struct stream *stream, const void *data, size_t length)
{
	ssize_t count = stream_transmit(stream, data, length);

	if (count == -EAGAIN)
		return await_write(stream, true) < 0 ? -EIO : -EAGAIN;
	if (count < 0)
		stream->failed = true;
	return count;
}

/* Of up to one record; more is left. */
static ssize_t write_record(struct stream *stream, const uint8_t *data, size_t length)
{
	size_t count = 0;
	int result;

	clear_errors();
	errno = 0;
	result = SSL_write_ex(stream->ssl, data, length, &count);
	if (result == 1)
		return (ssize_t)count;
	result = tls_error(stream, result);
	return result ? result : -EPIPE;
}

/* 0, or the failure that ended it early. */
static ssize_t fill_batch(struct stream *stream, const uint8_t *data, size_t length)
{
	struct stream_batch *batch = stream->batch;
	ssize_t count = 1;

	length = MIN_OF(length, (size_t)BATCH_MAX);
	stream->fills_batch = true;
	while (batch->plain < length && count > 0) {
		count = write_record(stream, data + batch->plain, length - batch->plain);
		batch->plain += count > 0 ? (size_t)count : 0;
	}
	stream->fills_batch = false;
	return MIN_OF(count, 0);
}

/* The user's bytes that are gone with it, or an error. */
static ssize_t finish_batch(struct stream *stream)
{
	int error = transmit_batch(stream);
	size_t plain = stream->batch->plain;

	if (error == -EAGAIN)
		return await_write(stream, true) < 0 ? -EIO : -EAGAIN;
	end_batch(stream);
	if (error)
		stream->failed = true;
	return error ? error : (ssize_t)plain;
}

static ssize_t tls_write(struct stream *stream, const uint8_t *data, size_t length)
{
	ssize_t failure = 0;
	ssize_t count;

	if (!stream->batch && length > SSL3_RT_MAX_PLAIN_LENGTH) {
		stream->batch = malloc(sizeof(*stream->batch));
		if (stream->batch) {
			stream->batch->plain = stream->batch->begin = stream->batch->end = 0;
			failure = fill_batch(stream, data, length);
		}
	}
	if (!stream->batch)
		return write_record(stream, data, length);
	count = finish_batch(stream);
	if (count != 0)
		return count;
	return failure ? failure : write_record(stream, data, length);
}

ssize_t stream_write(struct stream *stream, const void *data, size_t length)
{
	ssize_t result;

	if (stream->failed || stream->write_ended)
		return -EPIPE;
	result = stream->ssl ? tls_write(stream, data, length) : plain_write(stream, data, length);
	if (result > 0 && stream->awaits_write)
		(void)await_write(stream, false);
	return result;
}

void stream_end_write(struct stream *stream)
{
	if (stream->failed || stream->write_ended)
		return;
	stream->write_ended = true;
	if (stream->ssl) {
		clear_errors();
		(void)SSL_shutdown(stream->ssl);
	}
	(void)shutdown(stream->source.fd, SHUT_WR);
}

void stream_poke(struct stream *stream)
{
	/* A change of what is asked for brings the edge once more, and there is room to write. */
	if (stream->source.fd >= 0) {
		stream->awaits_write = true;
		(void)event_loop_modify(stream->loop, &stream->source, READ_EVENTS | EPOLLOUT);
	}
}

bool stream_can_read(const struct stream *stream)
{
	return stream->can_read && !stream->read_ended && !stream->failed;
}
