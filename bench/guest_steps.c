/*
 * What the file benchmark runs inside a guest besides busybox, static like it: a stopwatch finer
 * than a shell has, random input and output, and the machine's off switch.
 *
 *   guest_steps time NAME COMMAND...     runs COMMAND, prints "step NAME SECONDS STATUS"
 *   guest_steps random-read FILE COUNT   4 KiB at a time, at places that are the same each run
 *   guest_steps random-write FILE COUNT
 *   guest_steps off                      powers the machine off
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_SIZE 4096u

static int measure(const char *name, char **command)
{
	struct timespec began;
	struct timespec ended;
	int status = 0;
	pid_t pid;

	clock_gettime(CLOCK_MONOTONIC, &began);
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		if (null >= 0)
			dup2(null, STDOUT_FILENO);
		execvp(command[0], command);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return EXIT_FAILURE;
	clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("step %s %.6f %d\n", name,
	       (double)(ended.tv_sec - began.tv_sec) +
		       (double)(ended.tv_nsec - began.tv_nsec) / 1e9,
	       status);
	return EXIT_SUCCESS;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int random_blocks(const char *path, unsigned long count, int writing)
{
	static char block[BLOCK_SIZE];
	uint64_t state = UINT64_C(88172645463325252);
	struct stat file;
	int fd = open(path, writing ? O_WRONLY : O_RDONLY);

	if (fd < 0 || fstat(fd, &file) != 0 || file.st_size < BLOCK_SIZE) {
		perror(path);
		return EXIT_FAILURE;
	}
	for (unsigned long i = 0; i < count; i++) {
		uint64_t blocks = (uint64_t)file.st_size / BLOCK_SIZE;
		off_t offset = (off_t)(next_random(&state) % blocks * BLOCK_SIZE);
		ssize_t done;

		memcpy(block, &i, sizeof(i));
		done = writing ? pwrite(fd, block, BLOCK_SIZE, offset)
			       : pread(fd, block, BLOCK_SIZE, offset);
		if (done != BLOCK_SIZE) {
			perror(path);
			return EXIT_FAILURE;
		}
	}
	return close(fd) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "time") == 0 && argc > 3)
		return measure(argv[2], argv + 3);
	if (strcmp(what, "random-read") == 0 && argc == 4)
		return random_blocks(argv[2], strtoul(argv[3], NULL, 10), 0);
	if (strcmp(what, "random-write") == 0 && argc == 4)
		return random_blocks(argv[2], strtoul(argv[3], NULL, 10), 1);
	if (strcmp(what, "off") == 0 && argc == 2)
		return reboot(RB_POWER_OFF) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
	fprintf(stderr, "usage: guest_steps time NAME COMMAND... | random-read FILE COUNT | "
			"random-write FILE COUNT | off\n");
	return 2;
}
