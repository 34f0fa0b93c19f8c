/*
 * `matchlock port-forward SESSION [HOST:]HOSTPORT:GUESTPORT...`, until it is ended or the session
 * is; and the process behind `matchlock run -p`, which is given its listening sockets:
 *
 *     matchlock port-forward --base PATH --listen-fd FD:GUESTPORT ... --end-fd FD --audit-fd FD
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/port_forward.h"
#include "cli/session_control.h"
#include "cli/session_record.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct wishes {
	struct forward_listener listeners[NETWORK_FORWARDS_MAX];
	size_t count;
	const char *base;
	int end_fd;
	int audit_fd;
	bool help;
};

static int add_listener(struct wishes *wishes, int fd, uint16_t guest_port, struct problem *problem)
{
	if (wishes->count == NETWORK_FORWARDS_MAX)
		return problem_set(problem, STATUS_USAGE, "more than %d ports",
				   NETWORK_FORWARDS_MAX);
	wishes->listeners[wishes->count++] =
		(struct forward_listener){ .fd = fd, .guest_port = guest_port };
	return 0;
}

static int add_given(struct wishes *wishes, const char *text, struct problem *problem)
{
	const char *colon = strchr(text, ':');
	cleanup_free char *fd_text = colon ? text_printf("%.*s", (int)(colon - text), text) : NULL;
	uint64_t fd;
	uint64_t port;

	if (!colon || !parse_unsigned(fd_text, 1 << 20, &fd) ||
	    !parse_unsigned(colon + 1, UINT16_MAX, &port) || port == 0)
		return problem_set(problem, STATUS_USAGE, "--listen-fd %s: write FD:GUESTPORT",
				   text);
	return add_listener(wishes, (int)fd, (uint16_t)port, problem);
}

static int parse_flags(int argc, char **argv, struct wishes *wishes, struct problem *problem)
{
	static const struct option names[] = {
		{ "base", required_argument, NULL, 'b' },
		{ "listen-fd", required_argument, NULL, 'l' },
		{ "end-fd", required_argument, NULL, 'e' },
		{ "audit-fd", required_argument, NULL, 'a' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	uint64_t fd;
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "port-forward", "+:h", names, problem)) != -1) {
		switch (option) {
		case 'b':
			wishes->base = optarg;
			break;
		case 'l':
			if (add_given(wishes, optarg, problem) < 0)
				return -1;
			break;
		case 'a':
		case 'e':
			if (!parse_unsigned(optarg, 1 << 20, &fd))
				return problem_set(problem, STATUS_USAGE,
						   "--end-fd, --audit-fd: not a number");
			*(option == 'a' ? &wishes->audit_fd : &wishes->end_fd) = (int)fd;
			break;
		case 'h':
			wishes->help = true;
			break;
		default:
			return -1;
		}
	}
	return 0;
}

/* Tells the session's log which ports these are. */
static int attach(const struct paths *paths, const struct session_record *record, const char *rules,
		  struct wishes *wishes, struct problem *problem)
{
	cleanup_free char *text = NULL;
	int error = session_control_attach(paths, record, rules, &wishes->audit_fd, &text, problem);

	if (error > 0)
		return problem_set(problem, STATUS_SANDBOX, "session %s: %s", record->id,
				   text && *text ? text : strerror(error));
	/* It ends with the session. */
	wishes->end_fd = wishes->audit_fd;
	return error;
}

static int serve(const struct wishes *wishes)
{
	struct forward_options options = {
		.socket_base = wishes->base,
		.listeners = wishes->listeners,
		.count = wishes->count,
		.end_fd = wishes->end_fd,
		.audit_fd = wishes->audit_fd,
	};

	return port_forward_lock(&options) < 0 || port_forward_serve(&options) < 0;
}

/* *ret_rules names them, with commas. */
static int listen_all(int argc, char **argv, struct wishes *wishes, char **ret_rules,
		      struct problem *problem)
{
	*ret_rules = text_copy("");
	for (int i = optind + 1; i < argc; i++) {
		struct port_forward forward;
		char *rules;
		int fd;

		if (port_forward_parse(argv[i], &forward, problem) < 0)
			return -1;
		fd = port_forward_listen(&forward, problem);
		if (fd >= 0)
			fprintf(stderr, "matchlock: %s port %u goes to the guest's port %u\n",
				forward.address, forward.host_port, forward.guest_port);
		rules = text_printf("%s%s%s:%u:%u", *ret_rules, **ret_rules ? "," : "",
				    forward.address, forward.host_port, forward.guest_port);
		free(*ret_rules);
		*ret_rules = rules;
		free(forward.address);
		if (fd < 0 || add_listener(wishes, fd, forward.guest_port, problem) < 0)
			return -1;
	}
	return 0;
}

static int forward_session(int argc, char **argv, const struct paths *paths, struct wishes *wishes)
{
	cleanup_record struct session_record record = { 0 };
	cleanup_free char *base = NULL;
	cleanup_free char *rules = NULL;
	struct problem problem;

	if (argc - optind < 2)
		return command_usage("port-forward", "say which session and which ports");
	if (session_record_find(paths, argv[optind], &record, &problem) < 0)
		return command_problem(&problem);
	base = text_printf("%s/%s/v", paths->runtime, record.id);
	if (session_status(&record) != SESSION_STATUS_RUNNING) {
		fprintf(stderr, "matchlock: session %s does not run\n", record.id);
		return 1;
	}
	if (!session_process_alive(&record, "proxy")) {
		fprintf(stderr,
			"matchlock: session %s has no network, thus nothing that takes connections "
			"in; run it with -p or --allow-host\n",
			record.id);
		return 1;
	}
	if (listen_all(argc, argv, wishes, &rules, &problem) < 0 ||
	    attach(paths, &record, rules, wishes, &problem) < 0)
		return command_problem(&problem);
	wishes->base = base;
	return serve(wishes);
}

int command_port_forward(int argc, char **argv, const struct paths *paths)
{
	struct wishes wishes = { .end_fd = -1, .audit_fd = -1 };
	struct problem problem;

	if (parse_flags(argc, argv, &wishes, &problem) < 0)
		return command_problem(&problem);
	if (wishes.help)
		return command_help("port-forward");
	if (!wishes.base)
		return forward_session(argc, argv, paths, &wishes);
	return serve(&wishes);
}
