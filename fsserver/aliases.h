/*
 * Identity beside names: which inodes may not be written because they also stand at a protected
 * path, or have a name outside the export.
 *
 * Only regular files with more than one link are asked about. The first question makes a scan
 * of the export, which notes for each such inode how many names it has in there and whether one
 * of them is protected. Links that the guest makes are counted along, so that writing to what
 * it linked itself needs no scan.
 *
 * When an inode has more links than names are known, the host may have made one meanwhile: the
 * scan is repeated, at most every ALIASES_RESCAN_S seconds, and what is still unaccounted for is
 * outside.
 */
#ifndef FSSERVER_ALIASES_H
#define FSSERVER_ALIASES_H

#include "fsserver/policy.h"

#include <stdint.h>
#include <sys/stat.h>

#define ALIASES_RESCAN_S 10
#define ALIASES_SCAN_MAX 4000000u /* objects; more, and files with links are not written */

struct aliases;
struct export;

int aliases_new(struct aliases **ret_aliases);
void aliases_free(struct aliases *aliases);

/* May the content or the attributes of this regular file with several links change? Returns 0
 * with the verdict, or a negative errno. */
int aliases_judge(struct export *export, const struct statx *stat,
		  struct policy_verdict *ret_verdict);
/* The guest gave the inode, which had `links` links, one more name. */
void aliases_linked(struct export *export, const struct statx *before);
/* A file with several links was seen at a path that policy protects. */
void aliases_protected_found(struct export *export, const struct statx *stat);

#endif
