/*
 * A client of HTTP/1.1 over TLS for measuring what stands between it and a server:
 *
 *     http_load --ca FILE --name NAME --port PORT [--header LINE] [--path PATH] PEER MODE
 *
 * PEER is how the server is reached:
 *
 *     direct              TCP to PORT of loopback
 *     reverse:PORT        TCP to that port of loopback
 *     forward:PORT:HOST   the same, and CONNECT HOST:PORT
 *     egress:ADDR:SOCKET  a Unix socket, and a struct egress_hello for the IPv4 address ADDR and
 * PORT
 *
 * and MODE what is measured, printed as one line of numbers:
 *
 *     latency COUNT               median time of a GET on one connection, in microseconds
 *     rate CONNECTIONS SECONDS    GETs a second on that many connections that stay open
 *     fresh CONNECTIONS SECONDS   the same with a new connection, never resumed, for each GET
 *     bulk MIB                    MB/s of one answer of that length
 *     events                      of a stream of events, "event NANOSECONDS", each ended by an
 * empty line: the 99th percentile of their age on arrival in milliseconds, how many bytes of an
 * event came only after a pause, and their count idle CONNECTIONS            one GET on each, then
 * "ready"; ends with its standard input
 *
 * Certificates are verified, and any answer but 200 ends it with a message.
 */
#include "base/io.h"
#include "wire/egress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096u
#define SAMPLES_MAX 1000000u
#define HEAD_MAX 8192u
#define READ_SIZE 65536u
#define SILENCE_MS 60000
/* A stream is silent when nothing has come for so long; its events are further apart. */
#define PAUSE_MS 3
/* Of each event. */
#define EVENT_SIZE 128u

enum peer_kind { PEER_TCP, PEER_FORWARD, PEER_EGRESS };

struct options {
	const char *ca;
	char *name; /* not const: a macro of OpenSSL casts it */
	uint16_t port;
	const char *header;
	const char *path;
	enum peer_kind peer;
	uint16_t peer_port;
	const char *peer_argument; /* HOST, or SOCKET */
	struct in_addr peer_address;
};

enum phase { PHASE_OPENING, PHASE_HANDSHAKE, PHASE_REQUEST, PHASE_HEAD, PHASE_BODY, PHASE_DONE };

struct connection {
	int fd;
	SSL *ssl;
	enum phase phase;
	char head[HEAD_MAX];
	size_t head_length;
	uint64_t remaining;
};

struct load {
	struct options options;
	SSL_CTX *context;
	int epoll;
	char request[HEAD_MAX];
	size_t request_length;
	uint8_t body[READ_SIZE];
};

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* ---- one connection ------------------------------------------------------------------------- */

static int dial_port(uint16_t port)
{
	const struct sockaddr_in address = { .sin_family = AF_INET,
					     .sin_port = htons(port),
					     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(fd >= 0, "socket");
	must(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0, "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static int dial_egress(const struct options *options)
{
	struct egress_target target = { .family = 4, .port = options->port };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	uint8_t hello[EGRESS_HELLO_SIZE];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(fd >= 0, "socket");
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", options->peer_argument);
	must(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0, "connect");
	memcpy(target.address, &options->peer_address, sizeof(options->peer_address));
	egress_encode_hello(hello, &target);
	must(write(fd, hello, sizeof(hello)) == (ssize_t)sizeof(hello), "hello");
	return fd;
}

static int dial_forward(const struct options *options)
{
	char text[512];
	int fd = dial_port(options->peer_port);
	int length = snprintf(text, sizeof(text), "CONNECT %s:%u HTTP/1.1\r\nHost: %s:%u\r\n\r\n",
			      options->peer_argument, options->port, options->peer_argument,
			      options->port);

	must(write(fd, text, (size_t)length) == length, "CONNECT");
	return fd;
}

static void open_connection(struct load *load, struct connection *connection)
{
	const struct options *options = &load->options;
	/* What is written is small and fits. Whoever asks for EPOLLOUT on a Unix socket is woken
	 * whenever its peer reads. */
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.ptr = connection };

	if (options->peer == PEER_EGRESS)
		connection->fd = dial_egress(options);
	else if (options->peer == PEER_FORWARD)
		connection->fd = dial_forward(options);
	else
		connection->fd = dial_port(options->peer_port);
	connection->phase = options->peer == PEER_FORWARD ? PHASE_OPENING : PHASE_HANDSHAKE;
	connection->head_length = 0;
	set_nonblocking(connection->fd, true);
	connection->ssl = SSL_new(load->context);
	must(connection->ssl && SSL_set_fd(connection->ssl, connection->fd) == 1 &&
		     SSL_set_tlsext_host_name(connection->ssl, options->name) == 1 &&
		     SSL_set1_host(connection->ssl, options->name) == 1,
	     "TLS");
	SSL_set_connect_state(connection->ssl);
	must(epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->fd, &event) == 0, "epoll");
}

static void close_connection(struct connection *connection)
{
	(void)SSL_shutdown(connection->ssl);
	SSL_free(connection->ssl);
	close(connection->fd);
}

/* False while it has to wait. */
static bool can_go_on(struct connection *connection, int result)
{
	int error;

	if (result > 0)
		return true;
	error = SSL_get_error(connection->ssl, result);
	must(error == SSL_ERROR_WANT_READ, "connection lost");
	return false;
}

/* The answer to CONNECT, which nothing follows before our ClientHello. */
static bool step_opening(struct connection *connection)
{
	ssize_t count = recv(connection->fd, connection->head + connection->head_length,
			     HEAD_MAX - 1 - connection->head_length, 0);

	if (count < 0 && errno == EAGAIN)
		return false;
	must(count > 0, "answer to CONNECT");
	connection->head_length += (size_t)count;
	connection->head[connection->head_length] = '\0';
	if (strstr(connection->head, "\r\n\r\n")) {
		must(strncmp(connection->head + 8, " 200", 4) == 0, connection->head);
		connection->phase = PHASE_HANDSHAKE;
	}
	return true;
}

/* With a whole head: how long the body is, and what of it came along. */
static void take_head(struct connection *connection)
{
	const char *end = strstr(connection->head, "\r\n\r\n");
	const char *length;
	size_t beside;

	if (!end)
		return;
	must(strncmp(connection->head, "HTTP/1.1 200", 12) == 0, connection->head);
	length = strcasestr(connection->head, "\r\nContent-Length: ");
	connection->remaining = length ? strtoull(length + 18, NULL, 10) : UINT64_MAX;
	beside = connection->head_length - (size_t)(end + 4 - connection->head);
	connection->remaining -= length ? beside : 0;
	connection->phase = connection->remaining > 0 ? PHASE_BODY : PHASE_DONE;
}

static bool step_head(struct connection *connection)
{
	int result = SSL_read(connection->ssl, connection->head + connection->head_length,
			      (int)(HEAD_MAX - 1 - connection->head_length));

	if (!can_go_on(connection, result))
		return false;
	connection->head_length += (size_t)result;
	connection->head[connection->head_length] = '\0';
	take_head(connection);
	return true;
}

static bool step_body(struct load *load, struct connection *connection)
{
	int result = SSL_read(connection->ssl, load->body, sizeof(load->body));

	if (!can_go_on(connection, result))
		return false;
	connection->remaining -= (uint64_t)result;
	if (connection->remaining == 0)
		connection->phase = PHASE_DONE;
	return true;
}

static bool step(struct load *load, struct connection *connection)
{
	switch (connection->phase) {
	case PHASE_OPENING:
		return step_opening(connection);
	case PHASE_HANDSHAKE:
		if (!can_go_on(connection, SSL_do_handshake(connection->ssl)))
			return false;
		connection->phase = PHASE_REQUEST;
		return true;
	case PHASE_REQUEST:
		if (!can_go_on(connection, SSL_write(connection->ssl, load->request,
						     (int)load->request_length)))
			return false;
		connection->phase = PHASE_HEAD;
		connection->head_length = 0;
		return true;
	case PHASE_HEAD:
		return step_head(connection);
	case PHASE_BODY:
		return step_body(load, connection);
	case PHASE_DONE:
		break;
	}
	return false;
}

/* True with a whole answer. */
static bool advance(struct load *load, struct connection *connection)
{
	while (step(load, connection)) {
	}
	return connection->phase == PHASE_DONE;
}

static int await(const struct load *load, struct epoll_event *events, int capacity, int limit_ms)
{
	int count;

	do {
		count = epoll_wait(load->epoll, events, capacity, limit_ms);
	} while (count < 0 && errno == EINTR);
	must(count >= 0, "epoll");
	return count;
}

/* One answer, waited for. */
static void get(struct load *load, struct connection *connection)
{
	struct epoll_event event;

	if (connection->phase == PHASE_DONE)
		connection->phase = PHASE_REQUEST;
	while (!advance(load, connection))
		must(await(load, &event, 1, SILENCE_MS) > 0, "no answer");
}

/* ---- what is measured ----------------------------------------------------------------------- */

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left;
	uint64_t b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static uint64_t percentile(uint64_t *samples, size_t count, size_t percent)
{
	must(count > 0, "nothing was measured");
	qsort(samples, count, sizeof(*samples), compare);
	return samples[count * percent / 100];
}

static void measure_latency(struct load *load, size_t count)
{
	static uint64_t samples[SAMPLES_MAX];
	struct connection connection = { 0 };

	must(count <= SAMPLES_MAX, "too many");
	open_connection(load, &connection);
	for (size_t i = 0; i < count / 10 + 1; i++)
		get(load, &connection);
	for (size_t i = 0; i < count; i++) {
		uint64_t began = now_ns();

		get(load, &connection);
		samples[i] = now_ns() - began;
	}
	printf("%.2f\n", (double)percentile(samples, count, 50) / 1e3);
}

/* As far as it goes without waiting. Returns how many answers came. */
static uint64_t go_on(struct load *load, struct connection *connection, bool is_fresh)
{
	uint64_t answers = 0;

	while (advance(load, connection)) {
		answers++;
		connection->phase = PHASE_REQUEST;
		if (is_fresh) {
			close_connection(connection);
			open_connection(load, connection);
		}
	}
	return answers;
}

static void measure_rate(struct load *load, size_t connections, double seconds, bool is_fresh)
{
	static struct connection all[CONNECTIONS_MAX];
	static struct epoll_event events[CONNECTIONS_MAX];
	uint64_t began;
	uint64_t until;
	uint64_t answers = 0;
	uint64_t now;

	must(connections <= CONNECTIONS_MAX, "too many");
	for (size_t i = 0; i < connections; i++) {
		open_connection(load, &all[i]);
		get(load, &all[i]);
	}
	began = now_ns();
	until = began + (uint64_t)(seconds * 1e9);
	for (size_t i = 0; i < connections; i++) {
		all[i].phase = PHASE_REQUEST;
		answers += go_on(load, &all[i], is_fresh);
	}
	while ((now = now_ns()) < until) {
		int count = await(load, events, (int)connections, SILENCE_MS);

		must(count > 0, "no answer");
		for (int i = 0; i < count; i++)
			answers += go_on(load, events[i].data.ptr, is_fresh);
	}
	printf("%.1f\n", (double)answers / ((double)(now - began) / 1e9));
}

static void measure_bulk(struct load *load, uint64_t mib)
{
	struct connection connection = { 0 };
	uint64_t began = now_ns();

	open_connection(load, &connection);
	get(load, &connection);
	printf("%.1f\n", (double)(mib << 20) / 1e6 / ((double)(now_ns() - began) / 1e9));
}

static void stay_idle(struct load *load, size_t connections)
{
	static struct connection all[CONNECTIONS_MAX];
	char byte;

	must(connections <= CONNECTIONS_MAX, "too many");
	for (size_t i = 0; i < connections; i++) {
		open_connection(load, &all[i]);
		get(load, &all[i]);
	}
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0) {
	}
}

/* ---- events --------------------------------------------------------------------------------- */

struct event_stream {
	char text[READ_SIZE];
	size_t length;
	uint64_t ages[SAMPLES_MAX / 100];
	size_t count;
	uint64_t held;
};

/* Ages of the events that are whole; what follows the last stays. */
static void take_events(struct event_stream *stream)
{
	char *begin = stream->text;
	char *end;

	stream->text[stream->length] = '\0';
	while ((end = strstr(begin, "\n\n")) != NULL) {
		const char *event = strstr(begin, "event ");

		must(event && event < end && stream->count < SAMPLES_MAX / 100, "no event");
		stream->ages[stream->count++] = now_ns() - strtoull(event + 6, NULL, 10);
		begin = end + 2;
	}
	stream->length -= (size_t)(begin - stream->text);
	memmove(stream->text, begin, stream->length + 1);
}

/* False at the stream's end. */
static bool read_events(struct connection *connection, struct event_stream *stream)
{
	for (;;) {
		int result = SSL_read(connection->ssl, stream->text + stream->length,
				      (int)(sizeof(stream->text) - 1 - stream->length));

		if (result <= 0)
			return SSL_get_error(connection->ssl, result) == SSL_ERROR_WANT_READ;
		stream->length += (size_t)result;
		take_events(stream);
		if (strstr(stream->text, "\r\n0\r\n\r\n"))
			return false;
	}
}

static void measure_events(struct load *load)
{
	static struct event_stream stream;
	struct connection connection = { 0 };
	struct epoll_event event;
	bool is_quiet = false;

	open_connection(load, &connection);
	while (connection.phase != PHASE_BODY) {
		while (connection.phase != PHASE_BODY && step(load, &connection)) {
		}
		if (connection.phase != PHASE_BODY)
			must(await(load, &event, 1, SILENCE_MS) > 0, "no answer");
	}
	for (const char *end = strstr(connection.head, "\r\n\r\n") + 2; *end; end++)
		stream.text[stream.length++] = *end;
	take_events(&stream);
	while (read_events(&connection, &stream)) {
		bool is_silent = await(load, &event, 1, is_quiet ? SILENCE_MS : PAUSE_MS) == 0;

		must(!is_silent || !is_quiet, "no more events");
		is_quiet = is_silent;
		/* An event that has begun and not ended, with nothing more coming. */
		if (is_quiet && strstr(stream.text, "event "))
			stream.held += EVENT_SIZE - stream.length % EVENT_SIZE;
	}
	printf("%.3f %llu %zu\n", (double)percentile(stream.ages, stream.count, 99) / 1e6,
	       (unsigned long long)stream.held, stream.count);
}

/* ---- arguments ------------------------------------------------------------------------------ */

static void parse_peer(struct options *options, char *text)
{
	char *first = strchr(text, ':');
	char *second = first ? strchr(first + 1, ':') : NULL;

	if (first)
		*first++ = '\0';
	if (second)
		*second++ = '\0';
	options->peer_argument = second;
	options->peer_port = first ? (uint16_t)strtoul(first, NULL, 10) : options->port;
	if (strcmp(text, "forward") == 0)
		options->peer = PEER_FORWARD;
	if (strcmp(text, "egress") == 0)
		options->peer = PEER_EGRESS;
	must(options->peer == PEER_TCP || second, "PEER");
	must(options->peer != PEER_EGRESS || inet_pton(AF_INET, first, &options->peer_address) == 1,
	     text);
}

static void prepare(struct load *load)
{
	const struct options *options = &load->options;

	load->request_length = (size_t)snprintf(load->request, sizeof(load->request),
						"GET %s HTTP/1.1\r\nHost: %s:%u\r\nUser-Agent: "
						"http_load\r\nAccept: */*\r\n%s%s\r\n",
						options->path, options->name, options->port,
						options->header, options->header[0] ? "\r\n" : "");
	load->epoll = epoll_create1(EPOLL_CLOEXEC);
	load->context = SSL_CTX_new(TLS_client_method());
	must(load->epoll >= 0 && load->context &&
		     SSL_CTX_load_verify_locations(load->context, options->ca, NULL) == 1,
	     "certificates");
	SSL_CTX_set_verify(load->context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(load->context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(load->context, 1);
	SSL_CTX_set_default_read_buffer_len(load->context, READ_SIZE);
}

static void measure(struct load *load, const char *mode, size_t count, double seconds)
{
	if (strcmp(mode, "latency") == 0)
		measure_latency(load, count);
	else if (strcmp(mode, "rate") == 0 || strcmp(mode, "fresh") == 0)
		measure_rate(load, count, seconds, mode[0] == 'f');
	else if (strcmp(mode, "bulk") == 0)
		measure_bulk(load, count);
	else if (strcmp(mode, "events") == 0)
		measure_events(load);
	else if (strcmp(mode, "idle") == 0)
		stay_idle(load, count);
	else
		must(false, mode);
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "ca", required_argument, NULL, 'c' },
		{ "name", required_argument, NULL, 'n' },
		{ "port", required_argument, NULL, 'p' },
		{ "path", required_argument, NULL, 'u' },
		{ "header", required_argument, NULL, 'H' },
		{ NULL, 0, NULL, 0 },
	};
	static struct load load = { .options = { .path = "/", .header = "" } };
	struct options *options = &load.options;
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (option == 'c')
			options->ca = optarg;
		else if (option == 'n')
			options->name = optarg;
		else if (option == 'p')
			options->port = (uint16_t)strtoul(optarg, NULL, 10);
		else if (option == 'u')
			options->path = optarg;
		else if (option == 'H')
			options->header = optarg;
		else
			return 2;
	}
	must(optind + 2 <= argc && options->ca && options->name && options->port, "usage");
	parse_peer(options, argv[optind]);
	prepare(&load);
	measure(&load, argv[optind + 1],
		optind + 2 < argc ? strtoul(argv[optind + 2], NULL, 10) : 1,
		optind + 3 < argc ? strtod(argv[optind + 3], NULL) : 1.0);
	return 0;
}
