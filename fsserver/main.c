/*
 * matchlock-fsserver: serve, rollback, diff. The edge of the daemon: arguments, messages, exit
 * status. docs/protocol-fs.md and config.h describe what it speaks and reads.
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "fsserver/afterwards.h"
#include "fsserver/config.h"
#include "fsserver/confine.h"
#include "fsserver/export.h"
#include "fsserver/ring.h"
#include "fsserver/session.h"
#include "fsserver/window.h"
#include "jail/descriptors.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

/* Descriptors for everything but nodes, handles and read caches. */
#define FILES_RESERVED 512u
/* The same and the read caches, generously. */
#define FILES_BESIDES 65536u

struct serving {
	struct config *config;
	struct server server;
	struct export *exports[CONFIG_EXPORTS_MAX];
	size_t export_count;
	struct io_uring ring;
	bool ring_open;
	struct window window;
	int listen_fd;
	int control_fd;
	int doorbell_fd;
	int signal_fd;
};

struct window_option {
	int fd; /* -1: no window */
	uint64_t offset;
	uint64_t size;
};

struct arguments {
	int config_fd;
	int listen_fd;
	int control_fd;
	int audit_fd;
	struct window_option window;
	int doorbell_fd;
	const char *config;
	bool json;
	bool name_only;
	bool colour;
	enum log_level level;
};

static void usage(FILE *output)
{
	fputs("usage: matchlock-fsserver serve --config-fd N --listen-fd N [--control-fd N]\n"
	      "                                [--audit-fd N] [--window FD:OFFSET:SIZE]\n"
	      "                                [--doorbell-fd N]\n"
	      "                                [-q | -v | --debug]\n"
	      "       matchlock-fsserver rollback --config FILE [--json] [--audit-fd N]\n"
	      "       matchlock-fsserver diff --config FILE [--json] [--name-only] [--color]\n"
	      "                               [PATH...]\n",
	      output);
}

/* ---- serving -------------------------------------------------------------------------------- */

/* What all nodes and handles need, as far as the kernel allows it to anyone. */
static uint64_t files_wanted(const struct config *config)
{
	uint64_t wanted = config->nodes_max + 2 * config->handles_max + FILES_BESIDES;
	cleanup_fd int fd = open("/proc/sys/fs/nr_open", O_RDONLY | O_CLOEXEC);
	char text[24];
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (length <= 0)
		return 0;
	text[length] = '\0';
	return MIN_OF(wanted, strtoull(text, NULL, 10));
}

/* What RLIMIT_NOFILE leaves is shared out before anyone can use it up. A handle holds its node's
 * descriptor besides its own; nodes without handles do with what there is (node_table.h). */
static void share_out_files(struct serving *serving, uint64_t limit)
{
	const struct config *config = serving->config;
	uint64_t kept = FILES_RESERVED + config->export_count * (EXPORT_READ_CACHE_MAX + 8);
	uint64_t available = limit > kept + 64 ? limit - kept : 64;

	serving->server.nodes.max = config->nodes_max;
	serving->server.handles.max = MIN_OF(config->handles_max, available / 4);
	serving->server.descriptors.max = available - serving->server.handles.max;
	log_debug("%llu open files: %llu for nodes, %llu for handles", (unsigned long long)limit,
		  (unsigned long long)serving->server.descriptors.max,
		  (unsigned long long)serving->server.handles.max);
}

static int open_signals(struct serving *serving)
{
	sigset_t ends;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &ends, NULL) < 0)
		return -errno;
	serving->signal_fd = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
	return serving->signal_fd < 0 ? -errno : 0;
}

static int open_exports(struct serving *serving)
{
	char error[EXPORT_ERROR_MAX] = "";

	for (size_t i = 0; i < serving->config->export_count; i++) {
		int result = export_open(&serving->server, &serving->config->exports[i],
					 &serving->exports[i], error);

		if (result) {
			log_error("%s", error[0] ? error : strerror(-result));
			return result;
		}
		serving->export_count++;
	}
	return 0;
}

static int enter_jail(struct serving *serving)
{
	struct jail_report jail;
	char text[JAIL_REPORT_TEXT_MAX];
	uint8_t digest[EVP_MAX_MD_SIZE];
	int result;

	/* OpenSSL reads its configuration at the first use, which must be before the door shuts. */
	if (EVP_Digest("", 0, digest, NULL, EVP_sha256(), NULL) != 1) {
		log_error("no SHA-256 in libcrypto");
		return -ENOSYS;
	}
	result = confine(serving->exports, serving->export_count, &jail);
	if (result) {
		log_error("cannot lock the process: %s: %s",
			  jail.failed_stage ? jail.failed_stage : "set-up", strerror(-result));
		return result;
	}
	jail_report_text(&jail, text, sizeof(text));
	report_jail(serving->server.report, text);
	log_debug("jail: %s", text);
	return 0;
}

static int prepare(struct serving *serving, int config_fd, int audit_fd)
{
	char error[CONFIG_ERROR_MAX];
	uint64_t limit;
	int result = config_read(config_fd, &serving->config, error);

	if (result) {
		log_error("%s", error);
		return result;
	}
	serving->server.config = serving->config;
	result = report_new(audit_fd, &serving->server.report);
	if (!result)
		result = confine_raise_files(files_wanted(serving->config), &limit);
	if (!result)
		result = open_signals(serving);
	if (result) {
		log_error("cannot start: %s", strerror(-result));
		return result;
	}
	share_out_files(serving, limit);
	result = open_exports(serving);
	if (result)
		return result;
	result = ring_open(&serving->ring);
	if (result) {
		log_error("cannot make an io_uring: %s; see /proc/sys/kernel/io_uring_disabled",
			  strerror(-result));
		return result;
	}
	serving->ring_open = true;
	return 0;
}

static void tell_new_repository(const char *path, void *context)
{
	char detail[PATH_MAX + 32];

	snprintf(detail, sizeof(detail), "new repository: %s", *path ? path : ".");
	report_notice(context, detail);
}

static int run(struct serving *serving)
{
	struct session_options options = {
		.server = &serving->server,
		.exports = serving->exports,
		.export_count = serving->export_count,
		.listen_fd = serving->listen_fd,
		.control_fd = serving->control_fd,
		.signal_fd = serving->signal_fd,
		.ring = &serving->ring,
		.window = &serving->window,
		.doorbell_fd = serving->doorbell_fd,
	};
	struct session *session;
	int result = enter_jail(serving);

	if (result)
		return result;
	result = session_new(&options, &session);
	if (result) {
		log_error("cannot start serving: %s", strerror(-result));
		return result;
	}
	log_info("serving %zu exports", serving->export_count);
	result = session_run(session);
	session_free(session);
	for (size_t i = 0; i < serving->export_count; i++)
		policy_each_born(serving->exports[i]->policy, tell_new_repository,
				 serving->server.report);
	if (report_failed(serving->server.report))
		log_error("the audit process no longer takes events (%s); the session ends here",
			  strerror(-result));
	else if (result)
		log_error("serving ended: %s", strerror(-result));
	return result;
}

static int clean_up(struct serving *serving)
{
	int result = 0;

	for (size_t i = 0; i < serving->export_count; i++) {
		int error = export_close(serving->exports[i]);

		if (error) {
			log_error("the undo log was not closed cleanly: %s", strerror(-error));
			result = error;
		}
	}
	if (serving->ring_open)
		io_uring_queue_exit(&serving->ring);
	window_unmap(&serving->window);
	report_free(serving->server.report);
	config_free(serving->config);
	return result;
}

/* The descriptor of the guest's memory is gone before the guest's first byte: what is mapped of it
 * is all that this process has. */
static int map_window(struct serving *serving, const struct window_option *option)
{
	int result;

	if (option->fd < 0)
		return 0;
	result = window_map(&serving->window, option->fd, option->offset, option->size);
	close(option->fd);
	if (result)
		log_error("cannot map the window of %llu bytes at %llu of descriptor %d: %s",
			  (unsigned long long)option->size, (unsigned long long)option->offset,
			  option->fd, strerror(-result));
	return result;
}

static int serve(const struct arguments *arguments)
{
	struct serving serving = { .listen_fd = arguments->listen_fd,
				   .control_fd = arguments->control_fd,
				   .doorbell_fd = arguments->doorbell_fd,
				   .signal_fd = -1 };
	const int given[] = { arguments->config_fd, arguments->listen_fd, arguments->control_fd,
			      arguments->audit_fd,  arguments->window.fd, arguments->doorbell_fd };
	int result = descriptors_close_others(given, ARRAY_LENGTH(given));
	int cleaned;

	if (result) {
		log_error("cannot close what was inherited: %s", strerror(-result));
		return EXIT_FAILURE;
	}
	/* Umask is the guest's affair, and applied there. */
	umask(0);
	/* Buffers of a megabyte come and go all the time: keep them on the heap. */
	mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
	mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024);
	result = map_window(&serving, &arguments->window);
	if (!result)
		result = prepare(&serving, arguments->config_fd, arguments->audit_fd);
	if (!result)
		result = run(&serving);
	cleaned = clean_up(&serving);
	return result || cleaned ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- arguments ------------------------------------------------------------------------------ */

enum {
	OPTION_CONFIG_FD = 256,
	OPTION_LISTEN_FD,
	OPTION_CONTROL_FD,
	OPTION_AUDIT_FD,
	OPTION_WINDOW,
	OPTION_DOORBELL_FD,
	OPTION_CONFIG,
	OPTION_JSON,
	OPTION_NAME_ONLY,
	OPTION_COLOR,
	OPTION_DEBUG,
};

static const struct option options[] = {
	{ "config-fd", required_argument, NULL, OPTION_CONFIG_FD },
	{ "listen-fd", required_argument, NULL, OPTION_LISTEN_FD },
	{ "control-fd", required_argument, NULL, OPTION_CONTROL_FD },
	{ "audit-fd", required_argument, NULL, OPTION_AUDIT_FD },
	{ "window", required_argument, NULL, OPTION_WINDOW },
	{ "doorbell-fd", required_argument, NULL, OPTION_DOORBELL_FD },
	{ "config", required_argument, NULL, OPTION_CONFIG },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "name-only", no_argument, NULL, OPTION_NAME_ONLY },
	{ "color", no_argument, NULL, OPTION_COLOR },
	{ "debug", no_argument, NULL, OPTION_DEBUG },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* FD:OFFSET:SIZE */
static int parse_window(char *text, struct window_option *ret_window)
{
	char *offset = strchr(text, ':');
	char *size = offset ? strchr(offset + 1, ':') : NULL;
	char *end_offset;
	char *end_size;

	if (!size)
		return -1;
	*offset++ = '\0';
	*size++ = '\0';
	errno = 0;
	ret_window->offset = strtoull(offset, &end_offset, 0);
	ret_window->size = strtoull(size, &end_size, 0);
	if (errno || end_offset == offset || *end_offset || end_size == size || *end_size)
		return -1;
	ret_window->fd = inherited_descriptor(text);
	return ret_window->fd < 0 ? -1 : 0;
}

/* Returns 0, or -1 for a wrong option. */
static int take_option(struct arguments *arguments, int option)
{
	int *fd = NULL;

	switch (option) {
	case OPTION_CONFIG_FD:
		fd = &arguments->config_fd;
		break;
	case OPTION_LISTEN_FD:
		fd = &arguments->listen_fd;
		break;
	case OPTION_CONTROL_FD:
		fd = &arguments->control_fd;
		break;
	case OPTION_AUDIT_FD:
		fd = &arguments->audit_fd;
		break;
	case OPTION_DOORBELL_FD:
		fd = &arguments->doorbell_fd;
		break;
	case OPTION_WINDOW:
		return parse_window(optarg, &arguments->window);
	case OPTION_CONFIG:
		arguments->config = optarg;
		return 0;
	case OPTION_JSON:
		arguments->json = true;
		return 0;
	case OPTION_NAME_ONLY:
		arguments->name_only = true;
		return 0;
	case OPTION_COLOR:
		arguments->colour = true;
		return 0;
	case OPTION_DEBUG:
		arguments->level = LOG_LEVEL_DEBUG;
		return 0;
	case 'q':
		arguments->level = LOG_LEVEL_ERROR;
		return 0;
	case 'v':
		arguments->level = LOG_LEVEL_INFO;
		return 0;
	default:
		return -1;
	}
	*fd = inherited_descriptor(optarg);
	return *fd < 0 ? -1 : 0;
}

static int run_mode(const char *mode, const struct arguments *arguments, char **paths,
		    size_t path_count)
{
	struct afterwards_options afterwards = {
		.config = arguments->config,
		.json = arguments->json,
		.name_only = arguments->name_only,
		.colour = arguments->colour,
		.audit_fd = arguments->audit_fd,
		.paths = paths,
		.path_count = path_count,
	};

	if (strcmp(mode, "serve") == 0 && arguments->config_fd >= 0 && arguments->listen_fd >= 0 &&
	    path_count == 0)
		return serve(arguments);
	if (strcmp(mode, "rollback") == 0 && arguments->config && path_count == 0)
		return afterwards_roll_back(&afterwards);
	if (strcmp(mode, "diff") == 0 && arguments->config)
		return afterwards_diff(&afterwards);
	usage(stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct arguments arguments = {
		.config_fd = -1,
		.listen_fd = -1,
		.control_fd = -1,
		.audit_fd = -1,
		.window = { .fd = -1 },
		.doorbell_fd = -1,
		.level = LOG_LEVEL_WARNING,
	};
	int option;

	if (argc < 2 || argv[1][0] == '-') {
		bool asked = argc == 2 && strcmp(argv[1], "--help") == 0;

		usage(asked ? stdout : stderr);
		return asked ? 0 : 2;
	}
	optind = 2;
	while ((option = getopt_long(argc, argv, "qvh", options, NULL)) != -1) {
		if (option == 'h') {
			usage(stdout);
			return 0;
		}
		if (take_option(&arguments, option)) {
			usage(stderr);
			return 2;
		}
	}
	log_configure("matchlock-fsserver", arguments.level);
	return run_mode(argv[1], &arguments, argv + optind, (size_t)(argc - optind));
}
