#include "guest-init/process_tree.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A tree that forks faster than it is killed is given up on after so many passes. */
#define KILL_PASSES 16
#define PROCESSES_MAX 4096

void process_tree_create(struct process_tree *tree, int cgroup_root, uint32_t id)
{
	tree->directory = -1;
	tree->leader = -1;
	snprintf(tree->name, sizeof(tree->name), "exec-%u", id);
	if (cgroup_root < 0)
		return;
	if (mkdirat(cgroup_root, tree->name, 0755) < 0 && errno != EEXIST)
		return;
	tree->directory = openat(cgroup_root, tree->name, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int write_text(int directory, const char *name, const char *text)
{
	cleanup_fd int fd = openat(directory, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

pid_t process_tree_fork(const struct process_tree *tree, int *ret_result)
{
	struct clone_args arguments = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD };
	pid_t pid = -1;

	*ret_result = 0;
	if (tree->directory >= 0) {
		arguments.cgroup = (uint64_t)tree->directory;
		/* Moving a process that is there already stops all forks for a moment. */
		pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
	}
	if (pid >= 0)
		return pid;
	pid = fork();
	if (pid == 0 && tree->directory >= 0)
		*ret_result = write_text(tree->directory, "cgroup.procs", "0");
	return pid;
}

struct process {
	pid_t pid;
	pid_t parent;
	pid_t session;
	bool member;
};

/* Source: proc(5), /proc/pid/stat. The name in parentheses may hold anything. */
static bool read_process(const char *pid_text, struct process *process)
{
	char path[64];
	char text[1024];
	cleanup_fd int fd = -1;
	char state;
	int group;
	ssize_t length;
	const char *rest;

	snprintf(path, sizeof(path), "/proc/%.16s/stat", pid_text);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof(text) - 1);
	if (length <= 0)
		return false;
	text[length] = '\0';
	rest = strrchr(text, ')');
	if (!rest || sscanf(rest + 1, " %c %d %d %d", &state, &process->parent, &group,
			    &process->session) != 4)
		return false;
	process->pid = (pid_t)strtol(pid_text, NULL, 10);
	process->member = false;
	return state != 'Z' && state != 'X';
}

static size_t list_processes(struct process *processes)
{
	DIR *directory = opendir("/proc");
	const struct dirent *entry;
	size_t count = 0;

	if (!directory)
		return 0;
	while (count < PROCESSES_MAX && (entry = readdir(directory)) != NULL) {
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    read_process(entry->d_name, &processes[count]))
			count++;
	}
	closedir(directory);
	return count;
}

static bool mark_members(struct process *processes, size_t count, pid_t leader)
{
	bool found = false;
	bool changed = true;

	for (size_t i = 0; i < count; i++) {
		/* A leader is in its own session, but for a moment after the fork. */
		processes[i].member = processes[i].session == leader;
		found = found || processes[i].member;
	}
	while (changed) {
		changed = false;
		for (size_t i = 0; i < count; i++) {
			for (size_t j = 0; j < count && !processes[i].member; j++) {
				if (processes[j].member &&
				    processes[i].parent == processes[j].pid) {
					processes[i].member = true;
					changed = true;
				}
			}
		}
	}
	return found;
}

static void kill_by_session(pid_t leader)
{
	cleanup_free struct process *processes = calloc(PROCESSES_MAX, sizeof(*processes));

	if (!processes) {
		kill(-leader, SIGKILL);
		return;
	}
	for (int pass = 0; pass < KILL_PASSES; pass++) {
		size_t count = list_processes(processes);

		if (!mark_members(processes, count, leader))
			return;
		/* Stopped first, so that none forks while the others are being killed. */
		for (size_t i = 0; i < count; i++) {
			if (processes[i].member)
				kill(processes[i].pid, SIGSTOP);
		}
		for (size_t i = 0; i < count; i++) {
			if (processes[i].member)
				kill(processes[i].pid, SIGKILL);
		}
	}
}

void process_tree_kill(const struct process_tree *tree)
{
	if (tree->directory >= 0 && write_text(tree->directory, "cgroup.kill", "1") == 0)
		return;
	if (tree->leader > 0)
		kill_by_session(tree->leader);
}

bool process_tree_finish(struct process_tree *tree, int cgroup_root)
{
	if (tree->directory < 0) {
		process_tree_kill(tree);
		return true;
	}
	if (unlinkat(cgroup_root, tree->name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
		process_tree_kill(tree);
		return false;
	}
	close(tree->directory);
	tree->directory = -1;
	return true;
}
