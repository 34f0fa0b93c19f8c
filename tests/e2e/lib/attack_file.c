/* An export that is one file: the guest asks for whatever else is in its directory. */
#include "tests/e2e/lib/attack.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const wanted_names[] = { "secret", "given", "new", ".", "..", "../outside" };

/* Everything that takes a directory and a name, with the file for a directory. The stricter
 * answer, EINVAL, is that the name is none. */
static void try_name(struct fs_client *client, const char *name)
{
	uint64_t node;
	uint64_t handle;
	int got[10];
	unsigned count = 0;
	bool good = true;

	got[count++] = fs_lookup(client, FS_NODE_ROOT, name, &node);
	got[count++] = fs_create(client, FS_NODE_ROOT, name, 0644, FS_O_WRITE, &node, &handle);
	got[count++] = fs_make(client, FS_MKDIR, FS_NODE_ROOT, name, 0755, NULL, &node);
	got[count++] = fs_make(client, FS_MKNOD, FS_NODE_ROOT, name, S_IFREG | 0644, NULL, &node);
	got[count++] = fs_make(client, FS_SYMLINK, FS_NODE_ROOT, name, 0, "/etc", &node);
	got[count++] = fs_remove(client, FS_UNLINK, FS_NODE_ROOT, name);
	got[count++] = fs_remove(client, FS_RMDIR, FS_NODE_ROOT, name);
	got[count++] = fs_link(client, FS_NODE_ROOT, FS_NODE_ROOT, name);
	got[count++] = fs_rename(client, FS_NODE_ROOT, "given", FS_NODE_ROOT, name, 0);
	got[count++] = fs_rename(client, FS_NODE_ROOT, name, FS_NODE_ROOT, "given", 0);
	for (unsigned i = 0; i < count; i++) {
		if (got[i] == ENOTDIR || got[i] == EINVAL || got[i] == EROFS)
			continue;
		good = false;
		printf("# operation %u: %s\n", i, got[i] > 0 ? strerror(got[i]) : "GRANTED");
	}
	ok(good, "single file: all that takes a name is refused: %s", name);
}

static void try_unnamed(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	struct fs_make make = { .parent = FS_NODE_ROOT, .mode = S_IFREG | 0644 };
	struct fs_node node = { .nodeid = FS_NODE_ROOT, .handle = FS_HANDLE_NONE };
	struct fs_readdir readdir = { .nodeid = FS_NODE_ROOT,
				      .handle = FS_HANDLE_NONE,
				      .size = 4096,
				      .flags = FS_READDIR_PLUS };
	struct fs_attr attr = { 0 };
	struct stat status = { 0 };
	unsigned known = 0;

	fs_add(client, FS_READDIR, &readdir, sizeof(readdir), NULL, 0, NULL, 0);
	refused(fs_call(client), ENOTDIR, ENOTDIR, "single file: listing it");
	fs_add(client, FS_OPENDIR, &node, sizeof(node), NULL, 0, NULL, 0);
	refused(fs_call(client), ENOTDIR, ENOTDIR, "single file: opening it as a directory");
	fs_add(client, FS_TMPFILE, &make, sizeof(make), NULL, 0, NULL, 0);
	refused(fs_call(client), ENOTDIR, EROFS, "single file: a file without a name");
	for (uint64_t id = 2; id < 64; id++)
		known += fs_getattr(client, id, &attr) != ESTALE;
	ok(known == 0, "single file: there are no other nodes");
	ok(stat(in_tree(attack, "given"), &status) == 0 &&
		   fs_getattr(client, FS_NODE_ROOT, &attr) == 0 && attr.ino == status.st_ino &&
		   S_ISREG(attr.mode),
	   "single file: the root is the file");
}

/* A server of the file alone; its directory holds a secret. */
static void serve(struct attack *attack, const char *extra)
{
	char text[1024];

	snprintf(text, sizeof(text),
		 "{\"session\": \"attack\", \"uid\": %u, \"gid\": %u, \"exports\": [{\"id\": 1, "
		 "\"name\": \"mount\", \"path\": \"%s\", \"file\": \"given\", \"profile\": "
		 "\"mount\"%s}]}",
		 getuid(), getgid(), attack->tree, extra);
	fs_server_start(&attack->server, attack->program, attack->base, "attack", text);
	ok(fs_join(&attack->client, attack->server.socket, 1, FS_STREAM_REQUESTS) == 0,
	   "single file: it is served");
	for (size_t i = 0; i < sizeof(wanted_names) / sizeof(*wanted_names); i++)
		try_name(&attack->client, wanted_names[i]);
	try_unnamed(attack);
}

static bool siblings_are_whole(struct attack *attack)
{
	return file_is(in_tree(attack, "secret"), SECRET) && !exists(in_tree(attack, "new")) &&
	       exists(in_tree(attack, "given")) && file_is(in_tree(attack, "readme"), "readme");
}

static void attack_read_only(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	struct fs_setattr set = { .nodeid = FS_NODE_ROOT,
				  .handle = FS_HANDLE_NONE,
				  .valid = FS_SET_SIZE };
	uint64_t handle = 0;

	serve(attack, ", \"read_only\": true");
	ok(fs_read(client, FS_NODE_ROOT, FS_HANDLE_NONE, 0, 100) == 0,
	   "single file: reading it is allowed");
	refused(fs_open(client, FS_NODE_ROOT, FS_O_WRITE, &handle), EROFS, EROFS,
		"single file: opening it for writing, read-only");
	refused(fs_setattr(client, &set), EROFS, EROFS, "single file: truncating it, read-only");
	ok(siblings_are_whole(attack) && file_is(in_tree(attack, "given"), "given"),
	   "single file: nothing changed, read-only");
	stop(attack);
}

static void attack_writable(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	char extra[192];
	uint64_t handle = 0;

	snprintf(extra, sizeof(extra), ", \"undo_store\": \"%s/store\"", attack->base);
	serve(attack, extra);
	ok(fs_open(client, FS_NODE_ROOT, FS_O_WRITE, &handle) == 0 &&
		   fs_write(client, FS_NODE_ROOT, handle, 0, "GIVEN", 5) == 0 &&
		   file_is(in_tree(attack, "given"), "GIVEN"),
	   "single file: writing it in place is allowed");
	/* What the guest holds is judged by where the host moved it. */
	ok(rename(in_tree(attack, "given"), in_tree(attack, ".bashrc")) == 0,
	   "single file: the host gives it a protected name");
	refused(fs_write(client, FS_NODE_ROOT, handle, 0, "x", 1), EACCES, EACCES,
		"single file: writing to the protected name");
	ok(rename(in_tree(attack, ".bashrc"), in_tree(attack, "given")) == 0 &&
		   link(in_tree(attack, "given"), in_tree(attack, "other")) == 0,
	   "single file: the host gives it a second name");
	refused(fs_write(client, FS_NODE_ROOT, handle, 0, "x", 1), EACCES, EACCES,
		"single file: writing to one of two names");
	unlink(in_tree(attack, "other"));
	ok(siblings_are_whole(attack) && file_is(in_tree(attack, "given"), "GIVEN"),
	   "single file: nothing else changed");
	stop(attack);
}

void attack_single_file(struct attack *attack)
{
	put_file(in_tree(attack, "given"), "given");
	put_file(in_tree(attack, "secret"), SECRET);
	attack_read_only(attack);
	attack_writable(attack);
}
