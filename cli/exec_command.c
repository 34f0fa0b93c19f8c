#include "cli/exec_command.h"

#include "base/checked.h"
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAM_INPUT 0
#define STREAM_OUTPUT 1
#define STREAM_ERRORS 2

#define RELAY_BUFFER ((size_t)128 * 1024)

#define STATUS_TIMEOUT 124
#define STATUS_LOST 125
#define STATUS_CANNOT_RUN 126
#define STATUS_NOT_FOUND 127

void exec_command_init(struct exec_command *command, uint32_t id,
		       const struct exec_request *request)
{
	memset(command, 0, sizeof(*command));
	command->id = id;
	command->terminal = request->terminal;
	command->quiet_since_ms = clock_now_ms();
	if (request->timeout_ms > 0)
		command->deadline_ms = command->quiet_since_ms + request->timeout_ms;
	for (int i = 0; i < EXEC_COMMAND_STREAMS; i++) {
		struct exec_stream *stream = &command->streams[i];
		bool used = i == STREAM_OUTPUT || (i == STREAM_INPUT && request->input) ||
			    (i == STREAM_ERRORS && !request->terminal);

		stream->socket = -1;
		stream->stdio.fd = -1;
		stream->socket_poll = -1;
		stream->stdio_poll = -1;
		if (!used)
			continue;
		stream->state = EXEC_STREAM_AWAITED;
		stream->stdio = exec_stdio_open(request->fds[i], i != STREAM_INPUT);
	}
}

/* ---- streams ---------------------------------------------------------------------------- */

static void stream_close(struct exec_stream *stream)
{
	if (stream->state == EXEC_STREAM_OPEN) {
		/* A pty's socket is shared with the other direction; to the guest the end of
		 * what this side writes is a message of its own. */
		if (stream->relay.sink == stream->socket)
			shutdown(stream->socket, SHUT_WR);
		relay_release(&stream->relay);
		close(stream->socket);
	}
	exec_stdio_close(&stream->stdio);
	if (stream->state != EXEC_STREAM_UNUSED)
		stream->state = EXEC_STREAM_CLOSED;
	stream->socket_poll = -1;
	stream->stdio_poll = -1;
}

static int stream_open(struct exec_stream *stream, bool input, int socket)
{
	const struct exec_stdio *stdio = &stream->stdio;
	int result;

	if (input)
		result = relay_init(&stream->relay, stdio->fd, stdio->end, socket, RELAY_SOCKET,
				    RELAY_BUFFER);
	else
		result = relay_init(&stream->relay, socket, RELAY_SOCKET, stdio->fd, stdio->end,
				    RELAY_BUFFER);
	if (result < 0)
		return result;
	stream->socket = socket;
	stream->state = EXEC_STREAM_OPEN;
	return 0;
}

static int take_pty(struct exec_command *command, int socket)
{
	struct exec_stream *input = &command->streams[STREAM_INPUT];
	struct exec_stream *output = &command->streams[STREAM_OUTPUT];
	int result;

	if (input->state == EXEC_STREAM_AWAITED) {
		int copy = dup(socket);

		if (copy < 0)
			return -errno;
		result = stream_open(input, true, copy);
		if (result < 0) {
			close(copy);
			return result;
		}
	}
	result = stream_open(output, false, socket);
	if (result < 0)
		stream_close(input);
	return result;
}

int exec_command_take_stream(struct exec_command *command, enum agent_stream stream, int socket)
{
	size_t index = stream == AGENT_STREAM_PTY ? STREAM_OUTPUT : (size_t)stream;
	int result;

	if (command->terminal != (stream == AGENT_STREAM_PTY) ||
	    command->streams[index].state != EXEC_STREAM_AWAITED)
		return -EBADMSG;
	if (command->terminal)
		result = take_pty(command, socket);
	else
		result = stream_open(&command->streams[index], index == STREAM_INPUT, socket);
	command->quiet_since_ms = clock_now_ms();
	return result;
}

static void stream_prepare(struct exec_stream *stream, bool input, struct pollfd *polls,
			   size_t *count)
{
	const struct relay *relay = &stream->relay;
	int *source_poll = input ? &stream->stdio_poll : &stream->socket_poll;
	int *sink_poll = input ? &stream->socket_poll : &stream->stdio_poll;
	short events;

	*source_poll = -1;
	*sink_poll = -1;
	if (stream->state != EXEC_STREAM_OPEN)
		return;
	events = relay_source_events(relay);
	if (events) {
		*source_poll = (int)*count;
		polls[(*count)++] = (struct pollfd){ .fd = relay->source, .events = events };
	}
	/* A reader of our output that goes away is noticed at the next write, as elsewhere. The
	 * guest closing its standard input is noticed at once, to stop reading the caller's. */
	events = relay_sink_events(relay);
	if (events || input) {
		*sink_poll = (int)*count;
		polls[(*count)++] = (struct pollfd){ .fd = relay->sink, .events = events };
	}
}

static bool stream_turn(struct exec_stream *stream, bool input, const struct pollfd *polls)
{
	int source_poll = input ? stream->stdio_poll : stream->socket_poll;
	int sink_poll = input ? stream->socket_poll : stream->stdio_poll;
	bool moved;

	if (stream->state != EXEC_STREAM_OPEN)
		return false;
	moved = relay_turn(&stream->relay, source_poll < 0 ? 0 : polls[source_poll].revents,
			   sink_poll < 0 ? 0 : polls[sink_poll].revents);
	if (relay_done(&stream->relay))
		stream_close(stream);
	return moved;
}

static bool output_ended(const struct exec_command *command)
{
	for (size_t i = STREAM_OUTPUT; i < EXEC_COMMAND_STREAMS; i++) {
		enum exec_stream_state state = command->streams[i].state;

		if (state == EXEC_STREAM_AWAITED || state == EXEC_STREAM_OPEN)
			return false;
	}
	return true;
}

/* True while an output waits for the caller's descriptor rather than for the guest. */
static bool caller_is_slow(const struct exec_command *command)
{
	for (size_t i = STREAM_OUTPUT; i < EXEC_COMMAND_STREAMS; i++) {
		const struct exec_stream *stream = &command->streams[i];

		if (stream->state == EXEC_STREAM_OPEN && stream->relay.length > 0)
			return true;
	}
	return false;
}

/* ---- the end ---------------------------------------------------------------------------- */

static void end(struct exec_command *command, enum exec_result_kind kind, int code, int exit_status)
{
	command->phase = EXEC_PHASE_ENDED;
	command->quiet_since_ms = clock_now_ms();
	command->kill_deadline_ms = 0;
	command->deadline_ms = 0;
	command->result.kind = kind;
	command->result.code = code;
	command->result.exit_status = exit_status;
	/* Nobody reads it any more. */
	stream_close(&command->streams[STREAM_INPUT]);
}

int exec_command_started(struct exec_command *command, const struct agent_started *started)
{
	if (command->phase != EXEC_PHASE_SENT)
		return -EPROTO;
	command->phase = EXEC_PHASE_STARTED;
	command->result.guest_pid = started->pid;
	return 0;
}

static const char *stage_text(uint32_t stage)
{
	switch ((enum agent_exec_stage)stage) {
	case AGENT_STAGE_LIMIT:
		return "too many commands at once";
	case AGENT_STAGE_STREAMS:
		return "cannot connect its standard streams";
	case AGENT_STAGE_PROCESS:
		return "cannot start a process";
	case AGENT_STAGE_USER:
		return "cannot become the user";
	case AGENT_STAGE_CWD:
		return "cannot enter the working directory";
	case AGENT_STAGE_EXEC:
		break;
	}
	return "cannot run it";
}

int exec_command_failed(struct exec_command *command, const struct agent_exec_failed *failed)
{
	int status = STATUS_LOST;

	if (command->phase != EXEC_PHASE_SENT)
		return -EPROTO;
	if (failed->stage == AGENT_STAGE_EXEC)
		status = failed->error == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
	else if (failed->stage == AGENT_STAGE_CWD)
		status = STATUS_CANNOT_RUN;
	end(command, EXEC_RESULT_FAILED, (int)failed->error, status);
	snprintf(command->result.text, sizeof(command->result.text), "%s: %s",
		 stage_text(failed->stage), strerror((int)failed->error));
	/* It wrote nothing. */
	for (size_t i = 0; i < EXEC_COMMAND_STREAMS; i++)
		stream_close(&command->streams[i]);
	return 0;
}

int exec_command_exited(struct exec_command *command, const struct agent_exited *exited)
{
	int code = (int)exited->code;

	if (command->phase != EXEC_PHASE_STARTED)
		return -EPROTO;
	if (command->timed_out) {
		end(command, EXEC_RESULT_TIMEOUT, 0, STATUS_TIMEOUT);
		snprintf(command->result.text, sizeof(command->result.text),
			 "killed when its time was up");
	} else if (exited->kind == AGENT_EXIT_STATUS) {
		end(command, EXEC_RESULT_EXITED, code, code);
	} else {
		end(command, EXEC_RESULT_SIGNALED, code, 128 + code);
	}
	command->result.user_ns = exited->user_ns;
	command->result.system_ns = exited->system_ns;
	command->result.max_rss_bytes = exited->max_rss_bytes;
	return 0;
}

void exec_command_lost(struct exec_command *command, const char *text)
{
	if (command->phase != EXEC_PHASE_ENDED) {
		end(command, EXEC_RESULT_LOST, 0, STATUS_LOST);
		snprintf(command->result.text, sizeof(command->result.text), "%s", text);
	}
	if (command->lost)
		return;
	/* What has arrived is still passed on; what has not will not come. */
	command->lost = true;
	for (size_t i = 0; i < EXEC_COMMAND_STREAMS; i++) {
		if (command->streams[i].state == EXEC_STREAM_AWAITED)
			stream_close(&command->streams[i]);
	}
}

void exec_command_killed(struct exec_command *command)
{
	if (!command->kill_sent && command->phase != EXEC_PHASE_ENDED)
		command->kill_deadline_ms = clock_now_ms() + EXEC_KILL_MAX_MS;
	command->kill_sent = true;
}

/* ---- a turn ----------------------------------------------------------------------------- */

static uint64_t quiet_limit(const struct exec_command *command)
{
	return command->lost ? EXEC_LOST_FLUSH_MS : EXEC_QUIET_MAX_MS;
}

static void shrink_to(int *timeout_ms, uint64_t deadline_ms, uint64_t now)
{
	uint64_t wait = deadline_ms > now ? deadline_ms - now : 0;

	if (wait < INT32_MAX && (*timeout_ms < 0 || (int)wait < *timeout_ms))
		*timeout_ms = (int)wait;
}

void exec_command_prepare(struct exec_command *command, struct pollfd *polls, size_t *count,
			  int *timeout_ms)
{
	uint64_t now = clock_now_ms();

	for (size_t i = 0; i < EXEC_COMMAND_STREAMS; i++)
		stream_prepare(&command->streams[i], i == STREAM_INPUT, polls, count);
	if (command->deadline_ms)
		shrink_to(timeout_ms, command->deadline_ms, now);
	if (command->kill_deadline_ms)
		shrink_to(timeout_ms, command->kill_deadline_ms, now);
	if (command->phase == EXEC_PHASE_ENDED && (command->lost || !caller_is_slow(command)))
		shrink_to(timeout_ms, command->quiet_since_ms + quiet_limit(command), now);
}

static void check_deadlines(struct exec_command *command, uint64_t now)
{
	if (command->kill_deadline_ms && now >= command->kill_deadline_ms)
		exec_command_lost(command, "the guest did not end the command that it was told to "
					   "kill");
	if (command->phase != EXEC_PHASE_ENDED || output_ended(command) ||
	    (!command->lost && caller_is_slow(command)) ||
	    now - command->quiet_since_ms < quiet_limit(command))
		return;
	if (!command->lost) {
		command->result.kind = EXEC_RESULT_LOST;
		command->result.exit_status = STATUS_LOST;
		snprintf(command->result.text, sizeof(command->result.text),
			 "the guest reported the command's end but did not end its output");
	}
	for (size_t i = 0; i < EXEC_COMMAND_STREAMS; i++)
		stream_close(&command->streams[i]);
}

bool exec_command_turn(struct exec_command *command, const struct pollfd *polls)
{
	uint64_t now = clock_now_ms();

	for (size_t i = 0; i < EXEC_COMMAND_STREAMS; i++) {
		if (stream_turn(&command->streams[i], i == STREAM_INPUT, polls))
			command->quiet_since_ms = now;
	}
	/* A terminal that cannot be written to is gone: hang up on the pty altogether. */
	if (command->terminal && command->streams[STREAM_OUTPUT].state == EXEC_STREAM_CLOSED)
		stream_close(&command->streams[STREAM_INPUT]);
	check_deadlines(command, now);
	if (!command->deadline_ms || now < command->deadline_ms)
		return false;
	command->deadline_ms = 0;
	command->timed_out = true;
	return true;
}

bool exec_command_done(const struct exec_command *command)
{
	return command->phase == EXEC_PHASE_ENDED && output_ended(command);
}

void exec_command_release(struct exec_command *command)
{
	for (size_t i = 0; i < EXEC_COMMAND_STREAMS; i++)
		stream_close(&command->streams[i]);
}
