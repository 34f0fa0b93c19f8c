/*
 * Plays the session around matchlock-audit: starts `PROGRAM serve` on a directory with one socket
 * pair per producer, and lets each producer, a process of its own, do what the scenario says.
 * Prints what it saw as key=value lines; exits with the audit process's status, 128 + N for
 * signal N.
 *
 *	audit_producer PROGRAM DIRECTORY SCENARIO PRODUCERS EVENTS [MAX_BYTES]
 *
 *	plain    mutations from each, and a session_end from the first
 *	noend    the same without a session_end
 *	kill     as plain, but SIGKILL for the audit process after the first EVENTS / 2
 *	hostile  malformed, empty, oversized and truncated datagrams, and names with escapes
 *	flood    producer 0 floods; the others send ten denials each and say when they are through
 *	second   tries to start a second audit process on the same directory
 *	hold     one mutation, then nothing until standard input ends
 */
#include "wire/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PRODUCERS_MAX 16

struct session {
	const char *program;
	const char *directory;
	const char *scenario;
	const char *max_bytes;
	int producers;
	int events;
	int sending[PRODUCERS_MAX];
	int receiving[PRODUCERS_MAX];
	pid_t audit;
};

static struct audit_event event;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool is(const struct session *session, const char *scenario)
{
	return strcmp(session->scenario, scenario) == 0;
}

static bool send_event(int fd)
{
	const void *data;
	size_t length;

	return audit_event_finish(&event, &data, &length) &&
	       send(fd, data, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static bool send_mutation(int fd, int producer, int number)
{
	char path[64];

	snprintf(path, sizeof(path), "src/p%d/file-%d.c", producer, number);
	audit_event_begin(&event, AUDIT_MUTATION);
	audit_event_text(&event, AUDIT_FIELD_OPERATION, "write");
	audit_event_text(&event, AUDIT_FIELD_PATH, path);
	audit_event_number(&event, AUDIT_FIELD_BYTES, (uint64_t)number);
	audit_event_text(&event, AUDIT_FIELD_EXPORT, "workspace");
	return send_event(fd);
}

static bool send_denial(int fd, const char *path, size_t length)
{
	audit_event_begin(&event, AUDIT_DENIAL);
	audit_event_text(&event, AUDIT_FIELD_OPERATION, "open");
	audit_event_bytes(&event, AUDIT_FIELD_PATH, path, length);
	audit_event_text(&event, AUDIT_FIELD_RULE, "protected:.env");
	audit_event_text(&event, AUDIT_FIELD_REASON, "holds secrets");
	return send_event(fd);
}

static bool send_end(int fd)
{
	audit_event_begin(&event, AUDIT_SESSION_END);
	audit_event_text(&event, AUDIT_FIELD_REASON, "command ended");
	audit_event_number(&event, AUDIT_FIELD_STATUS, 0);
	return send_event(fd);
}

static void send_hostile(int fd)
{
	static const char names[][48] = {
		"a\033[31mred\033[0m",
		"line\nbreak",
		"bell\007",
		"<script>&",
		"nul\0inside",
		"not-utf8-\xff\xfe",
		"c1-\xc2\x9b[2J",
		"bidi-\xe2\x80\xaetxt.exe",
		"back\\slash",
		"\r\n{\"seq\":1}",
	};
	static char big[AUDIT_EVENT_MAX + 4096];
	const void *data;
	size_t length;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		send_denial(fd, names[i], i == 4 ? 10 : strlen(names[i]));
	send(fd, "", 0, MSG_NOSIGNAL);
	send(fd, "x", 1, MSG_NOSIGNAL);
	send(fd, big, sizeof(big), MSG_NOSIGNAL);
	audit_event_begin(&event, AUDIT_MUTATION);
	audit_event_text(&event, AUDIT_FIELD_PATH, "cut");
	if (audit_event_finish(&event, &data, &length))
		send(fd, data, length - 1, MSG_NOSIGNAL);
	audit_event_begin(&event, (enum audit_kind)99);
	send_event(fd);
	/* The same field twice. */
	audit_event_begin(&event, AUDIT_MUTATION);
	audit_event_text(&event, AUDIT_FIELD_PATH, "a");
	audit_event_text(&event, AUDIT_FIELD_PATH, "b");
	send_event(fd);
	send_end(fd);
	send_end(fd);
}

static int produce(const struct session *session, int producer)
{
	int fd = session->sending[producer];
	double start = now();

	if (is(session, "hostile")) {
		send_hostile(fd);
		return 0;
	}
	if (is(session, "flood") && producer > 0) {
		for (int i = 0; i < 10; i++)
			send_denial(fd, ".env", 4);
		return 0;
	}
	for (int i = 1; i <= session->events; i++) {
		if (!send_mutation(fd, producer, i))
			return is(session, "kill") ? 0 : 1;
		if (is(session, "kill") && producer == 0 && i == session->events / 2)
			kill(session->audit, SIGKILL);
	}
	printf("producer=%d events=%d ns_per_event=%.0f\n", producer, session->events,
	       (now() - start) * 1e9 / session->events);
	return 0;
}

/* In the child: becomes the audit process. */
static void exec_audit(const struct session *session, int directory)
{
	static char numbers[PRODUCERS_MAX + 1][16];
	const char *arguments[8 + 2 * PRODUCERS_MAX] = { session->program, "serve",
							 "--directory-fd", numbers[0] };
	size_t count = 4;

	snprintf(numbers[0], sizeof(numbers[0]), "%d", directory);
	for (int i = 0; i < session->producers; i++) {
		close(session->sending[i]);
		snprintf(numbers[i + 1], sizeof(numbers[0]), "%d", session->receiving[i]);
		arguments[count++] = "--source-fd";
		arguments[count++] = numbers[i + 1];
	}
	if (session->max_bytes) {
		arguments[count++] = "--max-bytes";
		arguments[count++] = session->max_bytes;
	}
	execv(session->program, (char *const *)(uintptr_t)arguments);
	_exit(127);
}

static pid_t start_audit(const struct session *session)
{
	int directory = open(session->directory, O_RDONLY | O_DIRECTORY);
	pid_t child;

	if (directory < 0)
		return -1;
	child = fork();
	if (child == 0)
		exec_audit(session, directory);
	close(directory);
	return child;
}

static int status_of(pid_t child)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return 126;
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void run_producers(struct session *session)
{
	pid_t children[PRODUCERS_MAX];

	fflush(stdout);
	for (int i = 0; i < session->producers; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			int status = produce(session, i);

			fflush(stdout);
			_exit(status);
		}
	}
	for (int i = 0; i < session->producers; i++) {
		int status = status_of(children[i]);

		if (status)
			printf("producer=%d failed=%d\n", i, status);
	}
}

/* The audit process has its log once it has written a record. */
static void wait_for_log(const struct session *session)
{
	char path[4096];
	struct stat status = { 0 };

	(void)snprintf(path, sizeof(path), "%s/audit.jsonl", session->directory);
	for (int i = 0; i < 3000 && (stat(path, &status) < 0 || status.st_size == 0); i++)
		usleep(10000);
}

/* Another goes for the same directory, or nothing happens until the caller says so. */
static void go_on(const struct session *session)
{
	char byte;

	send_mutation(session->sending[0], 0, 1);
	wait_for_log(session);
	if (is(session, "second"))
		printf("second=%d\n", status_of(start_audit(session)));
	while (is(session, "hold") && read(STDIN_FILENO, &byte, 1) > 0)
		continue;
}

int main(int argc, char **argv)
{
	struct session session = { 0 };
	bool is_alone;
	int status;

	if (argc < 6)
		return 2;
	session.program = argv[1];
	session.directory = argv[2];
	session.scenario = argv[3];
	session.producers = (int)strtol(argv[4], NULL, 10);
	session.events = (int)strtol(argv[5], NULL, 10);
	session.max_bytes = argc > 6 ? argv[6] : NULL;
	if (session.producers < 1 || session.producers > PRODUCERS_MAX || session.events < 0)
		return 2;
	for (int i = 0; i < session.producers; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
			return 2;
		session.sending[i] = pair[0];
		session.receiving[i] = pair[1];
	}
	session.audit = start_audit(&session);
	is_alone = is(&session, "second") || is(&session, "hold");
	if (is_alone)
		go_on(&session);
	for (int i = 0; i < session.producers; i++)
		close(session.receiving[i]);
	if (!is_alone)
		run_producers(&session);
	if (is(&session, "plain") || is(&session, "flood") || is_alone)
		send_end(session.sending[0]);
	for (int i = 0; i < session.producers; i++)
		close(session.sending[i]);
	status = status_of(session.audit);
	printf("status=%d\n", status);
	return status;
}
