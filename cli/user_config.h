/*
 * The user's config.yaml: what `matchlock run` is to be given each time. Flags win over it.
 * docs/configuration.md describes the format.
 */
#ifndef CLI_USER_CONFIG_H
#define CLI_USER_CONFIG_H

#include "cli/options.h"
#include "cli/paths.h"

/* The file's settings, nothing else: `ret_settings` holds what it sets, with SOURCE_CONFIG, and is
 * freed with run_options_free(). `where` gains its settings' places, "file:line", or "" (each to be
 * freed with text_list_free()); it may be NULL. -1 when it is missing, malformed, or not the user's
 * alone to write. */
int user_config_read(const char *path, const struct paths *paths, struct run_options *ret_settings,
		     struct text_list *where, struct problem *problem);

/* Puts --config's file, or CONFIG/config.yaml if there is one, beneath the options. */
int user_config_apply(struct run_options *options, const struct paths *paths,
		      struct problem *problem);

/* The path that is read without --config. The caller frees. */
char *user_config_default(const struct paths *paths);

#endif
