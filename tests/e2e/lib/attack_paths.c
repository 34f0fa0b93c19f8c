/* Symlink races, special files, mounts and links that lead out. */
#include "tests/e2e/lib/attack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* With the jail in force, which by itself stops what leads out of the tree;
 * tests/unit/export_operations_test.c plays the same against the server's own care alone. */
#define RACE_ROUNDS 4000

/* ---- races ---------------------------------------------------------------------------------- */

struct swapper {
	const char *directory;
	const char *link;
	atomic_bool end;
	unsigned swaps;
};

/* The host end of the race: the name is a directory and a symlink to outside in turn. */
static void *swap(void *context)
{
	struct swapper *swapper = context;

	while (!atomic_load(&swapper->end)) {
		if (renameat2(AT_FDCWD, swapper->directory, AT_FDCWD, swapper->link,
			      RENAME_EXCHANGE) == 0)
			swapper->swaps++;
	}
	return NULL;
}

/* Looks for the secret below the name, and makes a file there, in one frame each. */
static unsigned race_once(struct attack *attack, unsigned round)
{
	struct fs_client *client = &attack->client;
	struct fs_parent parent = { .parent = FS_NODE_ROOT, .name_length = 4 };
	struct fs_make make = { .parent = FS_NODE_PREVIOUS, .mode = 0644, .flags = FS_O_WRITE };
	struct fs_io io = { .nodeid = FS_NODE_PREVIOUS, .size = 64 };
	struct fs_node node = { .nodeid = FS_NODE_PREVIOUS, .handle = FS_HANDLE_PREVIOUS };
	char name[16];
	unsigned leaks = 0;

	fs_add(client, FS_LOOKUP, &parent, sizeof(parent), "swap", 4, NULL, 0);
	parent = (struct fs_parent){ .parent = FS_NODE_PREVIOUS, .name_length = 6 };
	fs_add(client, FS_LOOKUP, &parent, sizeof(parent), "secret", 6, NULL, 0);
	fs_add(client, FS_READ, &io, sizeof(io), NULL, 0, NULL, 0);
	if (fs_call(client) == 0 && client->reply_count == 3 &&
	    memmem(client->replies[2].body, client->replies[2].length, "secret outside", 14))
		leaks++;
	parent = (struct fs_parent){ .parent = FS_NODE_ROOT, .name_length = 4 };
	fs_add(client, FS_LOOKUP, &parent, sizeof(parent), "swap", 4, NULL, 0);
	snprintf(name, sizeof(name), "made%u", round);
	make.name_length = (uint16_t)strlen(name);
	fs_add(client, FS_CREATE, &make, sizeof(make), name, strlen(name), NULL, 0);
	fs_add(client, FS_RELEASE, &node, sizeof(node), NULL, 0, NULL, 0);
	fs_call(client);
	return leaks;
}

void attack_races(struct attack *attack)
{
	char directory[512];
	char link[512];
	struct swapper swapper = { .directory = directory, .link = link };
	pthread_t thread;
	unsigned leaks = 0;
	uint64_t node;

	snprintf(directory, sizeof(directory), "%s/swap", attack->tree);
	snprintf(link, sizeof(link), "%s/other-name", attack->tree);
	ok(mkdir(directory, 0755) == 0 && symlink(attack->outside, link) == 0,
	   "a directory and a symlink to outside");
	put_file(in_tree(attack, "swap/secret"), "harmless");
	start(attack, "", "");
	pthread_create(&thread, NULL, swap, &swapper);
	for (unsigned round = 0; round < RACE_ROUNDS && !attack->client.ended; round++)
		leaks += race_once(attack, round);
	atomic_store(&swapper.end, true);
	pthread_join(thread, NULL);
	ok(leaks == 0 && outside_is_whole(attack),
	   "%u rounds against %u swaps of a directory for a symlink: %u leaks", RACE_ROUNDS,
	   swapper.swaps, leaks);
	/* A relative link that is harmless where it is made and leads out once it is moved up. */
	ok(fs_make(&attack->client, FS_SYMLINK, must_lookup(attack, FS_NODE_ROOT, "src"), "up", 0,
		   "../../outside/secret", NULL) == 0,
	   "a relative symlink");
	ok(fs_rename(&attack->client, must_lookup(attack, FS_NODE_ROOT, "src"), "up", FS_NODE_ROOT,
		     "up", 0) == 0,
	   "moved up");
	node = must_lookup(attack, FS_NODE_ROOT, "up");
	refused(fs_read(&attack->client, node, FS_HANDLE_NONE, 0, 64), ELOOP, EINVAL,
		"reading through it");
	stop(attack);
}

/* ---- special files -------------------------------------------------------------------------- */

static mode_t mode_in_tree(struct attack *attack, const char *path)
{
	struct stat stat = { 0 };

	lstat(in_tree(attack, path), &stat);
	return stat.st_mode;
}

void attack_special_files(struct attack *attack)
{
	static const char *const names[] = { "security.capability", "security.selinux", "trusted.x",
					     "system.posix_acl_access" };
	struct fs_client *client = &attack->client;
	struct fs_setattr set = { .valid = FS_SET_MODE, .mode = 06755 };
	uint64_t node;
	uint64_t handle;

	ok(mkfifo(in_tree(attack, "fifo"), 0666) == 0, "a FIFO of the host");
	start(attack, "", "");
	refused(fs_make(client, FS_MKNOD, 1, "null", S_IFCHR | 0666, NULL, NULL), EPERM, EPERM,
		"character device");
	refused(fs_make(client, FS_MKNOD, 1, "disk", S_IFBLK | 0666, NULL, NULL), EPERM, EPERM,
		"block device");
	node = must_lookup(attack, FS_NODE_ROOT, "fifo");
	refused(fs_open(client, node, FS_O_READ, &handle), ENXIO, ENXIO, "open a FIFO to read");
	refused(fs_open(client, node, FS_O_WRITE, &handle), ENXIO, ENXIO, "open a FIFO to write");
	refused(fs_read(client, node, FS_HANDLE_NONE, 0, 1), ENXIO, ENXIO, "read a FIFO");
	ok(fs_create(client, 1, "tool", 06755, FS_O_WRITE, &node, &handle) == 0 &&
		   !(mode_in_tree(attack, "tool") & 06000),
	   "setuid and setgid do not survive creation");
	set.nodeid = node;
	fs_setattr(client, &set);
	ok(!(mode_in_tree(attack, "tool") & 06000), "nor chmod");
	ok(fs_make(client, FS_MKDIR, 1, "folder", 06777, NULL, NULL) == 0 &&
		   !(mode_in_tree(attack, "folder") & 06000),
	   "nor mkdir");
	set = (struct fs_setattr){ .nodeid = node, .valid = FS_SET_UID, .uid = 4242 };
	refused(fs_setattr(client, &set), EPERM, EPERM, "chown to another user");
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		refused(fs_setxattr(client, node, names[i], "x", 1), ENOTSUP, ENOTSUP, "xattr %s",
			names[i]);
	ok(fs_setxattr(client, node, "user.fine", "x", 1) == 0, "xattr user.fine is taken");
	stop(attack);
}

/* ---- crossings ------------------------------------------------------------------------------ */

void attack_mounts(struct attack *attack)
{
	uint64_t node;

	start(attack, "", "");
	if (mkdir(in_tree(attack, "mounted"), 0755) ||
	    mount(attack->outside, in_tree(attack, "mounted"), NULL, MS_BIND, NULL)) {
		skip("bind mount inside the tree", "may not mount");
		stop(attack);
		return;
	}
	refused(fs_lookup(&attack->client, FS_NODE_ROOT, "mounted", &node), EACCES, EACCES,
		"lookup of a mount point");
	refused(fs_remove(&attack->client, FS_RMDIR, FS_NODE_ROOT, "mounted"), EXDEV, EACCES,
		"removal of a mount point");
	umount2(in_tree(attack, "mounted"), MNT_DETACH);
	stop(attack);
}

static void attack_links_out(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	struct fs_setattr set = { .valid = FS_SET_SIZE };
	uint64_t node = must_lookup(attack, FS_NODE_ROOT, "linked");
	uint64_t handle;

	refused(fs_open(client, node, FS_O_WRITE, &handle), EACCES, EACCES,
		"open to write a file with a name outside");
	refused(fs_open(client, node, FS_O_TRUNCATE, &handle), EACCES, EACCES,
		"open with truncation");
	set.nodeid = node;
	refused(fs_setattr(client, &set), EACCES, EACCES, "truncate it");
	set = (struct fs_setattr){ .nodeid = node, .valid = FS_SET_MODE, .mode = 0777 };
	refused(fs_setattr(client, &set), EPERM, EPERM, "chmod it");
	refused(fs_setxattr(client, node, "user.x", "x", 1), EACCES, EACCES, "xattr on it");
	ok(fs_make(client, FS_MKNOD, 1, "fresh", S_IFREG | 0644, NULL, NULL) == 0 &&
		   fs_rename(client, 1, "fresh", 1, "linked", 0) == 0,
	   "replacing it by a rename is fine");
}

void attack_crossings(struct attack *attack)
{
	static const char *const links[] = { "to-root", "to-proc", "to-secret" };
	struct fs_client *client = &attack->client;
	char secret[192];
	uint64_t node;
	uint64_t handle;

	snprintf(secret, sizeof(secret), "%s/secret", attack->outside);
	ok(symlink("/proc/self/root", in_tree(attack, "to-root")) == 0 &&
		   symlink("/proc/self/fd", in_tree(attack, "to-proc")) == 0 &&
		   symlink(secret, in_tree(attack, "to-secret")) == 0 &&
		   link(secret, in_tree(attack, "linked")) == 0,
	   "symlinks and a hard link that lead out");
	start(attack, "", "");
	for (size_t i = 0; i < 3; i++) {
		node = must_lookup(attack, FS_NODE_ROOT, links[i]);
		refused(fs_lookup(client, node, "etc", NULL), ENOTDIR, ENOTDIR, "lookup below %s",
			links[i]);
		refused(fs_open(client, node, FS_O_READ, &handle), ELOOP, ELOOP, "open %s",
			links[i]);
		refused(fs_create(client, 1, links[i], 0644, FS_O_WRITE, NULL, NULL), ELOOP, ELOOP,
			"create through %s", links[i]);
	}
	attack_links_out(attack);
	stop(attack);
}
