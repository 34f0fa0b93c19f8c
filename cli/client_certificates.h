/*
 * Client certificates that rules of a policy name:
 *
 *     client_certificate: {certificate: file:PATH, key: file:PATH}
 *
 * The broker's rule then has a name in place of the mapping, and under that name the bundle of
 * secrets has what the two files hold (wire/secret_bundle.h). Whether that is a certificate with
 * its key is the broker's to judge. A relative PATH begins where the policy file is; ~/ is the
 * home directory.
 */
#ifndef CLI_CLIENT_CERTIFICATES_H
#define CLI_CLIENT_CERTIFICATES_H

#include "base/bytes.h"
#include "cli/text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Checks the form of each, and makes paths absolute. `policy` is the file's path. -1 with *problem.
 */
int client_certificates_check(json_t *rules, const char *policy, struct problem *problem);
/* Whether any rule has one. */
bool client_certificates_are_wanted(const json_t *rules);
/* The path of the key that the rule at `index` names; NULL without one. Borrowed. */
const char *client_certificates_key(const json_t *rules, size_t index);
/* Adds what the files hold to the bundle, each pair once. -1 with *problem. */
int client_certificates_bundle(const json_t *rules, struct byte_writer *bundle,
			       struct problem *problem);
/* Puts names in place of mappings, which were checked. */
void client_certificates_name(json_t *rules);

#endif
