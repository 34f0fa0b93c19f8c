#include "guest-init/modules.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#define LIST_MAX 65536

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
