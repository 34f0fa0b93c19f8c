#include "guest-init/modules.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define LIST_MAX 65536
#define DEVICES "/sys/bus/virtio/devices"

int module_list_open(struct module_list *list, struct failure *failure)
{
	cleanup_fd int fd = open("/modules/order", O_RDONLY | O_CLOEXEC);
	int result;

	*list = (struct module_list){ 0 };
	if (fd < 0) {
		if (errno == ENOENT)
			return 0;
		return failure_set(failure, "modules", errno, "cannot open /modules/order");
	}
	result = read_file(fd, LIST_MAX, &list->text, NULL);
	if (result < 0)
		return failure_set(failure, "modules", -result, "cannot read /modules/order");
	list->next = list->text;
	return 0;
}

void module_list_close(struct module_list *list)
{
	free(list->text);
	*list = (struct module_list){ 0 };
}

static int load(const char *name, struct failure *failure)
{
	char path[300];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "/modules/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return failure_set(failure, "modules", errno, "cannot open %s", path);
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		return failure_set(failure, "modules", errno, "cannot load %s", path);
	unlink(path);
	return 0;
}

static bool ends_in(const char *text, const char *end)
{
	size_t length = strlen(text);
	size_t end_length = strlen(end);

	return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

int module_list_load(struct module_list *list, const char *last, struct failure *failure)
{
	while (list->next && *list->next) {
		char *name = list->next;
		char *end = strchrnul(name, '\n');
		int result;

		list->next = *end ? end + 1 : end;
		*end = '\0';
		if (*name == '\0')
			continue;
		result = load(name, failure);
		if (result < 0)
			return result;
		if (last && ends_in(name, last))
			return 0;
	}
	return 0;
}

/* Whether sysfs has a virtio device with that id, such as 0x0005. */
static bool has_device(const char *id)
{
	DIR *directory = opendir(DEVICES);
	const struct dirent *entry;
	bool found = false;

	while (directory && !found && (entry = readdir(directory))) {
		char path[sizeof(DEVICES) + sizeof(entry->d_name) + 16];
		char text[16] = "";
		cleanup_fd int fd = -1;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), DEVICES "/%s/device", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
			continue;
		text[strcspn(text, "\n")] = '\0';
		found = strcmp(text, id) == 0;
	}
	if (directory)
		closedir(directory);
	return found;
}

static int load_for_device(char *line, struct failure *failure)
{
	char *space = strchr(line, ' ');
	char path[300];

	if (!space)
		return failure_set(failure, "modules", 0, "malformed line in /modules/devices: %s",
				   line);
	*space = '\0';
	if (has_device(line))
		return load(space + 1, failure);
	snprintf(path, sizeof(path), "/modules/%s", space + 1);
	unlink(path);
	return 0;
}

int module_load_devices(struct failure *failure)
{
	cleanup_fd int fd = open("/modules/devices", O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = NULL;
	char *rest = NULL;
	int result;

	if (fd < 0) {
		if (errno == ENOENT)
			return 0;
		return failure_set(failure, "modules", errno, "cannot open /modules/devices");
	}
	result = read_file(fd, LIST_MAX, &text, NULL);
	if (result < 0)
		return failure_set(failure, "modules", -result, "cannot read /modules/devices");
	if ((mkdir("/sys", 0755) < 0 && errno != EEXIST) ||
	    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "") < 0)
		return failure_set(failure, "modules", errno, "cannot mount /sys");
	for (char *line = strtok_r(text, "\n", &rest); line && result == 0;
	     line = strtok_r(NULL, "\n", &rest))
		result = load_for_device(line, failure);
	umount2("/sys", MNT_DETACH);
	return result;
}
