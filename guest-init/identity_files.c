#include "guest-init/identity_files.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX (4U << 20)
#define LINE_MAX_BYTES (AGENT_PATH_MAX + 3 * AGENT_NAME_MAX + 64)

bool identity_text_has_id(const char *text, unsigned id)
{
	char wanted[16];
	size_t wanted_length = (size_t)snprintf(wanted, sizeof(wanted), "%u", id);

	while (*text) {
		const char *end = strchrnul(text, '\n');
		const char *field = text;
		int number = 0;

		while (number < 2 && (field = memchr(field, ':', (size_t)(end - field))) != NULL) {
			field++;
			number++;
		}
		if (field) {
			const char *field_end = memchr(field, ':', (size_t)(end - field));
			size_t length = (size_t)((field_end ? field_end : end) - field);

			if (length == wanted_length && memcmp(field, wanted, length) == 0)
				return true;
		}
		text = *end ? end + 1 : end;
	}
	return false;
}

bool identity_text_has_host(const char *text, const char *hostname)
{
	size_t length = strlen(hostname);
	bool comment = false;

	while (*text) {
		size_t word;

		if (*text == '\n')
			comment = false;
		else if (*text == '#')
			comment = true;
		if (comment || isspace((unsigned char)*text)) {
			text++;
			continue;
		}
		word = strcspn(text, " \t\r\n\f\v#");
		if (word == length && strncasecmp(text, hostname, length) == 0)
			return true;
		text += word;
	}
	return false;
}

/* The file's text, or an empty one when it is missing or cannot be read. */
static char *read_text(const char *path)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text;

	if (fd >= 0 && read_file(fd, FILE_MAX, &text, NULL) == 0)
		return text;
	return strdup("");
}

static int append_line(const char *path, const char *text, const char *line)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	size_t length = strlen(text);
	int result = 0;

	if (fd < 0)
		return -errno;
	if (length > 0 && text[length - 1] != '\n')
		result = write_full(fd, "\n", 1);
	return result < 0 ? result : write_full(fd, line, strlen(line));
}

static int add_user(const struct agent_config *config)
{
	cleanup_free char *text = read_text("/etc/passwd");
	char line[LINE_MAX_BYTES];
	const char *shell = access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";

	if (!text)
		return -ENOMEM;
	if (identity_text_has_id(text, config->uid))
		return 0;
	snprintf(line, sizeof(line), "%s:x:%u:%u::%s:%s\n", config->user, config->uid, config->gid,
		 config->home, shell);
	return append_line("/etc/passwd", text, line);
}

static int add_group(const struct agent_config *config)
{
	cleanup_free char *text = read_text("/etc/group");
	char line[LINE_MAX_BYTES];

	if (!text)
		return -ENOMEM;
	if (identity_text_has_id(text, config->gid))
		return 0;
	snprintf(line, sizeof(line), "%s:x:%u:\n", config->group, config->gid);
	return append_line("/etc/group", text, line);
}

static int add_host(const struct agent_config *config)
{
	cleanup_free char *text = read_text("/etc/hosts");
	char line[LINE_MAX_BYTES];

	if (!text)
		return -ENOMEM;
	if (text[0] == '\0') {
		snprintf(line, sizeof(line), "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n",
			 config->hostname);
	} else {
		if (identity_text_has_host(text, config->hostname))
			return 0;
		snprintf(line, sizeof(line), "127.0.1.1 %s\n", config->hostname);
	}
	return append_line("/etc/hosts", text, line);
}

/* Nothing listens at the loopback address, so a lookup is refused at once instead of timing
 * out. */
static const char resolv_conf_without_network[] =
	"# This sandbox has no network: it has a loopback interface and nothing else.\n"
	"# Names cannot be looked up, and connecting fails with \"Network is unreachable\".\n"
	"nameserver 127.0.0.1\n"
	"options timeout:1 attempts:1\n";

static const char resolv_conf_with_network[] =
	"# Every name has an address here, which stands for the name. Connections are made by\n"
	"# Matchlock on the host, if the session allows that name.\n"
	"nameserver 127.0.0.1\n";

/* The image's file is often a symbolic link into /run. */
static int write_resolv_conf(const char *text)
{
	cleanup_fd int fd = -1;

	if (unlink("/etc/resolv.conf") < 0 && errno != ENOENT)
		return -errno;
	fd = open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	return write_full(fd, text, strlen(text));
}

static int link_time_zone(const char *zone)
{
	char target[AGENT_NAME_MAX + 32];

	if (zone[0] == '\0' || strstr(zone, ".."))
		return 0;
	snprintf(target, sizeof(target), "/usr/share/zoneinfo/%s", zone);
	if (access(target, R_OK) < 0)
		return 0; /* an image without the zone keeps its own time */
	if (unlink("/etc/localtime") < 0 && errno != ENOENT)
		return -errno;
	return symlink(target, "/etc/localtime") < 0 ? -errno : 0;
}

int identity_files_write(const struct agent_config *config, struct failure *failure)
{
	int result;

	if (mkdir("/etc", 0755) < 0 && errno != EEXIST)
		return failure_set(failure, "files", errno, "cannot create /etc");
	result = add_user(config);
	if (result < 0)
		return failure_set(failure, "files", -result, "cannot add to /etc/passwd");
	result = add_group(config);
	if (result < 0)
		return failure_set(failure, "files", -result, "cannot add to /etc/group");
	result = add_host(config);
	if (result < 0)
		return failure_set(failure, "files", -result, "cannot add to /etc/hosts");
	if (config->flags & (AGENT_CONFIG_NO_NETWORK | AGENT_CONFIG_NETWORK)) {
		result = write_resolv_conf(config->flags & AGENT_CONFIG_NETWORK
						   ? resolv_conf_with_network
						   : resolv_conf_without_network);
		if (result < 0)
			return failure_set(failure, "files", -result,
					   "cannot write /etc/resolv.conf");
	}
	result = link_time_zone(config->time_zone);
	if (result < 0)
		return failure_set(failure, "files", -result, "cannot link /etc/localtime");
	return 0;
}
