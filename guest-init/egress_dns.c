#include "guest-init/egress_dns.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* RFC 1035, section 4.1.1: id, flags with the QR bit on top, four counts. */
#define HEADER_SIZE 12
#define IS_ANSWER 0x80
#define LENGTH_SIZE 2
/* Queries in one turn of a socket. */
#define ROUNDS 32

struct door {
	struct event_source source;
	struct egress_dns *dns;
};

struct pending {
	bool is_used;
	uint16_t id;	    /* on the stream */
	uint16_t client_id; /* as it came, not converted */
	int socket;
	struct sockaddr_in6 client; /* of either family */
	socklen_t client_length;
};

struct egress_dns {
	struct event_loop *loop;
	egress_dial dial;
	void *context;
	struct door doors[2];
	struct event_source stream; /* fd -1: none */
	bool stream_is_up;
	uint16_t next_id;
	size_t output_length;
	size_t input_length;
	uint8_t output[EGRESS_DNS_OUTPUT_MAX];
	uint8_t input[LENGTH_SIZE + EGRESS_DNS_MESSAGE_MAX];
	uint8_t query[EGRESS_DNS_MESSAGE_MAX];
	struct pending pending[EGRESS_DNS_PENDING];
};

/* ---- the stream ------------------------------------------------------------------------- */

/* Whoever waits for an answer asks again, and that makes a new stream. */
static void drop_stream(struct egress_dns *dns)
{
	if (dns->stream.fd < 0)
		return;
	event_loop_remove(dns->loop, &dns->stream);
	close(dns->stream.fd);
	dns->stream.fd = -1;
	dns->stream_is_up = false;
	dns->output_length = 0;
	dns->input_length = 0;
	memset(dns->pending, 0, sizeof(dns->pending));
}

static int flush(struct egress_dns *dns)
{
	size_t sent = 0;

	while (dns->stream_is_up && sent < dns->output_length) {
		ssize_t count = send(dns->stream.fd, dns->output + sent, dns->output_length - sent,
				     MSG_DONTWAIT | MSG_NOSIGNAL);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
			return -errno;
		if (count < 0)
			break;
		sent += (size_t)count;
	}
	dns->output_length -= sent;
	memmove(dns->output, dns->output + sent, dns->output_length);
	return 0;
}

static void pass_answer(struct egress_dns *dns, uint8_t *message, size_t length)
{
	uint16_t id = (uint16_t)(message[0] << 8 | message[1]);
	struct pending *pending = &dns->pending[id % EGRESS_DNS_PENDING];

	if (!pending->is_used || pending->id != id)
		return;
	pending->is_used = false;
	memcpy(message, &pending->client_id, sizeof(pending->client_id));
	/* A client that is gone, or does not read, asked in vain. */
	(void)sendto(pending->socket, message, length, MSG_DONTWAIT,
		     (const struct sockaddr *)&pending->client, pending->client_length);
}

static int take_answers(struct egress_dns *dns)
{
	size_t at = 0;

	while (dns->input_length - at >= LENGTH_SIZE) {
		uint8_t *frame = dns->input + at;
		size_t length = (size_t)(frame[0] << 8 | frame[1]);

		if (length < HEADER_SIZE)
			return -EBADMSG;
		if (dns->input_length - at < LENGTH_SIZE + length)
			break;
		pass_answer(dns, frame + LENGTH_SIZE, length);
		at += LENGTH_SIZE + length;
	}
	dns->input_length -= at;
	memmove(dns->input, dns->input + at, dns->input_length);
	return 0;
}

static int receive(struct egress_dns *dns)
{
	ssize_t count = recv(dns->stream.fd, dns->input + dns->input_length,
			     sizeof(dns->input) - dns->input_length, MSG_DONTWAIT);

	if (count < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
	if (count == 0)
		return -ECONNRESET;
	dns->input_length += (size_t)count;
	return take_answers(dns);
}

static void watch_stream(struct egress_dns *dns)
{
	uint32_t output = !dns->stream_is_up || dns->output_length > 0 ? EPOLLOUT : 0;

	if (event_loop_modify(dns->loop, &dns->stream, EPOLLIN | output) < 0)
		drop_stream(dns);
}

static void stream_ready(struct event_source *source, uint32_t events)
{
	struct egress_dns *dns =
		(struct egress_dns *)((char *)source - offsetof(struct egress_dns, stream));
	int error = 0;

	if (events & EPOLLOUT)
		dns->stream_is_up = true;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		error = receive(dns);
	if (error == 0)
		error = flush(dns);
	if (error < 0)
		drop_stream(dns);
	else
		watch_stream(dns);
}

static bool have_stream(struct egress_dns *dns)
{
	int fd;

	if (dns->stream.fd >= 0)
		return true;
	fd = dns->dial(dns->context, EGRESS_DNS_PORT);
	if (fd < 0)
		return false;
	dns->stream = (struct event_source){ .ready = stream_ready, .fd = fd };
	if (event_loop_add(dns->loop, &dns->stream, EPOLLIN | EPOLLOUT) == 0)
		return true;
	close(fd);
	dns->stream.fd = -1;
	return false;
}

/* ---- queries ---------------------------------------------------------------------------- */

/* The last one of the queries in `dns->query`. */
static void pass_query(struct egress_dns *dns, int socket, size_t length,
		       const struct sockaddr_in6 *client, socklen_t client_length)
{
	uint8_t *frame = dns->output + dns->output_length;
	struct pending *pending;
	uint16_t id;

	if (!have_stream(dns) || sizeof(dns->output) - dns->output_length < LENGTH_SIZE + length)
		return;
	id = dns->next_id++;
	pending = &dns->pending[id % EGRESS_DNS_PENDING];
	*pending = (struct pending){ .is_used = true,
				     .id = id,
				     .socket = socket,
				     .client = *client,
				     .client_length = client_length };
	memcpy(&pending->client_id, dns->query, sizeof(pending->client_id));
	dns->query[0] = (uint8_t)(id >> 8);
	dns->query[1] = (uint8_t)id;
	frame[0] = (uint8_t)(length >> 8);
	frame[1] = (uint8_t)length;
	memcpy(frame + LENGTH_SIZE, dns->query, length);
	dns->output_length += LENGTH_SIZE + length;
}

static void door_ready(struct event_source *source, uint32_t events)
{
	struct door *door = (struct door *)((char *)source - offsetof(struct door, source));
	struct egress_dns *dns = door->dns;

	(void)events;
	for (int round = 0; round < ROUNDS; round++) {
		struct sockaddr_in6 client;
		socklen_t length = sizeof(client);
		ssize_t count = recvfrom(source->fd, dns->query, sizeof(dns->query), MSG_DONTWAIT,
					 (struct sockaddr *)&client, &length);

		if (count < 0 && errno != EINTR)
			break;
		/* No answers: two stubs would pass them on to each other for ever. */
		if (count >= HEADER_SIZE && !(dns->query[2] & IS_ANSWER))
			pass_query(dns, source->fd, (size_t)count, &client, length);
	}
	if (dns->stream.fd < 0)
		return;
	if (flush(dns) < 0)
		drop_stream(dns);
	else
		watch_stream(dns);
}

int egress_dns_new(struct event_loop *loop, egress_dial dial, void *context, const int sockets[2],
		   struct egress_dns **ret_dns)
{
	struct egress_dns *dns = calloc(1, sizeof(*dns));

	if (!dns)
		return -ENOMEM;
	dns->loop = loop;
	dns->dial = dial;
	dns->context = context;
	dns->stream.fd = -1;
	for (size_t i = 0; i < 2; i++) {
		struct door *door = &dns->doors[i];
		int error = 0;

		*door = (struct door){ .source = { .ready = door_ready, .fd = sockets[i] },
				       .dns = dns };
		if (door->source.fd >= 0)
			error = event_loop_add(loop, &door->source, EPOLLIN);
		if (error < 0) {
			while (i > 0)
				event_loop_remove(loop, &dns->doors[--i].source);
			free(dns);
			return error;
		}
	}
	*ret_dns = dns;
	return 0;
}

void egress_dns_free(struct egress_dns *dns)
{
	if (!dns)
		return;
	drop_stream(dns);
	for (size_t i = 0; i < 2; i++) {
		if (dns->doors[i].source.fd < 0)
			continue;
		event_loop_remove(dns->loop, &dns->doors[i].source);
		close(dns->doors[i].source.fd);
	}
	free(dns);
}
