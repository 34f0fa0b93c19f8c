/*
 * `matchlock run`: one command in a fresh guest, from the plan to the exit status.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "cli/paths.h"

/* argv[0] is "run". Returns the exit status: the command's own, 128 + its signal, 124 after
 * --timeout, 125 when the sandbox failed, 126 and 127 as a shell has them, 2 for usage. */
int command_run(int argc, char **argv, const struct paths *paths);

#endif
