/*
 * The streams of a command in the testbed, over one virtio-serial port.
 *
 *   relay guest PORT COMMAND...     PID 1 of the VM: runs COMMAND, sends what it writes
 *   relay host BOOT-S RUN-S         reads that from standard input, writes it to standard output
 *                                   and error, and ends with the command's status
 *   relay listen SOCKET COMMAND...  becomes COMMAND, a server, with a listening socket as
 *                                   descriptor 3: it may be connected to from then on, and the
 *                                   server needs no place for a lock that only root has
 *   relay no-fowner COMMAND...      becomes COMMAND, which can never have CAP_FOWNER (init.sh)
 *
 * Theory of operation. The guest sends frames: one byte of type, the length of what follows as a
 * little-endian u32, and that many bytes. All streams share the port, so the frame that tells the
 * status arrives after everything that the command wrote, and nothing of it is lost when the VM is
 * then killed. A descendant that outlives the command and keeps its streams open does not keep
 * the testbed: what it has written when the command ended is sent, and that is all.
 *
 * The host gives up after BOOT-S seconds without the first frame and RUN-S seconds after it.
 * Status 125: the VM ended, or spoke nonsense, before the command did; 124: a limit passed.
 */
#include "base/cleanup.h"
#include "base/io.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX 32768
#define HEADER_SIZE 5
#define STATUS_FAILED 125
#define STATUS_LATE 124
#define SERVER_FD 3

enum frame_type {
	FRAME_STARTED = 's',
	FRAME_OUTPUT = 'o',
	FRAME_ERROR = 'e',
	FRAME_EXITED = 'x', /* u32: the status, as a shell has it */
};

/* ---- guest ------------------------------------------------------------------------------- */

static int send_frame(int port, enum frame_type type, const void *data, uint32_t length)
{
	uint8_t frame[HEADER_SIZE + FRAME_MAX];
	uint32_t wire_length = htole32(length);

	frame[0] = (uint8_t)type;
	memcpy(frame + 1, &wire_length, sizeof(wire_length));
	if (length > 0)
		memcpy(frame + HEADER_SIZE, data, length);
	return write_full(port, frame, HEADER_SIZE + length);
}

/* Sends what is there; false once the stream has ended. */
static bool forward(int port, int stream, enum frame_type type)
{
	uint8_t data[FRAME_MAX];
	ssize_t count = read(stream, data, sizeof(data));

	if (count < 0)
		return errno == EINTR;
	return count > 0 && send_frame(port, type, data, (uint32_t)count) == 0;
}

static _Noreturn void run_command(char **command, const int output[2], const int error[2])
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (null < 0 || dup2(null, 0) < 0 || dup2(output[1], 1) < 0 || dup2(error[1], 2) < 0)
		_exit(STATUS_FAILED);
	close(null);
	execv(command[0], command);
	dprintf(2, "testbed: cannot run %s: %s\n", command[0], strerror(errno));
	_exit(127);
}

/* Reaps all that ended, as PID 1 must; true when `pid` was among them. */
static bool reap(pid_t pid, int *ret_status)
{
	int status;
	pid_t ended;
	bool found = false;

	while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
		if (ended != pid)
			continue;
		*ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		found = true;
	}
	return found;
}

static int relay_until_exit(int port, pid_t pid, int output, int error)
{
	struct pollfd streams[] = { { .fd = output, .events = POLLIN },
				    { .fd = error, .events = POLLIN } };
	const enum frame_type types[] = { FRAME_OUTPUT, FRAME_ERROR };
	bool ended = false;
	int status = STATUS_FAILED;

	for (;;) {
		/* The end of a child interrupts nothing here; it is looked for ten times a second,
		 * and once more before the streams are found empty for the last time. */
		int ready = poll(streams, 2, ended ? 0 : 100);

		if (ended && ready <= 0)
			return status;
		for (size_t i = 0; i < 2; i++) {
			if (streams[i].revents && !forward(port, streams[i].fd, types[i]))
				streams[i].fd = -1;
		}
		if (!ended)
			ended = reap(pid, &status);
	}
}

static int guest(const char *port_path, char **command)
{
	cleanup_fd int port = open(port_path, O_RDWR | O_CLOEXEC);
	int output[2], error[2];
	uint32_t status;
	pid_t pid;

	if (port < 0 || pipe2(output, O_CLOEXEC) < 0 || pipe2(error, O_CLOEXEC) < 0) {
		perror("testbed: relay");
		return 1;
	}
	if (send_frame(port, FRAME_STARTED, NULL, 0) < 0)
		return 1;
	pid = fork();
	if (pid < 0)
		return 1;
	if (pid == 0)
		run_command(command, output, error);
	close(output[1]);
	close(error[1]);
	status = htole32((uint32_t)relay_until_exit(port, pid, output[0], error[0]));
	sync();
	(void)send_frame(port, FRAME_EXITED, &status, sizeof(status));
	/* The host ends the VM; ending it here could lose what is still under way. */
	for (;;)
		pause();
}

/* ---- host -------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

enum outcome { OUTCOME_READ, OUTCOME_END, OUTCOME_LATE };

static enum outcome read_by(int64_t deadline, void *buffer, size_t length)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	uint8_t *bytes = buffer;

	while (length > 0) {
		int64_t left = deadline - now_ms();
		ssize_t count;

		if (left <= 0)
			return OUTCOME_LATE;
		if (poll(&input, 1, (int)left) <= 0)
			continue;
		count = read(STDIN_FILENO, bytes, length);
		if (count == 0 || (count < 0 && errno != EINTR))
			return OUTCOME_END;
		if (count > 0) {
			bytes += count;
			length -= (size_t)count;
		}
	}
	return OUTCOME_READ;
}

/* One frame, with its data in `data`. */
static enum outcome read_frame(int64_t deadline, uint8_t *ret_type, uint8_t *data,
			       uint32_t *ret_length)
{
	uint8_t header[HEADER_SIZE];
	uint32_t length;
	enum outcome outcome = read_by(deadline, header, sizeof(header));

	if (outcome != OUTCOME_READ)
		return outcome;
	memcpy(&length, header + 1, sizeof(length));
	length = le32toh(length);
	if (length > FRAME_MAX)
		return OUTCOME_END;
	*ret_type = header[0];
	*ret_length = length;
	return read_by(deadline, data, length);
}

static int end_of(enum outcome outcome, bool started, int limit)
{
	const char *what = started ? "the command" : "the boot";

	if (outcome == OUTCOME_LATE)
		fprintf(stderr, "testbed: %s took longer than %d s\n", what, limit);
	else
		fprintf(stderr, "testbed: the VM ended during %s\n", what);
	return outcome == OUTCOME_LATE && started ? STATUS_LATE : STATUS_FAILED;
}

static int host(int boot_limit, int run_limit)
{
	uint8_t data[FRAME_MAX];
	bool started = false;
	int64_t deadline = now_ms() + (int64_t)boot_limit * 1000;

	for (;;) {
		uint8_t type;
		uint32_t length, status;
		enum outcome outcome = read_frame(deadline, &type, data, &length);

		if (outcome != OUTCOME_READ)
			return end_of(outcome, started, started ? run_limit : boot_limit);
		switch (type) {
		case FRAME_STARTED:
			started = true;
			deadline = now_ms() + (int64_t)run_limit * 1000;
			break;
		case FRAME_OUTPUT:
		case FRAME_ERROR:
			/* Nobody listens any more: as for any command, the end. */
			if (write_full(type == FRAME_OUTPUT ? 1 : 2, data, length) < 0)
				return 128 + SIGPIPE;
			break;
		case FRAME_EXITED:
			if (length != sizeof(status))
				return end_of(OUTCOME_END, started, 0);
			memcpy(&status, data, sizeof(status));
			return (int)(le32toh(status) & 0xff);
		default:
			return end_of(OUTCOME_END, started, 0);
		}
	}
}

/* ---- server ------------------------------------------------------------------------------ */

static int serve(const char *path, char **command)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	/* Who sees the socket under its name may connect: so it gets that once it listens. */
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s.new", path);

	if (length < 0 || (size_t)length >= sizeof(address.sun_path)) {
		fprintf(stderr, "testbed: the path %s is too long for a socket\n", path);
		return STATUS_FAILED;
	}
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 1) < 0 || rename(address.sun_path, path) < 0 || dup2(fd, SERVER_FD) < 0) {
		fprintf(stderr, "testbed: cannot listen on %s: %s\n", path, strerror(errno));
		return STATUS_FAILED;
	}
	if (fd != SERVER_FD)
		close(fd);
	execv(command[0], command);
	fprintf(stderr, "testbed: cannot run %s: %s\n", command[0], strerror(errno));
	return STATUS_FAILED;
}

static int seconds(const char *text)
{
	long value = strtol(text, NULL, 10);

	return value > 0 && value <= 1000000 ? (int)value : 1;
}

int main(int argc, char **argv)
{
	if (argc >= 4 && strcmp(argv[1], "guest") == 0)
		return guest(argv[2], argv + 3);
	if (argc >= 4 && strcmp(argv[1], "listen") == 0)
		return serve(argv[2], argv + 3);
	if (argc >= 3 && strcmp(argv[1], "no-fowner") == 0) {
		if (prctl(PR_CAPBSET_DROP, CAP_FOWNER, 0, 0, 0) == 0)
			execv(argv[2], argv + 2);
		perror("testbed: relay");
		return STATUS_FAILED;
	}
	if (argc == 4 && strcmp(argv[1], "host") == 0) {
		(void)signal(SIGPIPE, SIG_IGN);
		return host(seconds(argv[2]), seconds(argv[3]));
	}
	fprintf(stderr, "usage: relay guest PORT COMMAND... | host BOOT-S RUN-S | "
			"listen SOCKET COMMAND... | no-fowner COMMAND...\n");
	return 2;
}
