#include "proxy/connector.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "proxy/shortage.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>

/*
 * Theory of operation
 *
 * An attempt is in one of three states:
 *
 *	resolving	`query` is set; the timer stands at the time limit
 *	racing		sockets in `racers` are connecting; the timer stands at the next fallback
 *			or at the time limit, whichever is first
 *	tunnelling	`tunnel` is set: the proxy is connected, its answer is not complete
 *
 * finish() leaves all of them: it takes everything down, frees the attempt and calls back last, so
 * whoever called finish() must not touch the attempt again.
 */

static const struct jail_syscall calls[] = {
	JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL32(0, AF_INET)),
	JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL32(0, AF_INET6)),
	JAIL_CALL(SYS_connect),
	JAIL_CALL(SYS_getsockopt),
	JAIL_CALL(SYS_setsockopt),
	JAIL_CALL(SYS_getsockname),
	JAIL_CALL(SYS_getpeername),
	JAIL_CALL(SYS_sendto),
	JAIL_CALL(SYS_recvfrom),
	JAIL_CALL(SYS_close),
	JAIL_CALL(SYS_epoll_ctl),
	JAIL_CALL(SYS_timerfd_create),
	JAIL_CALL(SYS_timerfd_settime),
	JAIL_CALL(SYS_clock_gettime),
	JAIL_CALL(SYS_read),
};
const struct jail_syscall_set connector_calls = JAIL_SET(calls);

struct racer {
	struct event_source source; /* fd -1: none */
	struct connector_attempt *attempt;
	const struct ip_address *address;
};

struct tunnel {
	struct event_source source;
	struct connector_attempt *attempt;
	size_t sent;
	size_t request_length;
	char request[UPSTREAM_PROXY_REQUEST_MAX];
	size_t received;
	char response[UPSTREAM_PROXY_RESPONSE_MAX];
};

struct connector_attempt {
	struct connector *connector;
	struct host_name name;
	uint16_t port;
	bool is_proxied;
	connector_done *done;
	void *context;
	uint64_t deadline_ms;
	struct event_source timer;
	struct resolver_query *query;
	struct ip_address addresses[RESOLVER_ADDRESSES_MAX]; /* in the order of trying */
	size_t address_count;
	size_t next;
	bool may_be_own; /* the addresses were the person's choice */
	struct racer racers[RESOLVER_ADDRESSES_MAX];
	size_t racing;
	struct tunnel *tunnel;
	struct connect_result result;
};

struct connector {
	struct event_loop *loop;
	struct resolver *resolver;
	const struct upstream_proxy *upstream;
	unsigned timeout_ms;
	uint64_t files_max;
	size_t count;
};

static uint16_t dialled_port(const struct connector_attempt *attempt)
{
	return attempt->is_proxied ? attempt->connector->upstream->port : attempt->port;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static void close_racer(struct racer *racer)
{
	if (racer->source.fd < 0)
		return;
	event_loop_remove(racer->attempt->connector->loop, &racer->source);
	close(racer->source.fd);
	racer->source.fd = -1;
	racer->attempt->racing--;
}

static void drop_tunnel(struct connector_attempt *attempt)
{
	struct tunnel *tunnel = steal_pointer(&attempt->tunnel);

	if (!tunnel)
		return;
	if (tunnel->source.fd >= 0) {
		event_loop_remove(attempt->connector->loop, &tunnel->source);
		close(tunnel->source.fd);
	}
	OPENSSL_cleanse(tunnel->request, sizeof(tunnel->request));
	free(tunnel);
}

static void attempt_free(struct connector_attempt *attempt)
{
	struct connector *connector = attempt->connector;

	if (attempt->query)
		resolver_cancel(attempt->query);
	for (size_t i = 0; i < attempt->next; i++)
		close_racer(&attempt->racers[i]);
	drop_tunnel(attempt);
	if (attempt->timer.fd >= 0) {
		event_loop_remove(connector->loop, &attempt->timer);
		close(attempt->timer.fd);
	}
	connector->count--;
	free(attempt);
}

static void finish(struct connector_attempt *attempt)
{
	struct connect_result result = attempt->result;
	connector_done *done = attempt->done;
	void *context = attempt->context;

	attempt_free(attempt);
	done(context, &result);
}

static void fail(struct connector_attempt *attempt, const char *reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void fail(struct connector_attempt *attempt, const char *reason, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(attempt->result.detail, sizeof(attempt->result.detail), format, arguments);
	va_end(arguments);
	attempt->result.reason = reason;
	finish(attempt);
}

static void succeed(struct connector_attempt *attempt, int fd)
{
	attempt->result.fd = fd;
	attempt->result.reason = NULL;
	attempt->result.detail[0] = '\0';
	finish(attempt);
}

/* ---- tunnelling ------------------------------------------------------------------------------ */

static void fail_tunnel(struct connector_attempt *attempt, const char *what)
{
	fail(attempt, "upstream_proxy_failed", "the upstream proxy: %s", what);
}

/* The status line, as far as it is printable. */
static void refuse_tunnel(struct connector_attempt *attempt, const struct tunnel *tunnel)
{
	char line[128];
	const char *end = memchr(tunnel->response, '\r', tunnel->received);

	escape_text(tunnel->response, end ? (size_t)(end - tunnel->response) : tunnel->received,
		    line, sizeof(line));
	fail(attempt, "upstream_proxy_failed", "the upstream proxy refused a tunnel to %.60s: %s",
	     attempt->name.text, line);
}

static void end_tunnel(struct connector_attempt *attempt)
{
	struct tunnel *tunnel = attempt->tunnel;
	int status = upstream_proxy_status(tunnel->response, tunnel->received);
	int fd;

	if (status < 200 || status > 299) {
		refuse_tunnel(attempt, tunnel);
		return;
	}
	event_loop_remove(attempt->connector->loop, &tunnel->source);
	fd = steal_fd(&tunnel->source.fd);
	succeed(attempt, fd);
}

/* Takes nothing off the socket that is behind the head: it belongs to the tunnel. */
static void read_tunnel(struct connector_attempt *attempt)
{
	struct tunnel *tunnel = attempt->tunnel;
	char *target = tunnel->response + tunnel->received;
	size_t room = sizeof(tunnel->response) - tunnel->received;
	ssize_t length = recv(tunnel->source.fd, target, room, MSG_PEEK);
	size_t head;

	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length <= 0) {
		fail_tunnel(attempt, length < 0 ? strerror(errno) : "it closed the connection");
		return;
	}
	head = upstream_proxy_head_length(tunnel->response, tunnel->received + (size_t)length);
	if (head > 0)
		length = (ssize_t)(head - tunnel->received);
	if (recv(tunnel->source.fd, target, (size_t)length, 0) != length) {
		fail_tunnel(attempt, "its answer changed while it was read");
		return;
	}
	tunnel->received += (size_t)length;
	if (head > 0)
		end_tunnel(attempt);
	else if (tunnel->received == sizeof(tunnel->response))
		fail_tunnel(attempt, "its answer is too long");
}

static void write_tunnel(struct connector_attempt *attempt)
{
	struct tunnel *tunnel = attempt->tunnel;
	ssize_t length = send(tunnel->source.fd, tunnel->request + tunnel->sent,
			      tunnel->request_length - tunnel->sent, MSG_NOSIGNAL);

	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length < 0) {
		fail_tunnel(attempt, strerror(errno));
		return;
	}
	tunnel->sent += (size_t)length;
	if (tunnel->sent == tunnel->request_length)
		(void)event_loop_modify(attempt->connector->loop, &tunnel->source, EPOLLIN);
}

static void on_tunnel_ready(struct event_source *source, uint32_t events)
{
	struct tunnel *tunnel = (struct tunnel *)source;

	(void)events;
	if (tunnel->sent < tunnel->request_length)
		write_tunnel(tunnel->attempt);
	else
		read_tunnel(tunnel->attempt);
}

/* Takes over `fd`. */
static void start_tunnel(struct connector_attempt *attempt, int fd)
{
	struct tunnel *tunnel = calloc(1, sizeof(*tunnel));
	int error = tunnel ? 0 : -ENOMEM;

	static_assert(offsetof(struct tunnel, source) == 0, "a source is its tunnel");
	if (tunnel) {
		tunnel->attempt = attempt;
		tunnel->source = (struct event_source){ on_tunnel_ready, fd };
		tunnel->request_length =
			upstream_proxy_request(attempt->connector->upstream, &attempt->name,
					       attempt->port, tunnel->request);
		error = event_loop_add(attempt->connector->loop, &tunnel->source, EPOLLOUT);
	}
	if (error) {
		close(fd);
		free(tunnel);
		fail_tunnel(attempt, strerror(-error));
		return;
	}
	attempt->tunnel = tunnel;
}

/* ---- racing ---------------------------------------------------------------------------------- */

/* The timer fires at the limit, or earlier when there is an address left to fall back to. */
static void set_timer(struct connector_attempt *attempt)
{
	uint64_t now = clock_now_ms();
	uint64_t delay = attempt->deadline_ms > now ? attempt->deadline_ms - now : 0;
	struct itimerspec when = { 0 };

	if (attempt->racing > 0 && attempt->next < attempt->address_count)
		delay = MIN_OF(delay, CONNECTOR_FALLBACK_MS);
	when.it_value.tv_sec = (time_t)(delay / 1000);
	when.it_value.tv_nsec = delay > 0 ? (long)(delay % 1000) * 1000000 : 1;
	/* Only a bad descriptor or value makes this fail. */
	(void)timerfd_settime(attempt->timer.fd, 0, &when, NULL);
}

static void note_failure(struct connector_attempt *attempt, const struct ip_address *address,
			 const char *what)
{
	char text[IP_ADDRESS_TEXT_MAX];

	ip_address_text(address, text);
	attempt->result.address = *address;
	snprintf(attempt->result.detail, sizeof(attempt->result.detail), "%s port %u: %s", text,
		 dialled_port(attempt), what);
}

static void on_racer_ready(struct event_source *source, uint32_t events);

/* Returns 0 or a negative errno; the racer has a socket that is connecting, or none. */
static int start_racer(struct connector_attempt *attempt, struct racer *racer)
{
	const int enabled = 1;
	struct sockaddr_storage peer;
	cleanup_fd int fd = -1;
	socklen_t length;
	int error;

	ip_address_to_socket(racer->address, dialled_port(attempt), &peer, &length);
	fd = socket(peer.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Both only make it slower where they fail. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &enabled, sizeof(enabled));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &enabled, sizeof(enabled));
	if (connect(fd, (const struct sockaddr *)&peer, length) < 0 && errno != EINPROGRESS)
		return -errno;
	racer->source.fd = fd;
	error = event_loop_add(attempt->connector->loop, &racer->source, EPOLLOUT);
	if (error) {
		racer->source.fd = -1;
		return error;
	}
	(void)steal_fd(&fd);
	attempt->racing++;
	return 0;
}

static const char *reason_for(const struct connector_attempt *attempt, int error)
{
	if (shortage_is_of_files(error))
		return "too_many_connections";
	return attempt->is_proxied ? "upstream_proxy_failed" : "connect_failed";
}

/* Dials the next address that can be dialled at all. May end the attempt. */
static void start_next(struct connector_attempt *attempt)
{
	char text[SHORTAGE_TEXT_MAX];
	int error = 0;

	while (attempt->next < attempt->address_count) {
		struct racer *racer = &attempt->racers[attempt->next];

		racer->attempt = attempt;
		racer->address = &attempt->addresses[attempt->next++];
		racer->source = (struct event_source){ on_racer_ready, -1 };
		error = start_racer(attempt, racer);
		if (!error) {
			set_timer(attempt);
			return;
		}
		if (shortage_is_of_files(error))
			shortage_text(error, attempt->connector->files_max, text);
		else
			snprintf(text, sizeof(text), "%s", strerror(-error));
		note_failure(attempt, racer->address, text);
	}
	if (attempt->racing == 0) {
		attempt->result.reason = reason_for(attempt, error);
		finish(attempt);
		return;
	}
	set_timer(attempt);
}

/* NULL, or what is wrong with a connected socket. */
static const char *check_peer(const struct connector_attempt *attempt, int fd,
			      const struct ip_address *wanted)
{
	struct sockaddr_storage peer = { 0 }, local = { 0 };
	socklen_t peer_length = sizeof(peer), local_length = sizeof(local);
	struct ip_address peer_address, local_address;
	uint16_t peer_port, local_port;
	uint16_t port = dialled_port(attempt);

	if (getpeername(fd, (struct sockaddr *)&peer, &peer_length) < 0 ||
	    getsockname(fd, (struct sockaddr *)&local, &local_length) < 0)
		return strerror(errno);
	if (ip_address_from_socket(&peer, &peer_address, &peer_port) < 0 ||
	    ip_address_from_socket(&local, &local_address, &local_port) < 0 ||
	    !ip_address_equal(&peer_address, wanted) || peer_port != port)
		return "the connection leads elsewhere";
	if (!ip_address_equal(&peer_address, &local_address))
		return NULL;
	if (peer_port == local_port)
		return "the connection leads back to itself";
	return attempt->may_be_own ? NULL : "the address is the host's own";
}

static void on_racer_ready(struct event_source *source, uint32_t events)
{
	struct racer *racer = (struct racer *)source;
	struct connector_attempt *attempt = racer->attempt;
	socklen_t length = sizeof(int);
	const char *wrong;
	int error = 0;
	int fd;

	static_assert(offsetof(struct racer, source) == 0, "a source is its racer");
	(void)events;
	if (getsockopt(racer->source.fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		error = errno;
	wrong = error ? strerror(error) : check_peer(attempt, racer->source.fd, racer->address);
	if (wrong) {
		note_failure(attempt, racer->address, wrong);
		close_racer(racer);
		start_next(attempt);
		return;
	}
	event_loop_remove(attempt->connector->loop, &racer->source);
	fd = steal_fd(&racer->source.fd);
	attempt->racing--;
	for (size_t i = 0; i < attempt->next; i++)
		close_racer(&attempt->racers[i]);
	attempt->result.address = *racer->address;
	/* No more fallback. */
	attempt->address_count = attempt->next;
	if (attempt->is_proxied)
		start_tunnel(attempt, fd);
	else
		succeed(attempt, fd);
}

/* ---- resolving ------------------------------------------------------------------------------- */

/* Both families in turn, IPv6 first, each in the order that the answer had. */
static void order_addresses(struct connector_attempt *attempt, const struct ip_address *addresses,
			    size_t count)
{
	size_t position[2] = { 0, 0 };
	unsigned turn = 0;

	while (attempt->address_count < count) {
		uint8_t family = turn % 2 == 0 ? 6 : 4;
		size_t *i = &position[turn++ % 2];

		while (*i < count && addresses[*i].family != family)
			(*i)++;
		if (*i < count)
			attempt->addresses[attempt->address_count++] = addresses[(*i)++];
	}
}

static void fail_resolving(struct connector_attempt *attempt, const struct resolution *resolution)
{
	const char *name =
		attempt->is_proxied ? attempt->connector->upstream->name.text : attempt->name.text;
	char text[IP_ADDRESS_TEXT_MAX];

	switch (resolution->error) {
	case -EACCES:
		ip_address_text(&resolution->blocked, text);
		attempt->result.address = resolution->blocked;
		fail(attempt, "address_blocked", "%.100s resolves to %s (%s)", name, text,
		     resolution->blocked_class);
		return;
	case -ENOENT:
		fail(attempt, "name_not_found", "%.100s does not exist or has no address", name);
		return;
	default:
		fail(attempt, "resolve_failed", "%.100s: the host's name servers: %s", name,
		     strerror(-resolution->error));
		return;
	}
}

static void on_resolved(void *context, const struct resolution *resolution)
{
	struct connector_attempt *attempt = context;

	attempt->query = NULL;
	if (resolution->error) {
		fail_resolving(attempt, resolution);
		return;
	}
	attempt->may_be_own = resolution->is_pinned || attempt->is_proxied;
	order_addresses(attempt, resolution->addresses, resolution->count);
	start_next(attempt);
}

static void on_timer(struct event_source *source, uint32_t events)
{
	struct connector_attempt *attempt =
		(struct connector_attempt *)((char *)source -
					     offsetof(struct connector_attempt, timer));
	bool is_at_limit = clock_now_ms() >= attempt->deadline_ms;
	uint64_t expirations;

	(void)events;
	(void)!read(source->fd, &expirations, sizeof(expirations));
	if (!is_at_limit && attempt->next < attempt->address_count) {
		start_next(attempt);
		return;
	}
	if (!is_at_limit) {
		set_timer(attempt);
		return;
	}
	if (attempt->tunnel)
		fail_tunnel(attempt, "it did not answer in time");
	else
		fail(attempt, attempt->query ? "resolve_failed" : "connect_timeout",
		     "%.100s port %u did not answer in %u s", attempt->name.text, attempt->port,
		     attempt->connector->timeout_ms / 1000);
}

/* ---- making ---------------------------------------------------------------------------------- */

int connector_new(const struct connector_options *options, struct connector **ret_connector)
{
	struct connector *connector = calloc(1, sizeof(*connector));

	if (!connector)
		return -ENOMEM;
	connector->loop = options->loop;
	connector->resolver = options->resolver;
	connector->upstream = options->upstream;
	connector->timeout_ms = options->timeout_ms ? options->timeout_ms : CONNECTOR_TIMEOUT_MS;
	connector->files_max = options->files_max;
	*ret_connector = connector;
	return 0;
}

void connector_free(struct connector *connector)
{
	free(connector);
}

static int start_timer(struct connector_attempt *attempt)
{
	int error;

	attempt->timer.ready = on_timer;
	attempt->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (attempt->timer.fd < 0)
		return -errno;
	error = event_loop_add(attempt->connector->loop, &attempt->timer, EPOLLIN);
	if (error) {
		close(attempt->timer.fd);
		attempt->timer.fd = -1;
	}
	return error;
}

/* Begins to resolve, or, where the proxy is an address, leaves it to the timer to dial. */
static int begin(struct connector_attempt *attempt)
{
	const struct connector *connector = attempt->connector;
	const struct upstream_proxy *upstream = connector->upstream;
	const struct itimerspec at_once = { .it_value = { .tv_nsec = 1 } };

	if (attempt->is_proxied && !upstream->has_name) {
		attempt->may_be_own = true;
		attempt->addresses[attempt->address_count++] = upstream->address;
		return timerfd_settime(attempt->timer.fd, 0, &at_once, NULL) < 0 ? -errno : 0;
	}
	set_timer(attempt);
	return resolver_start(connector->resolver,
			      attempt->is_proxied ? &upstream->name : &attempt->name,
			      attempt->is_proxied, on_resolved, attempt, &attempt->query);
}

int connector_start(struct connector *connector, const struct host_name *name, uint16_t port,
		    connector_done *done, void *context, struct connector_attempt **ret_attempt)
{
	struct connector_attempt *attempt;
	int error;

	if (connector->count >= CONNECTOR_ATTEMPTS_MAX)
		return -EBUSY;
	attempt = calloc(1, sizeof(*attempt));
	if (!attempt)
		return -ENOMEM;
	connector->count++;
	attempt->connector = connector;
	attempt->name = *name;
	attempt->port = port;
	attempt->is_proxied = connector->upstream && !resolver_is_pinned(connector->resolver, name);
	attempt->done = done;
	attempt->context = context;
	attempt->result.fd = -1;
	attempt->timer.fd = -1;
	attempt->deadline_ms = clock_now_ms() + connector->timeout_ms;
	error = start_timer(attempt);
	if (!error)
		error = begin(attempt);
	if (error) {
		attempt_free(attempt);
		return error;
	}
	*ret_attempt = attempt;
	return 0;
}

void connector_cancel(struct connector_attempt *attempt)
{
	attempt_free(attempt);
}
