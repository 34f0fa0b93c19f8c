#include "fsserver/aliases.h"

#include "base/cleanup.h"
#include "fsserver/export.h"
#include "fsserver/tree_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
/* The default one falls through its cases, which clang takes for a mistake. */
#define HASH_FUNCTION HASH_FNV
#include <uthash.h>

struct inode_key {
	uint64_t device;
	uint64_t ino;
};

struct alias {
	struct inode_key key;
	uint64_t names;	  /* known below the root */
	uint64_t scanned; /* names found by the scan under way */
	bool protected;
	UT_hash_handle hh;
};

struct aliases {
	struct alias *table;
	bool scanned;
	bool incomplete;
	time_t scanned_at;
};

int aliases_new(struct aliases **ret_aliases)
{
	*ret_aliases = calloc(1, sizeof(**ret_aliases));
	return *ret_aliases ? 0 : -ENOMEM;
}

void aliases_free(struct aliases *aliases)
{
	struct alias *alias;
	struct alias *next;

	if (!aliases)
		return;
	HASH_ITER(hh, aliases->table, alias, next)
	{
		HASH_DEL(aliases->table, alias);
		free(alias);
	}
	free(aliases);
}

static struct alias *find(struct aliases *aliases, const struct inode_key *key)
{
	struct alias *alias;

	/* The analyzer loses track of a structure that is hashed byte by byte. */
	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
	HASH_FIND(hh, aliases->table, key, sizeof(*key), alias);
	return alias;
}

static struct alias *find_or_add(struct aliases *aliases, const struct inode_key *key)
{
	struct alias *alias = find(aliases, key);

	if (alias)
		return alias;
	alias = calloc(1, sizeof(*alias));
	if (!alias)
		return NULL;
	alias->key = *key;
	HASH_ADD(hh, aliases->table, key, sizeof(*key), alias);
	return alias;
}

static struct inode_key key_of(const struct statx *stat)
{
	return (struct inode_key){ .device = host_stat_device(stat), .ino = stat->stx_ino };
}

static int scan_entry(const struct tree_entry *entry, void *context)
{
	struct export *export = context;
	struct policy_verdict verdict = { 0 };
	struct inode_key key;
	struct alias *alias;
	struct stat stat;

	if (entry->type != DT_REG)
		return 0;
	if (fstatat(entry->parent_fd, entry->name, &stat, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISREG(stat.st_mode) || stat.st_nlink < 2)
		return 0;
	key = (struct inode_key){ .device = stat.st_dev, .ino = stat.st_ino };
	alias = find_or_add(export->aliases, &key);
	if (!alias)
		return -ENOMEM;
	alias->scanned++;
	policy_judge(export->policy, POLICY_WRITE, entry->path, stat.st_mode, &verdict);
	if (!verdict.allowed)
		alias->protected = true;
	return 0;
}

static int scan(struct export *export)
{
	struct aliases *aliases = export->aliases;
	cleanup_fd int fd = -1;
	struct alias *alias;
	struct alias *next;
	struct timespec now;
	int result = host_reopen(&export->scope, export->root_fd, O_RDONLY, &fd);

	if (result)
		return result;
	HASH_ITER(hh, aliases->table, alias, next)
	{
		alias->scanned = 0;
	}
	result = tree_walk(fd, ALIASES_SCAN_MAX, scan_entry, export);
	HASH_ITER(hh, aliases->table, alias, next)
	{
		/* An unlinked name still counts when the undo store keeps the inode, so the count
		 * never falls. */
		if (alias->scanned > alias->names)
			alias->names = alias->scanned;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	aliases->scanned = true;
	aliases->scanned_at = now.tv_sec;
	/* A directory that cannot be read hides names; so does too large a tree. */
	aliases->incomplete = result != 0;
	return result == -ENOMEM ? result : 0;
}

static bool may_rescan(const struct aliases *aliases)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return !aliases->scanned || now.tv_sec - aliases->scanned_at >= ALIASES_RESCAN_S;
}

int aliases_judge(struct export *export, const struct statx *stat,
		  struct policy_verdict *ret_verdict)
{
	struct aliases *aliases = export->aliases;
	struct inode_key key = key_of(stat);
	struct alias *alias = find(aliases, &key);
	int error;

	/* Beside a single file nothing is looked at. */
	if (export->config->file) {
		*ret_verdict = (struct policy_verdict){
			.rule = "identity: hard link outside the export",
			.reason = "The file has another name, where a change would show too; mount "
				  "the directory that holds both.",
		};
		return 0;
	}
	if ((!alias || alias->names < stat->stx_nlink) && may_rescan(aliases)) {
		error = scan(export);
		if (error)
			return error;
		alias = find(aliases, &key);
	}
	*ret_verdict = (struct policy_verdict){ .allowed = true };
	if (alias && alias->protected) {
		*ret_verdict = (struct policy_verdict){
			.rule = "identity: hard link to a protected file",
			.reason = "The same file also stands at a protected path, and a change "
				  "through one name changes all.",
		};
	} else if (!alias || alias->names < stat->stx_nlink) {
		*ret_verdict = (struct policy_verdict){
			.rule = "identity: hard link outside the export",
			.reason = aliases->incomplete
					  ? "The file has other names, and not all of the export "
					    "could be searched for them."
					  : "The file has another name outside the export, where a "
					    "change would show too.",
		};
	}
	return 0;
}

void aliases_linked(struct export *export, const struct statx *before)
{
	struct inode_key key = key_of(before);
	struct alias *alias = find(export->aliases, &key);

	/* Of a file that had links already and was never asked about, nothing is known. */
	if (!alias && before->stx_nlink > 1)
		return;
	alias = find_or_add(export->aliases, &key);
	if (!alias)
		return;
	if (alias->names < 1 || before->stx_nlink <= 1)
		alias->names = before->stx_nlink;
	alias->names++;
}

void aliases_protected_found(struct export *export, const struct statx *stat)
{
	struct inode_key key = key_of(stat);
	struct alias *alias = find_or_add(export->aliases, &key);

	if (alias)
		alias->protected = true;
}
