/*
 * guest-fused: mounts exports of the host's file server. Runs in the guest, which is never
 * trusted: whatever it asks for, the server decides.
 */
#include "guest-fused/daemon.h"

#include "base/checked.h"
#include "base/io.h"
#include "base/log.h"
#include "guest-fused/export.h"
#include "guest-fused/mount.h"
#include "guest-fused/placement.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/resource.h>
#include <unistd.h>

#define WORKERS_LEAST 4u

struct daemon {
	struct fused_options options;
	struct fused_window window;
	struct fused_export *exports;
	size_t export_count;
};

static uint32_t default_workers(void)
{
	/* Of those that are there: guest-init starts all but the first later. */
	long processors = sysconf(_SC_NPROCESSORS_CONF);

	/* More than processors: a worker that waits for the host's disk serves nobody else. */
	if (processors < WORKERS_LEAST / 2)
		return WORKERS_LEAST;
	return MIN_OF((uint32_t)processors * 2, FUSED_WORKERS_MAX);
}

static void announce(const struct daemon *daemon, uint32_t id)
{
	char line[32];
	int length = snprintf(line, sizeof(line), "ready %u\n", id);

	if (daemon->options.ready_fd >= 0 &&
	    write_full(daemon->options.ready_fd, line, (size_t)length) != 0)
		log_warning("nobody reads the ready descriptor");
	log_info("export %u is mounted", id);
}

static int start_exports(struct daemon *daemon)
{
	const struct fused_options *options = &daemon->options;
	struct fused_endpoint endpoint = {
		.vsock_port = options->vsock_port,
		.unix_path = options->unix_socket,
	};
	uint32_t workers = options->workers > 0 ? options->workers : default_workers();

	if (options->window_size > 0) {
		/* Once, now: the path may lead nowhere when the guest's root is in place. */
		daemon->window.fd = open(options->window_path, O_RDWR | O_CLOEXEC);
		if (daemon->window.fd < 0) {
			log_error("cannot open %s: %s", options->window_path, strerror(errno));
			return -errno;
		}
		/* Threads inherit the permission. */
		if (options->doorbell_port != 0 && ioperm(options->doorbell_port, 1, 1) != 0) {
			log_error("cannot use I/O port %#x: %s", options->doorbell_port,
				  strerror(errno));
			return -errno;
		}
		daemon->window.doorbell_port = options->doorbell_port;
		daemon->window.offset = options->window_offset;
		daemon->window.size = options->window_size;
		endpoint.window = &daemon->window;
	}

	daemon->exports = calloc(options->export_count, sizeof(*daemon->exports));
	if (daemon->exports == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < options->export_count; i++) {
		const char *stage = "";
		int result = fused_export_start(&daemon->exports[i], &options->exports[i],
						&endpoint, workers, &stage);

		if (result != 0) {
			log_error("export %u at %s: cannot %s: %s", options->exports[i].id,
				  options->exports[i].mountpoint, stage, strerror(-result));
			return result;
		}
		daemon->export_count++;
		announce(daemon, options->exports[i].id);
	}
	if (options->ready_fd > STDERR_FILENO)
		close(options->ready_fd);
	return 0;
}

static void print_statistics(struct daemon *daemon)
{
	char text[2048];

	for (size_t i = 0; i < daemon->export_count; i++) {
		fused_export_statistics(&daemon->exports[i], text, sizeof(text));
		dprintf(STDERR_FILENO, "guest-fused: stats %s\n", text);
	}
}

/* Returns true when there is no more to do. */
static bool all_ended(const struct daemon *daemon)
{
	for (size_t i = 0; i < daemon->export_count; i++)
		if (!atomic_load(&daemon->exports[i].ended))
			return false;
	return true;
}

/* The first export whose server is gone; 0 when all is well. */
static int find_lost(const struct daemon *daemon, uint32_t *ret_id)
{
	for (size_t i = 0; i < daemon->export_count; i++) {
		int lost = atomic_load(&daemon->exports[i].lost);

		if (lost != 0 && !atomic_load(&daemon->exports[i].ended)) {
			*ret_id = daemon->exports[i].id;
			return lost;
		}
	}
	return 0;
}

/* Waits for the end. Returns the exit status. */
static int supervise(struct daemon *daemon, const sigset_t *signals)
{
	for (;;) {
		uint32_t id = 0;
		int number;
		int lost;

		if (sigwait(signals, &number) != 0)
			continue;
		if (number == SIGUSR1) {
			print_statistics(daemon);
			continue;
		}
		lost = find_lost(daemon, &id);
		if (lost == -ESHUTDOWN)
			return EXIT_SUCCESS;
		if (lost != 0) {
			log_error("export %u: the file server is gone: %s; its files fail from now "
				  "on",
				  id, strerror(-lost));
			return EXIT_FAILURE;
		}
		if (number == SIGUSR2) {
			if (all_ended(daemon))
				return EXIT_SUCCESS;
			continue;
		}
		for (size_t i = daemon->export_count; i > 0; i--)
			fused_unmount(daemon->options.exports[i - 1].mountpoint);
		return EXIT_SUCCESS;
	}
}

int fused_main(int argc, char **argv)
{
	static struct daemon daemon;
	struct rlimit no_core = { 0, 0 };
	sigset_t signals;
	char error[256];
	int status;

	log_configure(FUSED_NAME, LOG_LEVEL_WARNING);
	if (fused_options_parse(argc, argv, &daemon.options, error, sizeof(error)) != 0) {
		log_error("%s", error);
		return 2;
	}
	if (daemon.options.help) {
		fputs(fused_usage, stdout);
		return EXIT_SUCCESS;
	}
	log_configure(FUSED_NAME, daemon.options.log_level);
	/* A dump of this process would be written to what it serves. */
	(void)setrlimit(RLIMIT_CORE, &no_core);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	/* Blocked in all threads: the main one waits for them. */
	if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0)
		return EXIT_FAILURE;
	signal(SIGPIPE, SIG_IGN);
	/* One heap: the threads allocate little, and most of it under the cache's lock. */
	(void)mallopt(M_ARENA_MAX, 1);
	fused_placement_apply();
	if (start_exports(&daemon) != 0) {
		for (size_t i = 0; i < daemon.export_count; i++)
			fused_unmount(daemon.options.exports[i].mountpoint);
		return EXIT_FAILURE;
	}
	status = supervise(&daemon, &signals);
	if (daemon.options.stats)
		print_statistics(&daemon);
	/* The threads are left as they are: with the device closed the kernel fails what they
	 * serve, which is what is wanted. */
	fflush(NULL);
	_exit(status);
}
