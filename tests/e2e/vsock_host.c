/*
 * The host side of the vsock test: serves the ports of tests/guest/vsock_test.h as Unix sockets,
 * starts matchlock-vmm with a guest that plays tests/guest/vsock_guest.c, and prints TAP.
 *
 *     vsock_host VMM KERNEL INITRD all|bench|panic|hang|hang-stop
 *
 * MATCHLOCK_TEST_ENGINE names the engine instead of auto; VSOCK_ECHO_MIB how much is echoed.
 */
#include "base/io.h"
#include "tests/guest/vsock_test.h"
#include "wire/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENGINE_VARIABLE "MATCHLOCK_TEST_ENGINE"

static char directory[] = "/tmp/matchlock-vsock-XXXXXX";
static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned tests, failures;
static pthread_mutex_t done_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_condition = PTHREAD_COND_INITIALIZER;
static bool hanging;

static void result(bool good, const char *text)
{
	pthread_mutex_lock(&output_lock);
	tests++;
	failures += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", tests, text);
	(void)fflush(stdout);
	pthread_mutex_unlock(&output_lock);
}

static void note(const char *text)
{
	pthread_mutex_lock(&output_lock);
	printf("# %s\n", text);
	(void)fflush(stdout);
	pthread_mutex_unlock(&output_lock);
}

static void fill_address(struct sockaddr_un *address, const char *suffix)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	(void)snprintf(address->sun_path, sizeof(address->sun_path), "%s/v%s", directory, suffix);
}

/* ---- from the host into the guest --------------------------------------------------------------
 */

static void *call_guest(void *unused)
{
	char line[64] = "", back[8192];
	struct sockaddr_un address;
	bool good;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ssize_t length = 0;

	fill_address(&address, "");
	good = connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
	good = good && write_full(fd, "CONN", 4) == 0;
	(void)poll(NULL, 0, 20);
	good = good && write_full(fd, "ECT 5000\nhello", 14) == 0;
	/* The answer's line, byte by byte, for what follows is the stream. */
	while (good && length < 63 && read(fd, line + length, 1) == 1 && line[length] != '\n')
		length++;
	result(good && strncmp(line, "OK ", 3) == 0, "CONNECT in two pieces is answered OK");
	good = read_full(fd, back, 5) == 5 && memcmp(back, "hello", 5) == 0;
	memset(line, 'y', sizeof(line));
	for (int i = 0; good && i < 100; i++)
		good = write_full(fd, line, sizeof(line)) == 0 &&
		       read_full(fd, back, sizeof(line)) == (ssize_t)sizeof(line);
	shutdown(fd, SHUT_WR);
	good = good && read(fd, back, 1) == 0;
	result(good, "bytes behind CONNECT and after it, echoed by the guest");
	close(fd);
	return unused;
}

/* ---- services ----------------------------------------------------------------------------------
 */

static void serve_report(int fd)
{
	FILE *stream = fdopen(fd, "r");
	char line[300];
	pthread_t caller;
	bool called = false;

	while (stream && fgets(line, sizeof(line), stream)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "ok ", 3) == 0) {
			result(true, line + 3);
		} else if (strncmp(line, "not ok ", 7) == 0) {
			result(false, line + 7);
		} else if (strcmp(line, "listening") == 0) {
			called = pthread_create(&caller, NULL, call_guest, NULL) == 0;
		} else if (strcmp(line, "hanging") == 0) {
			pthread_mutex_lock(&done_lock);
			hanging = true;
			pthread_cond_signal(&done_condition);
			pthread_mutex_unlock(&done_lock);
		} else {
			note(line[0] == '#' ? line + 2 : line);
		}
	}
	if (called)
		pthread_join(caller, NULL);
	if (stream)
		(void)fclose(stream);
}

static void serve_echo(int fd)
{
	static __thread char data[131072];
	ssize_t count;

	while ((count = read(fd, data, sizeof(data))) > 0) {
		if (write_full(fd, data, (size_t)count) < 0)
			break;
	}
	shutdown(fd, SHUT_WR);
	close(fd);
}

static void serve_sink(int fd)
{
	struct bulk_answer answer = { 0 };
	static uint64_t block[BULK_BLOCK / 8];
	ssize_t count;

	while ((count = read_full(fd, block, sizeof(block))) > 0) {
		answer.length += (uint64_t)count;
		answer.sum += pattern_sum(block);
	}
	(void)write_full(fd, &answer, sizeof(answer));
	close(fd);
}

static void serve_source(int fd)
{
	uint64_t block[BULK_BLOCK / 8];
	char bye[3];

	pattern_fill(block, 0);
	for (uint64_t at = 0; at < BULK_LENGTH; at += BULK_BLOCK) {
		if (write_full(fd, block, sizeof(block)) < 0) {
			close(fd);
			return;
		}
	}
	shutdown(fd, SHUT_WR);
	result(read_full(fd, bye, 3) == 3 && memcmp(bye, "bye", 3) == 0,
	       "the host reads on after its own half-close");
	close(fd);
}

struct service {
	int fd;
	enum test_port port;
};

static void *serve_stream(void *argument)
{
	struct service service = *(struct service *)argument;

	free(argument);
	switch (service.port) {
	case PORT_REPORT:
		serve_report(service.fd);
		break;
	case PORT_ECHO:
		serve_echo(service.fd);
		break;
	case PORT_SINK:
		serve_sink(service.fd);
		break;
	case PORT_SOURCE:
		serve_source(service.fd);
		break;
	case PORT_CLOSER:
		close(service.fd);
		break;
	case PORT_DEAF:
	case PORT_NOBODY:
	case PORT_GUEST:
		break; /* stays open, unread */
	}
	return NULL;
}

static void *serve_port(void *argument)
{
	struct service service = *(struct service *)argument;
	pthread_attr_t attributes;

	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&attributes, 512 * 1024);
	for (;;) {
		struct service *stream = malloc(sizeof(*stream));
		pthread_t thread;

		if (!stream)
			return NULL;
		stream->port = service.port;
		stream->fd = accept(service.fd, NULL, NULL);
		if (stream->fd < 0 || pthread_create(&thread, &attributes, serve_stream, stream)) {
			perror("serving");
			exit(1);
		}
	}
}

static bool listen_on(struct service *service, enum test_port port)
{
	struct sockaddr_un address;
	char suffix[16];
	pthread_t thread;

	service->port = port;
	(void)snprintf(suffix, sizeof(suffix), "_%u", (unsigned)port);
	fill_address(&address, suffix);
	service->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return bind(service->fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
	       listen(service->fd, 1024) == 0 &&
	       pthread_create(&thread, NULL, serve_port, service) == 0;
}

/* ---- the VMM -----------------------------------------------------------------------------------
 */

static pid_t start_vmm(char **arguments, int control, int audit, int console)
{
	const char *mib = getenv("VSOCK_ECHO_MIB"), *engine = getenv(ENGINE_VARIABLE);
	char base[64], append[128];
	pid_t pid;

	(void)snprintf(base, sizeof(base), "%s/v", directory);
	(void)snprintf(append, sizeof(append), "vsock_test=%s " ECHO_VARIABLE "=%s", arguments[4],
		       mib ? mib : "");
	pid = fork();
	if (pid != 0)
		return pid;
	if (dup2(control, 3) < 0 || dup2(audit, 4) < 0 || dup2(console, 5) < 0)
		_exit(126);
	execl(arguments[1], arguments[1], "--engine", engine ? engine : "auto", "--kernel",
	      arguments[2], "--initrd", arguments[3], "--append", append, "--cpus", "1", "--memory",
	      "256", "--cid", "42", "--socket-base", base, "--audit-fd", "4", "--control-fd", "3",
	      "--console-fd", "5", "-v", (char *)NULL);
	_exit(126);
}

static size_t count_jail_events(int audit)
{
	static uint8_t data[AUDIT_EVENT_MAX];
	static struct audit_event_view view;
	size_t events = 0;
	ssize_t count;

	while ((count = recv(audit, data, sizeof(data), MSG_DONTWAIT)) > 0) {
		if (audit_event_decode(data, (size_t)count, &view) == 0 && view.kind == AUDIT_JAIL)
			events++;
	}
	return events;
}

/* The pid of the VMM's only child, which is QEMU; 0 when there is none. */
static pid_t child_of(pid_t pid)
{
	char path[64];
	FILE *file;
	int child = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	file = fopen(path, "re");
	if (file && fscanf(file, "%d", &child) != 1)
		child = 0;
	if (file)
		(void)fclose(file);
	return child;
}

static void await_hanging(void)
{
	pthread_mutex_lock(&done_lock);
	while (!hanging)
		pthread_cond_wait(&done_condition, &done_lock);
	pthread_mutex_unlock(&done_lock);
}

/* An orphan is reaped by us, being its subreaper: that is how its end is seen. */
static void check_kill(pid_t vmm)
{
	pid_t qemu;

	await_hanging();
	qemu = child_of(vmm);
	result(qemu > 0, "the engine is a child of the VMM");
	(void)kill(vmm, SIGKILL);
	(void)waitpid(vmm, NULL, 0);
	result(qemu > 0 && waitpid(qemu, NULL, 0) == qemu, "it dies with a VMM that is killed");
}

static void check_end(pid_t vmm, int control, const char *mode)
{
	const char *expected = strcmp(mode, "panic") == 0  ? "end guest-panic: Kernel panic"
			       : strcmp(mode, "stop") == 0 ? "end stopped"
							   : "end powered-off";
	const char *engine = getenv(ENGINE_VARIABLE);
	char text[1024] = "";
	int status = -1;
	ssize_t count;

	count = recv(control, text, sizeof(text) - 1, 0);
	result(count > 0 && strncmp(text, "started ", 8) == 0 &&
		       (!engine || strcmp(text + 8, engine) == 0),
	       "the VMM says that the guest runs");
	if (strcmp(mode, "stop") == 0) {
		await_hanging();
		(void)send(control, "stop", 4, MSG_NOSIGNAL);
	}
	memset(text, 0, sizeof(text));
	count = recv(control, text, sizeof(text) - 1, 0);
	note(count > 0 ? text : "no message");
	result(count > 0 && strncmp(text, expected, strlen(expected)) == 0, "and why it ended");
	result(waitpid(vmm, &status, 0) == vmm && WIFEXITED(status) &&
		       WEXITSTATUS(status) == (strcmp(mode, "panic") == 0 ? 125 : 0),
	       "its exit status agrees");
}

static void clean_up(void)
{
	static const char *const names[] = { "", "_1", "_2", "_3", "_4", "_5", "_6", "console" };
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s%s", directory,
			       names[i][0] == 'c' ? "" : "v", names[i]);
		(void)unlink(path);
	}
	(void)rmdir(directory);
}

int main(int argc, char **argv)
{
	static const enum test_port ports[] = { PORT_REPORT, PORT_ECHO, PORT_SINK,
						PORT_SOURCE, PORT_DEAF, PORT_CLOSER };
	static struct service services[sizeof(ports) / sizeof(ports[0])];
	int control[2], audit[2], console;
	struct rlimit files = { 0 };
	bool in_process;
	char path[64];
	pid_t vmm;

	if (argc != 5 || !mkdtemp(directory))
		return 2;
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		if (!listen_on(&services[i], ports[i]))
			return 2;
	}
	(void)snprintf(path, sizeof(path), "%s/console", directory);
	console = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (console < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, audit) < 0)
		return 2;
	vmm = start_vmm(argv, control[1], audit[1], console);
	close(control[1]);
	if (strcmp(argv[4], "hang") == 0)
		check_kill(vmm);
	else
		check_end(vmm, control[0], strcmp(argv[4], "hang-stop") == 0 ? "stop" : argv[4]);
	/* QEMU is locked beside the VMM. */
	in_process = getenv(ENGINE_VARIABLE) && strcmp(getenv(ENGINE_VARIABLE), "kvm") == 0;
	result(count_jail_events(audit[0]) == (in_process ? 1 : 2),
	       "the jail of each process is in the audit log");
	clean_up();
	printf("1..%u\n", tests);
	return failures ? 1 : 0;
}
