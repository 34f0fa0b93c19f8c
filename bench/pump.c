/*
 * What bytes through the standard streams of a command cost the host:
 *
 *     pump MIB COMMAND...
 *
 * starts COMMAND, which prints the line "ready" and from then on returns what it reads, sends it
 * MIB mebibytes through a pipe and takes them from another, and prints
 *
 *     WALL RELAY VCPU COPY
 *
 * in seconds: how long that took, and the processor time that COMMAND and all its descendants spent
 * meanwhile. VCPU is that of the emulator's threads other than its first, which are virtual
 * processors, and COPY that of processes named "cat"; RELAY is all the rest. Processes that start
 * or end meanwhile are not counted: there should be none.
 */
#include "base/io.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB_MAX 65536u
#define PROCESSES_MAX 8192u
#define CHUNK_SIZE 65536u
#define SECONDS_MAX 1800u

struct process {
	pid_t pid;
	pid_t parent;
	char name[32];
	bool counted;
};

struct usage {
	double relay;
	double vcpu;
	double copy;
};

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "pump: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- processor time -------------------------------------------------------------------------- */

/* The text of a file of /proc, or false when its process is gone. */
static bool read_text(const char *path, char *text, size_t capacity)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return false;
	length = read(fd, text, capacity - 1);
	close(fd);
	if (length < 0)
		return false;
	text[length] = '\0';
	return true;
}

/* proc(5), stat: "pid (name) state ppid ..."; the name may hold anything, also parentheses. */
static bool read_process(const char *number, struct process *process)
{
	char path[300];
	char text[512];
	const char *name;
	const char *end;

	snprintf(path, sizeof(path), "/proc/%s/stat", number);
	if (!read_text(path, text, sizeof(text)))
		return false;
	name = strchr(text, '(');
	end = strrchr(text, ')');
	if (!name || !end || strlen(end) < 5)
		return false;
	*process = (struct process){ .pid = (pid_t)strtol(number, NULL, 10),
				     .parent = (pid_t)strtol(end + 3, NULL, 10) };
	snprintf(process->name, sizeof(process->name), "%.*s", (int)(end - name - 1), name + 1);
	return true;
}

static size_t list_processes(struct process *processes)
{
	DIR *directory = opendir("/proc");
	const struct dirent *entry;
	size_t count = 0;

	must(directory != NULL, "/proc");
	while ((entry = readdir(directory)) && count < PROCESSES_MAX) {
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    read_process(entry->d_name, &processes[count]))
			count++;
	}
	closedir(directory);
	return count;
}

static void count_descendants(struct process *processes, size_t count, pid_t root)
{
	bool more = true;

	for (size_t i = 0; i < count; i++)
		processes[i].counted = processes[i].pid == root;
	while (more) {
		more = false;
		for (size_t i = 0; i < count; i++) {
			for (size_t j = 0; j < count && !processes[i].counted; j++) {
				if (!processes[j].counted ||
				    processes[i].parent != processes[j].pid)
					continue;
				processes[i].counted = true;
				more = true;
			}
		}
	}
}

static void add_threads(const struct process *process, struct usage *usage)
{
	char path[320];
	char text[128];
	DIR *directory;
	const struct dirent *entry;
	bool emulator = strncmp(process->name, "qemu-system", 11) == 0;
	bool copies = strcmp(process->name, "cat") == 0;

	snprintf(path, sizeof(path), "/proc/%d/task", process->pid);
	directory = opendir(path);
	while (directory && (entry = readdir(directory))) {
		double *sum = copies ? &usage->copy : &usage->relay;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", process->pid,
			 entry->d_name);
		if (!read_text(path, text, sizeof(text)))
			continue;
		if (emulator && strtol(entry->d_name, NULL, 10) != process->pid)
			sum = &usage->vcpu;
		/* Time on a processor in nanoseconds, then two other numbers. */
		*sum += (double)strtoull(text, NULL, 10) / 1e9;
	}
	if (directory)
		closedir(directory);
}

static struct usage measure(pid_t root)
{
	static struct process processes[PROCESSES_MAX];
	size_t count = list_processes(processes);
	struct usage usage = { 0 };

	count_descendants(processes, count, root);
	for (size_t i = 0; i < count; i++) {
		if (processes[i].counted)
			add_threads(&processes[i], &usage);
	}
	return usage;
}

/* ---- the command ----------------------------------------------------------------------------- */

static pid_t start(char **command, int *ret_input, int *ret_output)
{
	int input[2];
	int output[2];
	pid_t child;

	must(pipe2(input, O_CLOEXEC) == 0 && pipe2(output, O_CLOEXEC) == 0, "pipe");
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		dup2(input[0], STDIN_FILENO);
		dup2(output[1], STDOUT_FILENO);
		execvp(command[0], command);
		_exit(127);
	}
	close(input[0]);
	close(output[1]);
	*ret_input = input[1];
	*ret_output = output[0];
	return child;
}

static void wait_ready(int output)
{
	static const char ready[] = "ready\n";
	char text[sizeof(ready)] = "";

	for (size_t i = 0; i < sizeof(ready) - 1; i++) {
		must(read(output, text + i, 1) == 1, "the command ended before it was ready");
		must(text[i] == ready[i], "the command said something other than ready");
	}
}

static void pump(int input, int output, uint64_t total)
{
	static uint8_t chunk[CHUNK_SIZE];
	static uint8_t back[CHUNK_SIZE];
	struct pollfd polled[2] = { { .fd = input, .events = POLLOUT },
				    { .fd = output, .events = POLLIN } };
	uint64_t sent = 0;
	uint64_t received = 0;

	for (size_t i = 0; i < sizeof(chunk); i++)
		chunk[i] = (uint8_t)(i * 2654435761u >> 13);
	must(set_nonblocking(input, true) == 0 && set_nonblocking(output, true) == 0, "fcntl");
	while (received < total) {
		ssize_t count;

		if (sent == total)
			polled[0].fd = -1;
		must(poll(polled, 2, -1) > 0, "poll");
		if (polled[0].revents != 0 && sent < total) {
			uint64_t left = total - sent;

			count = write(input, chunk, left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE);
			must(count >= 0 || errno == EAGAIN, "write");
			sent += count > 0 ? (uint64_t)count : 0;
		}
		if (polled[1].revents != 0) {
			count = read(output, back, sizeof(back));
			must(count > 0 || (count < 0 && errno == EAGAIN), "read");
			received += count > 0 ? (uint64_t)count : 0;
		}
	}
}

int main(int argc, char **argv)
{
	unsigned long mib = argc > 2 ? strtoul(argv[1], NULL, 10) : 0;
	struct usage before;
	struct usage after;
	double began;
	double wall;
	int status;
	int input;
	int output;
	pid_t child;

	if (mib == 0 || mib > MIB_MAX) {
		fprintf(stderr, "usage: pump MIB COMMAND...\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	alarm(SECONDS_MAX);
	child = start(argv + 2, &input, &output);
	wait_ready(output);
	before = measure(child);
	began = now();
	pump(input, output, (uint64_t)mib << 20);
	wall = now() - began;
	after = measure(child);
	close(input);
	must(waitpid(child, &status, 0) == child, "wait");
	printf("%.4f %.4f %.4f %.4f\n", wall, after.relay - before.relay, after.vcpu - before.vcpu,
	       after.copy - before.copy);
	return status == 0 ? 0 : 1;
}
