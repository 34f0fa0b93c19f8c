/*
 * What was denied in a session, from its audit log: for the list after a failed command, which
 * says for each denial what would allow it, and decoys that were used, which come before anything
 * else that is said of a session.
 */
#ifndef CLI_DENIALS_H
#define CLI_DENIALS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define DENIALS_KEPT 64 /* distinct denials; more are only counted */
#define DENIALS_SHOWN 8 /* lines of the list */
#define DENIALS_CANARIES_KEPT 16

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
	/* A sentence each, escaped: where a decoy of --canary went, and what became of that. */
	char *canaries[DENIALS_CANARIES_KEPT];
	size_t canary_count;
};

/* Reads `directory`/audit.jsonl; a log that is missing yields none. The caller frees. */
struct denials *denials_read(const char *directory);
void denials_free(struct denials *denials);

/* A line for each, after `prefix`. */
void denials_print_canaries(const struct denials *denials, const char *prefix, FILE *out);
json_t *denials_canaries_json(const struct denials *denials);
void denials_print(const struct denials *denials, FILE *out);
json_t *denials_json(const struct denials *denials);

#endif
