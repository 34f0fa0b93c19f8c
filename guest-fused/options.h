/*
 * The command line of guest-fused:
 *
 *     guest-fused (--vsock-port N | --unix-socket PATH) --export ID:MOUNTPOINT:ro|rw ...
 *                 [--window PATH:OFFSET:SIZE[:PORT]] [--ready-fd N] [--workers N] [--stats] [-f]
 *                 [-q] [-v] [--debug]
 *
 * Strings borrow from argv.
 */
#ifndef GUEST_FUSED_OPTIONS_H
#define GUEST_FUSED_OPTIONS_H

#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUSED_EXPORTS_MAX 63u
#define FUSED_WORKERS_MAX 16u
#define FUSED_PATH_MAX 4096u

struct fused_export_option {
	uint32_t id; /* 1..63 */
	char mountpoint[FUSED_PATH_MAX];
	bool read_only;
};

struct fused_options {
	int64_t vsock_port;	 /* -1: not given */
	const char *unix_socket; /* NULL: not given */
	char window_path[FUSED_PATH_MAX];
	uint64_t window_offset;
	uint64_t window_size;	/* 0: no window */
	uint16_t doorbell_port; /* I/O port; 0: doorbells go over the streams */
	int ready_fd;		/* -1: nobody waits */
	uint32_t workers;	/* per export; 0: by the number of CPUs */
	bool stats;		/* counters on standard error at the end */
	bool help;
	enum log_level log_level;
	size_t export_count;
	struct fused_export_option exports[FUSED_EXPORTS_MAX];
};

/* Parses argv. Returns 0, or -EINVAL with a sentence for the person in `error`. */
int fused_options_parse(int argc, char *const *argv, struct fused_options *ret_options, char *error,
			size_t error_capacity);

extern const char fused_usage[];

#endif
