/*
 * The help texts. They teach: what a command is for, its flags, and examples that can be pasted.
 */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stddef.h>

/* The text for a command, or for matchlock itself when `command` is NULL; NULL for an unknown
 * command. Static storage. */
const char *help_text(const char *command);

/* Names of all commands, NULL-terminated. */
extern const char *const command_names[];
size_t command_name_count(void);

#endif
