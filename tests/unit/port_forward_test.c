/*
 * Forwarded ports and the control socket of a session, without a VM: this test plays the VMM's
 * socket, and the process that runs the session.
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/port_forward.h"
#include "cli/remove_tree.h"
#include "cli/session_control.h"
#include "wire/audit.h"
#include "wire/egress.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char scratch[64];
static char base[96];
static struct problem problem;
static int audit[2] = { -1, -1 }; /* ours, the forwarder's */

static void set_up(void)
{
	snprintf(scratch, sizeof(scratch), "/tmp/matchlock-forward-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	snprintf(base, sizeof(base), "%s/v", scratch);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, audit), 0);
}

static void tear_down(void)
{
	ck_assert_int_eq(remove_tree(scratch), 0);
	close(audit[0]);
	close(audit[1]);
}

/* ---- forwarded ports -------------------------------------------------------------------- */

static int listen_as_vmm(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(address.sun_path, base, strlen(base) + 1);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	return fd;
}

static struct sockaddr_in start_forwarder(uint16_t guest_port, pid_t *ret_pid)
{
	struct port_forward forward = { .address = (char[]){ "127.0.0.1" },
					.guest_port = guest_port };
	struct forward_listener listener = { .guest_port = guest_port };
	struct sockaddr_in address;
	socklen_t length = sizeof(address);

	listener.fd = port_forward_listen(&forward, &problem);
	ck_assert_msg(listener.fd >= 0, "%s", problem.text);
	ck_assert_int_eq(getsockname(listener.fd, (struct sockaddr *)&address, &length), 0);
	*ret_pid = fork();
	if (*ret_pid == 0) {
		struct forward_options options = { base, &listener, 1, audit[1], audit[1] };

		close(audit[0]);
		_exit(port_forward_lock(&options) < 0 || port_forward_serve(&options) < 0);
	}
	close(listener.fd);
	return address;
}

static int dial(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
	return fd;
}

static void end_forwarder(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int accept_stream(int vmm, const char *answer, uint16_t wanted_port)
{
	int stream = accept(vmm, NULL, NULL);
	uint8_t hello[EGRESS_HELLO_SIZE];
	struct egress_target target;
	char line[13];

	ck_assert_int_ge(stream, 0);
	ck_assert_int_eq(read_full(stream, line, sizeof(line)), sizeof(line));
	ck_assert_mem_eq(line, "CONNECT 1029\n", sizeof(line));
	ck_assert_int_eq(read_full(stream, hello, sizeof(hello)), sizeof(hello));
	ck_assert_int_eq(egress_decode_hello(hello, &target), 0);
	ck_assert_int_eq(target.family, 4);
	ck_assert_uint_eq(target.port, wanted_port);
	ck_assert_int_eq(target.address[0], 127);
	ck_assert_int_eq(write_full(stream, answer, strlen(answer)), 0);
	return stream;
}

static void expect_text(int fd, const char *text)
{
	char buffer[64] = "";

	ck_assert_int_eq(read_full(fd, buffer, strlen(text)), (ssize_t)strlen(text));
	ck_assert_str_eq(buffer, text);
}

static void expect_end(int fd)
{
	char byte;

	ck_assert_int_eq(read_full(fd, &byte, 1), 0);
}

static uint64_t number_of(const struct audit_event_view *view, enum audit_field field)
{
	for (size_t i = 0; i < view->field_count; i++) {
		if (view->fields[i].field == field)
			return view->fields[i].number;
	}
	return UINT64_MAX;
}

/* "" for none. */
static const char *text_of(const struct audit_event_view *view, enum audit_field field)
{
	static char text[1024];

	text[0] = '\0';
	for (size_t i = 0; i < view->field_count; i++) {
		if (view->fields[i].field == field)
			snprintf(text, sizeof(text), "%.*s", (int)view->fields[i].text_length,
				 view->fields[i].text);
	}
	return text;
}

/* The next event of that kind; the view is valid until the next one. */
static struct audit_event_view next_event(enum audit_kind kind)
{
	static uint8_t data[AUDIT_EVENT_MAX];
	struct audit_event_view view;

	do {
		ssize_t length = recv(audit[0], data, sizeof(data), 0);

		ck_assert_int_gt(length, 0);
		ck_assert_int_eq(audit_event_decode(data, (size_t)length, &view), 0);
	} while (view.kind != kind);
	return view;
}

START_TEST(connections_are_told_to_the_log)
{
	cleanup_fd int vmm = listen_as_vmm();
	pid_t pid;
	struct sockaddr_in address = start_forwarder(8080, &pid);
	int client = dial(&address);
	int stream = accept_stream(vmm, "OK 1\nhello", 8080);
	struct audit_event_view event;
	char rule[64];
	int status;

	event = next_event(AUDIT_JAIL);
	ck_assert_str_eq(text_of(&event, AUDIT_FIELD_COMPONENT), "port-forward");
	ck_assert_ptr_nonnull(strstr(text_of(&event, AUDIT_FIELD_DETAIL), "seccomp("));
	expect_text(client, "hello");
	ck_assert_int_eq(write_full(client, "question", 8), 0);
	expect_text(stream, "question");
	close(client);
	expect_end(stream);
	close(stream);
	event = next_event(AUDIT_CONNECTION);
	snprintf(rule, sizeof(rule), "127.0.0.1:%u:8080", ntohs(address.sin_port));
	ck_assert_str_eq(text_of(&event, AUDIT_FIELD_RULE), rule);
	ck_assert_str_eq(text_of(&event, AUDIT_FIELD_OPERATION), "forward");
	ck_assert_str_eq(text_of(&event, AUDIT_FIELD_ADDRESS), "127.0.0.1");
	ck_assert_str_eq(text_of(&event, AUDIT_FIELD_REASON), "");
	ck_assert_uint_eq(number_of(&event, AUDIT_FIELD_PORT), 8080);
	ck_assert_uint_eq(number_of(&event, AUDIT_FIELD_SENT), 5);
	ck_assert_uint_eq(number_of(&event, AUDIT_FIELD_RECEIVED), 8);
	client = dial(&address);
	close(accept_stream(vmm, "NO\n", 8080));
	event = next_event(AUDIT_CONNECTION);
	ck_assert_str_eq(text_of(&event, AUDIT_FIELD_REASON), "guest_refused");
	close(client);
	/* What is there when a signal or the end comes is told as well. */
	client = dial(&address);
	stream = accept_stream(vmm, "OK 1\nhello", 8080);
	expect_text(client, "hello");
	if (_i == 0)
		kill(pid, SIGTERM);
	else
		shutdown(audit[0], SHUT_WR);
	event = next_event(AUDIT_CONNECTION);
	ck_assert_str_eq(text_of(&event, AUDIT_FIELD_REASON), "session_ended");
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	close(client);
	close(stream);
}
END_TEST

START_TEST(without_a_log_nothing_is_forwarded)
{
	pid_t pid;
	struct sockaddr_in address = start_forwarder(80, &pid);
	int status;

	(void)address;
	(void)next_event(AUDIT_JAIL);
	shutdown(audit[0], SHUT_RDWR);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

static int open_file(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static int connect_out(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int run_program(void)
{
	char name[] = "/bin/true";
	char *const arguments[] = { name, NULL };

	return execv(name, arguments);
}

static int find_socket_elsewhere(void)
{
	const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/run/x" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 &&
			       errno == ENOENT
		       ? 4711
		       : 1;
}

static int (*const attempts[])(void) = { open_file, connect_out, run_program,
					 find_socket_elsewhere };

/* Ends by the filter, or says 4711 % 256. */
START_TEST(the_process_can_do_nothing_else)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct forward_options options = { base, NULL, 0, -1, -1 };

		if (port_forward_lock(&options) < 0)
			_exit(2);
		_exit(attempts[_i]() & 0xff);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (attempts[_i] == find_socket_elsewhere)
		ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == (4711 & 0xff));
	else
		ck_assert_msg((WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) ||
				      (WIFEXITED(status) && WEXITSTATUS(status) == 0xff),
			      "status %x", status);
}
END_TEST

START_TEST(a_connection_goes_both_ways)
{
	cleanup_fd int vmm = listen_as_vmm();
	pid_t pid;
	struct sockaddr_in address = start_forwarder(8080, &pid);
	cleanup_fd int client = dial(&address);
	/* The first bytes of the stream come with the answer. */
	cleanup_fd int stream = accept_stream(vmm, "OK 1073741824\nhello", 8080);

	expect_text(client, "hello");
	ck_assert_int_eq(write_full(client, "question", 8), 0);
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	expect_text(stream, "question");
	expect_end(stream);
	ck_assert_int_eq(write_full(stream, "answer", 6), 0);
	ck_assert_int_eq(shutdown(stream, SHUT_WR), 0);
	expect_text(client, "answer");
	expect_end(client);
	end_forwarder(pid);
}
END_TEST

START_TEST(what_does_not_come_to_be_is_closed)
{
	static const char *const answers[] = { "", "NO\n", "OK",
					       "OK 1234567890123456789012345678901\n" };
	cleanup_fd int vmm = listen_as_vmm();
	pid_t pid;
	struct sockaddr_in address = start_forwarder(80, &pid);

	for (size_t i = 0; i < ARRAY_LENGTH(answers); i++) {
		cleanup_fd int client = dial(&address);
		int stream = accept_stream(vmm, answers[i], 80);

		ck_assert_int_eq(shutdown(stream, SHUT_WR), 0);
		expect_end(client);
		close(stream);
	}
	ck_assert_int_eq(unlink(base), 0);
	{
		cleanup_fd int client = dial(&address);

		expect_end(client);
	}
	end_forwarder(pid);
}
END_TEST

START_TEST(bulk_arrives_whole)
{
	static uint8_t data[1 << 20];
	static uint8_t back[sizeof(data)];
	cleanup_fd int vmm = listen_as_vmm();
	pid_t pid;
	struct sockaddr_in address = start_forwarder(80, &pid);
	cleanup_fd int client = dial(&address);
	cleanup_fd int stream = accept_stream(vmm, "OK 1\n", 80);
	pid_t writer;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + (i >> 9));
	writer = fork();
	if (writer == 0)
		_exit(write_full(client, data, sizeof(data)) < 0);
	ck_assert_int_eq(read_full(stream, back, sizeof(back)), sizeof(back));
	ck_assert(memcmp(back, data, sizeof(data)) == 0);
	waitpid(writer, NULL, 0);
	end_forwarder(pid);
}
END_TEST

START_TEST(a_port_that_is_taken_is_told)
{
	struct port_forward forward = { .address = (char[]){ "127.0.0.1" }, .guest_port = 80 };
	struct sockaddr_in address;
	socklen_t length = sizeof(address);
	cleanup_fd int first = port_forward_listen(&forward, &problem);

	ck_assert_int_eq(getsockname(first, (struct sockaddr *)&address, &length), 0);
	forward.host_port = ntohs(address.sin_port);
	ck_assert_int_lt(port_forward_listen(&forward, &problem), 0);
	ck_assert_ptr_nonnull(strstr(problem.text, "in use"));
}
END_TEST

/* ---- the control socket ----------------------------------------------------------------- */

static int answer(void *context, enum proxy_control_type type, const char *text, char **ret_text)
{
	(void)context;
	*ret_text = text_printf("%d %s", type, text);
	return strcmp(text, "refused.test") == 0 ? EACCES : 0;
}

/* Hands it over to the test. */
static void tell(void *context, const void *event, size_t length)
{
	(void)context;
	(void)send(audit[1], event, length, 0);
}

static void serve_control(void)
{
	struct session_control control;

	session_control_init(&control);
	if (session_control_listen(&control, scratch, &problem) < 0)
		_exit(1);
	control.answer = answer;
	control.tell = tell;
	for (;;) {
		poll(control.watches, SESSION_CONTROL_WATCHES, -1);
		session_control_turn(&control);
	}
}

static struct sockaddr_un control_address(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", scratch);
	return address;
}

static pid_t start_control(void)
{
	struct sockaddr_un address = control_address();
	pid_t pid = fork();

	if (pid == 0)
		serve_control();
	/* Until it listens. */
	for (int i = 0; i < 2000; i++) {
		cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return pid;
		usleep(5000);
	}
	ck_abort_msg("nobody listens");
}

START_TEST(questions_are_answered)
{
	/* RUNTIME/ID is the scratch directory itself here. */
	struct paths paths = { .runtime = scratch };
	struct session_record record = { 0 };
	pid_t pid = start_control();
	cleanup_free char *text = NULL;
	cleanup_free char *other = NULL;
	struct stat status;

	snprintf(record.id, sizeof(record.id), ".");
	ck_assert_int_eq(session_control_ask(&paths, &record, PROXY_CONTROL_ALLOW_ADD, "a.test",
					     &text, &problem),
			 0);
	ck_assert_str_eq(text, "64 a.test");
	ck_assert_int_eq(session_control_ask(&paths, &record, PROXY_CONTROL_ALLOW_REMOVE,
					     "refused.test", &other, &problem),
			 EACCES);
	ck_assert_int_eq(stat(control_address().sun_path, &status), 0);
	ck_assert_uint_eq(status.st_mode & 0777, 0600);
	end_forwarder(pid);
	ck_assert_int_eq(session_control_ask(&paths, &record, PROXY_CONTROL_ALLOW_LIST, "", &other,
					     &problem),
			 -1);
	ck_assert_ptr_nonnull(strstr(problem.text, "does not run"));
}
END_TEST

START_TEST(a_forwarder_stays_and_tells)
{
	struct paths paths = { .runtime = scratch };
	struct session_record record = { 0 };
	static struct audit_event event;
	pid_t pid = start_control();
	cleanup_free char *text = NULL;
	struct audit_event_view view;
	const void *data;
	size_t length;
	char byte;
	int fds[SESSION_CONTROL_FORWARDS_MAX];

	snprintf(record.id, sizeof(record.id), ".");
	for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
		cleanup_free char *said = NULL;

		ck_assert_int_eq(session_control_attach(&paths, &record, "127.0.0.1:1:2", &fds[i],
							&said, &problem),
				 0);
		ck_assert_str_eq(said, "67 127.0.0.1:1:2");
	}
	{
		cleanup_fd int fd = -1;

		ck_assert_int_eq(session_control_attach(&paths, &record, "x", &fd, &text, &problem),
				 EMFILE);
	}
	for (int i = 0; i < 3; i++) {
		audit_event_begin(&event, AUDIT_CONNECTION);
		audit_event_number(&event, AUDIT_FIELD_PORT, (uint64_t)i);
		ck_assert(audit_event_finish(&event, &data, &length));
		ck_assert_int_eq(send(fds[i], data, length, 0), (ssize_t)length);
		view = next_event(AUDIT_CONNECTION);
		ck_assert_uint_eq(number_of(&view, AUDIT_FIELD_PORT), (uint64_t)i);
	}
	/* Another kind of event, and what is none, end it, and nothing is told. */
	audit_event_begin(&event, AUDIT_SESSION_END);
	ck_assert(audit_event_finish(&event, &data, &length));
	ck_assert_int_eq(send(fds[0], data, length, 0), (ssize_t)length);
	ck_assert_int_eq(recv(fds[0], &byte, 1, 0), 0);
	ck_assert_int_eq(send(fds[1], "x", 1, 0), 1);
	ck_assert_int_eq(recv(fds[1], &byte, 1, 0), 0);
	ck_assert_int_lt(recv(audit[0], &byte, 1, MSG_DONTWAIT), 0);
	end_forwarder(pid);
	ck_assert_int_eq(recv(fds[2], &byte, 1, 0), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
		close(fds[i]);
}
END_TEST

START_TEST(other_messages_are_hung_up_on)
{
	static const struct proxy_control others[] = {
		{ PROXY_CONTROL_READY, 0, "", "pem" },
		{ PROXY_CONTROL_PLACEHOLDER, 0, "KEY", "value" },
		{ PROXY_CONTROL_RESULT, 0, "", "" },
	};
	struct sockaddr_un address = control_address();
	pid_t pid = start_control();
	uint8_t message[64];

	for (size_t i = 0; i <= ARRAY_LENGTH(others); i++) {
		cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		size_t length = 3;

		ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
		if (i < ARRAY_LENGTH(others))
			length = proxy_control_encode(message, sizeof(message), &others[i]);
		ck_assert_int_eq(send(fd, message, length, 0), (ssize_t)length);
		ck_assert_int_eq(recv(fd, message, sizeof(message), 0), 0);
	}
	end_forwarder(pid);
}
END_TEST

/* Peers that say nothing take all places; the next is hung up on, and nothing else happens. */
START_TEST(silent_peers_are_limited)
{
	struct sockaddr_un address = control_address();
	pid_t pid = start_control();
	int silent[SESSION_CONTROL_PEERS];
	cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	char byte;

	for (int i = 0; i < SESSION_CONTROL_PEERS; i++) {
		silent[i] = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		ck_assert_int_eq(connect(silent[i], (struct sockaddr *)&address, sizeof(address)),
				 0);
	}
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(recv(fd, &byte, 1, 0), 0);
	for (int i = 0; i < SESSION_CONTROL_PEERS; i++)
		close(silent[i]);
	end_forwarder(pid);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("port_forward");
	TCase *tests = tcase_create("port_forward");
	SRunner *runner;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, a_connection_goes_both_ways);
	tcase_add_test(tests, what_does_not_come_to_be_is_closed);
	tcase_add_test(tests, bulk_arrives_whole);
	tcase_add_test(tests, a_port_that_is_taken_is_told);
	tcase_add_loop_test(tests, connections_are_told_to_the_log, 0, 2);
	tcase_add_test(tests, without_a_log_nothing_is_forwarded);
	tcase_add_loop_test(tests, the_process_can_do_nothing_else, 0, ARRAY_LENGTH(attempts));
	tcase_add_test(tests, a_forwarder_stays_and_tells);
	tcase_add_test(tests, questions_are_answered);
	tcase_add_test(tests, other_messages_are_hung_up_on);
	tcase_add_test(tests, silent_peers_are_limited);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
