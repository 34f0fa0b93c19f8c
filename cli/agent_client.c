#include "cli/agent_client.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/io.h"
#include "cli/exec_command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * One turn polls four kinds of descriptors: the control connection (or, before there is one, its
 * listener), the listener for streams, stream connections whose hello is incomplete, and both
 * ends of every command's streams. Positions in the poll set are fixed before poll(2) and used
 * right after it; connections accepted in a turn are looked at in the next.
 *
 * The guest says little and in a fixed order, kept as `phase`. Everything else is -EPROTO and
 * breaks the client: `broken` holds the error, all commands are told that they are lost, and
 * turns from then on only pass on output that has arrived.
 *
 * Ids of commands count up from 1, so that a frame about an id never given out is a lie, while
 * one about a command that the caller has forgotten is merely late.
 */

#define PENDING_MAX 16
#define HELLO_TIMEOUT_MS 10000
#define LISTEN_ACCEPTS_PER_TURN 8
/* Frames to a guest that does not read; each is at most AGENT_TO_GUEST_FRAME_MAX. */
#define OUTPUT_MAX ((size_t)16 << 20)
#define FIXED_POLLS (2 + PENDING_MAX + AGENT_EXECS_MAX * EXEC_COMMAND_POLLS)

enum phase {
	PHASE_WAIT_READY,
	PHASE_READY,
	PHASE_WAIT_CONFIGURED,
	PHASE_CONFIGURED,
	PHASE_SHUTDOWN,
};

struct pending_stream {
	int socket; /* owned */
	uint64_t deadline_ms;
	size_t length;
	uint8_t hello[sizeof(struct agent_hello)];
	int poll;
};

struct agent_client {
	int control_listener;
	int stream_listener;
	int control; /* -1 until the guest dials */
	enum phase phase;
	int broken; /* negative errno, or 0 */
	struct agent_client_ready ready;
	uint32_t next_id;
	struct exec_command *commands[AGENT_EXECS_MAX];
	struct pending_stream pending[PENDING_MAX];
	size_t pending_count;
	uint8_t *output;
	size_t output_length;
	size_t output_capacity;
	size_t input_length;
	uint8_t input[AGENT_TO_HOST_FRAME_MAX];
	struct pollfd *polls;
	size_t poll_capacity;
	void (*notice)(void *context, const char *text);
	void *notice_context;
	char error[1024];
};

/* ---- life ------------------------------------------------------------------------------- */

int agent_client_create(int control_listener, int stream_listener, struct agent_client **ret_client)
{
	cleanup_fd int control = control_listener;
	cleanup_fd int stream = stream_listener;
	struct agent_client *client;
	int result = set_nonblocking(control, true);

	if (result == 0)
		result = set_nonblocking(stream, true);
	if (result < 0)
		return result;
	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->control_listener = steal_fd(&control);
	client->stream_listener = steal_fd(&stream);
	client->control = -1;
	client->next_id = 1;
	*ret_client = client;
	return 0;
}

void agent_client_destroy(struct agent_client *client)
{
	if (!client)
		return;
	for (size_t i = 0; i < client->pending_count; i++)
		close(client->pending[i].socket);
	if (client->control >= 0)
		close(client->control);
	if (client->control_listener >= 0)
		close(client->control_listener);
	close(client->stream_listener);
	free(client->output);
	free(client->polls);
	free(client);
}

const char *agent_client_error(const struct agent_client *client)
{
	return client->error;
}

void agent_client_on_notice(struct agent_client *client,
			    void (*notice)(void *context, const char *text), void *context)
{
	client->notice = notice;
	client->notice_context = context;
}

void agent_client_break(struct agent_client *client, int error, const char *text)
{
	if (client->broken == 0) {
		client->broken = error;
		snprintf(client->error, sizeof(client->error), "%s", text);
		client->output_length = 0;
	}
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		if (client->commands[i])
			exec_command_lost(client->commands[i], client->error);
	}
}

__attribute__((format(printf, 3, 4))) static int broke(struct agent_client *client, int error,
						       const char *format, ...)
{
	char text[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	agent_client_break(client, error, text);
	return error;
}

/* ---- sending ---------------------------------------------------------------------------- */

static int flush(struct agent_client *client)
{
	size_t sent = 0;

	if (client->output_length == 0)
		return 0;
	while (client->control >= 0 && sent < client->output_length) {
		ssize_t count = send(client->control, client->output + sent,
				     client->output_length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (count < 0)
			return broke(client, -ECONNRESET, "the guest's agent hung up: %s",
				     strerror(errno));
		sent += (size_t)count;
	}
	memmove(client->output, client->output + sent, client->output_length - sent);
	client->output_length -= sent;
	return 0;
}

static uint8_t *reserve_output(struct agent_client *client, size_t length)
{
	size_t wanted = client->output_length + length;

	if (wanted > OUTPUT_MAX)
		return NULL;
	if (wanted > client->output_capacity) {
		uint8_t *grown = realloc(client->output, wanted);

		if (!grown)
			return NULL;
		client->output = grown;
		client->output_capacity = wanted;
	}
	return client->output + client->output_length;
}

void agent_client_send(struct agent_client *client, const void *frame, size_t length)
{
	uint8_t *target;

	if (client->broken || length == 0)
		return;
	target = reserve_output(client, length);
	if (!target) {
		broke(client, -ENOBUFS, "the guest's agent does not read what it is sent");
		return;
	}
	memcpy(target, frame, length);
	client->output_length += length;
	flush(client);
}

/* ---- what the guest says ---------------------------------------------------------------- */

static struct exec_command *find_command(struct agent_client *client, uint32_t id)
{
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		if (client->commands[i] && client->commands[i]->id == id)
			return client->commands[i];
	}
	return NULL;
}

static int malformed(struct agent_client *client, const char *what)
{
	return broke(client, -EPROTO, "the guest's agent broke the protocol: %s", what);
}

static int handle_ready(struct agent_client *client, const uint8_t *payload, size_t length)
{
	struct agent_ready ready;

	if (client->phase != PHASE_WAIT_READY || agent_decode_ready(payload, length, &ready) < 0)
		return malformed(client, "READY malformed or out of order");
	if (ready.version != AGENT_VERSION)
		return broke(client, -EPROTO,
			     "the guest's agent speaks version %u of the protocol, this program "
			     "version %u: rebuild the initramfs",
			     ready.version, AGENT_VERSION);
	client->ready.uptime_ns = ready.uptime_ns;
	escape_text(ready.kernel, strlen(ready.kernel), client->ready.kernel,
		    sizeof(client->ready.kernel));
	client->phase = PHASE_READY;
	return 0;
}

static int handle_failed(struct agent_client *client, const uint8_t *payload, size_t length)
{
	struct agent_failed failed;
	char stage[128];
	char text[768];

	if (agent_decode_failed(payload, length, &failed) < 0)
		return malformed(client, "FAILED malformed");
	escape_text(failed.stage, strlen(failed.stage), stage, sizeof(stage));
	escape_text(failed.text, strlen(failed.text), text, sizeof(text));
	if (failed.error > 0 && failed.error < 4096)
		return broke(client, -EREMOTEIO, "the guest failed at %s: %s: %s", stage, text,
			     strerror((int)failed.error));
	return broke(client, -EREMOTEIO, "the guest failed at %s: %s", stage, text);
}

static int handle_notice(struct agent_client *client, const uint8_t *payload, size_t length)
{
	struct agent_notice notice;
	char text[2048];

	if (agent_decode_notice(payload, length, &notice) < 0)
		return malformed(client, "NOTICE malformed");
	escape_text(notice.text, strlen(notice.text), text, sizeof(text));
	if (client->notice)
		client->notice(client->notice_context, text);
	return 0;
}

static int handle_configured(struct agent_client *client, const uint8_t *payload, size_t length)
{
	struct agent_configured configured;

	if (client->phase != PHASE_WAIT_CONFIGURED ||
	    agent_decode_configured(payload, length, &configured) < 0)
		return malformed(client, "CONFIGURED malformed or out of order");
	client->phase = PHASE_CONFIGURED;
	return 0;
}

/* STARTED, EXEC_FAILED and EXITED. */
static int handle_exec_frame(struct agent_client *client, uint16_t type, const uint8_t *payload,
			     size_t length)
{
	struct agent_started started = { 0 };
	struct agent_exec_failed failed = { 0 };
	struct agent_exited exited = { 0 };
	struct exec_command *command;
	uint32_t id;
	int result;

	if (type == AGENT_STARTED) {
		result = agent_decode_started(payload, length, &started);
		id = started.exec_id;
	} else if (type == AGENT_EXEC_FAILED) {
		result = agent_decode_exec_failed(payload, length, &failed);
		id = failed.exec_id;
	} else {
		result = agent_decode_exited(payload, length, &exited);
		id = exited.exec_id;
	}
	if (result < 0)
		return malformed(client, "a command's report is malformed");
	if (id == 0 || id >= client->next_id)
		return malformed(client, "a report on a command that never was");
	command = find_command(client, id);
	if (!command)
		return 0;
	if (type == AGENT_STARTED)
		result = exec_command_started(command, &started);
	else if (type == AGENT_EXEC_FAILED)
		result = exec_command_failed(command, &failed);
	else
		result = exec_command_exited(command, &exited);
	return result < 0 ? malformed(client, "a command's report is out of order") : 0;
}

static int handle_frame(struct agent_client *client, const struct agent_header *header,
			const uint8_t *payload)
{
	switch (header->type) {
	case AGENT_READY:
		return handle_ready(client, payload, header->length);
	case AGENT_CONFIGURED:
		return handle_configured(client, payload, header->length);
	case AGENT_FAILED:
		return handle_failed(client, payload, header->length);
	case AGENT_NOTICE:
		return handle_notice(client, payload, header->length);
	case AGENT_STARTED:
	case AGENT_EXEC_FAILED:
	case AGENT_EXITED:
		return handle_exec_frame(client, header->type, payload, header->length);
	default:
		return malformed(client, "a frame of unknown type");
	}
}

static int handle_input(struct agent_client *client)
{
	size_t position = 0;
	int result = 0;

	while (result == 0 && client->input_length - position >= AGENT_HEADER_SIZE) {
		struct agent_header header;
		size_t length;

		if (agent_decode_header(client->input + position, AGENT_TO_HOST_MAX, &header) < 0)
			return malformed(client, "a frame that is too large");
		length = AGENT_HEADER_SIZE + header.length;
		if (client->input_length - position < length)
			break;
		result =
			handle_frame(client, &header, client->input + position + AGENT_HEADER_SIZE);
		position += length;
	}
	memmove(client->input, client->input + position, client->input_length - position);
	client->input_length -= position;
	return result;
}

static int read_control(struct agent_client *client)
{
	ssize_t count = recv(client->control, client->input + client->input_length,
			     sizeof(client->input) - client->input_length, MSG_DONTWAIT);

	if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	if (count <= 0) {
		if (client->phase == PHASE_SHUTDOWN)
			return broke(client, -ECONNRESET, "the guest has shut down");
		return broke(client, -ECONNRESET, "the guest ended or its agent hung up");
	}
	client->input_length += (size_t)count;
	return handle_input(client);
}

/* ---- stream connections ----------------------------------------------------------------- */

static void drop_pending(struct agent_client *client, size_t index, bool close_socket)
{
	if (close_socket)
		close(client->pending[index].socket);
	client->pending_count--;
	memmove(&client->pending[index], &client->pending[index + 1],
		(client->pending_count - index) * sizeof(client->pending[0]));
}

/* One guest's connection that says nothing, or nonsense, costs one slot for a while; the session
 * goes on. Returns true when the slot is free again. */
static bool read_hello(struct agent_client *client, size_t index)
{
	struct pending_stream *pending = &client->pending[index];
	struct agent_hello hello;
	struct exec_command *command;
	ssize_t count = recv(pending->socket, pending->hello + pending->length,
			     sizeof(pending->hello) - pending->length, MSG_DONTWAIT);

	if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return false;
	if (count <= 0) {
		drop_pending(client, index, true);
		return true;
	}
	pending->length += (size_t)count;
	if (pending->length < sizeof(pending->hello))
		return false;
	command = NULL;
	if (agent_decode_hello(pending->hello, &hello) == 0)
		command = find_command(client, hello.exec_id);
	drop_pending(client, index,
		     !command || exec_command_take_stream(command, (enum agent_stream)hello.stream,
							  pending->socket) < 0);
	return true;
}

static void turn_pending(struct agent_client *client, const struct pollfd *polls)
{
	uint64_t now = clock_now_ms();

	/* In the order of arrival: of two that claim the same stream the first has it. */
	for (size_t i = 0; i < client->pending_count;) {
		if (polls[client->pending[i].poll].revents && read_hello(client, i))
			continue;
		if (now >= client->pending[i].deadline_ms)
			drop_pending(client, i, true);
		else
			i++;
	}
}

static void accept_streams(struct agent_client *client)
{
	for (int i = 0; i < LISTEN_ACCEPTS_PER_TURN && client->pending_count < PENDING_MAX; i++) {
		int socket =
			accept4(client->stream_listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (socket < 0)
			return;
		client->pending[client->pending_count++] = (struct pending_stream){
			.socket = socket,
			.deadline_ms = clock_now_ms() + HELLO_TIMEOUT_MS,
		};
	}
}

static void accept_control(struct agent_client *client)
{
	client->control =
		accept4(client->control_listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client->control < 0)
		return;
	/* The guest's first process dials before anything else runs there. Nobody comes second. */
	close(client->control_listener);
	client->control_listener = -1;
	flush(client);
}

/* ---- the turn --------------------------------------------------------------------------- */

static int reserve_polls(struct agent_client *client, size_t extra_count)
{
	size_t wanted = FIXED_POLLS + extra_count;
	struct pollfd *grown;

	if (wanted <= client->poll_capacity)
		return 0;
	grown = realloc(client->polls, wanted * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	client->polls = grown;
	client->poll_capacity = wanted;
	return 0;
}

static void prepare(struct agent_client *client, size_t *count, int *timeout_ms)
{
	struct pollfd *polls = client->polls;
	int control = client->control >= 0 ? client->control : client->control_listener;
	bool room = client->pending_count < PENDING_MAX;

	polls[0] = (struct pollfd){ .fd = client->broken ? -1 : control, .events = POLLIN };
	if (client->output_length > 0 && client->control >= 0)
		polls[0].events = POLLIN | POLLOUT;
	polls[1] = (struct pollfd){ .fd = room && !client->broken ? client->stream_listener : -1,
				    .events = POLLIN };
	*count = 2;
	for (size_t i = 0; i < client->pending_count; i++) {
		struct pending_stream *pending = &client->pending[i];
		int64_t wait = clock_ms_until(pending->deadline_ms);

		pending->poll = (int)*count;
		polls[(*count)++] = (struct pollfd){ .fd = pending->socket, .events = POLLIN };
		wait = MAX_OF(wait, 0);
		if (*timeout_ms < 0 || wait < *timeout_ms)
			*timeout_ms = (int)wait;
	}
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		if (client->commands[i])
			exec_command_prepare(client->commands[i], polls, count, timeout_ms);
	}
}

static void turn_commands(struct agent_client *client)
{
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		struct exec_command *command = client->commands[i];

		if (command && exec_command_turn(command, client->polls)) {
			uint8_t frame[64];

			agent_client_send(client, frame,
					  agent_encode_kill(frame, sizeof(frame), command->id));
			exec_command_killed(command);
		}
	}
}

static int turn_control(struct agent_client *client, short revents)
{
	int result = 0;

	if (client->broken || !revents)
		return client->broken;
	if (client->control < 0) {
		accept_control(client);
		return client->broken;
	}
	if (revents & POLLOUT)
		result = flush(client);
	if (result == 0 && (revents & (POLLIN | POLLHUP | POLLERR)))
		result = read_control(client);
	return result;
}

int agent_client_turn(struct agent_client *client, struct pollfd *extra, size_t extra_count,
		      int timeout_ms)
{
	size_t count;
	int result = reserve_polls(client, extra_count);

	if (result < 0)
		return result;
	prepare(client, &count, &timeout_ms);
	if (extra_count > 0)
		memcpy(client->polls + count, extra, extra_count * sizeof(*extra));
	if (poll(client->polls, (nfds_t)(count + extra_count), timeout_ms) < 0) {
		if (errno != EINTR)
			return -errno;
		for (size_t i = 0; i < count + extra_count; i++)
			client->polls[i].revents = 0;
	}
	if (extra_count > 0)
		memcpy(extra, client->polls + count, extra_count * sizeof(*extra));
	turn_commands(client);
	turn_pending(client, client->polls);
	if (client->polls[1].revents)
		accept_streams(client);
	/* Last, so that what a command wrote before its end was reported has been accepted. */
	return turn_control(client, client->polls[0].revents);
}

/* ---- the conversation ------------------------------------------------------------------- */

static int wait_phase(struct agent_client *client, enum phase phase, int abort_fd, int timeout_ms,
		      const char *what)
{
	uint64_t deadline = clock_now_ms() + (uint64_t)MAX_OF(timeout_ms, 0);

	while (client->phase != phase) {
		struct pollfd extra = { .fd = abort_fd, .events = POLLIN };
		uint64_t now = clock_now_ms();
		int result;

		if (now >= deadline) {
			snprintf(client->error, sizeof(client->error),
				 "the guest did not %s within %d seconds", what, timeout_ms / 1000);
			return -ETIMEDOUT;
		}
		result = agent_client_turn(client, &extra, 1, (int)(deadline - now));
		if (result < 0)
			return result;
		if (extra.revents && client->phase != phase)
			return broke(client, -ECONNRESET,
				     "the virtual machine ended before the guest could %s", what);
	}
	return 0;
}

int agent_client_wait_ready(struct agent_client *client, int abort_fd, int timeout_ms,
			    struct agent_client_ready *ret_ready)
{
	int result = wait_phase(client, PHASE_READY, abort_fd, timeout_ms, "start");

	if (result == 0 && ret_ready)
		*ret_ready = client->ready;
	return result;
}

int agent_client_configure(struct agent_client *client, const struct agent_config *config,
			   int abort_fd, int timeout_ms)
{
	cleanup_free uint8_t *frame = NULL;
	size_t length;

	if (client->broken)
		return client->broken;
	if (client->phase != PHASE_READY)
		return -EINVAL;
	length = (size_t)65536 + AGENT_MOUNTS_MAX * (AGENT_PATH_MAX + AGENT_TEXT_MAX + 64) +
		 AGENT_FILES_MAX * (AGENT_FILE_SIZE_MAX + AGENT_PATH_MAX + 64);
	frame = malloc(length);
	if (!frame)
		return -ENOMEM;
	length = agent_encode_config(frame, length, config);
	if (length == 0) {
		snprintf(client->error, sizeof(client->error),
			 "the guest's configuration breaks a limit of the agent protocol "
			 "(names of %d bytes, plain absolute paths of %d, %d mounts, files of %d)",
			 AGENT_NAME_MAX, AGENT_PATH_MAX, AGENT_MOUNTS_MAX, AGENT_FILE_SIZE_MAX);
		return -EINVAL;
	}
	client->phase = PHASE_WAIT_CONFIGURED;
	agent_client_send(client, frame, length);
	explicit_bzero(frame, length);
	if (client->broken)
		return client->broken;
	return wait_phase(client, PHASE_CONFIGURED, abort_fd, timeout_ms, "set itself up");
}

void agent_client_shutdown(struct agent_client *client)
{
	uint8_t frame[64];

	if (client->broken)
		return;
	agent_client_send(client, frame, agent_encode_shutdown(frame, sizeof(frame)));
	client->phase = PHASE_SHUTDOWN;
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		if (client->commands[i])
			exec_command_lost(client->commands[i], "the guest was shut down");
	}
}

/* ---- commands --------------------------------------------------------------------------- */

static size_t strings_size(const char *const *strings)
{
	size_t size = 0;

	for (size_t i = 0; strings && strings[i]; i++)
		size += strlen(strings[i]) + 1;
	return size;
}

static int send_exec(struct agent_client *client, const struct exec_request *request, uint32_t id)
{
	struct agent_exec exec = {
		.exec_id = id,
		.flags = (request->terminal ? AGENT_EXEC_PTY : 0) |
			 (request->input && !request->terminal ? AGENT_EXEC_STDIN : 0),
		.uid = request->uid,
		.gid = request->gid,
		.umask = request->umask & 0777,
		.rows = request->rows,
		.columns = request->columns,
		.cwd = request->cwd,
		.group_count = (uint32_t)MIN_OF(request->group_count, AGENT_GROUPS_MAX + 1),
	};
	size_t capacity = strings_size(request->arguments) + strings_size(request->environment) +
			  AGENT_PATH_MAX + sizeof(exec) + 256;
	cleanup_free uint8_t *frame = NULL;
	size_t length;

	if (exec.group_count > AGENT_GROUPS_MAX || capacity > AGENT_TO_GUEST_FRAME_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < exec.group_count; i++)
		exec.groups[i] = request->groups[i];
	frame = malloc(capacity);
	if (!frame)
		return -ENOMEM;
	length =
		agent_encode_exec(frame, capacity, &exec, request->arguments, request->environment);
	if (length == 0)
		return -EINVAL;
	agent_client_send(client, frame, length);
	return 0;
}

int agent_client_exec(struct agent_client *client, const struct exec_request *request,
		      struct exec_command *command)
{
	size_t slot = 0;
	int result;

	while (slot < AGENT_EXECS_MAX && client->commands[slot])
		slot++;
	if (slot == AGENT_EXECS_MAX || client->next_id == UINT32_MAX)
		return -EMFILE;
	result = send_exec(client, request, client->next_id);
	if (result < 0) {
		snprintf(client->error, sizeof(client->error),
			 "the command breaks a limit of the agent protocol (arguments and "
			 "environment of %u bytes, a plain absolute working directory, %d groups)",
			 AGENT_TO_GUEST_MAX, AGENT_GROUPS_MAX);
		return result;
	}
	exec_command_init(command, client->next_id++, request);
	client->commands[slot] = command;
	if (client->broken)
		exec_command_lost(command, client->error);
	return 0;
}

void agent_client_forget(struct agent_client *client, struct exec_command *command)
{
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		if (client->commands[i] == command)
			client->commands[i] = NULL;
	}
}
