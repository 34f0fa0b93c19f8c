#include "guest-fused/stream.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

/* A whole reply has credit when its request is sent. */
#define VSOCK_BUFFER_SIZE (2u * FS_DATA_MAX)
/* What is still to come of a reply is waited for as a whole from this size on, in parts so large.
 */
#define WAIT_LEAST 16384u
#define WAIT_MOST 262144u
/* Where nobody listens the host refuses at once; a host that is busy is waited for. The kernel's
 * own limit is two seconds. */
#define CONNECT_SECONDS 60

/* A reply over a channel is looked for so long before its thread sleeps; the clock is read once in
 * so many looks. */
#define LOOK_NS 150000u
#define LOOKS_AT_ONCE 64u

void fused_stream_init(struct fused_stream *stream)
{
	memset(stream, 0, sizeof(*stream));
	stream->fd = -1;
}

static int connect_vsock(uint32_t port, int *ret_fd)
{
	const struct timeval limit = { .tv_sec = CONNECT_SECONDS };
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_HOST,
		.svm_port = port,
	};
	uint64_t size = VSOCK_BUFFER_SIZE;
	cleanup_fd int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit, sizeof(limit)) != 0)
		return -errno;
	/* With a smaller window wait_for() could wait for what has no credit. */
	if (setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &size, sizeof(size)) != 0 ||
	    setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, sizeof(size)) != 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		return -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int connect_unix(const char *path, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(path);
	cleanup_fd int fd = -1;

	if (length >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, length + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		return -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int exchange(struct fused_stream *stream, struct fused_frame *frame,
		    struct fused_reply *ret_reply);

static int say_hello(struct fused_stream *stream, uint32_t export_id, enum fs_stream_kind kind,
		     uint32_t channel, struct fs_hello_reply *ret_hello)
{
	cleanup_free struct fused_frame *frame = malloc(sizeof(*frame));
	cleanup_free struct fused_reply *reply = malloc(sizeof(*reply));
	struct fs_hello *hello;
	struct fs_hello_reply answer;
	int result;

	if (frame == NULL || reply == NULL)
		return -ENOMEM;
	fused_frame_begin(frame);
	hello = fused_frame_op(frame, FS_HELLO, sizeof(*hello));
	hello->magic = FS_MAGIC;
	hello->version_min = FS_VERSION;
	hello->version_max = FS_VERSION;
	hello->export_id = export_id;
	hello->stream_kind = (uint32_t)kind;
	hello->data_max = channel > 0 ? CHANNEL_DATA_MAX : FS_DATA_MAX;
	hello->channel = channel;
	result = exchange(stream, frame, reply);
	if (result == 0)
		result = fused_reply_fixed(reply, 0, &answer, sizeof(answer));
	if (result != 0)
		return result;
	if (answer.version != FS_VERSION || answer.data_max < 4096 ||
	    answer.data_max > FS_DATA_MAX || answer.ops_max == 0)
		return -EBADMSG;
	*ret_hello = answer;
	return 0;
}

/* ---- channels ----------------------------------------------------------------------------- */

/* The number of a channel that no other stream has, or 0. */
static uint32_t choose_channel(const struct fused_stream *stream,
			       const struct fused_endpoint *endpoint)
{
	struct fused_window *window = endpoint->window;
	uint32_t number;

	if (window == NULL || !stream->wants_channel)
		return 0;
	number = atomic_fetch_add(&window->taken, 1) + 1;
	return number <= channel_count(window->size) ? number : 0;
}

static int map_channel(struct fused_stream *stream, const struct fused_window *window,
		       uint32_t number)
{
	uint64_t offset = window->offset + (uint64_t)(number - 1) * CHANNEL_STRIDE;
	void *memory = mmap(NULL, CHANNEL_STRIDE, PROT_READ | PROT_WRITE, MAP_SHARED, window->fd,
			    (off_t)offset);

	if (memory == MAP_FAILED)
		return -errno;
	stream->memory = memory;
	stream->doorbell_port = window->doorbell_port;
	return 0;
}

static int map_buffer(struct fused_stream *stream)
{
	/* Mapped, not allocated: only what a reply touches becomes memory. */
	void *block = mmap(NULL, FS_FRAME_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	if (block == MAP_FAILED)
		return -errno;
	stream->buffer = block;
	return 0;
}

int fused_stream_open(struct fused_stream *stream, const struct fused_endpoint *endpoint,
		      uint32_t export_id, enum fs_stream_kind kind,
		      struct fs_hello_reply *ret_hello)
{
	uint32_t channel = choose_channel(stream, endpoint);
	int result = stream->buffer == NULL ? map_buffer(stream) : 0;

	if (result == 0 && channel > 0)
		result = map_channel(stream, endpoint->window, channel);
	if (result == 0 && endpoint->vsock_port >= 0)
		result = connect_vsock((uint32_t)endpoint->vsock_port, &stream->fd);
	else if (result == 0)
		result = connect_unix(endpoint->unix_path, &stream->fd);
	if (result == 0)
		result = say_hello(stream, export_id, kind, channel, ret_hello);
	if (result == 0 && channel > 0) {
		channel_attach(&stream->channel, stream->memory, CHANNEL_GUEST);
		stream->over_channel = true;
	}
	if (result != 0)
		fused_stream_close(stream);
	return result;
}

void fused_stream_close(struct fused_stream *stream)
{
	if (stream->fd >= 0)
		close(stream->fd);
	stream->fd = -1;
	if (stream->buffer != NULL)
		munmap(stream->buffer, FS_FRAME_MAX);
	stream->buffer = NULL;
	if (stream->memory != NULL)
		munmap(stream->memory, CHANNEL_STRIDE);
	stream->memory = NULL;
	stream->over_channel = false;
}

static int ring_doorbell(struct fused_stream *stream)
{
	fused_count(&stream->rings, 1);
	if (stream->doorbell_port != 0) {
		outb(0, stream->doorbell_port);
		return 0;
	}
	while (send(stream->fd, "", 1, MSG_NOSIGNAL) < 0) {
		if (errno != EINTR)
			return errno == EPIPE ? -ECONNRESET : -errno;
	}
	return 0;
}

/* Waits for a doorbell, which may be an old one. */
static int sleep_for_doorbell(struct fused_stream *stream)
{
	uint8_t doorbells[64];
	ssize_t count = recv(stream->fd, doorbells, sizeof(doorbells), 0);

	fused_count(&stream->sleeps, 1);
	if (count == 0)
		return -ECONNRESET;
	return count < 0 && errno != EINTR ? -errno : 0;
}

static int channel_await(struct fused_stream *stream, size_t wanted)
{
	struct channel *channel = &stream->channel;
	uint64_t until = 0;
	int result = 0;

	for (unsigned looks = 0; result == 0; looks++) {
		ssize_t available = channel_available(channel);

		if (available < 0)
			return (int)available;
		if ((size_t)available >= wanted)
			return 0;
		if (looks % LOOKS_AT_ONCE != 0)
			continue;
		if (until == 0)
			until = clock_now_ns() + LOOK_NS;
		if (clock_now_ns() < until)
			continue;
		channel_sleep(channel);
		available = channel_available(channel);
		if (available >= 0 && (size_t)available < wanted)
			result = sleep_for_doorbell(stream);
		channel_wake(channel);
	}
	return result;
}

static int channel_send_parts(struct fused_stream *stream, const struct iovec *parts, size_t count)
{
	struct channel *channel = &stream->channel;
	size_t length = 0;

	for (size_t i = 0; i < count; i++)
		length += parts[i].iov_len;
	/* There was a reply to whatever was sent before, so the ring is empty. */
	if (channel_room(channel) < (ssize_t)length)
		return -EPROTO;
	for (size_t i = 0; i < count; i++)
		channel_put(channel, parts[i].iov_base, parts[i].iov_len);
	channel_publish(channel);
	return channel_peer_sleeps(channel) ? ring_doorbell(stream) : 0;
}

static int channel_receive(struct fused_stream *stream, size_t *ret_length)
{
	struct fs_frame header;
	int result = channel_await(stream, sizeof(header));

	if (result != 0)
		return result;
	channel_copy(&stream->channel, &header, sizeof(header));
	if (fs_frame_check(&header) != 0 || header.length > CHANNEL_RING_SIZE)
		return -EBADMSG;
	result = channel_await(stream, header.length);
	if (result != 0)
		return result;
	channel_copy(&stream->channel, stream->buffer, header.length);
	channel_consume(&stream->channel, header.length);
	fused_count(&stream->bytes_received, header.length);
	*ret_length = header.length;
	return 0;
}

/* ---- frames ------------------------------------------------------------------------------- */

static int send_parts(int fd, struct iovec *parts, size_t count)
{
	while (count > 0) {
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = count };
		ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);

		if (sent < 0) {
			if (errno == EINTR)
				continue;
			return errno == EPIPE ? -ECONNRESET : -errno;
		}
		while (count > 0 && (size_t)sent >= parts->iov_len) {
			sent -= (ssize_t)parts->iov_len;
			parts++;
			count--;
		}
		if (count > 0) {
			parts->iov_base = (uint8_t *)parts->iov_base + sent;
			parts->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

static int send_frame(struct fused_stream *stream, struct fused_frame *frame, uint64_t tag,
		      uint16_t flags)
{
	struct iovec parts[3];
	size_t count = 0;
	size_t split = frame->external != NULL ? frame->external_at : frame->length;

	fused_frame_finish(frame, tag, flags);
	parts[count++] = (struct iovec){ frame->bytes, split };
	if (frame->external != NULL) {
		/* The iovec is only read from. */
		union {
			const void *source;
			void *base;
		} data = { .source = frame->external };

		parts[count++] = (struct iovec){ data.base, frame->external_length };
		if (frame->length > split)
			parts[count++] =
				(struct iovec){ frame->bytes + split, frame->length - split };
	}
	fused_count(&stream->bytes_sent, frame->length + frame->external_length);
	return stream->over_channel ? channel_send_parts(stream, parts, count)
				    : send_parts(stream->fd, parts, count);
}

/*
 * Vsock data comes in packets of 4 KiB, and each wakes a receiver, whatever it waits for: two
 * switches of context a packet. poll() is woken by what was asked for alone, so the rest of a long
 * reply is waited for there, below a raised low-water mark. That cannot take for ever: all of a
 * reply has credit, which went out with its request, and the end of the stream wakes too.
 */
static void wait_for(const struct fused_stream *stream, size_t length)
{
	struct pollfd polled = { .fd = stream->fd, .events = POLLIN };
	int mark = (int)length;
	int any = 1;

	if (setsockopt(stream->fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof(mark)) != 0)
		return;
	(void)poll(&polled, 1, -1);
	(void)setsockopt(stream->fd, SOL_SOCKET, SO_RCVLOWAT, &any, sizeof(any));
}

int fused_stream_receive(struct fused_stream *stream, bool alone, size_t *ret_length)
{
	size_t done = 0;
	size_t wanted = sizeof(struct fs_frame);

	if (stream->over_channel)
		return channel_receive(stream, ret_length);
	while (done < wanted) {
		/* Reads on to what the header will turn out to promise: mostly one call. */
		size_t room = alone && wanted == sizeof(struct fs_frame) ? FS_FRAME_MAX : wanted;
		ssize_t count;

		if (wanted - done >= WAIT_LEAST)
			wait_for(stream, MIN_OF(wanted - done, (size_t)WAIT_MOST));
		count = recv(stream->fd, stream->buffer + done, room - done, 0);

		if (count == 0)
			return -ECONNRESET;
		if (count < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		done += (size_t)count;
		if (wanted == sizeof(struct fs_frame) && done >= wanted) {
			struct fs_frame header;

			memcpy(&header, stream->buffer, sizeof(header));
			if (fs_frame_check(&header) != 0)
				return -EBADMSG;
			wanted = header.length;
		}
	}
	fused_count(&stream->bytes_received, done);
	if (done != wanted)
		return -EBADMSG;
	*ret_length = done;
	return 0;
}

static int exchange(struct fused_stream *stream, struct fused_frame *frame,
		    struct fused_reply *ret_reply)
{
	uint64_t tag = ++stream->tag;
	struct fs_op_reply first;
	size_t length = 0;
	int result = send_frame(stream, frame, tag, 0);

	if (result == 0)
		result = fused_stream_receive(stream, true, &length);
	if (result != 0)
		return result;
	if (length >= sizeof(struct fs_frame) + sizeof(first)) {
		memcpy(&first, stream->buffer + sizeof(struct fs_frame), sizeof(first));
		if (first.opcode == FS_GOODBYE)
			return -ECONNRESET;
	}
	return fused_reply_parse(frame, tag, stream->buffer, length, ret_reply);
}

int fused_stream_call(struct fused_stream *stream, struct fused_frame *frame,
		      struct fused_reply *ret_reply)
{
	fused_count(&stream->round_trips, 1);
	return exchange(stream, frame, ret_reply);
}

int fused_stream_post(struct fused_stream *stream, struct fused_frame *frame)
{
	fused_count(&stream->posts, 1);
	return send_frame(stream, frame, ++stream->tag, FS_FRAME_NO_REPLY);
}
