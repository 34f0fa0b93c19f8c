#include "guest-init/exec_process.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

/* Larger than the default of 64 KiB: fewer switches between the command and the relay. */
#define PIPE_SIZE (256 * 1024)

/* Both halves of what the command gets as its standard streams. */
struct stdio {
	int child[3];
	int server[3];
};

static void close_all(int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static int open_pipe(struct stdio *stdio, int stream)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	/* Failing that, the default does. */
	(void)fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE);
	stdio->child[stream] = ends[stream == 0 ? 0 : 1];
	stdio->server[stream] = ends[stream == 0 ? 1 : 0];
	return set_nonblocking(stdio->server[stream], true);
}

static int open_pipes(const struct agent_exec *exec, struct stdio *stdio)
{
	int result = 0;

	if (exec->flags & AGENT_EXEC_STDIN) {
		result = open_pipe(stdio, 0);
	} else {
		stdio->child[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (stdio->child[0] < 0)
			return -errno;
	}
	if (result == 0)
		result = open_pipe(stdio, 1);
	if (result == 0)
		result = open_pipe(stdio, 2);
	return result;
}

static int open_pty(const struct agent_exec *exec, struct stdio *stdio)
{
	struct winsize size = { .ws_row = exec->rows, .ws_col = exec->columns };
	struct termios settings;
	int unlock = 0;
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	int slave;

	if (master < 0)
		return -errno;
	stdio->server[0] = master;
	stdio->server[1] = fcntl(master, F_DUPFD_CLOEXEC, 0);
	if (stdio->server[1] < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return -errno;
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	stdio->child[0] = slave;
	/* Without the right to give it away the pty is the caller's already. */
	if (fchown(slave, exec->uid, (gid_t)-1) < 0 && errno != EPERM)
		return -errno;
	if (tcgetattr(slave, &settings) == 0) {
		settings.c_iflag |= IUTF8;
		tcsetattr(slave, TCSANOW, &settings);
	}
	if (ioctl(master, TIOCSWINSZ, &size) < 0)
		return -errno;
	return 0;
}

static char **string_array(const struct agent_strings *strings)
{
	char **array = calloc((size_t)strings->count + 1, sizeof(*array));
	uint32_t position = 0;

	for (uint32_t i = 0; array && i < strings->count; i++)
		array[i] = (char *)(uintptr_t)agent_strings_next(strings, &position);
	return array;
}

/* The kernel's own form of the call: libc's leaves out the two signals that it keeps for its
 * threads, which are ignored all the same when whoever started us ignored them. */
static void reset_signals(void)
{
	const struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} action = { .handler = SIG_DFL };
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		syscall(SYS_rt_sigaction, number, &action, NULL, sizeof(action.mask));
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int take_user(const struct agent_exec *exec)
{
	/* Only root may change ids; a server that is not root runs everything as itself. */
	if (geteuid() != 0)
		return exec->uid == geteuid() ? 0 : -EPERM;
	if (setgroups(exec->group_count, exec->groups) < 0 ||
	    setresgid(exec->gid, exec->gid, exec->gid) < 0 ||
	    setresuid(exec->uid, exec->uid, exec->uid) < 0)
		return -errno;
	return 0;
}

static int take_stdio(const struct agent_exec *exec, const struct stdio *stdio)
{
	bool pty = (exec->flags & AGENT_EXEC_PTY) != 0;

	if (pty && ioctl(stdio->child[0], TIOCSCTTY, 0) < 0)
		return -errno;
	for (int stream = 0; stream < 3; stream++) {
		if (dup2(stdio->child[pty ? 0 : stream], stream) < 0)
			return -errno;
	}
	return 0;
}

static _Noreturn void report_and_exit(int report_fd, enum agent_exec_stage stage, int error)
{
	struct exec_report report = { .stage = stage, .error = error };

	(void)write_full(report_fd, &report, sizeof(report));
	_exit(error == ENOENT ? 127 : 126);
}

/* `result`: of process_tree_fork(). */
static _Noreturn void become_command(const struct agent_exec *exec, char **arguments,
				     char **environment, int result, const struct stdio *stdio,
				     int report_fd)
{
	setsid();
	reset_signals();
	if (result < 0)
		report_and_exit(report_fd, AGENT_STAGE_PROCESS, -result);
	result = take_stdio(exec, stdio);
	if (result < 0)
		report_and_exit(report_fd, AGENT_STAGE_STREAMS, -result);
	result = take_user(exec);
	if (result < 0)
		report_and_exit(report_fd, AGENT_STAGE_USER, -result);
	umask((mode_t)exec->umask);
	if (chdir(exec->cwd) < 0)
		report_and_exit(report_fd, AGENT_STAGE_CWD, errno);
	environ = environment;
	execvp(arguments[0], arguments);
	report_and_exit(report_fd, AGENT_STAGE_EXEC, errno);
}

/* Moves descriptors 0..2 out of the way of the child's dup2(). */
static int above_stdio(int fd)
{
	int moved;

	if (fd > 2 || fd < 0)
		return fd;
	moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (moved >= 0)
		close(fd);
	return moved;
}

static int start(const struct agent_exec *exec, struct process_tree *tree, struct stdio *stdio,
		 struct exec_process *ret_process, enum agent_exec_stage *ret_stage)
{
	cleanup_free char **arguments = string_array(&exec->arguments);
	cleanup_free char **environment = string_array(&exec->environment);
	int report[2];
	int result;
	pid_t pid;

	*ret_stage = AGENT_STAGE_STREAMS;
	if (!arguments || !environment)
		return -ENOMEM;
	result = exec->flags & AGENT_EXEC_PTY ? open_pty(exec, stdio) : open_pipes(exec, stdio);
	if (result < 0)
		return result;
	for (size_t i = 0; i < 3; i++)
		stdio->child[i] = above_stdio(stdio->child[i]);
	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	report[1] = above_stdio(report[1]);
	*ret_stage = AGENT_STAGE_PROCESS;
	pid = process_tree_fork(tree, &result);
	if (pid == 0)
		become_command(exec, arguments, environment, result, stdio, report[1]);
	result = pid < 0 ? -errno : 0;
	close(report[1]);
	if (result < 0) {
		close(report[0]);
		return result;
	}
	tree->leader = pid;
	ret_process->pid = pid;
	ret_process->report_fd = report[0];
	return 0;
}

int exec_process_start(const struct agent_exec *exec, struct process_tree *tree,
		       struct exec_process *ret_process, enum agent_exec_stage *ret_stage)
{
	struct stdio stdio = { .child = { -1, -1, -1 }, .server = { -1, -1, -1 } };
	int result = start(exec, tree, &stdio, ret_process, ret_stage);

	ret_process->slave_fd = -1;
	if (result == 0 && (exec->flags & AGENT_EXEC_PTY))
		ret_process->slave_fd = steal_fd(&stdio.child[0]);
	close_all(stdio.child, 3);
	if (result < 0) {
		close_all(stdio.server, 3);
		return result;
	}
	for (int i = 0; i < 3; i++)
		ret_process->ends[i] = stdio.server[i];
	return 0;
}
