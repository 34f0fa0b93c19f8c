/*
 * Takes events from all producers in turn and hands them to the log.
 *
 * Theory of operation. One thread, one epoll set. Each ready source gives at most SOURCE_BATCH
 * datagrams per round, by one recvmmsg() into buffers that are allocated once: so a producer that
 * floods neither starves the others nor makes memory grow; its own socket fills up and it waits.
 * When a round leaves nothing queued the batch goes to the file and the server rests for REST_NS:
 * producers that send meanwhile need not wake it each time, which costs them more than the
 * sending. Under load the batch goes out whenever it is full.
 *
 * A source ends with its stream. An empty datagram looks just like the end of the stream, so it
 * only counts as one when nobody holds the other end any more and nothing is queued.
 */
#ifndef AUDIT_SERVER_H
#define AUDIT_SERVER_H

#include "audit/log_writer.h"
#include "jail/jail.h"

#include <stddef.h>

#define SOURCES_MAX 64
#define SOURCE_BATCH 16
#define REST_NS 1000000
/* After a round of many datagrams: about 160 fit into a socket, and a producer that finds it full
 * would wait for the whole rest. */
#define REST_BUSY_NS 200000
#define BUSY_DATAGRAMS 64

/* What the server and the log writer call, for the jail. */
extern const struct jail_syscall_set audit_server_calls;

struct audit_server;

/* `sources` are the receiving ends (SOCK_SEQPACKET); the server owns them once this succeeds.
 * 0, -EINVAL for 0 or too many sources, or another negative errno. */
int audit_server_new(struct log_writer *writer, const int *sources, size_t count,
		     struct audit_server **ret_server);
void audit_server_free(struct audit_server *server);
/* The descriptor to keep in the jail. */
int audit_server_epoll_fd(const struct audit_server *server);

/* Takes events from `source` alone until it has told the policy in force, or ended, so that this
 * opens the log; what the others send meanwhile waits in their sockets. Call before
 * audit_server_run(), if at all. 0, or the negative errno of the log. */
int audit_server_await_policy(struct audit_server *server, size_t source);

/* Runs until every source has ended. 0, or the negative errno of the log. */
int audit_server_run(struct audit_server *server);

#endif
