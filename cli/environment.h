/*
 * The command's environment. Nothing of the host's is passed on but what is named here (search
 * path, language, time zone, with -t the terminal's kind) and what -e and --env-file ask for:
 * secrets sit in environments.
 */
#ifndef CLI_ENVIRONMENT_H
#define CLI_ENVIRONMENT_H

#include "cli/options.h"
#include "cli/text.h"

#include <stdbool.h>

#define ENVIRONMENT_FILE_MAX (1u << 20) /* bytes of one --env-file */

struct environment_facts {
	const char *home;
	const char *user;
	const char *shell;
	const char *session; /* id */
	bool superuser;
	bool host_image; /* the host's search path means something inside */
	bool network;	 /* programs need to be told whom to trust */
};

/* Adds "NAME=value" strings, each name once; later sources win: facts, config.yaml,
 * files, -e. */
int environment_build(const struct run_options *options, const struct environment_facts *facts,
		      struct text_list *ret_environment, struct problem *problem);
/* Adds "NAME=value" unless that name is there. */
void environment_add(struct text_list *environment, const char *entry);

#endif
