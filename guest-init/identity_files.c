#include "guest-init/identity_files.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* ---- where ------------------------------------------------------------------------------ */

/* What is read and what is written to: the same root, or a layer apart from the image. */
struct place {
	int image; /* a root */
	int etc;
	bool apart;
};

static void place_release(struct place *place)
{
	if (place->image >= 0)
		close(place->image);
	if (place->etc >= 0)
		close(place->etc);
}

/* Symbolic links lead to where they do in the image. */
static int open_in_image(const struct place *place, const char *path, int flags)
{
	const struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC),
		.resolve = RESOLVE_IN_ROOT,
	};
	long fd = syscall(SYS_openat2, place->image, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* ---- files that get a line -------------------------------------------------------------- */

enum { PASSWD, GROUP, HOSTS, LINED_FILES };

static const char *const lined_names[LINED_FILES] = { "passwd", "group", "hosts" };

struct lined_file {
	const char *name;
	char *text; /* an empty one when the file is missing or cannot be read */
	struct stat status;
	bool is_there;
};

static int lined_file_read(const struct place *place, const char *name, struct lined_file *ret_file)
{
	char path[32];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "etc/%s", name);
	*ret_file = (struct lined_file){ .name = name };
	fd = open_in_image(place, path, O_RDONLY | (place->apart ? O_NOFOLLOW : 0));
	ret_file->is_there = fd >= 0;
	if (fd >= 0 && fstat(fd, &ret_file->status) == 0 && S_ISREG(ret_file->status.st_mode) &&
	    read_file(fd, FILE_MAX, &ret_file->text, NULL) == 0)
		return 0;
	/* How anything else shows through the layer is for the overlay to say. */
	if (place->apart && fd != -ENOENT)
		return -ENOTSUP;
	ret_file->text = strdup("");
	return ret_file->text ? 0 : -ENOMEM;
}

static int lined_file_append(const struct place *place, const struct lined_file *file,
			     const char *line)
{
	cleanup_fd int fd =
		openat(place->etc, file->name,
		       O_WRONLY | O_CREAT | O_CLOEXEC | (place->apart ? O_EXCL : O_APPEND), 0644);
	size_t length = strlen(file->text);
	int result = 0;

	if (fd < 0)
		return -errno;
	/* What is in the layer hides all of what the image has by that name. */
	if (place->apart && file->is_there) {
		if (fchown(fd, file->status.st_uid, file->status.st_gid) < 0 ||
		    fchmod(fd, file->status.st_mode & 07777) < 0)
			return -errno;
		result = write_full(fd, file->text, length);
	}
	if (result == 0 && length > 0 && file->text[length - 1] != '\n')
		result = write_full(fd, "\n", 1);
	return result < 0 ? result : write_full(fd, line, strlen(line));
}

static bool has_bash(const struct place *place)
{
	cleanup_fd int fd = open_in_image(place, "bin/bash", O_PATH);
	struct stat status;

	return fd >= 0 && fstat(fd, &status) == 0 && (status.st_mode & 0111) != 0;
}

static int add_user(const struct place *place, const struct lined_file *file,
		    const struct agent_config *config)
{
	char line[LINE_MAX_BYTES];

	if (identity_text_has_id(file->text, config->uid))
		return 0;
	snprintf(line, sizeof(line), "%s:x:%u:%u::%s:%s\n", config->user, config->uid, config->gid,
		 config->home, has_bash(place) ? "/bin/bash" : "/bin/sh");
	return lined_file_append(place, file, line);
}

static int add_group(const struct place *place, const struct lined_file *file,
		     const struct agent_config *config)
{
	char line[LINE_MAX_BYTES];

	if (identity_text_has_id(file->text, config->gid))
		return 0;
	snprintf(line, sizeof(line), "%s:x:%u:\n", config->group, config->gid);
	return lined_file_append(place, file, line);
}

static int add_host(const struct place *place, const struct lined_file *file,
		    const struct agent_config *config)
{
	char line[LINE_MAX_BYTES];

	if (file->text[0] == '\0') {
		snprintf(line, sizeof(line), "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n",
			 config->hostname);
	} else {
		if (identity_text_has_host(file->text, config->hostname))
			return 0;
		snprintf(line, sizeof(line), "127.0.1.1 %s\n", config->hostname);
	}
	return lined_file_append(place, file, line);
}

/* ---- files that are replaced ------------------------------------------------------------ */

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
static int write_resolv_conf(const struct place *place, const char *text)
{
	cleanup_fd int fd = -1;

	if (!place->apart && unlinkat(place->etc, "resolv.conf", 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(place->etc, "resolv.conf", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	return write_full(fd, text, strlen(text));
}

static int link_time_zone(const struct place *place, const char *zone)
{
	char target[AGENT_NAME_MAX + 32];
	cleanup_fd int fd = -1;

	if (zone[0] == '\0' || strstr(zone, ".."))
		return 0;
	snprintf(target, sizeof(target), "/usr/share/zoneinfo/%s", zone);
	fd = open_in_image(place, target, O_PATH);
	if (fd < 0)
		return 0; /* an image without the zone keeps its own time */
	if (!place->apart && unlinkat(place->etc, "localtime", 0) < 0 && errno != ENOENT)
		return -errno;
	return symlinkat(target, place->etc, "localtime") < 0 ? -errno : 0;
}

/* ---- all of them ------------------------------------------------------------------------ */

static int write_all(const struct place *place, const struct lined_file *files,
		     const struct agent_config *config, struct failure *failure)
{
	int result = add_user(place, &files[PASSWD], config);

	if (result < 0)
		return failure_set(failure, "files", -result, "cannot add to /etc/passwd");
	result = add_group(place, &files[GROUP], config);
	if (result < 0)
		return failure_set(failure, "files", -result, "cannot add to /etc/group");
	result = add_host(place, &files[HOSTS], config);
	if (result < 0)
		return failure_set(failure, "files", -result, "cannot add to /etc/hosts");
	if (config->flags & (AGENT_CONFIG_NO_NETWORK | AGENT_CONFIG_NETWORK)) {
		result = write_resolv_conf(place, config->flags & AGENT_CONFIG_NETWORK
							  ? resolv_conf_with_network
							  : resolv_conf_without_network);
		if (result < 0)
			return failure_set(failure, "files", -result,
					   "cannot write /etc/resolv.conf");
	}
	result = link_time_zone(place, config->time_zone);
	if (result < 0)
		return failure_set(failure, "files", -result, "cannot link /etc/localtime");
	return 0;
}

/* Nothing is written before all that is needed has been read. */
static int read_and_write(const struct place *place, const struct agent_config *config,
			  struct failure *failure)
{
	struct lined_file files[LINED_FILES] = { 0 };
	int result = 0;

	for (size_t i = 0; i < LINED_FILES && result == 0; i++)
		result = lined_file_read(place, lined_names[i], &files[i]);
	if (result == -ENOMEM)
		result = failure_set(failure, "files", ENOMEM, "out of memory");
	else if (result == 0)
		result = write_all(place, files, config, failure);
	for (size_t i = 0; i < LINED_FILES; i++)
		free(files[i].text);
	return result;
}

int identity_files_write(const struct agent_config *config, struct failure *failure)
{
	const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
	struct place place = { .image = open("/", flags), .etc = -1 };
	int result;

	if (mkdir("/etc", 0755) < 0 && errno != EEXIST)
		result = failure_set(failure, "files", errno, "cannot create /etc");
	else if (place.image < 0 || (place.etc = open("/etc", flags)) < 0)
		result = failure_set(failure, "files", errno, "cannot open /etc");
	else
		result = read_and_write(&place, config, failure);
	place_release(&place);
	return result;
}

int identity_files_write_apart(const struct agent_config *config, const char *image,
			       const char *etc, bool *ret_written, struct failure *failure)
{
	const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
	struct place place = { .image = open(image, flags),
			       .etc = open(etc, flags),
			       .apart = true };
	int result;

	if (place.image < 0 || place.etc < 0)
		result = failure_set(failure, "files", errno, "cannot open %s or %s", image, etc);
	else
		result = read_and_write(&place, config, failure);
	place_release(&place);
	*ret_written = result == 0;
	return result == -ENOTSUP ? 0 : result;
}
