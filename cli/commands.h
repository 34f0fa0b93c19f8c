/*
 * The subcommands beside `run`. Each takes its own arguments (argv[0] is its name) and returns
 * the exit status of the process.
 */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "cli/paths.h"

int command_ls(int argc, char **argv, const struct paths *paths);
int command_rm(int argc, char **argv, const struct paths *paths);
int command_prune(int argc, char **argv, const struct paths *paths);
int command_rollback(int argc, char **argv, const struct paths *paths);
int command_diff(int argc, char **argv, const struct paths *paths);
int command_audit(int argc, char **argv, const struct paths *paths);
int command_doctor(int argc, char **argv, const struct paths *paths);
int command_trust(int argc, char **argv, const struct paths *paths);
int command_config(int argc, char **argv, const struct paths *paths);
int command_allow(int argc, char **argv, const struct paths *paths);
int command_port_forward(int argc, char **argv, const struct paths *paths);
int command_version(int argc, char **argv, const struct paths *paths);

#endif
