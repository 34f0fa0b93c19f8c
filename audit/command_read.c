#include "audit/commands.h"

#include "audit/digest.h"
#include "audit/record.h"
#include "audit/show.h"
#include "audit/verify.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct read_options {
	const char *log;
	const char *expect;
	uint8_t expected[DIGEST_SIZE];
	char since[RECORD_TIME_LENGTH + 1];
	struct show_options show;
};

static bool add_kind(const char *name, uint32_t *kinds)
{
	for (int i = 1; audit_kind_name((enum audit_kind)i); i++) {
		if (strcmp(name, audit_kind_name((enum audit_kind)i)) == 0) {
			*kinds |= UINT32_C(1) << i;
			return true;
		}
	}
	log_error("--kind %s: no such kind of record; docs/audit-log.md lists them", name);
	return false;
}

static bool set_since(const char *text, struct read_options *options)
{
	if (!show_parse_since(text, (uint64_t)time(NULL) * 1000000000u, options->since)) {
		log_error("--since %s: give a time (2026-11-20T18:55:00Z, 2026-11-20) or how long "
			  "ago (90s, 15m, 2h, 3d)",
			  text);
		return false;
	}
	options->show.since = options->since;
	return true;
}

static bool set_expect(const char *text, struct read_options *options)
{
	if (strlen(text) != DIGEST_HEX_SIZE || !digest_from_hex(text, options->expected)) {
		log_error("--expect takes the %d hexadecimal digits of the last record's hash",
			  DIGEST_HEX_SIZE);
		return false;
	}
	options->expect = text;
	return true;
}

static bool take_option(int letter, struct read_options *options)
{
	switch (letter) {
	case 'l':
		options->log = optarg;
		return true;
	case 'd':
		options->show.kinds |= UINT32_C(1) << AUDIT_DENIAL;
		return true;
	case 'p':
		options->show.path = optarg;
		return true;
	case 'h':
		options->show.host = optarg;
		return true;
	case 's':
		return set_since(optarg, options);
	case 'k':
		return add_kind(optarg, &options->show.kinds);
	case 'f':
		options->show.follow = true;
		return true;
	case 'e':
		return set_expect(optarg, options);
	case 'j':
		options->show.json = true;
		return true;
	default:
		return false;
	}
}

static bool parse_options(int argc, char **argv, const struct option *names,
			  struct read_options *options)
{
	int letter;

	*options = (struct read_options){ 0 };
	while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (!take_option(letter, options))
			return false;
	}
	if (optind < argc) {
		log_error("unexpected argument: %s", argv[optind]);
		return false;
	}
	if (!options->log)
		log_error("--log FILE is missing");
	return options->log != NULL;
}

static int open_log(const char *path)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0) {
		log_error("cannot open the log %s: %s", path, strerror(errno));
		return -1;
	}
	if (!S_ISREG(status.st_mode)) {
		log_error("the log %s is not a file", path);
		return -1;
	}
	return steal_fd(&fd);
}

/* The head's name is the log's with .head instead of .jsonl. -1 when there is none. */
static int open_head(const char *log_path)
{
	static const char suffix[] = ".jsonl";
	size_t length = strlen(log_path);
	char path[4096];
	int fd;

	if (length > sizeof(suffix) - 1 &&
	    strcmp(log_path + length - (sizeof(suffix) - 1), suffix) == 0)
		length -= sizeof(suffix) - 1;
	if (snprintf(path, sizeof(path), "%.*s.head", (int)MIN_OF(length, sizeof(path)),
		     log_path) >= (int)sizeof(path)) {
		log_error("the path of the log is too long");
		return -1;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno != ENOENT)
		log_error("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static const struct jail_syscall reader_calls[] = {
	JAIL_CALL(SYS_pread64),
	/* What stdio asks of a terminal. */
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, TCGETS)),
};
static const struct jail_syscall_set reader_set = JAIL_SET(reader_calls);

/* A reader parses what a guest chose, so it is locked up as well; it needs its open files and
 * nothing else. */
static bool enter_jail(const int *kept, size_t kept_count)
{
	const struct jail_syscall_set *const sets[] = { &jail_calls_process, &show_calls,
							&reader_set };
	const struct jail_spec spec = {
		.component = "audit-reader",
		.syscall_sets = sets,
		.syscall_set_count = ARRAY_LENGTH(sets),
		.keep_fds = kept,
		.keep_fd_count = kept_count,
	};
	struct jail_report report;
	int error = jail_enter(&spec, &report);

	if (error)
		log_error("cannot enter the jail at %s: %s", report.failed_stage, strerror(-error));
	return !error;
}

int command_show(int argc, char **argv)
{
	static const struct option names[] = {
		{ "log", required_argument, NULL, 'l' },
		{ "denied", no_argument, NULL, 'd' },
		{ "path", required_argument, NULL, 'p' },
		{ "since", required_argument, NULL, 's' },
		{ "kind", required_argument, NULL, 'k' },
		{ "follow", no_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'j' },
		{ "host", required_argument, NULL, 'h' },
		{ 0 },
	};
	struct read_options options;
	cleanup_fd int log_fd = -1;
	cleanup_fd int watch_fd = -1;
	int error;

	if (!parse_options(argc, argv, names, &options)) {
		log_error("usage: matchlock-audit show --log FILE [--denied] [--path GLOB] "
			  "[--host GLOB] [--since TIME|DURATION] [--kind KIND]... [--follow] "
			  "[--json]");
		return EXIT_USAGE;
	}
	log_fd = open_log(options.log);
	if (log_fd < 0)
		return EXIT_FAILURE;
	if (options.show.follow) {
		watch_fd = show_watch(options.log);
		if (watch_fd < 0) {
			log_error("cannot watch %s: %s", options.log, strerror(-watch_fd));
			return EXIT_FAILURE;
		}
	}
	options.show.colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	signal(SIGPIPE, SIG_IGN);
	if (!enter_jail((const int[]){ log_fd, watch_fd }, 2))
		return EXIT_FAILURE;
	error = show_log(log_fd, watch_fd, &options.show, stdout);
	/* The reader of a pipe that has seen enough is no failure. */
	if (error && error != -EPIPE) {
		log_error("cannot show %s: %s", options.log, strerror(-error));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

static void print_json(const struct verdict *verdict)
{
	char hex[DIGEST_HEX_SIZE];

	digest_to_hex(verdict->hash, hex);
	printf("{\"intact\":%s,\"reason\":\"%s\",\"records\":%" PRIu64 ",\"first_bad\":%" PRIu64
	       ",\"closed\":%s,\"incomplete_bytes\":%" PRIu64 ",\"hash\":\"%.*s\"}\n",
	       verdict->reason == VERDICT_INTACT ? "true" : "false",
	       verdict_reason_name(verdict->reason), verdict->records, verdict->first_bad,
	       verdict->closed ? "true" : "false", verdict->incomplete_bytes, DIGEST_HEX_SIZE, hex);
}

int command_verify(int argc, char **argv)
{
	static const struct option names[] = {
		{ "log", required_argument, NULL, 'l' },
		{ "expect", required_argument, NULL, 'e' },
		{ "json", no_argument, NULL, 'j' },
		{ 0 },
	};
	struct read_options options;
	cleanup_fd int log_fd = -1;
	cleanup_fd int head_fd = -1;
	struct verdict verdict;
	char text[384];
	int error;

	if (!parse_options(argc, argv, names, &options)) {
		log_error("usage: matchlock-audit verify --log FILE [--expect HASH] [--json]");
		return EXIT_USAGE;
	}
	head_fd = open_head(options.log);
	log_fd = open_log(options.log);
	/* At its first use OpenSSL reads its configuration, which the jail would not let it. */
	digest_free(digest_new());
	if (log_fd < 0 || !enter_jail((const int[]){ log_fd, head_fd }, 2))
		return EXIT_FAILURE;
	error = verify_log(log_fd, head_fd, options.expect ? options.expected : NULL, &verdict);
	if (error) {
		log_error("cannot read %s: %s", options.log, strerror(-error));
		return EXIT_FAILURE;
	}
	if (options.show.json) {
		print_json(&verdict);
	} else {
		verdict_text(&verdict, text, sizeof(text));
		puts(text);
	}
	return verdict.reason == VERDICT_INTACT ? EXIT_SUCCESS : EXIT_FAILURE;
}
