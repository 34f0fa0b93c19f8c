/*
 * YAML files of flat form, read strictly: one document, a mapping of plain keys to scalars and
 * lists of scalars. Unknown and repeated keys, wrong types, anchors, aliases, tags, NUL characters
 * and a second document are errors that name file, line and key.
 *
 * The bytes may be an attacker's (a project's file is read before anyone trusts it). Sources: YAML
 * 1.1 as libyaml reads it; libcyaml's schemas.
 */
#ifndef CLI_FLAT_YAML_H
#define CLI_FLAT_YAML_H

#include "cli/text.h"

#include <cyaml/cyaml.h>
#include <stddef.h>

#define FLAT_YAML_BYTES_MAX (256u * 1024u)
#define FLAT_YAML_KEYS_MAX 32	  /* of one schema */
#define FLAT_YAML_ITEMS_MAX 4000u /* of all lists together */

/* A key that the form does not have on purpose, and why. */
struct flat_yaml_refusal {
	const char *key;
	const char *why;
};

struct flat_yaml_form {
	/* A mapping, CYAML_FLAG_POINTER; its first field is the number `version`, which must be 1.
	 */
	const cyaml_schema_value_t *schema;
	const struct flat_yaml_refusal *refusals; /* ends with a NULL key */
	const char *manual;			  /* where the format is described */
};

/* Where keys and the items of lists stand. */
struct flat_yaml_lines {
	struct {
		const char *key; /* the schema's */
		unsigned line;
		unsigned *items;
		size_t item_count;
	} keys[FLAT_YAML_KEYS_MAX];
	size_t count;
};

/* *ret_data is what the schema describes; both are released with flat_yaml_free(). */
int flat_yaml_read(const struct flat_yaml_form *form, const char *text, size_t length,
		   const char *file_name, void **ret_data, struct flat_yaml_lines *ret_lines,
		   struct problem *problem);
void flat_yaml_free(const struct flat_yaml_form *form, void *data, struct flat_yaml_lines *lines);

/* From 1; 0 for a key that is not there. */
unsigned flat_yaml_key_line(const struct flat_yaml_lines *lines, const char *key);
unsigned flat_yaml_item_line(const struct flat_yaml_lines *lines, const char *key, size_t item);

#endif
