#include "guest-init/exec_server.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/relay.h"
#include "guest-init/exec_process.h"
#include "guest-init/process_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>

/*
 * Theory of operation
 *
 * One thread, one poll loop, one slot per command. A command has up to three streams, each a
 * relay between the server's end of a pipe (or the pty master) and a socket to the host. With a
 * pty there are two, input and output, over duplicates of one socket and one master.
 *
 * A stream first sends its hello, once the socket is connected; until then nothing is read. It
 * closes when its relay is done: an output's socket is shut down for writing, so that the host
 * sees the end only after the last byte; an input's pipe is closed, so that the command sees end
 * of file. A host that closes an output's socket makes the pipe's reading end close, and the
 * command gets SIGPIPE.
 *
 * Life of a slot: RUNNING from fork; DRAINING from the first process' end until every output has
 * closed; ENDING while killed processes of the tree are still being reaped; then EXITED is sent
 * and the slot is free. A slot never ends its life inside a walk over the slots' streams, only in
 * settle().
 */

#define RELAY_BUFFER ((size_t)64 * 1024)
/* After the tree was killed, output that still does not end belongs to a process that left its
 * cgroup. */
#define KILLED_GRACE_MS 5000
#define ENDING_RETRY_MS 20
#define ENDING_MAX_MS 5000

#define STREAM_INPUT 0
#define STREAM_OUTPUT 1
#define STREAM_ERRORS 2
#define STREAMS 3

struct stream {
	bool open;
	bool hello_pending;
	int socket; /* owned */
	int end;    /* owned: pipe or pty master */
	struct relay relay;
	/* Positions in the poll set of this turn, or -1. */
	int socket_poll;
	int end_poll;
};

enum exec_state {
	EXEC_FREE,
	EXEC_RUNNING,
	EXEC_DRAINING,
	EXEC_ENDING,
};

struct exec {
	enum exec_state state;
	uint32_t id;
	bool pty;
	bool killed;
	bool failed; /* EXEC_FAILED was sent; there is no EXITED to come */
	pid_t pid;
	int report_fd; /* -1 once the program runs */
	int slave_fd;  /* of the pty while RUNNING; or -1 */
	int report_poll;
	int status; /* of wait4(2) */
	struct rusage usage;
	uint64_t quiet_since_ms; /* last time a byte moved, or the state changed */
	struct process_tree tree;
	struct stream streams[STREAMS];
};

/* Signals, control, and per command the report and both ends of each stream. */
#define POLL_MAX (2 + AGENT_EXECS_MAX * (1 + 2 * STREAMS))

struct server {
	const struct exec_server_options *options;
	int signal_fd;
	bool shutdown;
	struct exec execs[AGENT_EXECS_MAX];
	struct pollfd polls[POLL_MAX];
	int poll_count;
};

static uint64_t timeval_ns(struct timeval value)
{
	return (uint64_t)value.tv_sec * 1000000000 + (uint64_t)value.tv_usec * 1000;
}

static struct exec *find_exec(struct server *server, uint32_t id)
{
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		if (server->execs[i].state != EXEC_FREE && server->execs[i].id == id)
			return &server->execs[i];
	}
	return NULL;
}

/* ---- streams ---------------------------------------------------------------------------- */

static void stream_close(struct stream *stream)
{
	if (!stream->open)
		return;
	stream->open = false;
	/* The socket may be shared with the pty's other direction, so closing it says nothing. */
	if (stream->relay.sink == stream->socket)
		shutdown(stream->socket, SHUT_WR);
	relay_release(&stream->relay);
	close(stream->socket);
	close(stream->end);
}

/* Takes over both descriptors. */
static int stream_open(struct stream *stream, bool input, int socket_fd, int end_fd, bool hello)
{
	cleanup_fd int socket = socket_fd;
	cleanup_fd int end = end_fd;
	int result;

	if (input)
		result = relay_init(&stream->relay, socket, RELAY_SOCKET, end, RELAY_NONBLOCKING,
				    RELAY_BUFFER);
	else
		result = relay_init(&stream->relay, end, RELAY_NONBLOCKING, socket, RELAY_SOCKET,
				    RELAY_BUFFER);
	if (result < 0)
		return result;
	stream->socket = steal_fd(&socket);
	stream->end = steal_fd(&end);
	stream->hello_pending = hello;
	stream->open = true;
	return 0;
}

static int dial_stream(struct server *server)
{
	return server->options->dial(server->options->context, AGENT_STREAM_PORT);
}

/* Connects the command's ends to the host. Takes over `process->ends` in any case. */
static int open_streams(struct server *server, struct exec *exec, struct exec_process *process)
{
	int result = 0;

	for (int i = 0; i < STREAMS; i++) {
		/* With a pty the output's stream says hello for both. */
		bool shares = exec->pty && i == STREAM_OUTPUT;
		int socket;

		if (process->ends[i] < 0)
			continue;
		if (result < 0) {
			close(process->ends[i]);
			continue;
		}
		if (shares)
			socket = fcntl(exec->streams[STREAM_INPUT].socket, F_DUPFD_CLOEXEC, 0);
		else
			socket = dial_stream(server);
		if (socket < 0) {
			result = shares ? -errno : socket;
			close(process->ends[i]);
			continue;
		}
		result = stream_open(&exec->streams[i], i == STREAM_INPUT, socket, process->ends[i],
				     !exec->pty || shares);
	}
	return result;
}

static void send_hello(const struct exec *exec, struct stream *stream, size_t index)
{
	uint8_t hello[sizeof(struct agent_hello)];
	ssize_t count;

	agent_encode_hello(hello, exec->id,
			   exec->pty ? AGENT_STREAM_PTY : (enum agent_stream)index);
	count = send(stream->socket, hello, sizeof(hello), MSG_DONTWAIT | MSG_NOSIGNAL);
	if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	/* A fresh connection takes sixteen bytes whole or is broken. */
	if (count != (ssize_t)sizeof(hello))
		stream_close(stream);
	else
		stream->hello_pending = false;
}

/* The host's input has ended: every read of the terminal from now on shall see end of file. */
static void end_pty_input(int master)
{
	struct termios settings;
	char text[2];

	if (tcgetattr(master, &settings) < 0 || !(settings.c_lflag & ICANON))
		return;
	/* The first ends a line that is not finished. */
	text[0] = (char)settings.c_cc[VEOF];
	text[1] = text[0];
	if (write(master, text, sizeof(text)) < 0)
		return; /* a terminal whose buffer is full has no reader to tell */
}

static int add_poll(struct server *server, int fd, short events)
{
	server->polls[server->poll_count] = (struct pollfd){ .fd = fd, .events = events };
	return server->poll_count++;
}

static short polled(const struct server *server, int position)
{
	return position < 0 ? 0 : server->polls[position].revents;
}

static void stream_prepare(struct server *server, struct stream *stream, bool pty)
{
	const struct relay *relay = &stream->relay;
	bool input = relay->source == stream->socket;
	short source_events;
	short sink_events;

	stream->socket_poll = -1;
	stream->end_poll = -1;
	if (!stream->open)
		return;
	if (stream->hello_pending) {
		stream->socket_poll = add_poll(server, stream->socket, POLLOUT);
		return;
	}
	source_events = relay_source_events(relay);
	sink_events = relay_sink_events(relay);
	if (input) {
		if (source_events)
			stream->socket_poll = add_poll(server, stream->socket, source_events);
		stream->end_poll = add_poll(server, stream->end, sink_events);
	} else {
		if (source_events)
			stream->end_poll = add_poll(server, stream->end, source_events);
		/* Nobody writes to an output's socket: its end is the host closing it. */
		if (!pty)
			sink_events |= POLLRDHUP;
		stream->socket_poll = add_poll(server, stream->socket, sink_events);
	}
}

/* Returns true when something moved. */
static bool stream_turn(struct server *server, struct exec *exec, size_t index)
{
	struct stream *stream = &exec->streams[index];
	short socket_revents;
	short end_revents;
	bool moved;

	if (!stream->open)
		return false;
	socket_revents = polled(server, stream->socket_poll);
	end_revents = polled(server, stream->end_poll);
	if (stream->hello_pending) {
		if (socket_revents)
			send_hello(exec, stream, index);
		return false;
	}
	if (index == STREAM_INPUT) {
		moved = relay_turn(&stream->relay, socket_revents, end_revents);
		if (exec->pty && relay_done(&stream->relay) && !stream->relay.sink_failed)
			end_pty_input(stream->end);
	} else {
		if (socket_revents & POLLRDHUP)
			socket_revents = POLLHUP;
		moved = relay_turn(&stream->relay, end_revents, socket_revents);
	}
	if (relay_done(&stream->relay))
		stream_close(stream);
	return moved;
}

/* ---- a command's life ------------------------------------------------------------------- */

static int send_exec_failed(struct server *server, uint32_t id, enum agent_exec_stage stage,
			    int error)
{
	struct agent_exec_failed failed = { .exec_id = id,
					    .stage = stage,
					    .error = (uint32_t)error };
	uint8_t frame[64];

	return control_send(server->options->control, frame,
			    agent_encode_exec_failed(frame, sizeof(frame), &failed));
}

static int send_started(struct server *server, const struct exec *exec)
{
	struct agent_started started = { .exec_id = exec->id, .pid = (uint32_t)exec->pid };
	uint8_t frame[64];

	return control_send(server->options->control, frame,
			    agent_encode_started(frame, sizeof(frame), &started));
}

static int send_exited(struct server *server, const struct exec *exec)
{
	bool signalled = WIFSIGNALED(exec->status);
	struct agent_exited exited = {
		.exec_id = exec->id,
		.kind = signalled ? AGENT_EXIT_SIGNAL : AGENT_EXIT_STATUS,
		.code = (uint32_t)(signalled ? WTERMSIG(exec->status) : WEXITSTATUS(exec->status)),
		.user_ns = timeval_ns(exec->usage.ru_utime),
		.system_ns = timeval_ns(exec->usage.ru_stime),
		.max_rss_bytes = (uint64_t)exec->usage.ru_maxrss * 1024,
	};
	uint8_t frame[64];

	return control_send(server->options->control, frame,
			    agent_encode_exited(frame, sizeof(frame), &exited));
}

static void close_streams(struct exec *exec)
{
	for (size_t i = 0; i < STREAMS; i++)
		stream_close(&exec->streams[i]);
}

static void close_slave(struct exec *exec)
{
	if (exec->slave_fd >= 0)
		close(exec->slave_fd);
	exec->slave_fd = -1;
}

static void kill_exec(struct exec *exec)
{
	process_tree_kill(&exec->tree);
	exec->killed = true;
	exec->quiet_since_ms = clock_now_ms();
}

static int start_exec(struct server *server, const struct agent_exec *request)
{
	struct exec *exec = NULL;
	struct exec_process process;
	enum agent_exec_stage stage;
	int result;

	for (size_t i = 0; i < AGENT_EXECS_MAX && !exec; i++) {
		if (server->execs[i].state == EXEC_FREE)
			exec = &server->execs[i];
	}
	if (!exec || find_exec(server, request->exec_id))
		return send_exec_failed(server, request->exec_id, AGENT_STAGE_LIMIT,
					exec ? EEXIST : EAGAIN);
	memset(exec, 0, sizeof(*exec));
	exec->id = request->exec_id;
	exec->pty = (request->flags & AGENT_EXEC_PTY) != 0;
	process_tree_create(&exec->tree, server->options->cgroup_root, exec->id);
	result = exec_process_start(request, &exec->tree, &process, &stage);
	if (result < 0) {
		process_tree_finish(&exec->tree, server->options->cgroup_root);
		return send_exec_failed(server, exec->id, stage, -result);
	}
	exec->state = EXEC_RUNNING;
	exec->pid = process.pid;
	exec->report_fd = process.report_fd;
	exec->slave_fd = process.slave_fd;
	exec->quiet_since_ms = clock_now_ms();
	result = open_streams(server, exec, &process);
	if (result < 0) {
		exec->failed = true;
		kill_exec(exec);
		close_streams(exec);
		return send_exec_failed(server, exec->id, AGENT_STAGE_STREAMS, -result);
	}
	return 0;
}

/* The child has become the program, or says why it could not. */
static int read_report(struct server *server, struct exec *exec)
{
	struct exec_report report;
	ssize_t count = read(exec->report_fd, &report, sizeof(report));

	if (count < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	close(exec->report_fd);
	exec->report_fd = -1;
	if (exec->failed)
		return 0;
	if (count != (ssize_t)sizeof(report))
		return send_started(server, exec);
	exec->failed = true;
	close_streams(exec);
	return send_exec_failed(server, exec->id, report.stage, report.error);
}

static bool output_open(const struct exec *exec)
{
	return exec->streams[STREAM_OUTPUT].open || exec->streams[STREAM_ERRORS].open;
}

/* True while the host, and not the command, is what an output waits for. */
static bool host_is_slow(const struct exec *exec)
{
	for (size_t i = STREAM_OUTPUT; i < STREAMS; i++) {
		const struct stream *stream = &exec->streams[i];

		if (stream->open && (stream->hello_pending || stream->relay.length > 0))
			return true;
	}
	return false;
}

/* Takes an ended command as far as it can go now. *timeout_ms shrinks to when it wants to be
 * looked at again. */
static int settle(struct server *server, struct exec *exec, int *timeout_ms)
{
	uint64_t quiet = clock_now_ms() - exec->quiet_since_ms;
	uint64_t grace = exec->killed ? KILLED_GRACE_MS : EXEC_GRACE_MS;
	bool gone;

	if (exec->state == EXEC_DRAINING && output_open(exec)) {
		if (host_is_slow(exec))
			return 0;
		if (quiet < grace) {
			*timeout_ms = MIN_OF(*timeout_ms, (int)(grace - quiet));
			return 0;
		}
		if (!exec->killed) {
			kill_exec(exec);
			*timeout_ms = MIN_OF(*timeout_ms, KILLED_GRACE_MS);
			return 0;
		}
	}
	if (exec->state == EXEC_DRAINING) {
		exec->state = EXEC_ENDING;
		exec->quiet_since_ms = clock_now_ms();
		quiet = 0;
	}
	gone = process_tree_finish(&exec->tree, server->options->cgroup_root);
	if (!gone && quiet < ENDING_MAX_MS) {
		*timeout_ms = MIN_OF(*timeout_ms, ENDING_RETRY_MS);
		return 0;
	}
	if (!gone) {
		/* Its cgroup stays behind, with whatever cannot be killed. */
		close(exec->tree.directory);
	}
	close_streams(exec);
	exec->state = EXEC_FREE;
	return exec->failed ? 0 : send_exited(server, exec);
}

static int settle_all(struct server *server, int *timeout_ms)
{
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		struct exec *exec = &server->execs[i];
		int result;

		/* STARTED or EXEC_FAILED goes out before EXITED. */
		if ((exec->state != EXEC_DRAINING && exec->state != EXEC_ENDING) ||
		    exec->report_fd >= 0)
			continue;
		result = settle(server, exec, timeout_ms);
		if (result < 0)
			return result;
	}
	return 0;
}

static int reap(struct server *server)
{
	struct signalfd_siginfo information;
	struct rusage usage;
	int status;
	pid_t pid;

	while (read(server->signal_fd, &information, sizeof(information)) > 0)
		continue;
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		struct exec *exec = NULL;

		for (size_t i = 0; i < AGENT_EXECS_MAX && !exec; i++) {
			if (server->execs[i].state == EXEC_RUNNING && server->execs[i].pid == pid)
				exec = &server->execs[i];
		}
		if (exec) {
			exec->state = EXEC_DRAINING;
			exec->status = status;
			exec->usage = usage;
			exec->quiet_since_ms = clock_now_ms();
			close_slave(exec);
			/* Nobody is left to read it. */
			stream_close(&exec->streams[STREAM_INPUT]);
		} else if (server->options->on_child) {
			int result =
				server->options->on_child(server->options->context, pid, status);

			if (result < 0)
				return result;
		}
	}
	return 0;
}

/* ---- the host's wishes ------------------------------------------------------------------ */

static void signal_exec(const struct exec *exec, int number, bool group)
{
	const struct stream *terminal = &exec->streams[STREAM_OUTPUT];
	pid_t target;

	if (exec->state != EXEC_RUNNING)
		return;
	if (!group) {
		kill(exec->pid, number);
		return;
	}
	target = exec->pid;
	if (exec->pty && terminal->open) {
		pid_t foreground = tcgetpgrp(terminal->end);

		if (foreground > 1)
			target = foreground;
	}
	/* The child may not have become a group's leader yet. */
	if (kill(-target, number) < 0)
		kill(exec->pid, number);
}

static void resize_exec(const struct exec *exec, const struct agent_resize *resize)
{
	const struct stream *terminal = &exec->streams[STREAM_OUTPUT];
	struct winsize size = { .ws_row = resize->rows, .ws_col = resize->columns };

	if (exec->pty && terminal->open)
		ioctl(terminal->end, TIOCSWINSZ, &size);
}

/* Commands that the host names may have ended a moment ago: unknown ids are no error. */
static int handle_frame(struct server *server, const struct agent_header *header,
			const uint8_t *payload)
{
	struct agent_exec request;
	struct agent_resize resize;
	struct agent_signal signal;
	struct exec *exec;
	uint32_t id;

	switch (header->type) {
	case AGENT_EXEC:
		if (agent_decode_exec(payload, header->length, &request) < 0)
			return -EBADMSG;
		return start_exec(server, &request);
	case AGENT_RESIZE:
		if (agent_decode_resize(payload, header->length, &resize) < 0)
			return -EBADMSG;
		exec = find_exec(server, resize.exec_id);
		if (exec)
			resize_exec(exec, &resize);
		return 0;
	case AGENT_SIGNAL:
		if (agent_decode_signal(payload, header->length, &signal) < 0)
			return -EBADMSG;
		exec = find_exec(server, signal.exec_id);
		if (exec)
			signal_exec(exec, (int)signal.signal,
				    (signal.flags & AGENT_SIGNAL_GROUP) != 0);
		return 0;
	case AGENT_KILL:
		if (agent_decode_kill(payload, header->length, &id) < 0)
			return -EBADMSG;
		exec = find_exec(server, id);
		if (exec)
			kill_exec(exec);
		return 0;
	case AGENT_SHUTDOWN:
		server->shutdown = true;
		return agent_decode_shutdown(payload, header->length);
	default:
		return -EBADMSG;
	}
}

static int handle_control(struct server *server, short revents)
{
	struct control *control = server->options->control;
	struct agent_header header;
	const uint8_t *payload;
	int result = 0;

	if (revents & POLLOUT)
		result = control_flush(control);
	if (result == 0 && (revents & (POLLIN | POLLHUP | POLLERR)))
		result = control_read(control);
	while (result == 0 && !server->shutdown) {
		int found = control_next(control, &header, &payload);

		if (found <= 0)
			return found;
		result = handle_frame(server, &header, payload);
	}
	return result;
}

/* ---- the loop --------------------------------------------------------------------------- */

static void prepare(struct server *server)
{
	struct control *control = server->options->control;

	server->poll_count = 0;
	add_poll(server, server->signal_fd, POLLIN);
	add_poll(server, control->fd, control_wants_output(control) ? POLLIN | POLLOUT : POLLIN);
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		struct exec *exec = &server->execs[i];

		if (exec->state == EXEC_FREE)
			continue;
		exec->report_poll = -1;
		if (exec->report_fd >= 0)
			exec->report_poll = add_poll(server, exec->report_fd, POLLIN);
		for (size_t j = 0; j < STREAMS; j++)
			stream_prepare(server, &exec->streams[j], exec->pty);
	}
}

static int handle_execs(struct server *server)
{
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		struct exec *exec = &server->execs[i];

		if (exec->state == EXEC_FREE)
			continue;
		if (polled(server, exec->report_poll)) {
			int result = read_report(server, exec);

			if (result < 0)
				return result;
		}
		for (size_t j = 0; j < STREAMS; j++) {
			if (stream_turn(server, exec, j))
				exec->quiet_since_ms = clock_now_ms();
		}
	}
	return 0;
}

static int serve(struct server *server)
{
	while (!server->shutdown) {
		int timeout_ms = INT32_MAX;
		int result = settle_all(server, &timeout_ms);

		if (result < 0)
			return result;
		prepare(server);
		if (poll(server->polls, (nfds_t)server->poll_count,
			 timeout_ms == INT32_MAX ? -1 : timeout_ms) < 0) {
			if (errno != EINTR)
				return -errno;
			continue;
		}
		/* Streams first: their positions in the poll set are of the commands that there
		 * were before the host's new wishes. */
		result = handle_execs(server);
		if (result == 0 && server->polls[0].revents)
			result = reap(server);
		if (result == 0 && server->polls[1].revents)
			result = handle_control(server, server->polls[1].revents);
		if (result < 0)
			return result;
	}
	return 0;
}

int exec_server_run(const struct exec_server_options *options)
{
	cleanup_free struct server *server = calloc(1, sizeof(*server));
	sigset_t children;
	int result;

	if (!server)
		return -ENOMEM;
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	server->options = options;
	server->signal_fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	if (server->signal_fd < 0)
		return -errno;
	result = serve(server);
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		struct exec *exec = &server->execs[i];

		if (exec->state == EXEC_FREE)
			continue;
		kill_exec(exec);
		close_streams(exec);
		close_slave(exec);
		if (exec->report_fd >= 0)
			close(exec->report_fd);
	}
	close(server->signal_fd);
	return result;
}
