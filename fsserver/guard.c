#include "fsserver/guard.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "fsserver/aliases.h"
#include "fsserver/tree_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define HINT_MAX (PATH_MAX * 4 + 64)

int guard_writable(const struct export *export)
{
	return export->config->read_only ? -EROFS : 0;
}

static int join(const char *parent, const char *name, char path[static PATH_MAX])
{
	int length = snprintf(path, PATH_MAX, "%s%s%s", parent, *parent ? "/" : "", name);

	return length < 0 || length >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int guard_place(struct export *export, const struct node *parent, const char *name,
		struct place *ret_place)
{
	struct stat stat;
	int error;

	if (fstat(parent->fd, &stat) < 0)
		return -errno;
	error = export_path_of(export, parent->fd, (uint32_t)stat.st_nlink, ret_place->parent);
	if (error)
		return error;
	return join(ret_place->parent, name, ret_place->path);
}

/* The flag that grants exactly this path: its glob characters escaped, the whole quoted for a
 * shell. */
static void write_hint(const char *path, char hint[static HINT_MAX])
{
	size_t length = (size_t)snprintf(hint, HINT_MAX, "--allow-write '");

	for (; *path && length < HINT_MAX - 8; path++) {
		if (strchr("*?[]\\{}", *path)) {
			hint[length++] = '\\';
			hint[length++] = *path;
		} else if (*path == '\'') {
			memcpy(hint + length, "'\\''", 4);
			length += 4;
		} else {
			hint[length++] = *path;
		}
	}
	hint[length++] = '\'';
	hint[length] = '\0';
}

static int deny(struct export *export, enum policy_access access, const char *operation,
		const char *path, const char *path2, const struct policy_verdict *verdict,
		const char *hint)
{
	char flag[HINT_MAX];

	if (!hint && verdict->final && !verdict->hidden) {
		hint = "no flag does; change that rule where it is written";
	} else if (!hint && !verdict->hidden) {
		write_hint(path2 ? path2 : path, flag);
		hint = flag;
	}
	report_denial(export->server->report, &(struct report_denial){
						      .operation = operation,
						      .export_name = export->config->name,
						      .path = path,
						      .path2 = path2,
						      .rule = verdict->rule,
						      .reason = verdict->reason,
						      .hint = hint,
					      });
	if (verdict->hidden)
		return -ENOENT;
	return access == POLICY_CHMOD ? -EPERM : -EACCES;
}

int guard_refuse(struct export *export, const char *operation, const char *path, const char *rule,
		 const char *reason, int error)
{
	report_denial(export->server->report, &(struct report_denial){
						      .operation = operation,
						      .export_name = export->config->name,
						      .path = path,
						      .rule = rule,
						      .reason = reason,
					      });
	return error;
}

int guard_path(struct export *export, enum policy_access access, const char *operation,
	       const char *path, mode_t mode)
{
	struct policy_verdict verdict = { 0 };

	policy_judge(export->policy, access, path, mode, &verdict);
	return verdict.allowed ? 0 : deny(export, access, operation, path, NULL, &verdict, NULL);
}

/* ---- embedded bare repositories ------------------------------------------------------------- */

/* Whether the directory holds what makes git take it for a repository. */
static bool shaped_like_git(int directory_fd)
{
	static const char *const marks[] = { "HEAD", "objects", "refs" };
	struct stat stat;

	for (size_t i = 0; i < ARRAY_LENGTH(marks); i++) {
		if (fstatat(directory_fd, marks[i], &stat, AT_SYMLINK_NOFOLLOW) < 0)
			return false;
	}
	return true;
}

/* Names through which a repository makes its user run something, in it or one level below. */
static bool matters_to_git(const char *name, bool *ret_below)
{
	static const char *const names[] = { "config", "config.worktree", "commondir", "hooks",
					     "modules" };

	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		if (strcasecmp(name, names[i]) == 0)
			return true;
	}
	*ret_below = true;
	return false;
}

/* Tells policy of a repository that the name is in, and says whether there was one. */
static bool found_bare_repository(struct export *export, const struct node *parent,
				  const char *name, const char *parent_path)
{
	const char *parent_name = strrchr(parent_path, '/');
	char above[PATH_MAX];
	cleanup_fd int fd = -1;
	bool below = false;
	size_t length;

	parent_name = parent_name ? parent_name + 1 : parent_path;
	if (strcasecmp(parent_name, ".git") == 0)
		return false;
	if (matters_to_git(name, &below)) {
		if (!shaped_like_git(parent->fd))
			return false;
		policy_bare_repository_found(export->policy, parent_path);
		export->policy_generation++;
		return true;
	}
	if (strcasecmp(parent_name, "hooks") != 0 && strcasecmp(parent_name, "info") != 0)
		return false;
	length = parent_name > parent_path ? (size_t)(parent_name - parent_path) - 1 : 0;
	memcpy(above, parent_path, length);
	above[length] = '\0';
	if (host_open_below(&export->scope, export->base_fd, above, &fd) || !shaped_like_git(fd))
		return false;
	policy_bare_repository_found(export->policy, above);
	export->policy_generation++;
	return true;
}

int guard_name(struct export *export, enum policy_access access, const char *operation,
	       const struct node *parent, const char *name, const struct place *place, mode_t mode)
{
	struct policy_verdict verdict = { 0 };

	policy_judge(export->policy, access, place->path, mode, &verdict);
	if (verdict.allowed && found_bare_repository(export, parent, name, place->parent))
		policy_judge(export->policy, access, place->path, mode, &verdict);
	return verdict.allowed ? 0
			       : deny(export, access, operation, place->path, NULL, &verdict, NULL);
}

int guard_arrival(struct export *export, const char *operation, const char *from,
		  const struct node *parent, const char *name, const struct place *place,
		  mode_t mode)
{
	enum policy_access access =
		S_ISDIR(mode) ? POLICY_RENAME_TARGET_DIRECTORY : POLICY_RENAME_TARGET;
	struct policy_verdict verdict = { 0 };

	policy_judge_moved(export->policy, access, from, place->path, "", mode, &verdict);
	if (verdict.allowed && found_bare_repository(export, parent, name, place->parent))
		policy_judge_moved(export->policy, access, from, place->path, "", mode, &verdict);
	return verdict.allowed ? 0
			       : deny(export, access, operation, place->path, NULL, &verdict, NULL);
}

/* ---- inodes --------------------------------------------------------------------------------- */

static int guard_identity(struct export *export, enum policy_access access, const char *operation,
			  const struct statx *stat, const char *path)
{
	struct policy_verdict verdict;
	int error = aliases_judge(export, stat, &verdict);

	if (error)
		return error;
	if (verdict.allowed)
		return 0;
	return deny(export, access, operation, path, NULL, &verdict,
		    export->config->file ? "outside: mount the directory that holds all its names"
					 : "inside: cp -p FILE FILE.new && mv FILE.new FILE, which "
					   "makes it a file of "
					   "its own");
}

static bool judged_before(const struct export *export, const struct handle *handle,
			  const char *path)
{
	return handle && handle->judged_path &&
	       handle->judged_generation == export->policy_generation &&
	       strcmp(handle->judged_path, path) == 0;
}

static void remember_verdict(const struct export *export, struct handle *handle, const char *path)
{
	if (!handle->judged_path || strcmp(handle->judged_path, path) != 0) {
		free(handle->judged_path);
		handle->judged_path = strdup(path);
	}
	handle->judged_generation = export->policy_generation;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* An existing file of a bare repository that nobody has looked at yet. */
static bool object_in_bare_repository(struct export *export, const char *path)
{
	const char *name = base_name(path);
	char parent_path[PATH_MAX];
	cleanup_fd int fd = -1;
	struct node parent;
	size_t length = name > path ? (size_t)(name - path) - 1 : 0;
	bool below;

	memcpy(parent_path, path, length);
	parent_path[length] = '\0';
	if (!matters_to_git(name, &below) && !strstr(parent_path, "hooks") &&
	    !strstr(parent_path, "info"))
		return false;
	if (host_open_below(&export->scope, export->base_fd, parent_path, &fd))
		return false;
	parent = (struct node){ .fd = fd };
	return found_bare_repository(export, &parent, name, parent_path);
}

int guard_object(struct export *export, enum policy_access access, const char *operation,
		 struct handle *handle, int fd, const struct statx *stat, mode_t mode,
		 char path[static PATH_MAX], const char **ret_path)
{
	int error = guard_writable(export);

	if (error)
		return error;
	error = export_path_of(export, fd, stat->stx_nlink, path);
	if (error && error != -ENOENT)
		return error;
	*ret_path = error ? NULL : path;
	if (S_ISREG(stat->stx_mode) && stat->stx_nlink > 1) {
		error = guard_identity(export, access, operation, stat,
				       *ret_path ? path : "(unlinked)");
		if (error)
			return error;
	}
	if (!*ret_path)
		return 0;
	if (access == POLICY_WRITE && judged_before(export, handle, path))
		return 0;
	error = guard_path(export, access, operation, path, mode);
	if (!error && object_in_bare_repository(export, path))
		error = guard_path(export, access, operation, path, mode);
	if (!error && handle && access == POLICY_WRITE)
		remember_verdict(export, handle, path);
	return error;
}

/* ---- moving directories --------------------------------------------------------------------- */

struct move {
	struct export *export;
	const char *operation;
	const char *old_path;
	const char *new_path;
	char from[PATH_MAX];
	char to[PATH_MAX];
};

static int judge_moved(const struct tree_entry *entry, void *context)
{
	struct move *move = context;
	struct export *export = move->export;
	struct policy_verdict verdict = { 0 };
	mode_t mode = (mode_t)DTTOIF(entry->type);
	enum policy_access arrival =
		entry->type == DT_DIR ? POLICY_RENAME_TARGET_DIRECTORY : POLICY_RENAME_TARGET;

	if (join(move->old_path, entry->path, move->from) ||
	    join(move->new_path, entry->path, move->to))
		return -ENAMETOOLONG;
	policy_judge(export->policy, POLICY_REMOVE, move->from, mode, &verdict);
	if (!verdict.allowed)
		return deny(export, POLICY_REMOVE, move->operation, move->old_path, move->from,
			    &verdict, NULL);
	policy_judge_moved(export->policy, arrival, move->old_path, move->new_path, entry->path,
			   mode, &verdict);
	if (!verdict.allowed)
		return deny(export, arrival, move->operation, move->old_path, move->to, &verdict,
			    NULL);
	return 0;
}

static int guard_pinned(struct export *export, const char *operation, const char *path)
{
	struct policy_verdict verdict = { 0 };

	if (!policy_pins(export->policy, path, &verdict))
		return 0;
	return deny(export, POLICY_REMOVE, operation, path, NULL, &verdict, NULL);
}

int guard_directory_move(struct export *export, const char *operation, int directory_fd,
			 const char *old_path, const char *new_path)
{
	cleanup_free struct move *move = NULL;
	cleanup_fd int fd = -1;
	int result = guard_pinned(export, operation, old_path);

	if (!result)
		result = guard_pinned(export, operation, new_path);
	if (!result)
		result = host_reopen(&export->scope, directory_fd, O_RDONLY, &fd);
	if (result)
		return result;
	move = malloc(sizeof(*move));
	if (!move)
		return -ENOMEM;
	move->export = export;
	move->operation = operation;
	move->old_path = old_path;
	move->new_path = new_path;
	result = tree_walk(fd, TREE_WALK_ENTRIES_MAX, judge_moved, move);
	if (result == -E2BIG)
		return guard_refuse(export, operation, old_path, "limit: size of a moved directory",
				    "The directory holds more than can be checked in one go; move "
				    "its parts.",
				    -EACCES);
	return result;
}

bool guard_hides(const struct export *export, const char *parent_path, const char *name)
{
	struct policy_verdict verdict = { 0 };
	char path[PATH_MAX];

	if (join(parent_path, name, path))
		return true;
	policy_judge(export->policy, POLICY_READ, path, 0, &verdict);
	return !verdict.allowed;
}
