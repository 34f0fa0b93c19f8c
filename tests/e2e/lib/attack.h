/*
 * What the classes of the file attack share: a scratch tree with things worth stealing inside and
 * outside of it, a server on it, a neighbour's server beside, and TAP.
 */
#ifndef TESTS_E2E_LIB_ATTACK_H
#define TESTS_E2E_LIB_ATTACK_H

#include "tests/e2e/lib/fs_client.h"

#define SECRET "the secret outside\n"

struct attack {
	const char *program;
	char base[64];	   /* the scratch folder */
	char tree[128];	   /* base/workspace */
	char outside[128]; /* base/outside: holds secret, which nobody may read or change */
	struct fs_server server;
	struct fs_server neighbour;
	struct fs_client client;
};

/* TAP */
void ok(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
void skip(const char *text, const char *why);
/* `got` is one of two errors. */
void refused(int got, int wanted, int or_wanted, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Paths of the host; all end the program when they fail. */
char *in_tree(const struct attack *attack, const char *path);
void put_file(const char *path, const char *content);
bool file_is(const char *path, const char *content);
bool exists(const char *path);
/* `true` when the secret is whole and nothing new lies beside it. */
bool outside_is_whole(const struct attack *attack);

/* Starts a server on the tree with these extra members of the export and of the document
 * (JSON beginning with a comma, or ""). */
void start(struct attack *attack, const char *export_extra, const char *extra);
void stop(struct attack *attack);
/* The neighbour session still answers. */
bool neighbour_works(const struct attack *attack);
uint64_t must_lookup(struct attack *attack, uint64_t parent, const char *name);

void attack_names(struct attack *attack);
void attack_races(struct attack *attack);
void attack_ids(struct attack *attack);
void attack_lengths(struct attack *attack);
void attack_channels(struct attack *attack);
void attack_floods(struct attack *attack);
void attack_cold_nodes(struct attack *attack);
void attack_special_files(struct attack *attack);
void attack_crossings(struct attack *attack);
void attack_mounts(struct attack *attack);
void attack_denied_paths(struct attack *attack);
void attack_undo(struct attack *attack);
void attack_full_disk(struct attack *attack);
void attack_single_file(struct attack *attack);

#endif
