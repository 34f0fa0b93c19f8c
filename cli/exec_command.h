/*
 * The state of one command in the guest: which of its streams have arrived, what they carry, and
 * how it ended. agent_client.c feeds it; exec_session.c is its face.
 *
 * Everything the guest may do to it is bounded in time once the command is over: after EXITED an
 * output that neither moves nor ends for EXEC_QUIET_MAX_MS, and after a kill an EXITED that does
 * not come, end the command as lost.
 */
#ifndef CLI_EXEC_COMMAND_H
#define CLI_EXEC_COMMAND_H

#include "base/relay.h"
#include "cli/exec_session.h"
#include "cli/exec_stdio.h"
#include "wire/agent.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#define EXEC_QUIET_MAX_MS 10000
#define EXEC_KILL_MAX_MS 30000
/* How long a lost command's output that already arrived may take to be written. */
#define EXEC_LOST_FLUSH_MS 2000
#define EXEC_COMMAND_STREAMS 3
#define EXEC_COMMAND_POLLS ((size_t)2 * EXEC_COMMAND_STREAMS)

enum exec_stream_state {
	EXEC_STREAM_UNUSED,
	EXEC_STREAM_AWAITED,
	EXEC_STREAM_OPEN,
	EXEC_STREAM_CLOSED,
};

struct exec_stream {
	enum exec_stream_state state;
	int socket; /* owned while open */
	struct exec_stdio stdio;
	struct relay relay;
	int socket_poll; /* positions in this turn's poll set, or -1 */
	int stdio_poll;
};

enum exec_phase {
	EXEC_PHASE_SENT,
	EXEC_PHASE_STARTED,
	EXEC_PHASE_ENDED, /* the result is known; output may still flow */
};

struct exec_command {
	uint32_t id;
	bool terminal;
	bool kill_sent;
	bool timed_out;
	bool lost;
	enum exec_phase phase;
	uint64_t quiet_since_ms;
	uint64_t deadline_ms;	   /* of the request's timeout; 0: none */
	uint64_t kill_deadline_ms; /* 0: none */
	struct exec_stream streams[EXEC_COMMAND_STREAMS];
	struct exec_result result;
};

void exec_command_init(struct exec_command *command, uint32_t id,
		       const struct exec_request *request);
void exec_command_release(struct exec_command *command);

/* A stream connection of this command. Takes over `socket` if 0; -EBADMSG when the command has no
 * use for such a stream (or -ENOMEM), and the socket stays the caller's. */
int exec_command_take_stream(struct exec_command *command, enum agent_stream stream, int socket);

/* What the guest said of it. -EPROTO when that cannot be true. */
int exec_command_started(struct exec_command *command, const struct agent_started *started);
int exec_command_failed(struct exec_command *command, const struct agent_exec_failed *failed);
int exec_command_exited(struct exec_command *command, const struct agent_exited *exited);
/* The guest is gone. No effect on a command whose end is known. */
void exec_command_lost(struct exec_command *command, const char *text);
/* KILL was sent. */
void exec_command_killed(struct exec_command *command);

/* Fills at most EXEC_COMMAND_POLLS entries from `polls[*count]` on; *timeout_ms shrinks to the
 * command's next deadline. */
void exec_command_prepare(struct exec_command *command, struct pollfd *polls, size_t *count,
			  int *timeout_ms);
/* After poll(2). Returns true when the request's timeout has just passed: send KILL. */
bool exec_command_turn(struct exec_command *command, const struct pollfd *polls);
bool exec_command_done(const struct exec_command *command);

#endif
