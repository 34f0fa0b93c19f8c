#include "guest-init/egress_streams.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Theory of operation. Every end is registered edge-triggered, so that a connection costs no call
 * but those that move its bytes: an event sets what the end is ready for, and the call that would
 * block clears it. A flow is one direction. Its turn reads into one buffer that all share and
 * writes from there; only what the sink did not take is copied aside, and then nothing more is read
 * until that is gone. A turn is bounded; a stream that is not done then waits in a queue for the
 * next one, because no event will come for it.
 *
 *     source at its end, all written:	shut the sink's direction down		flow done
 *     TCP broken:			drop what is held, read no more		flow done
 *     the host's side broken:		drop what comes until its end		flow done
 *     source broken:								stream reset
 *     both flows done:								stream closed
 *
 * What comes for a host that takes no more is read all the same, because closing a TCP socket with
 * unread bytes resets it, and the reset would overtake the host's last words, such as why it takes
 * no more.
 *
 * A stream of the host's begins with its hello, which is read before there is a TCP socket; one to
 * the host begins with ours, as bytes that are held.
 */

#define CHUNK EGRESS_HELD_MAX
/* Reads in one turn of a flow. */
#define ROUNDS 8

enum side {
	SIDE_TCP,
	SIDE_HOST,
	SIDES,
};

struct end {
	struct event_source source; /* fd -1: not there yet */
	struct stream *stream;
	bool readable;
	bool writable;
	bool gone; /* takes nothing more, and gives what it has */
};

/* From the end of the same index to the other. */
struct flow {
	uint8_t *held;
	size_t start;
	size_t length;
	bool source_ended;
	bool discards;
	bool done;
};

struct stream {
	struct egress_streams *streams;
	struct stream *previous, *next; /* all */
	struct stream *next_busy;
	bool is_busy;
	struct end ends[SIDES];
	struct flow flows[SIDES];
	size_t hello_length; /* of a stream from the host: read so far */
	uint8_t hello[EGRESS_HELLO_SIZE];
};

struct egress_streams {
	struct event_loop *loop;
	egress_dial dial;
	void *context;
	struct stream *all;
	size_t count;
	struct stream *busy_first, *busy_last;
	uint8_t chunk[CHUNK];
};

struct egress_streams *egress_streams_new(struct event_loop *loop, egress_dial dial, void *context)
{
	struct egress_streams *streams = calloc(1, sizeof(*streams));

	if (!streams)
		return NULL;
	streams->loop = loop;
	streams->dial = dial;
	streams->context = context;
	return streams;
}

/* ---- life ------------------------------------------------------------------------------- */

static void reset_tcp(int fd)
{
	const struct linger at_once = { .l_onoff = 1 };

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

static void stop_being_busy(struct stream *stream)
{
	struct egress_streams *streams = stream->streams;
	struct stream **link = &streams->busy_first;
	struct stream *before = NULL;

	if (!stream->is_busy)
		return;
	while (*link != stream) {
		before = *link;
		link = &before->next_busy;
	}
	*link = stream->next_busy;
	if (streams->busy_last == stream)
		streams->busy_last = before;
	stream->is_busy = false;
}

static void be_busy(struct stream *stream)
{
	struct egress_streams *streams = stream->streams;

	if (stream->is_busy)
		return;
	stream->is_busy = true;
	stream->next_busy = NULL;
	if (streams->busy_last)
		streams->busy_last->next_busy = stream;
	else
		streams->busy_first = stream;
	streams->busy_last = stream;
}

static void close_end(struct end *end)
{
	if (end->source.fd < 0)
		return;
	event_loop_remove(end->stream->streams->loop, &end->source);
	close(end->source.fd);
	end->source.fd = -1;
}

static void close_stream(struct stream *stream, bool reset)
{
	struct egress_streams *streams = stream->streams;

	stop_being_busy(stream);
	if (reset && stream->ends[SIDE_TCP].source.fd >= 0)
		reset_tcp(stream->ends[SIDE_TCP].source.fd);
	for (size_t side = 0; side < SIDES; side++) {
		free(stream->flows[side].held);
		close_end(&stream->ends[side]);
	}
	if (stream->previous)
		stream->previous->next = stream->next;
	else
		streams->all = stream->next;
	if (stream->next)
		stream->next->previous = stream->previous;
	streams->count--;
	free(stream);
}

void egress_streams_free(struct egress_streams *streams)
{
	if (!streams)
		return;
	while (streams->all)
		close_stream(streams->all, true);
	free(streams);
}

static struct stream *new_stream(struct egress_streams *streams)
{
	struct stream *stream;

	if (streams->count >= EGRESS_STREAMS_MAX)
		return NULL;
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return NULL;
	stream->streams = streams;
	for (size_t side = 0; side < SIDES; side++) {
		stream->ends[side].source.fd = -1;
		stream->ends[side].stream = stream;
	}
	stream->next = streams->all;
	if (streams->all)
		streams->all->previous = stream;
	streams->all = stream;
	streams->count++;
	return stream;
}

/* ---- bytes ------------------------------------------------------------------------------ */

enum progress {
	WAITS, /* for an event */
	GOES_ON,
	BROKEN, /* the stream cannot be saved */
};

static void finish_flow(struct flow *flow)
{
	free(flow->held);
	flow->held = NULL;
	flow->length = 0;
	flow->done = true;
}

/* The sink takes no more. */
static void break_flow(struct stream *stream, enum side from)
{
	struct flow *flow = &stream->flows[from];

	if (from == SIDE_HOST) {
		(void)shutdown(stream->ends[SIDE_HOST].source.fd, SHUT_RD);
		finish_flow(flow);
		return;
	}
	free(flow->held);
	flow->held = NULL;
	flow->length = 0;
	flow->discards = true;
}

/* Sends once; what was taken, or 0. */
static size_t give(struct stream *stream, enum side from, const uint8_t *data, size_t length)
{
	struct end *sink = &stream->ends[1 - from];
	ssize_t count;

	do {
		count = send(sink->source.fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (count < 0 && errno == EINTR);
	if (count >= 0)
		return (size_t)count;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		sink->writable = false;
	else
		break_flow(stream, from);
	return 0;
}

static enum progress give_held(struct stream *stream, enum side from)
{
	struct flow *flow = &stream->flows[from];
	size_t given = give(stream, from, flow->held + flow->start, flow->length);

	if (flow->done || flow->discards)
		return GOES_ON;
	flow->start += given;
	flow->length -= given;
	if (flow->length == 0) {
		free(flow->held);
		flow->held = NULL;
		flow->start = 0;
	}
	return given > 0 ? GOES_ON : WAITS;
}

static bool hold(struct flow *flow, const uint8_t *data, size_t length)
{
	flow->held = malloc(length);
	if (!flow->held)
		return false;
	memcpy(flow->held, data, length);
	flow->start = 0;
	flow->length = length;
	return true;
}

static enum progress move(struct stream *stream, enum side from)
{
	uint8_t *chunk = stream->streams->chunk;
	struct end *source = &stream->ends[from];
	struct flow *flow = &stream->flows[from];
	ssize_t count;
	size_t given;

	do {
		count = recv(source->source.fd, chunk, CHUNK, MSG_DONTWAIT);
	} while (count < 0 && errno == EINTR);
	if (count < 0) {
		source->readable = false;
		return errno == EAGAIN || errno == EWOULDBLOCK ? WAITS : BROKEN;
	}
	if (count == 0) {
		flow->source_ended = true;
		return GOES_ON;
	}
	if (flow->discards)
		return GOES_ON;
	given = give(stream, from, chunk, (size_t)count);
	if (flow->done || flow->discards || given == (size_t)count)
		return GOES_ON;
	return hold(flow, chunk + given, (size_t)count - given) ? GOES_ON : BROKEN;
}

static enum progress flow_turn(struct stream *stream, enum side from)
{
	struct end *source = &stream->ends[from];
	struct end *sink = &stream->ends[1 - from];
	struct flow *flow = &stream->flows[from];

	for (int round = 0; round < ROUNDS && !flow->done; round++) {
		enum progress progress;

		if (sink->gone && !flow->discards) {
			break_flow(stream, from);
		} else if (flow->length == 0 && flow->source_ended) {
			(void)shutdown(sink->source.fd, SHUT_WR);
			finish_flow(flow);
		} else if ((!sink->writable && !flow->discards) ||
			   (flow->length == 0 && !source->readable)) {
			return WAITS;
		} else {
			progress = flow->length > 0 ? give_held(stream, from) : move(stream, from);
			if (progress != GOES_ON)
				return progress;
		}
	}
	return flow->done ? WAITS : GOES_ON;
}

static void stream_turn(struct stream *stream)
{
	bool again = false;

	for (size_t from = 0; from < SIDES; from++) {
		switch (flow_turn(stream, (enum side)from)) {
		case BROKEN:
			close_stream(stream, true);
			return;
		case GOES_ON:
			again = true;
			break;
		case WAITS:
			break;
		}
	}
	if (stream->flows[SIDE_TCP].done && stream->flows[SIDE_HOST].done) {
		close_stream(stream, false);
		return;
	}
	if (stream->flows[SIDE_TCP].discards && stream->flows[SIDE_HOST].done)
		close_end(&stream->ends[SIDE_HOST]);
	if (again)
		be_busy(stream);
}

bool egress_streams_are_busy(const struct egress_streams *streams)
{
	return streams->busy_first != NULL;
}

/* One turn for each that is in the queue now. */
void egress_streams_turn(struct egress_streams *streams)
{
	struct stream *last = streams->busy_last;

	while (streams->busy_first) {
		struct stream *stream = streams->busy_first;
		bool was_last = stream == last;

		stop_being_busy(stream);
		stream_turn(stream);
		if (was_last)
			return;
	}
}

/* ---- events ----------------------------------------------------------------------------- */

static void end_ready(struct event_source *source, uint32_t events)
{
	struct end *end = (struct end *)((char *)source - offsetof(struct end, source));

	/* After an error both calls tell it. */
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		end->readable = true;
	if (events & (EPOLLOUT | EPOLLERR))
		end->writable = true;
	if (events & EPOLLHUP)
		end->gone = true;
	stream_turn(end->stream);
}

/* Takes the descriptor over. */
static int add_end(struct stream *stream, enum side side, int fd,
		   void (*ready)(struct event_source *, uint32_t))
{
	struct end *end = &stream->ends[side];
	int error;

	end->source = (struct event_source){ .ready = ready, .fd = fd };
	error = event_loop_add(stream->streams->loop, &end->source,
			       EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (error < 0) {
		if (side == SIDE_TCP)
			reset_tcp(fd);
		close(fd);
		end->source.fd = -1;
	}
	return error;
}

static void refuse(int tcp)
{
	reset_tcp(tcp);
	close(tcp);
}

void egress_streams_out(struct egress_streams *streams, int tcp, unsigned port,
			const struct egress_target *target)
{
	uint8_t hello[EGRESS_HELLO_SIZE];
	struct stream *stream = new_stream(streams);
	int host;

	if (!stream) {
		refuse(tcp);
		return;
	}
	if (add_end(stream, SIDE_TCP, tcp, end_ready) < 0) {
		close_stream(stream, true);
		return;
	}
	host = streams->dial(streams->context, port);
	if (target)
		egress_encode_hello(hello, target);
	if (host < 0 || add_end(stream, SIDE_HOST, host, end_ready) < 0 ||
	    (target && !hold(&stream->flows[SIDE_TCP], hello, sizeof(hello))))
		close_stream(stream, true);
}

/* ---- from the host ---------------------------------------------------------------------- */

static int dial_loopback(const struct egress_target *target)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(target->port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(target->port) };
	const struct sockaddr *address = (const struct sockaddr *)&v4;
	socklen_t length = sizeof(v4);
	const int on = 1;
	cleanup_fd int fd = -1;

	memcpy(&v4.sin_addr, target->address, sizeof(v4.sin_addr));
	memcpy(&v6.sin6_addr, target->address, sizeof(v6.sin6_addr));
	if (target->family == 4 && target->address[0] != 127)
		return -EADDRNOTAVAIL;
	if (target->family == 6) {
		if (!IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr))
			return -EADDRNOTAVAIL;
		address = (const struct sockaddr *)&v6;
		length = sizeof(v6);
	}
	fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, address, length) < 0 && errno != EINPROGRESS)
		return -errno;
	return steal_fd(&fd);
}

static void hello_ready(struct event_source *source, uint32_t events)
{
	struct end *end = (struct end *)((char *)source - offsetof(struct end, source));
	struct stream *stream = end->stream;
	struct egress_target target;
	int tcp;

	if (events & EPOLLOUT)
		end->writable = true;
	while (stream->hello_length < EGRESS_HELLO_SIZE) {
		ssize_t count = recv(source->fd, stream->hello + stream->hello_length,
				     EGRESS_HELLO_SIZE - stream->hello_length, MSG_DONTWAIT);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (count <= 0) {
			close_stream(stream, true);
			return;
		}
		stream->hello_length += (size_t)count;
	}
	source->ready = end_ready;
	end->readable = true;
	tcp = egress_decode_hello(stream->hello, &target) < 0 ? -EBADMSG : dial_loopback(&target);
	if (tcp < 0 || add_end(stream, SIDE_TCP, tcp, end_ready) < 0) {
		close_stream(stream, true);
		return;
	}
	stream_turn(stream);
}

void egress_streams_in(struct egress_streams *streams, int stream_fd)
{
	struct stream *stream = new_stream(streams);

	if (!stream)
		close(stream_fd);
	else if (add_end(stream, SIDE_HOST, stream_fd, hello_ready) < 0)
		close_stream(stream, true);
}
