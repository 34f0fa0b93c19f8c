#include "guest-init/file_daemon.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "guest-fused/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* This program's own file, in which guest-fused is too. */
#define PROGRAM "/init"
#define STAGING "/exports"
/* Name, port, ready descriptor, window, and two for each export. */
#define ARGUMENTS_MAX (1 + 2 + 2 + 2 + 2 * AGENT_MOUNTS_MAX + 1)
#define EXPORT_TEXT_MAX 64

void file_daemon_staging_path(size_t index, char *ret_path)
{
	snprintf(ret_path, 32, STAGING "/%zu", index);
}

static bool is_export(const struct agent_mount *mount)
{
	return mount->kind == AGENT_MOUNT_IMAGE || mount->kind == AGENT_MOUNT_EXPORT;
}

static int make_staging(const struct agent_config *config, struct failure *failure)
{
	if (mkdir(STAGING, 0700) < 0 && errno != EEXIST)
		return failure_set(failure, "exports", errno, "cannot create " STAGING);
	for (size_t i = 0; i < config->mount_count; i++) {
		const struct agent_mount *mount = &config->mounts[i];
		char path[32];
		int result;

		if (!is_export(mount))
			continue;
		file_daemon_staging_path(i, path);
		if (mount->flags & AGENT_MOUNT_FILE)
			result = mknod(path, S_IFREG | 0600, 0);
		else
			result = mkdir(path, 0700);
		if (result < 0 && errno != EEXIST)
			return failure_set(failure, "exports", errno, "cannot create %s", path);
	}
	return 0;
}

/* Runs in the child. `texts` holds one block of EXPORT_TEXT_MAX for each mount. */
static _Noreturn void become_daemon(const struct agent_config *config, int ready_fd, char *texts)
{
	const char *arguments[ARGUMENTS_MAX];
	size_t count = 0;
	char port[16];
	char descriptor[16];
	char window[64];
	const char *window_place = getenv(AGENT_WINDOW_VARIABLE);
	sigset_t none;
	int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (oom >= 0) {
		/* Best effort: /proc may not be mounted yet. */
		(void)!write(oom, "-1000", 5);
		close(oom);
	}
	snprintf(port, sizeof(port), "%d", AGENT_FILES_PORT);
	snprintf(descriptor, sizeof(descriptor), "%d", ready_fd);
	arguments[count++] = FUSED_NAME;
	arguments[count++] = "--vsock-port";
	arguments[count++] = port;
	arguments[count++] = "--ready-fd";
	arguments[count++] = descriptor;
	if (window_place) {
		snprintf(window, sizeof(window), "/dev/mem:%s", window_place);
		arguments[count++] = "--window";
		arguments[count++] = window;
	}
	for (size_t i = 0; i < config->mount_count; i++) {
		const struct agent_mount *mount = &config->mounts[i];
		char *text = texts + i * EXPORT_TEXT_MAX;
		char path[32];

		if (!is_export(mount))
			continue;
		file_daemon_staging_path(i, path);
		snprintf(text, EXPORT_TEXT_MAX, "%u:%s:%s", mount->export_id, path,
			 mount->flags & AGENT_MOUNT_READ_ONLY ? "ro" : "rw");
		arguments[count++] = "--export";
		arguments[count++] = text;
	}
	arguments[count] = NULL;
	execv(PROGRAM, (char *const *)(uintptr_t)arguments);
	_exit(127);
}

int file_daemon_start(struct file_daemon *daemon, const struct agent_config *config,
		      struct failure *failure)
{
	cleanup_free char *texts = NULL;
	int ready[2];
	bool any = false;
	int result;

	*daemon = (struct file_daemon){ .pid = -1, .ready_fd = -1 };
	for (size_t i = 0; i < config->mount_count; i++)
		any = any || is_export(&config->mounts[i]);
	if (!any)
		return 0;
	result = make_staging(config, failure);
	if (result < 0)
		return result;
	texts = calloc(AGENT_MOUNTS_MAX, EXPORT_TEXT_MAX);
	if (!texts || pipe2(ready, 0) < 0)
		return failure_set(failure, "guest-fused", errno, "cannot start " FUSED_NAME);
	daemon->pid = fork();
	if (daemon->pid == 0) {
		close(ready[0]);
		become_daemon(config, ready[1], texts);
	}
	result = daemon->pid < 0 ? errno : 0;
	close(ready[1]);
	if (result) {
		close(ready[0]);
		return failure_set(failure, "guest-fused", result, "cannot start " FUSED_NAME);
	}
	fcntl(ready[0], F_SETFD, FD_CLOEXEC);
	daemon->ready_fd = ready[0];
	return 0;
}

/* "ready ID" */
static int take_line(struct file_daemon *daemon, const struct agent_config *config,
		     struct failure *failure)
{
	char *end;
	unsigned long id;

	daemon->line[daemon->line_length] = '\0';
	daemon->line_length = 0;
	if (strncmp(daemon->line, "ready ", 6) != 0)
		return failure_set(failure, "guest-fused", 0, "it said \"%.40s\"", daemon->line);
	id = strtoul(daemon->line + 6, &end, 10);
	if (*end != '\0')
		return failure_set(failure, "guest-fused", 0, "it said \"%.40s\"", daemon->line);
	for (size_t i = 0; i < config->mount_count; i++) {
		if (is_export(&config->mounts[i]) && config->mounts[i].export_id == id)
			daemon->ready[i] = true;
	}
	return 0;
}

static int ended_early(struct file_daemon *daemon, const struct agent_mount *mount,
		       struct failure *failure)
{
	int status = 0;

	/* Its pipe is closed, so it has ended or is about to. */
	waitpid(daemon->pid, &status, 0);
	daemon->pid = -1;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return failure_set(failure, "guest-fused", 0,
				   "the initramfs has no " PROGRAM " that runs as it");
	return failure_set(failure, "guest-fused", 0,
			   "it ended (%s %d) before it had mounted export %u for %.300s; the "
			   "console has its message",
			   WIFSIGNALED(status) ? "signal" : "status",
			   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
			   mount->export_id, mount->target);
}

int file_daemon_wait(struct file_daemon *daemon, const struct agent_config *config, size_t index,
		     struct failure *failure)
{
	while (!daemon->ready[index]) {
		char byte;
		ssize_t count = read(daemon->ready_fd, &byte, 1);
		int result;

		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return ended_early(daemon, &config->mounts[index], failure);
		if (byte != '\n') {
			if (daemon->line_length < sizeof(daemon->line) - 1)
				daemon->line[daemon->line_length++] = byte;
			continue;
		}
		result = take_line(daemon, config, failure);
		if (result < 0)
			return result;
	}
	return 0;
}
