#include "cli/port_forward.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "base/io.h"
#include "base/relay.h"
#include "wire/audit.h"
#include "wire/egress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 128
#define BUFFER_SIZE 65536
/* "OK 4294967295\n" */
#define ANSWER_MAX 32

/*
 * Theory of operation. A connection has two ends and a relay for each direction. The VMM's socket
 * takes "CONNECT PORT\n" and what follows it belongs to the stream, so the hello is sent with it;
 * its answer, one line, is read before the relays begin. Ends are watched level-triggered, for what
 * the relays want.
 */

struct forwarder;

struct end {
	struct event_source source;
	struct connection *connection;
	uint32_t watched;
};

enum side {
	SIDE_HOST,
	SIDE_GUEST,
	SIDES,
};

struct connection {
	struct forwarder *forwarder;
	const struct door *door;
	char peer[INET6_ADDRSTRLEN];
	const char *reason; /* NULL: it came to its end */
	uint64_t started_ns;
	struct connection *previous, *next;
	struct end ends[SIDES];
	struct relay relays[SIDES]; /* from the end of the same index */
	bool ended[SIDES];	    /* that relay's sink was told */
	bool is_answered;
	size_t answer_length;
	char answer[ANSWER_MAX];
};

struct door {
	struct event_source source;
	struct forwarder *forwarder;
	uint16_t guest_port;
	char rule[INET6_ADDRSTRLEN + 16]; /* as in -p */
};

struct forwarder {
	struct event_loop loop;
	struct sockaddr_un base;
	struct door doors[NETWORK_FORWARDS_MAX];
	size_t door_count;
	struct connection *all;
	size_t count;
	struct event_source end;
	struct event_source signals;
	bool has_ended;
	int audit_fd;
	struct audit_event event;
};

int port_forward_listen(const struct port_forward *forward, struct problem *problem)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(forward->host_port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
				   .sin6_port = htons(forward->host_port) };
	bool is_v6 = inet_pton(AF_INET, forward->address, &v4.sin_addr) != 1;
	const struct sockaddr *address =
		is_v6 ? (const struct sockaddr *)&v6 : (const struct sockaddr *)&v4;
	cleanup_fd int fd =
		socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int on = 1;

	if (is_v6 && inet_pton(AF_INET6, forward->address, &v6.sin6_addr) != 1)
		return problem_set(problem, STATUS_USAGE, "-p: %s is no address", forward->address);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, address, is_v6 ? sizeof(v6) : sizeof(v4)) < 0 || listen(fd, BACKLOG) < 0)
		return problem_set(problem, STATUS_SANDBOX, "-p: cannot listen at %s, port %u: %s",
				   forward->address, forward->host_port, strerror(errno));
	return steal_fd(&fd);
}

/* ---- the log ---------------------------------------------------------------------------- */

/* A log that is behind slows this down, and one that is gone ends it. */
static void send_event(struct forwarder *forwarder)
{
	if (audit_event_send(&forwarder->event, forwarder->audit_fd) < 0)
		forwarder->has_ended = true;
}

static void tell(const struct connection *connection)
{
	struct forwarder *forwarder = connection->forwarder;
	struct audit_event *event = &forwarder->event;
	const struct relay *in = &connection->relays[SIDE_HOST];
	const struct relay *out = &connection->relays[SIDE_GUEST];
	const char *reason = connection->reason;

	if (forwarder->audit_fd < 0)
		return;
	if (!reason && (in->source_error || out->source_error))
		reason = "broken";
	audit_event_begin(event, AUDIT_CONNECTION);
	audit_event_text(event, AUDIT_FIELD_OPERATION, "forward");
	audit_event_number(event, AUDIT_FIELD_PORT, connection->door->guest_port);
	audit_event_text(event, AUDIT_FIELD_ADDRESS, connection->peer);
	audit_event_text(event, AUDIT_FIELD_PROTOCOL, "tcp");
	audit_event_text(event, AUDIT_FIELD_REASON, reason);
	audit_event_number(event, AUDIT_FIELD_SENT, out->moved);
	/* What goes to the guest's stream behind the hello. */
	audit_event_number(event, AUDIT_FIELD_RECEIVED, in->moved);
	audit_event_number(event, AUDIT_FIELD_DURATION_NS, clock_now_ns() - connection->started_ns);
	audit_event_text(event, AUDIT_FIELD_RULE, connection->door->rule);
	send_event(forwarder);
}

/* ---- a connection's life ---------------------------------------------------------------- */

static void watch_doors(struct forwarder *forwarder, bool open)
{
	for (size_t i = 0; i < forwarder->door_count; i++)
		(void)event_loop_modify(&forwarder->loop, &forwarder->doors[i].source,
					open ? EPOLLIN : 0);
}

static void close_connection(struct connection *connection)
{
	struct forwarder *forwarder = connection->forwarder;

	tell(connection);
	for (size_t side = 0; side < SIDES; side++) {
		struct end *end = &connection->ends[side];

		relay_release(&connection->relays[side]);
		if (end->source.fd < 0)
			continue;
		event_loop_remove(&forwarder->loop, &end->source);
		close(end->source.fd);
	}
	if (connection->previous)
		connection->previous->next = connection->next;
	else
		forwarder->all = connection->next;
	if (connection->next)
		connection->next->previous = connection->previous;
	if (forwarder->count-- == PORT_FORWARD_CONNECTIONS_MAX)
		watch_doors(forwarder, true);
	free(connection);
}

static void watch_end(struct connection *connection, enum side side)
{
	struct end *end = &connection->ends[side];
	const struct relay *out = &connection->relays[side];
	const struct relay *in = &connection->relays[1 - side];
	uint32_t wanted = EPOLLIN;

	if (connection->is_answered)
		wanted = (uint32_t)relay_source_events(out) | (uint32_t)relay_sink_events(in);
	else if (side == SIDE_HOST)
		wanted = 0;
	if (wanted == end->watched)
		return;
	end->watched = wanted;
	(void)event_loop_modify(&connection->forwarder->loop, &end->source, wanted);
}

/* Tells the sinks of relays that are done. */
static void settle(struct connection *connection)
{
	for (size_t side = 0; side < SIDES; side++) {
		struct relay *relay = &connection->relays[side];

		if (connection->ended[side] || !relay_done(relay))
			continue;
		connection->ended[side] = true;
		(void)shutdown(relay->sink_failed ? relay->source : relay->sink,
			       relay->sink_failed ? SHUT_RD : SHUT_WR);
	}
	if (connection->ended[SIDE_HOST] && connection->ended[SIDE_GUEST]) {
		close_connection(connection);
		return;
	}
	watch_end(connection, SIDE_HOST);
	watch_end(connection, SIDE_GUEST);
}

/* 1 when the line is there, 0 when more is to come, -1 when there is none. */
static int read_answer(struct connection *connection)
{
	int fd = connection->ends[SIDE_GUEST].source.fd;

	while (connection->answer_length < ANSWER_MAX) {
		char *at = connection->answer + connection->answer_length;
		ssize_t count = recv(fd, at, 1, MSG_DONTWAIT);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (count <= 0)
			return -1;
		connection->answer_length++;
		if (*at == '\n')
			return strncmp(connection->answer, "OK ", 3) == 0 ? 1 : -1;
	}
	return -1;
}

static void end_ready(struct event_source *source, uint32_t events)
{
	struct end *end = (struct end *)source;
	struct connection *connection = end->connection;
	enum side side = end == &connection->ends[SIDE_HOST] ? SIDE_HOST : SIDE_GUEST;
	short ready = (short)(events & (EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLERR));

	if (!connection->is_answered) {
		int answered = side == SIDE_GUEST ? read_answer(connection) : -1;

		if (answered < 0) {
			connection->reason = side == SIDE_GUEST ? "guest_refused" : "broken";
			close_connection(connection);
			return;
		}
		connection->is_answered = answered > 0;
	} else {
		/* A hang-up of both directions ends what is written there as well. */
		relay_turn(&connection->relays[side], ready, 0);
		relay_turn(&connection->relays[1 - side], 0, ready);
	}
	settle(connection);
}

static int dial_guest(const struct forwarder *forwarder, uint16_t guest_port)
{
	const struct egress_target target = { .family = 4,
					      .port = guest_port,
					      .address = { 127, 0, 0, 1 } };
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint8_t opening[64];
	int length =
		snprintf((char *)opening, sizeof(opening), "CONNECT %d\n", EGRESS_PUBLISH_PORT);

	egress_encode_hello(opening + length, &target);
	length += EGRESS_HELLO_SIZE;
	if (fd < 0 ||
	    connect(fd, (const struct sockaddr *)&forwarder->base, sizeof(forwarder->base)) < 0)
		return -errno;
	/* A fresh socket takes that much. */
	if (send(fd, opening, (size_t)length, MSG_NOSIGNAL) != length)
		return -EIO;
	return steal_fd(&fd);
}

static int add_end(struct connection *connection, enum side side, int fd)
{
	struct end *end = &connection->ends[side];
	int error;

	*end = (struct end){ .source = { .ready = end_ready, .fd = fd }, .connection = connection };
	error = event_loop_add(&connection->forwarder->loop, &end->source, 0);
	if (error < 0)
		end->source.fd = -1;
	return error;
}

static void address_text(const struct sockaddr_storage *address, char text[INET6_ADDRSTRLEN],
			 uint16_t *ret_port)
{
	bool is_v6 = address->ss_family == AF_INET6;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	memcpy(&v4, address, sizeof(v4));
	memcpy(&v6, address, sizeof(v6));
	if (!inet_ntop(address->ss_family,
		       is_v6 ? (const void *)&v6.sin6_addr : (const void *)&v4.sin_addr, text,
		       INET6_ADDRSTRLEN))
		text[0] = '\0';
	if (ret_port)
		*ret_port = ntohs(is_v6 ? v6.sin6_port : v4.sin_port);
}

/* Takes the host's descriptor over. */
static void connect_both(struct forwarder *forwarder, int host_fd, const struct door *door,
			 const struct sockaddr_storage *peer)
{
	struct connection *connection = allocate(1, sizeof(*connection));
	cleanup_fd int host = host_fd;
	cleanup_fd int guest = dial_guest(forwarder, door->guest_port);
	bool fine;

	connection->forwarder = forwarder;
	connection->door = door;
	connection->started_ns = clock_now_ns();
	connection->reason = guest < 0 ? "guest_unreachable" : NULL;
	address_text(peer, connection->peer, NULL);
	connection->ends[SIDE_HOST].source.fd = connection->ends[SIDE_GUEST].source.fd = -1;
	connection->next = forwarder->all;
	if (forwarder->all)
		forwarder->all->previous = connection;
	forwarder->all = connection;
	forwarder->count++;
	fine = guest >= 0 &&
	       relay_init(&connection->relays[SIDE_HOST], host, RELAY_SOCKET, guest, RELAY_SOCKET,
			  BUFFER_SIZE) == 0 &&
	       relay_init(&connection->relays[SIDE_GUEST], guest, RELAY_SOCKET, host, RELAY_SOCKET,
			  BUFFER_SIZE) == 0;
	if (!fine || add_end(connection, SIDE_HOST, host) < 0) {
		close_connection(connection);
		return;
	}
	steal_fd(&host);
	if (add_end(connection, SIDE_GUEST, guest) < 0) {
		close_connection(connection);
		return;
	}
	steal_fd(&guest);
	settle(connection);
}

static void door_ready(struct event_source *source, uint32_t events)
{
	struct door *door = (struct door *)source;
	struct forwarder *forwarder = door->forwarder;
	struct sockaddr_storage peer = { 0 };
	socklen_t length = sizeof(peer);
	const int on = 1;
	int fd;

	(void)events;
	fd = accept4(source->fd, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	connect_both(forwarder, fd, door, &peer);
	if (forwarder->count == PORT_FORWARD_CONNECTIONS_MAX)
		watch_doors(forwarder, false);
}

/* ---- all -------------------------------------------------------------------------------- */

static void end_seen(struct event_source *source, uint32_t events)
{
	struct forwarder *forwarder =
		(struct forwarder *)((char *)source - offsetof(struct forwarder, end));

	(void)events;
	forwarder->has_ended = true;
}

static void signal_seen(struct event_source *source, uint32_t events)
{
	struct forwarder *forwarder =
		(struct forwarder *)((char *)source - offsetof(struct forwarder, signals));

	(void)events;
	forwarder->has_ended = true;
}

/* Connections that are there then are told to the log. */
static int watch_signals(struct forwarder *forwarder)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	forwarder->signals = (struct event_source){
		.ready = signal_seen,
		.fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK),
	};
	if (forwarder->signals.fd < 0)
		return -errno;
	return event_loop_add(&forwarder->loop, &forwarder->signals, EPOLLIN);
}

static void name_door(struct door *door)
{
	struct sockaddr_storage address = { 0 };
	socklen_t length = sizeof(address);
	char text[INET6_ADDRSTRLEN] = "";
	uint16_t port = 0;

	if (getsockname(door->source.fd, (struct sockaddr *)&address, &length) == 0)
		address_text(&address, text, &port);
	snprintf(door->rule, sizeof(door->rule), "%s:%u:%u", text, port, door->guest_port);
}

static int set_up(struct forwarder *forwarder, const struct forward_options *options)
{
	const struct forward_listener *listeners = options->listeners;
	const char *socket_base = options->socket_base;
	int error = event_loop_init(&forwarder->loop);

	forwarder->audit_fd = options->audit_fd;
	forwarder->base.sun_family = AF_UNIX;
	if (strlen(socket_base) >= sizeof(forwarder->base.sun_path))
		return -ENAMETOOLONG;
	memcpy(forwarder->base.sun_path, socket_base, strlen(socket_base) + 1);
	for (size_t i = 0; error == 0 && i < options->count; i++) {
		struct door *door = &forwarder->doors[i];

		*door = (struct door){ .source = { .ready = door_ready, .fd = listeners[i].fd },
				       .forwarder = forwarder,
				       .guest_port = listeners[i].guest_port };
		name_door(door);
		error = event_loop_add(&forwarder->loop, &door->source, EPOLLIN);
		forwarder->door_count++;
	}
	forwarder->end = (struct event_source){ .ready = end_seen, .fd = options->end_fd };
	if (error == 0)
		error = watch_signals(forwarder);
	if (error == 0 && options->end_fd >= 0)
		error = event_loop_add(&forwarder->loop, &forwarder->end, EPOLLIN);
	return error;
}

int port_forward_serve(const struct forward_options *options)
{
	struct forwarder *forwarder = allocate(1, sizeof(*forwarder));
	int error = set_up(forwarder, options);

	while (error >= 0 && !forwarder->has_ended)
		error = event_loop_run_once(&forwarder->loop, -1);
	while (forwarder->all) {
		forwarder->all->reason = "session_ended";
		close_connection(forwarder->all);
	}
	if (forwarder->signals.fd > 0)
		close(forwarder->signals.fd);
	event_loop_release(&forwarder->loop);
	free(forwarder);
	return error < 0 ? error : 0;
}
