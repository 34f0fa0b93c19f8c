#include "vmm/vsock_muxer.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_LINE_MAX 32
#define ACCEPT_BATCH 16
#define LISTEN_BACKLOG 128
/* Edge-triggered: a socket which is left alone for want of credit or buffers stays silent. */
#define STREAM_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)

static const struct jail_syscall calls[] = {
	JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL32(0, AF_UNIX)),
	JAIL_CALL(SYS_connect),
	JAIL_CALL(SYS_accept4),
	JAIL_CALL(SYS_shutdown),
	JAIL_CALL(SYS_sendmsg),
	JAIL_CALL(SYS_sendto),
	JAIL_CALL(SYS_recvfrom),
	JAIL_CALL(SYS_readv),
	JAIL_CALL(SYS_close),
	JAIL_CALL(SYS_epoll_ctl),
	JAIL_CALL(SYS_epoll_wait),
};
const struct jail_syscall_set vsock_muxer_calls = JAIL_SET(calls);

struct vsock_muxer {
	struct event_source listener;
	struct event_loop *loop;
	struct vsock_device *device;
	char name[VSOCK_MUXER_NAME_MAX + 1];
};

static int fill_address(const char *name, const char *suffix, struct sockaddr_un *ret_address)
{
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if ((size_t)snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%s%s", name,
			     suffix) >= sizeof(ret_address->sun_path))
		return -ENAMETOOLONG;
	return 0;
}

int vsock_muxer_listen(const char *name)
{
	cleanup_fd int fd = -1;
	struct sockaddr_un address;
	mode_t mask;
	int r;

	r = fill_address(name, "", &address);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	mask = umask(0177);
	r = bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(mask);
	if (r < 0)
		return r;
	if (listen(fd, LISTEN_BACKLOG) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* ---- events ------------------------------------------------------------------------------------
 */

/* The line up to its newline, as a port. False for anything but "CONNECT <decimal u32>". */
static bool parse_connect(const char *line, uint32_t *ret_port)
{
	static const char verb[] = "CONNECT ";
	const char *digit = line + sizeof(verb) - 1;
	uint64_t port = 0;

	if (strncmp(line, verb, sizeof(verb) - 1) != 0 || *digit == '\0')
		return false;
	for (; *digit; digit++) {
		if (*digit < '0' || *digit > '9')
			return false;
		port = port * 10 + (uint64_t)(*digit - '0');
		if (port > UINT32_MAX)
			return false;
	}
	*ret_port = (uint32_t)port;
	return true;
}

/* Reads the CONNECT line when it is complete, and not a byte behind it. */
static void continue_handshake(struct vsock_connection *connection)
{
	char line[CONNECT_LINE_MAX + 1];
	const char *newline;
	uint32_t port;
	ssize_t count;
	size_t length;

	count = recv(connection->socket.fd, line, CONNECT_LINE_MAX, MSG_PEEK | MSG_DONTWAIT);
	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	newline = count > 0 ? memchr(line, '\n', (size_t)count) : NULL;
	if (count <= 0 || (!newline && (count == CONNECT_LINE_MAX || connection->end_pending))) {
		vsock_device_abort(connection);
		return;
	}
	if (!newline)
		return;
	length = (size_t)(newline - line);
	(void)recv(connection->socket.fd, line, length + 1, MSG_DONTWAIT);
	line[length] = '\0';
	if (!parse_connect(line, &port) || vsock_device_request(connection, port) < 0)
		vsock_device_abort(connection);
	else
		connection->readable = true;
}

static void stream_ready(struct event_source *source, uint32_t events)
{
	struct vsock_connection *connection = (struct vsock_connection *)source;
	bool hung_up = events & (EPOLLHUP | EPOLLERR);

	if (connection->state == VSOCK_HANDSHAKE) {
		/* A client that shuts its sending side after the line still gets an answer. */
		if (events & EPOLLRDHUP)
			connection->end_pending = true;
		connection->end_pending |= hung_up;
		connection->hung_up |= hung_up;
		continue_handshake(connection);
		return;
	}
	if ((events & EPOLLOUT) || connection->state == VSOCK_DRAINING) {
		bool draining = connection->state == VSOCK_DRAINING;

		vsock_device_stream_writable(connection);
		if (draining)
			return; /* it may be gone, and nothing is read for it any more */
	}
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		vsock_device_stream_readable(connection, (events & EPOLLRDHUP) || hung_up, hung_up);
}

static int watch(struct vsock_muxer *muxer, struct vsock_connection *connection, int fd)
{
	connection->socket.fd = fd;
	connection->socket.ready = stream_ready;
	return event_loop_add(muxer->loop, &connection->socket, STREAM_EVENTS);
}

static void accept_clients(struct event_source *source, uint32_t events)
{
	struct vsock_muxer *muxer = (struct vsock_muxer *)source;

	(void)events;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		cleanup_fd int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		struct vsock_connection *connection;

		if (fd < 0)
			return;
		connection = vsock_device_connection_new(muxer->device);
		if (!connection)
			continue;
		if (watch(muxer, connection, fd) < 0) {
			connection->socket.fd = -1;
			vsock_device_abort(connection);
			continue;
		}
		(void)steal_fd(&fd);
	}
}

/* ---- stream operations -------------------------------------------------------------------------
 */

static int stream_open(void *provider, struct vsock_connection *connection, uint32_t port)
{
	struct vsock_muxer *muxer = provider;
	cleanup_fd int fd = -1;
	struct sockaddr_un address;
	char suffix[16];
	int r;

	(void)snprintf(suffix, sizeof(suffix), "_%u", port);
	r = fill_address(muxer->name, suffix, &address);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* On Unix sockets this either succeeds at once or fails: EAGAIN is a full backlog. */
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	r = watch(muxer, connection, fd);
	if (r < 0) {
		connection->socket.fd = -1;
		return r;
	}
	(void)steal_fd(&fd);
	return 0;
}

static ssize_t stream_send(struct vsock_connection *connection, const struct iovec *parts,
			   size_t count)
{
	struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)parts,
				  .msg_iovlen = count };
	ssize_t result;

	do {
		result = sendmsg(connection->socket.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : result;
}

static ssize_t stream_receive(struct vsock_connection *connection, const struct iovec *parts,
			      size_t count)
{
	ssize_t result;

	do {
		result = readv(connection->socket.fd, parts, (int)count);
	} while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : result;
}

static void stream_shutdown(struct vsock_connection *connection, uint32_t flags)
{
	if (flags & VSOCK_SHUTDOWN_SEND)
		(void)shutdown(connection->socket.fd, SHUT_WR);
	if (flags & VSOCK_SHUTDOWN_RECEIVE)
		(void)shutdown(connection->socket.fd, SHUT_RD);
}

static void stream_want_write(void *provider, struct vsock_connection *connection, bool wanted)
{
	struct vsock_muxer *muxer = provider;

	/* The descriptor is registered, so that only ENOMEM could make this fail; the bytes then
	 * wait for the socket's next event. */
	(void)event_loop_modify(muxer->loop, &connection->socket,
				wanted ? STREAM_EVENTS | EPOLLOUT : STREAM_EVENTS);
	connection->wants_write = wanted;
}

static void stream_accepted(struct vsock_connection *connection)
{
	char line[CONNECT_LINE_MAX];
	int length = snprintf(line, sizeof(line), "OK %u\n", connection->ports.host);

	/* The first bytes on this socket: they fit. If the client is gone its hang-up says so. */
	(void)send(connection->socket.fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void stream_close(void *provider, struct vsock_connection *connection)
{
	struct vsock_muxer *muxer = provider;

	event_loop_remove(muxer->loop, &connection->socket);
	close(connection->socket.fd);
}

const struct vsock_stream_operations vsock_muxer_operations = {
	.open = stream_open,
	.send = stream_send,
	.receive = stream_receive,
	.shutdown = stream_shutdown,
	.want_write = stream_want_write,
	.accepted = stream_accepted,
	.close = stream_close,
};

/* ---- the muxer ---------------------------------------------------------------------------------
 */

int vsock_muxer_new(struct event_loop *loop, const char *name, int listener,
		    struct vsock_muxer **ret_muxer)
{
	struct vsock_muxer *muxer;

	if (strlen(name) > VSOCK_MUXER_NAME_MAX)
		return -ENAMETOOLONG;
	muxer = calloc(1, sizeof(*muxer));
	if (!muxer)
		return -ENOMEM;
	muxer->loop = loop;
	muxer->listener.fd = listener;
	muxer->listener.ready = accept_clients;
	(void)snprintf(muxer->name, sizeof(muxer->name), "%s", name);
	*ret_muxer = muxer;
	return 0;
}

int vsock_muxer_start(struct vsock_muxer *muxer, struct vsock_device *device)
{
	const bool listens = muxer->device != NULL;

	muxer->device = device;
	return listens ? 0 : event_loop_add(muxer->loop, &muxer->listener, EPOLLIN);
}

int vsock_muxer_listener(const struct vsock_muxer *muxer)
{
	return muxer->listener.fd;
}

void vsock_muxer_free(struct vsock_muxer *muxer)
{
	if (!muxer)
		return;
	event_loop_remove(muxer->loop, &muxer->listener);
	close(muxer->listener.fd);
	free(muxer);
}
