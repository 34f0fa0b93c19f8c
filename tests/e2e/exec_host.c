/*
 * The host's side of exec as a small program, for tests/e2e/exec.sh and guest_boot.sh.
 *
 *   exec_host [OPTIONS] -- COMMAND [ARGUMENT...] [--then COMMAND...]
 *
 * Without --base it also runs guest-init's exec server, as a child process over Unix sockets, so
 * that the commands run here and no VM is needed. With --base PATH it listens at PATH_1024 and
 * PATH_1025 for the guest of a VM that the caller starts, and shuts that guest down at the end.
 * The exit status is the last command's, as the shell would have it.
 *
 *   -i  relay standard input      -t  ask for a pty        -v  say what happens when
 *   -u UID -g GID  as whom        -C DIRECTORY             -e NAME=VALUE  -m UMASK(octal)
 *   --timeout MS                  --server-pid-file FILE
 *   --image ID                    --export ID:PATH:ro|rw  --tmpfs PATH (owned by -u and -g, so far)
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/agent_client.h"
#include "cli/exec_session.h"
#include "guest-init/control.h"
#include "guest-init/exec_server.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GUEST_TIMEOUT_MS 120000
#define ENVIRONMENT_MAX 64

struct options {
	const char *base;
	const char *server_pid_file;
	bool verbose;
	struct exec_request request;
	const char *environment[ENVIRONMENT_MAX + 1];
	size_t environment_count;
	struct agent_config config;
};

static _Noreturn void die(const char *what, int error)
{
	fprintf(stderr, "exec_host: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(125);
}

/* ---- the server's side, without a VM ------------------------------------------------------ */

static int unix_socket(const char *base, unsigned port, bool listening)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", base, port);
	int result;

	if (fd < 0 || length < 0 || (size_t)length >= sizeof(address.sun_path))
		return -EINVAL;
	if (listening) {
		unlink(address.sun_path);
		result = bind(fd, (struct sockaddr *)&address, sizeof(address));
		if (result == 0)
			result = listen(fd, 64);
	} else {
		result = connect(fd, (struct sockaddr *)&address, sizeof(address));
	}
	return result < 0 ? -errno : steal_fd(&fd);
}

static int dial_unix(void *context, unsigned port)
{
	int fd = unix_socket(context, port, false);

	if (fd >= 0)
		set_nonblocking(fd, true);
	return fd;
}

static _Noreturn void serve_natively(char *base)
{
	static struct control control;
	struct exec_server_options options = {
		.control = &control, .dial = dial_unix, .context = base, .cgroup_root = -1
	};
	struct agent_ready ready = { .version = AGENT_VERSION, .kernel = "native" };
	struct agent_configured configured = { .uptime_ns = 1 };
	struct agent_header header;
	const uint8_t *payload;
	uint8_t frame[256];
	sigset_t children;
	int result;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setsid();
	result = control_init(&control, unix_socket(base, AGENT_CONTROL_PORT, false));
	if (result == 0)
		result = control_send(&control, frame,
				      agent_encode_ready(frame, sizeof(frame), &ready));
	if (result == 0)
		result = control_receive(&control, &header, &payload);
	if (result == 0 && header.type != AGENT_CONFIG)
		result = -EPROTO;
	if (result == 0)
		result = control_send(&control, frame,
				      agent_encode_configured(frame, sizeof(frame), &configured));
	if (result == 0)
		result = exec_server_run(&options);
	control_release(&control);
	_exit(result < 0 && result != -ECONNRESET ? 1 : 0);
}

/* ---- the host's side ---------------------------------------------------------------------- */

static void add_mount(struct agent_config *config, struct agent_mount mount)
{
	if (config->mount_count == AGENT_MOUNTS_MAX)
		die("too many mounts", E2BIG);
	config->mounts[config->mount_count++] = mount;
}

static void add_export(struct agent_config *config, char *text)
{
	char *path = strchr(text, ':');
	char *mode = path ? strchr(path + 1, ':') : NULL;

	if (!mode)
		die(text, EINVAL);
	*path++ = '\0';
	*mode++ = '\0';
	add_mount(config, (struct agent_mount){
				  .kind = AGENT_MOUNT_EXPORT,
				  .export_id = (uint32_t)strtoul(text, NULL, 10),
				  .flags = strcmp(mode, "ro") == 0 ? AGENT_MOUNT_READ_ONLY : 0,
				  .target = path,
				  .options = "",
			  });
}

enum {
	OPTION_BASE = 256,
	OPTION_TIMEOUT,
	OPTION_PID_FILE,
	OPTION_IMAGE,
	OPTION_EXPORT,
	OPTION_TMPFS,
};

static void take_long_option(struct options *options, int option)
{
	struct agent_mount mount = { .target = "/", .options = "" };

	switch (option) {
	case OPTION_BASE:
		options->base = optarg;
		break;
	case OPTION_TIMEOUT:
		options->request.timeout_ms = (unsigned)strtoul(optarg, NULL, 10);
		break;
	case OPTION_PID_FILE:
		options->server_pid_file = optarg;
		break;
	case OPTION_IMAGE:
		mount.kind = AGENT_MOUNT_IMAGE;
		mount.export_id = (uint32_t)strtoul(optarg, NULL, 10);
		mount.flags = AGENT_MOUNT_READ_ONLY;
		add_mount(&options->config, mount);
		break;
	case OPTION_EXPORT:
		add_export(&options->config, optarg);
		break;
	case OPTION_TMPFS:
		mount.kind = AGENT_MOUNT_TMPFS;
		mount.mode = 0755;
		mount.uid = options->request.uid;
		mount.gid = options->request.gid;
		mount.target = optarg;
		add_mount(&options->config, mount);
		break;
	default:
		exit(125);
	}
}

static void take_option(struct options *options, int option)
{
	switch (option) {
	case 'i':
		options->request.input = true;
		break;
	case 't':
		options->request.terminal = true;
		break;
	case 'v':
		options->verbose = true;
		break;
	case 'u':
		options->request.uid = (uid_t)strtoul(optarg, NULL, 10);
		break;
	case 'g':
		options->request.gid = (gid_t)strtoul(optarg, NULL, 10);
		break;
	case 'C':
		options->request.cwd = optarg;
		break;
	case 'm':
		options->request.umask = (mode_t)strtoul(optarg, NULL, 8);
		break;
	case 'e':
		if (options->environment_count == ENVIRONMENT_MAX)
			die("too many variables", E2BIG);
		options->environment[options->environment_count++] = optarg;
		break;
	default:
		take_long_option(options, option);
	}
}

static void parse(struct options *options, int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "base", required_argument, NULL, OPTION_BASE },
		{ "timeout", required_argument, NULL, OPTION_TIMEOUT },
		{ "server-pid-file", required_argument, NULL, OPTION_PID_FILE },
		{ "image", required_argument, NULL, OPTION_IMAGE },
		{ "export", required_argument, NULL, OPTION_EXPORT },
		{ "tmpfs", required_argument, NULL, OPTION_TMPFS },
		{ 0 },
	};
	int option;

	options->request = (struct exec_request){ .environment = options->environment,
						  .cwd = "/",
						  .uid = getuid(),
						  .gid = getgid(),
						  .umask = 022,
						  .fds = { 0, 1, 2 } };
	options->environment[options->environment_count++] =
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	while ((option = getopt_long(argc, argv, "+itvu:g:C:m:e:", long_options, NULL)) != -1)
		take_option(options, option);
	if (optind >= argc) {
		fprintf(stderr, "usage: exec_host [OPTIONS] -- COMMAND... [--then COMMAND...]\n");
		exit(125);
	}
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void say(const struct options *options, double since, const char *what)
{
	if (options->verbose)
		fprintf(stderr, "exec_host: %6.3f s: %s\n", seconds() - since, what);
}

static void configure(struct agent_client *client, struct options *options, double start)
{
	struct agent_config *config = &options->config;
	struct agent_client_ready ready;
	struct timespec now;

	if (agent_client_wait_ready(client, -1, GUEST_TIMEOUT_MS, &ready) < 0) {
		fprintf(stderr, "exec_host: %s\n", agent_client_error(client));
		exit(125);
	}
	say(options, start, "ready");
	if (options->verbose)
		fprintf(stderr, "exec_host: kernel %s, ready %.3f s after its start\n",
			ready.kernel, (double)ready.uptime_ns / 1e9);
	clock_gettime(CLOCK_REALTIME, &now);
	config->clock_seconds = now.tv_sec;
	config->clock_nanoseconds = (uint32_t)now.tv_nsec;
	config->flags = AGENT_CONFIG_NO_NETWORK;
	config->uid = options->request.uid;
	config->gid = options->request.gid;
	config->user = "tester";
	config->group = "testers";
	config->home = "/home/tester";
	config->hostname = "matchlock-test";
	config->time_zone = "";
	if (getentropy(config->entropy, sizeof(config->entropy)) < 0)
		die("getentropy", errno);
	if (agent_client_configure(client, config, -1, GUEST_TIMEOUT_MS) < 0) {
		fprintf(stderr, "exec_host: %s\n", agent_client_error(client));
		exit(125);
	}
	say(options, start, "configured");
}

static int run(struct agent_client *client, struct options *options, char **arguments)
{
	struct exec_result result;
	int failed;

	options->request.arguments = (const char *const *)arguments;
	failed = exec_session_run(client, &options->request, NULL, &result);
	if (failed < 0)
		die(agent_client_error(client), failed);
	if (result.text[0])
		fprintf(stderr, "exec_host: %s: %s\n", arguments[0], result.text);
	return result.exit_status;
}

/* Runs the commands that --then separates. */
static int run_all(struct agent_client *client, struct options *options, char **arguments,
		   double start)
{
	int status = 125;

	while (*arguments) {
		char **next = arguments;

		while (*next && strcmp(*next, "--then") != 0)
			next++;
		if (*next)
			*next++ = NULL;
		status = run(client, options, arguments);
		say(options, start, "command ended");
		arguments = next;
	}
	return status;
}

int main(int argc, char **argv)
{
	static struct options options;
	const char *scratch = getenv("TMPDIR");
	char directory[96];
	char base[128];
	struct agent_client *client;
	double start = seconds();
	pid_t server = -1;
	int control;
	int stream;
	int status;

	parse(&options, argc, argv);
	snprintf(directory, sizeof(directory), "%.64s/exec-host-XXXXXX",
		 scratch ? scratch : "/tmp");
	if (!options.base && !mkdtemp(directory))
		die(directory, errno);
	snprintf(base, sizeof(base), "%s", options.base ? options.base : directory);
	control = unix_socket(base, AGENT_CONTROL_PORT, true);
	stream = unix_socket(base, AGENT_STREAM_PORT, true);
	if (control < 0 || stream < 0)
		die(base, control < 0 ? control : stream);
	if (!options.base) {
		server = fork();
		if (server == 0)
			serve_natively(base);
	}
	if (options.server_pid_file) {
		FILE *file = fopen(options.server_pid_file, "we");

		if (file) {
			fprintf(file, "%d\n", server);
			fclose(file);
		}
	}
	if (agent_client_create(control, stream, &client) < 0)
		die("agent_client_create", ENOMEM);
	configure(client, &options, start);
	status = run_all(client, &options, argv + optind, start);
	agent_client_shutdown(client);
	/* Let the guest read it before the connection goes. */
	for (int i = 0; i < 3000 && agent_client_turn(client, NULL, 0, 10) == 0; i++)
		continue;
	say(&options, start, "guest ended");
	agent_client_destroy(client);
	if (server > 0)
		waitpid(server, NULL, 0);
	for (unsigned port = AGENT_CONTROL_PORT; port <= AGENT_STREAM_PORT; port++) {
		char path[160];

		snprintf(path, sizeof(path), "%s_%u", base, port);
		unlink(path);
	}
	if (!options.base)
		rmdir(directory);
	return status;
}
