/* Looking up, attributes, and what concerns the file system as a whole. */
#include "fsserver/operations_internal.h"

#include "base/cleanup.h"
#include "fsserver/aliases.h"
#include "fsserver/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

static int reply_missing(struct job *job, struct node *parent)
{
	struct fs_entry *entry = job_reply(job, sizeof(*entry));

	if (!entry)
		return -ENOMEM;
	memset(entry, 0, sizeof(*entry));
	entry->entry_valid_ms = export_validity(job->export, parent);
	job_remember_node(job, NULL);
	return 0;
}

/* Hard links that the host made during the session come to notice here. */
static void note_protected_alias(struct export *export, const struct node *parent, const char *name,
				 const struct statx *stat)
{
	struct policy_verdict verdict = { 0 };
	struct place place;

	if (!S_ISREG(stat->stx_mode) || stat->stx_nlink < 2 || export->config->read_only)
		return;
	if (guard_place(export, parent, name, &place))
		return;
	policy_judge(export->policy, POLICY_WRITE, place.path, stat->stx_mode, &verdict);
	if (!verdict.allowed)
		aliases_protected_found(export, stat);
}

int operation_lookup(struct job *job, const struct fs_request *request)
{
	struct export *export = job->export;
	struct place place;
	struct node *parent;
	struct node *node;
	struct statx stat;
	int fd;
	int error = job_directory(job, request->parent.parent, &parent);

	if (error)
		return error;
	if (export->may_hide) {
		error = guard_place(export, parent, request->name, &place);
		if (error)
			return error;
		if (guard_hides(export, place.parent, request->name))
			return reply_missing(job, parent);
	}
	if (export->watch)
		watch_directory(export->watch, parent);
	error = export_open_child(export, parent->fd, request->name, &fd, &stat);
	if (error == -ENOENT)
		return reply_missing(job, parent);
	/* An image has its own /proc, /sys and /dev, made by the guest: the host's are not there.
	 */
	if (error == -EXDEV && export->config->cross_mounts)
		return reply_missing(job, parent);
	if (error == -EXDEV)
		return guard_refuse(export, "lookup", request->name, "mount: not crossed",
				    "Another file system is mounted there, and the export stays "
				    "on its own.",
				    -EACCES);
	if (error)
		return error;
	error = export_node(export, &stat, fd, &node);
	if (error)
		return error;
	note_protected_alias(export, parent, request->name, &stat);
	return job_reply_entry(job, parent, node, &stat);
}

int operation_forget(struct job *job, const struct fs_request *request)
{
	struct fs_forget_one one;

	for (uint32_t i = 0; i < request->forget.count; i++) {
		struct node *node;

		memcpy(&one, request->data + i * sizeof(one), sizeof(one));
		node = node_table_get(job->export->nodes, one.nodeid);
		if (!node || !node_forget(job->export->nodes, node, one.lookups))
			report_violation(job->export->server->report,
					 "guest forgot a node more often than it had looked it up");
	}
	return 0;
}

static int reply_attr(struct job *job, struct node *node, const struct statx *stat)
{
	struct fs_attr_reply *reply = job_reply(job, sizeof(*reply));
	struct fs_attr attr;

	if (!reply)
		return -ENOMEM;
	operations_told(node, stat);
	operations_attributes(job->export, stat, &attr);
	memset(reply, 0, sizeof(*reply));
	memcpy(&reply->attr, &attr, sizeof(attr));
	reply->attr_valid_ms = job_attr_validity(job, node, stat);
	return 0;
}

int operation_getattr(struct job *job, const struct fs_request *request)
{
	struct handle *handle;
	struct node *node;
	struct statx stat;
	int error = job_node(job, request->node.nodeid, &node);

	if (!error)
		error = job_handle(job, request->node.handle, node, &handle);
	if (!error)
		error = host_stat(node->fd, &stat);
	return error ? error : reply_attr(job, node, &stat);
}

/* ---- SETATTR -------------------------------------------------------------------------------- */

static bool own_group(const struct config *config, gid_t gid)
{
	for (size_t i = 0; i < config->group_count; i++) {
		if (config->groups[i] == gid)
			return true;
	}
	return gid == config->gid;
}

/* Ownership may become the session's own, or stay. */
static int check_owner(struct export *export, const struct fs_setattr *set,
		       const struct statx *stat)
{
	const struct config *config = export->server->config;

	if ((set->valid & FS_SET_UID) && set->uid != stat->stx_uid && set->uid != config->uid)
		return -EPERM;
	if ((set->valid & FS_SET_GID) && set->gid != stat->stx_gid && !own_group(config, set->gid))
		return -EPERM;
	return 0;
}

static int set_mode(struct export *export, struct node *node, mode_t mode)
{
	char name[HOST_FD_NAME_MAX];

	/* Through /proc/self/fd: fchmod does not take O_PATH. */
	if (fchmodat(export->scope.proc_fd, host_fd_name(node->fd, name), mode, 0) < 0)
		return -errno;
	return 0;
}

static int set_times(const struct node *node, const struct fs_setattr *set)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };

	if (set->valid & FS_SET_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	else if (set->valid & FS_SET_ATIME)
		times[0] =
			(struct timespec){ .tv_sec = set->atime_sec, .tv_nsec = set->atime_nsec };
	if (set->valid & FS_SET_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	else if (set->valid & FS_SET_MTIME)
		times[1] =
			(struct timespec){ .tv_sec = set->mtime_sec, .tv_nsec = set->mtime_nsec };
	return utimensat(node->fd, "", times, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int operations_truncate(struct job *job, struct node *node, struct handle *handle, int fd,
			const struct statx *stat, const char *path, uint64_t size)
{
	struct export *export = job->export;
	uint64_t from = size < stat->stx_size ? size : stat->stx_size;
	int error;

	if (size == stat->stx_size)
		return 0;
	if (handle)
		operations_hash_before(export, handle, stat);
	if (export->undo) {
		error = undo_will_write(export->undo, fd, operations_inode(stat), path, from,
					UINT64_MAX);
		if (error)
			return error;
	}
	if (ftruncate(fd, (off_t)size) < 0)
		return -errno;
	if (handle)
		operations_changed(export, handle);
	else
		operations_report(export, "truncate", path ? path : "(unlinked)", NULL, NULL);
	node->content_known = false;
	return 0;
}

static int set_size(struct job *job, struct node *node, struct handle *handle,
		    const struct fs_setattr *set, const struct statx *stat, const char *path)
{
	cleanup_fd int own = -1;
	int fd;

	if (node->type != S_IFREG)
		return node->type == S_IFDIR ? -EISDIR : -EINVAL;
	if (handle && handle->writable) {
		fd = handle->fd;
	} else {
		int error = host_reopen(&job->export->scope, node->fd, O_WRONLY, &own);

		if (error)
			return error;
		fd = own;
		handle = NULL;
	}
	return operations_truncate(job, node, handle, fd, stat, path, set->size);
}

static int set_attributes(struct job *job, struct node *node, const struct fs_setattr *set,
			  const struct statx *stat, const char *path)
{
	struct export *export = job->export;
	mode_t kept = node->type == S_IFDIR ? 01777 : 0777;
	mode_t mode = set->mode & kept;
	int error = 0;

	if (export->undo)
		error = undo_will_set_attributes(export->undo, node->fd, operations_inode(stat),
						 path);
	if (!error && (set->valid & (FS_SET_UID | FS_SET_GID)) &&
	    fchownat(node->fd, "", set->valid & FS_SET_UID ? set->uid : (uid_t)-1,
		     set->valid & FS_SET_GID ? set->gid : (gid_t)-1, AT_EMPTY_PATH) < 0)
		error = -errno;
	if (!error && (set->valid & FS_SET_MODE))
		error = set_mode(export, node, mode);
	if (!error &&
	    (set->valid & (FS_SET_ATIME | FS_SET_MTIME | FS_SET_ATIME_NOW | FS_SET_MTIME_NOW)))
		error = set_times(node, set);
	if (error)
		return error;
	/* Times alone are changed by every tar and make: the log has the write itself. */
	if (set->valid & FS_SET_MODE)
		operations_report(export, "chmod", path ? path : "(unlinked)", NULL, &mode);
	else if (set->valid & (FS_SET_UID | FS_SET_GID))
		operations_report(export, "chown", path ? path : "(unlinked)", NULL, NULL);
	return 0;
}

static int judge_setattr(struct job *job, struct node *node, struct handle *handle,
			 const struct fs_setattr *set, const struct statx *stat,
			 char path[static PATH_MAX], const char **ret_path)
{
	struct export *export = job->export;
	int error = 0;

	if (set->valid & (FS_SET_MODE | FS_SET_UID | FS_SET_GID)) {
		mode_t mode = set->valid & FS_SET_MODE ? set->mode & 0777 : stat->stx_mode & 07777;

		if (node->type == S_IFLNK && (set->valid & FS_SET_MODE))
			return -EPERM;
		error = guard_object(export, POLICY_CHMOD, "chmod", NULL, node->fd, stat,
				     node->type | mode, path, ret_path);
		if (!error)
			error = check_owner(export, set, stat);
	}
	if (!error && (set->valid & ~(FS_SET_MODE | FS_SET_UID | FS_SET_GID)))
		error = guard_object(export, POLICY_WRITE,
				     set->valid & FS_SET_SIZE ? "truncate" : "utimes", handle,
				     node->fd, stat, stat->stx_mode, path, ret_path);
	return error;
}

int operation_setattr(struct job *job, const struct fs_request *request)
{
	const struct fs_setattr *set = &request->setattr;
	struct export *export = job->export;
	char path_buffer[PATH_MAX];
	const char *path = NULL;
	struct handle *handle;
	struct node *node;
	struct statx stat;
	struct stat now;
	int error = job_node(job, set->nodeid, &node);

	if (!error)
		error = job_handle(job, set->handle, node, &handle);
	if (!error)
		error = guard_writable(export);
	if (!error)
		error = host_stat(node->fd, &stat);
	if (!error)
		error = judge_setattr(job, node, handle, set, &stat, path_buffer, &path);
	if (!error && (set->valid & FS_SET_SIZE))
		error = set_size(job, node, handle, set, &stat, path);
	if (!error && (set->valid & ~FS_SET_SIZE))
		error = set_attributes(job, node, set, &stat, path);
	if (error)
		return error;
	error = host_stat(node->fd, &stat);
	if (error)
		return error;
	if (export->undo && set->valid) {
		host_stat_convert(&stat, &now);
		undo_did_change(export->undo, operations_inode(&stat), &now);
	}
	return reply_attr(job, node, &stat);
}

/* ---- the rest ------------------------------------------------------------------------------- */

int operation_readlink(struct job *job, const struct fs_request *request)
{
	struct node *node;
	char target[FS_TARGET_MAX + 1];
	ssize_t length;
	void *reply;
	int error = job_node(job, request->node.nodeid, &node);

	if (error)
		return error;
	if (node->type != S_IFLNK)
		return -EINVAL;
	length = readlinkat(node->fd, "", target, sizeof(target));
	if (length < 0)
		return -errno;
	if ((size_t)length > FS_TARGET_MAX)
		return -ENAMETOOLONG;
	error = job_budget(job, (uint32_t)length);
	if (error)
		return error;
	reply = job_reply(job, (size_t)length);
	if (!reply)
		return -ENOMEM;
	memcpy(reply, target, (size_t)length);
	return 0;
}

int operation_statfs(struct job *job, const struct fs_request *request)
{
	struct fs_statfs reply;
	struct node *node;
	struct statfs info;
	void *place;
	int error = job_node(job, request->node.nodeid, &node);

	if (error)
		return error;
	if (fstatfs(node->fd, &info) < 0)
		return -errno;
	reply = (struct fs_statfs){
		.blocks = info.f_blocks,
		.blocks_free = info.f_bfree,
		.blocks_available = info.f_bavail,
		.files = info.f_files,
		.files_free = info.f_ffree,
		.block_size = (uint32_t)info.f_bsize,
		.name_max = FS_NAME_MAX,
	};
	place = job_reply(job, sizeof(reply));
	if (!place)
		return -ENOMEM;
	memcpy(place, &reply, sizeof(reply));
	return 0;
}

int operation_syncfs(struct job *job, const struct fs_request *request)
{
	struct export *export = job->export;
	struct node *node;
	int fd;
	int error = job_node(job, request->node.nodeid, &node);

	if (error || export->config->read_only)
		return error;
	if (export->undo)
		error = undo_sync(export->undo);
	if (!error)
		error = export_read_fd(export, export->root, &fd);
	if (error)
		return error;
	return syncfs(fd) < 0 ? -errno : 0;
}
