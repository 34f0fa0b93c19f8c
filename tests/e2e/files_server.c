/*
 * Runs the real file server as the command line would, for tests and benchmarks of guest-fused:
 *
 *     files_server PROGRAM CONFIG SOCKET [WINDOW [none | AUDIT DIRECTORY]]
 *
 * listens on the Unix socket, starts `PROGRAM serve` on it, swallows the audit events, and ends the
 * session when it is sent SIGTERM. Exits as the server does. With WINDOW, a link by that name leads
 * to WINDOW_SIZE bytes of memory that the server shares, for guest-fused's --window. With `none`
 * the server has nobody to tell events to; with AUDIT, the audit process's program, that logs them
 * in DIRECTORY (of mode 0700), and this program ends after it.
 */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WINDOW_SIZE 8388608u

static void must(int good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(99);
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(strlen(path) < sizeof(address.sun_path), "socket path");
	memcpy(address.sun_path, path, strlen(path) + 1);
	unlink(path);
	must(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 64) == 0,
	     path);
	return fd;
}

/* Sealed, as the guest's memory is. Stays open here, where the link leads. */
static int make_window(const char *link)
{
	int fd = memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char target[64];

	must(fd >= 0 && ftruncate(fd, WINDOW_SIZE) == 0 &&
		     fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0,
	     "memfd");
	snprintf(target, sizeof(target), "/proc/%d/fd/%d", getpid(), fd);
	unlink(link);
	must(symlink(target, link) == 0, link);
	return fd;
}

static void unblock_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* An option with a descriptor, or nothing for a negative one. */
static void pass(const char **arguments, size_t *count, const char *option, int fd, char *text,
		 size_t capacity)
{
	if (fd < 0)
		return;
	set_close_on_exec(fd, false);
	snprintf(text, capacity, "%d", fd);
	arguments[(*count)++] = option;
	arguments[(*count)++] = text;
}

static void run_server(const char *program, const int *fds, int window_fd)
{
	static const char *const options[] = { "--config-fd", "--listen-fd", "--control-fd",
					       "--audit-fd" };
	const char *arguments[13] = { program, "serve" };
	size_t count = 2;
	char numbers[4][12];
	char window[32];

	unblock_signals();
	for (int i = 0; i < 4; i++)
		pass(arguments, &count, options[i], fds[i], numbers[i], sizeof(numbers[i]));
	pass(arguments, &count, "--window", window_fd, window, sizeof(window));
	if (window_fd >= 0)
		snprintf(window, sizeof(window), "%d:0:%u", window_fd, WINDOW_SIZE);
	execv(program, (char *const *)(uintptr_t)arguments);
	_exit(127);
}

static pid_t start_audit(const char *program, const char *directory, int source)
{
	const char *arguments[9] = { program, "serve", "--max-bytes", "17179869184" };
	size_t count = 4;
	char numbers[2][12];
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pid_t child;

	must(fd >= 0, directory);
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		unblock_signals();
		pass(arguments, &count, "--directory-fd", fd, numbers[0], sizeof(numbers[0]));
		pass(arguments, &count, "--source-fd", source, numbers[1], sizeof(numbers[1]));
		execv(program, (char *const *)(uintptr_t)arguments);
		_exit(127);
	}
	close(fd);
	return child;
}

/* Until the server ends. SIGTERM closes the control socket, which makes it. A negative `audit`:
 * others read the events. */
static int supervise(pid_t server, int signals, int control, int audit)
{
	struct pollfd polled[2] = { { .fd = audit, .events = POLLIN },
				    { .fd = signals, .events = POLLIN } };
	struct signalfd_siginfo info;
	char event[65536];
	int status = 0;

	for (;;) {
		if (poll(polled, 2, -1) < 0 && errno != EINTR)
			return 99;
		if (polled[0].revents != 0 && recv(audit, event, sizeof(event), MSG_DONTWAIT) == 0)
			polled[0].fd = -1;
		if (polled[1].revents == 0 || read(signals, &info, sizeof(info)) < 0)
			continue;
		if (info.ssi_signo == SIGCHLD && waitpid(server, &status, WNOHANG) == server)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
		if (info.ssi_signo == SIGTERM && control >= 0) {
			close(control);
			control = -1;
		}
	}
}

static int usage(void)
{
	fprintf(stderr, "usage: files_server PROGRAM CONFIG SOCKET "
			"[WINDOW [none | AUDIT DIRECTORY]]\n");
	return 2;
}

/* The server's end of the audit events, or -1; *ret_ours is what is left to read here, or -1. */
static int open_audit(int argc, char **argv, pid_t *ret_process, int *ret_ours)
{
	int audit[2];

	*ret_process = -1;
	*ret_ours = -1;
	if (argc == 6)
		return -1;
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, audit) == 0, "socketpair");
	if (argc == 7) {
		*ret_process = start_audit(argv[5], argv[6], audit[0]);
		close(audit[0]);
	} else {
		*ret_ours = audit[0];
	}
	return audit[1];
}

int main(int argc, char **argv)
{
	int control[2];
	int fds[4];
	int window;
	int events;
	int status;
	sigset_t set;
	pid_t server;
	pid_t audit;

	if (argc < 4 || argc > 7 || (argc == 6 && strcmp(argv[5], "none") != 0))
		return usage();
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fds[0] = open(argv[2], O_RDONLY | O_CLOEXEC);
	must(fds[0] >= 0, argv[2]);
	fds[1] = listen_at(argv[3]);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) == 0, "socketpair");
	fds[2] = control[1];
	fds[3] = open_audit(argc, argv, &audit, &events);
	window = argc > 4 ? make_window(argv[4]) : -1;
	server = fork();
	must(server >= 0, "fork");
	if (server == 0)
		run_server(argv[1], fds, window);
	for (int i = 0; i < 4; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	status = supervise(server, signalfd(-1, &set, SFD_CLOEXEC), control[0], events);
	if (audit > 0)
		waitpid(audit, NULL, 0);
	return status;
}
