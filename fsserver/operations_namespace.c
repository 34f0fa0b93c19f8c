/* Names: making, removing, renaming, linking. */
#include "fsserver/operations_internal.h"

#include "base/cleanup.h"
#include "fsserver/aliases.h"
#include "fsserver/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- making --------------------------------------------------------------------------------- */

static bool name_exists(const struct node *parent, const char *name)
{
	struct stat stat;

	return fstatat(parent->fd, name, &stat, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Room for what the change will need afterwards: it must not be made and then fail. */
static int check_room(struct job *job, bool handle)
{
	if (!node_table_has_room(job->export->nodes))
		return -ENFILE;
	return handle && !handle_table_has_room(&job->export->handles) ? -ENFILE : 0;
}

/* setuid and setgid never; the sticky bit on directories alone. */
static mode_t mode_of(const struct fs_request *request)
{
	mode_t mode = request->make.mode;

	if (request->opcode == FS_MKDIR)
		return S_IFDIR | (mode & 01777);
	if (request->opcode == FS_SYMLINK)
		return S_IFLNK | 0777;
	if (request->opcode == FS_MKNOD && (mode & S_IFMT))
		return mode & (S_IFMT | 0777);
	return S_IFREG | (mode & 0777);
}

static enum policy_access access_of(const struct fs_request *request)
{
	if (request->opcode == FS_MKDIR)
		return POLICY_CREATE_DIRECTORY;
	if (request->opcode == FS_SYMLINK)
		return POLICY_CREATE_SYMLINK;
	return S_ISREG(mode_of(request)) ? POLICY_CREATE_FILE : POLICY_CREATE_SPECIAL;
}

static int judge_make(struct job *job, const struct fs_request *request, struct node *parent,
		      struct place *place)
{
	struct export *export = job->export;
	const char *operation = fs_opcode_name(request->opcode);
	mode_t type = mode_of(request) & S_IFMT;
	int error = guard_writable(export);

	if (!error)
		error = guard_place(export, parent, request->name, place);
	if (error)
		return error;
	if (request->opcode == FS_MKNOD && type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
		return guard_refuse(export, operation, place->path, "type: device nodes",
				    "Device nodes are never made on the host.", -EPERM);
	/* CREATE has looked already, unless it must not exist. */
	if ((request->opcode != FS_CREATE || (request->make.flags & FS_O_EXCLUSIVE)) &&
	    name_exists(parent, request->name))
		return -EEXIST;
	return guard_name(export, access_of(request), operation, parent, request->name, place,
			  mode_of(request));
}

/* The system call itself. *ret_fd: the new file, open, where there is one. */
static int make(const struct fs_request *request, const struct node *parent, int *ret_fd)
{
	mode_t mode = mode_of(request);
	int result;

	if (request->opcode == FS_MKDIR)
		result = mkdirat(parent->fd, request->name, mode & 07777);
	else if (request->opcode == FS_SYMLINK)
		result = symlinkat(request->target, parent->fd, request->name);
	else if (S_ISREG(mode))
		return host_create_file(parent->fd, request->name, mode, ret_fd);
	else
		result = mknodat(parent->fd, request->name, mode, 0);
	return result < 0 ? -errno : 0;
}

/* What was made becomes a node. */
static int made_node(struct job *job, struct node *parent, const char *name, int open_fd,
		     struct statx *stat, struct node **ret_node)
{
	struct export *export = job->export;
	int fd = -1;
	int error;

	if (open_fd >= 0) {
		error = host_reopen(&export->scope, open_fd, O_PATH, &fd);
		if (!error)
			error = host_stat(fd, stat);
	} else {
		error = export_open_child(export, parent->fd, name, &fd, stat);
	}
	if (error) {
		if (fd >= 0)
			close(fd);
		return error;
	}
	return export_node(export, stat, fd, ret_node);
}

static void tell_made(struct job *job, const struct fs_request *request, const struct place *place,
		      const struct statx *stat, bool handle)
{
	struct export *export = job->export;
	mode_t mode = stat->stx_mode & 07777;
	struct stat made;

	if (export->undo) {
		host_stat_convert(stat, &made);
		undo_did_create(export->undo, &made);
	}
	if (request->opcode == FS_MKDIR || strcmp(request->name, ".git") == 0) {
		policy_directory_created(export->policy, place->path);
		export->policy_generation++;
	}
	/* A file that was made open is reported when it is released, with its content. */
	if (!handle)
		operations_report(
			export,
			S_ISREG(stat->stx_mode) ? "create" : fs_opcode_name(request->opcode),
			place->path, request->opcode == FS_SYMLINK ? request->target : NULL, &mode);
}

/* Makes the object with all that belongs to it. *ret_fd as of make(). */
static int make_object(struct job *job, const struct fs_request *request, struct node *parent,
		       struct node **ret_node, struct statx *ret_stat, int *ret_fd, bool handle)
{
	struct export *export = job->export;
	struct place place;
	int error = check_room(job, handle);

	if (!error)
		error = judge_make(job, request, parent, &place);
	if (error)
		return error;
	if (export->watch)
		watch_directory(export->watch, parent);
	if (export->undo)
		error = undo_will_create(export->undo, parent->fd, place.parent, request->name,
					 mode_of(request));
	if (error)
		return error;
	error = make(request, parent, ret_fd);
	if (error) {
		if (export->undo)
			undo_did_not_create(export->undo);
		return error;
	}
	error = made_node(job, parent, request->name, *ret_fd, ret_stat, ret_node);
	if (error) {
		/* It is there, but the host changed it under our hands. */
		if (export->undo)
			undo_did_not_create(export->undo);
		return error;
	}
	tell_made(job, request, &place, ret_stat, handle);
	return 0;
}

int operation_make(struct job *job, const struct fs_request *request)
{
	cleanup_fd int fd = -1;
	struct node *parent;
	struct node *node;
	struct statx stat;
	int error = job_directory(job, request->make.parent, &parent);

	if (!error)
		error = make_object(job, request, parent, &node, &stat, &fd, false);
	return error ? error : job_reply_entry(job, parent, node, &stat);
}

static int reply_created(struct job *job, struct node *parent, struct node *node,
			 const struct statx *stat, struct handle *handle, bool keep)
{
	int error = job_reply_entry(job, parent, node, stat);

	if (!error)
		error = operations_reply_open(job, handle, keep);
	if (!error) {
		node->content = node_stamp_of(stat);
		node->content_known = true;
	}
	return error;
}

static int open_existing(struct job *job, const struct fs_request *request, struct node *parent)
{
	struct export *export = job->export;
	struct handle *handle;
	struct node *node;
	struct statx stat;
	int fd;
	int error = export_open_child(export, parent->fd, request->name, &fd, &stat);

	if (!error)
		error = export_node(export, &stat, fd, &node);
	if (error)
		return error;
	node_reference(node);
	error = operations_open_handle(job, node, request->make.flags, &handle);
	if (!error)
		error = host_stat(handle->fd, &stat);
	if (!error)
		error = reply_created(job, parent, node, &stat, handle, false);
	node_unreference(export->nodes, node);
	return error;
}

static int add_new_handle(struct job *job, struct node *node, int fd, uint32_t flags,
			  struct handle **ret_handle)
{
	int error = handle_table_add(&job->export->handles, node, fd, ret_handle);

	if (error)
		return error;
	(*ret_handle)->readable = (flags & FS_O_READ) || !(flags & FS_O_WRITE);
	(*ret_handle)->writable = flags & FS_O_WRITE;
	(*ret_handle)->append = flags & FS_O_APPEND;
	(*ret_handle)->created = true;
	return 0;
}

int operation_create(struct job *job, const struct fs_request *request)
{
	uint32_t flags = request->make.flags;
	struct handle *handle;
	struct node *parent;
	struct node *node;
	struct statx stat;
	int fd = -1;
	int error = job_directory(job, request->make.parent, &parent);

	if (error)
		return error;
	if (!(flags & FS_O_EXCLUSIVE) && name_exists(parent, request->name))
		return open_existing(job, request, parent);
	error = make_object(job, request, parent, &node, &stat, &fd, true);
	if (error) {
		if (fd >= 0)
			close(fd);
		return error;
	}
	if (flags & (FS_O_SYNC | FS_O_DSYNC))
		fcntl(fd, F_SETFL, O_SYNC);
	error = add_new_handle(job, node, fd, flags, &handle);
	return error ? error : reply_created(job, parent, node, &stat, handle, true);
}

int operation_tmpfile(struct job *job, const struct fs_request *request)
{
	struct export *export = job->export;
	struct handle *handle;
	struct node *parent;
	struct node *node;
	struct statx stat;
	struct stat made;
	int fd = -1;
	int error = job_directory(job, request->make.parent, &parent);

	if (!error)
		error = guard_writable(export);
	if (!error)
		error = check_room(job, true);
	if (!error)
		error = host_create_unnamed(&export->scope, parent->fd, request->make.mode, &fd);
	if (error)
		return error;
	error = made_node(job, parent, "", fd, &stat, &node);
	if (error) {
		close(fd);
		return error;
	}
	if (export->undo) {
		host_stat_convert(&stat, &made);
		undo_did_create_unnamed(export->undo, &made);
	}
	error = add_new_handle(job, node, fd, request->make.flags, &handle);
	return error ? error : reply_created(job, NULL, node, &stat, handle, true);
}

/* ---- removing ------------------------------------------------------------------------------- */

static void tell_removed(struct export *export, struct node *parent, const char *name,
			 const struct place *place, const struct statx *stat)
{
	struct node *node = export_known_node(export, stat);
	struct statx now;
	bool directory = S_ISDIR(stat->stx_mode);

	if (export->watch)
		watch_expect_gone(export->watch, parent, name);
	/* Its link count and ctime moved by the guest's own doing. */
	if (node && host_stat(node->fd, &now) == 0)
		operations_told(node, &now);
	if (directory) {
		policy_directory_removed(export->policy, place->path);
		export->policy_generation++;
	}
	operations_report(export, directory ? "rmdir" : "unlink", place->path, NULL, NULL);
}

static int remove_name(struct job *job, const struct fs_request *request, bool directory)
{
	struct export *export = job->export;
	cleanup_fd int fd = -1;
	struct node *parent;
	struct place place;
	struct statx stat;
	int error = job_directory(job, request->parent.parent, &parent);

	if (!error)
		error = guard_writable(export);
	if (!error)
		error = guard_place(export, parent, request->name, &place);
	if (!error)
		error = export_open_child(export, parent->fd, request->name, &fd, &stat);
	if (error)
		return error;
	if (directory && !S_ISDIR(stat.stx_mode))
		return -ENOTDIR;
	if (!directory && S_ISDIR(stat.stx_mode))
		return -EISDIR;
	error = guard_name(export, POLICY_REMOVE, fs_opcode_name(request->opcode), parent,
			   request->name, &place, stat.stx_mode);
	if (error)
		return error;
	export_keep_warm(export, &stat, fd);
	if (export->undo)
		error = undo_remove(export->undo, parent->fd, place.parent, request->name, fd,
				    operations_inode(&stat), directory);
	else if (unlinkat(parent->fd, request->name, directory ? AT_REMOVEDIR : 0) < 0)
		error = -errno;
	if (error)
		return error;
	tell_removed(export, parent, request->name, &place, &stat);
	return 0;
}

int operation_unlink(struct job *job, const struct fs_request *request)
{
	return remove_name(job, request, false);
}

int operation_rmdir(struct job *job, const struct fs_request *request)
{
	return remove_name(job, request, true);
}

/* ---- linking -------------------------------------------------------------------------------- */

static int judge_link(struct export *export, struct node *node, struct node *parent,
		      const char *name, const struct statx *stat, struct place *place)
{
	char source[PATH_MAX];
	int error = guard_writable(export);

	if (!error)
		error = guard_place(export, parent, name, place);
	if (error)
		return error;
	if (S_ISDIR(stat->stx_mode))
		return -EPERM;
	if (name_exists(parent, name))
		return -EEXIST;
	error = export_path_of(export, node->fd, stat->stx_nlink, source);
	if (error && error != -ENOENT)
		return error;
	/* A file that was made without a name appears like a new one. */
	if (error)
		return guard_name(export, POLICY_CREATE_FILE, "link", parent, name, place,
				  stat->stx_mode);
	error = guard_path(export, POLICY_LINK_SOURCE, "link", source, stat->stx_mode);
	if (!error)
		error = guard_name(export, POLICY_LINK_TARGET, "link", parent, name, place,
				   stat->stx_mode);
	return error;
}

/* A file that came out of the undo store's graveyard must not be linked back into the tree. */
static bool unlinked_by_us(const struct export *export, const struct node *node)
{
	char path[PATH_MAX];
	size_t length = strlen(export->store_path);

	return export->store_fd >= 0 &&
	       host_path_of(&export->scope, node->fd, path, sizeof(path)) > 0 &&
	       strncmp(path, export->store_path, length) == 0 && path[length] == '/';
}

int operation_link(struct job *job, const struct fs_request *request)
{
	struct export *export = job->export;
	char fd_name[HOST_FD_NAME_MAX];
	struct place place;
	struct node *parent;
	struct node *node;
	struct statx before;
	struct statx stat;
	struct stat made;
	int error = job_node(job, request->link.nodeid, &node);

	if (!error)
		error = job_directory(job, request->link.new_parent, &parent);
	if (!error)
		error = host_stat(node->fd, &before);
	if (!error)
		error = judge_link(export, node, parent, request->name, &before, &place);
	if (!error && unlinked_by_us(export, node))
		error = -ENOENT;
	if (!error && export->undo)
		error = undo_will_link(export->undo, parent->fd, place.parent, request->name,
				       node->fd, operations_inode(&before));
	if (error)
		return error;
	if (linkat(export->scope.proc_fd, host_fd_name(node->fd, fd_name), parent->fd,
		   request->name, AT_SYMLINK_FOLLOW) < 0) {
		error = -errno;
		if (export->undo)
			undo_did_not_create(export->undo);
		return error;
	}
	if (S_ISREG(before.stx_mode))
		aliases_linked(export, &before);
	error = host_stat(node->fd, &stat);
	if (error)
		return error;
	if (export->undo) {
		host_stat_convert(&stat, &made);
		undo_did_create(export->undo, &made);
	}
	operations_report(export, "link", place.path, NULL, NULL);
	return job_reply_entry(job, parent, node, &stat);
}

/* ---- renaming ------------------------------------------------------------------------------- */

struct renaming {
	struct node *old_parent;
	struct node *new_parent;
	const char *old_name;
	const char *new_name;
	uint32_t flags; /* FS_RENAME_* */
	struct place old_place;
	struct place new_place;
	int source_fd;
	int target_fd; /* -1: nothing stands there */
	struct statx source;
	struct statx target;
};

static int find_both(struct export *export, struct renaming *renaming)
{
	int error =
		guard_place(export, renaming->old_parent, renaming->old_name, &renaming->old_place);

	if (!error)
		error = guard_place(export, renaming->new_parent, renaming->new_name,
				    &renaming->new_place);
	if (!error)
		error = export_open_child(export, renaming->old_parent->fd, renaming->old_name,
					  &renaming->source_fd, &renaming->source);
	if (error)
		return error;
	error = export_open_child(export, renaming->new_parent->fd, renaming->new_name,
				  &renaming->target_fd, &renaming->target);
	if (error == -ENOENT)
		error = renaming->flags & FS_RENAME_EXCHANGE ? -ENOENT : 0;
	else if (!error && (renaming->flags & FS_RENAME_NOREPLACE))
		error = -EEXIST;
	return error;
}

/* One object leaves `from` and comes to stand at `to`. */
static int judge_move(struct export *export, const struct node *from_parent, const char *from_name,
		      const struct place *from, const struct node *to_parent, const char *to_name,
		      const struct place *to, int fd, const struct statx *stat)
{
	bool directory = S_ISDIR(stat->stx_mode);
	int error = guard_name(export, POLICY_REMOVE, "rename", from_parent, from_name, from,
			       stat->stx_mode);

	if (!error)
		error = guard_arrival(export, "rename", from->path, to_parent, to_name, to,
				      stat->stx_mode);
	if (!error && directory)
		error = guard_directory_move(export, "rename", fd, from->path, to->path);
	return error;
}

static int judge_rename(struct export *export, const struct renaming *renaming)
{
	int error = judge_move(export, renaming->old_parent, renaming->old_name,
			       &renaming->old_place, renaming->new_parent, renaming->new_name,
			       &renaming->new_place, renaming->source_fd, &renaming->source);

	if (error || renaming->target_fd < 0)
		return error;
	if (renaming->flags & FS_RENAME_EXCHANGE)
		return judge_move(export, renaming->new_parent, renaming->new_name,
				  &renaming->new_place, renaming->old_parent, renaming->old_name,
				  &renaming->old_place, renaming->target_fd, &renaming->target);
	/* What stands there is removed by being replaced. */
	return guard_name(export, POLICY_REMOVE, "rename", renaming->new_parent, renaming->new_name,
			  &renaming->new_place, renaming->target.stx_mode);
}

static int carry_out(struct export *export, const struct renaming *renaming)
{
	unsigned flags = 0;

	if (renaming->flags & FS_RENAME_NOREPLACE)
		flags = RENAME_NOREPLACE;
	if (renaming->flags & FS_RENAME_EXCHANGE)
		flags = RENAME_EXCHANGE;
	if (!export->undo) {
		if (renameat2(renaming->old_parent->fd, renaming->old_name,
			      renaming->new_parent->fd, renaming->new_name, flags) < 0)
			return -errno;
		return 0;
	}
	return undo_rename(export->undo,
			   &(struct undo_rename){
				   .old_parent_fd = renaming->old_parent->fd,
				   .old_parent_path = renaming->old_place.parent,
				   .old_name = renaming->old_name,
				   .new_parent_fd = renaming->new_parent->fd,
				   .new_parent_path = renaming->new_place.parent,
				   .new_name = renaming->new_name,
				   .source_fd = renaming->source_fd,
				   .source = operations_inode(&renaming->source),
				   .target_fd = renaming->target_fd,
				   .target = renaming->target_fd >= 0
						     ? operations_inode(&renaming->target)
						     : (struct undo_inode){ 0 },
				   .flags = flags,
			   });
}

static void tell_object_moved(struct export *export, const struct statx *stat,
			      const struct node *parent)
{
	struct node *node = export_known_node(export, stat);
	struct statx now;

	if (!node)
		return;
	node->parent = parent->id;
	if (host_stat(node->fd, &now) == 0)
		operations_told(node, &now);
}

static void tell_renamed(struct export *export, const struct renaming *renaming)
{
	bool exchange = renaming->flags & FS_RENAME_EXCHANGE;

	tell_object_moved(export, &renaming->source, renaming->new_parent);
	if (renaming->target_fd >= 0)
		tell_object_moved(export, &renaming->target,
				  exchange ? renaming->old_parent : renaming->new_parent);
	if (export->watch) {
		watch_expect_gone(export->watch, renaming->old_parent, renaming->old_name);
		if (exchange)
			watch_expect_gone(export->watch, renaming->new_parent, renaming->new_name);
	}
	if (S_ISDIR(renaming->source.stx_mode) ||
	    (exchange && S_ISDIR(renaming->target.stx_mode))) {
		node_table_moved(export->nodes, renaming->old_place.path, renaming->new_place.path,
				 exchange);
		policy_directory_renamed(export->policy, renaming->old_place.path,
					 renaming->new_place.path);
		export->policy_generation++;
	}
	if (strcmp(renaming->new_name, ".git") == 0) {
		policy_directory_created(export->policy, renaming->new_place.path);
		export->policy_generation++;
	}
	operations_report(export, exchange ? "exchange" : "rename", renaming->old_place.path,
			  renaming->new_place.path, NULL);
}

int operation_rename(struct job *job, const struct fs_request *request)
{
	struct export *export = job->export;
	struct renaming renaming = {
		.old_name = request->name,
		.new_name = request->new_name,
		.flags = request->rename.flags,
		.source_fd = -1,
		.target_fd = -1,
	};
	int error = guard_writable(export);

	if (!error)
		error = job_directory(job, request->rename.parent, &renaming.old_parent);
	if (!error)
		error = job_directory(job, request->rename.new_parent, &renaming.new_parent);
	if (!error)
		error = find_both(export, &renaming);
	/* Two names of one file: rename(2) does nothing. */
	if (!error && renaming.target_fd >= 0 && !(renaming.flags & FS_RENAME_EXCHANGE) &&
	    renaming.source.stx_ino == renaming.target.stx_ino &&
	    host_stat_device(&renaming.source) == host_stat_device(&renaming.target))
		goto out;
	if (!error)
		error = judge_rename(export, &renaming);
	if (!error && export->watch)
		watch_directory(export->watch, renaming.new_parent);
	if (!error) {
		export_keep_warm(export, &renaming.source, renaming.source_fd);
		if (renaming.target_fd >= 0)
			export_keep_warm(export, &renaming.target, renaming.target_fd);
		error = carry_out(export, &renaming);
	}
	if (!error)
		tell_renamed(export, &renaming);
out:
	if (renaming.source_fd >= 0)
		close(renaming.source_fd);
	if (renaming.target_fd >= 0)
		close(renaming.target_fd);
	return error;
}
