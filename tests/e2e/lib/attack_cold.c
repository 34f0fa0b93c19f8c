/*
 * More objects known to the guest than the server may have descriptors: those given up, and what
 * the host puts in their places meanwhile.
 */
#include "tests/e2e/lib/attack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES 400u
#define FEW_FILES 1700u /* about a hundred for nodes */

/* Knows so many objects that whatever else was known gives up its descriptor. */
static void freeze(struct attack *attack, uint64_t folder)
{
	uint64_t node;
	char name[32];
	unsigned found = 0;

	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		found += fs_lookup(&attack->client, folder, name, &node) == 0;
	}
	ok(found == NAMES, "%u lookups with a hundred descriptors", found);
}

static void expect(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "set-up failed: %s: %s\n", what, strerror(errno));
	exit(99);
}

static bool only_stale(struct attack *attack, uint64_t node)
{
	struct fs_client *client = &attack->client;
	struct fs_setattr set = { .nodeid = node, .valid = FS_SET_SIZE };
	struct fs_attr attr;
	uint64_t handle;

	return fs_getattr(client, node, &attr) == ESTALE &&
	       fs_read(client, node, FS_HANDLE_NONE, 0, 100) == ESTALE &&
	       fs_open(client, node, FS_O_READ, &handle) == ESTALE &&
	       fs_open(client, node, FS_O_WRITE | FS_O_TRUNCATE, &handle) == ESTALE &&
	       fs_link(client, node, FS_NODE_ROOT, "stolen") == ESTALE &&
	       fs_setattr(client, &set) == ESTALE;
}

/* The host puts other things in the place of what the server knows by its path alone. */
static void replace_cold(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	char outside[192];
	char moved[192];
	uint64_t many;
	uint64_t again;
	uint64_t secret;
	uint64_t file;
	uint64_t folder;

	mkdir(in_tree(attack, "many"), 0755);
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(moved, sizeof(moved), "many/n%u", i);
		put_file(in_tree(attack, moved), "n");
	}
	many = must_lookup(attack, FS_NODE_ROOT, "many");
	snprintf(outside, sizeof(outside), "%s/secret", attack->outside);
	snprintf(moved, sizeof(moved), "%s", in_tree(attack, "cold/moved"));
	mkdir(in_tree(attack, "cold"), 0755);
	mkdir(in_tree(attack, "cold/folder"), 0755);
	put_file(in_tree(attack, "cold/file"), "cold");
	put_file(in_tree(attack, "cold/folder/secret"), "inside");
	folder = must_lookup(attack, must_lookup(attack, FS_NODE_ROOT, "cold"), "folder");
	secret = must_lookup(attack, folder, "secret");
	file = must_lookup(attack, must_lookup(attack, FS_NODE_ROOT, "cold"), "file");
	freeze(attack, many);
	ok(fs_read(client, file, FS_HANDLE_NONE, 0, 100) == 0 && client->replies[0].length == 4,
	   "a cold file is read");
	freeze(attack, many);
	expect(rename(in_tree(attack, "cold/file"), moved) == 0, "rename");
	expect(symlink(outside, in_tree(attack, "cold/file")) == 0, "symlink");
	ok(only_stale(attack, file), "a cold file replaced by a symlink is stale");
	expect(unlink(in_tree(attack, "cold/file")) == 0, "unlink");
	expect(link(outside, in_tree(attack, "cold/file")) == 0, "link");
	ok(only_stale(attack, file), "replaced by a link to a file outside: stale");
	expect(unlink(in_tree(attack, "cold/file")) == 0, "unlink");
	put_file(in_tree(attack, "cold/file"), "cold");
	ok(only_stale(attack, file), "replaced by another file with the same content: stale");
	again = must_lookup(attack, must_lookup(attack, FS_NODE_ROOT, "cold"), "moved");
	ok(again == file && fs_read(client, file, FS_HANDLE_NONE, 0, 100) == 0,
	   "found under its new name it is the same node again");
	freeze(attack, many);
	snprintf(moved, sizeof(moved), "%s/taken", attack->base);
	expect(rename(in_tree(attack, "cold/folder"), moved) == 0, "rename");
	expect(symlink(attack->outside, in_tree(attack, "cold/folder")) == 0, "symlink");
	ok(only_stale(attack, secret), "a file below a directory that became a symlink is stale");
	refused(fs_lookup(client, folder, "secret", &again), ESTALE, ESTALE,
		"and so is the directory");
	ok(outside_is_whole(attack) && !exists(in_tree(attack, "stolen")),
	   "nothing outside was touched");
}

void attack_cold_nodes(struct attack *attack)
{
	fs_server_limit_files(FEW_FILES);
	start(attack, "", "");
	replace_cold(attack);
	stop(attack);
	fs_server_limit_files(0);
}
