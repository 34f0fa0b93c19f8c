/*
 * What was denied in a session, from its audit log: for the list after a failed command, which
 * says for each denial what would allow it.
 */
#ifndef CLI_DENIALS_H
#define CLI_DENIALS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define DENIALS_KEPT 64 /* distinct denials; more are only counted */
#define DENIALS_SHOWN 8 /* lines of the list */

/* All text is escaped: safe to print. Any may be NULL but `operation` and `path`. */
struct denial {
	char *operation;
	char *path;
	char *path2;
	char *rule;
	char *reason;
	char *hint;
	uint64_t count;
};

struct denials {
	struct denial items[DENIALS_KEPT];
	size_t count;
	uint64_t total; /* accesses, those that were not kept included */
};

/* Reads `directory`/audit.jsonl; a log that is missing yields none. The caller frees. */
struct denials *denials_read(const char *directory);
void denials_free(struct denials *denials);

void denials_print(const struct denials *denials, FILE *out);
json_t *denials_json(const struct denials *denials);

#endif
