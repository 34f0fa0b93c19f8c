#include "cli/exec_session.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/exec_command.h"
#include "cli/exec_terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define DEFAULT_ROWS 24
#define DEFAULT_COLUMNS 80
/* So many of the same signal mean "now". */
#define SIGNALS_TO_KILL 3
#define HANGUP_KILL_MS 5000

struct exec_session {
	struct agent_client *client;
	struct exec_command command;
};

/* ---- several commands in one loop ------------------------------------------------------- */

int exec_session_start(struct agent_client *client, const struct exec_request *request,
		       struct exec_session **ret_session)
{
	struct exec_request sized = *request;
	struct exec_session *session;
	int result;

	if (sized.terminal && (sized.rows == 0 || sized.columns == 0)) {
		struct exec_terminal terminal;

		sized.rows = DEFAULT_ROWS;
		sized.columns = DEFAULT_COLUMNS;
		exec_terminal_init(&terminal, request->fds[0]);
		exec_terminal_size(&terminal, &sized.rows, &sized.columns);
	}
	session = calloc(1, sizeof(*session));
	if (!session)
		return -ENOMEM;
	session->client = client;
	result = agent_client_exec(client, &sized, &session->command);
	if (result < 0) {
		free(session);
		return result;
	}
	*ret_session = session;
	return 0;
}

bool exec_session_done(const struct exec_session *session, struct exec_result *ret_result)
{
	if (!exec_command_done(&session->command))
		return false;
	*ret_result = session->command.result;
	return true;
}

void exec_session_resize(struct exec_session *session, uint16_t rows, uint16_t columns)
{
	struct agent_resize resize = { .exec_id = session->command.id,
				       .rows = rows,
				       .columns = columns };
	uint8_t frame[64];

	agent_client_send(session->client, frame,
			  agent_encode_resize(frame, sizeof(frame), &resize));
}

void exec_session_signal(struct exec_session *session, int signal, bool group)
{
	struct agent_signal message = {
		.exec_id = session->command.id,
		.signal = (uint32_t)signal,
		.flags = group ? AGENT_SIGNAL_GROUP : 0,
	};
	uint8_t frame[64];

	agent_client_send(session->client, frame,
			  agent_encode_signal(frame, sizeof(frame), &message));
}

void exec_session_kill(struct exec_session *session)
{
	uint8_t frame[64];

	agent_client_send(session->client, frame,
			  agent_encode_kill(frame, sizeof(frame), session->command.id));
	exec_command_killed(&session->command);
}

void exec_session_destroy(struct exec_session *session)
{
	if (!session)
		return;
	if (session->command.phase != EXEC_PHASE_ENDED)
		exec_session_kill(session);
	agent_client_forget(session->client, &session->command);
	exec_command_release(&session->command);
	free(session);
}

/* ---- the process's own command ---------------------------------------------------------- */

struct run {
	struct exec_session *session;
	struct exec_terminal terminal; /* without one when the guest has no pty */
	int signal_fd;
	int interrupts;
	int terminations;
	uint64_t hangup_deadline_ms; /* 0: none */
	bool started_told;
};

static const int handled_signals[] = { SIGINT,	SIGQUIT,  SIGTERM, SIGHUP, SIGUSR1,
				       SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT };

static void send_size(struct run *run)
{
	uint16_t rows;
	uint16_t columns;

	if (exec_terminal_size(&run->terminal, &rows, &columns))
		exec_session_resize(run->session, rows, columns);
}

static void stop_process(struct run *run)
{
	/* With a pty the key reaches the guest as a byte; this came from a kill(1). */
	bool pty = run->session->command.terminal;

	if (!pty)
		exec_session_signal(run->session, SIGTSTP, true);
	exec_terminal_restore(&run->terminal);
	kill(getpid(), SIGSTOP);
	/* SIGCONT follows through the signal descriptor. */
}

static void handle_signal(struct run *run, int number)
{
	bool pty = run->session->command.terminal;
	bool kill_now = false;

	switch (number) {
	case SIGWINCH:
		send_size(run);
		return;
	case SIGTSTP:
		stop_process(run);
		return;
	case SIGCONT:
		if (pty) {
			exec_terminal_make_raw(&run->terminal);
			send_size(run);
		} else {
			exec_session_signal(run->session, SIGCONT, true);
		}
		return;
	case SIGINT:
	case SIGQUIT:
		kill_now = ++run->interrupts >= SIGNALS_TO_KILL;
		exec_session_signal(run->session, number, true);
		break;
	case SIGHUP:
		exec_session_signal(run->session, number, true);
		if (run->hangup_deadline_ms == 0)
			run->hangup_deadline_ms = clock_now_ms() + HANGUP_KILL_MS;
		break;
	case SIGTERM:
		kill_now = ++run->terminations >= SIGNALS_TO_KILL;
		exec_session_signal(run->session, number, false);
		break;
	default:
		exec_session_signal(run->session, number, false);
		break;
	}
	if (kill_now)
		exec_session_kill(run->session);
}

static void read_signals(struct run *run)
{
	struct signalfd_siginfo information;

	while (read(run->signal_fd, &information, sizeof(information)) ==
	       (ssize_t)sizeof(information))
		handle_signal(run, (int)information.ssi_signo);
}

static int turn_timeout(struct run *run)
{
	uint64_t now = clock_now_ms();

	if (run->hangup_deadline_ms == 0)
		return -1;
	if (now < run->hangup_deadline_ms)
		return (int)(run->hangup_deadline_ms - now);
	run->hangup_deadline_ms = UINT64_MAX;
	exec_session_kill(run->session);
	return -1;
}

static bool any_ready(const struct pollfd *polls, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (polls[i].revents)
			return true;
	}
	return false;
}

/* Tells the caller of what the turn brought. */
static void after_turn(struct run *run, const struct exec_loop *loop, const struct pollfd *extra)
{
	uint32_t pid = run->session->command.result.guest_pid;

	if (loop->on_started && !run->started_told && pid != 0) {
		run->started_told = true;
		loop->on_started(loop->context, pid);
	}
	for (size_t i = 0; i < loop->watch_count; i++)
		loop->watches[i].revents = extra[2 + i].revents;
	if (loop->on_watch && any_ready(loop->watches, loop->watch_count))
		loop->on_watch(loop->context, loop->watches, loop->watch_count);
}

static int run_loop(struct agent_client *client, struct run *run, const struct exec_loop *loop,
		    struct exec_result *ret_result)
{
	cleanup_free struct pollfd *extra = calloc(2 + loop->watch_count, sizeof(*extra));
	bool aborted = false;

	if (!extra)
		return -ENOMEM;
	while (!exec_session_done(run->session, ret_result)) {
		int result;

		extra[0] = (struct pollfd){ .fd = run->signal_fd, .events = POLLIN };
		extra[1] = (struct pollfd){ .fd = aborted ? -1 : loop->abort_fd, .events = POLLIN };
		for (size_t i = 0; i < loop->watch_count; i++)
			extra[2 + i] = loop->watches[i];
		result = agent_client_turn(client, extra, 2 + loop->watch_count, turn_timeout(run));
		/* A broken connection has told the session; it ends by itself. */
		if (result == -ENOMEM || result == -EINVAL)
			return result;
		if (extra[0].revents)
			read_signals(run);
		if (extra[1].revents) {
			aborted = true;
			agent_client_break(client, -ECONNRESET,
					   "the virtual machine ended while the command ran");
		}
		after_turn(run, loop, extra);
	}
	return 0;
}

static int run_with_signals(struct agent_client *client, const struct exec_request *request,
			    const struct exec_loop *loop, const sigset_t *signals,
			    struct exec_result *ret_result)
{
	struct run run = { .session = NULL };
	int result;

	run.signal_fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run.signal_fd < 0)
		return -errno;
	result = exec_session_start(client, request, &run.session);
	if (result == 0) {
		exec_terminal_init(&run.terminal, request->terminal ? request->fds[0] : -1);
		if (request->input)
			exec_terminal_make_raw(&run.terminal);
		result = run_loop(client, &run, loop, ret_result);
		exec_terminal_restore(&run.terminal);
		exec_session_destroy(run.session);
	}
	close(run.signal_fd);
	return result;
}

int exec_session_run(struct agent_client *client, const struct exec_request *request,
		     const struct exec_loop *loop, struct exec_result *ret_result)
{
	static const struct exec_loop no_loop = { .abort_fd = -1 };
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct sigaction previous_action;
	sigset_t signals;
	sigset_t previous;
	int result;

	sigemptyset(&signals);
	for (size_t i = 0; i < ARRAY_LENGTH(handled_signals); i++)
		sigaddset(&signals, handled_signals[i]);
	pthread_sigmask(SIG_BLOCK, &signals, &previous);
	sigaction(SIGPIPE, &ignore, &previous_action);
	result = run_with_signals(client, request, loop ? loop : &no_loop, &signals, ret_result);
	sigaction(SIGPIPE, &previous_action, NULL);
	pthread_sigmask(SIG_SETMASK, &previous, NULL);
	return result;
}
