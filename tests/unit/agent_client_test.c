/*
 * cli/agent_client and cli/exec_session against a guest that lies. A child process plays the
 * guest over real Unix sockets; whatever it does, the host's side must come back with an answer
 * and the right sort of error.
 */
#include "base/checked.h"
#include "base/io.h"
#include "cli/agent_client.h"
#include "cli/exec_session.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 20000

/* ---- the guest ---------------------------------------------------------------------------- */

struct guest {
	char base[64];
	int control;
};

static int unix_socket(const char *base, unsigned port, bool listening)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int result;

	ck_assert_int_ge(fd, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/s_%u", base, port);
	if (listening)
		result = bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 64);
	else
		result = connect(fd, (struct sockaddr *)&address, sizeof(address));
	ck_assert_int_eq(result, 0);
	return fd;
}

static void say(struct guest *guest, const void *frame, size_t length)
{
	/* The host may have hung up on a liar. */
	if (write_full(guest->control, frame, length) < 0)
		_exit(0);
}

static void say_ready(struct guest *guest, uint32_t version)
{
	struct agent_ready ready = { .version = version, .kernel = "fake\033[31m" };
	uint8_t frame[256];

	say(guest, frame, agent_encode_ready(frame, sizeof(frame), &ready));
}

static void say_configured(struct guest *guest)
{
	struct agent_configured configured = { .uptime_ns = 1 };
	uint8_t frame[64];

	say(guest, frame, agent_encode_configured(frame, sizeof(frame), &configured));
}

static void say_started(struct guest *guest, uint32_t id)
{
	struct agent_started started = { .exec_id = id, .pid = 5 };
	uint8_t frame[64];

	say(guest, frame, agent_encode_started(frame, sizeof(frame), &started));
}

static void say_exited(struct guest *guest, uint32_t id, uint32_t code)
{
	struct agent_exited exited = { .exec_id = id, .kind = AGENT_EXIT_STATUS, .code = code };
	uint8_t frame[64];

	say(guest, frame, agent_encode_exited(frame, sizeof(frame), &exited));
}

/* Reads one frame from the host and drops it. */
static void hear(struct guest *guest)
{
	static uint8_t payload[65536];
	uint8_t data[AGENT_HEADER_SIZE];
	struct agent_header header;

	if (read_full(guest->control, data, sizeof(data)) != (ssize_t)sizeof(data) ||
	    agent_decode_header(data, sizeof(payload), &header) < 0 ||
	    read_full(guest->control, payload, header.length) != (ssize_t)header.length)
		_exit(0);
}

static int open_stream(struct guest *guest, uint32_t id, enum agent_stream stream)
{
	uint8_t hello[sizeof(struct agent_hello)];
	int fd = unix_socket(guest->base, AGENT_STREAM_PORT, false);

	agent_encode_hello(hello, id, stream);
	if (write_full(fd, hello, sizeof(hello)) < 0)
		_exit(0);
	return fd;
}

static void wait_for_hangup(struct guest *guest)
{
	char byte;

	while (read(guest->control, &byte, 1) > 0)
		continue;
}

/* The conversation up to the first EXEC. */
static void behave(struct guest *guest)
{
	say_ready(guest, AGENT_VERSION);
	hear(guest);
	say_configured(guest);
	hear(guest);
}

/* ---- the host ----------------------------------------------------------------------------- */

struct host {
	struct guest guest;
	struct agent_client *client;
	pid_t pid;
};

static void start(struct host *host, void (*play)(struct guest *guest))
{
	int control;
	int stream;

	signal(SIGPIPE, SIG_IGN);
	strncpy(host->guest.base, "/tmp/agent-client-test-XXXXXX", sizeof(host->guest.base));
	ck_assert_ptr_nonnull(mkdtemp(host->guest.base));
	control = unix_socket(host->guest.base, AGENT_CONTROL_PORT, true);
	stream = unix_socket(host->guest.base, AGENT_STREAM_PORT, true);
	host->pid = fork();
	ck_assert_int_ge(host->pid, 0);
	if (host->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(control);
		close(stream);
		host->guest.control = unix_socket(host->guest.base, AGENT_CONTROL_PORT, false);
		play(&host->guest);
		_exit(0);
	}
	ck_assert_int_eq(agent_client_create(control, stream, &host->client), 0);
}

static void stop(struct host *host)
{
	char path[128];

	agent_client_destroy(host->client);
	kill(host->pid, SIGKILL);
	waitpid(host->pid, NULL, 0);
	for (unsigned port = AGENT_CONTROL_PORT; port <= AGENT_STREAM_PORT; port++) {
		snprintf(path, sizeof(path), "%s/s_%u", host->guest.base, port);
		unlink(path);
	}
	rmdir(host->guest.base);
}

static int configure(struct host *host)
{
	struct agent_config config = {
		.user = "u", .group = "g", .home = "/h", .hostname = "n", .time_zone = ""
	};
	int result = agent_client_wait_ready(host->client, -1, WAIT_MS, NULL);

	if (result < 0)
		return result;
	return agent_client_configure(host->client, &config, -1, WAIT_MS);
}

static const char *const command[] = { "cmd", NULL };
static const char *const no_environment[] = { NULL };

static struct exec_request request_to(int input, int output)
{
	return (struct exec_request){ .arguments = command,
				      .environment = no_environment,
				      .cwd = "/",
				      .input = input >= 0,
				      .fds = { input, output, output } };
}

/* Runs one command whose output goes to /dev/null; returns its result. */
static struct exec_result run(struct host *host)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct exec_request request = request_to(-1, null);
	struct exec_result result = { 0 };

	ck_assert_int_eq(exec_session_run(host->client, &request, NULL, &result), 0);
	close(null);
	return result;
}

/* ---- start -------------------------------------------------------------------------------- */

static void play_silence(struct guest *guest)
{
	wait_for_hangup(guest);
}

START_TEST(silent_guest_times_out)
{
	struct host host;

	start(&host, play_silence);
	ck_assert_int_eq(agent_client_wait_ready(host.client, -1, 200, NULL), -ETIMEDOUT);
	ck_assert_str_ne(agent_client_error(host.client), "");
	stop(&host);
}
END_TEST

static void play_hangup(struct guest *guest)
{
	close(guest->control);
}

START_TEST(guest_that_hangs_up)
{
	struct host host;

	start(&host, play_hangup);
	ck_assert_int_eq(agent_client_wait_ready(host.client, -1, WAIT_MS, NULL), -ECONNRESET);
	stop(&host);
}
END_TEST

START_TEST(machine_that_ends)
{
	struct host host;
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	close(ends[1]);
	start(&host, play_silence);
	ck_assert_int_eq(agent_client_wait_ready(host.client, ends[0], WAIT_MS, NULL), -ECONNRESET);
	close(ends[0]);
	stop(&host);
}
END_TEST

static void play_old_version(struct guest *guest)
{
	say_ready(guest, AGENT_VERSION + 1);
	wait_for_hangup(guest);
}

START_TEST(other_version)
{
	struct host host;

	start(&host, play_old_version);
	ck_assert_int_eq(agent_client_wait_ready(host.client, -1, WAIT_MS, NULL), -EPROTO);
	ck_assert_ptr_nonnull(strstr(agent_client_error(host.client), "version"));
	stop(&host);
}
END_TEST

static void play_oversize(struct guest *guest)
{
	static const uint8_t frame[] = { 0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0 };

	say(guest, frame, sizeof(frame));
	wait_for_hangup(guest);
}

static void play_unknown_type(struct guest *guest)
{
	static const uint8_t frame[] = { 0, 0, 0, 0, 0xee, 0, 0, 0 };

	say(guest, frame, sizeof(frame));
	wait_for_hangup(guest);
}

static void play_early_exit(struct guest *guest)
{
	say_exited(guest, 1, 0);
	wait_for_hangup(guest);
}

static void play_configured_first(struct guest *guest)
{
	say_configured(guest);
	wait_for_hangup(guest);
}

static void play_ready_twice(struct guest *guest)
{
	say_ready(guest, AGENT_VERSION);
	say_ready(guest, AGENT_VERSION);
	wait_for_hangup(guest);
}

static void play_exec_frame(struct guest *guest)
{
	uint8_t frame[64];

	/* The host's own message, sent back to it. */
	say(guest, frame, agent_encode_kill(frame, sizeof(frame), 1));
	wait_for_hangup(guest);
}

static void (*const broken_starts[])(struct guest *guest) = {
	play_oversize,	       play_unknown_type, play_early_exit,
	play_configured_first, play_ready_twice,  play_exec_frame,
};

START_TEST(broken_start)
{
	struct host host;

	start(&host, broken_starts[_i]);
	ck_assert_int_eq(configure(&host), -EPROTO);
	ck_assert_ptr_nonnull(strstr(agent_client_error(host.client), "protocol"));
	stop(&host);
}
END_TEST

static void play_failure(struct guest *guest)
{
	struct agent_failed failed = { .error = ENOENT,
				       .stage = "mount\033]0;x\007",
				       .text = "no \n such" };
	uint8_t frame[512];

	say_ready(guest, AGENT_VERSION);
	hear(guest);
	say(guest, frame, agent_encode_failed(frame, sizeof(frame), &failed));
	wait_for_hangup(guest);
}

START_TEST(failure_is_told_without_control_characters)
{
	struct host host;
	const char *text;

	start(&host, play_failure);
	ck_assert_int_eq(configure(&host), -EREMOTEIO);
	text = agent_client_error(host.client);
	ck_assert_ptr_nonnull(strstr(text, "mount"));
	ck_assert_ptr_nonnull(strstr(text, strerror(ENOENT)));
	for (; *text; text++)
		ck_assert_int_ge(*text, 0x20);
	stop(&host);
}
END_TEST

/* ---- commands ----------------------------------------------------------------------------- */

static void play_good_command(struct guest *guest)
{
	int output;
	int errors;

	behave(guest);
	say_started(guest, 1);
	/* The end is told before the streams even arrive. */
	say_exited(guest, 1, 3);
	output = open_stream(guest, 1, AGENT_STREAM_STDOUT);
	errors = open_stream(guest, 1, AGENT_STREAM_STDERR);
	write_full(output, "words", 5);
	close(output);
	close(errors);
	wait_for_hangup(guest);
}

START_TEST(exit_before_output)
{
	struct host host;
	struct exec_result result;
	struct exec_request request;
	char text[16] = "";
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	start(&host, play_good_command);
	ck_assert_int_eq(configure(&host), 0);
	request = request_to(-1, ends[1]);
	ck_assert_int_eq(exec_session_run(host.client, &request, NULL, &result), 0);
	ck_assert_int_eq(result.kind, EXEC_RESULT_EXITED);
	ck_assert_int_eq(result.exit_status, 3);
	ck_assert_int_eq(read(ends[0], text, sizeof(text)), 5);
	ck_assert_int_eq(memcmp(text, "words", 5), 0);
	/* The caller's descriptors are as they were. */
	ck_assert_int_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
	close(ends[0]);
	close(ends[1]);
	stop(&host);
}
END_TEST

static void play_unknown_exec(struct guest *guest)
{
	behave(guest);
	say_started(guest, 2);
	wait_for_hangup(guest);
}

static void play_exit_before_start(struct guest *guest)
{
	behave(guest);
	say_exited(guest, 1, 0);
	wait_for_hangup(guest);
}

static void play_two_starts(struct guest *guest)
{
	behave(guest);
	say_started(guest, 1);
	say_started(guest, 1);
	wait_for_hangup(guest);
}

static void play_two_ends(struct guest *guest)
{
	behave(guest);
	say_started(guest, 1);
	say_exited(guest, 1, 0);
	say_exited(guest, 1, 1);
	wait_for_hangup(guest);
}

static void play_fail_after_start(struct guest *guest)
{
	struct agent_exec_failed failed = { .exec_id = 1, .stage = AGENT_STAGE_EXEC, .error = 2 };
	uint8_t frame[64];

	behave(guest);
	say_started(guest, 1);
	say(guest, frame, agent_encode_exec_failed(frame, sizeof(frame), &failed));
	wait_for_hangup(guest);
}

static void play_oversize_later(struct guest *guest)
{
	behave(guest);
	play_oversize(guest);
}

static void play_death(struct guest *guest)
{
	behave(guest);
	say_started(guest, 1);
}

static const struct {
	void (*play)(struct guest *guest);
	bool result_first; /* the lie comes after the command's honest end */
} broken_commands[] = {
	{ play_unknown_exec, false },
	{ play_exit_before_start, false },
	{ play_two_starts, false },
	{ play_two_ends, true },
	{ play_fail_after_start, false },
	{ play_oversize_later, false },
	{ play_death, false },
};

START_TEST(broken_command)
{
	struct host host;
	struct exec_result result;

	start(&host, broken_commands[_i].play);
	ck_assert_int_eq(configure(&host), 0);
	result = run(&host);
	if (!broken_commands[_i].result_first) {
		ck_assert_int_eq(result.kind, EXEC_RESULT_LOST);
		ck_assert_int_eq(result.exit_status, 125);
		ck_assert_str_ne(result.text, "");
	}
	ck_assert_str_ne(agent_client_error(host.client), "");
	/* And the client is done for: the next command is lost at once. */
	result = run(&host);
	ck_assert_int_eq(result.kind, EXEC_RESULT_LOST);
	stop(&host);
}
END_TEST

static void play_stray_streams(struct guest *guest)
{
	static const uint8_t junk[64] = { 1, 2, 3 };
	int streams[64];
	size_t count = 0;
	int output;

	behave(guest);
	say_started(guest, 1);
	output = open_stream(guest, 1, AGENT_STREAM_STDOUT);
	/* Unknown command, unwanted stream, the same again, no hello, half a hello, nonsense. */
	streams[count++] = open_stream(guest, 7, AGENT_STREAM_STDOUT);
	streams[count++] = open_stream(guest, 1, AGENT_STREAM_STDIN);
	streams[count++] = open_stream(guest, 1, AGENT_STREAM_PTY);
	streams[count++] = open_stream(guest, 1, AGENT_STREAM_STDOUT);
	for (int i = 0; i < 8; i++)
		streams[count++] = unix_socket(guest->base, AGENT_STREAM_PORT, false);
	(void)!write(streams[count - 1], junk, 5);
	(void)!write(streams[count - 2], junk, sizeof(junk));
	close(open_stream(guest, 1, AGENT_STREAM_STDERR));
	write_full(output, "fine", 4);
	close(output);
	say_exited(guest, 1, 0);
	wait_for_hangup(guest);
}

START_TEST(stray_streams_are_dropped)
{
	struct host host;
	struct exec_result result;

	start(&host, play_stray_streams);
	ck_assert_int_eq(configure(&host), 0);
	result = run(&host);
	ck_assert_int_eq(result.kind, EXEC_RESULT_EXITED);
	ck_assert_int_eq(result.exit_status, 0);
	stop(&host);
}
END_TEST

#define FLOOD ((size_t)8 << 20)

/* Writes without ever reading its input, and tells the host so much that it never reads. */
static void play_flood(struct guest *guest)
{
	static uint8_t block[65536];
	int input;
	int output;

	behave(guest);
	say_started(guest, 1);
	input = open_stream(guest, 1, AGENT_STREAM_STDIN);
	output = open_stream(guest, 1, AGENT_STREAM_STDOUT);
	close(open_stream(guest, 1, AGENT_STREAM_STDERR));
	for (size_t sent = 0; sent < FLOOD; sent += sizeof(block))
		write_full(output, block, sizeof(block));
	close(output);
	say_exited(guest, 1, 0);
	wait_for_hangup(guest);
	close(input);
}

START_TEST(flood_without_reading)
{
	struct host host;
	struct exec_request request;
	struct exec_result result;
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	start(&host, play_flood);
	ck_assert_int_eq(configure(&host), 0);
	request = request_to(zero, null);
	ck_assert_int_eq(exec_session_run(host.client, &request, NULL, &result), 0);
	ck_assert_int_eq(result.kind, EXEC_RESULT_EXITED);
	close(zero);
	close(null);
	stop(&host);
}
END_TEST

static void play_frame_flood(struct guest *guest)
{
	struct agent_notice notice = { .text = "again" };
	uint8_t frame[64];
	size_t length = agent_encode_notice(frame, sizeof(frame), &notice);

	behave(guest);
	say_started(guest, 1);
	for (;;)
		say(guest, frame, length);
}

START_TEST(frame_flood_does_not_hold_up_a_timeout)
{
	struct host host;
	struct exec_request request;
	struct exec_session *session;
	struct exec_result result;
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	int turns = 0;

	start(&host, play_frame_flood);
	ck_assert_int_eq(configure(&host), 0);
	request = request_to(-1, null);
	request.timeout_ms = 100;
	ck_assert_int_eq(exec_session_start(host.client, &request, &session), 0);
	/* This guest ignores KILL too; the caller gives up on it when it likes. */
	while (!exec_session_done(session, &result) && turns++ < 2000)
		agent_client_turn(host.client, NULL, 0, 10);
	exec_session_destroy(session);
	close(null);
	stop(&host);
}
END_TEST

START_TEST(requests_over_a_limit)
{
	struct host host;
	struct exec_request request = request_to(-1, 1);
	struct exec_session *session;
	gid_t groups[AGENT_GROUPS_MAX + 1] = { 0 };
	static const char *const none[] = { NULL };

	start(&host, play_good_command);
	ck_assert_int_eq(configure(&host), 0);
	request.groups = groups;
	request.group_count = ARRAY_LENGTH(groups);
	ck_assert_int_eq(exec_session_start(host.client, &request, &session), -EINVAL);
	request.group_count = 0;
	request.cwd = "relative";
	ck_assert_int_eq(exec_session_start(host.client, &request, &session), -EINVAL);
	request.cwd = "/";
	request.arguments = none;
	ck_assert_int_eq(exec_session_start(host.client, &request, &session), -EINVAL);
	stop(&host);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("agent_client");
	TCase *tests = tcase_create("agent_client");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, silent_guest_times_out);
	tcase_add_test(tests, guest_that_hangs_up);
	tcase_add_test(tests, machine_that_ends);
	tcase_add_test(tests, other_version);
	tcase_add_loop_test(tests, broken_start, 0, ARRAY_LENGTH(broken_starts));
	tcase_add_test(tests, failure_is_told_without_control_characters);
	tcase_add_test(tests, exit_before_output);
	tcase_add_loop_test(tests, broken_command, 0, ARRAY_LENGTH(broken_commands));
	tcase_add_test(tests, stray_streams_are_dropped);
	tcase_add_test(tests, flood_without_reading);
	tcase_add_test(tests, frame_flood_does_not_hold_up_a_timeout);
	tcase_add_test(tests, requests_over_a_limit);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
