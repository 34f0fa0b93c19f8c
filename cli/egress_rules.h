/*
 * What a policy file says of the network: its `egress` rules, made into what the broker is given
 * (the list `rules` of proxy/proxy_config.h), and `canary`. docs/policy.md describes the format.
 *
 * Here the file is only taken from YAML to JSON, strictly: one document, no repeated key, no
 * anchors, aliases or tags, nothing empty. What a rule may say is the broker's to judge, in one
 * place; each rule carries its `where`, "file:line", for its messages. Other keys of the file are
 * the file server's and are passed over.
 *
 * A plain scalar of digits is a number, `true` and `false` are booleans, everything else is text.
 */
#ifndef CLI_EGRESS_RULES_H
#define CLI_EGRESS_RULES_H

#include "cli/text.h"

#include <jansson.h>

#define EGRESS_RULES_BYTES_MAX (256u * 1024u) /* of the file */
#define EGRESS_RULES_DEPTH_MAX 8u
#define EGRESS_RULES_VALUES_MAX 16384u

/* What becomes of a session in which a decoy was used. */
enum canary_action {
	CANARY_UNSAID, /* decoys only with --canary; the request is denied */
	CANARY_DENY,   /* decoys are planted; the request is denied */
	CANARY_FREEZE, /* and so is everything after it */
};

struct egress_section {
	json_t *rules; /* a list, empty where the file has no `egress`; the caller drops it */
	enum canary_action canary;
};

/* -1 with *problem for a malformed file. */
int egress_rules_parse(const char *text, size_t length, const char *file_name,
		       struct egress_section *ret_section, struct problem *problem);

#endif
