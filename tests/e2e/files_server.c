/*
 * Runs the real file server as the command line would, for tests and benchmarks of guest-fused:
 *
 *     files_server PROGRAM CONFIG SOCKET [WINDOW]
 *
 * listens on the Unix socket, starts `PROGRAM serve` on it, swallows the audit events, and ends the
 * session when it is sent SIGTERM. Exits as the server does. With WINDOW, a link by that name leads
 * to WINDOW_SIZE bytes of memory that the server shares, for guest-fused's --window.
 */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
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

static void run_server(const char *program, const int *fds, int window_fd)
{
	char numbers[4][12];
	char window[32];
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int i = 0; i < 4; i++) {
		set_close_on_exec(fds[i], false);
		snprintf(numbers[i], sizeof(numbers[i]), "%d", fds[i]);
	}
	if (window_fd >= 0)
		set_close_on_exec(window_fd, false);
	snprintf(window, sizeof(window), "%d:0:%u", window_fd, WINDOW_SIZE);
	execl(program, program, "serve", "--config-fd", numbers[0], "--listen-fd", numbers[1],
	      "--control-fd", numbers[2], "--audit-fd", numbers[3],
	      window_fd < 0 ? (char *)NULL : "--window", window, (char *)NULL);
	_exit(127);
}

/* Until the server ends. SIGTERM closes the control socket, which makes it. */
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

int main(int argc, char **argv)
{
	int control[2];
	int audit[2];
	int fds[4];
	int window;
	sigset_t set;
	pid_t server;

	if (argc != 4 && argc != 5) {
		fprintf(stderr, "usage: files_server PROGRAM CONFIG SOCKET [WINDOW]\n");
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fds[0] = open(argv[2], O_RDONLY | O_CLOEXEC);
	must(fds[0] >= 0, argv[2]);
	fds[1] = listen_at(argv[3]);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) == 0 &&
		     socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, audit) == 0,
	     "socketpair");
	fds[2] = control[1];
	fds[3] = audit[1];
	window = argc == 5 ? make_window(argv[4]) : -1;
	server = fork();
	must(server >= 0, "fork");
	if (server == 0)
		run_server(argv[1], fds, window);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	return supervise(server, signalfd(-1, &set, SFD_CLOEXEC), control[0], audit[0]);
}
