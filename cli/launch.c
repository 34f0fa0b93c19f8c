#include "cli/launch.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "cli/paths.h"
#include "jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_null(int flags)
{
	return open("/dev/null", flags | O_CLOEXEC);
}

static void reset_signals(void)
{
	sigset_t none;

	for (int signal_number = 1; signal_number < NSIG; signal_number++)
		signal(signal_number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Between fork and exec. The streams of the parent may be among 0..2 themselves, and are only
 * read here, so that copying in this order never overwrites one that is still needed. */
static void become(const char *program, char *const *arguments, const int *fds, size_t fd_count,
		   const struct child_streams *streams, pid_t parent)
{
	int input = streams->input >= 0 ? streams->input : open_null(O_RDONLY);
	int output = streams->output >= 0 ? streams->output : open_null(O_WRONLY);

	reset_signals();
	if (jail_die_with_parent(parent) < 0)
		_exit(127);
	setsid();
	if (dup2(input, STDIN_FILENO) < 0)
		_exit(127);
	if (streams->error >= 0 && dup2(streams->error, STDERR_FILENO) < 0)
		_exit(127);
	if (dup2(output, STDOUT_FILENO) < 0)
		_exit(127);
	for (size_t i = 0; i < fd_count; i++) {
		if (fds[i] >= 0 && set_close_on_exec(fds[i], false) < 0)
			_exit(127);
	}
	execv(program, arguments);
	_exit(127);
}

int child_start(struct child *child, const char *program, char *const *arguments, const int *fds,
		size_t fd_count, const struct child_streams *streams, struct problem *problem)
{
	static const struct child_streams none = { -1, -1, -1 };
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot start %s: %s", program,
				   strerror(errno));
	if (pid == 0)
		become(program, arguments, fds, fd_count, streams ? streams : &none, parent);
	child->pid = pid;
	child->ended = false;
	child->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (child->pidfd < 0) {
		problem_set(problem, STATUS_SANDBOX, "cannot watch %s: %s", program,
			    strerror(errno));
		kill(pid, SIGKILL);
		waitpid(pid, &child->wait_status, 0);
		child->pid = 0;
		return -1;
	}
	return 0;
}

static bool reap(struct child *child, int options)
{
	pid_t pid;

	if (child->pid == 0 || child->ended)
		return true;
	do {
		pid = waitpid(child->pid, &child->wait_status, options);
	} while (pid < 0 && errno == EINTR);
	if (pid == 0)
		return false;
	child->ended = true;
	return true;
}

int child_start_daemon(struct child *child, const struct paths *paths, const char *name,
		       struct text_list *arguments, const char *flag, const int *fds,
		       size_t fd_count, struct problem *problem)
{
	cleanup_free char *program = find_program(paths, name, problem);

	if (!program)
		return -1;
	free(arguments->items[0]);
	arguments->items[0] = text_copy(program);
	if (flag)
		text_list_add(arguments, flag);
	return child_start(child, program, arguments->items, fds, fd_count, NULL, problem);
}

void argument_number(struct text_list *arguments, const char *flag, long number)
{
	text_list_add(arguments, flag);
	text_list_take(arguments, text_printf("%ld", number));
}

void argument_text(struct text_list *arguments, const char *flag, const char *text)
{
	text_list_add(arguments, flag);
	text_list_add(arguments, text);
}

int make_pair(int type, int *ret_ours, int *ret_theirs, struct problem *problem)
{
	int pair[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot make a socket pair: %s",
				   strerror(errno));
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
	return 0;
}

bool child_poll(struct child *child)
{
	return reap(child, WNOHANG);
}

bool child_wait(struct child *child, int timeout_ms)
{
	uint64_t deadline = clock_now_ms() + (uint64_t)MAX_OF(timeout_ms, 0);

	if (timeout_ms < 0)
		return reap(child, 0);
	for (;;) {
		struct pollfd poll_fd = { .fd = child->pidfd, .events = POLLIN };
		int64_t left = clock_ms_until(deadline);

		if (reap(child, WNOHANG))
			return true;
		if (left <= 0)
			return false;
		poll(&poll_fd, 1, (int)left);
	}
}

void child_kill(struct child *child)
{
	if (child->pid == 0 || child->ended)
		return;
	kill(child->pid, SIGKILL);
	reap(child, 0);
}

void child_close(struct child *child)
{
	if (child->pidfd >= 0)
		close(child->pidfd);
	child->pidfd = -1;
}

char *child_end_text(const struct child *child)
{
	if (WIFSIGNALED(child->wait_status))
		return text_printf("signal %d (%s)", WTERMSIG(child->wait_status),
				   strsignal(WTERMSIG(child->wait_status)));
	return text_printf("exit status %d", WEXITSTATUS(child->wait_status));
}

int child_exit_status(const struct child *child)
{
	if (WIFSIGNALED(child->wait_status))
		return 128 + WTERMSIG(child->wait_status);
	return WEXITSTATUS(child->wait_status);
}

int run_helper(const char *program, char *const *arguments, size_t limit, char **ret_output,
	       size_t *ret_length, int *ret_status, struct problem *problem)
{
	struct child child = CHILD_INIT("helper");
	struct child_streams streams = { .input = -1, .error = -1 };
	cleanup_free char *output = NULL;
	cleanup_fd int reader = -1;
	size_t length = 0;
	int pipe_fds[2];
	int error;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot make a pipe: %s",
				   strerror(errno));
	reader = pipe_fds[0];
	streams.output = pipe_fds[1];
	error = child_start(&child, program, arguments, NULL, 0, &streams, problem);
	close(pipe_fds[1]);
	if (error < 0)
		return -1;
	error = read_file(reader, limit, &output, &length);
	if (error < 0)
		child_kill(&child);
	child_wait(&child, -1);
	child_close(&child);
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot read what %s prints: %s",
				   program, strerror(-error));
	*ret_output = steal_pointer(&output);
	if (ret_length)
		*ret_length = length;
	*ret_status = child_exit_status(&child);
	return 0;
}
