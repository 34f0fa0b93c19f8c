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
#include "wire/egress.h"

#include <check.h>
#include <errno.h>
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

static void set_up(void)
{
	snprintf(scratch, sizeof(scratch), "/tmp/matchlock-forward-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	snprintf(base, sizeof(base), "%s/v", scratch);
}

static void tear_down(void)
{
	ck_assert_int_eq(remove_tree(scratch), 0);
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
		port_forward_serve(base, &listener, 1, -1);
		_exit(1);
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

static void serve_control(void)
{
	struct session_control control;

	session_control_init(&control);
	if (session_control_listen(&control, scratch, &problem) < 0)
		_exit(1);
	control.answer = answer;
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
