#include "vmm/snapshot_identity.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define THIS_PROGRAM "/proc/self/exe"

struct text {
	char *start;
	size_t length;
	int error; /* of anything so far */
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *text, const char *format, ...)
{
	const size_t room = SNAPSHOT_IDENTITY_MAX - text->length;
	va_list arguments;
	int count;

	va_start(arguments, format);
	count = vsnprintf(text->start + text->length, room, format, arguments);
	va_end(arguments);
	if (count < 0 || (size_t)count >= room)
		text->error = -E2BIG;
	else
		text->length += (size_t)count;
}

/* A file that was replaced or written to is another one. */
static void add_file(struct text *text, const char *what, const char *path)
{
	struct stat status;

	if (stat(path, &status) < 0) {
		text->error = -errno;
		return;
	}
	add(text, "%s %llu:%llu %llu %lld.%09ld %lld.%09ld\n", what,
	    (unsigned long long)status.st_dev, (unsigned long long)status.st_ino,
	    (unsigned long long)status.st_size, (long long)status.st_mtim.tv_sec,
	    status.st_mtim.tv_nsec, (long long)status.st_ctim.tv_sec, status.st_ctim.tv_nsec);
}

static void add_boot_id(struct text *text)
{
	cleanup_fd int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
	char id[64] = "";
	ssize_t count = fd < 0 ? -1 : read(fd, id, sizeof(id) - 1);

	if (count <= 0)
		text->error = fd < 0 || count < 0 ? -errno : -ENODATA;
	else
		add(text, "boot %s", id);
}

int snapshot_identity(const struct engine_config *config, const char *engine_program,
		      const char *command_line, char identity[SNAPSHOT_IDENTITY_MAX])
{
	struct text text = { .start = identity };

	memset(identity, 0, SNAPSHOT_IDENTITY_MAX);
	add_boot_id(&text);
	add_file(&text, "program", THIS_PROGRAM);
	if (engine_program)
		add_file(&text, "engine", engine_program);
	add_file(&text, "kernel", config->kernel);
	add_file(&text, "initrd", config->initrd);
	add(&text, "memory %u huge %d file %d\nprocessors %u\ncommand line %s\n",
	    config->memory_mib, config->huge_pages, config->memory_fd >= 0, config->cpus,
	    command_line);
	return text.error;
}
