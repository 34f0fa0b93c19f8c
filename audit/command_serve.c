#include "audit/commands.h"

#include "audit/log_writer.h"
#include "audit/server.h"
#include "base/checked.h"
#include "base/io.h"
#include "base/log.h"
#include "jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct serve_options {
	int directory_fd;
	int sources[SOURCES_MAX];
	size_t source_count;
	bool policy_first; /* the first source tells the policy, which opens the log */
	const char *session;
	uint64_t max_bytes;
	enum log_level level;
};

static bool parse_bytes(const char *text, uint64_t *ret_bytes)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end != '\0' || value < LOG_MAX_BYTES_LEAST ||
	    value > INT64_MAX / 2)
		return false;
	*ret_bytes = value;
	return true;
}

static bool add_source(struct serve_options *options, int fd)
{
	if (fd < 0 || options->source_count == SOURCES_MAX)
		return false;
	options->sources[options->source_count++] = fd;
	return true;
}

static bool parse_options(int argc, char **argv, struct serve_options *options)
{
	static const struct option names[] = {
		{ "directory-fd", required_argument, NULL, 'd' },
		{ "source-fd", required_argument, NULL, 's' },
		{ "policy-first", no_argument, NULL, 'p' },
		{ "session", required_argument, NULL, 'n' },
		{ "max-bytes", required_argument, NULL, 'm' },
		{ "debug", no_argument, NULL, 'D' },
		{ 0 },
	};
	int letter;
	bool good = true;

	*options = (struct serve_options){
		.directory_fd = -1,
		.max_bytes = LOG_MAX_BYTES_DEFAULT,
		.level = LOG_LEVEL_WARNING,
	};
	while (good && (letter = getopt_long(argc, argv, "qv", names, NULL)) != -1) {
		switch (letter) {
		case 'd':
			options->directory_fd = inherited_descriptor(optarg);
			good = options->directory_fd >= 0;
			break;
		case 's':
			good = add_source(options, inherited_descriptor(optarg));
			break;
		case 'p':
			options->policy_first = true;
			break;
		case 'n':
			options->session = optarg;
			break;
		case 'm':
			good = parse_bytes(optarg, &options->max_bytes);
			break;
		case 'q':
			options->level = LOG_LEVEL_ERROR;
			break;
		case 'v':
			options->level = LOG_LEVEL_INFO;
			break;
		case 'D':
			options->level = LOG_LEVEL_DEBUG;
			break;
		default:
			good = false;
		}
	}
	return good && optind == argc && options->directory_fd >= 0 && options->source_count > 0;
}

/* Both kinds of wrong descriptor would otherwise show up much later, as a log without events. */
static bool check_descriptors(const struct serve_options *options)
{
	struct stat status;

	if (fstat(options->directory_fd, &status) < 0 || !S_ISDIR(status.st_mode)) {
		log_error("--directory-fd %d is not a directory", options->directory_fd);
		return false;
	}
	if (status.st_uid != geteuid() || status.st_mode & 077) {
		log_error("--directory-fd %d: the session's directory must be this user's and "
			  "closed to others (mode 0700)",
			  options->directory_fd);
		return false;
	}
	for (size_t i = 0; i < options->source_count; i++) {
		int type = 0;
		socklen_t size = sizeof(type);

		if (getsockopt(options->sources[i], SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
		    type != SOCK_SEQPACKET) {
			log_error("--source-fd %d is not a SOCK_SEQPACKET socket",
				  options->sources[i]);
			return false;
		}
	}
	return true;
}

static struct log_writer *open_log(const struct serve_options *options)
{
	struct log_writer *writer;
	char explanation[256];
	int error =
		log_writer_open(options->directory_fd, options->max_bytes, &writer, explanation);

	switch (error) {
	case 0:
		return writer;
	case -EBUSY:
		log_error("the log of this session already has a writer");
		break;
	case -EBADMSG:
		log_error("the log of this session is damaged, nothing is added to it: %s; move "
			  "audit.jsonl and audit.head away to start a new one",
			  explanation);
		break;
	default:
		log_error("cannot open audit.jsonl in the session's directory: %s",
			  strerror(-error));
	}
	return NULL;
}

static int enter_jail(const struct log_writer *writer, const struct audit_server *server,
		      const struct serve_options *options, struct jail_report *report)
{
	const struct jail_syscall_set *const sets[] = { &jail_calls_process, &audit_server_calls };
	const struct jail_rlimit limits[] = {
		{ RLIMIT_CORE, 0 },
		{ RLIMIT_NPROC, 0 },
		{ RLIMIT_MEMLOCK, 0 },
	};
	int kept[SOURCES_MAX + 3];
	size_t kept_count = 0;

	kept[kept_count++] = log_writer_log_fd(writer);
	kept[kept_count++] = log_writer_head_fd(writer);
	kept[kept_count++] = audit_server_epoll_fd(server);
	for (size_t i = 0; i < options->source_count; i++)
		kept[kept_count++] = options->sources[i];
	const struct jail_spec spec = {
		.component = "audit",
		.syscall_sets = sets,
		.syscall_set_count = ARRAY_LENGTH(sets),
		.rlimits = limits,
		.rlimit_count = ARRAY_LENGTH(limits),
		.namespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC,
		.empty_root = true,
		.keep_fds = kept,
		.keep_fd_count = kept_count,
	};

	return jail_enter(&spec, report);
}

/* The log's record of the writer's own jail. */
static int note_jail(struct log_writer *writer, const struct jail_report *report)
{
	char text[JAIL_REPORT_TEXT_MAX];

	jail_report_text(report, text, sizeof(text));
	log_debug("jail: %s", text);
	return log_writer_note(writer, AUDIT_JAIL, text);
}

static int serve(struct log_writer *writer, struct audit_server *server,
		 const struct serve_options *options)
{
	struct jail_report report;
	int error = enter_jail(writer, server, options, &report);

	if (error) {
		log_error("cannot enter the jail at %s: %s", report.failed_stage, strerror(-error));
		return EXIT_FAILURE;
	}
	if (options->policy_first)
		error = audit_server_await_policy(server, 0);
	if (!error)
		error = note_jail(writer, &report);
	if (!error)
		error = audit_server_run(server);
	if (!error)
		error = log_writer_close(writer);
	if (error) {
		log_error("cannot write the audit log of session %s: %s; ending, so that "
			  "nothing happens unrecorded",
			  options->session ? options->session : "(unnamed)", strerror(-error));
		return EXIT_FAILURE;
	}
	log_info("session %s: %" PRIu64 " records",
		 options->session ? options->session : "(unnamed)", log_writer_records(writer));
	return EXIT_SUCCESS;
}

int command_serve(int argc, char **argv)
{
	struct serve_options options;
	struct log_writer *writer;
	struct audit_server *server = NULL;
	int status = EXIT_FAILURE;
	int error;

	if (!parse_options(argc, argv, &options)) {
		log_error("usage: matchlock-audit serve --directory-fd N --source-fd N "
			  "[--source-fd N ...] [--policy-first] [--session NAME] [--max-bytes N] "
			  "[-q|-v|--debug]");
		return EXIT_USAGE;
	}
	log_configure("matchlock-audit", options.level);
	/* The end of the session is when the producers have ended, however they did: a Ctrl-C
	 * that reaches the whole process group must not cut the log short. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (!check_descriptors(&options))
		return EXIT_FAILURE;
	writer = open_log(&options);
	if (!writer)
		return EXIT_FAILURE;
	error = audit_server_new(writer, options.sources, options.source_count, &server);
	if (error)
		log_error("cannot watch the producers' sockets: %s", strerror(-error));
	else
		status = serve(writer, server, &options);
	audit_server_free(server);
	log_writer_free(writer);
	return status;
}
