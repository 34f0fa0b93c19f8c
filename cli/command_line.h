/*
 * How subcommands end early: usage mistakes with status 2, failures with status 1.
 */
#ifndef CLI_COMMAND_LINE_H
#define CLI_COMMAND_LINE_H

#include "cli/options.h"
#include "cli/text.h"

/* Prints the problem; returns 2 for usage, else 1. */
int command_problem(const struct problem *problem);
/* Prints "matchlock COMMAND: MISTAKE" and where help is; returns 2. */
int command_usage(const char *command, const char *mistake);
/* Prints the help text; returns 0. */
int command_help(const char *command);
/* Asks "QUESTION [y/N] " on a terminal. False without one. */
bool ask(const char *question);

#endif
