/*
 * --secret: which secrets the guest may use without having them, where their values come from, and
 * the sealed bundle in which they go to the broker.
 *
 *     NAME[=SOURCE]@HOST[,HOST]...[+OPTION]...
 *
 * NAME is the variable that the guest sees, holding a placeholder. SOURCE is env:VARIABLE (env:NAME
 * when left out), file:PATH or cmd:COMMAND (a shell's command line, whose output it is); one
 * newline at the end is no part of the value. HOST is a name or *.NAME with an optional :PORT or :*
 * (443 when left out).
 *
 * OPTION is "query" or "body" (replaced there, too), "header=NAME" (only in that header; may be
 * repeated), "prefix=N" (how many characters of the value the placeholder keeps), "capture" (tokens
 * in JSON answers are kept from the guest), or "unpinned" (requests to these hosts may carry other
 * credentials as well).
 *
 * A value in the command line itself is refused: every process of the machine could read it.
 */
#ifndef CLI_SECRET_OPTION_H
#define CLI_SECRET_OPTION_H

#include "cli/text.h"
#include "wire/secret_bundle.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest time a cmd: may take. */
#define SECRET_COMMAND_MS 30000

enum secret_source {
	SECRET_FROM_ENVIRONMENT,
	SECRET_FROM_FILE,
	SECRET_FROM_COMMAND,
};

struct secret_option {
	char *name;
	enum secret_source source;
	char *from; /* variable, path or command */
	uint8_t flags;
	uint8_t prefix_length;
	struct text_list hosts; /* without ports */
	uint16_t ports[SECRET_HOSTS_MAX];
	struct text_list slots;
};

/* Parses one --secret. On failure *ret_option is untouched, and the problem quotes no more of the
 * text than the name. */
int secret_option_parse(const char *text, struct secret_option *ret_option,
			struct problem *problem);
void secret_option_free(struct secret_option *option);

/* Reads the values and writes the bundle to a memfd, sealed against every change, in *ret_fd, which
 * the caller owns. `with_canaries` adds decoys (secret_option_canary), and the `egress_rules` of a
 * policy (or NULL) the client certificates that they name (client_certificates.h). Values that came
 * from this process's environment are wiped from it, so that no child inherits them. Nothing else
 * here keeps a value. */
int secret_options_bundle(const struct secret_option *options, size_t count, bool with_canaries,
			  const json_t *egress_rules, int *ret_fd, struct problem *problem);

/* The name of the decoy with that number; NULL beyond the last. They are what somebody who looks
 * for credentials would look for. */
const char *secret_option_canary(size_t index);

#endif
