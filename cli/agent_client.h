/*
 * The host's end of the agent protocol (wire/agent.h): the guest's control connection, and the
 * stream connections of the commands that run in it (cli/exec_session.h).
 *
 * Everything that arrives was chosen by an untrusted guest. Frames are bounded and decoded by
 * wire/agent; a frame that is malformed, out of order or names a command that does not exist ends
 * the connection with an error; a stray stream connection is closed and forgotten. Memory per
 * client is bounded: one frame, AGENT_EXECS_MAX commands, 16 stream connections whose hello has
 * not come yet (each for at most 10 seconds).
 *
 * Not thread-safe: one thread, which drives it through agent_client_turn(). All sockets are
 * non-blocking; no call here waits longer than its timeout.
 *
 * Functions return 0 or a negative errno; agent_client_error() then has a sentence for a person,
 * with whatever the guest said escaped.
 *
 *     struct agent_client *client;
 *     agent_client_create(control_listener, stream_listener, &client);
 *     agent_client_wait_ready(client, vmm_fd, 30000, &info);
 *     agent_client_configure(client, &config, vmm_fd, 30000);
 *     exec_session_run(client, &request, &loop, &result);
 *     agent_client_shutdown(client);          // then wait for the VMM to end
 *     agent_client_destroy(client);
 */
#ifndef CLI_AGENT_CLIENT_H
#define CLI_AGENT_CLIENT_H

#include "wire/agent.h"

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

struct agent_client;

struct agent_client_ready {
	uint64_t uptime_ns; /* guest clock at READY, for timing the boot */
	char kernel[AGENT_NAME_MAX + 1];
};

/* Takes over two listening Unix stream sockets, `<base>_1024` and `<base>_1025`, bound before
 * the VMM starts; they are closed by destroy, or when this fails. */
int agent_client_create(int control_listener, int stream_listener,
			struct agent_client **ret_client);
void agent_client_destroy(struct agent_client *client);

/*
 * Wait for READY, or send CONFIG and wait for CONFIGURED. `abort_fd` (or -1) is any descriptor
 * that becomes readable or hung up when the VM is gone: a pidfd, or a pipe's end.
 * -ETIMEDOUT (READY may still come, and be waited for again), -ECONNRESET (the VM is gone, or the
 * guest hung up), -EPROTO (the guest broke the protocol, or speaks another version), -EREMOTEIO
 * (the guest reported FAILED: its stage, errno and text are in the error text).
 */
int agent_client_wait_ready(struct agent_client *client, int abort_fd, int timeout_ms,
			    struct agent_client_ready *ret_ready);
int agent_client_configure(struct agent_client *client, const struct agent_config *config,
			   int abort_fd, int timeout_ms);

/*
 * One turn of the loop: waits up to `timeout_ms` (-1: no limit) for the client's descriptors and
 * the caller's `extra` ones (revents is filled in; a turn ends when any is ready), and handles
 * what the guest sent and what the commands' streams carry. Errors are the connection's end, as
 * above; every command then ends with EXEC_RESULT_LOST.
 */
int agent_client_turn(struct agent_client *client, struct pollfd *extra, size_t extra_count,
		      int timeout_ms);

/* Asks the guest to end everything, sync and power off. Best effort: the VMM's end is the
 * proof. Commands that still run end with EXEC_RESULT_LOST. */
void agent_client_shutdown(struct agent_client *client);

/* Why the last call failed, one line; "" before any failure. Valid until the next call. */
const char *agent_client_error(const struct agent_client *client);

/* Called for each NOTICE of the guest (already escaped). NULL turns it off. */
void agent_client_on_notice(struct agent_client *client,
			    void (*notice)(void *context, const char *text), void *context);

/* ---- for exec_session.c ------------------------------------------------------------------ */

struct exec_command;
struct exec_request;

/* Sends EXEC and gives the command's frames and streams to `command`, which stays the caller's,
 * until agent_client_forget(). -EMFILE when AGENT_EXECS_MAX run; -EINVAL for a request over a
 * limit of the protocol. */
int agent_client_exec(struct agent_client *client, const struct exec_request *request,
		      struct exec_command *command);
void agent_client_forget(struct agent_client *client, struct exec_command *command);
/* Queues a frame; does nothing on a broken connection. */
void agent_client_send(struct agent_client *client, const void *frame, size_t length);
/* Declares the connection broken: every command ends as lost, with `text`. */
void agent_client_break(struct agent_client *client, int error, const char *text);

#endif
