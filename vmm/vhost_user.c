/*
 * Theory of operation
 *
 * A message is a 12-byte header (u32 request, flags, payload size; native order, which for our only
 * architecture is little-endian) and the payload; descriptors arrive with its first byte. The
 * reader keeps a message under construction and never waits for the rest of one.
 *
 * A ring starts once it has size, addresses and a kick descriptor and is enabled; it
 * stops at GET_VRING_BASE or when it is disabled. Ring addresses are the front end's own virtual
 * addresses, which the memory table translates.
 *
 * Kick descriptors are registered edge-triggered and never read: each kick is a new edge, and one
 * read system call per kick is saved.
 */
#include "vmm/vhost_user.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_LENGTH 12
#define FLAG_VERSION_MASK 3
#define FLAG_VERSION 1
#define FLAG_REPLY 4
#define FEATURE_PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define PROTOCOL_FEATURE_CONFIG (UINT64_C(1) << 9)
#define VRING_INDEX_MASK 0xff
#define VRING_NO_FD 0x100
#define CONFIG_MAX 256
/* Messages per event, so that a front end which never stops talking cannot keep us from the rest.
 */
#define MESSAGE_BATCH 32

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_recvmsg),
	JAIL_CALL(SYS_sendto),
	JAIL_CALL(SYS_fcntl), /* F_GET_SEALS, and O_NONBLOCK on call descriptors */
	JAIL_CALL(SYS_fstat),
	JAIL_CALL(SYS_newfstatat), /* how glibc spells fstat(): with an empty path */
	JAIL_CALL_IF(SYS_mmap, JAIL_ARGUMENT_WITHOUT(2, 4 /* PROT_EXEC */)),
	JAIL_CALL(SYS_munmap),
	JAIL_CALL(SYS_write),
	JAIL_CALL(SYS_close),
	JAIL_CALL(SYS_epoll_ctl),
};
const struct jail_syscall_set vhost_user_calls = JAIL_SET(calls);

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
	GET_CONFIG = 24,
};

struct ring {
	struct event_source kick; /* first; fd -1 while there is none */
	struct vhost_user_backend *backend;
	enum vsock_queue index;
	struct virtqueue_layout layout;
	bool has_addresses;
	bool enabled;
	int call_fd;
};

struct vhost_user_backend {
	struct event_source socket;
	struct event_loop *loop;
	struct vsock_device *device;
	struct vhost_user_observer observer;
	struct guest_memory memory;
	uint64_t features; /* acknowledged */
	struct ring rings[VSOCK_QUEUE_COUNT];
	bool ended;
	/* The message under construction. */
	uint8_t bytes[HEADER_LENGTH + VHOST_USER_PAYLOAD_MAX];
	size_t length;
	int fds[VHOST_USER_FDS_MAX];
	size_t fd_count;
};

struct message {
	uint32_t request;
	struct byte_reader payload;
	size_t size;
};

static void close_fds(struct vhost_user_backend *backend)
{
	for (size_t i = 0; i < backend->fd_count; i++) {
		if (backend->fds[i] >= 0)
			close(backend->fds[i]);
	}
	backend->fd_count = 0;
}

static void set_kick(struct ring *ring, int fd)
{
	if (ring->kick.fd >= 0) {
		event_loop_remove(ring->backend->loop, &ring->kick);
		close(ring->kick.fd);
	}
	ring->kick.fd = fd;
}

static void set_call(struct ring *ring, int fd)
{
	if (ring->call_fd >= 0)
		close(ring->call_fd);
	ring->call_fd = fd;
}

/* ---- rings -------------------------------------------------------------------------------------
 */

static void ring_kicked(struct event_source *source, uint32_t events)
{
	struct ring *ring = (struct ring *)source;

	(void)events;
	if (vsock_device_queue_runs(ring->backend->device, ring->index))
		vsock_device_kick(ring->backend->device, ring->index);
}

void vhost_user_interrupt(void *transport, enum vsock_queue queue)
{
	struct vhost_user_backend *backend = transport;
	const uint64_t one = 1;

	/* An eventfd whose counter is full already says what there is to say. */
	if (backend->rings[queue].call_fd >= 0 &&
	    write(backend->rings[queue].call_fd, &one, sizeof(one)) < 0)
		return;
}

static bool ring_runs(const struct ring *ring)
{
	return vsock_device_queue_runs(ring->backend->device, ring->index);
}

static bool any_ring_runs(const struct vhost_user_backend *backend)
{
	return ring_runs(&backend->rings[0]) || ring_runs(&backend->rings[1]);
}

static void stop_ring(struct ring *ring)
{
	if (ring_runs(ring))
		ring->layout.next_available =
			vsock_device_stop_queue(ring->backend->device, ring->index);
}

static int start_ring(struct ring *ring, const char **ret_what)
{
	struct vhost_user_backend *backend = ring->backend;
	int r;

	if (ring_runs(ring) || !ring->enabled || ring->kick.fd < 0)
		return 0;
	if (!ring->has_addresses || !(backend->features & VIRTIO_FEATURE_VERSION_1)) {
		*ret_what = "ring started before its features and addresses were set";
		return -EPROTO;
	}
	ring->layout.user_addresses = true;
	ring->layout.event_index = backend->features & VIRTIO_FEATURE_EVENT_INDEX;
	ring->layout.indirect = backend->features & VIRTIO_FEATURE_INDIRECT_DESC;
	r = vsock_device_start_queue(backend->device, ring->index, &backend->memory, &ring->layout);
	if (r < 0) {
		*ret_what = "ring with a bad size or outside guest memory";
		return r;
	}
	if (backend->observer.started)
		backend->observer.started(backend->observer.observer);
	return 0;
}

/* ---- messages ----------------------------------------------------------------------------------
 */

static int reply(struct vhost_user_backend *backend, uint32_t request, const void *payload,
		 size_t length)
{
	uint8_t bytes[HEADER_LENGTH + VHOST_USER_PAYLOAD_MAX];
	struct byte_writer writer;

	byte_writer_init(&writer, bytes, sizeof(bytes));
	byte_writer_u32(&writer, request);
	byte_writer_u32(&writer, FLAG_VERSION | FLAG_REPLY);
	byte_writer_u32(&writer, (uint32_t)length);
	byte_writer_bytes(&writer, payload, length);
	/* The front end waits for each reply, so the socket has room unless it is misused. */
	if (send(backend->socket.fd, bytes, writer.length, MSG_DONTWAIT | MSG_NOSIGNAL) !=
	    (ssize_t)writer.length)
		return -EPIPE;
	return 0;
}

static int reply_u64(struct vhost_user_backend *backend, uint32_t request, uint64_t value)
{
	uint8_t bytes[8];
	struct byte_writer writer;

	byte_writer_init(&writer, bytes, sizeof(bytes));
	byte_writer_u64(&writer, value);
	return reply(backend, request, bytes, sizeof(bytes));
}

static int set_features(struct vhost_user_backend *backend, uint64_t features,
			const char **ret_what)
{
	if (features & ~(VSOCK_DEVICE_FEATURES | FEATURE_PROTOCOL_FEATURES)) {
		*ret_what = "features that were not offered";
		return -EPROTO;
	}
	if (any_ring_runs(backend)) {
		*ret_what = "features set while a ring runs";
		return -EPROTO;
	}
	backend->features = features;
	return 0;
}

static int set_memory_table(struct vhost_user_backend *backend, struct message *message,
			    const char **ret_what)
{
	struct guest_memory memory = { 0 };
	uint32_t count = byte_reader_u32(&message->payload);
	int r = 0;

	*ret_what = "memory table that does not fit its size and descriptors";
	(void)byte_reader_u32(&message->payload);
	/* Some front ends send the whole fixed array whatever the count. */
	if (count > GUEST_MEMORY_REGIONS_MAX || count != backend->fd_count ||
	    byte_reader_remaining(&message->payload) < (size_t)count * 32)
		return -EPROTO;
	if (any_ring_runs(backend)) {
		*ret_what = "memory table changed while a ring runs";
		return -EPROTO;
	}
	*ret_what = "memory region that overlaps, overflows, or whose file is short or can shrink";
	for (uint32_t i = 0; i < count && r == 0; i++) {
		uint64_t guest_address = byte_reader_u64(&message->payload);
		uint64_t length = byte_reader_u64(&message->payload);
		uint64_t user_address = byte_reader_u64(&message->payload);
		uint64_t offset = byte_reader_u64(&message->payload);

		r = guest_memory_map(&memory, backend->fds[i], offset, guest_address, user_address,
				     length);
	}
	if (r < 0) {
		guest_memory_release(&memory);
		return r;
	}
	guest_memory_release(&backend->memory);
	backend->memory = memory;
	return 0;
}

static int get_config(struct vhost_user_backend *backend, struct message *message,
		      const char **ret_what)
{
	uint8_t bytes[12 + CONFIG_MAX];
	uint32_t offset = byte_reader_u32(&message->payload);
	uint32_t length = byte_reader_u32(&message->payload);
	uint32_t flags = byte_reader_u32(&message->payload);
	struct byte_writer writer;

	if (length > CONFIG_MAX || message->size != 12 + (size_t)length) {
		*ret_what = "configuration request of a bad size";
		return -EPROTO;
	}
	byte_writer_init(&writer, bytes, sizeof(bytes));
	byte_writer_u32(&writer, offset);
	byte_writer_u32(&writer, length);
	byte_writer_u32(&writer, flags);
	vsock_device_read_config(backend->device, offset, bytes + 12, length);
	return reply(backend, GET_CONFIG, bytes, 12 + (size_t)length);
}

static int set_ring_addresses(struct ring *ring, struct message *message)
{
	uint32_t flags = byte_reader_u32(&message->payload);

	ring->layout.descriptors = byte_reader_u64(&message->payload);
	ring->layout.used = byte_reader_u64(&message->payload);
	ring->layout.available = byte_reader_u64(&message->payload);
	ring->has_addresses = true;
	/* Bit 0 asks for dirty logging, which is not offered. */
	return flags & 1 ? -EPROTO : 0;
}

/* NUM, ADDR, BASE, ENABLE and GET_VRING_BASE: u32 index first. */
static int handle_ring_state(struct vhost_user_backend *backend, struct message *message,
			     const char **ret_what)
{
	uint32_t index = byte_reader_u32(&message->payload);
	struct ring *ring;
	uint32_t number;

	*ret_what = "request for a ring that does not exist";
	if (index >= VSOCK_QUEUE_COUNT)
		return -EPROTO;
	ring = &backend->rings[index];
	*ret_what = "registers of a running ring written";
	if (ring_runs(ring) && message->request != GET_VRING_BASE &&
	    message->request != SET_VRING_ENABLE)
		return -EPROTO;
	*ret_what = "ring number out of range";
	if (message->request == SET_VRING_ADDR)
		return set_ring_addresses(ring, message);
	number = byte_reader_u32(&message->payload);
	switch (message->request) {
	case SET_VRING_NUM:
		if (number == 0 || number > VIRTQUEUE_SIZE_MAX || (number & (number - 1)) != 0)
			return -EPROTO;
		ring->layout.size = (uint16_t)number;
		return 0;
	case SET_VRING_BASE:
		if (number > UINT16_MAX)
			return -EPROTO;
		ring->layout.next_available = (uint16_t)number;
		return 0;
	case SET_VRING_ENABLE:
		if (number > 1)
			return -EPROTO;
		ring->enabled = number == 1;
		if (ring->enabled)
			return start_ring(ring, ret_what);
		stop_ring(ring);
		return 0;
	default: { /* GET_VRING_BASE */
		uint64_t state;

		stop_ring(ring);
		set_kick(ring, -1);
		state = (uint64_t)ring->layout.next_available << 32 | index;
		return reply_u64(backend, GET_VRING_BASE, state);
	}
	}
}

/* KICK, CALL and ERR: a u64 with the index and, unless the "no descriptor" bit is set, one
 * descriptor. */
static int handle_ring_fd(struct vhost_user_backend *backend, struct message *message,
			  const char **ret_what)
{
	uint64_t value = byte_reader_u64(&message->payload);
	size_t expected = value & VRING_NO_FD ? 0 : 1;
	cleanup_fd int fd = -1;
	struct ring *ring;
	int r;

	*ret_what = "ring descriptor message of a bad form";
	if ((value & ~(uint64_t)(VRING_INDEX_MASK | VRING_NO_FD)) ||
	    (value & VRING_INDEX_MASK) >= VSOCK_QUEUE_COUNT || backend->fd_count != expected)
		return -EPROTO;
	ring = &backend->rings[value & VRING_INDEX_MASK];
	if (expected == 1)
		fd = steal_fd(&backend->fds[0]);
	if (message->request == SET_VRING_ERR)
		return 0;
	if (message->request == SET_VRING_CALL) {
		/* Whatever it really is, writing to it must not block us. */
		if (fd >= 0 && set_nonblocking(fd, true) < 0)
			return -EPROTO;
		set_call(ring, steal_fd(&fd));
		return 0;
	}
	*ret_what = "kick descriptor that is missing, cannot be polled, or of a running ring";
	if (fd < 0 || ring_runs(ring))
		return -EPROTO;
	set_kick(ring, steal_fd(&fd));
	r = event_loop_add(backend->loop, &ring->kick, EPOLLIN | EPOLLET);
	if (r < 0) {
		close(steal_fd(&ring->kick.fd));
		return r;
	}
	return start_ring(ring, ret_what);
}

/* The payload sizes of the requests of fixed size, and whether they may carry descriptors. */
static bool form_is_right(const struct vhost_user_backend *backend, const struct message *message)
{
	bool with_fds = false;
	size_t size = 0;

	switch (message->request) {
	case GET_FEATURES:
	case GET_PROTOCOL_FEATURES:
	case SET_OWNER:
	case RESET_OWNER:
		break;
	case SET_FEATURES:
	case SET_PROTOCOL_FEATURES:
	case SET_VRING_NUM:
	case SET_VRING_BASE:
	case GET_VRING_BASE:
	case SET_VRING_ENABLE:
		size = 8;
		break;
	case SET_VRING_KICK:
	case SET_VRING_CALL:
	case SET_VRING_ERR:
		size = 8;
		with_fds = true;
		break;
	case SET_VRING_ADDR:
		size = 40;
		break;
	case SET_MEM_TABLE:
		with_fds = true;
		size = message->size; /* judged there */
		break;
	case GET_CONFIG:
		size = message->size; /* judged there */
		break;
	default:
		return false;
	}
	return message->size == size && (with_fds || backend->fd_count == 0);
}

static int dispatch(struct vhost_user_backend *backend, struct message *message,
		    const char **ret_what)
{
	uint64_t features;

	if (!form_is_right(backend, message)) {
		*ret_what = "unknown request, or one of a bad size or with stray descriptors";
		return -EPROTO;
	}
	switch (message->request) {
	case GET_FEATURES:
		return reply_u64(backend, GET_FEATURES,
				 VSOCK_DEVICE_FEATURES | FEATURE_PROTOCOL_FEATURES);
	case SET_FEATURES:
		return set_features(backend, byte_reader_u64(&message->payload), ret_what);
	case GET_PROTOCOL_FEATURES:
		return reply_u64(backend, GET_PROTOCOL_FEATURES, PROTOCOL_FEATURE_CONFIG);
	case SET_PROTOCOL_FEATURES:
		features = byte_reader_u64(&message->payload);
		*ret_what = "protocol features that were not offered";
		return features & ~PROTOCOL_FEATURE_CONFIG ? -EPROTO : 0;
	case SET_OWNER:
	case RESET_OWNER:
		return 0;
	case SET_MEM_TABLE:
		return set_memory_table(backend, message, ret_what);
	case GET_CONFIG:
		return get_config(backend, message, ret_what);
	case SET_VRING_KICK:
	case SET_VRING_CALL:
	case SET_VRING_ERR:
		return handle_ring_fd(backend, message, ret_what);
	default:
		return handle_ring_state(backend, message, ret_what);
	}
}

/* Reads more of the current message. Returns 1 when it is complete, 0 when the rest is still to
 * come, or a negative errno; -ECONNRESET at the end of the stream. */
static int read_message(struct vhost_user_backend *backend, struct message *ret_message,
			const char **ret_what)
{
	for (;;) {
		size_t wanted = HEADER_LENGTH, fd_count = 0;
		struct byte_reader header;
		uint32_t flags, size;
		ssize_t count;

		if (backend->length >= HEADER_LENGTH) {
			byte_reader_init(&header, backend->bytes, HEADER_LENGTH);
			ret_message->request = byte_reader_u32(&header);
			flags = byte_reader_u32(&header);
			size = byte_reader_u32(&header);
			if ((flags & (FLAG_VERSION_MASK | FLAG_REPLY)) != FLAG_VERSION ||
			    size > VHOST_USER_PAYLOAD_MAX) {
				*ret_what = "message with a bad version or size";
				return -EPROTO;
			}
			ret_message->size = size;
			wanted += size;
			if (backend->length == wanted) {
				byte_reader_init(&ret_message->payload,
						 backend->bytes + HEADER_LENGTH, size);
				return 1;
			}
		}
		count = receive_with_fds(backend->socket.fd, backend->bytes + backend->length,
					 wanted - backend->length, backend->fds + backend->fd_count,
					 VHOST_USER_FDS_MAX - backend->fd_count, &fd_count);
		if (count == -EAGAIN)
			return 0;
		if (count <= 0) {
			*ret_what = "too many descriptors, or a broken socket";
			return count < 0 ? (int)count : -ECONNRESET;
		}
		backend->fd_count += fd_count;
		backend->length += (size_t)count;
	}
}

static void socket_ready(struct event_source *source, uint32_t events)
{
	struct vhost_user_backend *backend = (struct vhost_user_backend *)source;
	const char *what = "";
	struct message message;
	int r = 0;

	(void)events;
	if (backend->ended)
		return;
	for (int i = 0; i < MESSAGE_BATCH; i++) {
		r = read_message(backend, &message, &what);
		if (r <= 0)
			break;
		r = dispatch(backend, &message, &what);
		if (r == 0 && !byte_reader_ok(&message.payload)) {
			what = "message shorter than its request needs";
			r = -EPROTO;
		}
		close_fds(backend);
		backend->length = 0;
		if (r < 0)
			break;
	}
	if (r < 0) {
		backend->ended = true;
		event_loop_remove(backend->loop, &backend->socket);
		for (size_t i = 0; i < VSOCK_QUEUE_COUNT; i++)
			stop_ring(&backend->rings[i]);
		backend->observer.ended(backend->observer.observer, r == -ECONNRESET ? 0 : r, what);
	}
}

int vhost_user_new(struct event_loop *loop, const struct vhost_user_observer *observer,
		   struct vhost_user_backend **ret_backend)
{
	struct vhost_user_backend *backend = calloc(1, sizeof(*backend));

	if (!backend)
		return -ENOMEM;
	backend->loop = loop;
	backend->observer = *observer;
	backend->socket.fd = -1;
	for (size_t i = 0; i < VSOCK_QUEUE_COUNT; i++) {
		backend->rings[i].backend = backend;
		backend->rings[i].index = (enum vsock_queue)i;
		backend->rings[i].kick.fd = -1;
		backend->rings[i].kick.ready = ring_kicked;
		backend->rings[i].call_fd = -1;
	}
	*ret_backend = backend;
	return 0;
}

int vhost_user_start(struct vhost_user_backend *backend, struct vsock_device *device, int socket)
{
	int r;

	backend->device = device;
	backend->socket.fd = socket;
	backend->socket.ready = socket_ready;
	r = set_nonblocking(socket, true);
	if (r < 0)
		return r;
	return event_loop_add(backend->loop, &backend->socket, EPOLLIN);
}

void vhost_user_free(struct vhost_user_backend *backend)
{
	if (!backend)
		return;
	for (size_t i = 0; i < VSOCK_QUEUE_COUNT; i++) {
		if (backend->device)
			stop_ring(&backend->rings[i]);
		set_kick(&backend->rings[i], -1);
		set_call(&backend->rings[i], -1);
	}
	close_fds(backend);
	guest_memory_release(&backend->memory);
	if (backend->socket.fd >= 0) {
		if (!backend->ended)
			event_loop_remove(backend->loop, &backend->socket);
		close(backend->socket.fd);
	}
	free(backend);
}
