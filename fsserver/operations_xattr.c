/*
 * Extended attributes: user.* alone, on regular files and directories.
 *
 * The kernel has no call for them on an O_PATH descriptor, so that they are named through
 * /proc/self/fd, which is the working directory of a serving process (confine.h).
 */
#include "fsserver/operations_internal.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

static const char prefix[] = "user.";

static bool allowed_name(const char *name)
{
	return strncmp(name, prefix, sizeof(prefix) - 1) == 0;
}

static int xattr_node(struct job *job, const struct fs_request *request, struct node **ret_node)
{
	int error = job_node(job, request->xattr.nodeid, ret_node);

	if (error)
		return error;
	if (!allowed_name(request->name))
		return -ENOTSUP;
	return 0;
}

static bool carries_xattrs(const struct node *node)
{
	return node->type == S_IFREG || node->type == S_IFDIR;
}

int operation_getxattr(struct job *job, const struct fs_request *request)
{
	cleanup_free uint8_t *value = NULL;
	char name[HOST_FD_NAME_MAX];
	struct node *node;
	ssize_t length;
	void *reply;
	int error = xattr_node(job, request, &node);

	if (error)
		return error;
	if (!carries_xattrs(node))
		return -ENODATA;
	value = malloc(FS_XATTR_VALUE_MAX);
	if (!value)
		return -ENOMEM;
	length = getxattr(host_fd_name(node->fd, name), request->name, value, FS_XATTR_VALUE_MAX);
	if (length < 0)
		return -errno;
	error = job_budget(job, (uint32_t)length);
	if (error)
		return error;
	reply = job_reply(job, (size_t)length);
	if (!reply)
		return -ENOMEM;
	if (length)
		memcpy(reply, value, (size_t)length);
	return 0;
}

int operation_listxattr(struct job *job, const struct fs_request *request)
{
	cleanup_free char *names = NULL;
	char fd_name[HOST_FD_NAME_MAX];
	struct node *node;
	ssize_t length;
	int error = job_node(job, request->node.nodeid, &node);

	if (error || !carries_xattrs(node))
		return error;
	names = malloc(FS_XATTR_VALUE_MAX);
	if (!names)
		return -ENOMEM;
	length = listxattr(host_fd_name(node->fd, fd_name), names, FS_XATTR_VALUE_MAX);
	if (length < 0)
		return errno == ENOTSUP ? 0 : -errno;
	for (ssize_t at = 0; at < length;) {
		size_t name_length = strnlen(names + at, (size_t)(length - at)) + 1;

		if (at + (ssize_t)name_length > length)
			break;
		if (allowed_name(names + at)) {
			void *reply;

			error = job_budget(job, (uint32_t)name_length);
			if (error)
				return error;
			reply = job_reply(job, name_length);
			if (!reply)
				return -ENOMEM;
			memcpy(reply, names + at, name_length);
		}
		at += (ssize_t)name_length;
	}
	return 0;
}

/* What comes before a change and after it is the same for setting and removing. */
static int change(struct job *job, const struct fs_request *request, bool set)
{
	struct export *export = job->export;
	const char *operation = fs_opcode_name(request->opcode);
	char path_buffer[PATH_MAX];
	char fd_name[HOST_FD_NAME_MAX];
	const char *path;
	struct node *node;
	struct statx stat;
	struct stat now;
	int result;
	int error = xattr_node(job, request, &node);

	if (error)
		return error;
	if (!carries_xattrs(node))
		return -EPERM;
	error = host_stat(node->fd, &stat);
	if (!error)
		error = guard_object(export, POLICY_WRITE, operation, NULL, node->fd, &stat,
				     stat.stx_mode, path_buffer, &path);
	if (!error && export->undo)
		error = undo_will_set_attributes(export->undo, node->fd, operations_inode(&stat),
						 path);
	if (error)
		return error;
	host_fd_name(node->fd, fd_name);
	if (set) {
		int flags = request->xattr.flags & FS_XATTR_CREATE ? XATTR_CREATE : 0;

		if (request->xattr.flags & FS_XATTR_REPLACE)
			flags |= XATTR_REPLACE;
		result = setxattr(host_fd_name(node->fd, fd_name), request->name, request->data,
				  request->data_length, flags);
	} else {
		result = removexattr(host_fd_name(node->fd, fd_name), request->name);
	}
	if (result < 0)
		return -errno;
	if (host_stat(node->fd, &stat) == 0) {
		operations_told(node, &stat);
		if (export->undo) {
			host_stat_convert(&stat, &now);
			undo_did_change(export->undo, operations_inode(&stat), &now);
		}
	}
	operations_report(export, operation, path ? path : "(unlinked)", NULL, NULL);
	return 0;
}

int operation_setxattr(struct job *job, const struct fs_request *request)
{
	return change(job, request, true);
}

int operation_removexattr(struct job *job, const struct fs_request *request)
{
	return change(job, request, false);
}
