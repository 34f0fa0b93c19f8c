/*
 * What a person does after a session (or during it): roll the exports back, or read what changed.
 * Works from the undo stores alone. Messages go to standard error, results to standard output.
 */
#ifndef FSSERVER_AFTERWARDS_H
#define FSSERVER_AFTERWARDS_H

#include <stdbool.h>
#include <stddef.h>

struct afterwards_options {
	const char *config; /* path of the configuration that the session ran with */
	bool json;
	bool name_only;
	bool colour;
	int audit_fd; /* -1: none */
	char **paths; /* for diff: these alone, relative to the export's root */
	size_t path_count;
};

/* Exit statuses: 0; 1 when something failed; 3 when a roll-back kept both versions of something. */
#define AFTERWARDS_KEPT 3

int afterwards_roll_back(const struct afterwards_options *options);
int afterwards_diff(const struct afterwards_options *options);

#endif
