#include "guest-fused/options.h"

#include "wire/channel.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char fused_usage[] =
	"usage: guest-fused (--vsock-port N | --unix-socket PATH) --export ID:MOUNTPOINT:ro|rw "
	"...\n"
	"                   [--window PATH:OFFSET:SIZE[:PORT]] [--ready-fd N] [--workers N] "
	"[--stats]\n"
	"                   [-f] [-q] [-v] [--debug]\n"
	"Mounts exports of a Matchlock file server.\n"
	"  --vsock-port N       reach the server at port N of the host\n"
	"  --unix-socket PATH   reach the server at a Unix socket\n"
	"  --export ID:DIR:MODE mount export ID at DIR, MODE ro or rw; may be repeated\n"
	"  --window P:OFF:SIZE  memory shared with the server: SIZE bytes at OFF of the file P;\n"
	"                       with :PORT, the I/O port that wakes it\n"
	"  --ready-fd N         write \"ready ID\" to descriptor N as each mount comes up\n"
	"  --workers N          threads per export, 1 to 16 (default: by CPUs)\n"
	"  --stats              print counters at the end; SIGUSR1 prints them at any time\n"
	"  -f                   stay in the foreground (always so; accepted for mount helpers)\n"
	"  -q, -v, --debug      say less, more, everything\n";

static bool parse_number(const char *text, int64_t minimum, int64_t maximum, int64_t *ret_number)
{
	char *end;
	long long number;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno != 0 || *end != '\0' || number < minimum || number > maximum)
		return false;
	*ret_number = number;
	return true;
}

static bool parse_export(const char *text, struct fused_export_option *ret_export)
{
	char id[16];
	int64_t number;
	const char *first = strchr(text, ':');
	const char *last = strrchr(text, ':');
	size_t length;

	if (first == NULL || last == first)
		return false;
	length = (size_t)(first - text);
	if (length >= sizeof(id))
		return false;
	memcpy(id, text, length);
	id[length] = '\0';
	if (!parse_number(id, 1, FUSED_EXPORTS_MAX, &number))
		return false;
	ret_export->id = (uint32_t)number;
	length = (size_t)(last - first - 1);
	if (length == 0 || length >= sizeof(ret_export->mountpoint) || first[1] != '/')
		return false;
	memcpy(ret_export->mountpoint, first + 1, length);
	ret_export->mountpoint[length] = '\0';
	if (strcmp(last, ":ro") == 0)
		ret_export->read_only = true;
	else if (strcmp(last, ":rw") == 0)
		ret_export->read_only = false;
	else
		return false;
	return true;
}

static int add_export(struct fused_options *options, const char *text)
{
	struct fused_export_option *export = &options->exports[options->export_count];

	if (options->export_count == FUSED_EXPORTS_MAX || !parse_export(text, export))
		return -EINVAL;
	for (size_t i = 0; i < options->export_count; i++)
		if (options->exports[i].id == export->id)
			return -EINVAL;
	options->export_count++;
	return 0;
}

/* PATH:OFFSET:SIZE[:PORT] */
static int parse_window(struct fused_options *options, const char *text)
{
	const char *colon = strchr(text, ':');
	unsigned long port = 0;
	char *end;

	if (text[0] != '/' || colon == NULL ||
	    (size_t)(colon - text) >= sizeof(options->window_path))
		return -EINVAL;
	memcpy(options->window_path, text, (size_t)(colon - text));
	errno = 0;
	options->window_offset = strtoull(colon + 1, &end, 0);
	if (*end != ':')
		return -EINVAL;
	options->window_size = strtoull(end + 1, &end, 0);
	if (*end == ':')
		port = strtoul(end + 1, &end, 0);
	if (errno != 0 || *end != '\0' || port > UINT16_MAX ||
	    channel_count(options->window_size) == 0)
		return -EINVAL;
	options->doorbell_port = (uint16_t)port;
	return 0;
}

/* Options that take a value. Returns 0, -EINVAL for a bad value, -ENOENT for another option. */
static int parse_valued(struct fused_options *options, const char *name, const char *value)
{
	int64_t number;

	if (strcmp(name, "--vsock-port") == 0) {
		return parse_number(value, 1, UINT32_MAX - 1, &options->vsock_port) ? 0 : -EINVAL;
	} else if (strcmp(name, "--unix-socket") == 0) {
		options->unix_socket = value;
		return *value != '\0' ? 0 : -EINVAL;
	} else if (strcmp(name, "--export") == 0) {
		return add_export(options, value);
	} else if (strcmp(name, "--window") == 0) {
		return parse_window(options, value);
	} else if (strcmp(name, "--ready-fd") == 0) {
		if (!parse_number(value, 0, INT_MAX, &number))
			return -EINVAL;
		options->ready_fd = (int)number;
		return 0;
	} else if (strcmp(name, "--workers") == 0) {
		if (!parse_number(value, 1, FUSED_WORKERS_MAX, &number))
			return -EINVAL;
		options->workers = (uint32_t)number;
		return 0;
	}
	return -ENOENT;
}

static bool parse_plain(struct fused_options *options, const char *name)
{
	if (strcmp(name, "--debug") == 0)
		options->log_level = LOG_LEVEL_DEBUG;
	else if (strcmp(name, "-v") == 0)
		options->log_level = LOG_LEVEL_INFO;
	else if (strcmp(name, "-q") == 0)
		options->log_level = LOG_LEVEL_ERROR;
	else if (strcmp(name, "--stats") == 0)
		options->stats = true;
	else if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0)
		options->help = true;
	else if (strcmp(name, "-f") != 0)
		return false;
	return true;
}

int fused_options_parse(int argc, char *const *argv, struct fused_options *ret_options, char *error,
			size_t error_capacity)
{
	struct fused_options *options = ret_options;

	memset(options, 0, sizeof(*options));
	options->vsock_port = -1;
	options->ready_fd = -1;
	options->log_level = LOG_LEVEL_WARNING;
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		int result;

		if (parse_plain(options, argv[i]))
			continue;
		result = parse_valued(options, argv[i], value);
		if (result == -ENOENT) {
			snprintf(error, error_capacity, "unknown option %s; see --help", argv[i]);
			return -EINVAL;
		}
		if (result != 0) {
			snprintf(error, error_capacity, "%s: bad value \"%s\"; see --help", argv[i],
				 value);
			return -EINVAL;
		}
		i++;
	}
	if (options->help)
		return 0;
	if ((options->vsock_port >= 0) == (options->unix_socket != NULL)) {
		snprintf(error, error_capacity,
			 "give one of --vsock-port and --unix-socket, and not both");
		return -EINVAL;
	}
	if (options->export_count == 0) {
		snprintf(error, error_capacity, "nothing to mount: give --export ID:DIR:ro|rw");
		return -EINVAL;
	}
	return 0;
}
