#include "cli/session_files.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/remove_tree.h"
#include "wire/agent.h"
#include "wire/egress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 64
/* Every connection of the guest's; one that finds no room is refused. */
#define EGRESS_BACKLOG 4096
#define POLICY_MAX (256u * 1024u) /* as the file server's POLICY_FILE_MAX */

/* ---- sockets ---------------------------------------------------------------------------- */

static int listen_at(const char *base, unsigned port, int backlog, int *ret_fd,
		     struct problem *problem)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cleanup_free char *path = text_printf("%s_%u", base, port);
	mode_t old_mask;
	int result;

	if (fd < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot make a socket: %s",
				   strerror(errno));
	if (strlen(path) >= sizeof(address.sun_path))
		return problem_set(problem, STATUS_SANDBOX,
				   "%s is too long for a socket's name (%zu bytes at most): set "
				   "XDG_RUNTIME_DIR to a shorter directory",
				   path, sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path) + 1);
	old_mask = umask(0177);
	result = bind(fd, (const struct sockaddr *)&address, sizeof(address));
	umask(old_mask);
	if (result < 0 || listen(fd, backlog) < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot listen at %s: %s", path,
				   strerror(errno));
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int listen_for_guest(struct session_files *files, const struct plan *plan,
			    struct problem *problem)
{
	const struct {
		unsigned port;
		int backlog;
		int *fd;
	} sockets[] = {
		{ AGENT_CONTROL_PORT, LISTEN_BACKLOG, &files->control_listen },
		{ AGENT_STREAM_PORT, LISTEN_BACKLOG, &files->stream_listen },
		{ AGENT_FILES_PORT, LISTEN_BACKLOG, &files->files_listen },
		{ EGRESS_STREAM_PORT, EGRESS_BACKLOG, &files->egress_listen },
		{ EGRESS_DNS_PORT, LISTEN_BACKLOG, &files->dns_listen },
	};
	size_t count = ARRAY_LENGTH(sockets) - (plan->has_network ? 0 : 2);

	for (size_t i = 0; i < count; i++) {
		if (listen_at(files->socket_base, sockets[i].port, sockets[i].backlog,
			      sockets[i].fd, problem) < 0)
			return -1;
	}
	return 0;
}

int session_files_begin(struct session_files *files, const struct paths *paths,
			const struct plan *plan, struct problem *problem)
{
	const char *id = plan->id;
	cleanup_free char *sessions = text_printf("%s/sessions", paths->state);
	cleanup_fd int sessions_fd = -1;
	cleanup_fd int runtime_fd = open_private_directory(paths->runtime, problem);
	struct session_record self = { 0 };

	if (runtime_fd < 0)
		return -1;
	sessions_fd = open_private_directory(sessions, problem);
	if (sessions_fd < 0)
		return -1;
	files->directory = session_record_directory(paths, id);
	files->runtime = text_printf("%s/%s", paths->runtime, id);
	files->socket_base = text_printf("%s/v", files->runtime);
	files->config = text_printf("%s/exports.json", files->directory);
	if (mkdirat(sessions_fd, id, 0700) < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot make %s: %s", files->directory,
				   strerror(errno));
	if (mkdirat(runtime_fd, id, 0700) < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot make %s: %s", files->runtime,
				   strerror(errno));
	snprintf(self.id, sizeof(self.id), "%s", id);
	files->lock_fd = session_lock(paths, &self, problem);
	if (files->lock_fd < 0)
		return -1;
	return listen_for_guest(files, plan, problem);
}

/* ---- undo stores ------------------------------------------------------------------------ */

/* Makes and opens one component; never through a symlink. */
static int enter_directory(int parent_fd, const char *name)
{
	cleanup_fd int fd = -1;
	struct stat status;

	if (mkdirat(parent_fd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (status.st_uid != geteuid() || (status.st_mode & 077) != 0)
		return -EPERM;
	return steal_fd(&fd);
}

static int write_gitignore(int directory_fd)
{
	cleanup_fd int fd = openat(directory_fd, ".gitignore",
				   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno == EEXIST ? 0 : -errno;
	return write_full(fd, "*\n", 2);
}

/* HOST/.matchlock/undo/ID/N. The tree's own times are put back: that Matchlock keeps its store
 * there is no change of the person's. */
static int make_store_inside(const struct plan_export *export, const char *id)
{
	cleanup_free char *number = text_printf("%u", export->id);
	const char *components[] = { ".matchlock", "undo", id, number };
	cleanup_fd int root_fd = open(plan_export_tree(export), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct timespec times[2];
	struct stat status;
	int error = 0;
	int fd;

	if (root_fd < 0 || fstat(root_fd, &status) < 0)
		return -errno;
	fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 0);
	for (size_t i = 0; i < 4 && fd >= 0; i++) {
		int next = enter_directory(fd, components[i]);

		close(fd);
		if (next >= 0 && i == 0)
			error = write_gitignore(next);
		fd = next;
	}
	if (fd >= 0)
		close(fd);
	times[0] = status.st_atim;
	times[1] = status.st_mtim;
	if (futimens(root_fd, times) < 0 && error == 0)
		error = -errno;
	return fd < 0 ? fd : error;
}

static int make_store(const struct plan_export *export, const char *id, struct problem *problem)
{
	int error = export->store_inside ? make_store_inside(export, id)
					 : make_directories(export->store);

	if (error == -ELOOP || error == -ENOTDIR || error == -EPERM)
		return problem_set(problem, STATUS_SANDBOX,
				   "%s/.matchlock must be a directory of your own with mode 0700, "
				   "no symbolic link: remove it (the undo store is kept there)",
				   plan_export_tree(export));
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot make the undo store %s: %s",
				   export->store, strerror(-error));
	return 0;
}

/* ---- files of the session's directory --------------------------------------------------- */

static int write_file(const char *path, const void *data, size_t length, struct problem *problem)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int error = fd < 0 ? -errno : write_full(fd, data, length);

	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot write %s: %s", path,
				   strerror(-error));
	return 0;
}

static int copy_policy(struct session_files *files, const struct plan *plan,
		       struct problem *problem)
{
	cleanup_fd int fd = open(plan->policy, O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = NULL;
	size_t length = 0;
	int error = fd < 0 ? -errno : read_file(fd, POLICY_MAX, &text, &length);

	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot read the policy %s: %s",
				   plan->policy, strerror(-error));
	files->policy = text_printf("%s/policy.yaml", files->directory);
	return write_file(files->policy, text, length, problem);
}

/* For whoever asks later what was in force; its rules are in exports.json. */
static int keep_project(const struct session_files *files, const struct run_options *options,
			struct problem *problem)
{
	cleanup_free char *path = text_printf("%s/project.yaml", files->directory);

	return write_file(path, options->project_text, strlen(options->project_text), problem);
}

int session_files_complete(struct session_files *files, const struct plan *plan,
			   const struct run_options *options, const struct paths *paths,
			   struct problem *problem)
{
	cleanup_free char *text = NULL;
	json_t *json;

	if (plan->policy && copy_policy(files, plan, problem) < 0)
		return -1;
	if (options->project_text && keep_project(files, options, problem) < 0)
		return -1;
	for (size_t i = 0; i < plan->export_count; i++) {
		if (plan->exports[i].store && make_store(&plan->exports[i], plan->id, problem) < 0)
			return -1;
	}
	json = plan_exports_json(plan, options, paths, files->policy);
	text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	if (!text)
		return problem_set(problem, STATUS_SANDBOX,
				   "a directory's name is not UTF-8, and the file server's "
				   "configuration cannot hold it: rename it");
	return write_file(files->config, text, strlen(text), problem);
}

static void close_and_forget(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void session_files_release(struct session_files *files)
{
	if (files->runtime)
		remove_tree(files->runtime);
	close_and_forget(&files->control_listen);
	close_and_forget(&files->stream_listen);
	close_and_forget(&files->files_listen);
	close_and_forget(&files->egress_listen);
	close_and_forget(&files->dns_listen);
	close_and_forget(&files->lock_fd);
	free(files->directory);
	free(files->runtime);
	free(files->socket_base);
	free(files->config);
	free(files->policy);
	*files = (struct session_files)SESSION_FILES_INIT;
}

/* HOST/.matchlock, when nothing but our .gitignore is in it. HOST's own times are put back. */
static void remove_place_inside(const char *place)
{
	cleanup_free char *ignore = text_printf("%s/.gitignore", place);
	cleanup_free char *undo = text_printf("%s/undo", place);
	cleanup_free char *host = text_copy(place);
	struct timespec times[2];
	struct stat status;

	*strrchr(host, '/') = '\0';
	if (access(undo, F_OK) == 0 || stat(host, &status) < 0)
		return;
	unlink(ignore);
	if (rmdir(place) < 0)
		return;
	times[0] = status.st_atim;
	times[1] = status.st_mtim;
	/* Without them a time stamp is wrong, and nothing else. */
	if (utimensat(AT_FDCWD, host, times, 0) < 0)
		return;
}

/* The store STATE/undo/ID/N or HOST/.matchlock/undo/ID/N, and the directories above it that
 * Matchlock made, as far as they are empty now. */
static int remove_store(const char *store, struct problem *problem)
{
	cleanup_free char *path = text_copy(store);
	int error = remove_tree(path);
	char *slash;

	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot remove the undo store %s: %s",
				   store, strerror(-error));
	for (int level = 0; level < 2; level++) {
		slash = strrchr(path, '/');
		if (!slash || slash == path)
			return 0;
		*slash = '\0';
		/* STATE/undo stays: another session may be making its store in it just now. */
		if (level == 1 && !strstr(path, "/.matchlock/undo"))
			return 0;
		if (rmdir(path) < 0 && errno != ENOENT)
			return 0;
	}
	slash = strrchr(path, '/');
	if (slash && slash != path) {
		*slash = '\0';
		slash = strrchr(path, '/');
		if (slash && slash != path && strcmp(slash, "/.matchlock") == 0)
			remove_place_inside(path);
	}
	return 0;
}

int session_files_remove(const struct paths *paths, const struct session_record *record,
			 struct problem *problem)
{
	cleanup_free char *directory = session_record_directory(paths, record->id);
	cleanup_free char *runtime = text_printf("%s/%s", paths->runtime, record->id);
	int error;

	for (size_t i = 0; i < record->stores.count; i++) {
		if (remove_store(record->stores.items[i], problem) < 0)
			return -1;
	}
	remove_tree(runtime);
	error = remove_tree(directory);
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot remove %s: %s", directory,
				   strerror(-error));
	return 0;
}
