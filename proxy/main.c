/*
 * matchlock-proxy: the egress broker of one session. The edge of the daemon: arguments, messages,
 * exit status. broker.h says what it is given.
 */
#include "base/checked.h"
#include "base/io.h"
#include "base/log.h"
#include "jail/descriptors.h"
#include "proxy/broker.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: matchlock-proxy --config-fd N --listen-fd N --dns-fd N [--secrets-fd N]\n"
	"                       [--control-fd N] [--audit-fd N] [--upstream-ca-fd N]\n"
	"                       [-q | -v | --debug]\n";

enum {
	OPTION_CONFIG_FD = 256,
	OPTION_SECRETS_FD,
	OPTION_LISTEN_FD,
	OPTION_DNS_FD,
	OPTION_CONTROL_FD,
	OPTION_AUDIT_FD,
	OPTION_UPSTREAM_CA_FD,
	OPTION_DEBUG,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{ "config-fd", required_argument, NULL, OPTION_CONFIG_FD },
	{ "secrets-fd", required_argument, NULL, OPTION_SECRETS_FD },
	{ "listen-fd", required_argument, NULL, OPTION_LISTEN_FD },
	{ "dns-fd", required_argument, NULL, OPTION_DNS_FD },
	{ "control-fd", required_argument, NULL, OPTION_CONTROL_FD },
	{ "audit-fd", required_argument, NULL, OPTION_AUDIT_FD },
	{ "upstream-ca-fd", required_argument, NULL, OPTION_UPSTREAM_CA_FD },
	{ "debug", no_argument, NULL, OPTION_DEBUG },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int *find_descriptor(struct broker_options *options, int option)
{
	switch (option) {
	case OPTION_CONFIG_FD:
		return &options->config_fd;
	case OPTION_SECRETS_FD:
		return &options->secrets_fd;
	case OPTION_LISTEN_FD:
		return &options->listen_fd;
	case OPTION_DNS_FD:
		return &options->dns_fd;
	case OPTION_CONTROL_FD:
		return &options->control_fd;
	case OPTION_AUDIT_FD:
		return &options->audit_fd;
	case OPTION_UPSTREAM_CA_FD:
		return &options->upstream_ca_fd;
	default:
		return NULL;
	}
}

/* False for a wrong option. */
static bool take_option(struct broker_options *options, int option, enum log_level *level)
{
	int *fd = find_descriptor(options, option);

	if (fd) {
		*fd = inherited_descriptor(optarg);
		return *fd >= 0;
	}
	switch (option) {
	case 'q':
		*level = LOG_LEVEL_ERROR;
		return true;
	case 'v':
		*level = LOG_LEVEL_INFO;
		return true;
	case OPTION_DEBUG:
		*level = LOG_LEVEL_DEBUG;
		return true;
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	struct broker_options options = { -1, -1, -1, -1, -1, -1, -1 };
	enum log_level level = LOG_LEVEL_WARNING;
	int option;

	log_configure("matchlock-proxy", level);
	while ((option = getopt_long(argc, argv, "qvh", long_options, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		}
		if (option == OPTION_VERSION) {
			puts("matchlock-proxy " MATCHLOCK_VERSION);
			return EXIT_SUCCESS;
		}
		if (!take_option(&options, option, &level)) {
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind < argc || options.config_fd < 0 || options.listen_fd < 0 || options.dns_fd < 0) {
		fputs(usage, stderr);
		return 2;
	}
	log_configure("matchlock-proxy", level);
	const int given[] = { options.config_fd,     options.secrets_fd, options.listen_fd,
			      options.dns_fd,	     options.control_fd, options.audit_fd,
			      options.upstream_ca_fd };
	if (descriptors_close_others(given, ARRAY_LENGTH(given)) < 0) {
		log_error("cannot close what was inherited");
		return EXIT_FAILURE;
	}
	return broker_run(&options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
