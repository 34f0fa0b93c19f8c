/*
 * A name server for tests, in the test's own event loop: UDP and TCP on one free port of loopback.
 * It answers from a table, follows its own aliases, and plays tricks where the table says so.
 */
#ifndef TESTS_UNIT_DNS_SERVER_H
#define TESTS_UNIT_DNS_SERVER_H

#include <arpa/inet.h>
#include <check.h>
#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/event_loop.h"

enum dns_trick {
	DNS_HONEST,
	DNS_SILENT,
	DNS_GARBAGE, /* no DNS message */
	DNS_SERVFAIL,
	DNS_TRUNCATED,	  /* over UDP */
	DNS_WRONG_ID,	  /* a forgery with another identifier first */
	DNS_OTHER_NAME,	  /* an answer to another question first */
	DNS_OTHER_SOURCE, /* a forgery from another port first */
};

/* What forgeries say. */
#define DNS_FORGED_ADDRESS "10.66.66.66"

struct dns_record {
	const char *name;  /* without the final dot */
	const char *type;  /* "A", "AAAA", "CNAME", "TXT" */
	const char *value; /* NULL: only the trick */
	enum dns_trick trick;
	unsigned turn; /* 0: always; n: only in the n-th query of that name and type */
};

struct dns_server {
	struct event_source udp;
	struct event_source tcp;
	struct event_source stream; /* one connection at a time; fd -1: none */
	struct event_loop *loop;
	const struct dns_record *records;
	size_t count;
	unsigned turns[64]; /* queries for each record's name and type */
	unsigned queries;
	char address[32]; /* for struct resolver_options */
};

static inline bool dns_is(const struct dns_record *record, const char *name, const char *type)
{
	return strcasecmp(record->name, name) == 0 && strcmp(record->type, type) == 0;
}

static inline void dns_push(ldns_pkt *reply, const char *name, const char *type, const char *value)
{
	char line[1024];
	ldns_rr *record = NULL;

	snprintf(line, sizeof(line), "%s. 60 IN %s %s", name, type, value);
	ck_assert_int_eq(ldns_rr_new_frm_str(&record, line, 0, NULL, NULL), LDNS_STATUS_OK);
	ldns_pkt_push_rr(reply, LDNS_SECTION_ANSWER, record);
}

/* Answers `name`, following aliases; false when the name is not in the table. */
static inline bool dns_fill(struct dns_server *server, ldns_pkt *reply, const char *name,
			    const char *type)
{
	bool known = false;

	for (unsigned depth = 0; name && depth < 12; depth++) {
		const char *next = NULL;

		for (size_t i = 0; i < server->count; i++) {
			const struct dns_record *record = &server->records[i];

			known = known || strcasecmp(record->name, name) == 0;
			if (!record->value)
				continue;
			if (dns_is(record, name, "CNAME")) {
				dns_push(reply, name, "CNAME", record->value);
				next = record->value;
			} else if (dns_is(record, name, type)) {
				server->turns[i]++;
				if (record->turn == 0 || record->turn == server->turns[i])
					dns_push(reply, name, type, record->value);
			}
		}
		name = next;
	}
	return known;
}

static inline enum dns_trick dns_trick_of(const struct dns_server *server, const char *name)
{
	for (size_t i = 0; i < server->count; i++) {
		if (strcasecmp(server->records[i].name, name) == 0 &&
		    server->records[i].trick != DNS_HONEST)
			return server->records[i].trick;
	}
	return DNS_HONEST;
}

static inline ldns_pkt *dns_reply(const ldns_pkt *query)
{
	ldns_pkt *reply = ldns_pkt_new();

	ldns_pkt_set_id(reply, ldns_pkt_id(query));
	ldns_pkt_set_qr(reply, true);
	ldns_pkt_set_ra(reply, true);
	ldns_pkt_push_rr(reply, LDNS_SECTION_QUESTION,
			 ldns_rr_clone(ldns_rr_list_rr(ldns_pkt_question(query), 0)));
	return reply;
}

static inline size_t dns_write(ldns_pkt *reply, uint8_t *answer, size_t capacity)
{
	uint8_t *wire = NULL;
	size_t length = 0;

	ck_assert_int_eq(ldns_pkt2wire(&wire, reply, &length), LDNS_STATUS_OK);
	ck_assert_uint_le(length, capacity);
	memcpy(answer, wire, length);
	free(wire);
	ldns_pkt_free(reply);
	return length;
}

static inline void dns_send(int fd, const uint8_t *data, size_t length,
			    const struct sockaddr_in *peer)
{
	ck_assert_int_eq(sendto(fd, data, length, 0, (const struct sockaddr *)peer, sizeof(*peer)),
			 (ssize_t)length);
}

static inline void dns_forge(const struct dns_server *server, const ldns_pkt *query,
			     enum dns_trick trick, const char *name, const struct sockaddr_in *peer)
{
	ldns_pkt *reply = dns_reply(query);
	uint8_t data[1024];
	size_t length;
	int fd = server->udp.fd;

	dns_push(reply, name, "A", DNS_FORGED_ADDRESS);
	if (trick == DNS_WRONG_ID)
		ldns_pkt_set_id(reply, ldns_pkt_id(query) ^ 1);
	length = dns_write(reply, data, sizeof(data));
	if (trick == DNS_OTHER_NAME)
		data[13] ^= 1;
	if (trick == DNS_OTHER_SOURCE)
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	dns_send(fd, data, length, peer);
	if (fd != server->udp.fd)
		close(fd);
}

/* Returns the answer's length, 0 for none. `peer` is NULL over TCP. */
static inline size_t dns_handle(struct dns_server *server, const uint8_t *data, size_t length,
				const struct sockaddr_in *peer, uint8_t *answer, size_t capacity)
{
	ldns_pkt *query = NULL;
	ldns_pkt *reply;
	const ldns_rr *question;
	enum dns_trick trick;
	char *name, *type;

	server->queries++;
	ck_assert_int_eq(ldns_wire2pkt(&query, data, length), LDNS_STATUS_OK);
	question = ldns_rr_list_rr(ldns_pkt_question(query), 0);
	name = ldns_rdf2str(ldns_rr_owner(question));
	name[strlen(name) - 1] = '\0';
	type = ldns_rr_type2str(ldns_rr_get_type(question));
	trick = dns_trick_of(server, name);
	if (peer && trick >= DNS_WRONG_ID)
		dns_forge(server, query, trick, name, peer);
	reply = dns_reply(query);
	if (trick == DNS_SERVFAIL)
		ldns_pkt_set_rcode(reply, LDNS_RCODE_SERVFAIL);
	else if (trick == DNS_TRUNCATED && peer)
		ldns_pkt_set_tc(reply, true);
	else if (!dns_fill(server, reply, name, type))
		ldns_pkt_set_rcode(reply, LDNS_RCODE_NXDOMAIN);
	length = dns_write(reply, answer, capacity);
	if (trick == DNS_GARBAGE)
		memset(answer + 2, 0xff, length - 2);
	ldns_pkt_free(query);
	free(name);
	free(type);
	return trick == DNS_SILENT ? 0 : length;
}

static inline void dns_on_datagram(struct event_source *source, uint32_t events)
{
	struct dns_server *server =
		(struct dns_server *)((char *)source - offsetof(struct dns_server, udp));
	struct sockaddr_in peer;
	socklen_t peer_length = sizeof(peer);
	uint8_t query[2048], answer[4096];
	ssize_t length = recvfrom(source->fd, query, sizeof(query), MSG_DONTWAIT,
				  (struct sockaddr *)&peer, &peer_length);
	size_t answer_length;

	(void)events;
	if (length < 0)
		return;
	answer_length = dns_handle(server, query, (size_t)length, &peer, answer, sizeof(answer));
	if (answer_length > 0)
		dns_send(source->fd, answer, answer_length, &peer);
}

/* One query a readiness, which has arrived whole: good enough on loopback. */
static inline void dns_on_stream(struct event_source *source, uint32_t events)
{
	struct dns_server *server =
		(struct dns_server *)((char *)source - offsetof(struct dns_server, stream));
	uint8_t prefix[2], query[2048], answer[4096];
	size_t length;

	(void)events;
	if (recv(source->fd, prefix, 2, 0) != 2) {
		event_loop_remove(server->loop, source);
		close(source->fd);
		source->fd = -1;
		return;
	}
	length = (size_t)prefix[0] << 8 | prefix[1];
	ck_assert_int_eq(recv(source->fd, query, length, MSG_WAITALL), (ssize_t)length);
	length = dns_handle(server, query, length, NULL, answer + 2, sizeof(answer) - 2);
	answer[0] = (uint8_t)(length >> 8);
	answer[1] = (uint8_t)length;
	ck_assert_int_eq(send(source->fd, answer, length + 2, MSG_NOSIGNAL), (ssize_t)length + 2);
}

static inline void dns_on_connection(struct event_source *source, uint32_t events)
{
	struct dns_server *server =
		(struct dns_server *)((char *)source - offsetof(struct dns_server, tcp));
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(server->stream.fd, -1);
	server->stream.fd = fd;
	ck_assert_int_eq(event_loop_add(server->loop, &server->stream, EPOLLIN), 0);
}

static inline void dns_server_start(struct dns_server *server, struct event_loop *loop,
				    const struct dns_record *records, size_t count)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);

	*server = (struct dns_server){ .loop = loop, .records = records, .count = count };
	ck_assert_uint_le(count, sizeof(server->turns) / sizeof(server->turns[0]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server->udp = (struct event_source){ dns_on_datagram, -1 };
	server->tcp = (struct event_source){ dns_on_connection, -1 };
	server->stream = (struct event_source){ dns_on_stream, -1 };
	server->tcp.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	server->udp.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* The port that one of them gets is nearly always free for the other. */
	for (unsigned tries = 0;; tries++) {
		address.sin_port = 0;
		ck_assert_int_eq(bind(server->tcp.fd, (struct sockaddr *)&address, sizeof(address)),
				 0);
		ck_assert_int_eq(getsockname(server->tcp.fd, (struct sockaddr *)&address, &length),
				 0);
		if (bind(server->udp.fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			break;
		ck_assert_uint_lt(tries, 20);
		close(server->tcp.fd);
		server->tcp.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	}
	ck_assert_int_eq(listen(server->tcp.fd, 8), 0);
	ck_assert_int_eq(event_loop_add(loop, &server->udp, EPOLLIN), 0);
	ck_assert_int_eq(event_loop_add(loop, &server->tcp, EPOLLIN), 0);
	snprintf(server->address, sizeof(server->address), "127.0.0.1:%u", ntohs(address.sin_port));
}

static inline void dns_server_stop(struct dns_server *server)
{
	struct event_source *sources[] = { &server->udp, &server->tcp, &server->stream };

	for (size_t i = 0; i < 3; i++) {
		if (sources[i]->fd < 0)
			continue;
		event_loop_remove(server->loop, sources[i]);
		close(sources[i]->fd);
	}
}

#endif
