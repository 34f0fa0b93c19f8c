/* Every way round a denied path. */
#include "tests/e2e/lib/attack.h"

#include "wire/audit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Names that are, or that some host would take for, protected ones. */
static void attack_spellings(struct attack *attack)
{
	static const char *const names[] = {
		".bashrc",	".BASHRC",
		".bashrc.",	".bashrc ",
		".envrc",	".EnvRc",
		".gitmodules",	".gitmodules::$DATA",
		".mcp.json",	".mcp\xe2\x80\x8c.json",
		".cursorrules", "\xef\xbb\xbf.envrc",
	};
	struct fs_client *client = &attack->client;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		refused(fs_create(client, 1, names[i], 0644, FS_O_WRITE, NULL, NULL), EACCES,
			EACCES, "create protected spelling %zu", i);
		refused(fs_rename(client, 1, "readme", 1, names[i], 0), EACCES, EACCES,
			"rename onto protected spelling %zu", i);
	}
	refused(fs_make(client, FS_SYMLINK, 1, ".vscode", 0, "src", NULL), EACCES, EACCES,
		"a symlink in the place of a protected directory");
	refused(fs_make(client, FS_SYMLINK, 1, ".envrc", 0, "readme", NULL), EACCES, EACCES,
		"a symlink in the place of a protected file");
	refused(fs_make(client, FS_MKNOD, 1, ".envrc", S_IFIFO | 0644, NULL, NULL), EACCES, EACCES,
		"a FIFO in the place of a protected file");
}

static void attack_git(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	uint64_t git = must_lookup(attack, FS_NODE_ROOT, ".git");
	uint64_t hooks = must_lookup(attack, git, "hooks");
	uint64_t config = must_lookup(attack, git, "config");
	uint64_t readme = must_lookup(attack, FS_NODE_ROOT, "readme");
	uint64_t handle;
	struct fs_setattr set = { .nodeid = config, .valid = FS_SET_SIZE };
	struct fs_make tmpfile = { .parent = hooks, .mode = 0755, .flags = FS_O_WRITE };
	uint64_t unnamed = 0;

	refused(fs_create(client, hooks, "post-commit", 0755, FS_O_WRITE, NULL, NULL), EACCES,
		EACCES, "create a hook");
	refused(fs_open(client, config, FS_O_WRITE, &handle), EACCES, EACCES, "write .git/config");
	refused(fs_open(client, config, FS_O_READ | FS_O_TRUNCATE, &handle), EACCES, EACCES,
		"O_RDONLY|O_TRUNC of .git/config");
	refused(fs_create(client, git, "config", 0644, FS_O_WRITE | FS_O_TRUNCATE, NULL, NULL),
		EACCES, EACCES, "create over .git/config");
	refused(fs_setattr(client, &set), EACCES, EACCES, "truncate .git/config");
	set = (struct fs_setattr){ .nodeid = config, .valid = FS_SET_MODE, .mode = 0777 };
	refused(fs_setattr(client, &set), EPERM, EPERM, "chmod .git/config");
	refused(fs_setxattr(client, config, "user.x", "x", 1), EACCES, EACCES,
		"xattr on .git/config");
	refused(fs_remove(client, FS_UNLINK, git, "config"), EACCES, EACCES, "unlink .git/config");
	refused(fs_rename(client, 1, "readme", git, "config", 0), EACCES, EACCES,
		"rename onto .git/config");
	refused(fs_rename(client, git, "config", 1, "mine", 0), EACCES, EACCES,
		"rename .git/config away");
	refused(fs_rename(client, 1, "readme", git, "config", FS_RENAME_EXCHANGE), EACCES, EACCES,
		"exchange with .git/config");
	refused(fs_rename(client, 1, ".git", 1, "git", 0), EACCES, EACCES, "rename .git away");
	refused(fs_rename(client, 1, ".git", 1, "empty", FS_RENAME_EXCHANGE), EACCES, EACCES,
		"exchange .git");
	refused(fs_rename(client, git, "hooks", 1, "h", 0), EACCES, EACCES, "rename hooks away");
	refused(fs_rename(client, 1, "empty", git, "hooks", 0), EACCES, EACCES,
		"rename a directory onto hooks");
	refused(fs_link(client, config, 1, "alias"), EACCES, EACCES, "link .git/config elsewhere");
	refused(fs_link(client, readme, hooks, "post-commit"), EACCES, EACCES, "link in a hook");
	/* A file made without a name, linked into place. */
	fs_add(client, FS_TMPFILE, &tmpfile, sizeof(tmpfile), NULL, 0, NULL, 0);
	if (fs_call(client) == 0) {
		struct fs_entry entry;

		memcpy(&entry, client->replies[0].body, sizeof(entry));
		unnamed = entry.nodeid;
		refused(fs_link(client, unnamed, hooks, "post-commit"), EACCES, EACCES,
			"link in an unnamed file");
	}
	ok(file_is(in_tree(attack, ".git/config"), ".git/config") &&
		   !exists(in_tree(attack, ".git/hooks/post-commit")),
	   "config and hooks are as they were");
}

/* A tree that is harmless where it is built and a set of hooks where it is moved. */
static void attack_moved_tree(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	uint64_t folder;
	uint64_t handle;
	uint64_t node;

	ok(fs_make(client, FS_MKDIR, 1, "workflows-to-be", 0755, NULL, &folder) == 0 &&
		   fs_create(client, folder, "ci.yml", 0644, FS_O_WRITE, &node, &handle) == 0,
	   "build a directory of workflows");
	ok(fs_make(client, FS_MKDIR, 1, ".github", 0755, NULL, &node) == 0, "and .github");
	refused(fs_rename(client, 1, "workflows-to-be", node, "workflows", 0), EACCES, EACCES,
		"move it to .github/workflows");
	ok(fs_make(client, FS_MKDIR, folder, "workflows", 0755, NULL, &folder) == 0 &&
		   fs_create(client, folder, "ci.yml", 0644, FS_O_WRITE, &node, &handle) == 0,
	   "one level deeper");
	refused(fs_rename(client, 1, "workflows-to-be", 1, ".GitHub", FS_RENAME_EXCHANGE), EACCES,
		ENOENT, "move its parent to .GitHub");
	fs_remove(client, FS_RMDIR, 1, ".github");
	refused(fs_rename(client, 1, "workflows-to-be", 1, ".github", 0), EACCES, EACCES,
		"move its parent to .github");
	/* Only what the directory holds is protected. */
	put_file(in_tree(attack, "src/deep/.envrc"), "of the host");
	refused(fs_rename(client, 1, "src", 1, "source", 0), EACCES, EACCES,
		"rename a directory that holds a protected file");
	refused(fs_rename(client, 1, "src", 1, "empty", FS_RENAME_EXCHANGE), EACCES, EACCES,
		"exchange it");
	/* A handle opened while the file was harmless. */
	refused(fs_rename(client, folder, "ci.yml", 1, ".envrc", 0), EACCES, EACCES,
		"carry an open file to a protected name");
}

/* A hard link that the host made to a protected file. */
static void attack_alias(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	uint64_t node = must_lookup(attack, FS_NODE_ROOT, "alias-of-config");
	uint64_t handle = 0;
	uint64_t source;
	struct fs_copy_range copy = { .length = 4 };
	struct fs_fallocate fallocate = { .nodeid = node, .length = 4096 };

	refused(fs_open(client, node, FS_O_WRITE, &handle), EACCES, EACCES,
		"write through an alias of .git/config");
	refused(fs_write(client, node, handle, 0, "x", 1), EBADF, EBADF,
		"WRITE without an open handle");
	fs_add(client, FS_FALLOCATE, &fallocate, sizeof(fallocate), NULL, 0, NULL, 0);
	refused(fs_call(client), EBADF, EACCES, "fallocate on it");
	source = must_lookup(attack, FS_NODE_ROOT, "readme");
	copy.source_nodeid = source;
	copy.target_nodeid = node;
	fs_add(client, FS_COPY_RANGE, &copy, sizeof(copy), NULL, 0, NULL, 0);
	refused(fs_call(client), EBADF, EACCES, "copy_file_range into it");
	ok(file_is(in_tree(attack, ".git/config"), ".git/config"), ".git/config is whole");
	(void)source;
}

/* An alias that comes to be while the guest holds a handle for writing. */
static void attack_late_alias(struct attack *attack)
{
	struct fs_client *client = &attack->client;
	uint64_t node;
	uint64_t handle;

	ok(fs_create(client, 1, "open-early", 0644, FS_O_WRITE, &node, &handle) == 0 &&
		   fs_write(client, node, handle, 0, "a", 1) == 0,
	   "a handle on an ordinary file");
	ok(rename(in_tree(attack, "open-early"), in_tree(attack, ".envrc")) == 0,
	   "the host moves the file to a protected name");
	refused(fs_write(client, node, handle, 0, "b", 1), EACCES, EACCES,
		"writing through the handle opened before");
	ok(file_is(in_tree(attack, ".envrc"), "a"), "the protected file is whole");
	unlink(in_tree(attack, ".envrc"));
}

void attack_denied_paths(struct attack *attack)
{
	ok(link(in_tree(attack, ".git/config"), in_tree(attack, "alias-of-config")) == 0,
	   "the host has an alias of .git/config");
	start(attack, "", "");
	attack_spellings(attack);
	attack_git(attack);
	attack_moved_tree(attack);
	attack_alias(attack);
	attack_late_alias(attack);
	ok(fs_server_tells(&attack->server, AUDIT_DENIAL, "--allow-write", 10),
	   "the denials are in the audit log with what would grant them");
	stop(attack);
}
