/*
 * The three commands of matchlock-audit. Each takes its own arguments (argv[0] is the command's
 * name), logs its own errors and returns the exit status: 0, 1 for a failure or a log that does
 * not verify, 2 for bad usage.
 */
#ifndef AUDIT_COMMANDS_H
#define AUDIT_COMMANDS_H

int command_serve(int argc, char **argv);
int command_show(int argc, char **argv);
int command_verify(int argc, char **argv);

#define EXIT_USAGE 2

#endif
