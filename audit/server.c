#include "audit/server.h"

#include "base/checked.h"
#include "wire/audit.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_epoll_wait),
	JAIL_CALL(SYS_epoll_pwait),
	JAIL_CALL_IF(SYS_epoll_ctl, JAIL_ARGUMENT_EQUAL32(1, EPOLL_CTL_DEL)),
	JAIL_CALL(SYS_recvmmsg),
	JAIL_CALL(SYS_poll),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, FIONREAD)),
	JAIL_CALL(SYS_pwrite64),
	JAIL_CALL(SYS_fdatasync),
};
const struct jail_syscall_set audit_server_calls = JAIL_SET(calls);

struct audit_server {
	struct log_writer *writer;
	int epoll_fd;
	int sources[SOURCES_MAX]; /* -1: has ended */
	size_t source_count;
	size_t open_count;
	bool policy_known;   /* a source has told the policy in force */
	bool more_queued;    /* some source filled its batch in this round */
	unsigned since_rest; /* datagrams */
	struct mmsghdr messages[SOURCE_BATCH];
	struct iovec vectors[SOURCE_BATCH];
	struct audit_event_view view;
	uint8_t buffers[SOURCE_BATCH][AUDIT_EVENT_MAX];
};

int audit_server_new(struct log_writer *writer, const int *sources, size_t count,
		     struct audit_server **ret_server)
{
	struct audit_server *server;

	if (count == 0 || count > SOURCES_MAX)
		return -EINVAL;
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	server->writer = writer;
	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (server->epoll_fd < 0)
		goto fail;
	for (size_t i = 0; i < count; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.u64 = i };

		if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, sources[i], &event) < 0)
			goto fail;
	}
	for (size_t i = 0; i < count; i++)
		server->sources[i] = sources[i];
	server->source_count = count;
	server->open_count = count;
	for (size_t i = 0; i < SOURCE_BATCH; i++) {
		server->vectors[i].iov_base = server->buffers[i];
		server->vectors[i].iov_len = AUDIT_EVENT_MAX;
		server->messages[i].msg_hdr.msg_iov = &server->vectors[i];
		server->messages[i].msg_hdr.msg_iovlen = 1;
	}
	*ret_server = server;
	return 0;
fail:;
	int error = -errno;

	if (server->epoll_fd >= 0)
		close(server->epoll_fd);
	free(server);
	return error;
}

void audit_server_free(struct audit_server *server)
{
	if (!server)
		return;
	for (size_t i = 0; i < server->source_count; i++) {
		if (server->sources[i] >= 0)
			close(server->sources[i]);
	}
	close(server->epoll_fd);
	free(server);
}

int audit_server_epoll_fd(const struct audit_server *server)
{
	return server->epoll_fd;
}

static int note_violation(struct audit_server *server, size_t source, const char *what,
			  unsigned length)
{
	char detail[128];

	snprintf(detail, sizeof(detail), "source %zu sent %s of %u bytes", source, what, length);
	return log_writer_note(server->writer, AUDIT_VIOLATION, detail);
}

static int take_datagram(struct audit_server *server, size_t source, const struct mmsghdr *message)
{
	const void *data = message->msg_hdr.msg_iov->iov_base;
	int error;

	if (message->msg_hdr.msg_flags & MSG_TRUNC)
		return note_violation(server, source, "an event over the limit", AUDIT_EVENT_MAX);
	if (audit_event_decode(data, message->msg_len, &server->view))
		return note_violation(server, source, "a malformed event", message->msg_len);
	if (server->view.kind == AUDIT_POLICY)
		server->policy_known = true;
	error = log_writer_add(server->writer, &server->view);
	if (error == -EEXIST)
		return note_violation(server, source, "a second end of the session",
				      message->msg_len);
	return error;
}

static void end_source(struct audit_server *server, size_t source)
{
	epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, server->sources[source], NULL);
	close(server->sources[source]);
	server->sources[source] = -1;
	server->open_count--;
}

static int note_empty(struct audit_server *server, size_t source, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		int error = note_violation(server, source, "a malformed event", 0);

		if (error)
			return error;
	}
	return 0;
}

/* After receipts without a byte: the end of the stream, or sent by a living producer? */
static int judge_empty(struct audit_server *server, size_t source, unsigned count)
{
	struct pollfd state = { .fd = server->sources[source], .events = POLLIN };
	int queued = 0;

	if (poll(&state, 1, 0) != 1 || !(state.revents & (POLLHUP | POLLERR)))
		return note_empty(server, source, count);
	if (ioctl(state.fd, FIONREAD, &queued) < 0 || queued == 0)
		end_source(server, source);
	return 0;
}

static int serve_source(struct audit_server *server, size_t source)
{
	unsigned empty = 0;
	int count = recvmmsg(server->sources[source], server->messages, SOURCE_BATCH, MSG_DONTWAIT,
			     NULL);

	if (count < 0) {
		if (errno != EAGAIN && errno != EINTR)
			end_source(server, source);
		return 0;
	}
	server->since_rest += (unsigned)count;
	if (count == SOURCE_BATCH)
		server->more_queued = true;
	for (int i = 0; i < count; i++) {
		int error;

		if (server->messages[i].msg_len == 0) {
			empty++;
			continue;
		}
		/* Nothing follows the end of a stream: those before were datagrams. */
		error = note_empty(server, source, empty);
		empty = 0;
		if (!error)
			error = take_datagram(server, source, &server->messages[i]);
		if (error)
			return error;
	}
	return empty > 0 ? judge_empty(server, source, empty) : 0;
}

/* Everything that was queued is in the batch: to the file with it, then wait for more to gather. */
static int rest(struct audit_server *server)
{
	bool busy = server->since_rest >= BUSY_DATAGRAMS;
	const struct timespec pause = { .tv_nsec = busy ? REST_BUSY_NS : REST_NS };
	int error = log_writer_flush(server->writer);

	server->since_rest = 0;
	if (!error && server->open_count > 0)
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	return error;
}

int audit_server_await_policy(struct audit_server *server, size_t source)
{
	while (!server->policy_known && server->sources[source] >= 0) {
		struct pollfd state = { .fd = server->sources[source], .events = POLLIN };
		int error;

		if (poll(&state, 1, -1) < 0 && errno != EINTR)
			return -errno;
		error = serve_source(server, source);
		if (error)
			return error;
	}
	return 0;
}

int audit_server_run(struct audit_server *server)
{
	struct epoll_event events[SOURCES_MAX];

	while (server->open_count > 0) {
		int count = epoll_wait(server->epoll_fd, events, ARRAY_LENGTH(events), -1);
		int error;

		if (count < 0 && errno != EINTR)
			return -errno;
		server->more_queued = false;
		for (int i = 0; i < count; i++) {
			error = serve_source(server, (size_t)events[i].data.u64);
			if (error)
				return error;
		}
		if (server->more_queued)
			continue;
		error = rest(server);
		if (error)
			return error;
	}
	return 0;
}
