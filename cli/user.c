#include "cli/user.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ID_MAX 0xfffffffeu

void guest_user_free(struct guest_user *user)
{
	free(user->name);
	free(user->group);
	free(user->home);
	free(user->shell);
	*user = (struct guest_user){ 0 };
}

static FILE *open_database(const char *image, const char *file)
{
	cleanup_free char *path = text_printf("%s/etc/%s", image, file);

	return fopen(path, "re");
}

/* The entry by name, or by number when `name` is NULL. */
static const struct passwd *find_passwd(const char *image, const char *name, uid_t uid)
{
	const struct passwd *entry;
	FILE *file;

	if (!image)
		return name ? getpwnam(name) : getpwuid(uid);
	file = open_database(image, "passwd");
	if (!file)
		return NULL;
	while ((entry = fgetpwent(file))) {
		if (name ? strcmp(entry->pw_name, name) == 0 : entry->pw_uid == uid)
			break;
	}
	fclose(file);
	return entry;
}

static const struct group *find_group(const char *image, const char *name, gid_t gid)
{
	const struct group *entry;
	FILE *file;

	if (!image)
		return name ? getgrnam(name) : getgrgid(gid);
	file = open_database(image, "group");
	if (!file)
		return NULL;
	while ((entry = fgetgrent(file))) {
		if (name ? strcmp(entry->gr_name, name) == 0 : entry->gr_gid == gid)
			break;
	}
	fclose(file);
	return entry;
}

static void fill_from_entry(struct guest_user *user, const struct passwd *entry)
{
	if (entry) {
		user->name = text_copy(entry->pw_name);
		user->home = text_copy(entry->pw_dir[0] == '/' ? entry->pw_dir : "/");
		user->shell = text_copy(entry->pw_shell[0] ? entry->pw_shell : "/bin/sh");
		return;
	}
	user->name = text_printf("user%u", (unsigned)user->uid);
	user->home = text_printf("/home/user%u", (unsigned)user->uid);
	user->shell = text_copy("/bin/sh");
}

static void fill_group_name(struct guest_user *user, const char *image)
{
	const struct group *entry = find_group(image, NULL, user->gid);

	user->group =
		entry ? text_copy(entry->gr_name) : text_printf("group%u", (unsigned)user->gid);
}

static void caller_groups(struct guest_user *user)
{
	int count = getgroups(GUEST_GROUPS_MAX, user->groups);

	user->group_count = count > 0 ? (size_t)count : 0;
}

static void named_groups(struct guest_user *user)
{
	int count = GUEST_GROUPS_MAX;

	if (getgrouplist(user->name, user->gid, user->groups, &count) >= 0)
		user->group_count = (size_t)count;
}

static int find_caller(const char *image, const char *caller_home, struct guest_user *user)
{
	user->uid = geteuid();
	user->gid = getegid();
	fill_from_entry(user, find_passwd(NULL, NULL, user->uid));
	free(user->home);
	user->home = text_copy(caller_home);
	fill_group_name(user, NULL);
	if (!image)
		caller_groups(user);
	return 0;
}

static int find_wished(const char *wish, const char *image, struct guest_user *user,
		       struct problem *problem)
{
	cleanup_free char *who = strndup(wish, strcspn(wish, ":"));
	const char *group = strchr(wish, ':');
	const struct passwd *entry;
	uint64_t number;

	if (!who || *who == '\0' || (group && group[1] == '\0'))
		return problem_set(problem, STATUS_USAGE,
				   "-u %s: write a user's name or number, or USER:GROUP", wish);
	if (parse_unsigned(who, ID_MAX, &number)) {
		user->uid = (uid_t)number;
		entry = find_passwd(image, NULL, user->uid);
	} else {
		entry = find_passwd(image, who, 0);
		if (!entry)
			return problem_set(problem, STATUS_USAGE,
					   "-u %s: there is no user %s in %s", wish, who,
					   image ? image : "the host's user database");
		user->uid = entry->pw_uid;
	}
	user->gid = entry ? entry->pw_gid : (gid_t)user->uid;
	fill_from_entry(user, entry);
	if (!group && entry && !image)
		named_groups(user);
	if (group && parse_unsigned(group + 1, ID_MAX, &number)) {
		user->gid = (gid_t)number;
	} else if (group) {
		const struct group *found = find_group(image, group + 1, 0);

		if (!found)
			return problem_set(problem, STATUS_USAGE, "-u %s: there is no group %s",
					   wish, group + 1);
		user->gid = found->gr_gid;
	}
	fill_group_name(user, image);
	return 0;
}

int guest_user_find(const char *wish, const char *image, const char *caller_home,
		    struct guest_user *ret_user, struct problem *problem)
{
	struct guest_user user = { 0 };
	int result = wish ? find_wished(wish, image, &user, problem)
			  : find_caller(image, caller_home, &user);

	if (result < 0) {
		guest_user_free(&user);
		return result;
	}
	*ret_user = user;
	return 0;
}
