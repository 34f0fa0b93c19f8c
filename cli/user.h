/*
 * Who the command runs as in the guest. By default the caller, with the caller's groups; -u takes
 * a name or number, and a group behind a colon, looked up where the guest will look: the host's
 * databases for the host's image, etc/passwd and etc/group of a directory image.
 */
#ifndef CLI_USER_H
#define CLI_USER_H

#include "cli/text.h"

#include <stddef.h>
#include <sys/types.h>

#define GUEST_GROUPS_MAX 256

struct guest_user {
	uid_t uid;
	gid_t gid;
	char *name;
	char *group;
	char *home;
	char *shell;
	gid_t groups[GUEST_GROUPS_MAX];
	size_t group_count;
};

/* `wish` is -u's value or NULL; `image` a directory image's path or NULL for the host's;
 * `caller_home` is the caller's home directory. */
int guest_user_find(const char *wish, const char *image, const char *caller_home,
		    struct guest_user *ret_user, struct problem *problem);
void guest_user_free(struct guest_user *user);

#endif
