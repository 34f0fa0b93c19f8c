/* Floods against quotas; the undo log under fire. */
#include "tests/e2e/lib/attack.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FLOOD 200u

static void flood_nodes(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	uint64_t nodes[FLOOD];
	unsigned found = 0;
	int error = 0;
	char name[32];

	for (unsigned i = 0; i < FLOOD && !error; i++) {
		snprintf(name, sizeof(name), "flood%u", i);
		error = fs_lookup(client, FS_NODE_ROOT, name, &nodes[found]);
		found += error == 0;
	}
	refused(error, ENFILE, ENFILE, "node %u", found);
	refused(fs_create(client, 1, "one-more", 0644, FS_O_WRITE, NULL, NULL), ENFILE, ENFILE,
		"creating beyond the quota of nodes");
	ok(!exists(in_tree(attack, "one-more")), "and nothing was created");
	for (unsigned i = 0; i < found; i++)
		fs_forget(client, nodes[i], 1);
	ok(fs_lookup(client, FS_NODE_ROOT, "flood199", &nodes[0]) == 0,
	   "after forgetting there is room");
}

static void flood_handles(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	uint64_t node = must_lookup(attack, FS_NODE_ROOT, "readme");
	uint64_t handles[FLOOD];
	unsigned opened = 0;
	int error = 0;

	while (opened < FLOOD && !error) {
		error = fs_open(client, node, FS_O_READ, &handles[opened]);
		opened += error == 0;
	}
	refused(error, ENFILE, ENFILE, "handle %u", opened);
	for (unsigned i = 0; i < opened; i++)
		fs_release(client, node, handles[i]);
	ok(fs_open(client, node, FS_O_READ, &handles[0]) == 0, "after releasing there is room");
	fs_release(client, node, handles[0]);
}

static void flood_streams(struct attack *attack)
{
	struct fs_client clients[FS_STREAMS_MAX + 8];
	unsigned joined = 0;
	int error = 0;

	while (joined < FS_STREAMS_MAX + 8 && error == 0) {
		error = fs_join(&clients[joined], attack->server.socket, 1, FS_STREAM_REQUESTS);
		joined++;
	}
	ok(error == -1 && joined <= FS_STREAMS_MAX, "stream %u is turned away", joined + 1);
	for (unsigned i = 0; i < joined; i++)
		fs_leave(&clients[i]);
}

static void flood_store(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	static char block[65536];
	unsigned written = 0;
	char name[32];
	int error = 0;

	memset(block, 'z', sizeof(block));
	for (unsigned i = 0; i < FLOOD && !error; i++) {
		uint64_t node;
		uint64_t handle;

		snprintf(name, sizeof(name), "flood%u", i);
		if (fs_lookup(client, FS_NODE_ROOT, name, &node))
			break;
		error = fs_open(client, node, FS_O_WRITE, &handle);
		if (!error) {
			error = fs_write(client, node, handle, 0, block, sizeof(block));
			written += error == 0;
			fs_release(client, node, handle);
		}
		fs_forget(client, node, 1);
	}
	refused(error, ENOSPC, EDQUOT, "pre-images beyond the store's quota (after %u files)",
		written);
	snprintf(name, sizeof(name), "flood%u", written);
	{
		struct stat stat;

		ok(lstat(in_tree(attack, name), &stat) == 0 && stat.st_size == 20000,
		   "the file whose pre-image found no room is as it was");
	}
}

void attack_floods(struct attack *attack)
{
	static char content[20001];
	char name[32];

	memset(content, 'c', sizeof(content) - 1);
	for (unsigned i = 0; i < FLOOD; i++) {
		snprintf(name, sizeof(name), "flood%u", i);
		put_file(in_tree(attack, name), content);
	}
	start(attack, "",
	      ", \"quotas\": {\"nodes\": 64, \"handles\": 16, \"store_bytes\": 1000000}");
	flood_nodes(attack);
	flood_handles(attack);
	flood_streams(attack);
	flood_store(attack);
	stop(attack);
}

/* ---- undo ----------------------------------------------------------------------------------- */

static int run(const char *program, const char *first, const char *second, const char *third)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		dup2(null, STDOUT_FILENO);
		execlp(program, program, first, second, third, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int roll_back(struct attack *attack)
{
	return run(attack->program, "rollback", "--config", attack->server.config);
}

/* What a copy of the tree from before says of it now; names, contents, modes. */
static bool same_tree(struct attack *attack, const char *copy)
{
	return run("diff", "-r", copy, attack->tree) == 0;
}

static void make_copy(struct attack *attack, char copy[160])
{
	snprintf(copy, 160, "%s/copy", attack->base);
	run("cp", "-a", attack->tree, copy);
}

/* Changes of all kinds; as many as `steps` of them. */
static void vandalise(struct attack *attack, unsigned steps)
{
	struct fs_client *client = &attack->client;
	static char block[8192];
	uint64_t node;
	uint64_t handle;
	uint64_t folder;
	char name[32];

	memset(block, 'v', sizeof(block));
	for (unsigned step = 0; step < steps; step++) {
		snprintf(name, sizeof(name), "new%u", step / 8);
		switch (step % 8) {
		case 0:
			fs_make(client, FS_MKDIR, 1, name, 0755, NULL, NULL);
			break;
		case 1:
			if (fs_lookup(client, 1, name, &folder) == 0 &&
			    fs_create(client, folder, "file", 0644, FS_O_WRITE, &node, &handle) ==
				    0)
				fs_write(client, node, handle, 0, block, sizeof(block));
			break;
		case 2:
			if (fs_lookup(client, 1, "readme", &node) == 0 &&
			    fs_open(client, node,
				    step & 8 ? FS_O_WRITE | FS_O_TRUNCATE : FS_O_WRITE,
				    &handle) == 0)
				fs_write(client, node, handle, step * 10, block, sizeof(block));
			break;
		case 3:
			fs_rename(client, 1, "src", 1, "moved", 0);
			break;
		case 4:
			if (fs_lookup(client, 1, "moved", &folder) == 0) {
				fs_remove(client, FS_UNLINK, folder, "main.c");
				fs_make(client, FS_SYMLINK, folder, name, 0, "anywhere", NULL);
			}
			break;
		case 5:
			fs_remove(client, FS_RMDIR, 1, "empty");
			break;
		case 6:
			fs_rename(client, 1, "moved", 1, "src", 0);
			break;
		default:
			if (fs_lookup(client, 1, "readme", &node) == 0) {
				struct fs_setattr set = { .nodeid = node,
							  .valid = FS_SET_MODE,
							  .mode = 0600 };

				fs_setattr(client, &set);
			}
			break;
		}
	}
}

static void kill_and_roll_back(struct attack *attack, unsigned steps)
{
	char copy[160];
	int status;

	make_copy(attack, copy);
	start(attack, "", "");
	vandalise(attack, steps);
	fs_server_kill(&attack->server);
	fs_leave(&attack->client);
	status = roll_back(attack);
	/* 3: what was being written at that moment may be an edit of the host's, and is kept. */
	ok((status == 0 || status == 3) && same_tree(attack, copy),
	   "kill -9 after %u changes, roll-back (%d) restores the tree", steps, status);
	ok(roll_back(attack) == 0 && same_tree(attack, copy), "a second roll-back changes nothing");
	run("rm", "-rf", copy, NULL);
	run("rm", "-rf", attack->server.config, NULL);
	snprintf(copy, sizeof(copy), "%s/store", attack->base);
	run("rm", "-rf", copy, NULL);
}

/* A file system that fills up under the session. */
void attack_full_disk(struct attack *attack)
{
	static char block[65536];
	char saved_base[64];
	char copy[160];
	uint64_t node;
	uint64_t handle;
	int error = 0;
	int status;

	memcpy(saved_base, attack->base, sizeof(saved_base));
	snprintf(attack->base, sizeof(attack->base), "%.40s/small", saved_base);
	if (mkdir(attack->base, 0755) ||
	    mount("tmpfs", attack->base, "tmpfs", 0, "size=1m,nr_inodes=400")) {
		skip("a full disk", "may not mount");
		memcpy(attack->base, saved_base, sizeof(saved_base));
		return;
	}
	snprintf(copy, sizeof(copy), "%s/workspace", attack->base);
	run("cp", "-a", attack->tree, copy);
	snprintf(copy, sizeof(copy), "%s/other", attack->base);
	mkdir(copy, 0755);
	snprintf(attack->tree, sizeof(attack->tree), "%s/workspace", attack->base);
	snprintf(copy, sizeof(copy), "%s/copy", saved_base);
	run("cp", "-a", attack->tree, copy);
	memset(block, 'f', sizeof(block));
	start(attack, "", "");
	for (unsigned i = 0; i < 100 && !error; i++) {
		char name[32];

		snprintf(name, sizeof(name), "fill%u", i);
		error = fs_create(&attack->client, 1, name, 0644, FS_O_WRITE, &node, &handle);
		if (!error)
			error = fs_write(&attack->client, node, handle, 0, block, sizeof(block));
	}
	refused(error, ENOSPC, EDQUOT, "writing until the disk is full");
	vandalise(&(struct attack){ .client = attack->client }, 24);
	fs_server_kill(&attack->server);
	fs_leave(&attack->client);
	status = roll_back(attack);
	ok((status == 0 || status == 3) && same_tree(attack, copy),
	   "full disk, kill -9, roll-back (%d) restores the tree", status);
	run("rm", "-rf", copy, NULL);
	umount2(attack->base, MNT_DETACH);
	memcpy(attack->base, saved_base, sizeof(saved_base));
	snprintf(attack->tree, sizeof(attack->tree), "%.40s/workspace", attack->base);
}

/* The host edits what the guest has changed. */
static void edit_from_the_host(struct attack *attack)
{
	int status;

	start(attack, "", "");
	vandalise(attack, 3);
	stop(attack);
	put_file(in_tree(attack, "readme"), "the host's own words");
	put_file(in_tree(attack, "untouched-by-guest"), "host");
	status = roll_back(attack);
	ok(status == 3, "a file that both changed is a conflict (%d)", status);
	ok(file_is(in_tree(attack, "untouched-by-guest"), "host"),
	   "what the host alone made is left alone");
	ok(run("grep", "-rq", "the host's own words", attack->base) == 0 &&
		   run("grep", "-rqx", "readme", attack->base) == 0,
	   "both versions of the conflict exist");
}

void attack_undo(struct attack *attack)
{
	static const unsigned steps[] = { 1, 2, 3, 4, 5, 6, 7, 8, 23, 80 };

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
		kill_and_roll_back(attack, steps[i]);
	edit_from_the_host(attack);
}
